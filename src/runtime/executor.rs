//! One executor on one pinned core, and what code that runs on it may ask of it.

use super::{aside::Aside, sys};
use glommio::{LocalExecutorBuilder, Placement};
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// How long the engine may sleep at most. It sleeps although a future of its core can run when a
/// completion that nobody waits for (a cancelled read, its own timer) comes just after it looked at
/// its I/O; the next wake-up of any kind ends that.
const HEARTBEAT: Duration = Duration::from_millis(50);
/// The same may happen to the heartbeat itself, which then waits in vain for its turn: another one
/// ends that. It fires at other times.
const SECOND_HEARTBEAT: Duration = Duration::from_millis(333);
/// The exit code of a process one of whose cores panicked.
pub(super) const EXIT_PANICKED: i32 = 101;
/// Beyond any wait on a core.
const FAR: Duration = Duration::from_secs(3600);

/// Where an executor runs and what memory it registers with the kernel.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The kernel's number of the processor.
    pub cpu: usize,
    /// Entries in each io_uring.
    pub ring_depth: usize,
    /// Memory registered for I/O, bytes.
    pub io_memory: usize,
}

/// A core's thread, to be joined.
pub struct CoreThread<T: Send + 'static>(glommio::ExecutorJoinHandle<T>);

impl<T: Send + 'static> CoreThread<T> {
    /// Waits for the core's future to end; an error tells what ended it instead.
    pub fn join(self) -> io::Result<T> {
        self.0.join().map_err(|error| io::Error::other(error.to_string()))
    }
}

/// Starts a thread pinned to `settings.cpu` and runs `make`'s future on an executor there.
///
/// # Errors
/// When the kernel refuses an io_uring or the processor is not one this process may use.
pub fn spawn_pinned<T, F, Fut>(
    name: &str,
    settings: &Settings,
    make: F,
) -> io::Result<CoreThread<T>>
where
    T: Send + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    // Children may use every processor that this process may, not the core of their agent alone.
    super::process::remember_processors();
    LocalExecutorBuilder::new(Placement::Fixed(settings.cpu))
        .name(name)
        .ring_depth(settings.ring_depth)
        .io_memory(settings.io_memory)
        .spawn(move || async move {
            // Before anything on this core waits for the first time.
            for period in [HEARTBEAT, SECOND_HEARTBEAT] {
                spawn(async move {
                    loop {
                        sleep(period).await;
                    }
                });
            }
            // The first sleep on an executor takes tens of milliseconds: pay for it here.
            sleep(Duration::from_micros(1)).await;
            or_exit(make()).await
        })
        .map(CoreThread)
        .map_err(|error| io::Error::other(error.to_string()))
}

/// Keeps the calling thread, which runs no executor, on a processor; tells whether that worked.
pub fn pin_thread(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

/// Processor time of the calling thread, and how often another one took its processor away.
pub fn thread_use() -> (Duration, u64) {
    sys::thread_use()
}

thread_local! {
    /// When the futures of this core were last let run.
    static ROUND_BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    /// How long they go on.
    static ROUND_LIMIT: Cell<Duration> = const { Cell::new(ROUND) };
    /// The core slept: the next round begins with the first future that runs.
    static RESTED: Cell<bool> = const { Cell::new(false) };
    /// Futures of this core that go on when its messages have had their turn.
    static LATER: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
    /// Those for which there was no time in the round before: they come first.
    static FIRST: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
    /// The thread that does what would hold this core.
    static ASIDE: RefCell<Option<Aside>> = const { RefCell::new(None) };
    /// Tells whoever lets futures run that some wait for it.
    static ON_LATER: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

/// How long futures that have much to do go on together, before messages have their turn.
const BREATH: Duration = Duration::from_micros(30);
/// The same for those that do little at a time, such as a connection that has more to read: to stop and
/// begin again so soon would cost them a quarter of what they do.
const ROUND: Duration = Duration::from_micros(100);
/// The same while the core's messages have much to do in their own turns.
const SHORT_ROUND: Duration = BREATH;
/// Rounds that a future with much to do waits for its turn at most, where others use up the time of each.
const ROUNDS_MAX: u32 = 4;

/// The core's futures are about to run, after it looked at its messages; for a shorter time where those
/// take long turns.
pub fn begin_round(is_short: bool) {
    ROUND_LIMIT.set(if is_short { SHORT_ROUND } else { ROUND });
    ROUND_BEGAN.set(Some(Instant::now()));
    wake_all();
}

/// No round follows: whoever waits for one goes on, and nobody waits any more.
pub fn end_rounds() {
    ROUND_BEGAN.set(None);
    RESTED.set(false);
    wake_all();
}

fn wake_all() {
    let (first, later) = (FIRST.take(), LATER.take());
    first.into_iter().chain(later).for_each(Waker::wake);
}

/// The core is about to sleep, with no message to wait for.
pub fn rest() {
    RESTED.set(true);
}

/// Has `tell` called whenever a future of this core waits for the next round: the core may be asleep.
pub fn on_round_due(tell: impl Fn() + 'static) {
    ON_LATER.set(Some(Box::new(tell)));
}

fn wake_later(waker: &Waker, is_first: bool) {
    let list = if is_first { &FIRST } else { &LATER };
    list.with_borrow_mut(|list| list.push(waker.clone()));
    ON_LATER.with_borrow(|tell| {
        if let Some(tell) = tell {
            tell();
        }
    });
}

/// Whether futures of this core wait for the next round.
#[inline]
pub fn is_round_due() -> bool {
    LATER.with_borrow(|later| !later.is_empty()) || FIRST.with_borrow(|first| !first.is_empty())
}

/// Whether the futures of this core have gone on for so long.
fn is_round_over(limit: Duration) -> bool {
    if RESTED.take() {
        ROUND_BEGAN.set(Some(Instant::now()));
    }
    ROUND_BEGAN.get().is_some_and(|began| began.elapsed() >= limit)
}

/// Whether the futures of this core have gone on for long enough; those that have much to do sooner.
pub fn is_over(is_much: bool) -> bool {
    is_round_over(if is_much { BREATH } else { ROUND_LIMIT.get() })
}

/// Lets a future go on that has more to do: at once, or after messages have had their turn, when the
/// core's futures have gone on for long enough. One that has much to do waits sooner.
pub fn again(waker: &Waker, is_much: bool) {
    match is_over(is_much) {
        true => wake_later(waker, false),
        false => waker.wake_by_ref(),
    }
}

/// Lets a future go on for which there was no time in this round: in the next one, before those for which there was.
pub fn again_first(waker: &Waker) {
    wake_later(waker, true);
}

/// Lets go of something that would hold the core, by a helper thread of it; at once where no node runs.
pub fn let_go<T: Send + 'static>(it: T) {
    if ASIDE.with_borrow(Option::is_some) {
        spawn(async move { drop(blocking(move || drop(it)).await) });
    }
}

/// Lets messages have their turn, and other futures, when those of this core have gone on for long enough:
/// for a future with much to do, between steps of some microseconds. All that wait get on in turn.
pub async fn breathe() {
    if !is_round_over(BREATH) {
        return;
    }
    let mut rounds = 0;
    poll_fn(|context| match rounds == 0 || rounds < ROUNDS_MAX && is_round_over(BREATH) {
        true => {
            // Others that were woken with this one may have used up the time of a round.
            wake_later(context.waker(), rounds > 0);
            rounds += 1;
            Poll::Pending
        }
        false => Poll::Ready(()),
    })
    .await;
}

/// Names the thread that does what would hold this core.
pub fn set_aside(way: Aside) {
    ASIDE.set(Some(way));
}

/// Does work that would hold the core, by the thread beside it; at once where there is none. It must wait for
/// nobody.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match ASIDE.with_borrow(Clone::clone) {
        Some(way) => way.give(work).await.expect("what is given is done"),
        None => work(),
    }
}

/// Runs a future on this core until it ends; nobody waits for it.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(or_exit(future)).detach();
}

/// Runs a future whose panic is a defect that nobody can go on from: the process ends, so that
/// whoever watches it starts it anew and the log tells what was accepted.
async fn or_exit<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let poll = |context: &mut Context<'_>| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        polled.unwrap_or_else(|_| {
            // The panic's own message came before this.
            tracing::error!("a core of the node panicked; the process ends");
            super::process::kill_all();
            std::process::exit(EXIT_PANICKED);
        })
    };
    poll_fn(poll).await
}

/// Runs blocking work on a helper thread of this core; a panic comes back as an error.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    // A panic inside the engine's blocking thread would leave this future waiting for ever.
    let caught = move || catch_unwind(AssertUnwindSafe(work));
    glommio::executor()
        .spawn_blocking(caught)
        .await
        .map_err(|_| io::Error::other("a blocking operation panicked"))
}

/// Ends after `duration`, rounded to the engine's millisecond or so.
pub async fn sleep(duration: Duration) {
    glommio::timer::sleep(duration).await;
}

/// Runs `future` for at most `limit`.
pub async fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    futures_lite::future::or(async { Some(future.await) }, async {
        sleep(limit).await;
        None
    })
    .await
}

/// Whether something on this core waits for the executor: a socket, a timer, a long poll.
#[inline]
pub fn need_yield() -> bool {
    glommio::executor().need_preempt()
}

/// Lets the other futures of this core run, and looks at all of its I/O.
///
/// A future that wakes itself would not do: the engine goes on with futures that can run until its
/// preemption timer fires, and a timer short enough to serve sockets in time (it must be rearmed
/// at each look) makes the race that [`HEARTBEAT`] bounds a matter of seconds. So this waits for a
/// timer that is due already: no future can run, the engine looks at its I/O, finds the timer.
pub async fn yield_now() {
    let mut timer = glommio::timer::Timer::new(FAR);
    let mut registered = false;
    poll_fn(|context| {
        if registered {
            return Poll::Ready(());
        }
        // The engine registers only timers that are not due; one that moves keeps its waker.
        let _ = Pin::new(&mut timer).poll(context);
        timer.reset(Duration::ZERO);
        registered = true;
        Poll::Pending
    })
    .await;
}

/// Spins until `condition` holds or `limit` has passed; tells whether it held. For starts and
/// stops only: it keeps its core.
pub fn spin_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            return false;
        }
        std::hint::spin_loop();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::{
        StreamExt,
        future::{block_on, poll_once},
    };
    use futures_util::stream::FuturesUnordered;

    fn use_up() {
        ROUND_BEGAN.set(Instant::now().checked_sub(ROUND));
    }

    /// A round that has time however slow the machine is.
    fn begin_long_round() {
        begin_round(true);
        ROUND_BEGAN.set(Some(Instant::now() + FAR));
    }

    /// Each round has time for a step of one of them.
    #[test]
    fn all_that_have_much_to_do_get_on_in_turn() {
        const FUTURES: usize = 5;
        const STEPS: usize = 40;
        async fn work(steps: &Cell<usize>) {
            while steps.get() < STEPS {
                steps.set(steps.get() + 1);
                use_up();
                breathe().await;
            }
        }
        let steps = [const { Cell::new(0) }; FUTURES];
        let mut all: FuturesUnordered<_> = steps.iter().map(work).collect();
        block_on(async {
            for _ in 0..2 * FUTURES * STEPS {
                begin_long_round();
                if poll_once(all.next()).await.is_some() {
                    break;
                }
                let counts = || steps.iter().map(Cell::get);
                let apart = counts().max().unwrap_or(0) - counts().min().unwrap_or(0);
                assert!(apart <= 1, "one is {apart} steps ahead of another");
            }
        });
        assert!(steps.iter().any(|steps| steps.get() == STEPS), "none came to its end");
        end_rounds();
    }

    #[test]
    fn a_round_that_is_over_ends_for_all_that_wait_but_not_for_ever() {
        use_up();
        block_on(async {
            let (mut one, mut other) = (Box::pin(breathe()), Box::pin(breathe()));
            assert!(poll_once(one.as_mut()).await.is_none());
            assert!(poll_once(other.as_mut()).await.is_none());
            begin_long_round();
            assert!(poll_once(one.as_mut()).await.is_some());
            for _ in 1..ROUNDS_MAX {
                use_up();
                assert!(poll_once(other.as_mut()).await.is_none(), "the time is used up");
                assert!(is_round_due());
                begin_long_round();
            }
            use_up();
            assert!(poll_once(other.as_mut()).await.is_some(), "it waited for long enough");
        });
        end_rounds();
        assert!(!is_round_due());
    }
}
