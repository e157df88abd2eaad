//! One record: its bytes, and whether they are what was written.
//!
//! A record begins and ends at a multiple of [`UNIT_BYTES`]: a head of so many bytes, the vector, and
//! then the namespace, the key, the text and the metadata one after the other, up to zeros.
//!
//! | bytes | of the head |
//! |---|---|
//! | 0 | checksum of the head's other bytes |
//! | 4 | checksum of what follows the head |
//! | 8 | length of the record |
//! | 12 | kind, bytes of the namespace, of the key (16 bits) |
//! | 16 | sequence: one more than the record before, in all files of a partition |
//! | 24 | sequence of the last record that was known to be on the disk when this one was made |
//! | 32 | hash of namespace and key |
//! | 40 | bytes of the text and one, or zero for none; bytes of the metadata |
//! | 48 | numbers of the vector; place that a moved record was at, and one |
//! | 56 | zeros |
//!
//! Invariants:
//! - Both checksums begin with the file's salt, so that bytes of another file, or of a record inside a
//!   text, are no record here.
//! - The head is readable without the rest: of a damaged record it is known which item it was.
//! - What is on the disk when a record says so is damaged when it cannot be read; what no record
//!   says so of may have been cut off.

use crate::wire::memory::{KEY_BYTES_MAX, NAMESPACE_BYTES_MAX};
use crc32fast::Hasher;

/// Records begin at multiples of this, so that vectors lie as the widest instructions want them.
pub const UNIT_BYTES: usize = 64;
/// Bytes of a head.
pub const HEAD_BYTES: usize = UNIT_BYTES;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An item is there, instead of the one of the same name.
    Put,
    /// An item is there no more.
    Delete,
    /// Everything before is on the disk: the last record of a partition that was closed.
    Seal,
}

impl Kind {
    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Put),
            2 => Some(Self::Delete),
            3 => Some(Self::Seal),
            _ => None,
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Delete => 2,
            Self::Seal => 3,
        }
    }
}

/// What a record is made of.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// What it says.
    pub kind: Kind,
    /// The namespace of the item.
    pub namespace: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Its vector; empty unless it is a put.
    pub vector: &'a [f32],
    /// Its text.
    pub text: Option<&'a str>,
    /// Its metadata.
    pub metadata: &'a [u8],
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the record says.
    pub kind: Kind,
    /// Bytes of the whole record.
    pub length: usize,
    /// The place of the record among all of its partition.
    pub sequence: u64,
    /// The last record that was known to be on the disk.
    pub synced: u64,
    /// The hash of namespace and key.
    pub hash: u64,
    /// The place that it was at before it was moved.
    pub moved_from: Option<u32>,
    checksum: u32,
    namespace_bytes: usize,
    key_bytes: usize,
    text_bytes: Option<usize>,
    metadata_bytes: usize,
    dimensions: usize,
}

/// What a head whose checksum is wrong still says of its record.
///
/// The hash of the names that it leads to is the one that it has, so that it is a record of that item;
/// its other numbers may be what is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// What the record seems to say.
    pub kind: Kind,
    /// Its sequence, if that is not what is damaged.
    pub sequence: u64,
    /// The hash of namespace and key.
    pub hash: u64,
    /// Namespace and key.
    pub name: String,
    /// Bytes of the record, by the lengths of its parts.
    pub length: usize,
}

/// A record whose checksums are right.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its head.
    pub head: Head,
    body: &'a [u8],
}

/// The hash of an item's name. It stands in files: it is the same for ever.
///
/// FNV-1a over both parts and the length of the first, with the last step of SplitMix64 to spread it.
pub fn hash_of(namespace: &str, key: &str) -> u64 {
    let length = [namespace.len() as u8];
    let bytes = length.iter().chain(namespace.as_bytes()).chain(key.as_bytes());
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325, step);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// Bytes that a record takes.
pub fn length_of(content: &Content<'_>) -> usize {
    let text = content.text.map_or(0, str::len);
    let names = content.namespace.len() + content.key.len();
    let body = size_of_val(content.vector) + names + text + content.metadata.len();
    HEAD_BYTES + body.next_multiple_of(UNIT_BYTES)
}

/// What a record says of itself beyond its content.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Its sequence.
    pub sequence: u64,
    /// The last record that is known to be on the disk.
    pub synced: u64,
    /// Where it was before it was moved.
    pub moved_from: Option<u32>,
    /// The salt of the file that it goes to.
    pub salt: u32,
}

/// Appends a record to `out`.
pub fn encode(out: &mut Vec<u8>, content: &Content<'_>, stamp: Stamp) {
    let (start, length) = (out.len(), length_of(content));
    assert!(start.is_multiple_of(UNIT_BYTES), "records begin at whole units");
    let (namespace, key) = (content.namespace.len(), content.key.len());
    assert!(namespace <= usize::from(u8::MAX) && key <= usize::from(u16::MAX));
    out.resize(start + HEAD_BYTES, 0);
    content.vector.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    out.extend_from_slice(content.namespace.as_bytes());
    out.extend_from_slice(content.key.as_bytes());
    out.extend_from_slice(content.text.unwrap_or_default().as_bytes());
    out.extend_from_slice(content.metadata);
    out.resize(start + length, 0);
    let (head, body) = out[start..].split_at_mut(HEAD_BYTES);
    head[4..8].copy_from_slice(&checksum(stamp.salt, body).to_le_bytes());
    head[8..12].copy_from_slice(&(length as u32).to_le_bytes());
    head[12] = content.kind.byte();
    head[13] = namespace as u8;
    head[14..16].copy_from_slice(&(key as u16).to_le_bytes());
    head[16..24].copy_from_slice(&stamp.sequence.to_le_bytes());
    head[24..32].copy_from_slice(&stamp.synced.to_le_bytes());
    head[32..40].copy_from_slice(&hash_of(content.namespace, content.key).to_le_bytes());
    let text = content.text.map_or(0, |text| text.len() as u32 + 1);
    head[40..44].copy_from_slice(&text.to_le_bytes());
    head[44..48].copy_from_slice(&(content.metadata.len() as u32).to_le_bytes());
    head[48..52].copy_from_slice(&(content.vector.len() as u32).to_le_bytes());
    let moved = stamp.moved_from.map_or(0, |place| place + 1);
    head[52..56].copy_from_slice(&moved.to_le_bytes());
    let sum = checksum(stamp.salt, &head[4..]);
    head[..4].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(number(bytes, at)) | u64::from(number(bytes, at + 4)) << 32
}

impl Head {
    /// Reads a head; `None` when the bytes are none that was written to a file with that salt.
    pub fn read(bytes: &[u8], salt: u32) -> Option<Self> {
        let bytes = bytes.get(..HEAD_BYTES)?;
        if checksum(salt, &bytes[4..]) != number(bytes, 0) {
            return None;
        }
        let (text, moved) = (number(bytes, 40), number(bytes, 52));
        let head = Self {
            kind: Kind::of(bytes[12])?,
            length: number(bytes, 8) as usize,
            sequence: long(bytes, 16),
            synced: long(bytes, 24),
            hash: long(bytes, 32),
            moved_from: moved.checked_sub(1),
            checksum: number(bytes, 4),
            namespace_bytes: bytes[13].into(),
            key_bytes: u16::from_le_bytes([bytes[14], bytes[15]]).into(),
            text_bytes: (text as usize).checked_sub(1),
            metadata_bytes: number(bytes, 44) as usize,
            dimensions: number(bytes, 48) as usize,
        };
        let is_whole = head.length.is_multiple_of(UNIT_BYTES) && head.end() <= head.length;
        is_whole.then_some(head)
    }

    /// Reads the record whose head this is; `None` when its bytes are not what was written.
    pub fn record<'a>(&self, bytes: &'a [u8], salt: u32) -> Option<Record<'a>> {
        let body = bytes.get(HEAD_BYTES..self.length)?;
        let is_well = checksum(salt, body) == self.checksum;
        let record = Record { head: *self, body };
        (is_well && record.has_text()).then_some(record)
    }

    /// The bytes of the vector, from the record's begin.
    pub fn vector_range(&self) -> std::ops::Range<usize> {
        HEAD_BYTES..HEAD_BYTES + self.dimensions * size_of::<f32>()
    }

    /// The bytes of namespace and key, from the record's begin.
    pub fn names_range(&self) -> std::ops::Range<usize> {
        let start = self.vector_range().end;
        start..start + self.namespace_bytes + self.key_bytes
    }

    /// Bytes of the namespace.
    pub fn namespace_bytes(&self) -> usize {
        self.namespace_bytes
    }

    /// Whether the item was stored as a text.
    pub fn is_of_text(&self) -> bool {
        self.text_bytes.is_some()
    }

    /// Numbers of the vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn end(&self) -> usize {
        let text = self.text_bytes.unwrap_or(0);
        let names = self.namespace_bytes + self.key_bytes;
        self.vector_range().end.saturating_add(names + text).saturating_add(self.metadata_bytes)
    }

    /// Namespace and key of a record whose checksum is wrong, as far as they can be read.
    pub fn guess_name(&self, bytes: &[u8]) -> String {
        let start = self.vector_range().end;
        let end = start + self.namespace_bytes + self.key_bytes;
        let names = bytes.get(start..end).unwrap_or_default();
        let (namespace, key) = names.split_at(self.namespace_bytes.min(names.len()));
        format!("{}/{}", String::from_utf8_lossy(namespace), String::from_utf8_lossy(key))
    }
}

impl Guess {
    /// Bytes behind a head within which the names are.
    pub const fn names_within(dimensions: usize) -> usize {
        dimensions * size_of::<f32>() + NAMESPACE_BYTES_MAX + KEY_BYTES_MAX
    }

    /// Looks at bytes that should begin with a head; nothing when they do not say which item it was.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEAD_BYTES)?;
        let numbers = number(head, 48) as usize;
        let (namespace, key) =
            (usize::from(head[13]), usize::from(head[14]) | usize::from(head[15]) << 8);
        let start = HEAD_BYTES.checked_add(numbers.checked_mul(size_of::<f32>())?)?;
        let names = bytes.get(start..start.checked_add(namespace + key)?)?;
        let (namespace, key) = names.split_at(namespace);
        let (namespace, key) =
            (std::str::from_utf8(namespace).ok()?, std::str::from_utf8(key).ok()?);
        let hash = long(head, 32);
        // Items have names, seals have none.
        let is_seal = namespace.is_empty() && key.is_empty() && numbers == 0;
        if (namespace.is_empty() || key.is_empty()) && !is_seal || hash_of(namespace, key) != hash {
            return None;
        }
        let more = (number(head, 40) as usize).saturating_sub(1) + number(head, 44) as usize;
        Some(Self {
            kind: match numbers {
                0 if is_seal => Kind::Seal,
                0 => Kind::Delete,
                _ => Kind::Put,
            },
            sequence: long(head, 16),
            hash,
            name: format!("{namespace}/{key}"),
            length: HEAD_BYTES
                + (start - HEAD_BYTES + names.len() + more).next_multiple_of(UNIT_BYTES),
        })
    }
}

impl<'a> Record<'a> {
    fn part(&self, start: usize, bytes: usize) -> &'a [u8] {
        &self.body[start..start + bytes]
    }

    fn names_at(&self) -> usize {
        self.head.vector_range().end - HEAD_BYTES
    }

    /// Whether all text is text: what is asked of a record once, when it is read.
    fn has_text(&self) -> bool {
        let Head { namespace_bytes, key_bytes, text_bytes, .. } = self.head;
        let names = namespace_bytes + key_bytes;
        let text = self.part(self.names_at(), names + text_bytes.unwrap_or(0));
        let (namespace, rest) = text.split_at(namespace_bytes);
        let (key, text) = rest.split_at(key_bytes);
        [namespace, key, text].iter().all(|part| std::str::from_utf8(part).is_ok())
    }

    fn text_part(&self, start: usize, bytes: usize) -> &'a str {
        std::str::from_utf8(self.part(start, bytes)).expect("it was text when it was read")
    }

    /// The namespace of the item.
    pub fn namespace(&self) -> &'a str {
        self.text_part(self.names_at(), self.head.namespace_bytes)
    }

    /// The key of the item.
    pub fn key(&self) -> &'a str {
        self.text_part(self.names_at() + self.head.namespace_bytes, self.head.key_bytes)
    }

    fn text_at(&self) -> usize {
        self.names_at() + self.head.namespace_bytes + self.head.key_bytes
    }

    /// The text of the item.
    pub fn text(&self) -> Option<&'a str> {
        self.head.text_bytes.map(|bytes| self.text_part(self.text_at(), bytes))
    }

    /// The metadata of the item.
    pub fn metadata(&self) -> &'a [u8] {
        let start = self.text_at() + self.head.text_bytes.unwrap_or(0);
        self.part(start, self.head.metadata_bytes)
    }

    /// The vector of the item.
    pub fn vector(&self) -> Vec<f32> {
        let bytes = self.part(0, self.names_at());
        let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        bytes.chunks_exact(size_of::<f32>()).map(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { sequence: 7, synced: 5, moved_from: Some(0), salt: 9 };

    fn content() -> Content<'static> {
        Content {
            kind: Kind::Put,
            namespace: "space",
            key: "key",
            vector: &[1.0, -2.5, 3.0],
            text: Some("what it stands for"),
            metadata: &[0x80],
        }
    }

    #[test]
    fn a_record_says_what_it_was_made_of() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &content(), STAMP);
        assert_eq!(bytes.len(), length_of(&content()));
        let head = Head::read(&bytes, 9).unwrap();
        assert_eq!((head.sequence, head.synced, head.moved_from), (7, 5, Some(0)));
        assert_eq!(head.hash, hash_of("space", "key"));
        let record = head.record(&bytes, 9).unwrap();
        assert_eq!((record.namespace(), record.key()), ("space", "key"));
        assert_eq!(record.text(), Some("what it stands for"));
        assert_eq!((record.vector(), record.metadata()), (vec![1.0, -2.5, 3.0], &[0x80][..]));
    }

    #[test]
    fn no_flipped_bit_and_no_other_salt_passes() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &content(), STAMP);
        assert!(Head::read(&bytes, 8).is_none());
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = Head::read(&bytes, 9).and_then(|head| head.record(&bytes, 9).map(drop));
            assert!(read.is_none(), "bit {bit} was flipped and nobody saw it");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn no_text_is_not_an_empty_text() {
        for text in [None, Some("")] {
            let mut bytes = Vec::new();
            encode(&mut bytes, &Content { text, ..content() }, STAMP);
            let head = Head::read(&bytes, 9).unwrap();
            assert_eq!(head.record(&bytes, 9).unwrap().text(), text);
        }
    }

    #[test]
    fn a_damaged_head_leads_to_the_names_or_to_none() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &content(), STAMP);
        let length = bytes.len();
        let whole = Guess::of(&bytes).expect("it is whole");
        assert_eq!((&*whole.name, whole.sequence, whole.length), ("space/key", 7, length));
        assert_eq!((whole.kind, whole.hash), (Kind::Put, hash_of("space", "key")));
        let mut named = 0;
        for bit in 0..HEAD_BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Some(guess) = Guess::of(&bytes) {
                assert_eq!((&*guess.name, guess.hash), (&*whole.name, whole.hash), "bit {bit}");
                named += 1;
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        // All but the lengths of the names, the number of numbers and the hash.
        assert!(named >= (HEAD_BYTES - 3 - 4 - 8) * 8, "{named}");
        assert_eq!(Guess::of(&[0; 256]), None);
        assert_eq!(Guess::of(&[0xff; 256]), None);
    }

    #[test]
    fn one_name_is_not_another_whose_parts_are_split_elsewhere() {
        assert_ne!(hash_of("a", "bc"), hash_of("ab", "c"));
    }

    #[test]
    fn the_hash_of_a_name_never_changes() {
        assert_eq!(hash_of("default", "key"), 0x9a4b_d49d_36f4_b2dd);
    }
}
