//! Takes records out of the bytes of a connection, however they are cut.

use super::{FRAME_BYTES, HEAD_BYTES, HEAD_BYTES_CHECKED, Record, TrunkError};
use crate::wire::arrivals::Arrivals;

/// The room for bytes that arrive; larger only while a larger frame arrives.
const ROOM_BYTES: usize = 2 * FRAME_BYTES;
/// A byte of an LZ4 block stands for at most so many bytes, its first few apart.
const LZ4_RATIO_MAX: usize = 255;

/// How far the records of a session were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Frames of which all records were taken.
    pub frames: u64,
    /// Records of the next one that were taken.
    pub records: u64,
}

/// Bytes that arrived, and the records in them.
#[derive(Debug)]
pub struct Unpacker {
    arrivals: Arrivals,
    frame_bytes_max: usize,
    /// Bytes that may wait here before nothing is read.
    ahead_bytes_max: usize,
    progress: Progress,
    /// Records of the frame that comes next that were taken on an earlier connection.
    skipped: u64,
    /// Where the first head begins that was not looked at, behind what was taken.
    looked: usize,
    /// The last frame that the other side says it took.
    acknowledged: u64,
    /// The frame whose records are being taken.
    frame: Option<Frame>,
    /// Its bytes when it was compressed.
    plain: Vec<u8>,
    /// Bytes of the record that was read last.
    last: usize,
    /// Bytes of frames that were taken since they were last asked for.
    taken_bytes: usize,
    has_heard: bool,
}

/// A frame that arrived whole.
#[derive(Clone, Copy, Debug)]
struct Frame {
    is_unpacked: bool,
    /// Its records not taken yet, in what waits or in `plain`.
    at: usize,
    end: usize,
    /// Bytes of it that wait until its records are taken,
    arrived: usize,
    /// and all that travelled.
    bytes: usize,
}

/// What stands in front of a frame.
#[derive(Clone, Copy, Debug)]
struct Head {
    travelling: usize,
    plain: usize,
    body_checksum: u32,
    number: u64,
    taken: u64,
}

impl Unpacker {
    /// A decoder of frames whose records together have at most so many bytes, for a connection of a
    /// session whose records were taken so far.
    ///
    /// Bytes are read ahead of the records that are taken, up to `ahead_bytes` and a frame, for what the
    /// other side has taken stands in the heads of its frames: two sides that wait for each other's
    /// records would wait for ever.
    pub fn new(frame_bytes_max: usize, ahead_bytes: usize, progress: Progress) -> Self {
        Self {
            arrivals: Arrivals::default(),
            frame_bytes_max,
            ahead_bytes_max: ahead_bytes + HEAD_BYTES + frame_bytes_max,
            skipped: progress.records,
            progress,
            looked: 0,
            acknowledged: 0,
            frame: None,
            plain: Vec::new(),
            last: 0,
            taken_bytes: 0,
            has_heard: false,
        }
    }

    /// Bytes of memory that it holds.
    pub fn memory_bytes(&self) -> usize {
        self.arrivals.memory_bytes() + self.plain.capacity()
    }

    /// Whether anything came.
    #[inline]
    pub fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// How far records were taken.
    #[inline]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Bytes of frames that were taken since this was last asked.
    #[inline]
    pub fn taken_bytes(&mut self) -> usize {
        std::mem::take(&mut self.taken_bytes)
    }

    /// The last frame that the other side says it took.
    #[inline]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether more may be read; so it is after [`Unpacker::record`] found no more.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.arrivals.waiting().len() < self.ahead_bytes_max
    }

    /// Room for bytes that arrive; the record that was read last is read again afterwards.
    pub fn space(&mut self) -> &mut [u8] {
        self.arrivals.space(ROOM_BYTES, self.ahead_bytes_max)
    }

    /// So many bytes of the room were filled.
    pub fn filled(&mut self, bytes: usize) {
        self.has_heard = true;
        self.arrivals.filled(bytes);
        // A head that is wrong ends the connection when its turn comes.
        while let Some(Ok(head)) = self.arrivals.waiting().get(self.looked..).and_then(Head::read) {
            self.acknowledged = self.acknowledged.max(head.taken);
            self.looked += HEAD_BYTES + head.travelling;
        }
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
                        false => &self.arrivals.waiting()[left],
                    };
                    let (record, bytes) = Record::read(memory)?;
                    self.last = bytes;
                    return Ok(Some(record));
                }
                _ => {}
            }
            if !self.next_frame()? {
                return Ok(None);
            }
        }
    }

    /// The record that was read last is done with.
    #[inline]
    pub fn taken(&mut self) {
        let Some(frame) = &mut self.frame else { return };
        frame.at += std::mem::take(&mut self.last);
        self.progress.records += 1;
        if frame.at >= frame.end {
            self.end_frame();
        }
    }

    /// All records of the frame were taken.
    fn end_frame(&mut self) {
        let Some(frame) = self.frame.take() else { return };
        self.give_up(frame.arrived);
        self.taken_bytes += frame.bytes;
        self.progress = Progress { frames: self.progress.frames + 1, records: 0 };
    }

    /// Bytes that arrived are not needed any more.
    fn give_up(&mut self, bytes: usize) {
        self.arrivals.take(bytes);
        self.looked = self.looked.saturating_sub(bytes);
    }

    /// Finds the next frame whose records are to be taken; `false` when more bytes are needed.
    fn next_frame(&mut self) -> Result<bool, TrunkError> {
        loop {
            let bytes = self.arrivals.waiting();
            let Some(head) = Head::read(bytes).transpose()? else { return Ok(false) };
            let Head { travelling, plain, .. } = head;
            let (longest, limit) = (travelling.max(plain), self.frame_bytes_max);
            if longest > limit {
                return Err(TrunkError::TooLong { bytes: longest, limit });
            }
            let arrived = HEAD_BYTES + travelling;
            let Some(body) = bytes.get(HEAD_BYTES..arrived) else { return Ok(false) };
            if crc32fast::hash(body) != head.body_checksum {
                return Err(TrunkError::Body);
            }
            if head.number <= self.progress.frames {
                // It says only what was taken, or came before over another connection.
                self.give_up(arrived);
                continue;
            }
            let expected = self.progress.frames + 1;
            if head.number != expected {
                return Err(TrunkError::Gap { number: head.number, expected });
            }
            if plain == 0 {
                return Err(TrunkError::Record);
            }
            self.frame = Some(if plain == travelling {
                Frame { is_unpacked: false, at: HEAD_BYTES, end: arrived, arrived, bytes: arrived }
            } else {
                unpack(body, plain, &mut self.plain)?;
                self.give_up(arrived);
                Frame { is_unpacked: true, at: 0, end: plain, arrived: 0, bytes: arrived }
            });
            self.skip()?;
            return Ok(true);
        }
    }

    /// Passes over the records of the frame that were taken on an earlier connection.
    fn skip(&mut self) -> Result<(), TrunkError> {
        let Some(frame) = &mut self.frame else { return Ok(()) };
        for _ in 0..std::mem::take(&mut self.skipped) {
            let left = frame.at..frame.end;
            let memory = match frame.is_unpacked {
                true => &self.plain[left],
                false => &self.arrivals.waiting()[left],
            };
            frame.at += Record::read(memory)?.1;
        }
        Ok(())
    }
}

/// Decompresses the body of a frame.
fn unpack(body: &[u8], bytes: usize, plain: &mut Vec<u8>) -> Result<(), TrunkError> {
    // What cannot be true is no reason for memory.
    if body.len() > bytes || bytes / LZ4_RATIO_MAX > body.len() {
        return Err(TrunkError::Compressed);
    }
    if plain.capacity() > 4 * ROOM_BYTES {
        *plain = Vec::new();
    }
    plain.resize(bytes, 0);
    match lz4_flex::block::decompress_into(body, plain) {
        Ok(written) if written == bytes => Ok(()),
        _ => Err(TrunkError::Compressed),
    }
}

impl Head {
    /// The head at the beginning of `bytes`; `None` when it did not arrive yet.
    #[inline]
    fn read(bytes: &[u8]) -> Option<Result<Self, TrunkError>> {
        let head = bytes.first_chunk::<HEAD_BYTES>()?;
        let short =
            |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let long =
            |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        if crc32fast::hash(&head[..HEAD_BYTES_CHECKED]) != short(HEAD_BYTES_CHECKED) {
            return Some(Err(TrunkError::Head));
        }
        Some(Ok(Self {
            travelling: short(0) as usize,
            plain: short(4) as usize,
            body_checksum: short(8),
            number: long(12),
            taken: long(20),
        }))
    }
}
