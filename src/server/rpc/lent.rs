//! Attempts that another node lends over one connection: those that run, and results that wait to be sent.
//!
//! An attempt may run for long, and its end is not asked for but comes. So attempts count as no calls of
//! the connection, and their ends are taken in even while the other node reads nothing.
//!
//! Invariants worth naming:
//! - Results that wait have [`BUFFERS`] times `write_buffer_bytes` together. One that would be beyond is
//!   not kept: the attempt has failed and may be tried again.
//! - So that this seldom happens, no more begin than would fit if all results were as large as the last
//!   ones; others are told to come back, and did not begin.

use super::work::Answer;
use crate::server::Limits;
use futures_lite::Stream;
use futures_util::stream::FuturesUnordered;
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

/// Results that may wait, in buffers of what is to be written.
const BUFFERS: usize = 8;
/// The part by which what is expected of a result falls with each smaller one.
const FORGET: usize = 8;

/// The attempts of one connection; `F` is what ends with an answer.
pub struct LentAttempts<F> {
    running: FuturesUnordered<F>,
    /// Answers that wait, and the bytes of their results.
    ended: VecDeque<(Answer, usize)>,
    /// Bytes of all that wait.
    held_bytes: usize,
    /// What the next result may have, by the last ones.
    expected_bytes: usize,
    count_max: usize,
    bytes_max: usize,
}

impl<F: Future<Output = Answer>> LentAttempts<F> {
    /// None yet.
    pub fn new(limits: &Limits) -> Self {
        Self {
            running: FuturesUnordered::new(),
            ended: VecDeque::new(),
            held_bytes: 0,
            expected_bytes: 0,
            count_max: limits.max_in_flight,
            bytes_max: BUFFERS * limits.write_buffer_bytes,
        }
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && self.ended.is_empty()
    }

    /// Whether another one may begin.
    pub fn has_room(&self) -> bool {
        let count = self.running.len() + self.ended.len();
        let expected = self.held_bytes + (self.running.len() + 1) * self.expected_bytes;
        count < self.count_max && (count == 0 || expected <= self.bytes_max)
    }

    /// One begins.
    pub fn begin(&mut self, attempt: F) {
        self.running.push(attempt);
    }

    /// Takes in what ended.
    pub fn collect(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(answer)) = Pin::new(&mut self.running).poll_next(cx) {
            self.end(answer);
        }
    }

    /// One has ended.
    pub fn end(&mut self, mut answer: Answer) {
        let bytes = answer.result_bytes();
        let expected = self.expected_bytes - self.expected_bytes / FORGET;
        self.expected_bytes = expected.max(bytes);
        if self.held_bytes > 0 && self.held_bytes + bytes > self.bytes_max {
            answer.give_up_result(self.bytes_max);
        }
        let bytes = answer.result_bytes();
        self.held_bytes += bytes;
        self.ended.push_back((answer, bytes));
    }

    /// The first answer that waits.
    pub fn next(&mut self) -> Option<Answer> {
        let (answer, bytes) = self.ended.pop_front()?;
        self.held_bytes -= bytes;
        Some(answer)
    }
}
