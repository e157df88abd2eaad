//! The log's threads: one that keeps it, and a helper for what takes long, which is making and
//! removing segments.

use super::{disk::Disk, writer::Job};
use crate::runtime::{disk::FolderLock, doorbell::Doorbell};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender},
    },
    thread::JoinHandle,
};

pub use super::keeper::EXIT_LOG_FAILED;

/// The log's threads. Dropping it ends them, after what the lanes have sent is written.
#[derive(Debug)]
pub struct LogThread {
    stop: Arc<AtomicBool>,
    bell: Doorbell,
    threads: Vec<JoinHandle<()>>,
    /// The folder is this node's until the threads have ended.
    _lock: FolderLock,
}

impl LogThread {
    pub(super) fn new(
        stop: Arc<AtomicBool>,
        bell: Doorbell,
        threads: Vec<JoinHandle<()>>,
        lock: FolderLock,
    ) -> Self {
        Self { stop, bell, threads, _lock: lock }
    }

    /// Writes what the lanes have sent, waits for five seconds at most until it is committed, seals the log and
    /// ends its threads. What is appended after this is never committed.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
        for thread in self.threads.drain(..) {
            // A thread that panics ends the process.
            let _ = thread.join();
        }
    }
}

/// The helper's end: does one piece of work after the other.
pub struct Helper<D> {
    pub(super) disk: D,
    pub(super) segment_bytes: u64,
    pub(super) jobs: Receiver<Job>,
    pub(super) results: Sender<io::Result<()>>,
    /// Wakes the log thread.
    pub(super) bell: Doorbell,
}

impl<D: Disk> Helper<D> {
    /// Works until the log thread is gone.
    pub fn run(mut self) {
        while let Ok(job) = self.jobs.recv() {
            if !self.work(job) {
                return;
            }
        }
    }

    /// Does the next piece of work, if there is one; whether there was.
    pub fn step(&mut self) -> bool {
        self.jobs.try_recv().is_ok_and(|job| self.work(job))
    }

    /// Does a piece of work; whether anybody hears of it.
    fn work(&mut self, job: Job) -> bool {
        let result = job.run(&mut self.disk, self.segment_bytes);
        let is_heard = self.results.send(result).is_ok();
        self.bell.ring_if_parked();
        is_heard
    }
}
