//! One request after the other.

use super::{ClientError, Params, Refusal, Target, View, frame, incoming::Incoming};
use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// A connection that asks and waits.
pub struct Client {
    stream: TcpStream,
    incoming: Incoming,
    request: Vec<u8>,
    msgid: u32,
    timeout: Duration,
}

impl Client {
    /// Connects and says the target's token; `timeout` is how long the connection, and later each
    /// answer, may take.
    ///
    /// # Errors
    /// Every variant of [`ClientError`].
    pub fn connect(to: impl Into<Target>, timeout: Duration) -> Result<Self, ClientError> {
        let Target { address, token } = to.into();
        let stream = open(address, timeout)?;
        let reading =
            stream.try_clone().map_err(|source| ClientError::Unreachable { address, source })?;
        let incoming = Incoming::new(reading);
        let mut client = Self { stream, incoming, request: Vec::new(), msgid: 0, timeout };
        if let Some(token) = token {
            client.call("auth", &Params::new().str("token", token.expose()))?;
        }
        Ok(client)
    }

    /// The two halves, when no answer is missing.
    pub(super) fn into_parts(self) -> (TcpStream, Incoming) {
        (self.stream, self.incoming)
    }

    /// Calls a method and waits for its answer, which borrows from the connection.
    ///
    /// # Errors
    /// Every variant of [`ClientError`] but `Unreachable`.
    pub fn call(&mut self, method: &str, params: &Params) -> Result<View<'_>, ClientError> {
        self.call_within(method, params, self.timeout)
    }

    /// Calls a method whose answer may take longer than others, or must not.
    ///
    /// # Errors
    /// As for [`Client::call`].
    pub fn call_within(
        &mut self,
        method: &str,
        params: &Params,
        limit: Duration,
    ) -> Result<View<'_>, ClientError> {
        self.msgid = self.msgid.wrapping_add(1);
        self.request.clear();
        frame::request(&mut self.request, self.msgid, method, |out| params.write(out));
        self.stream.write_all(&self.request).map_err(ClientError::Lost)?;
        match self.wait(limit)? {
            Ok(result) => Ok(result),
            Err(error) => Err(Refusal::of(error).into()),
        }
    }

    /// Waits for the answer of the last request; answers that come too late for earlier ones are
    /// dropped.
    fn wait(&mut self, limit: Duration) -> Result<Result<View<'_>, View<'_>>, ClientError> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(frame) = self.incoming.next_frame()? {
                let msgid = self.incoming.answer(frame.clone())?.msgid;
                if msgid.is_none_or(|msgid| msgid == self.msgid) {
                    return Ok(self.incoming.answer(frame)?.outcome);
                }
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::TimedOut(limit));
            }
            self.incoming.fill(left)?;
        }
    }
}

/// A connection whose writes do not wait to be joined, and do not block for ever.
fn open(address: SocketAddr, timeout: Duration) -> Result<TcpStream, ClientError> {
    let connect = || {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(stream)
    };
    connect().map_err(|source| ClientError::Unreachable { address, source })
}
