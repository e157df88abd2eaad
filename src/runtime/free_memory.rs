//! Free memory goes back to the system from a thread of its own, never from a core.
//!
//! To give a megabyte back takes some hundred microseconds, for which a core would keep its messages
//! waiting, and whoever gets that memory again pays as much in page faults. The library knows no allocator:
//! a program that chose one says how it gives memory back ([`set_give_back`]), and each node has a thread
//! that does it now and then, on the processors of the log.

use super::{
    disk::{Placement, spawn_blocking_thread},
    executor::EXIT_PANICKED,
};
use std::{
    io,
    sync::{OnceLock, mpsc},
    thread::JoinHandle,
    time::Duration,
};

/// How long memory that is free may stay with the process.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(10);

static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// Says how the program's allocator gives free memory back; the first one that is said counts.
pub fn set_give_back(give_back: fn()) {
    GIVE_BACK.get_or_init(|| give_back);
}

/// The thread. Dropping it ends it.
pub struct GiveBack(Option<(mpsc::Sender<()>, JoinHandle<()>)>);

/// Starts the thread, on a processor where one is named; none where the program said nothing.
///
/// # Errors
/// The system gives no thread.
pub fn start(cpu: Option<usize>) -> io::Result<GiveBack> {
    start_with(GIVE_BACK.get().copied(), cpu, GIVE_BACK_EVERY)
}

fn start_with(
    give_back: Option<fn()>,
    cpu: Option<usize>,
    every: Duration,
) -> io::Result<GiveBack> {
    let Some(give_back) = give_back else { return Ok(GiveBack(None)) };
    let (stop, stopped) = mpsc::channel::<()>();
    let run = move |_| {
        while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
            give_back();
        }
    };
    let placement = Placement { cpu, realtime: false };
    let thread = spawn_blocking_thread("give-back", placement, EXIT_PANICKED, run)?;
    Ok(GiveBack(Some((stop, thread))))
}

impl Drop for GiveBack {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            // A thread that panics ends the process.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    };

    #[test]
    fn memory_is_given_back_by_another_thread_until_it_is_stopped() {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static TOLD: Mutex<Option<mpsc::Sender<std::thread::ThreadId>>> = Mutex::new(None);
        fn give_back() {
            COUNT.fetch_add(1, Ordering::Relaxed);
            if let Some(told) = &*TOLD.lock().unwrap() {
                let _ = told.send(std::thread::current().id());
            }
        }
        let (tell, told) = mpsc::channel();
        *TOLD.lock().unwrap() = Some(tell);
        let thread = start_with(Some(give_back), None, Duration::from_millis(1)).unwrap();
        assert_ne!(told.recv().unwrap(), std::thread::current().id());
        assert_ne!(told.recv().unwrap(), std::thread::current().id());
        drop(thread);
        let count = COUNT.load(Ordering::Relaxed);
        *TOLD.lock().unwrap() = None;
        assert!(count >= 2);
        // The sender is gone with the thread: nothing more comes but what was told before.
        assert_eq!(2 + told.iter().count() as u32, count);
    }

    #[test]
    fn where_no_allocator_says_how_there_is_no_thread() {
        assert!(start_with(None, None, Duration::ZERO).unwrap().0.is_none());
    }
}
