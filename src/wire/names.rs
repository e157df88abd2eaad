//! The names of tasks that any node may ask for, where nodes may lie.
//!
//! Who asks has no choice: a name says which request of which node the task is in, and where there. A
//! request is ordered once, so no two tasks ever have the same name, whoever lies.
//!
//! Invariants worth naming
//! - A name and what it says can be computed from each other, for whoever knows the life.
//! - Names of different lives of a cluster, and of different partitions, are different ones.

use super::id::PartitionIndex;

/// Odd numbers to multiply by, so that names look random to tables that hash few of their bits.
const FACTORS: [u128; 2] =
    [0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835, 0xd6e8_feb8_6659_fd93_a3ca_9b3d_2c4f_7a81];
/// Those that undo them.
const UNDOING: [u128; 2] = [inverse(FACTORS[0]), inverse(FACTORS[1])];

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Who asked for it: its place among the nodes, in the order of their numbers.
    pub asker: u8,
    /// Its partition.
    pub partition: PartitionIndex,
    /// The asker's number for the request.
    pub request: u64,
    /// Its place in that.
    pub place: u32,
}

/// Who takes up how much of what all nodes share, a bit for each by its place among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crowd {
    /// All that one may: nothing more that they ask for is taken.
    pub full: u8,
    /// As much as a correct door asks for at most: what they ask for beyond that is waited for by nobody.
    /// Those that are full are among them.
    pub near: u8,
}

impl Crowd {
    /// What a table says that does not know enough.
    pub const UNKNOWN: Self = Self { full: 0, near: u8::MAX };

    /// Both in a number.
    pub const fn to_bits(self) -> u16 {
        u16::from_le_bytes([self.full, self.near])
    }

    /// What [`Crowd::to_bits`] made.
    pub const fn from_bits(bits: u16) -> Self {
        let [full, near] = bits.to_le_bytes();
        Self { full, near }
    }
}

/// The names of one life of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    life: u128,
}

impl Names {
    /// Those of the life with this number.
    pub fn new(life: u128) -> Self {
        Self { life }
    }

    /// The name that says this: the random bits of a task's id.
    pub fn name(&self, named: Named) -> u128 {
        let Named { asker, partition, request, place } = named;
        let said = u128::from(partition) << 104
            | u128::from(asker) << 96
            | u128::from(place) << 64
            | u128::from(request);
        let folded = |bits: u128| bits ^ bits >> 64;
        let [first, second] = FACTORS;
        folded(folded(folded(said ^ self.life).wrapping_mul(first)).wrapping_mul(second))
    }

    /// What a name says; `None` when it is none of this life.
    pub fn read(&self, name: u128) -> Option<Named> {
        let folded = |bits: u128| bits ^ bits >> 64;
        let [first, second] = UNDOING;
        let said =
            folded(folded(folded(name).wrapping_mul(second)).wrapping_mul(first)) ^ self.life;
        (said >> 120 == 0).then_some(Named {
            asker: (said >> 96) as u8,
            partition: (said >> 104) as PartitionIndex,
            request: said as u64,
            place: (said >> 64) as u32,
        })
    }
}

/// What the requests of a node in a partition are named by.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    /// The names.
    pub names: Names,
    /// The node's place among all.
    pub asker: u8,
    /// The number of its next request.
    pub next: u64,
}

/// The number that an odd number multiplied by is one (Newton's iteration: each step doubles the bits
/// that are right, of which three are at the beginning).
const fn inverse(odd: u128) -> u128 {
    let (mut inverse, mut right) = (odd, 3);
    while right < 128 {
        inverse = inverse.wrapping_mul(2u128.wrapping_sub(odd.wrapping_mul(inverse)));
        right *= 2;
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_says_what_it_was_made_of_in_its_life_alone(
            (life, other, asker, partition, request, place)
                in any::<(u128, u128, u8, u16, u64, u32)>(),
        ) {
            let named = Named { asker, partition, request, place };
            let name = Names::new(life).name(named);
            prop_assert_eq!(Names::new(life).read(name), Some(named));
            if other != life {
                prop_assert_ne!(Names::new(other).read(name), Some(named));
            }
            // Any number is a name of something, or of nothing.
            if let Some(read) = Names::new(life).read(other) {
                prop_assert_eq!(Names::new(life).name(read), other);
            }
        }
    }

    #[test]
    fn names_in_a_row_differ_in_the_bits_that_tables_look_at() {
        let names = Names::new(7);
        let mut seen = std::collections::HashSet::new();
        for request in 1..=64 {
            for place in 0..64 {
                let name = names.name(Named { asker: 1, partition: 0, request, place });
                seen.insert((name as u64 ^ (name >> 64) as u64) & 0xffff);
            }
        }
        // Of 4,096 in 65,536 places by chance about 3,970 are different.
        assert!(seen.len() > 3_800, "{} of 4096", seen.len());
    }
}
