//! Clients: they submit, want the same key for different tasks, cancel and look, through nodes that
//! they choose by chance, and write down what they asked and were answered.

use crate::{
    cluster::Cluster,
    history::{History, Key, Phase, Variant, What},
    network::NODES,
    node::ANSWER_LIMIT,
};
use coreflow::{
    client::{Client, ClientError, Params, View},
    wire::id::TaskId,
};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

/// The pause of a client between two tasks.
const PACE: Duration = Duration::from_millis(8);
/// How long a client leaves a node alone: much longer than it waited for it.
const ALONE: Duration = Duration::from_secs(20);
/// How long some tasks wait before anybody may work on them.
const DELAY_MS: u64 = 500;
/// Tries of one submission: a history has an end.
const TRIES: usize = 20;

/// What all clients have in common.
pub struct Shared {
    pub history: History,
    pub cluster: Cluster,
    /// Submissions that were acknowledged.
    pub taken: AtomicU64,
    next: AtomicU32,
    submitters_end: AtomicBool,
    workers_end: AtomicBool,
    /// Refusals by their code, for whoever looks for a reason.
    refusals: Mutex<BTreeMap<String, u64>>,
}

impl Shared {
    pub fn new(cluster: Cluster) -> Self {
        Self {
            history: History::new(),
            cluster,
            taken: AtomicU64::new(0),
            next: AtomicU32::new(0),
            submitters_end: AtomicBool::new(false),
            workers_end: AtomicBool::new(false),
            refusals: Mutex::default(),
        }
    }

    /// Nothing more is submitted.
    pub fn end_submissions(&self) {
        self.submitters_end.store(true, Ordering::Relaxed);
    }

    /// Nothing more is worked on.
    pub fn end_work(&self) {
        self.workers_end.store(true, Ordering::Relaxed);
    }

    pub fn workers_end(&self) -> bool {
        self.workers_end.load(Ordering::Relaxed)
    }

    /// A key that nobody has used.
    pub fn new_key(&self) -> Key {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a refusal.
    pub fn note_refusal(&self, error: &ClientError) {
        let code = match error {
            ClientError::Refused(refusal) => refusal.code.clone(),
            _ => "no answer".to_owned(),
        };
        let mut refusals = self.refusals.lock().expect("no client panics with it");
        *refusals.entry(code).or_default() += 1;
    }

    /// What was refused, and how often.
    pub fn refusals(&self) -> BTreeMap<String, u64> {
        self.refusals.lock().expect("no client panics with it").clone()
    }
}

/// Whether a node refused with one of these codes.
pub fn is_refusal(error: &ClientError, codes: &[&str]) -> bool {
    matches!(error, ClientError::Refused(refusal) if codes.contains(&&*refusal.code))
}

/// A client with a connection to each node, made when it is needed. It leaves a node that did not do
/// what it was asked alone for a while.
pub struct Caller<'a> {
    shared: &'a Shared,
    connections: [Option<Client>; NODES as usize],
    alone_until: [Option<Instant>; NODES as usize],
}

impl<'a> Caller<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self { shared, connections: Default::default(), alone_until: Default::default() }
    }

    /// A node that is not left alone, by chance; any node when all are.
    pub fn any(&self) -> u64 {
        let now = Instant::now();
        let nodes: Vec<u64> = (1..=NODES)
            .filter(|node| self.alone_until[*node as usize - 1].is_none_or(|until| until < now))
            .collect();
        fastrand::choice(nodes).unwrap_or_else(|| fastrand::u64(1..=NODES))
    }

    fn call<T>(
        &mut self,
        node: u64,
        method: &str,
        params: &Params,
        read: impl FnOnce(View<'_>) -> Option<T>,
    ) -> Result<T, ClientError> {
        let outcome = self.call_once(node, method, params, read);
        if let Err(error) = &outcome {
            self.shared.note_refusal(error);
            if !is_refusal(error, &["conflict", "backpressure", "not_found"]) {
                self.alone_until[node as usize - 1] = Some(Instant::now() + ALONE);
            }
        }
        outcome
    }

    fn call_once<T>(
        &mut self,
        node: u64,
        method: &str,
        params: &Params,
        read: impl FnOnce(View<'_>) -> Option<T>,
    ) -> Result<T, ClientError> {
        let place = &mut self.connections[node as usize - 1];
        let mut client = match place.take() {
            Some(client) => client,
            None => self.shared.cluster.node(node).connect()?,
        };
        let outcome = client.call_within(method, params, ANSWER_LIMIT);
        let outcome = outcome.and_then(|answer| {
            read(answer).ok_or(ClientError::Garbled("it lacks what was asked for"))
        });
        if !matches!(&outcome, Err(error) if error.is_uncertain()) {
            *place = Some(client);
        }
        outcome
    }

    /// Submits once; tells the task, or whether the submission is settled without one.
    pub fn submit(&mut self, node: u64, key: Key, variant: Variant) -> Result<TaskId, bool> {
        // Those that wait a while can be cancelled.
        let delay_ms = key.is_multiple_of(3).then_some(DELAY_MS);
        let params = Params::new()
            .str("type", "errand")
            .uint_if("payload", Some(u64::from(key) * 2 + u64::from(variant)))
            .uint_if("delay_ms", delay_ms)
            .str("key", &key.to_string());
        let asked = self.shared.history.now();
        let id = |answer: View<'_>| answer.get("id")?.str()?.parse().ok();
        let (what, outcome) = match self.call(node, "task.submit", &params, id) {
            Ok(id) => (What::Submitted(variant, id), Ok(id)),
            Err(error) if is_refusal(&error, &["conflict"]) => {
                (What::Conflicted(variant), Err(true))
            }
            Err(ClientError::Unreachable { .. }) => return Err(false),
            Err(error) if is_refusal(&error, &["backpressure"]) => return Err(false),
            Err(_) => (What::MaybeSubmitted(variant), Err(false)),
        };
        self.shared.history.add(key, asked, what);
        if outcome.is_ok() {
            self.shared.taken.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Looks at a task that was acknowledged.
    pub fn look(&mut self, node: u64, key: Key, id: TaskId) {
        let asked = self.shared.history.now();
        let params = Params::new().str("id", &id.to_string());
        let phase = |answer: View<'_>| phase_of(answer.get("status")?.str()?);
        match self.call(node, "task.status", &params, phase) {
            Ok(phase) => self.shared.history.add(key, asked, What::Seen(id, phase)),
            Err(error) if is_refusal(&error, &["not_found"]) => {
                self.shared.history.add(key, asked, What::Missed(id));
            }
            Err(_) => {}
        }
    }

    /// Cancels a task that was acknowledged.
    fn cancel(&mut self, node: u64, key: Key, id: TaskId) {
        let asked = self.shared.history.now();
        let params = Params::new().str("id", &id.to_string());
        let cancelled = |answer: View<'_>| answer.get("cancelled")?.bool();
        let what = match self.call(node, "task.cancel", &params, cancelled) {
            Ok(false) => What::CancelledTooLate,
            Err(ClientError::Unreachable { .. }) => return,
            Err(error) if is_refusal(&error, &["not_found"]) => What::Missed(id),
            Ok(true) | Err(_) => What::MaybeCancelled,
        };
        self.shared.history.add(key, asked, what);
    }
}

/// How a status is seen.
pub fn phase_of(status: &str) -> Option<Phase> {
    match status {
        "queued" | "delayed" | "running" => Some(Phase::Open),
        "done" => Some(Phase::Done),
        "cancelled" => Some(Phase::Cancelled),
        _ => None,
    }
}

/// Submits one task after the other, each until it is taken; tells rivals of a key before it is
/// used, and readers of a task that there is.
pub fn submit(shared: &Shared, rivals: &SyncSender<Key>, readers: &SyncSender<(Key, TaskId)>) {
    let mut caller = Caller::new(shared);
    while !shared.submitters_end.load(Ordering::Relaxed) {
        let key = shared.new_key();
        // Rivals and readers that are behind miss some.
        let _ = rivals.try_send(key);
        for _ in 0..TRIES {
            match caller.submit(caller.any(), key, 0) {
                Ok(id) => {
                    let _ = readers.try_send((key, id));
                    break;
                }
                Err(true) => break,
                Err(false) => thread::sleep(PACE),
            }
        }
        thread::sleep(PACE);
    }
}

/// Submits what others submit at the same moment: the same, or something else under its key.
pub fn rival(shared: &Shared, keys: &Mutex<Receiver<Key>>) {
    let mut caller = Caller::new(shared);
    while let Some(key) = next(shared, keys) {
        if fastrand::u8(..4) == 0 {
            let _ = caller.submit(caller.any(), key, fastrand::u8(..2));
        }
    }
}

/// Looks at tasks, cancels some, and looks again, each time at another node.
pub fn read(shared: &Shared, tasks: &Mutex<Receiver<(Key, TaskId)>>) {
    let mut caller = Caller::new(shared);
    while let Some((key, id)) = next(shared, tasks) {
        caller.look(caller.any(), key, id);
        if fastrand::u8(..6) == 0 {
            caller.cancel(caller.any(), key, id);
        }
        caller.look(caller.any(), key, id);
    }
}

fn next<T>(shared: &Shared, from: &Mutex<Receiver<T>>) -> Option<T> {
    loop {
        let from = from.lock().expect("no client panics with it");
        match from.recv_timeout(Duration::from_millis(100)) {
            Ok(found) => return Some(found),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                if shared.submitters_end.load(Ordering::Relaxed) {
                    return None;
                }
            }
        }
    }
}
