//! The log thread: takes blocks out of the lanes, lets the writer write them, hands them back.
//!
//! It mostly sleeps, in a write or on its doorbell. Whatever arrives while one group is written is
//! the next group. What takes long (making and removing segments) a helper thread does.

use super::{
    block::Block,
    disk::Disk,
    lane::{LaneEnd, Signals, Told},
    writer::{Fatal, Job, Writer},
};
use crate::runtime::{
    disk::{self, FolderLock, Placed},
    doorbell::Doorbell,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Bits of a fencing token that count the leases of one run; the bits above, up to the 53 that
/// JSON clients can carry, count the runs.
const TOKEN_BITS: u32 = 36;
const RUN_BITS: u32 = 53 - TOKEN_BITS;
/// The exit code of a process whose log cannot be written any more.
pub const EXIT_LOG_FAILED: i32 = 70;
/// After this long without a write the last group is sealed.
const SEAL_AFTER: Duration = Duration::from_millis(100);
/// How soon it looks again whether a shard has taken what it was told.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(1);
/// How long after a segment could not be made it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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

    /// Writes what the lanes have sent, seals the log and ends its threads. What is appended after
    /// this is never committed.
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
pub(super) struct Helper<D> {
    pub disk: D,
    pub segment_bytes: u64,
    pub jobs: Receiver<Job>,
    pub results: Sender<io::Result<()>>,
    /// Wakes the log thread.
    pub bell: Doorbell,
}

impl<D: Disk> Helper<D> {
    /// Works until the log thread is gone.
    pub fn run(mut self) {
        while let Ok(job) = self.jobs.recv() {
            let result = job.run(&mut self.disk, self.segment_bytes);
            if self.results.send(result).is_err() {
                return;
            }
            self.bell.ring_if_parked();
        }
    }
}

/// The log thread's state.
pub(super) struct Driver<D> {
    writer: Writer<D>,
    lanes: Vec<LaneEnd>,
    /// A block that did not fit into the group, and its lane; it is the first of the next one.
    carried: Option<(usize, Block)>,
    /// The lane that is looked at first, so that none is always last.
    first_lane: usize,
    bell: Doorbell,
    stop: Arc<AtomicBool>,
    signals: Arc<Signals>,
    jobs: Sender<Job>,
    results: Receiver<io::Result<()>>,
    /// The first fencing token that may be given.
    first_token: u64,
    wrote_at: Instant,
    retry_at: Option<Instant>,
}

impl<D: Disk + Clone> Driver<D> {
    /// The driver and its helper.
    pub fn new(
        writer: Writer<D>,
        helper_disk: D,
        segment_bytes: u64,
        lanes: Vec<LaneEnd>,
        bell: Doorbell,
        stop: Arc<AtomicBool>,
        signals: Arc<Signals>,
    ) -> (Self, Helper<D>) {
        let (jobs, jobs_end) = channel();
        let (results_end, results) = channel();
        let helper = Helper {
            disk: helper_disk,
            segment_bytes,
            jobs: jobs_end,
            results: results_end,
            bell: bell.clone(),
        };
        let first_token = (writer.epoch() % (1 << RUN_BITS)) << TOKEN_BITS | 1;
        let driver = Self {
            first_token,
            writer,
            lanes,
            carried: None,
            first_lane: 0,
            bell,
            stop,
            signals,
            jobs,
            results,
            wrote_at: Instant::now(),
            retry_at: None,
        };
        (driver, helper)
    }

    /// Runs until it is told to stop; a log that fails ends the process.
    pub fn run(mut self, placed: Placed) {
        if !placed.realtime {
            tracing::warn!(
                "the log thread may not have a real-time priority: busy cores delay each write by \
                 milliseconds (run with CAP_SYS_NICE, or set log.realtime = \"off\")"
            );
        }
        if !placed.pinned {
            tracing::warn!("the log thread cannot keep to its processor");
        }
        if let Err(fatal) = self.serve() {
            // Written without the log of messages, whose writer may wait for a thread that is
            // stopped here.
            eprintln!("coreflow: fatal: {fatal}; nothing after it was acknowledged");
            disk::exit_now(EXIT_LOG_FAILED);
        }
    }

    fn serve(&mut self) -> Result<(), Fatal> {
        for lane in &mut self.lanes {
            lane.tell(Told::Lead { reign: 1, first_token: self.first_token });
        }
        loop {
            self.take_results();
            self.give_out_work();
            self.tell_shards();
            self.lanes.iter_mut().for_each(LaneEnd::flush);
            let is_last = self.stop.load(Ordering::Acquire);
            self.gather()?;
            if self.writer.has_gathered() {
                self.writer.write()?;
                self.wrote_at = Instant::now();
                self.hand_back();
                self.lanes.iter_mut().for_each(LaneEnd::flush);
            } else if self.writer.needs_announcement() {
                self.writer.announce()?;
            } else if is_last {
                return if self.writer.needs_seal() { self.writer.seal() } else { Ok(()) };
            } else {
                self.rest()?;
            }
        }
    }

    fn gather(&mut self) -> Result<(), Fatal> {
        if let Some((lane, block)) = self.carried.take() {
            self.carried = self.writer.offer(lane, block)?.map(|block| (lane, block));
        }
        let lanes = self.lanes.len();
        for turn in 0..lanes {
            let index = (self.first_lane + turn) % lanes;
            while self.carried.is_none()
                && let Some(block) = self.lanes[index].incoming.pop()
            {
                self.carried = self.writer.offer(index, block)?.map(|block| (index, block));
            }
        }
        self.first_lane = (self.first_lane + 1) % lanes.max(1);
        Ok(())
    }

    fn hand_back(&mut self) {
        for (lane, block) in self.writer.committed() {
            self.lanes[lane].tell(Told::Committed(block));
        }
    }

    fn tell_shards(&self) {
        self.signals.has_room.store(self.writer.has_room(), Ordering::Relaxed);
        let move_before = self.writer.move_before();
        if self.signals.move_before.swap(move_before, Ordering::AcqRel) < move_before {
            self.lanes.iter().for_each(LaneEnd::wake);
        }
    }

    /// Hears what the helper did; tells whether there was anything.
    fn take_results(&mut self) -> bool {
        let mut heard = false;
        while let Ok(result) = self.results.try_recv() {
            heard = true;
            if let Err(error) = &result {
                if self.retry_at.is_none() {
                    tracing::error!(
                        "a segment of the log cannot be made or removed: {error}; submissions are \
                         refused when the log is full, and it is tried again each second"
                    );
                }
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
            } else if self.retry_at.take().is_some() {
                tracing::info!("the log has room again");
            }
            self.writer.job_done(&result);
        }
        heard
    }

    fn give_out_work(&mut self) {
        let is_due = self.retry_at.is_none_or(|at| at <= Instant::now());
        if is_due && let Some(job) = self.writer.next_job() {
            // The helper ends only after this thread.
            let _ = self.jobs.send(job);
        }
    }

    /// Sleeps until there is work, or seals the log after a while without any.
    fn rest(&mut self) -> Result<(), Fatal> {
        let seal_in =
            self.writer.needs_seal().then(|| SEAL_AFTER.saturating_sub(self.wrote_at.elapsed()));
        if seal_in == Some(Duration::ZERO) && self.carried.is_none() {
            return self.writer.seal();
        }
        let retry_in = self.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
        let room_in = self.lanes.iter().any(LaneEnd::is_waiting).then_some(LOOK_FOR_ROOM);
        let seal_in = seal_in.filter(|_| self.carried.is_none());
        let limit = [seal_in, retry_in, room_in].into_iter().flatten();
        self.bell.parking().prepare();
        if !self.has_work() {
            // A bell that cannot be heard is noticed at the next look.
            let _ = self.bell.wait(limit.min());
        }
        self.bell.parking().awake();
        Ok(())
    }

    /// The last look before sleeping.
    fn has_work(&mut self) -> bool {
        let blocks_wait = self.lanes.iter().any(|lane| !lane.incoming.is_empty());
        self.take_results()
            || self.stop.load(Ordering::Acquire)
            || (self.carried.is_none() && blocks_wait)
    }
}
