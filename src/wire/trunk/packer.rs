//! Puts records into frames, and keeps the frames until the other side has taken them.

use super::{
    FRAME_BYTES, HEAD_BYTES, HEAD_BYTES_CHECKED, Record, TrunkError,
    parts::{PART_BYTES, Parts},
};
use std::collections::VecDeque;

/// Bodies below this many bytes are not compressed.
const COMPRESSED_FROM: usize = 1024;
/// Frames that go uncompressed after one that did not become small enough.
const FRAMES_UNCOMPRESSED: u32 = 15;
/// What an empty buffer may keep for the next burst, bytes.
const KEPT_MAX: usize = PART_BYTES;
/// Bytes of the other side's frames that are taken before it is told at once.
const UNTOLD_MAX: usize = 4 * FRAME_BYTES;

/// Records on their way out: those of the open frame, and the bytes of closed ones.
#[derive(Debug)]
pub struct Packer {
    /// Records of the frame that is not closed yet.
    open: Vec<u8>,
    /// Messages among them.
    open_messages: u64,
    /// The number of that frame.
    number: u64,
    /// Closed frames, `frames`, from `start` on.
    closed: Parts,
    start: usize,
    frames: VecDeque<Frame>,
    /// Where in `closed` that ends which was written over this connection; the frames that are whole in
    /// it, and where the last of those ends.
    written: usize,
    frames_written: usize,
    frames_end: usize,
    /// The last frame of which a part was ever written.
    touched: u64,
    /// The last frame that the other side has taken.
    acknowledged: u64,
    inbound: Inbound,
    /// Frames that are not worth an attempt to compress them.
    uncompressed: u32,
    scratch: Vec<u8>,
}

/// A closed frame.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// 0 when it has no records.
    number: u64,
    bytes: usize,
    messages: u64,
}

/// What a session that is over takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// The last of its frames of which a part was written; those behind it go on, by as much lower numbers.
    pub frames: u64,
    /// Messages among those that the other side did not say that it took.
    pub messages: u64,
}

/// What the other side is to be told of its frames.
#[derive(Debug, Default)]
struct Inbound {
    /// The last one that was taken,
    taken: u64,
    /// and of which the other side was told.
    told: u64,
    /// Bytes that were taken since.
    untold_bytes: usize,
    /// Whether it is told though nothing else is to be said.
    is_due: bool,
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            open_messages: 0,
            number: 1,
            closed: Parts::default(),
            start: 0,
            frames: VecDeque::new(),
            written: 0,
            frames_written: 0,
            frames_end: 0,
            touched: 0,
            acknowledged: 0,
            inbound: Inbound::default(),
            uncompressed: 0,
            scratch: Vec::new(),
        }
    }
}

impl Packer {
    /// Bytes that the other side has not taken, before compression where they are not compressed yet.
    #[inline]
    pub fn kept(&self) -> usize {
        self.open.len() + self.closed.end() - self.start
    }

    /// Bytes of memory that it holds.
    pub fn memory_bytes(&self) -> usize {
        let frames = self.frames.capacity() * size_of::<Frame>();
        self.open.capacity() + self.closed.memory_bytes() + self.scratch.capacity() + frames
    }

    /// Whether there is nothing that the other side has not taken.
    pub fn is_empty(&self) -> bool {
        self.kept() == 0
    }

    /// Messages that the other side has not taken as far as is known, calls and answers apart.
    pub fn messages(&self) -> u64 {
        self.frames.iter().map(|frame| frame.messages).sum::<u64>() + self.open_messages
    }

    /// Puts a record behind all others; tells the number of the frame that it is in.
    #[inline]
    pub fn put(&mut self, record: &Record<'_>) -> u64 {
        if self.open.len() >= FRAME_BYTES {
            self.close();
        }
        let is_message = matches!(record, Record::Send { .. } | Record::Broadcast { .. });
        self.open_messages += u64::from(is_message);
        record.write(&mut self.open);
        self.number
    }

    /// Whether a part of that frame may have reached the other side.
    pub fn is_touched(&self, number: u64) -> bool {
        number <= self.touched
    }

    /// What is to be written next, or the first of it; closes the open frame when nothing else waits.
    pub fn to_write(&mut self) -> &[u8] {
        if self.written == self.closed.end() {
            if !self.open.is_empty() {
                self.close();
            } else if self.inbound.is_due {
                let head = make_head(0, &[], 0, &mut self.inbound);
                self.closed.push(&head, &[]);
                self.frames.push_back(Frame { number: 0, bytes: HEAD_BYTES, messages: 0 });
            }
        }
        self.closed.rest(self.written)
    }

    /// So many bytes of that were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        assert!(self.written <= self.closed.end(), "no more is written than there is");
        while let Some(frame) = self.frames.get(self.frames_written)
            && self.frames_end + frame.bytes <= self.written
        {
            self.frames_end += frame.bytes;
            self.frames_written += 1;
        }
        // The last frame of which the kernel took a byte: the one that is written in part, or the last whole one.
        let in_part = (self.written > self.frames_end).then_some(self.frames_written);
        let last = in_part.or(self.frames_written.checked_sub(1));
        let number = last.and_then(|place| self.frames.get(place)).map_or(0, |frame| frame.number);
        self.touched = self.touched.max(number);
        self.release();
    }

    /// The other side has taken all frames up to a number.
    ///
    /// # Errors
    /// [`TrunkError::Unsent`]: they were not all sent.
    pub fn acknowledge(&mut self, number: u64) -> Result<(), TrunkError> {
        if number > self.touched {
            return Err(TrunkError::Unsent { number, sent: self.touched });
        }
        if number > self.acknowledged {
            self.acknowledged = number;
            self.release();
        }
        Ok(())
    }

    /// Begins again on a new connection: what the other side has not taken, which is all behind a
    /// number, is written again.
    ///
    /// # Errors
    /// As [`Packer::acknowledge`].
    pub fn resume(&mut self, taken: u64) -> Result<(), TrunkError> {
        // All that was written in part is written again or was taken.
        self.written = self.closed.end();
        self.frames_written = self.frames.len();
        self.frames_end = self.closed.end();
        self.acknowledge(taken)?;
        self.release();
        (self.written, self.frames_written, self.frames_end) = (self.start, 0, self.start);
        // What it was told on its way to the last connection it may not have heard.
        self.inbound = Inbound { taken: self.inbound.taken, ..Inbound::default() };
        Ok(())
    }

    /// The session is over, and another one begins with the frames of which no byte was ever written, which
    /// the other side cannot have: they are numbered from 1 on. Tells what is given up.
    pub fn begin_again(&mut self) -> GivenUp {
        let through = self.touched;
        let mut messages = 0;
        while let Some(frame) = self.frames.front()
            && frame.number <= through
        {
            self.start += frame.bytes;
            messages += frame.messages;
            self.frames.pop_front();
        }
        let mut at = self.start;
        for frame in &mut self.frames {
            frame.number -= through;
            let head =
                self.closed.rest_mut(at).first_chunk_mut().expect("a frame begins with its head");
            number_head(head, frame.number, 0);
            at += frame.bytes;
        }
        self.number -= through;
        (self.written, self.frames_written, self.frames_end) = (self.start, 0, self.start);
        (self.touched, self.acknowledged, self.inbound) = (0, 0, Inbound::default());
        self.release();
        GivenUp { frames: through, messages }
    }

    /// All frames of the other side up to a number were taken, and so many bytes since the last time.
    #[inline]
    pub fn took(&mut self, number: u64, bytes: usize) {
        let inbound = &mut self.inbound;
        inbound.taken = number;
        inbound.untold_bytes += bytes;
        inbound.is_due |= inbound.taken > inbound.told && inbound.untold_bytes >= UNTOLD_MAX;
    }

    /// Frames of both sides that were taken: a connection over which there are no more moved nothing.
    pub fn moved(&self) -> u64 {
        self.acknowledged + self.inbound.taken
    }

    /// Whether the other side is to be told what was taken.
    #[inline]
    pub fn owes(&self) -> bool {
        self.inbound.taken > self.inbound.told
    }

    /// Tells it with the next that is written, or without anything else.
    pub fn tell(&mut self) {
        self.inbound.is_due |= self.owes();
    }

    /// Has something to say at once, be it only what was taken.
    pub fn greet(&mut self) {
        self.inbound.is_due = true;
    }

    /// Gives up what is at the front and was written: it was taken, or says only what was.
    fn release(&mut self) {
        while self.frames_written > 0
            && let Some(frame) = self.frames.front()
            && frame.number <= self.acknowledged
        {
            self.start += frame.bytes;
            self.frames_written -= 1;
            self.frames.pop_front();
        }
        self.closed.give_up(self.start);
        if self.frames.is_empty() {
            self.frames.shrink_to(KEPT_MAX / HEAD_BYTES);
        }
    }

    fn close(&mut self) {
        let compressed = self.compress();
        let body = match compressed {
            Some(bytes) => &self.scratch[..bytes],
            None => &self.open[..],
        };
        let bytes = HEAD_BYTES + body.len();
        let frame = Frame { number: self.number, bytes, messages: self.open_messages };
        let head = make_head(self.number, body, self.open.len(), &mut self.inbound);
        self.closed.push(&head, body);
        self.frames.push_back(frame);
        self.number += 1;
        self.open_messages = 0;
        self.open.clear();
        self.open.shrink_to(KEPT_MAX);
    }

    /// Compresses the open frame into `scratch` when that is worth it; tells its bytes there.
    fn compress(&mut self) -> Option<usize> {
        let plain = self.open.len();
        if plain < COMPRESSED_FROM {
            return None;
        }
        if self.uncompressed > 0 {
            self.uncompressed -= 1;
            return None;
        }
        self.scratch.resize(lz4_flex::block::get_maximum_output_size(plain), 0);
        let compressed = lz4_flex::block::compress_into(&self.open, &mut self.scratch);
        let small = compressed.ok().filter(|bytes| bytes * 5 < plain * 4);
        if small.is_none() {
            self.uncompressed = FRAMES_UNCOMPRESSED;
        }
        small
    }
}

/// The head of a frame, which tells the other side what was taken.
fn make_head(
    number: u64,
    body: &[u8],
    plain_bytes: usize,
    inbound: &mut Inbound,
) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let length = |bytes: usize| u32::try_from(bytes).expect("a frame is below 4 GiB");
    head[..4].copy_from_slice(&length(body.len()).to_le_bytes());
    head[4..8].copy_from_slice(&length(plain_bytes).to_le_bytes());
    head[8..12].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    number_head(&mut head, number, inbound.taken);
    *inbound =
        Inbound { taken: inbound.taken, told: inbound.taken, untold_bytes: 0, is_due: false };
    head
}

/// Writes a frame's number, and the last one that was taken of the other side's, into its head.
fn number_head(head: &mut [u8; HEAD_BYTES], number: u64, taken: u64) {
    head[12..20].copy_from_slice(&number.to_le_bytes());
    head[20..28].copy_from_slice(&taken.to_le_bytes());
    let checksum = crc32fast::hash(&head[..HEAD_BYTES_CHECKED]);
    head[HEAD_BYTES_CHECKED..].copy_from_slice(&checksum.to_le_bytes());
}
