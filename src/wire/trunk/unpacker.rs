//! Takes records out of the bytes of a connection, however they are cut.

use super::{FRAME_BYTES, HEAD_BYTES, Record, TrunkError};
use crate::wire::arrivals::Arrivals;

/// The room for bytes that arrive; larger only while a larger frame arrives.
const ROOM_BYTES: usize = 2 * FRAME_BYTES;
/// A byte of an LZ4 block stands for at most so many bytes, its first few apart.
const LZ4_RATIO_MAX: usize = 255;

/// Bytes that arrived, and the records in them.
#[derive(Debug)]
pub struct Unpacker {
    arrivals: Arrivals,
    frame_bytes_max: usize,
    /// The frame whose records are being taken.
    frame: Option<Frame>,
    /// Its bytes when it was compressed.
    plain: Vec<u8>,
    /// Bytes of the record that was read last.
    last: usize,
}

/// A frame that arrived whole.
#[derive(Clone, Copy, Debug)]
struct Frame {
    is_unpacked: bool,
    /// Its records not taken yet, in `buffer` or in `plain`.
    at: usize,
    end: usize,
}

impl Unpacker {
    /// A decoder of frames whose records together have at most so many bytes.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self {
            arrivals: Arrivals::default(),
            frame_bytes_max,
            frame: None,
            plain: Vec::new(),
            last: 0,
        }
    }

    /// Bytes of memory that it holds.
    pub fn memory_bytes(&self) -> usize {
        self.arrivals.memory_bytes() + self.plain.capacity()
    }

    /// Room for bytes that arrive; there is some after [`Unpacker::record`] found no more.
    pub fn space(&mut self) -> &mut [u8] {
        self.arrivals.space(ROOM_BYTES, HEAD_BYTES + self.frame_bytes_max)
    }

    /// So many bytes of the room were filled.
    pub fn filled(&mut self, bytes: usize) {
        self.arrivals.filled(bytes);
    }

    /// The next record, the same one until it was [taken](Unpacker::taken); `None` when more bytes are
    /// needed.
    ///
    /// # Errors
    /// The bytes are no frame of records: nothing that follows them can be read.
    #[inline]
    pub fn record(&mut self) -> Result<Option<Record<'_>>, TrunkError> {
        loop {
            match self.frame {
                Some(frame) if frame.at < frame.end => {
                    let left = frame.at..frame.end;
                    let memory = match frame.is_unpacked {
                        true => &self.plain[left],
                        false => self.arrivals.taken(left),
                    };
                    let (record, bytes) = Record::read(memory)?;
                    self.last = bytes;
                    return Ok(Some(record));
                }
                _ => {}
            }
            self.frame = self.next_frame()?;
            if self.frame.is_none() {
                return Ok(None);
            }
        }
    }

    /// The record that was read last is done with.
    #[inline]
    pub fn taken(&mut self) {
        if let Some(frame) = &mut self.frame {
            frame.at += std::mem::take(&mut self.last);
        }
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, TrunkError> {
        let bytes = self.arrivals.waiting();
        let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let number =
            |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        if crc32fast::hash(&head[..12]) != number(12) {
            return Err(TrunkError::Head);
        }
        let (travelling, plain) = (number(0) as usize, number(4) as usize);
        let (longest, limit) = (travelling.max(plain), self.frame_bytes_max);
        if longest > limit {
            return Err(TrunkError::TooLong { bytes: longest, limit });
        }
        let Some(body) = bytes.get(HEAD_BYTES..HEAD_BYTES + travelling) else { return Ok(None) };
        if crc32fast::hash(body) != number(8) {
            return Err(TrunkError::Body);
        }
        let taken = self.arrivals.take(HEAD_BYTES + travelling);
        let (at, end) = (taken.start + HEAD_BYTES, taken.end);
        if plain == travelling {
            return Ok(Some(Frame { is_unpacked: false, at, end }));
        }
        // What cannot be true is no reason for memory.
        if travelling > plain || plain / LZ4_RATIO_MAX > travelling {
            return Err(TrunkError::Compressed);
        }
        if self.plain.capacity() > 4 * ROOM_BYTES {
            self.plain = Vec::new();
        }
        self.plain.resize(plain, 0);
        let body = self.arrivals.taken(at..end);
        match lz4_flex::block::decompress_into(body, &mut self.plain) {
            Ok(written) if written == plain => {
                Ok(Some(Frame { is_unpacked: true, at: 0, end: plain }))
            }
            _ => Err(TrunkError::Compressed),
        }
    }
}
