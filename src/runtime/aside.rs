//! Work that would hold a core goes to a thread beside the log: reading what is long, writing long text.
//!
//! A core does work in steps of some tens of microseconds, between which its messages have their turn. What
//! cannot be done in steps, since a parser takes a text as a whole or a long run is put in order, is done
//! here, and the core only waits for its end ([`super::executor::aside`]).
//!
//! Invariants:
//! - Work ends: it waits for nobody, neither for the disk nor for a core.
//! - What is given is done, one after the other. Where too much waits, whoever gives more does it itself.

use super::{
    disk::{Placement, spawn_blocking_thread},
    executor::EXIT_PANICKED,
};
use futures_channel::oneshot;
use std::{
    io,
    sync::mpsc::{self, SyncSender, TrySendError},
};

/// Work that may wait: a connection has one or two pieces of it.
const WAITING_MAX: usize = 1024;

type Work = Box<dyn FnOnce() + Send>;

/// A way to the thread, which ends when no way to it is left.
#[derive(Clone)]
pub struct Aside(SyncSender<Work>);

/// Starts a thread of a name, on a processor where one is named. When work panics the process ends, as it does when
/// a core panics.
///
/// # Errors
/// The system gives no thread.
pub fn start(name: &str, cpu: Option<usize>) -> io::Result<Aside> {
    let (give, given) = mpsc::sync_channel::<Work>(WAITING_MAX);
    let run = move |_| given.into_iter().for_each(|work| work());
    let placement = Placement { cpu, realtime: false };
    // Nobody joins it: when no way to it is left, nobody waits for what it does.
    drop(spawn_blocking_thread(name, placement, EXIT_PANICKED, run)?);
    Ok(Aside(give))
}

impl Aside {
    /// Has work done; what it comes to.
    pub fn give<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (tell, told) = oneshot::channel();
        let work = move || {
            // Whoever asked may be gone.
            let _ = tell.send(work());
        };
        let refused = self.0.try_send(Box::new(work));
        if let Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) = refused {
            work();
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;
    use std::thread;

    #[test]
    fn work_is_done_by_one_other_thread_in_the_order_in_which_it_was_given() {
        let aside = start("aside", None).unwrap();
        let given: Vec<_> =
            (0..100).map(|at| aside.give(move || (at, thread::current().id()))).collect();
        let done: Vec<_> =
            given.into_iter().map(|done| block_on(done).expect("it is done")).collect();
        assert!(done.iter().map(|(at, _)| *at).eq(0..100));
        assert!(done.iter().all(|(_, thread)| *thread == done[0].1));
        assert_ne!(done[0].1, thread::current().id());
    }

    #[test]
    fn where_too_much_waits_whoever_gives_more_does_it() {
        let aside = start("aside", None).unwrap();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let (begin, began) = mpsc::channel();
        let held = aside.give(move || {
            begin.send(()).expect("the test waits for this");
            goes_on.recv().is_err()
        });
        began.recv().unwrap();
        let waiting: Vec<_> =
            (0..WAITING_MAX).map(|_| aside.give(|| thread::current().id())).collect();
        let mine = aside.give(|| thread::current().id());
        assert_eq!(block_on(mine), Ok(thread::current().id()));
        drop(go_on);
        assert_eq!(block_on(held), Ok(true));
        for other in waiting {
            assert_ne!(block_on(other), Ok(thread::current().id()));
        }
    }

    #[test]
    fn what_is_given_is_done_when_whoever_asked_is_gone() {
        let aside = start("aside", None).unwrap();
        let (tell, told) = mpsc::channel();
        drop(aside.give(move || tell.send(1)));
        assert_eq!(told.recv(), Ok(1));
        let kept = aside.give(|| 2);
        drop(aside);
        assert_eq!(block_on(kept), Ok(2));
    }
}
