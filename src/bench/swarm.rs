//! What the measured swarms share: the signal that a round is over, and how a node is started.

use crate::{
    config::Config,
    node::{NodeBuilder, StartError},
    wire::id::CoreIndex,
};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// A round that takes longer has lost something.
const ROUND_LIMIT: Duration = Duration::from_secs(120);

/// What the agents of a round tell the thread that waits for its end.
pub(super) struct Round {
    began: Mutex<Option<Instant>>,
    ended: Mutex<Option<Instant>>,
    /// Agents that have not finished.
    open: AtomicU64,
    /// What they handled, and the sum of what was in it.
    count: AtomicU64,
    sum: AtomicU64,
    waiter: Thread,
}

/// What a round came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    pub elapsed: Duration,
    pub count: u64,
    pub sum: u64,
}

impl Round {
    /// A round that the calling thread will wait for.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Mutex::default(),
            ended: Mutex::default(),
            open: AtomicU64::new(0),
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            waiter: thread::current(),
        })
    }

    /// Makes it ready for `agents` that will finish.
    pub(super) fn open(&self, agents: u64) {
        self.count.store(0, Ordering::Relaxed);
        self.sum.store(0, Ordering::Relaxed);
        *lock(&self.began) = None;
        *lock(&self.ended) = None;
        self.open.store(agents, Ordering::Release);
    }

    /// The work begins; of several begins the first counts.
    pub(super) fn begin(&self) {
        lock(&self.began).get_or_insert_with(Instant::now);
    }

    /// An agent has finished.
    pub(super) fn finish(&self, count: u64, sum: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
        self.sum.fetch_add(sum, Ordering::Relaxed);
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            *lock(&self.ended) = Some(Instant::now());
            self.waiter.unpark();
        }
    }

    /// Waits until all have finished.
    ///
    /// # Errors
    /// When they do not within two minutes: something was lost.
    pub(super) fn wait(&self) -> io::Result<Tally> {
        let deadline = Instant::now() + ROUND_LIMIT;
        loop {
            if let (Some(began), Some(ended)) = (*lock(&self.began), *lock(&self.ended)) {
                let (count, sum) = (&self.count, &self.sum);
                return Ok(Tally {
                    elapsed: ended - began,
                    count: count.load(Ordering::Relaxed),
                    sum: sum.load(Ordering::Relaxed),
                });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let open = self.open.load(Ordering::Relaxed);
                return Err(io::Error::other(format!("{open} agents did not finish their round")));
            }
            thread::park_timeout(left);
        }
    }
}

fn lock(time: &Mutex<Option<Instant>>) -> std::sync::MutexGuard<'_, Option<Instant>> {
    time.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which cores send and which receive: the first sends to all others, a single one to itself.
pub(super) fn roles(workers: usize) -> (CoreIndex, Vec<CoreIndex>) {
    match workers {
        1 => (0, vec![0]),
        _ => (0, (1..workers as CoreIndex).collect()),
    }
}

/// The cores that a node with this configuration would have.
pub(super) fn topology(config: &Config) -> io::Result<crate::runtime::topology::Topology> {
    crate::runtime::topology::Topology::detect(&config.cores)
        .map_err(|error| StartError::from(error).into())
}

/// A node of the configuration without its agent types.
pub(super) fn builder(config: &Config) -> NodeBuilder {
    NodeBuilder::new(Config { agent: Vec::new(), ..config.clone() })
}

/// A node that does not start is an error of the run.
pub(super) fn failed(error: StartError) -> io::Error {
    error.into()
}

/// The payload that is sent: eight words that depend on its number.
#[inline]
pub(super) fn payload(number: u64) -> [u8; 64] {
    let mut payload = [0; 64];
    for (word, bytes) in (0_u64..).zip(payload.chunks_exact_mut(8)) {
        let value = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ word;
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    payload
}

/// The sum of a payload's words, which shows that it was read.
#[inline]
pub(super) fn sum(payload: &[u8]) -> u64 {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    payload.chunks_exact(8).map(word).fold(0, u64::wrapping_add)
}

/// The sum over the payloads of numbers below `count`.
pub(super) fn expected_sum(count: u64) -> u64 {
    (0..count).map(|number| sum(&payload(number))).fold(0, u64::wrapping_add)
}
