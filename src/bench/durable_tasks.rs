//! `durable_tasks`: tasks through the log of a served node, from clients in another process.
//!
//! Throughput: a producer keeps a window of submissions under way, a remote worker takes tasks and
//! ends them, each on one connection. Acknowledgements: submissions leave at a fixed rate whatever
//! becomes of those before, and a latency counts from the time at which its submission should have
//! left.

use super::{
    Effort, Measured, disk,
    paced::{self, Pace},
    served::{self, Plan, Scratch},
    work::{LIMIT, News, REMOTE_TYPE, Worker, failed, push_submit},
};
use crate::{
    client::{ClientError, Receiver, Refusal, connect},
    config::{AgentKind, Config},
    metrics::Latency,
};
use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 256;
/// Submissions under way.
const WINDOW: u32 = 1000;
/// Tasks of one round, at full and at quick effort.
const TASKS: (u32, u32) = (300_000, 10_000);
/// Submissions in a second while acknowledgements are measured.
const PACE: Pace = Pace { rate: 50_000.0, body_bytes: PAYLOAD_BYTES };
/// What the seed asks of tasks in memory, tasks in a second.
const TARGET: f64 = 100_000.0;
/// Our own goal.
const GOAL: f64 = 500_000.0;

/// Measures rounds of throughput, then acknowledgements at a fixed rate, between two looks at the
/// disk.
///
/// # Errors
/// When the node does not start, or a task is refused, lost or ended twice.
pub(super) fn run(config: &Config, effort: &Effort, folder: &Path) -> io::Result<Measured> {
    let scratch = Scratch::new(folder, "durable-tasks")?;
    let agent = served::agent_type(REMOTE_TYPE, AgentKind::Remote, 60, 1);
    let plan = Plan::new(config, agent, scratch.path(), &[])?;
    measure(&plan, effort, scratch.path()).map_err(|error| plan.explain(error))
}

fn measure(plan: &Plan, effort: &Effort, folder: &Path) -> io::Result<Measured> {
    let before = disk::synced_writes(folder)?;
    let node = plan.start()?;
    let tasks = effort.choose(TASKS);
    let rates = effort.rounds(|| {
        let elapsed = with_worker(node.rpc(), tasks, || produce(node.rpc(), tasks))?;
        Ok(f64::from(tasks) / elapsed.as_secs_f64())
    })?;
    let count = ((effort.seconds * PACE.rate) as u32).max(1000);
    let mut acks = Latency::new();
    with_worker(node.rpc(), count, || paced::run(node.rpc(), count, PACE, &mut acks))?;
    drop(node);
    let after = disk::synced_writes(folder)?;
    let mut disk = before.clone();
    disk.merge(&after);
    let goal_ms = 1.0 + 3.0 * disk.quantile_ms(0.99);
    let p99_ms = acks.quantile_ms(0.99);
    Ok(Measured::throughput("durable_tasks", "throughput_tasks_per_s", rates)
        .with("payload_bytes", PAYLOAD_BYTES as u64)
        .with("window", WINDOW.into())
        .with("ack_rate_per_s", PACE.rate as u64)
        .with_exact("ack_p50_ms", acks.quantile_ms(0.5))
        .with_exact("ack_p99_ms", p99_ms)
        .with_exact("ack_p99_goal_ms", goal_ms)
        .with_truth("ack_goal_met", p99_ms <= goal_ms)
        .with_exact("disk_before_p50_ms", before.quantile_ms(0.5))
        .with_exact("disk_before_p99_ms", before.quantile_ms(0.99))
        .with_exact("disk_after_p50_ms", after.quantile_ms(0.5))
        .with_exact("disk_after_p99_ms", after.quantile_ms(0.99))
        .with_latency(acks)
        .target(TARGET, GOAL))
}

/// Runs `produce` beside a worker that ends exactly these tasks; tells how long both took.
fn with_worker(
    address: SocketAddr,
    tasks: u32,
    produce: impl FnOnce() -> Result<(), ClientError>,
) -> io::Result<Duration> {
    let failure = AtomicBool::new(false);
    let worker = Worker::connect(address).map_err(failed)?;
    let began = Instant::now();
    thread::scope(|scope| {
        let working = scope.spawn(|| end_all(worker, tasks, &failure));
        let produced = produce();
        // Without its tasks the worker would wait for ever.
        failure.store(produced.is_err(), Ordering::Relaxed);
        let worked = working.join().expect("the worker does not panic");
        produced.map_err(failed).and(worked)
    })?;
    Ok(began.elapsed())
}

/// Works until each of the tasks has ended once.
fn end_all(mut worker: Worker, tasks: u32, failure: &AtomicBool) -> io::Result<()> {
    let mut ended = vec![false; tasks as usize];
    let (mut count, mut twice, mut stale) = (0_u32, 0_u32, 0_u32);
    let mut news_at = Instant::now();
    while count < tasks {
        let before = count;
        let turned = worker.turn(Duration::from_millis(100), |news| match news {
            News::Ended(number) => match ended.get_mut(number as usize) {
                Some(ended) if !*ended => {
                    *ended = true;
                    count += 1;
                }
                _ => twice += 1,
            },
            News::Stale => stale += 1,
            News::Ran(_) | News::Idle => {}
        });
        turned.map_err(failed)?;
        if count > before {
            news_at = Instant::now();
        }
        if stale > 0 {
            return Err(io::Error::other("an end was stale though nobody else has the task"));
        }
        if news_at.elapsed() > LIMIT || (failure.load(Ordering::Relaxed) && count == before) {
            let open = tasks - count;
            return Err(io::Error::other(format!("{open} of {tasks} tasks did not end")));
        }
    }
    match twice {
        0 => Ok(()),
        _ => Err(io::Error::other(format!("{twice} tasks ended twice"))),
    }
}

/// Submits tasks with a full window.
fn produce(address: SocketAddr, tasks: u32) -> Result<(), ClientError> {
    let (mut sender, mut receiver) = connect(address, LIMIT)?;
    let (mut next, mut answered, mut refused) = (0, 0, Vec::new());
    let mut resume = Instant::now();
    while answered < tasks {
        let pause = resume.saturating_duration_since(Instant::now());
        let under_way = next - answered - refused.len() as u32;
        if pause.is_zero() {
            for _ in under_way..WINDOW {
                let Some(number) = refused.pop().or_else(|| {
                    next += 1;
                    (next <= tasks).then_some(next - 1)
                }) else {
                    next = tasks;
                    break;
                };
                push_submit(&mut sender, number, PAYLOAD_BYTES, None);
            }
            sender.flush()?;
        } else if under_way == 0 {
            thread::sleep(pause);
            continue;
        }
        let accepted = take_answers(&mut receiver, |number, wait_ms| {
            refused.push(number);
            resume = Instant::now() + Duration::from_millis(wait_ms);
        })?;
        answered += accepted;
    }
    Ok(())
}

/// Reads once; tells how many submissions were accepted, and `refused` of those that were not for
/// now.
fn take_answers(
    receiver: &mut Receiver,
    mut refused: impl FnMut(u32, u64),
) -> Result<u32, ClientError> {
    if !receiver.fill(LIMIT)? {
        return Err(ClientError::TimedOut(LIMIT));
    }
    let mut accepted = 0;
    while let Some(answer) = receiver.buffered()? {
        match (answer.msgid, answer.outcome) {
            (Some(_), Ok(_)) => accepted += 1,
            (msgid, Err(error)) => {
                let refusal = Refusal::of(error);
                match (msgid, refusal.retry_after_ms) {
                    (Some(number), Some(wait_ms)) => refused(number, wait_ms),
                    _ => return Err(refusal.into()),
                }
            }
            (None, Ok(_)) => return Err(ClientError::Garbled("an answer to nothing")),
        }
    }
    Ok(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fake::Node;

    #[test]
    fn a_round_ends_when_each_task_has_ended_once() {
        let node = Node::start();
        with_worker(node.address(), 5000, || produce(node.address(), 5000)).unwrap();
        node.make_stale(3);
        let error = with_worker(node.address(), 10, || produce(node.address(), 10)).unwrap_err();
        assert!(error.to_string().contains("stale"), "{error}");
    }

    #[test]
    fn every_paced_submission_has_its_latency() {
        let (node, mut acks) = (Node::start(), Latency::new());
        with_worker(node.address(), 2000, || paced::run(node.address(), 2000, PACE, &mut acks))
            .unwrap();
        assert_eq!(acks.count(), 2000);
    }
}
