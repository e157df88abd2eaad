//! What waits for a peer: a queue with bounds, and the one frame that is being written.
//!
//! What gathered in the queue while a frame was written is the next frame.

use super::{
    counters::LinkCounters,
    frame::{self, HEAD_BYTES, Kind},
    message::Message,
};
use bytes::Bytes;
use std::{collections::VecDeque, io::IoSlice, ops::Range};

/// Longer parts are written from where they lie; shorter ones are copied, which costs less than a
/// place in a vectored write.
const COPIED_BYTES_MAX: usize = 2048;
/// A frame takes no further message beyond this, so that a damaged one costs little.
const GATHERED_BYTES: usize = 256 << 10;
/// Copied bytes for which a frame's memory is kept.
const KEPT_BYTES: usize = 2 * GATHERED_BYTES;

#[derive(Debug)]
enum Piece {
    /// A range of the copied bytes.
    Copied(Range<usize>),
    Shared(Bytes),
}

/// See the file.
#[derive(Debug, Default)]
pub struct Outgoing {
    queue: VecDeque<Message>,
    queued_bytes: usize,
    /// The frame under way: its head and what was copied into it.
    copied: Vec<u8>,
    /// All of it in order; empty when none is under way.
    pieces: Vec<Piece>,
    /// The piece that is written next, and what of it is written.
    piece: usize,
    written: usize,
    /// Messages in the frame under way.
    messages: u64,
}

impl Outgoing {
    /// Queues a message; while there are more than allowed, the oldest ones go.
    pub fn push(
        &mut self,
        message: Message,
        bytes_max: usize,
        messages_max: usize,
        counters: &mut LinkCounters,
    ) {
        self.queued_bytes += message.plain_bytes();
        self.queue.push_back(message);
        while self.queued_bytes > bytes_max || self.queue.len() > messages_max {
            let Some(dropped) = self.queue.pop_front() else { return };
            self.queued_bytes -= dropped.plain_bytes();
            counters.dropped_messages += 1;
            counters.dropped_bytes += dropped.plain_bytes() as u64;
        }
    }

    /// Messages that wait, those of the frame under way apart.
    pub fn queued(&self) -> (usize, usize) {
        (self.queue.len(), self.queued_bytes)
    }

    /// Whether a frame is under way.
    pub fn is_under_way(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Begins a frame that is none of messages; none may be under way.
    pub fn begin_small(&mut self, kind: Kind, body: &[u8]) {
        assert!(!self.is_under_way(), "a frame is written to its end");
        self.copied.clear();
        frame::write_small(&mut self.copied, kind, body);
        self.pieces.push(Piece::Copied(0..self.copied.len()));
    }

    /// Begins a frame of what waits, if nothing is under way.
    pub fn begin_messages(&mut self, compresses: bool, limit: usize, counters: &mut LinkCounters) {
        if self.is_under_way() || self.queue.is_empty() {
            return;
        }
        self.copied.clear();
        self.copied.resize(HEAD_BYTES, 0);
        let mut plain = 0;
        while let Some(message) = self.queue.front() {
            let bytes = message.plain_bytes();
            if plain > 0 && plain + bytes > GATHERED_BYTES.min(limit) {
                break;
            }
            plain += bytes;
            self.queued_bytes -= bytes;
            let message = self.queue.pop_front().expect("it was looked at");
            counters.saved_bytes += self.append(&message, compresses);
            self.messages += 1;
        }
        self.end_copied();
        self.write_head();
    }

    /// Appends a message to the frame under way; tells what compressing saved.
    fn append(&mut self, message: &Message, compresses: bool) -> u64 {
        let length = |bytes: usize| u32::try_from(bytes).expect("a message is below 4 GiB");
        let parts = u16::try_from(message.parts.len()).expect("its sender counted the parts");
        self.copied.extend_from_slice(&length(message.head.len()).to_le_bytes());
        self.copied.extend_from_slice(&message.partition.to_le_bytes());
        self.copied.extend_from_slice(&parts.to_le_bytes());
        let mut saved = 0;
        for part in &message.parts {
            let (travelling, plain) = (part.travelling(compresses).len(), part.plain().len());
            saved += (plain - travelling) as u64;
            self.copied.extend_from_slice(&length(travelling).to_le_bytes());
            self.copied.extend_from_slice(&length(plain).to_le_bytes());
        }
        self.append_bytes(&message.head);
        for part in &message.parts {
            self.append_bytes(part.travelling(compresses));
        }
        saved
    }

    fn append_bytes(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPIED_BYTES_MAX {
            self.copied.extend_from_slice(bytes);
        } else {
            self.end_copied();
            self.pieces.push(Piece::Shared(bytes.clone()));
        }
    }

    /// Makes a piece of what was copied since the last copied piece.
    fn end_copied(&mut self) {
        let ends = self.pieces.iter().rev().find_map(|piece| match piece {
            Piece::Copied(range) => Some(range.end),
            Piece::Shared(_) => None,
        });
        let start = ends.unwrap_or(0);
        if start < self.copied.len() {
            self.pieces.push(Piece::Copied(start..self.copied.len()));
        }
    }

    fn write_head(&mut self) {
        let mut hasher = crc32fast::Hasher::new();
        let mut bytes = 0;
        for (index, piece) in self.pieces.iter().enumerate() {
            let piece = self.piece_bytes(piece);
            let body = if index == 0 { &piece[HEAD_BYTES..] } else { piece };
            hasher.update(body);
            bytes += body.len();
        }
        frame::write_head(&mut self.copied, Kind::Messages, bytes, hasher.finalize());
    }

    fn piece_bytes<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        match piece {
            Piece::Copied(range) => &self.copied[range.clone()],
            Piece::Shared(bytes) => bytes,
        }
    }

    /// What of the frame under way is not written, as far as there is place for it; tells how many
    /// places were filled.
    pub fn unwritten<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut skipped = self.written;
        let mut filled = 0;
        for (place, piece) in into.iter_mut().zip(&self.pieces[self.piece..]) {
            *place = IoSlice::new(&self.piece_bytes(piece)[skipped..]);
            skipped = 0;
            filled += 1;
        }
        filled
    }

    /// So many bytes of the frame under way are written now.
    pub fn advance(&mut self, bytes: usize, counters: &mut LinkCounters) {
        self.written += bytes;
        while let Some(piece) = self.pieces.get(self.piece) {
            let length = self.piece_bytes(piece).len();
            if self.written < length {
                return;
            }
            self.written -= length;
            self.piece += 1;
        }
        counters.frames_out += 1;
        counters.messages_out += self.messages;
        self.clear();
    }

    /// The connection is gone: nobody knows what arrived of the frame under way, so it is not
    /// written again. What waits still waits.
    pub fn cut(&mut self, counters: &mut LinkCounters) {
        counters.cut_messages += self.messages;
        self.clear();
    }

    fn clear(&mut self) {
        self.pieces.clear();
        (self.piece, self.written, self.messages) = (0, 0, 0);
        self.copied.clear();
        if self.copied.capacity() > KEPT_BYTES {
            self.copied = Vec::new();
        }
    }
}
