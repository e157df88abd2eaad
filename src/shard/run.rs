//! The loop of a worker core: turns, the core's other futures in between, and parking.

use super::{
    core::{Shard, TaskUnreadable},
    handle::Stay,
};
use crate::{
    config::{Runtime, Spin},
    runtime::{doorbell::Doorbell, executor, injector::Injector, process},
};
use futures_channel::oneshot;
use std::{
    any::Any,
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

#[cfg(test)]
mod tests;

/// What agents leave behind has this long to end with its core.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Time between two looks whether it has ended.
const END_LOOK: Duration = Duration::from_millis(1);
/// Idle looks at the rings between two looks at the clock.
const LOOKS_A_CLOCK: u32 = 16;
/// How often a core publishes its counters, milliseconds.
const PUBLISH_MS: u64 = 10;
/// How soon a core with something that no ring has room for looks again.
const RETRY: Duration = Duration::from_millis(1);

/// Time between two looks at all I/O while other nodes say something, microseconds: a look takes
/// about 5. A core that has nothing else to do looks again at once.
const FAR_IO_US: u64 = 20;

/// The exit code when an accepted task cannot be read back.
const EXIT_UNREADABLE: i32 = 70;

/// Work that comes from outside the runtime: a function that runs on the core, between turns.
pub type Job = Box<dyn FnOnce(&Rc<Core>) + Send>;

/// Something on a core that lets requests in, and is closed before the core stops.
pub trait Door {
    /// Takes in nothing new; what is inside finishes.
    fn close(&self);

    /// Whether nothing is inside any more.
    fn is_closed(&self) -> bool;
}

/// A worker core: its shard, and what its futures and other threads reach it by.
pub struct Core {
    shard: RefCell<Shard>,
    /// Where the core publishes its counters.
    published: Arc<Mutex<crate::wire::api::CoreStats>>,
    jobs: Injector<Job>,
    bell: Doorbell,
    stopping: Cell<bool>,
    doors: RefCell<Vec<Rc<dyn Door>>>,
    companion: OnceCell<Rc<dyn Any>>,
    /// Dropped when the core is to end.
    ending: RefCell<Vec<oneshot::Sender<()>>>,
}

impl Core {
    /// A core around a shard.
    pub fn new(
        shard: Shard,
        jobs: Injector<Job>,
        bell: Doorbell,
        published: Arc<Mutex<crate::wire::api::CoreStats>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            shard: RefCell::new(shard),
            published,
            jobs,
            bell,
            stopping: Cell::new(false),
            doors: RefCell::default(),
            companion: OnceCell::new(),
            ending: RefCell::default(),
        })
    }

    /// What the node keeps on this core beside the shard, made when it is first asked for.
    ///
    /// # Panics
    /// When it is asked for as something else than what was made: a core has one companion.
    pub fn companion<T: 'static>(&self, make: impl FnOnce() -> T) -> Rc<T> {
        let companion = self.companion.get_or_init(|| Rc::new(make())).clone();
        companion.downcast().expect("a core has one companion")
    }

    /// Adds a door, to be closed before the core stops.
    pub fn add_door(&self, door: Rc<dyn Door>) {
        self.doors.borrow_mut().push(door);
    }

    /// Tells a future of this core when to end (the receiver's sender is dropped), and lets the core wait
    /// for it, within its patience.
    pub fn until_end(&self) -> (oneshot::Receiver<()>, Stay) {
        let (sender, ended) = oneshot::channel();
        self.ending.borrow_mut().push(sender);
        (ended, self.shard.borrow().inbox().stay())
    }

    /// Closes all doors; tells whether nothing is inside any more.
    pub fn close_doors(&self) -> bool {
        let doors = self.doors.borrow();
        doors.iter().for_each(|door| door.close());
        doors.iter().all(|door| door.is_closed())
    }

    /// Uses the shard between two turns and makes the loop look at what that led to. Never call
    /// it from an agent's method.
    pub fn with_shard<T>(&self, work: impl FnOnce(&mut Shard) -> T) -> T {
        let mut shard = self.shard.borrow_mut();
        shard.read_clock();
        let result = work(&mut shard);
        shard.inbox().nudge();
        result
    }

    /// Makes the loop end after its turn.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.shard.borrow().inbox().nudge();
        self.bell.ring();
    }

    fn publish(&self) {
        let stats = {
            let mut shard = self.shard.borrow_mut();
            let stats = shard.stats();
            shard.tell_loads(&stats);
            stats
        };
        let mut published = self.published.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *published = stats;
    }

    /// Runs the loop until [`Core::stop`].
    pub async fn run(self: Rc<Self>, settings: &Runtime) {
        let listener = self.clone();
        let inbox = self.shard.borrow().inbox();
        executor::spawn(async move {
            let core = listener.clone();
            let woken = move || {
                inbox.nudge();
                !core.stopping.get()
            };
            if let Err(error) = listener.bell.clone().listen(woken).await {
                tracing::error!(%error, "a core can no longer be woken");
                std::process::abort();
            }
        });
        let inbox = self.shard.borrow().inbox();
        executor::on_round_due(move || inbox.nudge());
        let mut idle = Idle::new(settings.spin);
        let mut io_due_us = 0;
        let mut published_at = Instant::now();
        loop {
            let Turn { worked, woke_futures, now_us, is_far_busy, has_long_turns } = self.turn();
            if self.stopping.get() {
                return self.end().await;
            }
            let is_due = woke_futures || executor::is_round_due();
            if is_due || now_us >= io_due_us || executor::need_yield() {
                if has_long_turns {
                    // Memory took its time, and futures will take theirs.
                    self.turn_with(Shard::turn_of_messages);
                }
                executor::begin_round(has_long_turns);
                executor::yield_now().await;
                if is_far_busy {
                    executor::after_the_woken().await;
                }
                io_due_us = now_us
                    + match (is_far_busy, worked) {
                        (false, _) => settings.poll_io_us,
                        (true, true) => settings.poll_io_us.min(FAR_IO_US),
                        (true, false) => 0,
                    };
            }
            if worked {
                idle.reset();
            }
            if !idle.look() {
                continue;
            }
            if published_at.elapsed() >= Duration::from_millis(PUBLISH_MS) {
                published_at = Instant::now();
                self.publish();
            }
            if idle.is_over() {
                self.publish();
                self.park().await;
                idle.reset();
            }
        }
    }

    /// Stops the agents and waits for what they must not leave behind.
    async fn end(&self) {
        self.ending.borrow_mut().clear();
        executor::end_rounds();
        let inbox = {
            let mut shard = self.shard.borrow_mut();
            shard.stop_agents();
            shard.inbox()
        };
        let begun = Instant::now();
        while !inbox.may_end() {
            if begun.elapsed() > END_LIMIT {
                tracing::warn!("a core ended before all of its children did");
                break;
            }
            executor::sleep(END_LOOK).await;
        }
        self.publish();
    }

    #[inline]
    fn turn(self: &Rc<Self>) -> Turn {
        self.turn_with(Shard::turn)
    }

    #[inline(always)]
    fn turn_with(
        self: &Rc<Self>,
        turn: impl FnOnce(&mut Shard) -> Result<bool, TaskUnreadable>,
    ) -> Turn {
        let mut jobs = 0;
        while let Some(job) = self.jobs.pop() {
            job(self);
            jobs += 1;
        }
        let mut shard = self.shard.borrow_mut();
        shard.read_clock();
        let worked = turn(&mut shard).unwrap_or_else(|unreadable| end_process(&unreadable));
        shard.take_futures().into_iter().for_each(executor::spawn);
        let woke_futures = std::mem::take(&mut shard.woke_futures);
        Turn {
            worked: worked || jobs > 0,
            woke_futures: woke_futures || jobs > 0,
            now_us: shard.kernel.now_us,
            is_far_busy: shard.kernel.trunks.is_busy(shard.kernel.now_us),
            has_long_turns: shard.memory_has_turned(),
        }
    }

    /// Sleeps until something arrives, a timer is due or the bell rings.
    async fn park(&self) {
        self.bell.parking().prepare();
        let (ready, inbox, wait) = {
            let mut shard = self.shard.borrow_mut();
            shard.kernel.stats.parks += 1;
            let now_ms = shard.kernel.now_ms();
            let timer = shard
                .next_deadline_ms()
                .map(|deadline| Duration::from_millis(deadline.saturating_sub(now_ms).max(1)));
            let wait = if shard.has_departures() { Some(RETRY) } else { timer };
            let ready = shard.has_work() || !self.jobs.is_empty() || executor::is_round_due();
            (ready, shard.inbox(), wait)
        };
        if !ready {
            executor::rest();
            match wait {
                Some(wait) => drop(executor::timeout(wait, inbox.nudged()).await),
                None => inbox.nudged().await,
            }
        }
        self.bell.parking().awake();
    }
}

/// Ends the process with its children: what was accepted would be missing from here on.
#[cold]
fn end_process(why: &TaskUnreadable) -> ! {
    tracing::error!("{why}; `coreflow doctor --log` shows more. The node ends");
    process::kill_all();
    std::process::exit(EXIT_UNREADABLE);
}

/// What came of a turn.
struct Turn {
    /// There was work.
    worked: bool,
    /// Futures of this core want to run.
    woke_futures: bool,
    /// When it began.
    now_us: u64,
    /// More is to be expected from other nodes soon.
    is_far_busy: bool,
    /// It took long, and so will the next.
    has_long_turns: bool,
}

/// How long a core has had nothing to do.
struct Idle {
    limit: Option<Duration>,
    since: Option<Instant>,
    looks: u32,
}

impl Idle {
    fn new(spin: Spin) -> Self {
        let limit = match spin {
            Spin::Forever => None,
            Spin::Micros(micros) => Some(Duration::from_micros(micros)),
        };
        Self { limit, since: None, looks: 0 }
    }

    #[inline]
    fn reset(&mut self) {
        self.since = None;
    }

    /// Counts a look; true when it is time to look at the clock as well.
    #[inline]
    fn look(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        self.looks.is_multiple_of(LOOKS_A_CLOCK)
    }

    fn is_over(&mut self) -> bool {
        let Some(limit) = self.limit else { return false };
        let now = Instant::now();
        now - *self.since.get_or_insert(now) >= limit
    }
}
