//! The two clients of a node that may be killed at any moment, and the one that checks afterwards.

use super::ledger::{Runs, Submissions};
use crate::{
    bench::work::{LIMIT, News, Worker, push_submit},
    client::{Client, ClientError, Params, Refusal, View, connect},
    wire::{id::TaskId, msgpack::write},
};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Submissions under way.
const WINDOW: usize = 1000;
/// Questions under way.
const QUESTIONS: usize = 500;
/// Bytes of a task's payload.
const PAYLOAD_BYTES: usize = 32;
/// How long one read waits before the signals are looked at again.
const TURN: Duration = Duration::from_millis(50);
/// How long nothing may go on before what is open counts as lost.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// What the clients tell the thread that kills, and it tells them.
#[derive(Default)]
pub(super) struct Signals {
    /// Acknowledged submissions.
    pub accepted: AtomicU64,
    /// Acknowledged ends.
    pub ended: AtomicU64,
    /// The producer has come to its end.
    pub all_accepted: AtomicBool,
    /// The worker is to stop.
    pub stop: AtomicBool,
}

impl Signals {
    /// How far the clients have come; it grows by two a task.
    pub(super) fn progress(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed) + self.ended.load(Ordering::Relaxed)
    }
}

/// Submits until all are acknowledged.
///
/// # Errors
/// When the connection is lost, which the ledger knows then, or the node refuses for good.
pub(super) fn produce(
    address: SocketAddr,
    seed: u64,
    ledger: &mut Submissions,
    signals: &Signals,
) -> Result<(), ClientError> {
    let outcome = submit_all(address, seed, ledger, signals);
    match outcome {
        Ok(()) => signals.all_accepted.store(true, Ordering::Relaxed),
        Err(_) => ledger.lost(),
    }
    outcome
}

fn submit_all(
    address: SocketAddr,
    seed: u64,
    ledger: &mut Submissions,
    signals: &Signals,
) -> Result<(), ClientError> {
    let (mut sender, mut receiver) = connect(address, LIMIT)?;
    let mut resume = Instant::now();
    while !ledger.is_complete() {
        let pause = resume.saturating_duration_since(Instant::now());
        while pause.is_zero() && ledger.under_way() < WINDOW {
            let Some(number) = ledger.next() else { break };
            let key = format!("{seed:x}-{number}");
            push_submit(&mut sender, number, PAYLOAD_BYTES, Some(&key));
        }
        sender.flush()?;
        if ledger.under_way() == 0 {
            thread::sleep(pause);
            continue;
        }
        receiver.fill(TURN)?;
        while let Some(answer) = receiver.buffered()? {
            let number = answer.msgid.ok_or(ClientError::Garbled("an answer to nothing"))?;
            match answer.outcome {
                Ok(answer) => ledger.accepted(number, id_in(answer)?),
                Err(error) => {
                    let refusal = Refusal::of(error);
                    let Some(wait_ms) = refusal.retry_after_ms else { return Err(refusal.into()) };
                    ledger.refused(number);
                    resume = Instant::now() + Duration::from_millis(wait_ms);
                }
            }
        }
        signals.accepted.store(ledger.acknowledged(), Ordering::Relaxed);
    }
    Ok(())
}

fn id_in(answer: View<'_>) -> Result<TaskId, ClientError> {
    let id = answer.get("id").and_then(View::str).and_then(|id| id.parse().ok());
    id.ok_or(ClientError::Garbled("a task has no id"))
}

/// Runs tasks until the signal to stop.
///
/// # Errors
/// When the connection is lost, or the node refuses what a worker may ask.
pub(super) fn work(
    address: SocketAddr,
    runs: &mut Runs,
    signals: &Signals,
) -> Result<(), ClientError> {
    let mut worker = Worker::connect(address)?;
    let mut broken = false;
    while !signals.stop.load(Ordering::Relaxed) {
        worker.turn(TURN, |news| match news {
            News::Ran(task) => match task.id.str().and_then(|id| id.parse().ok()) {
                Some(id) => runs.ran(task.number, id),
                None => broken = true,
            },
            News::Ended(number) => runs.ended(number),
            News::Stale => runs.stale += 1,
            News::Idle => {}
        })?;
        if broken {
            return Err(ClientError::Garbled("a task has no id"));
        }
        signals.ended.store(runs.acknowledged(), Ordering::Relaxed);
    }
    Ok(())
}

/// Waits until the node has nothing to do, or does nothing.
///
/// # Errors
/// When the connection is lost.
pub(super) fn come_to_rest(address: SocketAddr) -> Result<(), ClientError> {
    let mut client = Client::connect(address, LIMIT)?;
    let (mut least, mut since) = (u64::MAX, Instant::now());
    loop {
        let stats = client.call("node.stats", &Params::new())?;
        let totals = stats.get("totals");
        let figure = |name| totals.and_then(|totals| totals.get(name)).and_then(View::uint);
        let open = figure("tasks_queued").unwrap_or(0) + figure("tasks_running").unwrap_or(0);
        if open < least {
            (least, since) = (open, Instant::now());
        }
        if open == 0 || since.elapsed() > STALL_LIMIT {
            return Ok(());
        }
        thread::sleep(TURN);
    }
}

/// Asks for the status of every task again and again until all are done, or nothing goes on any
/// more; tells those that are not done.
///
/// # Errors
/// When the connection is lost.
pub(super) fn open_at_last(
    address: SocketAddr,
    ledger: &Submissions,
) -> Result<Vec<(u32, String)>, ClientError> {
    let mut numbers: Vec<u32> = (0..ledger.total()).collect();
    let mut since = Instant::now();
    loop {
        let open = not_done(address, ledger, &numbers)?;
        if open.len() < numbers.len() {
            since = Instant::now();
        }
        // What the node does not know, or has ended otherwise, will not change any more.
        let hopeless =
            |(_, says): &(u32, String)| !matches!(&**says, "queued" | "delayed" | "running");
        if open.iter().all(hopeless) || since.elapsed() > STALL_LIMIT {
            return Ok(open);
        }
        numbers = open.into_iter().map(|(number, _)| number).collect();
        thread::sleep(TURN);
    }
}

/// Logs a few of the tasks that are not done.
pub(super) fn complain(ledger: &Submissions, lost: &[(u32, String)]) {
    for (number, says) in lost.iter().take(3) {
        let id = ledger.id(*number);
        tracing::error!(number, ?id, "an acknowledged task is not done; the node says: {says}");
    }
}

/// Asks for the status of the tasks of these numbers; tells those that are not done, each with
/// what the node says of it.
///
/// # Errors
/// When the connection is lost.
fn not_done(
    address: SocketAddr,
    ledger: &Submissions,
    numbers: &[u32],
) -> Result<Vec<(u32, String)>, ClientError> {
    let (mut sender, mut receiver) = connect(address, LIMIT)?;
    let mut asked = numbers.iter();
    let (mut under_way, mut found) = (0, Vec::new());
    loop {
        for &number in asked.by_ref().take(QUESTIONS - under_way) {
            let Some(id) = ledger.id(number) else {
                found.push((number, "never acknowledged".into()));
                continue;
            };
            sender.push(number, "task.status", |out| {
                write::map(out, 1);
                write::str(out, "id");
                write::str(out, &id.to_string());
            });
            under_way += 1;
        }
        sender.flush()?;
        if under_way == 0 {
            return Ok(found);
        }
        if !receiver.fill(LIMIT)? {
            return Err(ClientError::TimedOut(LIMIT));
        }
        while let Some(answer) = receiver.buffered()? {
            under_way -= 1;
            let number = answer.msgid.ok_or(ClientError::Garbled("an answer to nothing"))?;
            match answer.outcome {
                Ok(task) => match task.get("status").and_then(View::str) {
                    Some("done") => {}
                    status => found.push((number, status.unwrap_or("no status").into())),
                },
                Err(error) => found.push((number, Refusal::of(error).code)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake::Node;

    /// Runs both clients against a node that breaks connections so many times; what is not done
    /// at last comes out.
    fn run(node: &Node, total: u32, breaks: usize) -> (Submissions, Runs, Vec<(u32, String)>) {
        let (mut ledger, mut runs) = (Submissions::new(total), Runs::new(total));
        for _ in 0..breaks {
            node.die_after(u64::from(total) / 2);
            let signals = Signals::default();
            thread::scope(|scope| {
                let working = scope.spawn(|| work(node.address(), &mut runs, &signals));
                let produced = produce(node.address(), 9, &mut ledger, &signals);
                let worked = working.join().expect("the worker does not panic");
                let lost = |end| matches!(end, Err(ClientError::Lost(_)));
                assert!(
                    lost(worked)
                        && (lost(produced) || signals.all_accepted.load(Ordering::Relaxed))
                );
            });
            node.revive();
        }
        let signals = Signals::default();
        let open = thread::scope(|scope| {
            let working = scope.spawn(|| work(node.address(), &mut runs, &signals));
            produce(node.address(), 9, &mut ledger, &signals).unwrap();
            let open = open_at_last(node.address(), &ledger).unwrap();
            signals.stop.store(true, Ordering::Relaxed);
            working.join().expect("the worker does not panic").unwrap();
            open
        });
        (ledger, runs, open)
    }

    #[test]
    fn every_task_is_acknowledged_once_though_connections_break() {
        let node = Node::start();
        let (ledger, runs, open) = run(&node, 3000, 4);
        assert_eq!(open, []);
        assert_eq!((ledger.acknowledged(), ledger.keys_broken), (3000, 0));
        assert!(ledger.resubmitted > 0, "no submission was left without an answer");
        assert_eq!((runs.doubled, runs.executions >= 3000), (0, true));
    }

    #[test]
    fn a_task_that_the_node_forgot_is_found() {
        let node = Node::start();
        node.forget(77);
        let (ledger, runs, open) = run(&node, 200, 0);
        assert_eq!(open, [(77, "not_found".to_owned())]);
        let ran = |number| runs.ran_as(number, ledger.id(number).expect("all are acknowledged"));
        assert_eq!((0..200).filter(|&number| !ran(number)).collect::<Vec<_>>(), [77]);
    }
}
