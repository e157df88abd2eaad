//! Puts records into frames.

use super::{FRAME_BYTES, HEAD_BYTES, Record};

/// Bodies below this many bytes are not compressed.
const COMPRESSED_FROM: usize = 1024;
/// Frames that go uncompressed after one that did not become small enough.
const FRAMES_UNCOMPRESSED: u32 = 15;
/// What an empty buffer may keep for the next burst, bytes.
const KEPT_MAX: usize = 4 * FRAME_BYTES;

/// Records on their way out: those of the open frame, and the bytes of closed ones.
#[derive(Debug, Default)]
pub struct Packer {
    /// Records of the frame that is not closed yet.
    open: Vec<u8>,
    /// Closed frames.
    closed: Vec<u8>,
    /// Bytes of `closed` that were written.
    written: usize,
    /// Frames that are not worth an attempt to compress them.
    uncompressed: u32,
    scratch: Vec<u8>,
}

impl Packer {
    /// Bytes that wait, before compression where they are not compressed yet.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.open.len() + self.closed.len() - self.written
    }

    /// Bytes of memory that it holds.
    pub fn memory_bytes(&self) -> usize {
        self.open.capacity() + self.closed.capacity() + self.scratch.capacity()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// Puts a record behind all others.
    #[inline]
    pub fn put(&mut self, record: &Record<'_>) {
        if self.open.len() >= FRAME_BYTES {
            self.close();
        }
        record.write(&mut self.open);
    }

    /// What is to be written next; closes the open frame when nothing else waits.
    pub fn to_write(&mut self) -> &[u8] {
        if self.written == self.closed.len() {
            self.closed.clear();
            self.written = 0;
            self.closed.shrink_to(KEPT_MAX);
            if !self.open.is_empty() {
                self.close();
            }
        }
        &self.closed[self.written..]
    }

    /// So many bytes of that were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        assert!(self.written <= self.closed.len(), "no more is written than there is");
        // A connection that always has something to write never empties the buffer.
        if self.written >= KEPT_MAX && 2 * self.written >= self.closed.len() {
            self.closed.drain(..self.written);
            self.written = 0;
        }
    }

    /// Forgets everything: the connection is over.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn close(&mut self) {
        let plain_bytes = self.open.len();
        let compressed = self.compress();
        let body = match compressed {
            Some(bytes) => &self.scratch[..bytes],
            None => &self.open[..],
        };
        let mut head = [0; HEAD_BYTES];
        let number = |bytes: usize| u32::try_from(bytes).expect("a frame is below 4 GiB");
        head[..4].copy_from_slice(&number(body.len()).to_le_bytes());
        head[4..8].copy_from_slice(&number(plain_bytes).to_le_bytes());
        head[8..12].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        let checksum = crc32fast::hash(&head[..12]);
        head[12..].copy_from_slice(&checksum.to_le_bytes());
        self.closed.extend_from_slice(&head);
        self.closed.extend_from_slice(body);
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
