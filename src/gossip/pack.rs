//! Sections into datagrams: as few as will do, none above the limit, and no more than allowed.

use super::{
    Settings,
    counters::Kind,
    datagram::{
        CHANGE_BYTES_MAX, Change, DELTA_BYTES_MAX, DIGEST_BYTES_MAX, Delta, HEADER_BYTES_MAX,
        Header, KNOWN_BYTES_MAX, Known, Section,
    },
    entries::Version,
    record::{Claim, Record, mix},
    seal::{SEAL_BYTES, Seal},
    settings::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN},
};

// Into a new datagram of any allowed size at least one change fits, and something of a digest.
const _: () = assert!(
    HEADER_BYTES_MAX + DELTA_BYTES_MAX + CHANGE_BYTES_MAX + SEAL_BYTES <= DATAGRAM_BYTES_MIN
);

/// Bytes that are sent, and what they are for.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// All of them.
    pub bytes: Vec<u8>,
    /// How many are for what, by the place in [`Kind::ALL`].
    pub of: [u16; Kind::ALL.len()],
}

const _: () = assert!(DATAGRAM_BYTES_MAX <= u16::MAX as usize);

impl Datagram {
    /// Appends bytes for something.
    fn write(&mut self, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.of[kind as usize] += (self.bytes.len() - before) as u16;
    }
}

/// Datagrams in the making.
pub struct Pack {
    empty: Datagram,
    bytes_max: usize,
    datagrams_max: usize,
    datagrams: Vec<Datagram>,
    left_out: bool,
}

impl Pack {
    /// At most so many datagrams with a header.
    pub fn new(header: &Header, settings: &Settings, seal: &Seal, datagrams_max: usize) -> Self {
        let bytes = Vec::with_capacity(HEADER_BYTES_MAX);
        let mut empty = Datagram { bytes, of: [0; Kind::ALL.len()] };
        empty.write(Kind::Envelope, |bytes| header.write(bytes));
        Self {
            empty,
            bytes_max: settings.datagram - seal.bytes(),
            datagrams_max,
            datagrams: Vec::new(),
            left_out: false,
        }
    }

    /// The last datagram, when it has room for so many bytes, or a new one.
    fn with_room(&mut self, bytes: usize) -> Option<&mut Datagram> {
        let has_room = self.room() >= bytes;
        if !has_room {
            if self.datagrams.len() >= self.datagrams_max {
                self.left_out = true;
                return None;
            }
            self.datagrams.push(self.empty.clone());
        }
        self.datagrams.last_mut()
    }

    fn room(&self) -> usize {
        self.datagrams.last().map_or(0, |last| self.bytes_max - last.bytes.len())
    }

    /// Adds a section that is short; false when there is no room.
    pub fn add(&mut self, section: &Section<'_>) -> bool {
        let mut bytes = Vec::new();
        section.write(&mut bytes);
        let Some(datagram) = self.with_room(bytes.len()) else { return false };
        datagram.write(section.kind(), |datagram| datagram.extend_from_slice(&bytes));
        true
    }

    /// Adds what is said of a node and its changes above a version, as far as there is room; false
    /// when nothing was added.
    pub fn add_delta(&mut self, record: Record<'_>, since: Version, is_fresh: bool) -> bool {
        let known = record.version();
        // Who fetches a map itself has a part of it, which is no whole map to others either.
        let latest = record.incoming.as_ref().map_or(known, |incoming| incoming.whole.max(known));
        let (floor, since) = (record.floor(), since.min(known));
        let changes = record.latest().map(|entries| entries.since(since));
        let mut changes = changes.into_iter().flatten().peekable();
        let (mut from, mut bytes, mut is_added) = (since, Vec::new(), false);
        loop {
            let wanted = changes.peek().map_or(0, |(_, key, value)| {
                CHANGE_BYTES_MAX.min(key.len() + value.map_or(0, <[u8]>::len) + 13)
            });
            if self.with_room(DELTA_BYTES_MAX + wanted).is_none() {
                return is_added;
            }
            let room = self.room() - DELTA_BYTES_MAX;
            let (mut to, mut count) = (from, 0);
            bytes.clear();
            while let Some(&(version, key, value)) = changes.peek() {
                if bytes.len() + key.len() + value.map_or(0, <[u8]>::len) + 13 > room {
                    break;
                }
                Change { version, key, value }.write(&mut bytes, to);
                (to, count) = (version, count + 1);
                changes.next();
            }
            let is_all = changes.peek().is_none();
            let to = if is_all { known } else { to };
            let delta = Delta {
                node: record.node,
                claim: record.claim,
                address: record.address(),
                is_fresh,
                is_cut: !is_all && self.datagrams.len() >= self.datagrams_max,
                floor,
                from,
                to,
                latest,
                changes: Vec::new(),
            };
            let datagram = self.datagrams.last_mut().expect("one with room");
            datagram.write(Kind::Delta, |datagram| delta.write(datagram, count, &bytes));
            is_added = true;
            if is_all || delta.is_cut {
                return true;
            }
            from = to;
        }
    }

    /// Adds what is known of the nodes of a part of the ring, in the order of the ring, as far as
    /// there is room.
    pub fn add_digest<'a>(
        &mut self,
        first: u64,
        last: u64,
        records: impl Iterator<Item = Record<'a>>,
    ) -> bool {
        let heard = records.filter(|record| record.claim != Claim::UNHEARD);
        let mut records = heard.map(Known::of).peekable();
        let mut first = first;
        loop {
            if self.with_room(DIGEST_BYTES_MAX + KNOWN_BYTES_MAX).is_none() {
                return false;
            }
            let (room, mut known) = (self.room() - DIGEST_BYTES_MAX, Vec::new());
            let (mut bytes, mut one) = (0, Vec::new());
            while let Some(next) = records.peek() {
                one.clear();
                next.write(&mut one);
                if bytes + one.len() > room {
                    break;
                }
                bytes += one.len();
                known.extend(records.next());
            }
            let next = records.peek().map(|known| mix(known.node));
            let digest = Section::Digest { first, last: next.map_or(last, |next| next - 1), known };
            let datagram = self.datagrams.last_mut().expect("one with room");
            datagram.write(Kind::Digest, |datagram| digest.write(datagram));
            match next {
                Some(next) => first = next,
                None => return true,
            }
        }
    }

    /// Whether there is no room for any delta, however short.
    pub fn is_full(&self) -> bool {
        self.datagrams.len() >= self.datagrams_max && self.room() < DELTA_BYTES_MAX
    }

    /// Whether something was left out.
    pub fn is_cut(&self) -> bool {
        self.left_out
    }

    /// The datagrams, sealed.
    pub fn finish(self, seal: &Seal) -> Vec<Datagram> {
        let mut datagrams = self.datagrams;
        for datagram in &mut datagrams {
            datagram.write(Kind::Envelope, |bytes| seal.seal(bytes));
        }
        datagrams
    }
}
