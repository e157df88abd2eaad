//! The log thread's way to the other nodes: messages of groups, and where nodes can be reached.

use super::{
    book::Book,
    engine::Envelope,
    notice::Notice,
    peers::{self, Event, Message, NodeId, Shared, Sockets},
    raft,
};
use crate::{runtime::doorbell::Doorbell, wire::id::PartitionIndex};
use bytes::Bytes;
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// What is no message of a partition: a book.
const BOOK: PartitionIndex = PartitionIndex::MAX;
/// Nor is this: a notice.
const NOTICE: PartitionIndex = PartitionIndex::MAX - 1;

/// What is heard from other nodes.
pub enum Heard<M = raft::Message> {
    /// A message of a partition's group, and who sent it.
    Message(PartitionIndex, NodeId, M),
    /// What a node knows of the nodes.
    Book(Book),
    /// What a node says of a partition beside its group's messages.
    Notice(NodeId, Notice),
    /// Messages flow to and from a node.
    Connected(NodeId),
    /// They do not any more.
    Lost(NodeId),
}

/// What a link counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// Whether messages flow.
    pub is_connected: bool,
    /// Messages that were sent, and that came.
    pub messages: (u64, u64),
    /// Bytes that were sent, and that came.
    pub bytes: (u64, u64),
    /// Messages that were dropped because too many waited.
    pub dropped: u64,
}

/// Links to other nodes. Messages may be lost; between two nodes those that are not come in order.
pub trait Links<M = raft::Message> {
    /// Tells what came, a bounded amount of it.
    fn receive(&mut self, now: Instant, hear: &mut dyn FnMut(Heard<M>));

    /// Sends a message of a partition's group to whom it is for.
    fn send(&mut self, partition: PartitionIndex, message: &M);

    /// Sends what this node knows of the nodes.
    fn send_book(&mut self, to: NodeId, book: &Book);

    /// Says something of a partition to a node.
    fn send_notice(&mut self, to: NodeId, notice: Notice);

    /// Lets go of what was sent.
    fn flush(&mut self, now: Instant);

    /// Makes a node a peer, or tells its new address.
    fn set_peer(&mut self, now: Instant, node: NodeId, address: SocketAddr);

    /// Forgets a peer.
    fn remove_peer(&mut self, node: NodeId);

    /// What the link to a node counted.
    fn status(&self, node: NodeId) -> LinkStatus;

    /// Sleeps until something can be received, the bell rings, or that long.
    fn wait(&mut self, now: Instant, limit: Option<Duration>, bell: &Doorbell);

    /// Sleeps until the bell rings, or that long, whatever can be received; tells the time after
    /// that.
    fn pause(&mut self, limit: Duration, bell: &Doorbell) -> Instant;
}

/// The links of a node: none when it is alone.
#[derive(Debug, Default)]
pub struct PeerLinks {
    sockets: Option<Sockets>,
    /// Data of entries that went to a peer since the last flush, by where they lie in memory: they
    /// go to the other peers as well, and are compressed once.
    shared: HashMap<(usize, usize), Shared>,
    /// Messages that could not be read.
    malformed: u64,
}

impl PeerLinks {
    /// The links of a node of a cluster.
    ///
    /// # Errors
    /// The address is taken, or not of this machine.
    pub fn listen(config: peers::Config, now: Instant) -> io::Result<Self> {
        Ok(Self { sockets: Some(Sockets::new(config, now)?), ..Self::default() })
    }

    fn shared(&mut self, data: Bytes) -> Shared {
        let place = (data.as_ptr() as usize, data.len());
        // What is in the map is alive, so that nothing else lies there.
        self.shared.entry(place).or_insert_with(|| Shared::new(data)).clone()
    }

    fn dispatch(&mut self, to: NodeId, message: Message) {
        let Some(sockets) = &mut self.sockets else { return };
        if let Err(error) = sockets.send(to, message) {
            tracing::debug!(to, %error, "a message to a node is not sent");
        }
    }
}

impl<M: Envelope> Links<M> for PeerLinks {
    fn receive(&mut self, now: Instant, hear: &mut dyn FnMut(Heard<M>)) {
        let Some(sockets) = &mut self.sockets else { return };
        let malformed = &mut self.malformed;
        sockets.receive(now, |event| match event {
            Event::Connected(node) => hear(Heard::Connected(node)),
            Event::Lost(node, _) => hear(Heard::Lost(node)),
            Event::Message(from, received) => match read(from, &received) {
                Some(heard) => hear(heard),
                None => {
                    *malformed += 1;
                    if malformed.is_power_of_two() {
                        tracing::warn!(from, count = *malformed, "messages cannot be understood");
                    }
                }
            },
        });
    }

    fn send(&mut self, partition: PartitionIndex, message: &M) {
        if self.sockets.is_none() {
            return;
        }
        let (mut head, mut parts) = (Vec::new(), Vec::new());
        message.encode_apart(partition, &mut head, &mut parts);
        let head = Bytes::from(head);
        let parts: Vec<_> = parts.into_iter().map(|part| self.shared(part)).collect();
        for to in message.to() {
            let (head, parts) = (head.clone(), parts.clone());
            self.dispatch(*to, Message { partition, head, parts });
        }
    }

    fn send_book(&mut self, to: NodeId, book: &Book) {
        self.dispatch(to, Message::new(BOOK, book.to_text().into_bytes()));
    }

    fn send_notice(&mut self, to: NodeId, notice: Notice) {
        self.dispatch(to, Message::new(NOTICE, notice.to_bytes()));
    }

    fn flush(&mut self, now: Instant) {
        if let Some(sockets) = &mut self.sockets {
            sockets.flush(now);
            self.shared.clear();
        }
    }

    fn set_peer(&mut self, now: Instant, node: NodeId, address: SocketAddr) {
        if let Some(sockets) = &mut self.sockets {
            sockets.set_peer(now, node, vec![address]);
        }
    }

    fn remove_peer(&mut self, node: NodeId) {
        if let Some(sockets) = &mut self.sockets {
            sockets.remove_peer(node);
        }
    }

    fn status(&self, node: NodeId) -> LinkStatus {
        let Some(sockets) = &self.sockets else { return LinkStatus::default() };
        let of_node = |(of, counters)| (of == node).then_some(counters);
        let Some(counters) = sockets.counters().find_map(of_node) else {
            return LinkStatus::default();
        };
        LinkStatus {
            is_connected: sockets.is_connected(node),
            messages: (counters.messages_out, counters.messages_in),
            bytes: (counters.bytes_out, counters.bytes_in),
            dropped: counters.dropped_messages,
        }
    }

    fn wait(&mut self, now: Instant, limit: Option<Duration>, bell: &Doorbell) {
        // What cannot be waited for is noticed at the next look.
        let _ = match &mut self.sockets {
            Some(sockets) => sockets.wait(now, limit, bell).map(drop),
            None => bell.wait(limit),
        };
    }

    fn pause(&mut self, limit: Duration, bell: &Doorbell) -> Instant {
        let _ = bell.wait(Some(limit));
        Instant::now()
    }
}

/// What a message of a peer says.
fn read<M: Envelope>(from: NodeId, received: &peers::frame::Received<'_>) -> Option<Heard<M>> {
    if received.partition == BOOK {
        let text = std::str::from_utf8(received.head).ok()?;
        return Book::from_text(text).ok().map(Heard::Book);
    }
    if received.partition == NOTICE {
        return Notice::from_bytes(received.head).map(|notice| Heard::Notice(from, notice));
    }
    let head = Bytes::copy_from_slice(received.head);
    let parts = received.parts().map(Bytes::copy_from_slice);
    let partition = received.partition;
    let message = M::decode_apart(partition, from, &head, parts)?;
    Some(Heard::Message(partition, from, message))
}
