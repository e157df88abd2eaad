//! What travels between two nodes, as bytes; little endian.
//!
//! A frame is a head and a body. The head is length (4 bytes), version (1), kind (1), flags (2, zero),
//! the checksum of the body (4) and, over all that, its own (4). So a length is believed only after
//! its checksum was seen: a flipped bit in it cannot make the reader wait for bytes that never come.
//! The head stays as it is in every version, so that versions can tell each other apart.
//!
//! The body of a frame of messages is one message after the other: length of its own part (4),
//! partition (2), number of shared parts (2); for each of them its length as it travels (4) and its
//! plain length (4), which differ when it is compressed (an LZ4 block); then the bytes of all of
//! them.

use super::{
    hello::{HELLO_BYTES_MAX, Hello, Refusal},
    message::{MESSAGE_HEAD_BYTES, PART_HEAD_BYTES},
    proof::Challenge,
};
use crate::wire::arrivals::Arrivals;

/// The version of everything that nodes say to each other.
pub const VERSION: u8 = 1;
/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 16;
/// A decoder's room; larger only while a larger frame arrives.
const ROOM_BYTES: usize = 64 << 10;
/// A byte of an LZ4 block stands for at most so many bytes, its first few apart.
const LZ4_RATIO_MAX: usize = 255;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// What a node says of itself: the first frame of the one who dials, and its answer.
    Hello = 1,
    /// The last frame: why there is no handshake.
    Refusal,
    /// Messages.
    Messages,
    /// Nothing, so that the other side hears something.
    KeepAlive,
    /// The first frame of the one who listens.
    Challenge,
}

/// Why bytes are no frame; the connection that they came on is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The checksum of a head is wrong.
    #[error("the head of a frame is damaged")]
    Head,
    /// The frame is of another version.
    #[error("a frame of version {0} came, this program speaks version {VERSION}")]
    Version(u8),
    /// No such kind, or flags that are not zero.
    #[error("a frame of an unknown kind came")]
    Kind,
    /// The frame is longer than may be.
    #[error("a frame of {bytes} bytes came, at most {limit} are allowed")]
    TooLong {
        /// What its head declares.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The checksum of a body is wrong.
    #[error("the body of a frame is damaged")]
    Body,
    /// The body is no hello.
    #[error("a hello cannot be read")]
    Hello,
    /// The body is no refusal.
    #[error("a refusal cannot be read")]
    Refusal,
    /// The body is no challenge.
    #[error("a challenge cannot be read")]
    Challenge,
    /// A keepalive has a body.
    #[error("a keepalive cannot be read")]
    KeepAlive,
    /// A message ends behind its frame, or is longer than may be when it is not compressed.
    #[error("a message cannot be read")]
    Message,
    /// A part of a message is no LZ4 block of the declared length.
    #[error("a part of a message cannot be decompressed")]
    Compressed,
}

/// Writes the head of a frame whose body has that length and checksum.
pub fn write_head(head: &mut [u8], kind: Kind, body_bytes: usize, body_checksum: u32) {
    let head = &mut head[..HEAD_BYTES];
    let bytes = u32::try_from(body_bytes).expect("a frame is below 4 GiB");
    head[..4].copy_from_slice(&bytes.to_le_bytes());
    head[4..8].copy_from_slice(&[VERSION, kind as u8, 0, 0]);
    head[8..12].copy_from_slice(&body_checksum.to_le_bytes());
    let checksum = crc32fast::hash(&head[..12]);
    head[12..].copy_from_slice(&checksum.to_le_bytes());
}

/// Appends a frame that is no frame of messages.
pub fn write_small(out: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    let start = out.len();
    out.resize(start + HEAD_BYTES, 0);
    out.extend_from_slice(body);
    write_head(&mut out[start..], kind, body.len(), crc32fast::hash(body));
}

/// A frame that arrived whole and undamaged.
#[derive(Debug)]
pub enum Frame<'a> {
    /// What a node says of itself.
    Hello(Hello),
    /// Why there is no handshake.
    Refusal(Refusal),
    /// Messages.
    Messages(Messages<'a>),
    /// Nothing.
    KeepAlive,
    /// What the hello's proof is to be over.
    Challenge(Challenge),
}

/// Takes frames out of the bytes of a connection, however they are cut.
///
/// Memory grows with what arrived, never with what was declared.
#[derive(Debug)]
pub struct Decoder {
    arrivals: Arrivals,
    body_bytes_max: usize,
    unpacked: Unpacked,
}

impl Decoder {
    /// A decoder of frames whose bodies are at most so long, compressed or not.
    pub fn new(body_bytes_max: usize) -> Self {
        let unpacked = Unpacked::default();
        Self { arrivals: Arrivals::default(), body_bytes_max, unpacked }
    }

    /// A decoder that takes nothing but a handshake, with no more memory than that needs.
    pub fn of_hello() -> Self {
        Self::new(HELLO_BYTES_MAX)
    }

    /// Allows bodies of another length from the next frame on.
    pub fn set_body_bytes_max(&mut self, body_bytes_max: usize) {
        self.body_bytes_max = body_bytes_max;
    }

    /// Bytes of memory that it holds.
    pub fn memory_bytes(&self) -> usize {
        self.arrivals.memory_bytes() + self.unpacked.plain.capacity()
    }

    /// Room for bytes that arrive, never empty after [`Decoder::next_frame`] had no more frames.
    pub fn space(&mut self) -> &mut [u8] {
        self.arrivals.space(ROOM_BYTES, HEAD_BYTES + self.body_bytes_max)
    }

    /// So many bytes of the room were filled.
    pub fn filled(&mut self, bytes: usize) {
        self.arrivals.filled(bytes);
    }

    /// Whether no bytes wait for more.
    pub fn is_empty(&self) -> bool {
        self.arrivals.waiting().is_empty()
    }

    /// The next frame; `None` when more bytes are needed.
    ///
    /// # Errors
    /// The bytes are no frame: nothing that follows them can be read.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let bytes = self.arrivals.waiting();
        let Some(head) = bytes.first_chunk() else { return Ok(None) };
        let (kind, body_bytes, checksum) = read_head(head, self.body_bytes_max)?;
        let Some(body) = bytes.get(HEAD_BYTES..HEAD_BYTES + body_bytes) else { return Ok(None) };
        if crc32fast::hash(body) != checksum {
            return Err(FrameError::Body);
        }
        let taken = self.arrivals.take(HEAD_BYTES + body_bytes);
        let body = &self.arrivals.taken(taken)[HEAD_BYTES..];
        Ok(Some(match kind {
            Kind::Hello => Frame::Hello(Hello::decode(body)?),
            Kind::Refusal => Frame::Refusal(Refusal::decode(body)?),
            Kind::KeepAlive if body.is_empty() => Frame::KeepAlive,
            Kind::KeepAlive => return Err(FrameError::KeepAlive),
            Kind::Challenge => {
                Frame::Challenge(Challenge(body.try_into().map_err(|_| FrameError::Challenge)?))
            }
            Kind::Messages => {
                self.unpacked.shrink();
                let bytes_left = self.body_bytes_max;
                Frame::Messages(Messages { body, bytes_left, unpacked: &mut self.unpacked })
            }
        }))
    }
}

fn read_head(head: &[u8; HEAD_BYTES], limit: usize) -> Result<(Kind, usize, u32), FrameError> {
    if crc32fast::hash(&head[..12]) != u32_at(head, 12) {
        return Err(FrameError::Head);
    }
    if head[4] != VERSION {
        return Err(FrameError::Version(head[4]));
    }
    let kind = match head[5..8] {
        [1, 0, 0] => Kind::Hello,
        [2, 0, 0] => Kind::Refusal,
        [3, 0, 0] => Kind::Messages,
        [4, 0, 0] => Kind::KeepAlive,
        [5, 0, 0] => Kind::Challenge,
        _ => return Err(FrameError::Kind),
    };
    let bytes = u32_at(head, 0) as usize;
    if bytes > limit {
        return Err(FrameError::TooLong { bytes, limit });
    }
    Ok((kind, bytes, u32_at(head, 8)))
}

/// The messages of a frame, one after the other.
#[derive(Debug)]
pub struct Messages<'a> {
    body: &'a [u8],
    /// What the rest of the frame may be long when nothing of it is compressed.
    bytes_left: usize,
    unpacked: &'a mut Unpacked,
}

/// Where the parts of a message lie, and those that were compressed; used again for the next one.
#[derive(Debug, Default)]
struct Unpacked {
    parts: Vec<Part>,
    plain: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    /// Whether it lies among the decompressed ones.
    is_unpacked: bool,
    start: usize,
    bytes: usize,
}

impl Unpacked {
    /// Gives up memory that a large message needed.
    fn shrink(&mut self) {
        if self.plain.capacity() > 4 * ROOM_BYTES {
            self.plain = Vec::new();
        }
    }
}

impl Messages<'_> {
    /// The next message; `None` after the last one.
    ///
    /// # Errors
    /// The frame's sender made a mistake: its checksum was right.
    pub fn next_message(&mut self) -> Result<Option<Received<'_>>, FrameError> {
        if self.body.is_empty() {
            return Ok(None);
        }
        let head = take(&mut self.body, MESSAGE_HEAD_BYTES)?;
        let head_bytes = u32_at(head, 0) as usize;
        let [partition, parts] = [4, 6].map(|at| u16::from_le_bytes([head[at], head[at + 1]]));
        let table = take(&mut self.body, usize::from(parts) * PART_HEAD_BYTES)?;
        let head = take(&mut self.body, head_bytes)?;
        self.allow(MESSAGE_HEAD_BYTES + table.len() + head_bytes)?;
        let rest = self.body;
        self.unpacked.parts.clear();
        self.unpacked.plain.clear();
        for part in table.chunks_exact(PART_HEAD_BYTES) {
            let [travelling, plain] = [0, 4].map(|at| u32_at(part, at) as usize);
            let start = rest.len() - self.body.len();
            let bytes = take(&mut self.body, travelling)?;
            self.allow(plain)?;
            let part = if plain == travelling {
                Part { is_unpacked: false, start, bytes: plain }
            } else {
                self.unpack(bytes, plain)?
            };
            self.unpacked.parts.push(part);
        }
        Ok(Some(Received { partition, head, rest, unpacked: self.unpacked }))
    }

    fn allow(&mut self, bytes: usize) -> Result<(), FrameError> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(FrameError::Message)?;
        Ok(())
    }

    fn unpack(&mut self, compressed: &[u8], bytes: usize) -> Result<Part, FrameError> {
        // What cannot be true is no reason for memory.
        if compressed.len() > bytes || bytes / LZ4_RATIO_MAX > compressed.len() {
            return Err(FrameError::Compressed);
        }
        let plain = &mut self.unpacked.plain;
        let start = plain.len();
        plain.resize(start + bytes, 0);
        match lz4_flex::block::decompress_into(compressed, &mut plain[start..]) {
            Ok(written) if written == bytes => Ok(Part { is_unpacked: true, start, bytes }),
            _ => Err(FrameError::Compressed),
        }
    }
}

/// A message that arrived, in the memory of its connection.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// The partition that it is about.
    pub partition: u16,
    /// Its own part.
    pub head: &'a [u8],
    rest: &'a [u8],
    unpacked: &'a Unpacked,
}

impl<'a> Received<'a> {
    /// Its shared parts, in their order, decompressed.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let Self { rest, unpacked, .. } = *self;
        unpacked.parts.iter().map(move |part| {
            let memory = if part.is_unpacked { &unpacked.plain } else { rest };
            &memory[part.start..part.start + part.bytes]
        })
    }
}

fn take<'a>(from: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], FrameError> {
    let (taken, rest) = from.split_at_checked(bytes).ok_or(FrameError::Message)?;
    *from = rest;
    Ok(taken)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}
