//! coreflow runs swarms of agents on pinned cores and never loses a task it has accepted.
//!
//! # The map
//!
//! Each module is a *room* with one reason to change; a room imports only rooms below it.
//!
//! | room | owns |
//! |---|---|
//! | [`cli`] | one file a subcommand; no logic |
//! | [`bench`] | the benchmark suites and their figures |
//! | [`client`] | talks to a node from another process, one request or thousands at a time |
//! | [`server`] | listeners and protocols: MessagePack-RPC, HTTP (MCP, metrics, health) |
//! | [`node`] | joins the cores into one node: start, routes, drain, shutdown |
//! | [`shard`] | what a worker core owns: its loop, agents, mailboxes, calls, tasks |
//! | [`consensus`] | the durable log of what happened to tasks |
//! | [`gossip`] | which nodes live, and what each says of itself |
//! | [`memory`] | nearest vectors: codes, kernels and the graph of one partition |
//! | [`task`] | the task's life as a pure state machine, its queue and the load index |
//! | [`registry`] | who is where: agents by id, type and name |
//! | [`metrics`] | counters, histograms, `.hgrm` and JSON output, comparison of runs |
//! | [`wire`] | what crosses a core or a socket: envelopes, batches, MessagePack and JSON |
//! | [`runtime`] | the only room that names the engine: executors, rings, mesh, sockets, files |
//! | [`planted`] | bugs that a build for the simulator can be given, to show that it finds them |
//! | [`config`] | `tuning/*.toml`: parse, validate, derived constants |

pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod consensus;
pub mod gossip;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod planted;
pub mod registry;
pub mod runtime;
pub mod server;
pub mod shard;
pub mod task;
pub mod wire;
