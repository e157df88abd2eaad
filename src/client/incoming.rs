//! What arrives on a connection, cut into answers.

use super::{Answer, ClientError};
use crate::wire::msgpack::{Scan, Scanner};
use std::{
    io::{self, Read},
    net::TcpStream,
    ops::Range,
    time::Duration,
};

/// The buffer at the begin: room for some thousand short answers, so that one read takes many.
const BUFFER_BYTES: usize = 256 << 10;
/// The largest answer that is taken, bytes: far above what a node keeps for one connection.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// One side of a connection and the bytes that came and were not looked at.
pub(super) struct Incoming {
    stream: TcpStream,
    buffer: Vec<u8>,
    unread: Range<usize>,
    scanner: Scanner,
    /// What the system was last told to wait at most.
    limit: Option<Duration>,
}

impl Incoming {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: vec![0; BUFFER_BYTES],
            unread: 0..0,
            scanner: Scanner::new(ANSWER_BYTES_MAX),
            limit: None,
        }
    }

    /// The next answer among those that arrived; `None` when it is not whole yet.
    #[inline]
    pub(super) fn buffered(&mut self) -> Result<Option<Answer<'_>>, ClientError> {
        match self.next_frame()? {
            Some(frame) => self.answer(frame).map(Some),
            None => Ok(None),
        }
    }

    /// Where the next whole value lies, until the next [`Incoming::fill`].
    #[inline]
    pub(super) fn next_frame(&mut self) -> Result<Option<Range<usize>>, ClientError> {
        let length = match self.scanner.scan(&self.buffer[self.unread.clone()]) {
            Scan::Complete(length) => length,
            Scan::Incomplete => return Ok(None),
            Scan::Invalid(why) => return Err(ClientError::Garbled(why)),
            Scan::TooLarge => return Err(ClientError::Garbled("it is larger than any answer")),
        };
        let begin = self.unread.start;
        self.unread.start += length;
        Ok(Some(begin..begin + length))
    }

    /// The answer that lies there.
    #[inline]
    pub(super) fn answer(&self, frame: Range<usize>) -> Result<Answer<'_>, ClientError> {
        let answer = Answer::parse(&self.buffer[frame]);
        answer.ok_or(ClientError::Garbled("it is another MessagePack value"))
    }

    /// Reads once; false when nothing came within `limit`.
    pub(super) fn fill(&mut self, limit: Duration) -> Result<bool, ClientError> {
        self.make_room();
        // Zero would mean for ever.
        let limit = limit.max(Duration::from_micros(1));
        if self.limit != Some(limit) {
            self.stream.set_read_timeout(Some(limit)).map_err(ClientError::Lost)?;
            self.limit = Some(limit);
        }
        loop {
            match self.stream.read(&mut self.buffer[self.unread.end..]) {
                Ok(0) => return Err(ClientError::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => {
                    self.unread.end += length;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Ok(false),
                    _ => return Err(ClientError::Lost(error)),
                },
            }
        }
    }

    /// Moves what is unread to the front when the end is near, and grows for one long answer.
    fn make_room(&mut self) {
        if self.unread.is_empty() {
            self.unread = 0..0;
        }
        if self.unread.end > self.buffer.len() / 2 && self.unread.start > 0 {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.unread.end == self.buffer.len() {
            // The scanner refuses an answer before it reaches twice its limit.
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
    }
}
