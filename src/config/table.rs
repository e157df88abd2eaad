//! The table of every tuning key: one row says what is parsed, checked, printed and documented.
//!
//! A field of the model without a row does not compile, and neither does a row without a field.

use super::key::{Field, Key, Preset, Rule, Section, Value};
use super::model::{
    Agents, Cluster, Config, Consensus, Cores, DropPolicy, Embedder, Gossip, Log, Memory, Mesh,
    Runtime, Server, Tasks,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const NODE_ID_MAX: u64 = u32::MAX as u64;

/// Builds, from the rows, the sections and the two ways between values and the model.
macro_rules! tuning_table {
    (
        $( $section:ident: $Model:ident, $heading:literal {
            $( $field:ident = $name:literal, $rule:expr, $default:expr, $meaning:literal,
                $cost:literal; )*
        } )*
    ) => {
        /// The sections whose keys appear once in a file, in the order in which they are printed.
        pub(super) static SECTIONS: &[Section] = &[ $( Section {
            name: stringify!($section),
            heading: $heading,
            keys: &[ $( Key {
                name: $name,
                rule: $rule,
                default: $default,
                meaning: $meaning,
                cost: $cost,
            } ),* ],
        } ),* ];

        /// The model made of the value of each `(section, key)`; no entries of lists yet.
        pub(super) fn build(mut value: impl FnMut(&'static str, &'static str) -> Value) -> Config {
            Config {
                $( $section: $Model {
                    $( $field: Field::from_value(&value(stringify!($section), $name)) ),*
                }, )*
                agent: Vec::new(),
                node: Vec::new(),
            }
        }

        /// The values of a model in the order of [`SECTIONS`] and their keys.
        pub(super) fn values(config: &Config) -> Vec<Vec<Value>> {
            vec![ $( vec![ $( config.$section.$field.to_value() ),* ] ),* ]
        }
    };
}

const fn number(min: u64, max: u64, unit: &'static str) -> Rule {
    Rule::Integer { min, max, unit }
}

const fn power(min: u64, max: u64, unit: &'static str) -> Rule {
    Rule::PowerOfTwo { min, max, unit }
}

use Preset::{Absent, Example, Integer as Int, NoWords, Text};

tuning_table! {
    cores: Cores, "Which cores do what. \"auto\" takes the cores that this process may run on." {
        workers = "workers", Rule::Cores, Text("auto"),
            "Processors that run agents, each with one pinned executor.",
            "Each one costs a mesh ring to and from every other core, and its locked I/O memory.";
        raft = "raft", Rule::Cores, Text("auto"),
            "Processors that run the task log and what belongs to the whole node; never shared \
             with a listed worker core.",
            "A core that runs no agent. With one or two cores \"auto\" shares them, and a busy \
             agent can then delay the log.";
    }
    runtime: Runtime, "How the executor of a core polls, spins and parks." {
        spin = "spin_us", Rule::Spin { max: 1_000_000 }, Int(50),
            "How long an idle core polls its rings before it parks, microseconds.",
            "Spinning uses a whole core and slows what shares it; parking costs about 25 \
             microseconds at the next message, and as much at its answer.";
        poll_io_us = "poll_io_us", number(1, 10_000, "microseconds"), Int(500),
            "The longest time that a busy or spinning core goes without looking at all of its I/O.",
            "A look takes about 5 microseconds, in which messages wait. Sockets announce \
             themselves sooner; files and the pipes of children wait for the next look.";
        ring_depth = "ring_depth", power(32, 4096, "entries"), Int(128),
            "Entries in each of the three io_uring rings of an executor.",
            "Kernel memory for each core; too few entries make I/O wait for its turn.";
        io_memory_kib = "io_memory_kib", number(64, MIB, "KiB"), Int(512),
            "Memory that an executor registers with the kernel for file I/O.",
            "It counts three times a core against RLIMIT_MEMLOCK (8 MiB is usual: five cores at \
             512 KiB). Above the limit I/O still works, with a copy more.";
    }
    mesh: Mesh, "How messages travel between cores: one ring for every ordered pair." {
        ring_batches = "ring_batches", power(2, 65_536, "batches"), Int(64),
            "Batches that one ring holds before its sender waits.",
            "Memory of each of the cores x cores rings; a longer ring hides a slow receiver for \
             longer and adds that much to the latency.";
        batch_messages = "batch_messages", number(1, 10_000, "messages"), Int(100),
            "Messages after which a batch leaves.",
            "More share the cost of a ring operation and wait longer for the batch to be read; \
             fewer do the opposite.";
        batch_bytes = "batch_bytes", number(KIB, 16 * MIB, "bytes"), Int(65_536),
            "Bytes after which a batch leaves.",
            "One buffer of this size for each batch on its way; past the second level cache each \
             message costs a memory access more.";
        batch_timeout_us = "batch_timeout_us", number(0, 1_000_000, "microseconds"), Int(10_000),
            "The longest time that the oldest message of a batch waits.",
            "Only felt by a core that stays busy: an idle one sends at once. Longer fills batches \
             and delays what waits in them.";
        shared_payload_bytes = "shared_payload_bytes", number(64, MIB, "bytes"), Int(4096),
            "Payloads of at least this many bytes travel by reference count beside the batch.",
            "Smaller saves copies and pays an allocation and a counter for each payload; larger \
             copies more bytes into batches.";
        injector_requests = "injector_requests", number(16, MIB, "requests"), Int(4096),
            "Requests from threads outside the runtime that may wait at one core.",
            "A slot of memory for each; beyond them the caller is told backpressure.";
    }
    agents: Agents, "Limits that hold for every agent." {
        mailbox_messages = "mailbox_messages", number(1, MIB, "messages"), Int(1024),
            "Messages that wait for one agent that is not ready before its senders are refused.",
            "Memory of the waiting messages of each slow agent; a long mailbox hides that it is \
             slow.";
        max_per_core = "max_per_core", number(1, 1_000_000, "agents"), Int(10_000),
            "Agents that one core may own.",
            "Memory of each agent that exists, a few KiB; nothing for those that do not.";
        max_calls = "max_calls", number(1, MIB, "calls"), Int(65_536),
            "Calls that may wait for their answer on one core.",
            "A slot of memory for each waiting call; beyond them a call is refused at once.";
        call_timeout_ms = "call_timeout_ms", number(1, 3_600_000, "milliseconds"), Int(5000),
            "How long a call waits when the caller names no timeout.",
            "Longer keeps the slots of calls that nobody will answer; shorter gives up on agents \
             that are only slow.";
        max_restarts = "max_restarts", number(0, 10_000, "restarts"), Int(10),
            "Restarts of a crashing agent within `restart_window_ms`; the next one waits until the \
             window has room. 0: none, until an agent of the type is spawned.",
            "More restarts spend processor time on an agent that cannot live; fewer leave tasks \
             waiting for one that has a bad minute.";
        restart_window_ms = "restart_window_ms", number(1, DAY_MS, "milliseconds"), Int(60_000),
            "The window in which `max_restarts` are counted.",
            "Longer makes agents wait that crash seldom; shorter lets one crash more often.";
    }
    tasks: Tasks, "Queues and limits of the task service." {
        queue_primary = "queue_primary", number(1, 10_000_000, "tasks"), Int(1000),
            "Tasks that wait on one shard before it counts as loaded.",
            "Longer evens out bursts less between the shards; each waiting task costs its payload \
             and its bookkeeping, with a durable log about 40 bytes beyond `queue_bytes`.";
        queue_overflow = "queue_overflow", number(0, 10_000_000, "tasks"), Int(10_000),
            "Tasks that wait beyond `queue_primary` before submissions are refused.",
            "Each waiting task costs its payload and its bookkeeping, with a durable log about 40 \
             bytes beyond `queue_bytes`; the last one waits for all before it.";
        queue_bytes = "queue_bytes", number(64 * KIB, 64 * GIB, "bytes"), Int(6_291_456),
            "Bytes of waiting tasks that a shard keeps in memory when the log has them as well, \
             payloads and about 200 bytes of each; those behind keep about 40 bytes each, and are \
             read back before their turn. Without a durable log all are in memory.",
            "That much memory on each worker core. Less reads back more tasks, which takes about \
             a quarter of the work of running one.";
        retained = "retained", number(0, 10_000_000, "tasks"), Int(100_000),
            "Ended tasks whose result a shard keeps for those who ask later.",
            "Memory of each task and its result; the oldest is forgotten first.";
        retained_bytes = "retained_bytes", number(KIB, 64 * GIB, "bytes"), Int(67_108_864),
            "Bytes of results that a shard keeps.",
            "That much memory on each worker core.";
        max_payload_bytes = "max_payload_bytes", number(KIB, 64 * MIB, "bytes"), Int(1_048_576),
            "The largest payload of a task, and the largest result.",
            "Memory of every waiting task of that size, and a longer pause while one is copied \
             to the log.";
        max_attempts = "max_attempts", number(1, 1000, "attempts"), Int(3),
            "Attempts of a task when its submitter names none; then it is a dead letter.",
            "More attempts repeat the work of tasks that can never succeed.";
        timeout_ms = "timeout_ms", number(1, DAY_MS, "milliseconds"), Int(60_000),
            "How long one attempt may take when the submitter names no limit.",
            "Longer leaves a task longer with an agent that hangs; shorter runs slow tasks twice.";
        ageing_ms = "ageing_ms", number(1, DAY_MS, "milliseconds"), Int(10_000),
            "How long a task waits until it is as urgent as one of the next higher priority that \
             has just come.",
            "Longer lets less urgent tasks starve longer while more urgent ones keep coming; \
             shorter makes priorities matter less.";
        retry_base_ms = "retry_base_ms", number(0, 3_600_000, "milliseconds"), Int(100),
            "Pause between the first attempt of a task and the second, shortened by up to half at \
             random; it doubles with each further attempt. 0 tries again at once.",
            "Longer ends failing tasks later; shorter burdens what they fail on.";
        retry_max_ms = "retry_max_ms", number(0, DAY_MS, "milliseconds"), Int(30_000),
            "The longest pause between two attempts.",
            "Longer ends failing tasks later; shorter burdens what they fail on.";
        key_ttl_ms = "key_ttl_ms", number(1000, 30 * DAY_MS, "milliseconds"), Int(86_400_000),
            "How long a second submission with the key of a first one is the same task.",
            "Memory of each key for that long, about 128 bytes, and its bytes in the log.";
        keys_max = "keys_max", number(1, 10_000_000, "keys"), Int(1_000_000),
            "Keys that a shard remembers; beyond them submissions with a key are refused.",
            "About 128 bytes of memory for each key.";
        dead_max = "dead_max", number(1, 10_000_000, "tasks"), Int(100_000),
            "Dead letters that a shard keeps until they are queued again; beyond them the oldest \
             is forgotten.",
            "Memory of each: about 250 bytes with its error; without a durable log or for a \
             task with `durable = false` also its payload.";
        drop_policy = "drop_policy", Rule::OneOf(&DropPolicy::NAMES), Text("reject"),
            "What a full queue does with a new task: \"reject\" refuses it, \"low_priority\" \
             evicts a waiting task with `durable = false` of a lower priority, \"oldest\" the one \
             that waits longest.",
            "An evicted task ends as dead without having run; tasks with `durable = true` are \
             never evicted.";
    }
    log: Log, "The durable log: every task that was accepted is in it until it has ended." {
        folder = "folder", Rule::Path, Text("coreflow-data"),
            "The folder of the log, made when it is not there; a node has it alone.",
            "Its disk's time for one synced write is what an accepted task waits for, and shares \
             with all that are accepted meanwhile.";
        segment_mib = "segment_mib", number(1, 2047, "MiB"), Int(64),
            "The size of a file of the log. Each is filled with zeros before it is used and used \
             again when nothing in it lives.",
            "Larger files take longer to make ahead and are freed later; smaller ones are more, \
             and a payload must fit into one.";
        keep_mib = "keep_mib", number(4, 1_048_576, "MiB"), Int(512),
            "Beyond this much log the oldest files are freed, once what lives in them was written \
             again.",
            "That much disk, twice that in bursts; where more lives than fits, about twice what \
             lives. Less writes living tasks again more often; more takes longer to read at a \
             start.";
        block_kib = "block_kib", number(4, 65_536, "KiB"), Int(1024),
            "The most that a core gathers before it hands it to the log; only one record that is \
             larger makes a larger block.",
            "Memory: eight blocks of a core may be on their way. Smaller blocks refuse \
             submissions sooner when the disk is slow.";
        realtime = "realtime", Rule::OneOf(&["auto", "off"]), Text("auto"),
            "Whether the log's thread takes a real-time priority where it may (root or \
             CAP_SYS_NICE).",
            "With it the thread interrupts agents for some microseconds a write; without it, busy \
             cores delay every write by about 4 milliseconds.";
    }
    memory: Memory, "Pattern memory: what agents learned, as vectors, and which of them are nearest \
                     to a query." {
        dimension = "dimension", number(2, 4096, "numbers"), Int(384),
            "Numbers of each vector: as many as the model gives that makes them. It stays when \
             something is stored.",
            "Memory and time in proportion: about one byte a number for each vector in memory, \
             five on disk.";
        metric = "metric", Rule::OneOf(&["cosine", "euclidean", "dot"]), Text("cosine"),
            "What near means: the angle between two vectors, the distance of two points, or the \
             dot product. It stays when something is stored.",
            "Nothing; \"dot\" finds less where vectors are of very different lengths.";
        ef_search = "ef_search", number(1, 4096, "candidates"), Int(50),
            "Candidates that a search keeps when its caller names no `ef`; never fewer than the hits \
             that it asks for.",
            "More find more of the true nearest, and each search takes longer in proportion.";
        ef_construction = "ef_construction", number(16, 4096, "candidates"), Int(200),
            "Candidates that are weighed when a vector gets its neighbours.",
            "More make searches find more, and each insertion takes longer in proportion.";
        folder = "folder", Rule::OptionalPath, Text(""),
            "The folder of the memory, made when it is not there; a node has it alone. \"\": the \
             folder `memory` in `log.folder`.",
            "Its disk's time for one synced write is what an acknowledgement waits for.";
        segment_mib = "segment_mib", number(1, 2047, "MiB"), Int(64),
            "The size of a record file of a memory that is not there yet; one that is there keeps its \
             own. Each worker core that keeps something has two of them at least.",
            "Larger files are made ahead and freed in larger steps; smaller ones are more, each of \
             them mapped.";
        max_vectors = "max_vectors", number(1, 1_000_000_000, "vectors"), Int(1_000_000),
            "Vectors that all cores together keep; beyond them what would add one is refused with \
             backpressure.",
            "Memory of each vector that is there: at 384 numbers about 550 bytes; nothing for those \
             that are not.";
        embedder = "embedder", Rule::OneOf(&Embedder::NAMES), Text("lexical"),
            "What makes a vector of a text: \"none\" takes vectors only, \"lexical\" counts words and \
             pieces of words, so that texts are near which share words, whatever they mean, \
             \"exec\" asks a child process, such as one with a sentence model.",
            "Vectors of different embedders cannot be compared: after a change store again what \
             was stored by text.";
        embedder_command = "embedder_command", Rule::OptionalCommand, NoWords,
            "The program of the \"exec\" embedder and its arguments; for no other.",
            "A process with three pipes, and the memory of its model.";
        embedder_model = "embedder_model", Rule::OptionalTitle, Text(""),
            "What identifies the \"exec\" embedder: it is kept with what is stored, and a start with \
             another one is refused where vectors were made of texts. \"\": its program and arguments.",
            "Nothing. With a name of its own the program may move; the same name for another model \
             lets searches compare what cannot be compared.";
        embedder_timeout_ms = "embedder_timeout_ms", number(1, 600_000, "milliseconds"), Int(10_000),
            "How long the \"exec\" embedder may take for one request, but for the first one after its \
             start at least two minutes; then it is ended and started again.",
            "Longer leaves clients longer with an embedder that hangs; shorter ends one that is \
             only slow.";
        embedder_queue = "embedder_queue", number(1, 100_000, "texts"), Int(1024),
            "Texts that may wait for the \"exec\" embedder; beyond them the client is told \
             backpressure.",
            "Memory of each text that waits, and time: the last one waits for all before it.";
    }
    server: Server, "Listeners and their limits." {
        rpc_address = "rpc_address", Rule::Address, Text("127.0.0.1:7450"),
            "Where MessagePack-RPC listens: clients and workers. Port 0 takes a free one. Beyond the \
             loopback only with `token_file`.",
            "A socket on each worker core.";
        http_address = "http_address", Rule::Address, Text("127.0.0.1:7451"),
            "Where HTTP listens: MCP, metrics, health. Port 0 takes a free one. Beyond the loopback \
             only with `token_file`.",
            "A socket on each worker core.";
        token_file = "token_file", Rule::OptionalPath, Text(""),
            "The file with the token, 16 bytes at least, that clients must know: they call `auth` \
             first, or send `Authorization: Bearer TOKEN`. \"\": none is asked for.",
            "Nothing. Neither the token nor what follows it is encrypted: between machines use a \
             network that is.";
        max_frame_bytes = "max_frame_bytes", number(4 * KIB, 256 * MIB, "bytes"), Int(4_194_304),
            "The largest request; a larger one is answered `too_large` and its connection closed.",
            "Every connection may hold a buffer of this size while a request arrives.";
        max_connections = "max_connections", number(1, 1_000_000, "connections"), Int(4096),
            "Connections that one core serves.",
            "A file descriptor and a few KiB for each connection; RLIMIT_NOFILE must allow the \
             sum of all cores.";
        max_in_flight = "max_in_flight", number(1, 65_536, "requests"), Int(1024),
            "Requests of one connection that may wait for their answer.",
            "Memory of each waiting request; beyond them the connection is not read until one is \
             answered.";
        write_buffer_bytes = "write_buffer_bytes", number(4 * KIB, GIB, "bytes"), Int(8_388_608),
            "Bytes of answers that wait for a client which does not read; beyond them the connection is \
             not read.",
            "Every connection to a slow client may hold about three times that: what waits for it, \
             and small and large results on their way. Less reads fewer large results at a time.";
        stall_timeout_ms = "stall_timeout_ms", number(10, 600_000, "milliseconds"), Int(10_000),
            "How long a client may make no progress inside a frame, or a write be blocked, before \
             it is disconnected.",
            "Longer keeps the buffers of dead clients; shorter cuts off slow links.";
        drain_ms = "drain_ms", number(0, 3_600_000, "milliseconds"), Int(10_000),
            "How long running tasks may take to finish after SIGTERM.",
            "A stop takes that long at most; what has not ended runs again after the next start.";
    }
    cluster: Cluster, "This node's part in a cluster: nodes that each have every accepted task on \
                       their disk. Any that are more than half of them go on without the others." {
        node = "node", number(0, NODE_ID_MAX, "(a node's number)"), Int(0),
            "The id of this node in the list of nodes; it listens where that entry says. 0: the \
             node is alone, and nothing else here counts.",
            "An acknowledgement waits for a round trip to another node and that node's disk; each \
             node has all tasks on its disk. Of two nodes neither may fail: take three or more.";
        start = "start", Rule::OneOf(&["new", "join"]), Text("new"),
            "What a node does whose log begins: \"new\" begins the cluster together with all \
             that are listed, \"join\" waits until a member lets it in. A node that has a log \
             goes on with what stands there.",
            "A node that lost its disk must not begin with \"new\" under its old id: it would \
             vote again on what it has forgotten. Begin it with \"join\" and a new id.";
        partitions = "partitions", number(1, 1024, "partitions"), Int(12),
            "Partitions that the tasks of a cluster are split into, each with a leader of its \
             own; every node must have the same number, and it stays when the log has begun.",
            "Memory and heartbeats of each on every node. Fewer than the worker cores of all \
             nodes together leave cores without work.";
        tick_ms = "tick_ms", number(5, 5000, "milliseconds"), Int(50),
            "What the timers of the cluster count in: a leader tells every 2 ticks that it lives, \
             and is replaced when nothing was heard of it for 10 to 20.",
            "Longer leaves partitions longer without a leader after a death; shorter replaces \
             leaders that are only slow. Well above the round trip between nodes and their disks' \
             slowest write.";
        name = "name", Rule::Name, Text("coreflow"),
            "The name of the cluster: nodes of another one are refused.",
            "Nothing; it stays when the log has begun.";
        secret_file = "secret_file", Rule::OptionalPath, Text(""),
            "The file with the secret, 16 bytes at least, that all nodes of the cluster know and \
             prove to each other. \"\": none is asked for.",
            "Nothing. What nodes send each other is not encrypted: between machines use a network \
             that is.";
    }
    consensus: Consensus, "How the nodes of a cluster agree on what its log says; a node that is \
                           alone has nobody to agree with." {
        protocol = "protocol", Rule::OneOf(&["raft", "pbft"]), Text("raft"),
            "What nodes trust each other with. \"raft\": nodes crash and do nothing wrong, and any \
             that are more than half go on. \"pbft\": of 4 nodes one, of 7 two, may do anything, \
             lie among it, and the log of the others stays what it was. It never changes when the \
             log has begun.",
            "\"pbft\" needs 4 or 7 nodes, which never join or leave, a round trip more, and \
             signatures: some 0.1 ms of a core for each entry on each node.";
        identity_file = "identity_file", Rule::OptionalPath, Text(""),
            "The file with the secret key that this node signs with, made by `coreflow cluster \
             identity FILE`, which only its user may read; \"pbft\" needs it. \"\": none.",
            "Whoever reads it can be this node. A node that lost it, or its log, has to be replaced \
             in a new cluster.";
        generation = "generation", number(1, u32::MAX as u64, "(which life of the cluster it is)"), Int(1),
            "Which life of the cluster it is, the same on all nodes, where \"pbft\" has them sign: \
             what they signed in another one counts for nothing.",
            "Nothing; it stays when the log has begun. It has to be a higher one when the same \
             nodes, with the same keys, begin again with empty folders.";
    }
    gossip: Gossip, "What the nodes of a cluster tell each other by datagrams: who lives, and which \
                     agents are where. All nodes have the same values, but for the last two." {
        interval_ms = "interval_ms", number(20, 10_000, "milliseconds"), Int(100),
            "Time between two rounds. News is everywhere after 2 or 3, and a node that answers none \
             for about 6 is suspect.",
            "Shorter sends more: some 70 to 130 bytes a round when nothing happens, and 16 more a \
             datagram where there is a secret. Longer notices deaths later, and tells of agents and loads later.";
        fanout_max = "fanout_max", number(1, 64, "nodes"), Int(10),
            "Most nodes that a node asks in a round, and most that it tells what is new. It asks one \
             more than the binary logarithm of their number.",
            "More sends more datagrams a round in clusters of hundreds; fewer takes rounds longer \
             and watches each node by fewer others.";
        suspicion_ms = "suspicion_ms", number(100, 600_000, "milliseconds"), Int(800),
            "How long a silent node may say that it lives before all take it for dead.",
            "Longer notices deaths later by as much; shorter takes nodes for dead whose threads do \
             not run for moments. At least 5 rounds.";
        datagram_bytes = "datagram_bytes", number(1280, 8900, "bytes"), Int(1400),
            "The largest datagram.",
            "Larger ones are lost when the network carries smaller packets and drops fragments; they \
             save datagrams where it carries large ones.";
        reconcile_ms = "reconcile_ms", number(100, 3_600_000, "milliseconds"), Int(10_000),
            "Time between two comparisons with some node of all that is known, which find what news \
             did not tell.",
            "Shorter sends up to 1,400 bytes more each time; longer leaves a rare difference for \
             longer. At least 5 rounds.";
        lookups = "lookups", number(16, 10_000_000, "answers"), Int(10_000),
            "Answers about agents of other nodes that a core remembers.",
            "About 160 bytes each on each core; fewer ask the table of all nodes more often, some \
             hundred nanoseconds each time.";
        lookup_ttl_ms = "lookup_ttl_ms", number(1, DAY_MS, "milliseconds"), Int(5000),
            "How long it remembers them. What is heard to have changed is forgotten at once.",
            "Nothing that was seen: longer only trusts more that every change is heard.";
    }
}

/// The keys of one `[[agent]]` entry, in the order in which they are printed.
pub(super) static AGENT: Section = Section {
    name: "agent",
    heading: "One entry for each agent type. A file without any has the builtin types echo, sleep \
              and sha256; `agent = []` above the first section has none.",
    keys: &[
        Key {
            name: "type",
            rule: Rule::Name,
            default: Absent,
            meaning: "The name that tasks and messages use; must be given.",
            cost: "Nothing.",
        },
        Key {
            name: "kind",
            rule: Rule::OneOf(&["builtin", "exec", "remote"]),
            default: Absent,
            meaning: "What runs the tasks; must be given. \"builtin\" is part of this program \
                      (the type is echo, sleep or sha256), \"exec\" a child process, \"remote\" \
                      a worker that connects.",
            cost: "An exec agent is a process with three pipes; a remote one a connection.",
        },
        Key {
            name: "min",
            rule: number(0, 1_000_000, "agents"),
            default: Int(5),
            meaning: "Agents started with the node and kept; not for \"remote\", whose workers \
                      come by themselves.",
            cost: "Their memory, also while they are idle.",
        },
        Key {
            name: "max",
            rule: number(1, 1_000_000, "agents"),
            default: Int(60),
            meaning: "Agents that may exist at the same time. Above `min` they start one after the \
                      other while tasks wait and every agent is full.",
            cost: "Memory when the load is high; for exec agents also processes.",
        },
        Key {
            name: "max_tasks",
            rule: number(1, 10_000, "tasks"),
            default: Int(5),
            meaning: "Tasks that one agent runs at the same time.",
            cost: "More tasks wait behind each other inside one agent, and start again together \
                   when it dies.",
        },
        Key {
            name: "idle_timeout_ms",
            rule: number(1, DAY_MS, "milliseconds"),
            default: Int(30_000),
            meaning: "How long an agent above `min` may be idle before it stops. Those that somebody \
                      spawned stay.",
            cost: "Longer keeps the memory of idle agents; shorter starts agents more often.",
        },
        Key {
            name: "warmup_delay_ms",
            rule: number(0, 600_000, "milliseconds"),
            default: Int(1000),
            meaning: "Pause between two starts while the pool fills up to `min`.",
            cost: "Longer takes longer to be warm; shorter starts many agents at once. A task \
                   never waits for it.",
        },
        Key {
            name: "command",
            rule: Rule::Command,
            default: Example(r#"["python3", "agents/coder.py"]"#),
            meaning: "The program of an \"exec\" type and its arguments; for no other kind.",
            cost: "Nothing.",
        },
        Key {
            name: "capabilities",
            rule: Rule::Capabilities,
            default: NoWords,
            meaning: "What agents of the type can do, in words of your own by which they are found, \
                      on other nodes as well.",
            cost: "The bytes of the words, on every node of the cluster.",
        },
    ],
};

/// The keys of one `[[node]]` entry, in the order in which they are printed.
pub(super) static NODE: Section = Section {
    name: "node",
    heading: "One entry for each node of the cluster, the same on all of them; a node that is \
              alone needs none.",
    keys: &[
        Key {
            name: "id",
            rule: number(1, NODE_ID_MAX, "(a node's number)"),
            default: Example("1"),
            meaning: "The number of the node; must be given, and is never given to another one.",
            cost: "Nothing.",
        },
        Key {
            name: "peers",
            rule: Rule::KnownAddress,
            default: Example("\"127.0.0.1:7452\""),
            meaning: "Where the node receives the others; beyond the loopback only with \
                      cluster.secret_file. Must be given.",
            cost: "A connection to each other node.",
        },
        Key {
            name: "rpc",
            rule: Rule::KnownAddress,
            default: Example("\"127.0.0.1:7450\""),
            meaning: "Where its MessagePack-RPC listens, in place of server.rpc_address; other \
                      nodes send there what they cannot answer themselves. Beyond the loopback only \
                      with server.token_file. Must be given.",
            cost: "Two connections from each worker core of every other node.",
        },
        Key {
            name: "http",
            rule: Rule::KnownAddress,
            default: Example("\"127.0.0.1:7451\""),
            meaning: "Where its HTTP listens, in place of server.http_address; beyond the loopback \
                      only with server.token_file. Must be given.",
            cost: "A socket on each worker core.",
        },
        Key {
            name: "public_key",
            rule: Rule::PublicKey,
            default: Example(
                "\"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\"",
            ),
            meaning: "What the signatures of the node are verified with, where consensus.protocol \
                      is \"pbft\"; must be given there.",
            cost: "Nothing.",
        },
    ],
};
