//! What a worker core owns: its loop, its agents and their mailboxes, calls, timers and tasks.
//!
//! A shard is one value on one core; nothing in it is shared with another thread. Its
//! [`Shard::turn`](core::Shard::turn) takes what arrived over the mesh, calls the agents, and puts
//! what they send on its way; `run` repeats turns, lets the core's other futures (connections,
//! agents' futures) run in between, and parks the core when there is nothing to do.
//!
//! Invariants worth naming:
//! - An agent's methods are called by its core's loop alone, one at a time, and run to their end.
//! - Messages from one agent to another arrive in the order in which they were sent. A mailbox
//!   keeps that order: while anything waits in it, new messages queue up behind.
//! - A full mailbox loses nothing: its senders are told to stop, and what was on its way by then
//!   still finds room.
//! - A panic in an agent's method ends that agent only. A panic anywhere else, a future that an
//!   agent started among it, ends the core's thread: the process goes on, that core does not.

pub mod agent;
mod agents;
mod asking;
pub mod backlog;
pub mod builtin;
pub mod bulletin;
mod calls;
pub mod context;
pub mod core;
mod deliver;
pub mod doors;
pub mod exec;
pub mod guests;
pub mod handle;
mod kernel;
mod leadership;
mod ledger;
pub mod lending;
mod links;
pub mod memory;
pub mod neighbours;
mod news;
pub mod partition;
mod placing;
mod pools;
mod reads;
pub mod recovering;
pub mod remote;
mod requests;
pub mod run;
mod submissions;
mod supervise;
mod tasks;
#[cfg(test)]
mod tests;
pub mod trunks;
pub mod types;
pub mod wheel;
