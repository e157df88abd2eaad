//! Bytes of a connection that arrived and are not taken yet.
//!
//! Memory grows with what arrived, never with what was declared, and shrinks when all is taken.

use std::ops::Range;

/// A buffer that is filled at its end and taken from at its beginning.
#[derive(Debug, Default)]
pub struct Arrivals {
    buffer: Vec<u8>,
    /// What is not taken yet is `buffer[start..end]`.
    start: usize,
    end: usize,
}

impl Arrivals {
    /// Bytes of memory that it holds.
    pub fn memory_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// What is not taken yet.
    #[inline]
    pub fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Room for bytes that arrive, at least half of `room`; a frame has at most `frame_bytes`, so that
    /// there is some whenever no whole one waits.
    pub fn space(&mut self, room: usize, frame_bytes: usize) -> &mut [u8] {
        let room = room.min(frame_bytes);
        let waiting = self.end - self.start;
        if waiting == 0 {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > 4 * room {
                self.buffer = Vec::new();
            }
        }
        if self.buffer.len() - self.end < room.div_ceil(2) {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, waiting);
            if self.buffer.len() - waiting < room.div_ceil(2) {
                let most = frame_bytes + room;
                self.buffer.resize((2 * self.buffer.len()).clamp(room, most), 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes of the room were filled.
    pub fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// Takes bytes that wait; tells where they lie until [`Arrivals::space`] is asked for again.
    #[inline]
    pub fn take(&mut self, bytes: usize) -> Range<usize> {
        let taken = self.start..self.start + bytes;
        assert!(taken.end <= self.end, "no more is taken than there is");
        self.start = taken.end;
        taken
    }

    /// Bytes that were taken.
    #[inline]
    pub fn taken(&self, place: Range<usize>) -> &[u8] {
        &self.buffer[place]
    }
}
