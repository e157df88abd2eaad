//! Many requests under way on one connection: one half sends them, the other takes the answers.
//!
//! Neither half allocates for a request or an answer: requests are encoded at the end of a buffer
//! that is written as a whole, answers are read in place from a buffer that one read fills. How
//! many may be under way is up to the caller; a node reads no further than its
//! `server.max_in_flight`.

use super::{Answer, Client, ClientError, Target, frame, incoming::Incoming};
use std::{
    io::{self, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

/// Connects and says the target's token; `timeout` is how long that may take, and a write that the
/// node does not take.
///
/// # Errors
/// Every variant of [`ClientError`].
pub fn connect(
    to: impl Into<Target>,
    timeout: Duration,
) -> Result<(Sender, Receiver), ClientError> {
    let (stream, incoming) = Client::connect(to, timeout)?.into_parts();
    Ok((Sender { stream, buffer: Vec::new(), timeout, limit: timeout }, Receiver { incoming }))
}

/// The half that sends requests.
pub struct Sender {
    stream: TcpStream,
    buffer: Vec<u8>,
    timeout: Duration,
    /// What the system was last told to wait at most.
    limit: Duration,
}

impl Sender {
    /// Encodes a request behind those that wait to be written; `params` appends its one map.
    #[inline]
    pub fn push(&mut self, msgid: u32, method: &str, params: impl FnOnce(&mut Vec<u8>)) {
        frame::request(&mut self.buffer, msgid, method, params);
    }

    /// Bytes that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Writes all requests that wait.
    ///
    /// # Errors
    /// [`ClientError::Lost`]; the connection is of no use then.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.wait_at_most(self.timeout)?;
        let written = self.stream.write_all(&self.buffer).map_err(ClientError::Lost);
        self.buffer.clear();
        written
    }

    /// Writes what the node takes within `limit` or a little more; what is left is written next time.
    ///
    /// # Errors
    /// As [`Sender::flush`].
    pub fn flush_within(&mut self, limit: Duration) -> Result<(), ClientError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.wait_at_most(limit)?;
        match self.stream.write(&self.buffer) {
            Ok(0) => Err(ClientError::Lost(io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                self.buffer.drain(..written);
                Ok(())
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => Ok(()),
                _ => Err(ClientError::Lost(error)),
            },
        }
    }

    fn wait_at_most(&mut self, limit: Duration) -> Result<(), ClientError> {
        // Zero would mean for ever.
        let limit = limit.max(Duration::from_micros(1));
        if self.limit != limit {
            self.stream.set_write_timeout(Some(limit)).map_err(ClientError::Lost)?;
            self.limit = limit;
        }
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // The other half may wait on another thread: a connection that sends nothing more gets
        // its last answers and then ends. One that is gone already needs no goodbye.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// The half that takes answers.
pub struct Receiver {
    incoming: Incoming,
}

impl Receiver {
    /// The next answer among those that arrived; `None` when there is no whole one.
    ///
    /// # Errors
    /// [`ClientError::Garbled`].
    #[inline]
    pub fn buffered(&mut self) -> Result<Option<Answer<'_>>, ClientError> {
        self.incoming.buffered()
    }

    /// Reads once, as much as there is; false when nothing came within `limit`.
    ///
    /// # Errors
    /// [`ClientError::Lost`].
    pub fn fill(&mut self, limit: Duration) -> Result<bool, ClientError> {
        self.incoming.fill(limit)
    }
}
