//! The threads that wait for the disk, so that no core does: one writes and syncs records, one makes and
//! removes files, one reads.
//!
//! Jobs come from all cores over one bounded queue each. The writer takes all that wait, writes them,
//! and syncs each file once: what comes meanwhile shares the next sync. The helper makes and removes record
//! files, and writes checkpoints, whose syncs may take a second. So that no read waits for one, the reader
//! brings cold records into memory, and looks now and then which pages still are.

use super::store::{Done, Job, Region};
use crate::runtime::{
    disk::{Placement, spawn_blocking_thread},
    doorbell::Doorbell,
    injector::Injector,
};
use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The exit code of a process one of whose memory threads panicked.
const EXIT_MEMORY_FAILED: i32 = 71;
/// Jobs that wait for one of the threads.
const JOBS_MAX: usize = 4096;
/// Answers that wait for one core.
const ANSWERS_MAX: usize = 8192;
/// Writes that share a sync at most.
const WRITES_TOGETHER: usize = 256;
/// How often the reader looks which pages are in memory, while memory is used.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon an answer is tried again that found a core's queue full.
const ANSWER_AGAIN: Duration = Duration::from_millis(1);

/// A job: the core that gave it, which of that core's partitions, and what.
type Given = (u16, u16, Job);

/// The files whose pages are looked at.
type Regions = Arc<Mutex<Vec<Weak<Region>>>>;

/// One thread's queue.
#[derive(Clone)]
struct Line {
    jobs: Injector<Given>,
    bell: Doorbell,
}

/// A core's way to the threads.
pub struct Desk {
    core: u16,
    writer: Line,
    helper: Line,
    reader: Line,
    /// Jobs that found a queue full, oldest first.
    waiting: VecDeque<(u16, Job)>,
    answers: Injector<(u16, Done)>,
    used: Arc<AtomicBool>,
}

/// The threads. Dropping it ends them, after what was given is done.
pub struct MemoryThreads {
    stop: Arc<AtomicBool>,
    lines: [Line; 3],
    threads: Vec<JoinHandle<()>>,
}

/// What a thread works with.
struct Worker {
    line: Line,
    answers: Vec<Injector<(u16, Done)>>,
    stop: Arc<AtomicBool>,
}

impl Line {
    fn new() -> io::Result<Self> {
        let bell = Doorbell::new()?;
        Ok(Self { jobs: Injector::new(JOBS_MAX, bell.clone()), bell })
    }
}

/// Starts the threads for cores with these bells; `regions` are the files that are there.
///
/// # Errors
/// The system gives no thread or descriptor.
pub fn start(
    bells: &[Doorbell],
    cpu: Option<usize>,
    regions: Vec<Arc<Region>>,
) -> io::Result<(MemoryThreads, Vec<Desk>)> {
    let (writer, helper, reader) = (Line::new()?, Line::new()?, Line::new()?);
    let (stop, used) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let answers: Vec<_> =
        bells.iter().map(|bell| Injector::new(ANSWERS_MAX, bell.clone())).collect();
    let worker =
        |line: &Line| Worker { line: line.clone(), answers: answers.clone(), stop: stop.clone() };
    let (writes, helps, reads) = (worker(&writer), worker(&helper), worker(&reader));
    let regions: Vec<_> = regions.iter().map(Arc::downgrade).collect();
    let regions = Regions::new(Mutex::new(regions));
    let was_used = used.clone();
    let placement = |cpu| Placement { cpu, realtime: false };
    let lines = [writer.clone(), helper.clone(), reader.clone()];
    let mut threads = MemoryThreads { stop, lines, threads: Vec::new() };
    let exit = EXIT_MEMORY_FAILED;
    let write = move |_| writes.write_all();
    threads.threads.push(spawn_blocking_thread("memory", placement(cpu), exit, write)?);
    let made = regions.clone();
    let help = move |_| helps.help(&made);
    threads.threads.push(spawn_blocking_thread("memory-helper", placement(None), exit, help)?);
    let read = move |_| reads.read(&regions, &was_used);
    threads.threads.push(spawn_blocking_thread("memory-reader", placement(None), exit, read)?);
    let desks = answers.into_iter().enumerate().map(|(core, answers)| Desk {
        core: core as u16,
        writer: writer.clone(),
        helper: helper.clone(),
        reader: reader.clone(),
        waiting: VecDeque::new(),
        answers,
        used: used.clone(),
    });
    Ok((threads, desks.collect()))
}

impl Drop for MemoryThreads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.lines.iter().for_each(|line| line.bell.ring());
        for thread in self.threads.drain(..) {
            // A thread that panics ends the process.
            let _ = thread.join();
        }
    }
}

impl Desk {
    /// Hands in a job of one of the core's partitions.
    pub fn give(&mut self, partition: u16, job: Job) {
        self.waiting.push_back((partition, job));
        self.hand_in();
    }

    /// Hands in what found a queue full before.
    pub fn hand_in(&mut self) {
        while let Some((partition, job)) = self.waiting.pop_front() {
            let line = match job {
                Job::Write(_) => &self.writer,
                Job::Make(_) | Job::Remove(_) | Job::Save(_) => &self.helper,
                Job::Load(_) | Job::Populate(_) => &self.reader,
            };
            if let Err((_, partition, job)) = line.jobs.push((self.core, partition, job)) {
                return self.waiting.push_front((partition, job));
            }
        }
    }

    /// Takes back what found no room in a queue: for when the threads have ended.
    pub fn take_waiting(&mut self) -> VecDeque<(u16, Job)> {
        std::mem::take(&mut self.waiting)
    }

    /// Whether a job waits for room in a queue.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The oldest answer: which partition's, and what.
    pub fn take(&self) -> Option<(u16, Done)> {
        self.answers.pop()
    }

    /// Whether an answer is there.
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Says that records are looked at, so that it matters which are in memory.
    pub fn note_use(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

impl Worker {
    /// Sleeps until there is a job, for at most `limit`. False when there is none and none will come.
    fn wait(&self, limit: Option<Duration>) -> bool {
        if !self.line.jobs.is_empty() {
            return true;
        }
        if self.stop.load(Ordering::Acquire) {
            return false;
        }
        let parking = self.line.bell.parking();
        parking.prepare();
        if self.line.jobs.is_empty() && !self.stop.load(Ordering::Acquire) {
            self.line.bell.wait(limit).expect("a bell that is open can be waited for");
        }
        parking.awake();
        true
    }

    fn answer(&self, core: u16, partition: u16, done: Done) {
        let mut answer = (partition, done);
        // A core that has ended takes nothing more.
        while let Err(refused) = self.answers[usize::from(core)].push(answer) {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            answer = refused;
            std::thread::sleep(ANSWER_AGAIN);
        }
    }

    fn write_all(&self) {
        while self.wait(None) {
            let jobs = std::iter::from_fn(|| self.line.jobs.pop()).take(WRITES_TOGETHER);
            let mut written = Vec::new();
            for (core, partition, job) in jobs {
                match job {
                    Job::Write(write) => {
                        let result = write.write();
                        written.push((core, partition, write, result));
                    }
                    other => {
                        other.perform().into_iter().for_each(|it| self.answer(core, partition, it));
                    }
                }
            }
            let mut synced: Vec<(Arc<Region>, Result<(), String>)> = Vec::new();
            for (core, partition, write, result) in written {
                let known = synced.iter().find(|(region, _)| Arc::ptr_eq(region, &write.region));
                let sync = match known {
                    Some((_, sync)) => sync.clone(),
                    None => {
                        let sync = write.region.sync().map_err(|error| error.to_string());
                        synced.push((write.region.clone(), sync.clone()));
                        sync
                    }
                };
                let result = result.and(sync.map_err(io::Error::other));
                self.answer(core, partition, write.finish(result));
            }
        }
    }

    fn help(&self, regions: &Regions) {
        while self.wait(None) {
            let Some((core, partition, job)) = self.line.jobs.pop() else { continue };
            let done = job.perform();
            if let Some(Done::Made(Ok(region))) = &done {
                let mut regions = regions.lock().unwrap_or_else(PoisonError::into_inner);
                regions.push(Arc::downgrade(region));
            }
            done.into_iter().for_each(|done| self.answer(core, partition, done));
        }
    }

    fn read(&self, regions: &Regions, used: &AtomicBool) {
        let mut looked = Instant::now();
        while self.wait(Some(LOOK_EVERY)) {
            if let Some((core, partition, job)) = self.line.jobs.pop() {
                let done = job.perform();
                done.into_iter().for_each(|done| self.answer(core, partition, done));
            }
            if looked.elapsed() >= LOOK_EVERY && used.swap(false, Ordering::Relaxed) {
                looked = Instant::now();
                regions.lock().unwrap_or_else(PoisonError::into_inner).retain(|region| {
                    let Some(region) = region.upgrade() else { return false };
                    // What was known before still counts when the kernel does not say.
                    let _ = region.look();
                    true
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::store::{Load, Make, Save, Write};
    use rustix::fs::{CWD, FileType, Mode};
    use std::{fs, process::Command};

    /// Says to the child which of its threads is to panic.
    const WHICH: &str = "COREFLOW_TEST_MEMORY_THREAD";

    #[test]
    #[ignore = "the process that another test watches"]
    fn child() {
        let which = std::env::var(WHICH).expect("the parent says which");
        let bell = Doorbell::new().expect("there are descriptors");
        let (threads, mut desks) = start(&[bell], None, Vec::new()).expect("the threads start");
        // What no partition asks for, so that an assertion fails.
        desks[0].give(
            0,
            match &*which {
                "writer" => {
                    let region = Arc::new(Region::anonymous(4096).expect("there is memory"));
                    Job::Write(Write {
                        region,
                        offset: 4096,
                        bytes: vec![1],
                        sequence: 1,
                        watermark: None,
                    })
                }
                _ => {
                    let path =
                        std::env::temp_dir().join(format!("coreflow-{}", std::process::id()));
                    let (head, list, watermark) = (vec![1; 11], None, None);
                    Job::Make(Make { path, bytes: 10, head, number: 0, list, watermark })
                }
            },
        );
        // They end after what was given is done, and this process with the exit code 0.
        drop(threads);
    }

    #[test]
    fn a_read_does_not_wait_for_a_checkpoint_or_a_file_that_is_made() {
        let name = format!("coreflow-memory-reader-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::remove_file(&path).ok();
        // What is opened for writing waits until somebody reads.
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0).expect("a pipe is made");
        let bell = Doorbell::new().expect("there are descriptors");
        let (threads, mut desks) = start(&[bell], None, Vec::new()).expect("the threads start");
        let (bytes, finished) = (vec![1], None);
        desks[0].give(0, Job::Save(Save { path: path.clone(), offset: 0, bytes, finished }));
        desks[0].give(0, Job::Load(Load { token: 7, pieces: Vec::new() }));
        let deadline = Instant::now() + Duration::from_secs(30);
        let read = loop {
            match desks[0].take() {
                Some((_, done)) => break Some(done),
                None if Instant::now() > deadline => break None,
                None => std::thread::sleep(ANSWER_AGAIN),
            }
        };
        drop(fs::File::open(&path).expect("the pipe is there"));
        drop(threads);
        fs::remove_file(&path).expect("the pipe is there");
        assert!(matches!(read, Some(Done::Loaded(7, Ok(())))), "{read:?}");
    }

    #[test]
    fn a_memory_thread_that_panics_ends_the_process_at_once() {
        for which in ["writer", "helper"] {
            let program = std::env::current_exe().expect("this is a program");
            let words = ["--exact", "memory::thread::tests::child", "--ignored", "--nocapture"];
            let child = Command::new(program).args(words).env(WHICH, which).output();
            let child = child.expect("the child starts");
            let told = String::from_utf8_lossy(&child.stderr);
            assert_eq!(child.status.code(), Some(EXIT_MEMORY_FAILED), "{which}: {told}");
            assert!(told.contains("panicked"), "{which}: {told}");
        }
    }
}
