//! The answers that every door gives, as MessagePack maps.

use super::{cluster::ClusterReply, large::Turn, memory::MemoryReply};
use crate::node::gateway::{Offer, TrunkAnswer, TrunkWords};
use crate::wire::{
    api::{AgentView, CoreStats, Error, Leased, LeasedTask, NodeStats, Ran, TaskPage, TaskView},
    id::{AgentId, TaskId},
    msgpack::write,
    neighbours::FarAgent,
};
use std::{fmt::Display, rc::Rc};

/// What a request answers.
#[derive(Debug)]
pub enum Reply {
    /// `{id}`
    Submitted(TaskId),
    /// `{ids}`
    SubmittedBatch(Vec<TaskId>),
    /// `{id, type, status, priority, attempts, node?, result?, error?}`
    Task {
        /// What is known.
        view: TaskView,
        /// Whether a result is part of the answer.
        with_result: bool,
        /// What a large result holds.
        _turn: Option<Turn>,
    },
    /// `{tasks, cursor?}`
    Tasks(TaskPage),
    /// `{tasks, next?}`
    Part {
        /// Tasks of a partition.
        tasks: Vec<TaskView>,
        /// Where the next part begins.
        next: Option<u64>,
    },
    /// `{challenge}`, or `{record_bytes, version, taken?, proof?}`, which tells what was taken when the
    /// connection is a trunk from there on.
    Trunk {
        /// What the other node offered.
        offer: Offer,
        /// What it is answered.
        answer: TrunkAnswer,
    },
    /// What the memory answers.
    Memory(MemoryReply),
    /// What is answered about the cluster.
    Cluster(ClusterReply),
    /// `{tasks}`, each with its lease
    Leased {
        /// The tasks.
        leased: Leased,
        /// The agent types of the worker.
        types: Rc<[String]>,
    },
    /// `{cancelled}`
    Cancelled(bool),
    /// `{agents, cursor?}`, of all nodes
    AgentsEverywhere {
        /// The agents.
        agents: Vec<FarAgent>,
        /// Where the next part begins.
        cursor: Option<String>,
    },
    /// `{agents}`
    Agents(Vec<AgentView>),
    /// The agent's fields.
    Agent(AgentView),
    /// `{id}`
    Spawned(AgentId),
    /// `{result}`, or `{error, retry}`
    Ran(Ran),
    /// `{}`
    Done,
    /// `{result}`
    Answer(Vec<u8>),
    /// The node's figures: `totals` and one map for each of `cores`.
    Stats(NodeStats),
    /// `{ready, accepting, uptime_s, …}`
    Health {
        /// Whether the node takes work.
        ready: bool,
        /// Its figures.
        stats: NodeStats,
    },
}

impl Reply {
    /// Appends the answer's map.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Submitted(id) => submitted(out, *id),
            Self::SubmittedBatch(ids) => {
                write::map(out, 1);
                write::str(out, "ids");
                write::array(out, ids.len());
                ids.iter().for_each(|id| task_id(out, *id));
            }
            Self::Task { view, with_result, .. } => task(out, view, *with_result),
            Self::Tasks(page) => {
                write::map(out, 1 + usize::from(page.cursor.is_some()));
                write::str(out, "tasks");
                write::array(out, page.tasks.len());
                page.tasks.iter().for_each(|view| task(out, view, false));
                if let Some(cursor) = &page.cursor {
                    field(out, "cursor", cursor);
                }
            }
            Self::Part { tasks, next } => {
                write::map(out, 1 + usize::from(next.is_some()));
                write::str(out, "tasks");
                write::array(out, tasks.len());
                tasks.iter().for_each(|view| task(out, view, false));
                if let Some(next) = next {
                    number(out, "next", *next);
                }
            }
            Self::Trunk { answer: TrunkAnswer::Challenged(challenge), .. } => {
                write::map(out, 1);
                write::str(out, "challenge");
                write::bin(out, &challenge.0);
            }
            Self::Trunk { answer: TrunkAnswer::Heard { words, proof }, .. } => {
                let TrunkWords { record_bytes, version, taken } = *words;
                write::map(out, 2 + usize::from(taken.is_some()) + usize::from(proof.is_some()));
                number(out, "record_bytes", record_bytes as u64);
                number(out, "version", version);
                if let Some(taken) = taken {
                    number(out, "taken", taken);
                }
                if let Some(proof) = proof {
                    write::str(out, "proof");
                    write::bin(out, proof);
                }
            }
            Self::Memory(reply) => reply.write(out),
            Self::Cluster(reply) => reply.write(out),
            Self::Leased { leased, types } => {
                write::map(out, 1);
                write::str(out, "tasks");
                write::array(out, leased.tasks.len());
                for (task, payload) in leased.iter() {
                    leased_task(out, task, &types[task.type_place as usize], payload);
                }
            }
            Self::Cancelled(cancelled) => {
                write::map(out, 1);
                write::str(out, "cancelled");
                write::bool(out, *cancelled);
            }
            Self::AgentsEverywhere { agents, cursor } => {
                write::map(out, 1 + usize::from(cursor.is_some()));
                write::str(out, "agents");
                write::array(out, agents.len());
                for agent in agents {
                    write::map(out, 4 + usize::from(agent.name.is_some()));
                    field(out, "id", &agent.address.to_string());
                    number(out, "node", agent.address.node);
                    field(out, "type", &agent.agent_type);
                    if let Some(name) = &agent.name {
                        field(out, "name", name);
                    }
                    field(out, "status", agent.status);
                }
                if let Some(cursor) = cursor {
                    field(out, "cursor", cursor);
                }
            }
            Self::Agents(agents) => {
                write::map(out, 1);
                write::str(out, "agents");
                write::array(out, agents.len());
                agents.iter().for_each(|view| agent(out, view));
            }
            Self::Agent(view) => agent(out, view),
            Self::Spawned(id) => {
                write::map(out, 1);
                write::str(out, "id");
                text(out, id);
            }
            Self::Ran(Ok(result)) => {
                write::map(out, 1);
                write::str(out, "result");
                write::raw(out, result);
            }
            Self::Ran(Err(failure)) => {
                write::map(out, 2);
                field(out, "error", &failure.error);
                write::str(out, "retry");
                write::bool(out, failure.retry);
            }
            Self::Done => write::map(out, 0),
            Self::Answer(value) => {
                write::map(out, 1);
                write::str(out, "result");
                write::raw(out, value);
            }
            Self::Stats(stats) => node(out, stats),
            Self::Health { ready, stats } => health(out, *ready, stats),
        }
    }
}

/// Appends what a submission answers.
pub fn submitted(out: &mut Vec<u8>, id: TaskId) {
    write::map(out, 1);
    write::str(out, "id");
    task_id(out, id);
}

/// Appends an error: `{code, message, retry_after_ms?, leader?, uncertain?}`.
pub fn error(out: &mut Vec<u8>, error: &Error) {
    let retry_after_ms = error.retry_after_ms();
    let leader = if let Error::NotLeader(leader) = error { leader.as_deref() } else { None };
    let is_uncertain = matches!(error, Error::Uncertain(_));
    let more = [retry_after_ms.is_some(), leader.is_some(), is_uncertain];
    write::map(out, 2 + more.into_iter().filter(|there| *there).count());
    field(out, "code", error.code());
    write::str(out, "message");
    text(out, error);
    if let Some(retry_after_ms) = retry_after_ms {
        write::str(out, "retry_after_ms");
        write::uint(out, retry_after_ms);
    }
    if let Some(leader) = leader {
        field(out, "leader", leader);
    }
    if is_uncertain {
        write::str(out, "uncertain");
        write::bool(out, true);
    }
}

fn task(out: &mut Vec<u8>, view: &TaskView, with_result: bool) {
    let result = view.result.as_ref().filter(|_| with_result);
    let more = [result.is_some(), view.error.is_some(), view.node.is_some()];
    write::map(out, 5 + more.into_iter().filter(|there| *there).count());
    write::str(out, "id");
    task_id(out, view.id);
    field(out, "type", &view.agent_type);
    field(out, "status", view.status.name());
    field(out, "priority", view.priority.name());
    number(out, "attempts", view.attempts.into());
    if let Some(node) = view.node {
        number(out, "node", node);
    }
    if let Some(result) = result {
        write::str(out, "result");
        match result.is_empty() {
            // Of an agent that had nothing to say.
            true => write::nil(out),
            false => write::raw(out, result),
        }
    }
    if let Some(error) = &view.error {
        field(out, "error", error);
    }
}

fn leased_task(out: &mut Vec<u8>, task: &LeasedTask, agent_type: &str, payload: &[u8]) {
    write::map(out, 6);
    write::str(out, "id");
    task_id(out, task.id);
    number(out, "lease", task.lease);
    number(out, "deadline_ms", task.deadline_ms);
    field(out, "type", agent_type);
    number(out, "attempt", task.attempt.into());
    write::str(out, "payload");
    write::raw(out, payload);
}

fn agent(out: &mut Vec<u8>, view: &AgentView) {
    write::map(out, 8 + usize::from(view.name.is_some()));
    write::str(out, "id");
    text(out, view.id);
    field(out, "type", &view.agent_type);
    field(out, "kind", view.kind.name());
    if let Some(name) = &view.name {
        field(out, "name", name);
    }
    field(out, "state", view.state.name());
    number(out, "tasks", view.tasks.into());
    number(out, "max_tasks", view.max_tasks.into());
    number(out, "done", view.done);
    number(out, "failed", view.failed);
}

/// A figure of a core that adds up over cores: its name and where it is.
type Figure = (&'static str, fn(&CoreStats) -> u64);

/// The figures, in the order that answers list them.
const FIGURES: [Figure; 42] = [
    ("agents", |core| core.agents),
    ("messages_delivered", |core| core.messages_delivered),
    ("messages_undeliverable", |core| core.messages_undeliverable),
    ("sends_refused", |core| core.sends_refused),
    ("far_sent", |core| core.far_sent),
    ("far_received", |core| core.far_received),
    ("far_lost", |core| core.far_lost),
    ("far_broken", |core| core.far_broken),
    ("far_refused", |core| core.far_refused),
    ("cache_hits", |core| core.cache_hits),
    ("cache_misses", |core| core.cache_misses),
    ("cache_evictions", |core| core.cache_evictions),
    ("cache_expired", |core| core.cache_expired),
    ("cache_invalidated", |core| core.cache_invalidated),
    ("batches_received", |core| core.batches_received),
    ("batch_buffers", |core| core.batch_buffers),
    ("tasks_accepted", |core| core.tasks_accepted),
    ("tasks_refused", |core| core.tasks_refused),
    ("tasks_repeated", |core| core.tasks_repeated),
    ("tasks_recovered", |core| core.tasks_recovered),
    ("tasks_queued", |core| core.tasks_queued),
    ("tasks_delayed", |core| core.tasks_delayed),
    ("tasks_cold", |core| core.tasks_cold),
    ("tasks_running", |core| core.tasks_running),
    ("tasks_done", |core| core.tasks_done),
    ("tasks_dead", |core| core.tasks_dead),
    ("tasks_cancelled", |core| core.tasks_cancelled),
    ("tasks_evicted", |core| core.tasks_evicted),
    ("attempts_failed", |core| core.attempts_failed),
    ("tasks_lent", |core| core.tasks_lent),
    ("tasks_lent_back", |core| core.tasks_lent_back),
    ("tasks_lent_lost", |core| core.tasks_lent_lost),
    ("tasks_borrowed", |core| core.tasks_borrowed),
    ("dead_letters", |core| core.dead_letters),
    ("dead_letters_requeued", |core| core.dead_letters_requeued),
    ("dead_letters_purged", |core| core.dead_letters_purged),
    ("keys", |core| core.keys),
    ("agents_started", |core| core.agents_started),
    ("agents_restarted", |core| core.agents_restarted),
    ("agents_stopped_idle", |core| core.agents_stopped_idle),
    ("agent_panics", |core| core.agent_panics),
    ("parks", |core| core.parks),
];

fn total(stats: &NodeStats, (_, figure): Figure) -> u64 {
    stats.cores.iter().map(figure).sum()
}

fn node(out: &mut Vec<u8>, stats: &NodeStats) {
    write::map(out, 6);
    field(out, "version", stats.version);
    number(out, "uptime_s", stats.uptime_s);
    write::str(out, "accepting");
    write::bool(out, stats.accepting);
    number(out, "resident_bytes", stats.resident_bytes);
    write::str(out, "totals");
    write::map(out, FIGURES.len());
    FIGURES.into_iter().for_each(|figure| number(out, figure.0, total(stats, figure)));
    write::str(out, "cores");
    write::array(out, stats.cores.len());
    for core in &stats.cores {
        write::map(out, 1 + FIGURES.len());
        number(out, "cpu", core.cpu as u64);
        FIGURES.into_iter().for_each(|(name, figure)| number(out, name, figure(core)));
    }
}

fn health(out: &mut Vec<u8>, ready: bool, stats: &NodeStats) {
    const SHOWN: [&str; 5] =
        ["agents", "tasks_queued", "tasks_running", "tasks_dead", "agent_panics"];
    write::map(out, 5 + SHOWN.len());
    field(out, "status", if ready { "ready" } else { "not ready" });
    write::str(out, "ready");
    write::bool(out, ready);
    write::str(out, "accepting");
    write::bool(out, stats.accepting);
    number(out, "uptime_s", stats.uptime_s);
    number(out, "cores", stats.cores.len() as u64);
    for figure in FIGURES.into_iter().filter(|(name, _)| SHOWN.contains(name)) {
        number(out, figure.0, total(stats, figure));
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    write::str(out, name);
    write::str(out, value);
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    write::str(out, name);
    write::uint(out, value);
}

fn task_id(out: &mut Vec<u8>, id: TaskId) {
    write::ascii(out, id.text().as_bytes());
}

/// Appends the text form of `value`.
fn text(out: &mut Vec<u8>, value: impl Display) {
    write::str(out, &value.to_string());
}
