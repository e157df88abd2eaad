//! Measures the durable log on this machine, beside the disk that it writes to.
//!
//! `cargo run --release --example log_speed [FOLDER [SECONDS]]`: records a second of two shards
//! through one log thread, then how long one record takes to be committed at a low rate, each
//! between two measurements of the disk's own synced writes. Use a folder on the disk in question.

use coreflow::{
    consensus::{
        lane::LaneLog,
        news::{Committed, News},
        open::{OpenLog, Seat, Settings, open},
        place::Position,
        record::Record,
    },
    runtime::{
        disk::{AlignedBuffer, Placement, SyncedFile, spawn_blocking_thread, write_zeros},
        doorbell::Doorbell,
    },
    wire::{api::TaskStatus, id::TaskId},
};
use std::{
    collections::VecDeque,
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// About a submitted task of 256 bytes with all that is known of it.
const RECORD_BYTES: usize = 300;
/// What a shard appends in a turn.
const RECORDS_A_TURN: usize = 200;
const LANES: u16 = 2;
const LOW_RATE_PAUSE: Duration = Duration::from_millis(1);

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let folder = PathBuf::from(words.next().unwrap_or_else(|| "target/log-speed".to_owned()));
    let seconds = words.next().map_or(Ok(5), |word| word.parse())?;
    fs::create_dir_all(&folder)?;
    disk(&folder, 4096)?;
    disk(&folder, 128 << 10)?;
    disk(&folder, 1 << 20)?;
    let duration = Duration::from_secs(seconds);
    throughput(&folder.join("log"), duration, None, "fresh segments")?;
    throughput(&folder.join("log"), duration, None, "segments written before")?;
    for rate in [1_000_000, 100_000] {
        throughput(&folder.join("log"), duration, Some(rate), &format!("{rate} records/s asked"))?;
    }
    latency(&folder.join("log"), seconds * 200)?;
    disk(&folder, 4096)?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// The disk's own time for synced writes past the page cache, from a thread like the log's.
fn disk(folder: &Path, bytes: usize) -> Result<(), Box<dyn Error>> {
    let path = folder.join("disk");
    write_zeros(&path, 64 << 20, true)?;
    let (send, receive) = mpsc::channel();
    let placement = Placement { cpu: None, realtime: true };
    let thread = spawn_blocking_thread("disk", placement, 1, move |_| {
        let file = SyncedFile::open(&path, true).expect("it was just written");
        let buffer = AlignedBuffer::new(bytes);
        let places = (0..64 << 20).step_by(bytes).take(1000);
        let times = places.map(|offset| {
            let start = Instant::now();
            file.write(offset, &buffer).expect("the disk works");
            start.elapsed()
        });
        send.send(times.collect::<Vec<_>>()).expect("the main thread waits");
    })?;
    let times = receive.recv()?;
    thread.join().map_err(|_| "the disk's thread failed")?;
    print_times(&format!("disk, pwrite of {} KiB", bytes >> 10), times);
    Ok(())
}

fn settings(folder: &Path) -> Settings {
    Settings {
        folder: folder.to_owned(),
        segment_bytes: 64 << 20,
        keep_bytes: 512 << 20,
        block_bytes: 1 << 20,
        cpu: None,
        realtime: true,
    }
}

/// Two shards that append at a rate of all, or as fast as the log lets them.
fn throughput(
    folder: &Path,
    duration: Duration,
    rate: Option<u64>,
    what: &str,
) -> Result<(), Box<dyn Error>> {
    let bells: Vec<_> = (0..LANES).map(|_| Doorbell::new()).collect::<Result<_, _>>()?;
    let opening = Instant::now();
    let mut records = 0_u64;
    let OpenLog { lanes, thread, .. } =
        open(settings(folder), &Seat::alone(), &bells, &mut |_| records += 1)?;
    println!("opened in {} ms: {records} records read", opening.elapsed().as_millis());
    let records_a_second = |rate| rate as f64 / f64::from(LANES);
    let pause = rate.map(|rate| RECORDS_A_TURN as f64 / records_a_second(rate));
    let pause = pause.map_or(Duration::ZERO, Duration::from_secs_f64);
    let start = Instant::now();
    let shards = (0..LANES).zip(lanes).zip(bells).map(|((shard, lane), bell)| {
        thread::spawn(move || Shard::new(shard, lane, bell).run(start + duration, pause))
    });
    let shards: Vec<_> = shards.collect();
    let mut committed = 0;
    let mut waits = Vec::new();
    for shard in shards {
        let (records, times) = shard.join().map_err(|_| "a shard failed")?;
        committed += records;
        waits.extend(times);
    }
    let seconds = start.elapsed().as_secs_f64();
    thread.stop();
    let megabytes = committed as f64 * RECORD_BYTES as f64 / 1e6;
    println!(
        "{LANES} shards, {what}: {:.0} records/s, {:.0} MB/s",
        committed as f64 / seconds,
        megabytes / seconds
    );
    print_times("  a turn's records until committed", waits);
    Ok(())
}

/// One record after the other, with a pause after each.
fn latency(folder: &Path, count: u64) -> Result<(), Box<dyn Error>> {
    let bell = Doorbell::new()?;
    let mut log = open(settings(folder), &Seat::alone(), std::slice::from_ref(&bell), &mut |_| {})?;
    let lane = log.lanes.pop().ok_or("there is one lane")?;
    let mut shard = Shard::new(0, lane, bell);
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        shard.append();
        shard.lane.flush();
        while shard.next_committed(LOW_RATE_PAUSE).is_none() {}
        times.push(start.elapsed());
        thread::sleep(LOW_RATE_PAUSE);
    }
    log.thread.stop();
    print_times("append to committed, one record at a time", times);
    Ok(())
}

/// What a worker core does with its lane, and nothing else.
struct Shard {
    number: u16,
    lane: LaneLog,
    bell: Doorbell,
    appended: Position,
    committed: Position,
    body: Vec<u8>,
}

impl Shard {
    fn new(number: u16, lane: LaneLog, bell: Doorbell) -> Self {
        let head = Record::Ended {
            id: TaskId { partition: 0, random: 0 },
            status: TaskStatus::Done,
            attempts: 1,
            ended_unix_ms: 1,
            body: b"",
        };
        let body = vec![7; RECORD_BYTES - head.encoded_bytes()];
        let (appended, committed) = (Position(0), Position(0));
        Self { number, lane, bell, appended, committed, body }
    }

    fn append(&mut self) {
        let record = Record::Ended {
            id: TaskId { partition: self.number, random: self.appended.0.into() },
            status: TaskStatus::Done,
            attempts: 1,
            ended_unix_ms: 1,
            body: &self.body,
        };
        self.appended = self.lane.append(record).0;
    }

    /// Appends a turn's records each `pause` until `end`; tells how many, and how long the records
    /// of each turn took from when they were due.
    fn run(mut self, end: Instant, pause: Duration) -> (u64, Vec<Duration>) {
        let mut waits = Vec::new();
        let mut turns = VecDeque::new();
        let mut due = Instant::now();
        let mut now = due;
        while now < end || self.committed < self.appended {
            let is_full = !self.lane.has_room() || now >= end;
            if !is_full && now >= due {
                (0..RECORDS_A_TURN).for_each(|_| self.append());
                turns.push_back((self.appended, if pause.is_zero() { now } else { due }));
                due += pause;
            }
            self.move_out();
            self.lane.flush();
            now = Instant::now();
            let idle = if is_full { LOW_RATE_PAUSE } else { due.saturating_duration_since(now) };
            let mut next = self.next_committed(idle);
            while let Some(committed) = next {
                self.committed = committed.upto;
                while let Some((last, start)) = turns.front().copied()
                    && last <= committed.upto
                {
                    waits.push(start.elapsed());
                    turns.pop_front();
                }
                next = next_committed(&mut self.lane);
            }
            now = Instant::now();
        }
        (self.committed.0, waits)
    }

    /// Nothing of these records lives, so nothing is appended again.
    fn move_out(&mut self) {
        let before = self.lane.move_before();
        if before > 0 {
            self.lane.moved_before(before);
        }
    }

    /// What is committed next, after at most `idle`.
    fn next_committed(&mut self, idle: Duration) -> Option<Committed> {
        let mut committed = next_committed(&mut self.lane);
        if committed.is_none() && !idle.is_zero() {
            self.bell.parking().prepare();
            committed = next_committed(&mut self.lane);
            if committed.is_none() {
                self.bell.wait(Some(idle)).expect("the bell works");
            }
            self.bell.parking().awake();
        }
        committed.or_else(|| next_committed(&mut self.lane))
    }
}

/// The next block of a lane that is committed; nobody else writes the log.
fn next_committed(lane: &mut LaneLog) -> Option<Committed> {
    loop {
        if let News::Committed(committed) = lane.next_news()? {
            return Some(committed);
        }
    }
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map_or(0, Duration::as_micros)
    };
    let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
    println!("{what}: p50 {p50} µs, p99 {p99} µs, p99.9 {p999} µs, {} times", times.len());
}
