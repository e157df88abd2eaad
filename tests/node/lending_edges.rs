//! Tasks that other nodes run, at the edges: results that are none, payloads and results that are large,
//! a way that falls silent, agents of one's own that are busy.

use super::{
    WAIT,
    far::{Places, stop},
    lending::{Clerks, on_each_core, with_agents, without},
    tasks::spec,
};
use coreflow::{
    config::Config,
    node::{AgentOptions, NodeBuilder, gateway::Gateway, local::LocalGateway},
    shard::{
        agent::{Agent, Outcome, Task},
        context::Context,
    },
    wire::{
        api::{Completion, Error, LeasedTask, TaskFilter, TaskSpec, TaskStatus, TaskView},
        id::TaskId,
        msgpack::write,
    },
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

fn options(agents: usize, max_tasks: u32) -> AgentOptions {
    AgentOptions { min: agents, max: agents, max_tasks, ..AgentOptions::default() }
}

/// Answers with the bytes that its task says, or with none.
struct Parrot;

impl Agent for Parrot {
    fn on_task(&mut self, task: &Task<'_>, result: &mut Vec<u8>, _: &mut Context<'_>) -> Outcome {
        // What it says are the bytes in a MessagePack bin.
        let said = match task.payload {
            [0xc4, _, said @ ..] => said,
            other => panic!("a short bin begins otherwise: {other:?}"),
        };
        result.extend_from_slice(said);
        Outcome::Done
    }
}

fn parrots(builder: NodeBuilder) -> NodeBuilder {
    builder.agent("parrot", options(on_each_core(1), 4), || Parrot)
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Submits tasks, once the node knows of agents that run them.
fn submit(clerks: &Clerks, specs: &[TaskSpec]) -> Vec<TaskId> {
    until("the type is known", || {
        let specs = specs.to_vec();
        match clerks.node.handle().wait(move |gateway| gateway.submit(specs)) {
            Err(Error::NotFound(_) | Error::Backpressure(_)) => None,
            ids => Some(ids.expect("they are taken")),
        }
    })
}

#[test]
fn a_result_that_is_none_is_a_failure_and_harms_no_other_attempt() {
    let places = Places::of("edge-parrot", 2);
    let near = without(&places, 1);
    let far = places.start(2, parrots);
    near.until_leaders_stay(2);
    let say = |bytes: &[u8]| spec("parrot", |out| write::bin(out, bytes));
    // One value, none, two, half of one, and bytes that begin none.
    let said: [&[u8]; 5] = [&[7], &[], &[1, 2], &[0x92, 1], &[0xc1]];
    for _ in 0..20 {
        let ids = submit(&near, &said.map(say));
        let ends: Vec<TaskView> = ids.into_iter().map(|id| near.end_of(id)).collect();
        assert_eq!((ends[0].status, &ends[0].result), (TaskStatus::Done, &Some(vec![7])));
        assert_eq!((ends[1].status, &ends[1].result), (TaskStatus::Done, &Some(vec![0xc0])));
        for view in &ends[2..] {
            assert_eq!((view.status, view.attempts), (TaskStatus::Dead, 1), "{view:?}");
            let why = view.error.as_deref().expect("it says why");
            assert!(why.contains("MessagePack"), "{why}");
        }
    }
    assert_eq!(near.figure(|core| core.tasks_lent_lost), 0, "no connection was lost");
    stop(near.node);
    stop(far);
}

#[test]
fn tasks_wait_not_for_the_busy_agents_of_their_node_while_those_of_another_are_idle() {
    let places = Places::of("edge-busy", 2);
    // Each node runs few tasks at a time, of a quarter of a second.
    let near = with_agents(&places, 1, options(on_each_core(1), 1), 250);
    let far = with_agents(&places, 2, options(on_each_core(2), 4), 250);
    near.until_leaders_stay(2);
    let tasks = near.submit(0..60, 0);
    let running = until("the list and the state of a task say that the other node runs it", || {
        let filter = TaskFilter { status: Some(TaskStatus::Running), agent_type: None };
        let page = near.node.handle().wait(move |gateway| gateway.tasks(filter, None, 100));
        let lent = page.expect("it lists").tasks.into_iter().find(|it| it.node == Some(2))?;
        let id = lent.id;
        let view =
            near.node.handle().wait(move |gateway| gateway.task(id, 0)).expect("it is known");
        // It may have ended since, or have come back unbegun and run here.
        (view.status == TaskStatus::Running && view.node == Some(2)).then_some(view)
    });
    near.all_done(&tasks, 1);
    assert_eq!(near.end_of(running.id).node, None);
    let (here, there) = (near.seen.lock().unwrap(), far.seen.lock().unwrap());
    assert_eq!(here.attempts.len() + there.attempts.len(), 60, "each ran once");
    // What is told of free places is a tenth of a second old and each core lends by it, so that all the rest may
    // be lent by the second look; but not before an agent of its own took what it can.
    assert!(!here.attempts.is_empty(), "none ran where they are kept");
    // Eight times as many places: without them it would take eight seconds and more.
    assert!(there.attempts.len() >= 20, "{} ran elsewhere", there.attempts.len());
    drop((here, there));
    assert_eq!(far.figure(|core| core.tasks_lent), 0, "nothing waited there for long");
    stop(near.node);
    stop(far.node);
}

/// Answers with its payload after a while.
struct Mirror {
    takes_ms: u64,
    works: Vec<(u64, coreflow::shard::handle::Lease, Vec<u8>)>,
    next: u64,
    ran: Arc<AtomicUsize>,
}

impl Agent for Mirror {
    fn on_task(&mut self, task: &Task<'_>, _: &mut Vec<u8>, context: &mut Context<'_>) -> Outcome {
        self.next += 1;
        self.ran.fetch_add(1, Ordering::Relaxed);
        self.works.push((self.next, task.lease, task.payload.to_vec()));
        context.set_timer(Duration::from_millis(self.takes_ms), self.next);
        Outcome::Later
    }

    fn on_timer(&mut self, token: u64, context: &mut Context<'_>) {
        if let Some(place) = self.works.iter().position(|(of, ..)| *of == token) {
            let (_, lease, result) = self.works.swap_remove(place);
            context.finish(lease, Ok(result));
        }
    }
}

fn mirrors(builder: NodeBuilder, takes_ms: u64, ran: &Arc<AtomicUsize>) -> NodeBuilder {
    let ran = ran.clone();
    builder.agent("mirror", options(on_each_core(1), 8), move || Mirror {
        takes_ms,
        works: Vec::new(),
        next: 0,
        ran: ran.clone(),
    })
}

/// A payload of so many bytes that differs from all others.
fn large(number: usize, bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let body: Vec<u8> = (0..bytes).map(|place| ((place * (number + 3)) >> 3) as u8).collect();
    write::bin(&mut out, &body);
    out
}

#[test]
fn payloads_and_results_as_large_as_they_may_be_come_there_and_back() {
    let places = Places::of("edge-large", 2);
    let most = Config::default().tasks.max_payload_bytes;
    let near = without(&places, 1);
    let ran = Arc::default();
    let far = places.start(2, |builder| mirrors(builder, 20, &ran));
    near.until_leaders_stay(2);
    // Bin heads have five bytes; some are small, so that they pass large ones.
    let size = |number| if number % 3 == 0 { 10 } else { most - 5 };
    let payload = |number| large(number, size(number));
    let specs = |range: std::ops::Range<usize>| -> Vec<TaskSpec> {
        range.map(|it| spec("mirror", |out| out.extend(payload(it)))).collect()
    };
    let mut ids = Vec::new();
    for begin in (0..48).step_by(4) {
        ids.extend(submit(&near, &specs(begin..begin + 4)));
    }
    for (number, id) in ids.into_iter().enumerate() {
        let view = near.end_of(id);
        assert_eq!((view.status, view.attempts), (TaskStatus::Done, 1), "{:?}", view.error);
        assert!(view.result == Some(payload(number)), "task {number} has another's result");
    }
    // On a busy machine another node may come to lead a partition, and begin its attempts anew.
    assert!(ran.load(Ordering::Relaxed) >= 48);
    assert!(near.figure(|core| core.tasks_lent) > 0, "all were lent");
    assert_eq!(near.figure(|core| core.tasks_lent_lost), 0);
    stop(near.node);
    stop(far);
}

/// A way to a node that can fall silent: connections stay open, and nobody reads or writes any more.
struct Way {
    address: SocketAddr,
    is_silent: Arc<AtomicBool>,
}

impl Way {
    fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let is_silent = Arc::new(AtomicBool::new(false));
        let way = Self { address, is_silent: is_silent.clone() };
        thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(node)) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let is_silent = is_silent.clone();
                    thread::spawn(move || pass(from, to, &is_silent));
                }
            }
        });
        way
    }
}

/// Passes bytes on, but while the way is silent.
fn pass(mut from: TcpStream, mut to: TcpStream, is_silent: &AtomicBool) {
    from.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket has one");
    let mut buffer = [0; 16 << 10];
    loop {
        if is_silent.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) if to.write_all(&buffer[..len]).is_ok() => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => break,
        }
    }
    // The other direction ends by itself.
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn what_is_lent_over_a_way_that_falls_silent_fails_in_time_and_runs_elsewhere() {
    // What failed is tried again soon.
    let tuning = "[tasks]\nretry_base_ms = 10\nretry_max_ms = 200\n";
    let mut places = Places::of("edge-silent", 3).with(tuning);
    let way = Way::to(places.rpc_of(2));
    places.say_rpc_of(2, way.address);
    let ran: [Arc<AtomicUsize>; 2] = Default::default();
    let near = without(&places, 1);
    let second = places.start(2, |builder| mirrors(builder, 20, &ran[0]));
    let third = places.start(3, |builder| mirrors(builder, 20, &ran[1]));
    near.until_leaders_stay(3);
    let tasks = |count: usize| -> Vec<TaskSpec> {
        let of = |number| TaskSpec {
            timeout_ms: Some(1_000),
            max_attempts: Some(20),
            ..spec("mirror", |out| out.extend(large(number, 200_000)))
        };
        (0..count).map(of).collect()
    };
    until("both are lent something", || {
        for id in submit(&near, &tasks(10)) {
            assert_eq!(near.end_of(id).status, TaskStatus::Done);
        }
        ran.iter().all(|ran| ran.load(Ordering::Relaxed) > 0).then_some(())
    });
    // Gossip takes another way, and says that the node lives.
    way.is_silent.store(true, Ordering::Relaxed);
    let before = ran[1].load(Ordering::Relaxed);
    until("something was lent over the silent way", || {
        for (number, id) in submit(&near, &tasks(40)).into_iter().enumerate() {
            let view = near.end_of(id);
            assert_eq!(view.status, TaskStatus::Done, "{:?}", view.error);
            assert!(view.result == Some(large(number, 200_000)), "task {number} has another's");
        }
        (near.figure(|core| core.attempts_failed) > 0).then_some(())
    });
    assert!(ran[1].load(Ordering::Relaxed) >= before + 40, "all of them ran at the third");
    // When it speaks again, the node is lent something again, over new connections where old ones ended.
    way.is_silent.store(false, Ordering::Relaxed);
    let before = ran[0].load(Ordering::Relaxed);
    until("the node is lent something again", || {
        for id in submit(&near, &tasks(20)) {
            assert_eq!(near.end_of(id).status, TaskStatus::Done);
        }
        (ran[0].load(Ordering::Relaxed) > before).then_some(())
    });
    for node in [near.node, second, third] {
        stop(node);
    }
}

#[test]
fn an_end_of_which_nobody_knows_whether_it_was_taken_leaves_its_worker_free() {
    let mut places =
        Places::of("edge-end", 2).with("[[agent]]\ntype = \"hand\"\nkind = \"remote\"\n");
    let way = Way::to(places.rpc_of(1));
    places.say_rpc_of(1, way.address);
    let near = without(&places, 1);
    let far = without(&places, 2);
    near.until_leaders_stay(2);
    let register = |gateway: Rc<LocalGateway>| gateway.register(vec!["hand".into()], 1);
    let worker = far.node.handle().wait(register).expect("a worker may come");
    let task = |out: &mut Vec<u8>| write::uint(out, 7);
    let of = || TaskSpec { timeout_ms: Some(10 * 60_000), ..spec("hand", task) };
    let ids = submit(&near, &[of(), of()]);
    let fetch = || {
        let worker = worker.clone();
        let fetched = far.node.handle().wait(move |gateway| gateway.fetch(worker, 1, 20_000));
        fetched.expect("a worker may fetch").tasks.pop().expect("a task waits")
    };
    let end = |LeasedTask { id, lease, .. }: LeasedTask| {
        let ends = vec![Completion { id, lease, outcome: Ok(vec![1]) }];
        let ends = far.node.handle().wait(move |gateway| gateway.end_attempts(ends));
        ends.expect("it is asked").pop().expect("one is answered")
    };
    let first = fetch();
    way.is_silent.store(true, Ordering::Relaxed);
    let is_silent = way.is_silent.clone();
    let speaks = thread::spawn(move || {
        // Longer than an answer may take.
        thread::sleep(Duration::from_millis(6_500));
        is_silent.store(false, Ordering::Relaxed);
    });
    let ended = end(first);
    assert!(matches!(ended, Ok(()) | Err(Error::Uncertain(_))), "{ended:?}");
    speaks.join().expect("it only waits");
    // It holds one task at most, and is given another.
    assert_eq!(end(fetch()), Ok(()));
    for id in ids {
        assert_eq!(near.end_of(id).status, TaskStatus::Done);
    }
    stop(near.node);
    stop(far.node);
}
