//! Tasks of a type whose agents are on another node: real cores, real sockets, real logs.

use super::{
    WAIT,
    far::{Places, stop},
    tasks::spec,
};
use coreflow::{
    node::{AgentOptions, Node, gateway::Gateway, local::LocalGateway},
    shard::{
        agent::{Agent, Outcome, Task},
        context::Context,
        handle::{Failure, Lease},
    },
    wire::{
        api::{
            Completion, CoreStats, LeasedTask, NodeStats, TaskSpec, TaskStatus, TaskView, Worker,
        },
        id::{NodeId, TaskId},
        msgpack::write,
    },
};
use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// The type of the tasks.
pub(super) const TYPE: &str = "clerk";

/// What agents of one node saw.
#[derive(Default)]
pub(super) struct Seen {
    /// The attempts of each task, as the agents were told.
    pub attempts: HashMap<TaskId, Vec<u32>>,
    /// Attempts that run now, and the most that ran at the same time.
    running: usize,
    most: usize,
    /// Attempts that were given up.
    abandoned: HashSet<TaskId>,
}

/// An attempt, its task and how it is to end.
type Work = (Lease, TaskId, Result<Vec<u8>, Failure>);

/// Answers `[number, fails]` with the number after a while; fails as many attempts as it says first, for
/// good when it says 100.
struct Clerk {
    seen: Arc<Mutex<Seen>>,
    takes_ms: u64,
    works: HashMap<u64, Work>,
    next: u64,
}

impl Agent for Clerk {
    fn on_task(&mut self, task: &Task<'_>, _: &mut Vec<u8>, context: &mut Context<'_>) -> Outcome {
        let (number, fails): (u64, u32) = task.decode().expect("the test's payload");
        let mut seen = self.seen.lock().unwrap();
        seen.attempts.entry(task.id).or_default().push(task.attempt);
        seen.running += 1;
        seen.most = seen.most.max(seen.running);
        let mut result = Vec::new();
        write::uint(&mut result, number);
        let failure = || Failure { error: format!("not {number}"), retry: fails != 100 };
        let ended = if task.attempt <= fails { Err(failure()) } else { Ok(result) };
        self.next += 1;
        self.works.insert(self.next, (task.lease, task.id, ended));
        context.set_timer(Duration::from_millis(self.takes_ms), self.next);
        Outcome::Later
    }

    fn on_timer(&mut self, token: u64, context: &mut Context<'_>) {
        let Some((lease, _, ended)) = self.works.remove(&token) else { return };
        self.seen.lock().unwrap().running -= 1;
        context.finish(lease, ended);
    }

    fn on_abandoned(&mut self, abandoned: Lease, _: &mut Context<'_>) {
        let mut seen = self.seen.lock().unwrap();
        self.works.retain(|_, (lease, id, _)| {
            let is_it = *lease == abandoned;
            if is_it {
                seen.running -= 1;
                seen.abandoned.insert(*id);
            }
            !is_it
        });
    }
}

/// Agents on each core of a node that has some, so that tasks of all partitions find one.
pub(super) fn on_each_core(agents: usize) -> usize {
    agents * std::thread::available_parallelism().map_or(1, usize::from)
}

/// A node with so many agents of the type on each core, of which each takes so many tasks; without
/// agents it only knows the type.
fn node(places: &Places, id: NodeId, agents: usize, max_tasks: u32, takes_ms: u64) -> Clerks {
    let agents = on_each_core(agents);
    let options = AgentOptions { min: agents, max: agents, max_tasks, ..AgentOptions::default() };
    with_agents(places, id, options, takes_ms)
}

/// A node with agents of the type.
pub(super) fn with_agents(
    places: &Places,
    id: NodeId,
    options: AgentOptions,
    takes_ms: u64,
) -> Clerks {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let seen_there = seen.clone();
    let node = places.start(id, |builder| {
        builder.agent(TYPE, options, move || Clerk {
            seen: seen_there.clone(),
            takes_ms,
            works: HashMap::new(),
            next: 0,
        })
    });
    Clerks { node, seen }
}

/// A node that has never heard of the type.
pub(super) fn without(places: &Places, id: NodeId) -> Clerks {
    Clerks { node: places.start(id, |builder| builder), seen: Arc::default() }
}

pub(super) struct Clerks {
    pub node: Node,
    pub seen: Arc<Mutex<Seen>>,
}

impl Clerks {
    pub(super) fn figure(&self, figure: fn(&CoreStats) -> u64) -> u64 {
        self.node.stats().cores.iter().map(figure).sum()
    }

    /// Waits until the counters say something.
    pub(super) fn until(&self, what: &str, holds: impl Fn(&NodeStats) -> bool) {
        let deadline = Instant::now() + WAIT;
        while !holds(&self.node.stats()) {
            assert!(Instant::now() < deadline, "not in time: {what}\n{:?}", self.node.stats());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until each of so many nodes leads the partitions that prefer it: an attempt ends with the
    /// reign in which it began.
    pub(super) fn until_leaders_stay(&self, nodes: u64) {
        let deadline = Instant::now() + WAIT;
        let status = || self.node.handle().wait(|gateway| async move { gateway.cluster_status() });
        let stays = |it: &coreflow::node::gateway::ClusterStatus| {
            let prefers = |partition: u16| Some(u64::from(partition) % nodes + 1);
            let stay = it.partitions.iter().all(|it| it.leader == prefers(it.partition));
            stay && !it.partitions.is_empty()
        };
        while !stays(&status().expect("it belongs to a cluster")) {
            assert!(Instant::now() < deadline, "leaders still change: {:?}", status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn submit(&self, numbers: std::ops::Range<u64>, fails: u32) -> HashMap<TaskId, u64> {
        let specs: Vec<_> = numbers.clone().map(|number| task(number, fails)).collect();
        let ids = self.node.handle().wait(move |gateway| gateway.submit(specs));
        ids.expect("there is room").into_iter().zip(numbers).collect()
    }

    pub(super) fn end_of(&self, id: TaskId) -> TaskView {
        let wait_ms = WAIT.as_millis() as u64;
        let view = self.node.handle().wait(move |gateway| gateway.task(id, wait_ms)).unwrap();
        assert!(view.status.is_ended(), "{view:?}");
        view
    }

    /// Waits until all are done, each with its own result after so many attempts.
    pub(super) fn all_done(&self, tasks: &HashMap<TaskId, u64>, attempts: u32) {
        for (id, number) in tasks {
            let view = self.end_of(*id);
            let mut result = Vec::new();
            write::uint(&mut result, *number);
            assert_eq!((view.status, view.attempts), (TaskStatus::Done, attempts), "{view:?}");
            assert_eq!(view.result, Some(result));
        }
    }
}

/// A task whose agent answers with the number, after so many attempts that fail.
pub(super) fn task(number: u64, fails: u32) -> TaskSpec {
    spec(TYPE, |out| {
        write::array(out, 2);
        write::uint(out, number);
        write::uint(out, fails.into());
    })
}

#[test]
fn tasks_go_to_the_node_that_has_agents_and_end_where_they_are_kept() {
    let places = Places::of("lend", 3);
    let nodes = [node(&places, 1, 0, 1, 0), node(&places, 2, 4, 8, 2), node(&places, 3, 0, 1, 0)];
    nodes.iter().for_each(|it| it.until_leaders_stay(3));
    let mut tasks = HashMap::new();
    for (place, clerks) in (0..).zip(&nodes) {
        tasks.extend(clerks.submit(place * 300..(place + 1) * 300, 0));
    }
    // Any node tells how each ended.
    nodes[2].all_done(&tasks, 1);
    let seen = nodes[1].seen.lock().unwrap();
    assert_eq!(seen.attempts.len(), tasks.len(), "the agents know tasks by their own names");
    for (id, attempts) in &seen.attempts {
        assert!(tasks.contains_key(id) && *attempts == [1], "{id} ran as attempts {attempts:?}");
    }
    let places = 8 * on_each_core(4);
    assert!((5..=places).contains(&seen.most), "{} at the same time", seen.most);
    drop(seen);
    let sum = |figure: fn(&CoreStats) -> u64| nodes.iter().map(|it| it.figure(figure)).sum::<u64>();
    let deadline = Instant::now() + WAIT;
    while sum(|core| core.tasks_done) < tasks.len() as u64 {
        assert!(Instant::now() < deadline, "the cores do not publish their counters");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(sum(|core| core.tasks_done), tasks.len() as u64, "each counts where it is kept");
    assert_eq!(nodes[1].figure(|core| core.tasks_lent), 0, "it has agents itself");
    let (lent, back) = (sum(|core| core.tasks_lent), sum(|core| core.tasks_lent_back));
    assert!(nodes[0].figure(|core| core.tasks_lent) >= 300 && lent - back >= 600, "{lent} {back}");
    assert_eq!(sum(|core| core.tasks_lent_lost), 0);
    assert_eq!(sum(|core| core.tasks_running) + sum(|core| core.tasks_queued), 0);
    nodes.into_iter().for_each(|clerks| stop(clerks.node));
}

#[test]
fn attempts_that_fail_on_another_node_are_counted_where_the_task_is_kept() {
    let places = Places::of("lend-fail", 2);
    let (near, far) = (node(&places, 1, 0, 1, 0), node(&places, 2, 1, 4, 1));
    near.until_leaders_stay(2);
    let again = near.submit(0..20, 2);
    let never = near.submit(20..25, 100);
    near.all_done(&again, 3);
    for (id, number) in never {
        let view = near.end_of(id);
        assert_eq!((view.status, view.attempts), (TaskStatus::Dead, 1), "{view:?}");
        assert_eq!(view.error, Some(format!("not {number}")));
    }
    let seen = far.seen.lock().unwrap();
    for id in again.keys() {
        assert_eq!(seen.attempts[id], [1, 2, 3]);
    }
    drop(seen);
    stop(near.node);
    stop(far.node);
}

#[test]
fn a_node_that_has_enough_to_do_takes_no_more_and_what_comes_back_counts_as_no_attempt() {
    let places = Places::of("lend-full", 2);
    // Two hundred tasks a second at most, and each waits half a second at most.
    let (near, far) = (node(&places, 1, 0, 1, 0), node(&places, 2, 1, 1, 5));
    near.until_leaders_stay(2);
    let tasks = near.submit(0..400, 0);
    near.all_done(&tasks, 1);
    assert!(far.seen.lock().unwrap().most <= on_each_core(1));
    let (lent, back) =
        (near.figure(|core| core.tasks_lent), near.figure(|core| core.tasks_lent_back));
    near.until("the counters are told", |stats| {
        stats.cores.iter().map(|core| core.tasks_done).sum::<u64>() == 400
    });
    assert!(lent >= 400, "{lent}");
    // A window that follows the answers: few are sent in vain.
    assert!(back < 400, "{back} of {lent} came back");
    stop(near.node);
    stop(far.node);
}

#[test]
fn a_task_that_is_cancelled_is_given_up_on_the_other_node() {
    let places = Places::of("lend-cancel", 2);
    let (near, far) = (node(&places, 1, 0, 1, 0), node(&places, 2, 1, 4, 600_000));
    near.until_leaders_stay(2);
    let tasks = near.submit(0..3, 0);
    let deadline = Instant::now() + WAIT;
    while far.seen.lock().unwrap().running < 3 {
        assert!(Instant::now() < deadline, "they do not run");
        std::thread::sleep(Duration::from_millis(5));
    }
    for id in tasks.keys().copied() {
        assert_eq!(near.node.handle().wait(move |gateway| gateway.cancel(id)), Ok(true));
        assert_eq!(near.end_of(id).status, TaskStatus::Cancelled);
    }
    while far.seen.lock().unwrap().abandoned.len() < 3 {
        assert!(Instant::now() < deadline, "their agent is not told");
        std::thread::sleep(Duration::from_millis(5));
    }
    stop(near.node);
    stop(far.node);
}

#[test]
fn a_node_that_stops_gives_back_what_waits_and_ends_what_runs() {
    let places = Places::of("lend-drain", 3);
    let near = node(&places, 1, 0, 1, 0);
    let leaver = node(&places, 2, 1, 2, 300);
    let third = node(&places, 3, 1, 2, 20);
    near.until_leaders_stay(3);
    let tasks = near.submit(0..60, 0);
    let deadline = Instant::now() + WAIT;
    while leaver.seen.lock().unwrap().running < 2 {
        assert!(Instant::now() < deadline, "they do not run");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(leaver.node.drain(WAIT), 0, "what waited does not hold it up");
    leaver.node.close_doors(WAIT);
    near.all_done(&tasks, 1);
    assert!(near.figure(|core| core.tasks_lent_back) > 0, "nothing waited: this shows nothing");
    let (first, second) = (leaver.seen.lock().unwrap(), third.seen.lock().unwrap());
    assert_eq!(first.attempts.len() + second.attempts.len(), tasks.len(), "none ran twice");
    assert!(first.abandoned.is_empty());
    drop((first, second));
    assert_eq!(near.figure(|core| core.tasks_lent_lost), 0);
    leaver.node.shutdown().expect("no core fails");
    stop(near.node);
    stop(third.node);
}

#[test]
fn what_waits_at_a_busy_node_goes_to_another_and_none_runs_twice() {
    let places = Places::of("lend-busy", 3);
    let near = node(&places, 1, 0, 1, 0);
    // An agent is busy for seconds with one task; the others wait for it and go back.
    let busy = node(&places, 2, 1, 1, 3_000);
    let third = node(&places, 3, 2, 8, 1);
    near.until_leaders_stay(3);
    let tasks = near.submit(0..100, 0);
    near.all_done(&tasks, 1);
    assert_eq!(busy.figure(|core| core.tasks_lent) + third.figure(|core| core.tasks_lent), 0);
    let (busy_saw, third_saw) = (busy.seen.lock().unwrap(), third.seen.lock().unwrap());
    assert!(third_saw.attempts.len() >= 50, "{} went there", third_saw.attempts.len());
    assert!(
        busy.figure(|core| core.tasks_borrowed) > busy_saw.attempts.len() as u64,
        "some waited"
    );
    let both = busy_saw.attempts.keys().filter(|id| third_saw.attempts.contains_key(id)).count();
    assert_eq!(both, 0, "an attempt that began is not given back");
    drop((busy_saw, third_saw));
    for clerks in [near, busy, third] {
        stop(clerks.node);
    }
}

/// Fetches a worker's tasks and ends each with its own payload, until there are none for a while.
fn work(node: &Node, worker: &Worker, wait_ms: u64) -> usize {
    let mut ended = 0;
    loop {
        let worker = worker.clone();
        let fetched = node.handle().wait(move |gateway| gateway.fetch(worker, 100, wait_ms));
        let fetched = fetched.expect("a worker may fetch");
        if fetched.tasks.is_empty() {
            return ended;
        }
        let end = |(task, payload): (&LeasedTask, &[u8])| {
            assert_eq!(task.attempt, 1);
            Completion { id: task.id, lease: task.lease, outcome: Ok(payload.to_vec()) }
        };
        let ends: Vec<_> = fetched.iter().map(end).collect();
        ended += ends.len();
        let ends = node.handle().wait(move |gateway| gateway.end_attempts(ends));
        assert!(ends.expect("ends are taken").iter().all(Result::is_ok));
    }
}

#[test]
fn what_waits_where_the_workers_have_left_goes_back_and_not_to_a_third_node() {
    let remote = format!("[[agent]]\ntype = \"{TYPE}\"\nkind = \"remote\"\n");
    let places = Places::of("lend-left", 3).with(&remote);
    let nodes = [1, 2, 3]
        .map(|id| Clerks { node: places.start(id, |builder| builder), seen: Arc::default() });
    nodes[0].until_leaders_stay(3);
    let register = |clerks: &Clerks, capacity| {
        let types = vec![TYPE.to_owned()];
        clerks.node.handle().wait(move |gateway| gateway.register(types, capacity)).unwrap()
    };
    // One that takes a seat, and nothing else.
    let idle = register(&nodes[1], 50);
    let tasks = nodes[0].submit(0..200, 0);
    nodes[1].until("tasks wait there", |stats| {
        stats.cores.iter().map(|core| core.tasks_borrowed).sum::<u64>() > 0
    });
    let busy = register(&nodes[2], 50);
    let leave = async move |gateway: Rc<LocalGateway>| {
        gateway.leave(idle).await;
        Ok(())
    };
    nodes[1].node.handle().wait(leave).unwrap();
    assert_eq!(work(&nodes[2].node, &busy, 5_000), tasks.len());
    for (id, number) in &tasks {
        let view = nodes[1].end_of(*id);
        let mut result = Vec::new();
        write::array(&mut result, 2);
        write::uint(&mut result, *number);
        write::uint(&mut result, 0);
        assert_eq!((view.status, view.attempts), (TaskStatus::Done, 1), "{view:?}");
        assert_eq!(view.result, Some(result));
    }
    assert_eq!(nodes[1].figure(|core| core.tasks_lent), 0, "it was lent them itself");
    assert!(nodes[0].figure(|core| core.tasks_lent_back) > 0);
    nodes.into_iter().for_each(|clerks| stop(clerks.node));
}
