//! The two buffers of a stream that carries pipelined messages.

use futures_lite::{AsyncRead, AsyncWrite};
use std::{
    collections::VecDeque,
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// What a quiet connection costs for reading, bytes.
const INPUT_INITIAL: usize = 8 << 10;
/// What an empty buffer may keep for the next burst, bytes.
const KEPT_MAX: usize = 256 << 10;
/// Bytes that are read or written at once: more would make the core's messages wait.
const AT_ONCE_MAX: usize = 32 << 10;
/// The same behind so much that is not consumed: what follows goes into memory that may be touched for the
/// first time, by a page fault for every 4 KiB.
const MORE_AT_ONCE_MAX: usize = 16 << 10;
/// From how many bytes on a message gets room for a long one, and how much: memory that is not touched
/// costs nothing.
const LONG_FROM: usize = 128 << 10;
const LONG_BYTES: usize = 4 << 20;
/// Buffers of at least this many bytes are not copied.
const WHOLE_LEAST: usize = 32 << 10;

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

    /// Consumes `len` bytes and hands them out in a buffer of their own, and where in it they are: of a long
    /// message, after which little came, in the buffer that they are in.
    pub fn take(&mut self, len: usize) -> (Vec<u8>, Range<usize>) {
        if len < LONG_FROM {
            return (self.consume(len).to_vec(), 0..len);
        }
        let taken = self.unread.start..self.unread.start + len;
        let rest = self.bytes[taken.end..self.unread.end].to_vec();
        self.unread = 0..rest.len();
        (std::mem::replace(&mut self.bytes, rest), taken)
    }

    /// Reads once, up to a bound; the number of bytes that arrived, 0 at the end of the stream.
    ///
    /// The caller bounds the buffer by consuming: it doubles only when it is full of bytes that
    /// belong to one message.
    pub fn poll_fill<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        self.make_room();
        let at_once = self.at_once_max();
        let end = self.bytes.len().min(self.unread.end + at_once);
        let free = &mut self.bytes[self.unread.end..end];
        let arrived = ready!(Pin::new(stream).poll_read(cx, free))?;
        self.unread.end += arrived;
        Poll::Ready(Ok(arrived))
    }

    fn at_once_max(&self) -> usize {
        if self.unread.len() < AT_ONCE_MAX { AT_ONCE_MAX } else { MORE_AT_ONCE_MAX }
    }

    fn make_room(&mut self) {
        if self.unread.is_empty() {
            self.unread = 0..0;
            if self.bytes.capacity() > KEPT_MAX {
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
            // The memory doubles, which copies it, up to some size; from there on it is had at once, and only
            // what is made ready of it takes time.
            let more = self.bytes.len().clamp(INPUT_INITIAL, self.at_once_max());
            if self.bytes.len() >= LONG_FROM && self.bytes.capacity() < LONG_BYTES {
                self.bytes.reserve_exact(LONG_BYTES - self.bytes.len());
            }
            self.bytes.resize(self.bytes.len() + more, 0);
        }
    }
}

/// Bytes that wait for the peer to read: buffers that were handed over whole, and what was appended after
/// them.
#[derive(Debug, Default)]
pub struct Output {
    whole: VecDeque<Vec<u8>>,
    /// Bytes of those.
    whole_bytes: usize,
    bytes: Vec<u8>,
    /// Bytes of the first buffer that are written.
    written: usize,
}

impl Output {
    /// Bytes that wait.
    pub const fn pending(&self) -> usize {
        self.held() - self.written
    }

    /// Bytes that the buffers hold: those that wait, and written ones that did not leave yet, which
    /// are no more, or are of one buffer that was handed over.
    pub const fn held(&self) -> usize {
        self.whole_bytes + self.bytes.len()
    }

    /// The end, to append to.
    pub const fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a buffer; a long one is taken as it is.
    pub fn append(&mut self, buffer: Vec<u8>) {
        if buffer.len() < WHOLE_LEAST {
            return self.bytes.extend_from_slice(&buffer);
        }
        for buffer in [std::mem::take(&mut self.bytes), buffer] {
            if !buffer.is_empty() {
                self.whole_bytes += buffer.len();
                self.whole.push_back(buffer);
            }
        }
    }

    /// Writes once what the peer takes, up to a bound: whether anything was taken. `Pending` when the peer
    /// takes nothing now.
    pub fn poll_write<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<bool>>
    where
        S: AsyncWrite + Unpin,
    {
        if self.pending() == 0 {
            return Poll::Ready(Ok(false));
        }
        let first = self.whole.front().unwrap_or(&self.bytes);
        let end = first.len().min(self.written + AT_ONCE_MAX);
        let taken = ready!(Pin::new(stream).poll_write(cx, &first[self.written..end]))?;
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += taken;
        self.let_go();
        Poll::Ready(Ok(true))
    }

    /// Lets go of what is written.
    fn let_go(&mut self) {
        if let Some(first) = self.whole.front() {
            if self.written == first.len() {
                self.whole_bytes -= first.len();
                self.whole.pop_front();
                self.written = 0;
            }
            return;
        }
        if self.pending() == 0 {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_MAX);
            self.written = 0;
        } else if self.written >= self.pending() {
            // The written half would otherwise stay for as long as the peer is behind.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_fn};

    /// A peer that takes so many bytes at a time.
    struct Peer(Vec<u8>, usize);

    impl AsyncWrite for Peer {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            assert!(bytes.len() <= AT_ONCE_MAX);
            let taken = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_is_handed_over_whole_stays_in_its_place() {
        for at_once in [1000, 7777, usize::MAX] {
            let (mut output, mut expected) = (Output::default(), Vec::new());
            let mut peer = Peer(Vec::new(), at_once);
            let write = |output: &mut Output, peer: &mut Peer| {
                block_on(poll_fn(|cx| output.poll_write(peer, cx))).unwrap()
            };
            for (round, len) in
                [3, WHOLE_LEAST, 10, 5 * WHOLE_LEAST, 0, 100].into_iter().enumerate()
            {
                output.end().push(round as u8);
                let buffer: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
                expected.push(round as u8);
                expected.extend_from_slice(&buffer);
                output.append(buffer);
                write(&mut output, &mut peer);
                assert_eq!(output.pending(), expected.len() - peer.0.len());
                assert!(output.held() >= output.pending());
            }
            while write(&mut output, &mut peer) {}
            assert!(peer.0 == expected, "other bytes, {at_once} at a time");
            assert_eq!((output.pending(), output.held()), (0, 0));
        }
    }

    #[test]
    fn a_frame_that_is_taken_leaves_what_came_after_it() {
        let mut input = Input::new();
        let (mut frames, mut sent) = (Vec::new(), Vec::new());
        for len in [10, 3000, 100_000, 20, 300_000, 5] {
            let frame: Vec<u8> = (0..len).map(|at| (at % 249) as u8).collect();
            sent.extend_from_slice(&frame);
            frames.push(frame);
        }
        let mut stream = &sent[..];
        for frame in frames {
            while input.unread().len() < frame.len() {
                let arrived = block_on(poll_fn(|cx| input.poll_fill(&mut stream, cx))).unwrap();
                assert!((1..=AT_ONCE_MAX).contains(&arrived));
            }
            let (bytes, range) = input.take(frame.len());
            assert!(bytes[range] == frame);
        }
        assert!(input.unread().is_empty());
    }
}
