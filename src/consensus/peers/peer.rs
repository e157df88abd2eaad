//! A peer and the socket that its link uses at the moment.

use super::{
    Lost, NodeId, Timing,
    frame::Decoder,
    link::{Link, Taken},
    seldom::Seldom,
    sockets::Event,
};
use crate::runtime::{nonblocking, poll::Ready};
use std::{
    io::{self, IoSlice, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Bytes that are read from one peer at a time, so that none holds the thread.
const READ_BYTES_MAX: usize = 1 << 20;
/// Pieces of a vectored write.
const PIECES_MAX: usize = 64;

/// See the file.
#[derive(Debug)]
pub struct Peer {
    pub link: Link,
    addresses: Vec<SocketAddr>,
    next_address: usize,
    pub connection: Option<Connection>,
    /// Lines about it in the log of messages.
    losses: Seldom,
    failures: Seldom,
    connects: Seldom,
}

#[derive(Debug)]
pub struct Connection {
    pub stream: TcpStream,
    pub decoder: Decoder,
    /// The kernel took no more; a look tells when it does.
    pub is_blocked: bool,
}

impl Peer {
    /// A peer without addresses.
    pub fn new(link: Link) -> Self {
        Self {
            link,
            addresses: Vec::new(),
            next_address: 0,
            connection: None,
            losses: Seldom::default(),
            failures: Seldom::default(),
            connects: Seldom::default(),
        }
    }

    /// Changes where it is; a connection in use stays, another try begins at once.
    pub fn set_addresses(&mut self, now_ms: u64, addresses: Vec<SocketAddr>) {
        if self.addresses == addresses {
            return;
        }
        (self.addresses, self.next_address) = (addresses, 0);
        if !self.link.is_in_use() {
            self.connection = None;
            self.link.lost(now_ms, Lost::Replaced);
            self.link.hurry(now_ms);
        }
    }

    /// What a look should find.
    pub fn wanted(&self) -> Ready {
        if self.link.is_connecting() {
            return Ready::WRITABLE;
        }
        Ready { readable: true, writable: self.link.has_unwritten() }
    }

    /// Something is ready.
    pub fn serve(
        &mut self,
        node: NodeId,
        ready: Ready,
        now_ms: u64,
        tell: &mut impl FnMut(Event<'_>),
    ) {
        let Some(connection) = &mut self.connection else { return };
        if ready.writable {
            connection.is_blocked = false;
        }
        let served = if self.link.is_connecting() {
            let connected = nonblocking::connected(&connection.stream);
            connected.map(|()| self.link.opened()).map_err(Lost::from)
        } else if ready.readable {
            self.read(node, now_ms, tell)
        } else {
            Ok(())
        };
        if let Err(why) = served
            && self.lose(node, now_ms, why)
        {
            tell(Event::Lost(node, why));
        }
    }

    fn read(
        &mut self,
        node: NodeId,
        now_ms: u64,
        tell: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Lost> {
        let mut left = READ_BYTES_MAX;
        while left > 0
            && let Some(Connection { stream, decoder, .. }) = &mut self.connection
        {
            let space = decoder.space();
            let room = space.len().min(left);
            let bytes = match stream.read(&mut space[..room]) {
                Ok(0) => return Err(Lost::Closed),
                Ok(bytes) => bytes,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::Interrupted => continue,
                    kind => return Err(Lost::Failed(kind)),
                },
            };
            decoder.filled(bytes);
            self.link.read(now_ms, bytes);
            let was_in_use = self.link.is_in_use();
            while let Some(frame) = decoder.next_frame()? {
                match self.link.take(now_ms, frame)? {
                    Taken::Nothing => {}
                    Taken::Connected => {
                        decoder.set_body_bytes_max(self.link.limits().frame_bytes);
                        tell(Event::Connected(node));
                    }
                    Taken::Messages(mut messages) => {
                        while let Some(message) = messages.next_message()? {
                            self.link.told();
                            tell(Event::Message(node, message));
                        }
                    }
                }
            }
            if self.link.is_in_use() && !was_in_use {
                self.say_connected(node, now_ms);
            }
            // Fewer bytes than there was room for: the kernel has no more.
            if bytes < room {
                return Ok(());
            }
            left -= bytes;
        }
        Ok(())
    }

    /// Writes what the kernel takes now.
    pub fn write(&mut self, now_ms: u64) -> Result<(), Lost> {
        if self.link.is_connecting() {
            return Ok(());
        }
        while let Some(Connection { stream, is_blocked: is_blocked @ false, .. }) =
            &mut self.connection
            && self.link.has_unwritten()
        {
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let filled = self.link.unwritten(&mut pieces);
            match stream.write_vectored(&pieces[..filled]) {
                Ok(0) => return Err(Lost::Failed(io::ErrorKind::WriteZero)),
                Ok(bytes) => self.link.written(now_ms, bytes),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => *is_blocked = true,
                    io::ErrorKind::Interrupted => {}
                    kind => return Err(Lost::Failed(kind)),
                },
            }
        }
        Ok(())
    }

    /// Time has passed: gives up what took too long, and dials when that is due.
    pub fn turn(
        &mut self,
        node: NodeId,
        now_ms: u64,
        timing: Timing,
        tell: &mut impl FnMut(Event<'_>),
    ) {
        let mut turned = self.link.turn(now_ms);
        if turned == Err(Lost::Silent) {
            // What the last look found may be old: this thread may have been away ever since.
            let read = self.read(node, now_ms, tell);
            turned = read.and_then(|()| self.link.turn(now_ms));
        }
        if let Err(why) = turned
            && self.lose(node, now_ms, why)
        {
            tell(Event::Lost(node, why));
        }
        if self.link.dial(now_ms)
            && let Err(error) = self.dial(timing)
        {
            self.lose(node, now_ms, error.into());
        }
    }

    fn dial(&mut self, timing: Timing) -> io::Result<()> {
        let address = self.addresses.get(self.next_address % self.addresses.len().max(1));
        let address = *address.ok_or(io::ErrorKind::AddrNotAvailable)?;
        self.next_address += 1;
        let stream = nonblocking::connect(address)?;
        nonblocking::tune(&stream, Duration::from_millis(timing.silence_ms))?;
        let decoder = Decoder::of_hello();
        self.connection = Some(Connection { stream, decoder, is_blocked: false });
        Ok(())
    }

    /// Closes the connection; tells whether messages could flow on it.
    pub fn lose(&mut self, node: NodeId, now_ms: u64, why: Lost) -> bool {
        self.connection = None;
        let was_in_use = self.link.lost(now_ms, why);
        if was_in_use {
            if let Some(unsaid) = self.losses.say(now_ms) {
                tracing::warn!(node, unsaid, "the link to a node is lost: {why}");
            }
        } else if why != Lost::Replaced
            && let Some(unsaid) = self.failures.say(now_ms)
        {
            tracing::warn!(node, unsaid, "a node cannot be reached: {why}");
        }
        was_in_use
    }

    pub fn say_connected(&mut self, node: NodeId, now_ms: u64) {
        if let Some(unsaid) = self.connects.say(now_ms) {
            tracing::info!(node, unsaid, "the link to a node is there");
        }
    }
}
