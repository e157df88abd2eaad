//! One executor on one pinned core, and what code that runs on it may ask of it.

use super::{
    aside::Aside,
    rounds::{Place, Rounds},
    sys,
};
use glommio::{LocalExecutorBuilder, Placement};
use std::{
    cell::RefCell,
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
    /// How the futures of this core share the time between its turns.
    static ROUNDS: RefCell<Rounds> = const { RefCell::new(Rounds::new()) };
    /// The thread that does what would hold this core.
    static ASIDE: RefCell<Option<Aside>> = const { RefCell::new(None) };
    /// The thread that frees what this core let go of.
    static RELEASE: RefCell<Option<Aside>> = const { RefCell::new(None) };
    /// Tells whoever lets futures run that some wait for it.
    static ON_LATER: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

/// The core's futures are about to run, after it looked at its messages; for a shorter time where those
/// take long turns.
pub fn begin_round(is_short: bool) {
    let woken = ROUNDS.with_borrow_mut(|rounds| rounds.begin(Instant::now(), is_short));
    woken.for_each(Waker::wake);
}

/// No round follows: whoever waits for one goes on, and nobody waits any more.
pub fn end_rounds() {
    let woken = ROUNDS.with_borrow_mut(Rounds::end);
    woken.for_each(Waker::wake);
}

/// The core is about to sleep, with no message to wait for.
pub fn rest() {
    ROUNDS.with_borrow_mut(Rounds::rest);
}

/// Has `tell` called whenever a future of this core waits for the next round: the core may be asleep.
pub fn on_round_due(tell: impl Fn() + 'static) {
    ON_LATER.set(Some(Box::new(tell)));
}

fn tell_round_due() {
    ON_LATER.with_borrow(|tell| {
        if let Some(tell) = tell {
            tell();
        }
    });
}

/// Whether futures of this core wait for the next round.
#[inline]
pub fn is_round_due() -> bool {
    ROUNDS.with_borrow(Rounds::is_due)
}

/// Whether the futures of this core have gone on for long enough; those that have much to do sooner.
pub fn is_over(is_much: bool) -> bool {
    ROUNDS.with_borrow_mut(|rounds| rounds.is_over(Instant::now(), is_much))
}

fn wait_for_round(waker: &Waker) {
    ROUNDS.with_borrow_mut(|rounds| rounds.wait(waker));
    tell_round_due();
}

/// Lets a future go on that has more to do: at once, or after messages have had their turn, when the
/// core's futures have gone on for long enough. One that has much to do waits sooner.
pub fn again(waker: &Waker, is_much: bool) {
    match is_over(is_much) {
        true => wait_for_round(waker),
        false => waker.wake_by_ref(),
    }
}

/// Lets a future begin with something when there is time for it, or it is its turn all the same ([`Rounds::poll_enter`]).
pub fn poll_enter(waker: &Waker, is_much: bool, place: &mut Option<Place>) -> Poll<bool> {
    let enter = |rounds: &mut Rounds| rounds.poll_enter(Instant::now(), is_much, place, waker);
    let entered = ROUNDS.with_borrow_mut(enter);
    if entered.is_pending() {
        tell_round_due();
    }
    entered
}

/// Lets messages have their turn, and other futures, when those of this core have gone on for long enough:
/// for a future with much to do, between steps of some microseconds. All that wait get on in turn.
pub async fn breathe() {
    if !is_over(true) {
        return;
    }
    let (mut has_waited, mut place) = (false, None);
    poll_fn(|context| {
        if !std::mem::replace(&mut has_waited, true) {
            wait_for_round(context.waker());
            return Poll::Pending;
        }
        // Others that were woken with this one may have used up the time of a round.
        let step =
            |rounds: &mut Rounds| rounds.poll_step(Instant::now(), &mut place, context.waker());
        let stepped = ROUNDS.with_borrow_mut(step);
        if stepped.is_pending() {
            tell_round_due();
        }
        stepped
    })
    .await;
}

/// Names the threads beside this core: the one that does what would hold it, and the one that frees what it let go of.
pub fn set_aside(way: Aside, release: Aside) {
    ASIDE.set(Some(way));
    RELEASE.set(Some(release));
}

/// Lets go of something whose freeing would hold the core: a thread beside it frees that. At once where there is none.
pub fn let_go<T: Send + 'static>(it: T) {
    if let Some(way) = RELEASE.with_borrow(Clone::clone) {
        // Nobody waits for it.
        drop(way.give(move || drop(it)));
    }
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

/// Lets the futures run that the last look at this core's I/O has woken. After [`yield_now`] they come behind the
/// one that waited for it: the engine looks at its timers first.
pub async fn after_the_woken() {
    let mut is_last = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_last, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
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
    use super::{super::rounds::BREATH, *};
    use futures_lite::{
        StreamExt,
        future::{block_on, poll_once},
    };
    use futures_util::stream::FuturesUnordered;
    use std::{cell::Cell, sync::mpsc};

    const STEP: Duration = BREATH;

    /// Each round has time for a step of one of them.
    #[test]
    fn all_that_have_much_to_do_get_on_in_turn() {
        const FUTURES: usize = 5;
        const STEPS: usize = 40;
        async fn work(steps: &Cell<usize>) {
            while steps.get() < STEPS {
                steps.set(steps.get() + 1);
                spin_until(STEP, || false);
                breathe().await;
            }
        }
        let steps = [const { Cell::new(0) }; FUTURES];
        let mut all: FuturesUnordered<_> = steps.iter().map(work).collect();
        block_on(async {
            for _ in 0..2 * FUTURES * STEPS {
                begin_round(true);
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
    fn whoever_waits_for_a_round_goes_on_when_none_follows() {
        begin_round(true);
        spin_until(STEP, || false);
        let mut place = None;
        assert!(poll_enter(Waker::noop(), true, &mut place).is_pending());
        let mut waits = Box::pin(breathe());
        assert!(block_on(poll_once(waits.as_mut())).is_none());
        assert!(is_round_due());
        end_rounds();
        assert!(!is_round_due());
        assert!(block_on(poll_once(waits.as_mut())).is_some());
        assert_eq!(poll_enter(Waker::noop(), true, &mut place), Poll::Ready(false));
    }

    /// Tells on how many processors the thread may run that frees it.
    struct Left(mpsc::Sender<usize>);

    impl Drop for Left {
        fn drop(&mut self) {
            let processors = core_affinity::get_core_ids().map_or(0, |ids| ids.len());
            self.0.send(processors).expect("the test waits");
        }
    }

    #[test]
    fn what_a_core_lets_go_of_is_freed_by_a_thread_that_does_not_keep_to_the_core() {
        let all = core_affinity::get_core_ids().unwrap();
        let start = |name| super::super::aside::start(name, None).unwrap();
        set_aside(start("aside"), start("release"));
        // As a core does; the thread of this test is its own.
        assert!(pin_thread(all[0].id));
        let (tell, told) = mpsc::channel();
        let_go(Left(tell));
        assert_eq!(told.recv(), Ok(all.len()));
    }
}
