//! What a node knows of one node, and which of two claims stands.

use super::{
    NodeId,
    entries::{Entries, Version},
};
use std::{
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// Highest incarnation that a node starts with: milliseconds of some thousand years.
pub const INCARNATION_START_MAX: u64 = 1 << 48;
/// Milliseconds by which the highest incarnation that is believed may rise: incarnations are kept in 62 bits.
const RISE_MS_MAX: u64 = 1 << 60;
const _: () = assert!(INCARNATION_START_MAX + RISE_MS_MAX < 1 << 61);

/// What a node is thought to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Status {
    /// It answers.
    Alive,
    /// It has been silent for too long, and may refute.
    Suspect,
    /// It did not refute in time.
    Dead,
    /// It said goodbye.
    Left,
}

impl Status {
    /// The status of a number.
    pub(super) fn of(byte: u8) -> Option<Self> {
        [Self::Alive, Self::Suspect, Self::Dead, Self::Left].get(usize::from(byte)).copied()
    }

    /// Whether it may still speak: alive or suspect.
    pub fn is_present(self) -> bool {
        self <= Self::Suspect
    }
}

/// What is said of a node; of two claims the greater one stands, everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Only the node itself raises it: when it starts, and to refute.
    pub incarnation: u64,
    /// The incarnation with which the node began its map; versions count within it.
    pub generation: u64,
    /// What the node is thought to be. A worse one stands until a higher incarnation refutes it.
    pub status: Status,
}

impl Claim {
    /// Of a node that was named and has not spoken.
    pub const UNHEARD: Self = Self { incarnation: 0, generation: 0, status: Status::Alive };

    /// Whether its generation was begun by a process that had begun one before: once it is confirmed, what
    /// was known of that one's map holds until the new one is whole. A process that starts begins an even generation, and one
    /// that begins its map again an odd one.
    pub fn goes_on(&self) -> bool {
        self.generation % 2 == 1
    }

    /// A claim that no node makes of itself, given the highest incarnation that is believed by now.
    pub fn is_absurd(&self, highest: u64) -> bool {
        self.generation > self.incarnation || self.incarnation > highest
    }
}

/// The highest incarnation that is believed of any node, the accused itself among them: whatever was made up
/// to accuse a node, a moment later there is a higher one that refutes it, which everybody believes whose clock
/// is not behind. What is known of a node has no say in it, so no sequence of lies leads anywhere else, and
/// who comes later believes the same. No node starts above it, whatever its clock says, and a node that
/// raises its incarnation by one a refutation does not reach it.
pub fn highest_incarnation(unix_ms: u64) -> u64 {
    INCARNATION_START_MAX + unix_ms.min(RISE_MS_MAX)
}

/// A map that is being received and is not shown yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// What has come.
    pub entries: Entries,
    /// The version at which it is whole.
    pub whole: Version,
    /// The generation of the map that is shown until then.
    pub shown: u64,
}

impl Incoming {
    /// Nothing has come yet.
    pub fn begin(shown: u64) -> Self {
        Self { entries: Entries::default(), whole: 0, shown }
    }

    /// Whether all has come.
    pub fn is_whole(&self) -> bool {
        self.entries.version() >= self.whole
    }
}

/// Where a node listens, in half of the bytes: among many nodes what is known of them is large.
#[derive(Clone, Debug, PartialEq)]
enum Address {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::V4(v4),
            SocketAddr::V6(v6) => Self::V6(Box::new(v6)),
        }
    }
}

/// The part of a claim that changes often, in eight bytes: the incarnation, and the status below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing(u64);

impl Standing {
    const STATUS_BITS: u32 = 2;

    /// Of a claim.
    pub fn of(claim: &Claim) -> Self {
        debug_assert!(
            claim.incarnation >> (64 - Self::STATUS_BITS) == 0,
            "absurd claims are refused"
        );
        Self(claim.incarnation << Self::STATUS_BITS | claim.status as u64)
    }

    /// What the node is thought to be.
    pub fn status(self) -> Status {
        match self.0 & 3 {
            0 => Status::Alive,
            1 => Status::Suspect,
            2 => Status::Dead,
            _ => Status::Left,
        }
    }

    /// The claim, of a node in that generation.
    pub fn claim(self, generation: u64) -> Claim {
        Claim { incarnation: self.0 >> Self::STATUS_BITS, generation, status: self.status() }
    }
}

// Of ten thousand nodes each knows ten thousand: what they know alike is kept once by those of one
// process, and what they do not is what counts.
const _: () = assert!(size_of::<Life>() <= 48 && size_of::<Standing>() == 8);

/// What of a node changes seldom: who and where it is, and its map in one generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    /// Which node.
    pub node: NodeId,
    address: Address,
    generation: u64,
    /// Its map, as far as it is whole.
    pub entries: Option<Arc<Entries>>,
    /// Its map that comes in parts.
    pub incoming: Option<Arc<Incoming>>,
}

impl Life {
    /// Of a node that has not spoken.
    pub fn new(node: NodeId, address: SocketAddr) -> Self {
        Self { node, address: address.into(), generation: 0, entries: None, incoming: None }
    }

    /// In a generation.
    pub fn begin(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match &self.address {
            Address::V4(v4) => SocketAddr::V4(*v4),
            Address::V6(v6) => SocketAddr::V6(**v6),
        }
    }

    /// It listens elsewhere.
    pub fn moved_to(&mut self, address: SocketAddr) {
        self.address = address.into();
    }

    /// The generation of the map that is shown.
    pub fn shown(&self) -> u64 {
        self.incoming.as_ref().map_or(self.generation, |incoming| incoming.shown)
    }

    /// The map that changes are applied to.
    pub fn latest(&self) -> Option<&Entries> {
        match &self.incoming {
            Some(incoming) => Some(&incoming.entries),
            None => self.entries.as_deref(),
        }
    }

    /// Up to which version the changes are known.
    pub fn version(&self) -> Version {
        self.latest().map_or(0, Entries::version)
    }

    /// Identifies the entries that are known.
    pub fn check(&self) -> u64 {
        self.latest().map_or(0, Entries::check)
    }

    /// Versions at or below it have lost their tombstones.
    pub fn floor(&self) -> Version {
        self.latest().map_or(0, Entries::floor)
    }

    /// Whether the map that is shown is not below a floor, and no other is on its way.
    pub fn is_whole_above(&self, floor: Version) -> bool {
        self.incoming.is_none() && self.version() >= floor
    }

    /// Collects the tombstones of a map that is not below the floor.
    pub fn raise_floor(&mut self, floor: Version) {
        if let Some(incoming) = &mut self.incoming {
            Arc::make_mut(incoming).entries.raise_floor(floor);
        } else if let Some(entries) = &mut self.entries {
            Arc::make_mut(entries).raise_floor(floor);
        }
    }

    /// The version above which changes are told to somebody who knows one version and began above a
    /// floor: whoever lacks tombstones that are gone has to begin again.
    pub fn since(&self, version: Version, floor: Version) -> Version {
        if version >= self.floor() || floor >= self.floor() { version } else { 0 }
    }
}

/// What is known of a node.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What stands.
    pub claim: Claim,
    life: &'a Life,
}

impl<'a> Record<'a> {
    /// Puts both parts together.
    pub fn of(standing: Standing, life: &'a Life) -> Self {
        Self { claim: standing.claim(life.generation), life }
    }

    /// What of it changes seldom.
    pub fn life(&self) -> &'a Life {
        self.life
    }

    /// Identifies what is known; of two nodes that know the same it is the same.
    pub fn fingerprint(&self) -> u64 {
        let Claim { incarnation, generation, status } = self.claim;
        if self.claim == Claim::UNHEARD {
            return 0;
        }
        let parts = [incarnation, generation, self.version() << 2 | status as u64, self.check()];
        parts.iter().fold(mix(self.node), |hash, part| mix(hash.rotate_left(23) ^ part))
    }
}

impl Deref for Record<'_> {
    type Target = Life;

    fn deref(&self) -> &Life {
        self.life
    }
}

/// What is known of a node, to be changed.
#[derive(Debug)]
pub struct Changing<'a> {
    /// What stands.
    pub claim: Claim,
    life: &'a mut Life,
}

impl<'a> Changing<'a> {
    /// Puts both parts together.
    pub fn of(standing: Standing, life: &'a mut Life) -> Self {
        Self { claim: standing.claim(life.generation), life }
    }
}

impl Deref for Changing<'_> {
    type Target = Life;

    fn deref(&self) -> &Life {
        self.life
    }
}

impl DerefMut for Changing<'_> {
    fn deref_mut(&mut self) -> &mut Life {
        self.life
    }
}

/// A permutation of all numbers that looks random.
pub fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_what_it_was_after_it_was_kept() {
        for incarnation in [0, 1, 1_000, INCARNATION_START_MAX, (1 << 62) - 1] {
            for status in [Status::Alive, Status::Suspect, Status::Dead, Status::Left] {
                let claim = Claim { incarnation, generation: 7, status };
                assert_eq!(Standing::of(&claim).claim(7), claim);
            }
        }
    }

    #[test]
    fn no_incarnation_is_believed_that_cannot_be_kept_whatever_the_clock_says() {
        for unix_ms in [0, 1, 1_800_000_000_000, 1 << 60, u64::MAX] {
            let highest = highest_incarnation(unix_ms);
            let claim = |incarnation| Claim { incarnation, generation: 2, status: Status::Alive };
            assert!(!claim(INCARNATION_START_MAX).is_absurd(highest), "a start at any time");
            assert!(claim(highest + 1).is_absurd(highest));
            // A node refutes what is believed by one or two more.
            assert_eq!(Standing::of(&claim(highest + 2)).claim(2), claim(highest + 2));
        }
    }
}
