//! The pool against a model of a core: agents that take their time to start, work, crash and are
//! stopped, under a virtual clock.

use super::*;
use crate::task::LoadIndex;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const WINDOW_MS: u64 = 2_000;

fn limits(min: usize, max: usize) -> PoolLimits {
    PoolLimits {
        min,
        max,
        warmup_delay_ms: 50,
        idle_timeout_ms: 400,
        max_restarts: 3,
        restart_window_ms: WINDOW_MS,
        spreads: false,
    }
}

/// An agent of the model.
struct Agent {
    /// When it can take work, if its start is still under way.
    ready_ms: Option<u64>,
    kept: bool,
    used_ms: u64,
    /// When its tasks end.
    ends: Vec<u64>,
}

/// A core with one pool, as the shard drives it.
struct Core {
    now_ms: u64,
    pool: Pool,
    agents: BTreeMap<Seat, Agent>,
    loads: LoadIndex,
    /// How long the tasks take that wait.
    queue: VecDeque<u64>,
    start_ms: u64,
    max_tasks: u32,
    /// When seats started again.
    restarts: BTreeMap<Seat, Vec<u64>>,
    starts: usize,
    stops: usize,
    spreads: usize,
    /// Tasks that end are followed by another of the same length.
    closed_loop: bool,
}

impl Core {
    fn new(limits: PoolLimits, start_ms: u64, max_tasks: u32) -> Self {
        Self {
            now_ms: 0,
            pool: Pool::new(limits),
            agents: BTreeMap::new(),
            loads: LoadIndex::default(),
            queue: VecDeque::new(),
            start_ms,
            max_tasks,
            restarts: BTreeMap::new(),
            starts: 0,
            stops: 0,
            spreads: 0,
            closed_loop: false,
        }
    }

    fn step(&mut self, input: Input) -> bool {
        let outputs = self.pool.step(self.now_ms, input);
        for output in &outputs {
            match *output {
                Output::Start { seat, again } => {
                    if again {
                        self.restarts.entry(seat).or_default().push(self.now_ms);
                    }
                    self.start(seat);
                }
                Output::Stop(seat) => {
                    self.stops += 1;
                    self.check_stop(seat);
                    self.stopped(seat);
                }
                Output::Spread => self.spreads += 1,
            }
        }
        self.check();
        !outputs.is_empty()
    }

    fn check_stop(&self, seat: Seat) {
        let agent = &self.agents[&seat];
        assert!(!agent.kept, "somebody asked for it");
        assert!(agent.ends.is_empty(), "it works");
        let idle_ms = self.now_ms - agent.used_ms;
        assert!(idle_ms >= self.pool.limits.idle_timeout_ms, "idle for {idle_ms} ms only");
        let own_up = |agent: &&Agent| !agent.kept && agent.ready_ms.is_none();
        let own_up = self.agents.values().filter(own_up).count();
        assert!(own_up > self.pool.limits.min, "{own_up} are up, and one of them is stopped");
    }

    /// What holds at any time.
    fn check(&self) {
        let PoolLimits { max, warmup_delay_ms, .. } = self.pool.limits;
        let unnamed = |seat: &&Seat| self.pool.name(**seat).is_none();
        assert!(self.agents.keys().filter(unnamed).count() <= max, "above max");
        if self.pool.is_cold() {
            let next_ms = self.pool.next_look_ms().expect("it must look again while it is cold");
            let pause_ms = warmup_delay_ms.max(SUCCESSOR_PAUSE_MS);
            assert!(next_ms <= self.now_ms + pause_ms, "below min for longer than the warm-up");
        }
    }

    fn start(&mut self, seat: Seat) {
        self.starts += 1;
        let kept = self.pool.place(seat).kept;
        let ready_ms = Some(self.now_ms + self.start_ms);
        let agent = Agent { ready_ms, kept, used_ms: self.now_ms, ends: Vec::new() };
        assert!(self.agents.insert(seat, agent).is_none(), "two agents in one seat");
        self.loads.insert(seat, self.max_tasks);
        self.loads.set_ready(seat, false);
        self.settle();
    }

    /// Agents whose time has come are ready; tasks whose time has come end.
    fn settle(&mut self) {
        let now_ms = self.now_ms;
        let seats: Vec<Seat> = self.agents.keys().copied().collect();
        for seat in seats {
            let Some(agent) = self.agents.get_mut(&seat) else { continue };
            if agent.ready_ms.is_some_and(|ready_ms| ready_ms <= now_ms) {
                agent.ready_ms = None;
                self.loads.set_ready(seat, true);
                self.step(Input::Ready(seat));
            }
            let Some(agent) = self.agents.get_mut(&seat) else { continue };
            let before = agent.ends.len();
            agent.ends.retain(|end_ms| *end_ms > now_ms);
            for _ in agent.ends.len()..before {
                agent.used_ms = now_ms;
                self.loads.end(seat, 1);
            }
        }
    }

    fn assign(&mut self) {
        while let Some(&took_ms) = self.queue.front() {
            let Some(seat) = self.loads.least_loaded() else {
                // The only place where the pool hears of tasks: no warm agent can take one.
                if self.step(Input::Starved) {
                    continue;
                }
                return;
            };
            self.queue.pop_front();
            self.loads.begin(seat);
            let agent = self.agents.get_mut(&seat).expect("the index knows agents only");
            agent.ends.push(self.now_ms + took_ms);
            agent.used_ms = self.now_ms;
        }
    }

    fn leave(&mut self, seat: Seat) {
        let agent = self.agents.remove(&seat).expect("it was there");
        self.loads.remove(seat);
        // What it worked on waits again.
        self.queue.extend(agent.ends.iter().map(|_| 20));
    }

    /// An agent is stopped; whoever has its seat next starts with a clean record.
    fn stopped(&mut self, seat: Seat) {
        self.leave(seat);
        self.restarts.remove(&seat);
        self.step(Input::Stopped(seat));
    }

    /// One millisecond passes.
    fn tick(&mut self, task_ms: u64) {
        let working = |core: &Self| core.agents.values().map(|agent| agent.ends.len()).sum();
        let before: usize = working(self);
        self.now_ms += 1;
        self.settle();
        if self.closed_loop {
            let ended = before - working(self);
            self.queue.extend(std::iter::repeat_n(task_ms, ended));
        }
        if self.pool.next_look_ms().is_some_and(|look_ms| look_ms <= self.now_ms) {
            self.look();
        }
        self.assign();
    }

    fn look(&mut self) {
        let looked_ms = self.pool.looked_ms;
        let up = self.agents.iter().filter(|(_, agent)| agent.ready_ms.is_none());
        let worked = up.filter(|(_, agent)| !agent.ends.is_empty() || agent.used_ms > looked_ms);
        let worked: Vec<Seat> = worked.map(|(seat, _)| *seat).collect();
        for seat in worked {
            self.step(Input::Worked(seat));
        }
        self.step(Input::Look);
    }

    fn run(&mut self, ms: u64, task_ms: u64) {
        (0..ms).for_each(|_| self.tick(task_ms));
    }
}

#[derive(Clone, Debug)]
enum Event {
    Submit(usize, u64),
    Pass(u64),
    Crash(usize),
    Stop(usize),
    Spawn(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1_usize..12, 1_u64..300).prop_map(|(count, ms)| Event::Submit(count, ms)),
        4 => prop_oneof![1_u64..20, 100_u64..1_500].prop_map(Event::Pass),
        2 => any::<usize>().prop_map(Event::Crash),
        1 => any::<usize>().prop_map(Event::Stop),
        1 => any::<bool>().prop_map(Event::Spawn),
    ]
}

impl Core {
    fn happen(&mut self, event: &Event) {
        let pick = |core: &Self, pick: usize| {
            let count = core.agents.len().max(1);
            core.agents.keys().nth(pick % count).copied()
        };
        match *event {
            Event::Submit(count, took_ms) => {
                self.queue.extend(std::iter::repeat_n(took_ms, count));
                self.assign();
            }
            Event::Pass(ms) => self.run(ms, 0),
            Event::Crash(number) => {
                let Some(seat) = pick(self, number) else { return };
                self.leave(seat);
                self.step(Input::Crashed(seat));
            }
            Event::Stop(number) => {
                let Some(seat) = pick(self, number) else { return };
                self.stopped(seat);
            }
            Event::Spawn(named) => {
                if let Some(seat) = self.pool.spawn(named.then(|| "ada".to_owned())) {
                    self.restarts.remove(&seat);
                    self.start(seat);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_limits_hold(
        (min, max) in (0_usize..5).prop_flat_map(|min| (Just(min), min.max(1)..9)),
        (start_ms, max_tasks) in (0_u64..40, 1_u32..4),
        events in prop::collection::vec(event(), 0..40),
    ) {
        let mut core = Core::new(limits(min, max), start_ms, max_tasks);
        core.step(Input::Look);
        for event in &events {
            core.happen(event);
        }
        for restarts in core.restarts.values() {
            let too_often = |four: &[u64]| four[3] - four[0] <= WINDOW_MS;
            prop_assert!(!restarts.windows(4).any(too_often), "{restarts:?}");
        }
        // Left alone, it does everything that waits and comes to rest with what it must keep.
        core.run(10 * WINDOW_MS, 0);
        prop_assert!(core.queue.is_empty(), "{} tasks wait", core.queue.len());
        let own = core.agents.values().filter(|agent| !agent.kept).count();
        let room = max.saturating_sub(core.agents.len() - own);
        prop_assert!((min.min(room)..=min).contains(&own), "{own} of its own, room for {room}");
    }

    #[test]
    fn a_steady_load_neither_starts_nor_stops_agents(
        (min, max) in (0_usize..5).prop_flat_map(|min| (Just(min), min.max(1)..9)),
        (start_ms, max_tasks) in (0_u64..40, 1_u32..4),
        (tasks, task_ms) in (1_usize..20, 1_u64..900),
    ) {
        let mut core = Core::new(limits(min, max), start_ms, max_tasks);
        core.step(Input::Look);
        core.closed_loop = true;
        core.happen(&Event::Submit(tasks, task_ms));
        core.run(8_000, task_ms);
        let before = (core.starts, core.stops);
        core.run(8_000, task_ms);
        prop_assert_eq!((core.starts, core.stops), before);
        let needed = tasks.div_ceil(max_tasks as usize).max(min).min(max);
        prop_assert!(core.agents.len() >= needed, "{} of {}", core.agents.len(), needed);
    }
}

#[test]
fn the_pool_warms_up_one_after_the_other_the_first_at_once() {
    let mut core = Core::new(limits(3, 9), 0, 1);
    core.step(Input::Look);
    let mut counts = vec![core.agents.len()];
    for _ in 0..4 {
        core.run(50, 0);
        counts.push(core.agents.len());
    }
    assert_eq!(counts, [1, 2, 3, 3, 3]);
}

#[test]
fn a_task_does_not_wait_for_the_warm_up() {
    let mut core = Core::new(limits(3, 9), 0, 1);
    core.step(Input::Look);
    core.happen(&Event::Submit(2, 1_000));
    assert_eq!((core.agents.len(), core.queue.len()), (2, 0));
}

#[test]
fn it_grows_by_one_start_at_a_time_and_only_while_every_agent_is_full() {
    let mut core = Core::new(limits(1, 4), 10, 2);
    core.step(Input::Look);
    core.run(10, 0);
    core.happen(&Event::Submit(2, 1_000));
    core.run(50, 0);
    assert_eq!(core.starts, 1, "the warm agent took both");
    core.happen(&Event::Submit(4, 1_000));
    let mut starts = Vec::new();
    for _ in 0..3 {
        core.run(5, 0);
        starts.push(core.starts);
        core.run(5, 0);
    }
    assert_eq!(starts, [2, 3, 3], "a second one starts when the first is full too");
    assert!(core.queue.is_empty());
}

#[test]
fn idle_agents_above_min_stop_and_those_that_somebody_asked_for_stay() {
    let mut core = Core::new(limits(1, 8), 0, 1);
    core.step(Input::Look);
    core.happen(&Event::Spawn(true));
    core.happen(&Event::Spawn(false));
    core.happen(&Event::Submit(6, 100));
    assert_eq!(core.agents.len(), 6);
    core.run(499, 0);
    assert_eq!(core.stops, 0, "none was idle for 400 ms");
    core.run(101, 0);
    assert_eq!(core.agents.len(), 3, "one is kept, two were asked for");
}

#[test]
fn while_one_waits_to_start_again_the_pool_does_not_grow() {
    let mut core = Core::new(limits(1, 8), 0, 1);
    core.step(Input::Look);
    core.happen(&Event::Submit(5, 1_000));
    assert_eq!(core.starts, 5);
    core.happen(&Event::Crash(0));
    core.happen(&Event::Submit(3, 1_000));
    assert_eq!(core.starts, 5);
    core.run(10, 0);
    assert_eq!((core.starts, core.queue.len()), (9, 0), "one again and three more, for all tasks");
}

#[test]
fn without_restarts_a_crashed_agent_stays_away_until_somebody_spawns_one() {
    let mut core = Core::new(PoolLimits { max_restarts: 0, ..limits(1, 1) }, 0, 1);
    core.step(Input::Look);
    core.happen(&Event::Crash(0));
    core.happen(&Event::Submit(1, 10));
    core.run(10 * WINDOW_MS, 0);
    assert_eq!((core.agents.len(), core.queue.len()), (0, 1));
    core.happen(&Event::Spawn(false));
    core.assign();
    assert_eq!((core.agents.len(), core.queue.len()), (1, 0));
}

#[test]
fn a_pool_that_is_full_asks_other_cores_but_not_all_the_time() {
    let mut core = Core::new(PoolLimits { spreads: true, ..limits(1, 1) }, 0, 1);
    core.step(Input::Look);
    core.happen(&Event::Submit(5, 10_000));
    core.run(1_000, 0);
    assert!((9..=11).contains(&core.spreads), "asked {} times in a second", core.spreads);
    let mut other = Core::new(limits(0, 1), 0, 1);
    other.step(Input::Wanted);
    other.step(Input::Wanted);
    assert_eq!(other.starts, 1, "one is enough for a beginning");
}

#[test]
fn a_start_that_the_core_has_no_room_for_is_tried_again_later() {
    let mut pool = Pool::new(limits(1, 1));
    assert_eq!(pool.step(0, Input::Look).len(), 1);
    assert!(pool.step(0, Input::Refused(0)).is_empty());
    assert!(pool.step(1, Input::Starved).is_empty());
    assert_eq!(pool.next_look_ms(), Some(REFUSED_PAUSE_MS));
    assert_eq!(pool.step(REFUSED_PAUSE_MS, Input::Look).len(), 1);
}
