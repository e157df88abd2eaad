//! The two buffers of a stream that carries pipelined messages.

use futures_lite::{AsyncRead, AsyncWrite};
use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// What a quiet connection costs for reading, bytes.
const INPUT_INITIAL: usize = 8 << 10;
/// What an empty buffer may keep for the next burst, bytes.
const KEPT_MAX: usize = 256 << 10;

/// Bytes that arrived and were not consumed.
#[derive(Debug)]
pub struct Input {
    bytes: Vec<u8>,
    unread: Range<usize>,
}

impl Input {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), unread: 0..0 }
    }

    /// What was not consumed.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.unread.clone()]
    }

    /// Consumes `len` bytes and hands them out, to be changed in place if need be.
    pub fn consume(&mut self, len: usize) -> &mut [u8] {
        let start = self.unread.start;
        self.unread.start += len;
        assert!(self.unread.start <= self.unread.end);
        &mut self.bytes[start..start + len]
    }

    /// Reads once; the number of bytes that arrived, 0 at the end of the stream.
    ///
    /// The caller bounds the buffer by consuming: it doubles only when it is full of bytes that
    /// belong to one message.
    pub fn poll_fill<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        self.make_room();
        let free = &mut self.bytes[self.unread.end..];
        let arrived = ready!(Pin::new(stream).poll_read(cx, free))?;
        self.unread.end += arrived;
        Poll::Ready(Ok(arrived))
    }

    fn make_room(&mut self) {
        if self.unread.is_empty() {
            self.unread = 0..0;
            if self.bytes.len() > KEPT_MAX {
                self.bytes.truncate(KEPT_MAX);
                self.bytes.shrink_to_fit();
            }
        }
        if self.unread.end < self.bytes.len() {
            return;
        }
        if self.unread.start >= self.bytes.len() / 2 && self.unread.start > 0 {
            self.bytes.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        } else {
            let len = (self.bytes.len() * 2).max(INPUT_INITIAL);
            self.bytes.resize(len, 0);
        }
    }
}

/// Bytes that wait for the peer to read.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    written: usize,
}

impl Output {
    /// Bytes that wait.
    pub const fn pending(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Bytes that the buffer holds: those that wait, and written ones that did not leave it yet, which
    /// are no more.
    pub const fn held(&self) -> usize {
        self.bytes.len()
    }

    /// The end of the buffer, to append to.
    pub const fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Writes once what the peer takes: whether anything was taken. `Pending` when the peer takes
    /// nothing now.
    pub fn poll_write<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<bool>>
    where
        S: AsyncWrite + Unpin,
    {
        if self.pending() == 0 {
            return Poll::Ready(Ok(false));
        }
        let taken = ready!(Pin::new(stream).poll_write(cx, &self.bytes[self.written..]))?;
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += taken;
        if self.pending() == 0 {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_MAX);
            self.written = 0;
        } else if self.written >= self.pending() {
            // The written half would otherwise stay for as long as the peer is behind.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        Poll::Ready(Ok(true))
    }
}
