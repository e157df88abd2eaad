//! The bytes of a datagram.
//!
//! ```text
//! version · cluster · sender · its generation · its incarnation · goodbye · section · section · …
//! ```
//!
//! Numbers are LEB128, but for hashes. What comes is read as a whole before anything of it is
//! believed; nothing is allocated in proportion to a number that it only declares.

use super::{
    NodeId,
    counters::Kind,
    entries::{KEY_BYTES_MAX, VALUE_BYTES_MAX, Version},
    record::{Claim, Record, Status},
    roster::BUCKETS,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Most bytes of a header.
pub const HEADER_BYTES_MAX: usize = 1 + 4 + 3 * NUMBER_BYTES_MAX + 1;
/// Most bytes of a delta without its changes.
pub const DELTA_BYTES_MAX: usize = 1 + 3 * NUMBER_BYTES_MAX + 1 + 19 + 5 * NUMBER_BYTES_MAX;
/// Most bytes of a change.
pub const CHANGE_BYTES_MAX: usize = NUMBER_BYTES_MAX + 1 + KEY_BYTES_MAX + 2 + VALUE_BYTES_MAX;
/// Most bytes of a digest without what is known.
pub const DIGEST_BYTES_MAX: usize = 1 + 16 + NUMBER_BYTES_MAX;
/// Most bytes of what is known of one node.
pub const KNOWN_BYTES_MAX: usize = 4 * NUMBER_BYTES_MAX + 1 + 4;
/// Bytes of a section, mostly; decides only how much memory is asked for at once.
const SECTION_BYTES: usize = 24;
/// Most bytes of a number.
const NUMBER_BYTES_MAX: usize = 10;

/// The first byte of every datagram: this encoding's number.
pub const VERSION: u8 = 0xc1;

/// Bytes that no node sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Who sent a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number of its cluster.
    pub cluster: u32,
    /// Which node.
    pub sender: NodeId,
    /// What it says of itself: alive or left.
    pub claim: Claim,
}

/// A change of a node's map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Its version.
    pub version: Version,
    /// The key.
    pub key: &'a [u8],
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// What a node's record has that another's may lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta<'a> {
    /// Of which node.
    pub node: NodeId,
    /// What is said of it.
    pub claim: Claim,
    /// Where it listens.
    pub address: SocketAddr,
    /// It happened lately: whoever did not know it passes it on.
    pub is_fresh: bool,
    /// The sender has more and waits to be asked for it.
    pub is_cut: bool,
    /// Versions at or below it have lost their tombstones.
    pub floor: Version,
    /// All changes above it,
    pub from: Version,
    /// up to it are here.
    pub to: Version,
    /// The version that the sender knows.
    pub latest: Version,
    /// Ascending by version.
    pub changes: Vec<Change<'a>>,
}

/// What a node knows of another, in a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Of which node.
    pub node: NodeId,
    /// What stands.
    pub claim: Claim,
    /// Up to which version.
    pub version: Version,
    /// Identifies its entries, in half of the bits.
    pub check: u32,
}

/// Asks for what lies above a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Of which node.
    pub node: NodeId,
    /// Of which life.
    pub generation: u64,
    /// What is known already.
    pub version: Version,
    /// The floor of what is known.
    pub floor: Version,
}

/// A part of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section<'a> {
    /// Whether the receiver lives and knows something new.
    Ask {
        /// What the answer repeats.
        nonce: u32,
        /// Identifies all that the sender knows.
        root: u64,
        /// Identify news that the sender has, four bytes each.
        news: &'a [u8],
    },
    /// The receiver lives.
    Answer {
        /// What the question said.
        nonce: u32,
        /// Identifies all that the sender knows.
        root: u64,
    },
    /// News of a node.
    Delta(Delta<'a>),
    /// A sum of each bucket, four bytes each: the receiver sends digests of those that differ.
    Buckets(&'a [u8]),
    /// All that the sender knows of the nodes of a part of the ring: the receiver sends what is newer
    /// and asks for what is older.
    Digest {
        /// The first place.
        first: u64,
        /// The last one.
        last: u64,
        /// Every node in it.
        known: Vec<Known>,
    },
    /// Asks for deltas.
    Want(Want),
}

const ASK: u8 = 1;
const ANSWER: u8 = 2;
const DELTA: u8 = 3;
const BUCKET_SUMS: u8 = 4;
const DIGEST: u8 = 5;
const WANT: u8 = 6;

/// Appends a number.
pub fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_address(bytes: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(4);
            bytes.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(6);
            bytes.extend_from_slice(&ip.octets());
        }
    }
    bytes.extend_from_slice(&address.port().to_le_bytes());
}

fn put_claim(bytes: &mut Vec<u8>, claim: Claim) {
    put(bytes, claim.generation);
    put(bytes, claim.incarnation - claim.generation);
}

impl Header {
    /// Appends it.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.cluster.to_le_bytes());
        put(bytes, self.sender);
        put_claim(bytes, self.claim);
        bytes.push(u8::from(self.claim.status == Status::Left));
    }
}

impl Change<'_> {
    /// Appends it; versions are written as steps from the one before.
    pub fn write(&self, bytes: &mut Vec<u8>, before: Version) {
        put(bytes, self.version - before);
        bytes.push(self.key.len() as u8);
        bytes.extend_from_slice(self.key);
        put(bytes, self.value.map_or(0, |value| value.len() as u64 + 1));
        bytes.extend_from_slice(self.value.unwrap_or_default());
    }
}

impl Delta<'_> {
    /// Appends it with changes that are written already.
    pub fn write(&self, bytes: &mut Vec<u8>, count: usize, changes: &[u8]) {
        bytes.push(DELTA);
        put(bytes, self.node);
        put_claim(bytes, self.claim);
        bytes.push(
            self.claim.status as u8 | u8::from(self.is_cut) << 7 | u8::from(self.is_fresh) << 6,
        );
        put_address(bytes, self.address);
        put(bytes, self.floor);
        put(bytes, self.from);
        put(bytes, self.to - self.from);
        put(bytes, self.latest - self.to);
        put(bytes, count as u64);
        bytes.extend_from_slice(changes);
    }
}

impl Known {
    /// What a record says.
    pub fn of(record: Record<'_>) -> Self {
        let check = record.check();
        let check = (check ^ check >> 32) as u32;
        Self { node: record.node, claim: record.claim, version: record.version(), check }
    }

    /// Appends it.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        put(bytes, self.node);
        put_claim(bytes, self.claim);
        bytes.push(self.claim.status as u8);
        put(bytes, self.version);
        bytes.extend_from_slice(&self.check.to_le_bytes());
    }
}

impl Section<'_> {
    /// What its bytes are for.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Ask { .. } => Kind::Ask,
            Self::Answer { .. } => Kind::Answer,
            Self::Delta(_) => Kind::Delta,
            Self::Buckets(_) => Kind::Buckets,
            Self::Digest { .. } => Kind::Digest,
            Self::Want(_) => Kind::Want,
        }
    }

    /// Appends it.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Ask { nonce, root, news } => {
                bytes.push(ASK);
                bytes.extend_from_slice(&nonce.to_le_bytes());
                bytes.extend_from_slice(&root.to_le_bytes());
                put(bytes, news.len() as u64 / 4);
                bytes.extend_from_slice(news);
            }
            Self::Answer { nonce, root } => {
                bytes.push(ANSWER);
                bytes.extend_from_slice(&nonce.to_le_bytes());
                bytes.extend_from_slice(&root.to_le_bytes());
            }
            Self::Delta(delta) => {
                let (mut changes, mut before) = (Vec::new(), delta.from);
                for change in &delta.changes {
                    change.write(&mut changes, before);
                    before = change.version;
                }
                delta.write(bytes, delta.changes.len(), &changes);
            }
            Self::Buckets(sums) => {
                bytes.push(BUCKET_SUMS);
                bytes.extend_from_slice(sums);
            }
            Self::Digest { first, last, known } => {
                bytes.push(DIGEST);
                bytes.extend_from_slice(&first.to_le_bytes());
                bytes.extend_from_slice(&last.to_le_bytes());
                put(bytes, known.len() as u64);
                known.iter().for_each(|known| known.write(bytes));
            }
            Self::Want(want) => {
                bytes.push(WANT);
                put(bytes, want.node);
                put(bytes, want.generation);
                put(bytes, want.version);
                put(bytes, want.floor);
            }
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Malformed> {
        Ok(self.bytes(COUNT)?.try_into().expect("as many bytes as asked"))
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            // The tenth byte holds one bit.
            if shift == 63 && byte > 1 {
                return Err(Malformed);
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    /// A number of things of which each has at least so many bytes.
    fn count(&mut self, bytes_each: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        if count <= self.0.len() / bytes_each { Ok(count) } else { Err(Malformed) }
    }

    /// A number that is written as the distance from a lower one.
    fn above(&mut self, lower: u64) -> Result<u64, Malformed> {
        lower.checked_add(self.number()?).ok_or(Malformed)
    }

    fn claim(&mut self) -> Result<(u64, u64), Malformed> {
        let generation = self.number()?;
        Ok((generation, self.above(generation)?))
    }

    fn address(&mut self) -> Result<SocketAddr, Malformed> {
        let ip = match self.byte()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => return Err(Malformed),
        };
        Ok(SocketAddr::new(ip, u16::from_le_bytes(self.array()?)))
    }

    fn header(&mut self) -> Result<Header, Malformed> {
        if self.byte()? != VERSION {
            return Err(Malformed);
        }
        let cluster = u32::from_le_bytes(self.array()?);
        let sender = self.number()?;
        let (generation, incarnation) = self.claim()?;
        let status = match self.byte()? {
            0 => Status::Alive,
            1 => Status::Left,
            _ => return Err(Malformed),
        };
        Ok(Header { cluster, sender, claim: Claim { incarnation, generation, status } })
    }

    fn change(&mut self, before: Version, to: Version) -> Result<Change<'a>, Malformed> {
        let version = self.above(before)?;
        let key_bytes = usize::from(self.byte()?);
        if version == before || version > to || !(1..=KEY_BYTES_MAX).contains(&key_bytes) {
            return Err(Malformed);
        }
        let key = self.bytes(key_bytes)?;
        let value = match usize::try_from(self.number()?).map_err(|_| Malformed)? {
            0 => None,
            bytes if bytes > VALUE_BYTES_MAX + 1 => return Err(Malformed),
            bytes => Some(self.bytes(bytes - 1)?),
        };
        Ok(Change { version, key, value })
    }

    fn delta(&mut self) -> Result<Delta<'a>, Malformed> {
        let node = self.number()?;
        let (generation, incarnation) = self.claim()?;
        let flags = self.byte()?;
        let status = Status::of(flags & 0x3f).ok_or(Malformed)?;
        let address = self.address()?;
        let floor = self.number()?;
        let from = self.number()?;
        let to = self.above(from)?;
        let latest = self.above(to)?;
        let count = self.count(4)?;
        let (mut changes, mut before) = (Vec::with_capacity(count), from);
        for _ in 0..count {
            let change = self.change(before, to)?;
            before = change.version;
            changes.push(change);
        }
        let claim = Claim { incarnation, generation, status };
        if floor > latest {
            return Err(Malformed);
        }
        let (is_cut, is_fresh) = (flags >> 7 & 1 == 1, flags >> 6 & 1 == 1);
        Ok(Delta { node, claim, address, is_fresh, is_cut, floor, from, to, latest, changes })
    }

    fn digest(&mut self) -> Result<Section<'a>, Malformed> {
        let (first, last) = (u64::from_le_bytes(self.array()?), u64::from_le_bytes(self.array()?));
        let count = self.count(9)?;
        let mut known = Vec::with_capacity(count);
        for _ in 0..count {
            let node = self.number()?;
            let (generation, incarnation) = self.claim()?;
            let status = Status::of(self.byte()?).ok_or(Malformed)?;
            let claim = Claim { incarnation, generation, status };
            let version = self.number()?;
            known.push(Known { node, claim, version, check: u32::from_le_bytes(self.array()?) });
        }
        if first > last { Err(Malformed) } else { Ok(Section::Digest { first, last, known }) }
    }

    fn section(&mut self) -> Result<Section<'a>, Malformed> {
        Ok(match self.byte()? {
            ASK => {
                let nonce = u32::from_le_bytes(self.array()?);
                let root = u64::from_le_bytes(self.array()?);
                let count = self.count(4)?;
                Section::Ask { nonce, root, news: self.bytes(count * 4)? }
            }
            ANSWER => Section::Answer {
                nonce: u32::from_le_bytes(self.array()?),
                root: u64::from_le_bytes(self.array()?),
            },
            DELTA => Section::Delta(self.delta()?),
            BUCKET_SUMS => Section::Buckets(self.bytes(BUCKETS * 4)?),
            DIGEST => self.digest()?,
            WANT => Section::Want(Want {
                node: self.number()?,
                generation: self.number()?,
                version: self.number()?,
                floor: self.number()?,
            }),
            _ => return Err(Malformed),
        })
    }
}

/// Reads a datagram without its seal.
///
/// # Errors
/// Any of its bytes is not what a node sends.
pub fn read(bytes: &[u8]) -> Result<(Header, Vec<Section<'_>>), Malformed> {
    let mut reader = Reader(bytes);
    let header = reader.header()?;
    let mut sections = Vec::with_capacity(1 + reader.0.len() / SECTION_BYTES);
    while !reader.0.is_empty() {
        sections.push(reader.section()?);
    }
    Ok((header, sections))
}
