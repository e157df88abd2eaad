//! What the links promise, each promise a test.

mod broken;
mod frames;
mod links;
mod load;
mod proxy;
mod real;
mod strangers;

use super::{
    counters::LinkCounters,
    frame::{Decoder, Frame, FrameError, Received},
    message::{Message, Shared},
    outgoing::Outgoing,
};
use bytes::Bytes;
use std::io::IoSlice;

const FRAME_BYTES: usize = 1 << 20;

/// A message as its receiver has it.
#[derive(Clone, PartialEq, Eq)]
struct Owned {
    partition: u16,
    head: Vec<u8>,
    parts: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Owned {
    /// Short, for what a failed test prints.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lengths: Vec<_> = self.parts.iter().map(Vec::len).collect();
        write!(out, "{}: {:?} and parts of {lengths:?}", self.partition, self.head)
    }
}

impl Owned {
    fn new(received: &Received<'_>) -> Self {
        let parts = received.parts().map(<[u8]>::to_vec).collect();
        Self { partition: received.partition, head: received.head.to_vec(), parts }
    }

    fn message(&self) -> Message {
        let shared = |part: &Vec<u8>| Shared::new(Bytes::copy_from_slice(part));
        Message {
            partition: self.partition,
            head: Bytes::copy_from_slice(&self.head),
            parts: self.parts.iter().map(shared).collect(),
        }
    }
}

/// A message that carries a number, and bytes that follow from it.
fn numbered(number: u64) -> Message {
    let mut random = fastrand::Rng::with_seed(number);
    let part: Vec<u8> = (0..random.usize(0..3000)).map(|_| random.u8(..4)).collect();
    let mut message = Message::new(number as u16, number.to_le_bytes().to_vec());
    message.parts.push(Shared::new(part.into()));
    message
}

/// The number of a message, all of which must be as it was sent.
fn number(received: &Owned) -> u64 {
    let number = u64::from_le_bytes(received.head[..].try_into().expect("eight bytes"));
    let sent = numbered(number);
    assert_eq!(received.partition, sent.partition);
    assert_eq!(received.parts.len(), 1);
    assert!(received.parts[0] == *sent.parts[0].plain(), "message {number} was changed");
    number
}

/// Writes up to `bytes_max` bytes of what a queue has, as a socket would take them.
fn write(outgoing: &mut Outgoing, bytes_max: usize) -> (Vec<u8>, LinkCounters) {
    let (mut bytes, mut counters) = (Vec::new(), LinkCounters::default());
    while bytes.len() < bytes_max {
        outgoing.begin_messages(true, FRAME_BYTES, &mut counters);
        let mut slices = [IoSlice::new(&[]); 3];
        let filled = outgoing.unwritten(&mut slices);
        let Some(slice) = slices[..filled].first() else { break };
        let taken = slice.len().min(bytes_max - bytes.len());
        bytes.extend_from_slice(&slice[..taken]);
        outgoing.advance(taken, &mut counters);
    }
    (bytes, counters)
}

/// The bytes of one frame with these messages.
fn frame_of(messages: &[Owned]) -> Vec<u8> {
    let (mut outgoing, mut counters) = (Outgoing::default(), LinkCounters::default());
    for message in messages {
        outgoing.push(message.message(), FRAME_BYTES, 1000, &mut counters);
    }
    write(&mut outgoing, usize::MAX).0
}

/// Feeds a decoder; the messages, and whether it goes on.
fn feed(decoder: &mut Decoder, mut bytes: &[u8]) -> (Vec<Owned>, Result<(), FrameError>) {
    let mut messages = Vec::new();
    let result = loop {
        let space = decoder.space();
        let taken = space.len().min(bytes.len());
        space[..taken].copy_from_slice(&bytes[..taken]);
        decoder.filled(taken);
        bytes = &bytes[taken..];
        if let Err(error) = take_frames(decoder, &mut messages) {
            break Err(error);
        }
        if bytes.is_empty() {
            break Ok(());
        }
    };
    (messages, result)
}

fn take_frames(decoder: &mut Decoder, messages: &mut Vec<Owned>) -> Result<(), FrameError> {
    while let Some(frame) = decoder.next_frame()? {
        if let Frame::Messages(mut frame) = frame {
            while let Some(message) = frame.next_message()? {
                messages.push(Owned::new(&message));
            }
        }
    }
    Ok(())
}
