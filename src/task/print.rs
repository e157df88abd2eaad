//! What tells the contents of tasks from others, for one table alone.
//!
//! A long payload is hashed twice: each part of it by NH (Black and others, *UMAC: Fast and Secure Message
//! Authentication*, 1999, section 4.2, here with words of 64 bits), which is a few times as fast as what follows, and
//! the results by SipHash. Both keys are random and nobody else knows them, nor any print: two payloads of one length
//! that differ have the same results for a part with a probability of one in 2^64, whoever chose them.

use std::hash::{BuildHasher, RandomState};

/// Words of a part.
const WORDS: usize = 128;
const PART_BYTES: usize = WORDS * size_of::<u64>();

/// The keys that prints are made with.
pub(super) struct Printer {
    random: RandomState,
    words: Box<[u64; WORDS]>,
}

impl Default for Printer {
    fn default() -> Self {
        let random = RandomState::new();
        // Made with a key of its own, which is not used for anything else.
        let source = RandomState::new();
        let words = std::array::from_fn(|at| source.hash_one(at));
        Self { random, words: Box::new(words) }
    }
}

impl Printer {
    /// The print of a payload and two numbers.
    pub(super) fn print(&self, payload: &[u8], numbers: (u32, u32)) -> u32 {
        if payload.len() <= PART_BYTES {
            return self.random.hash_one((payload, numbers)) as u32;
        }
        let (parts, rest) = payload.as_chunks::<PART_BYTES>();
        let sums: Vec<u128> = parts.iter().map(|part| self.sum(part)).collect();
        self.random.hash_one((sums, rest, numbers)) as u32
    }

    fn sum(&self, part: &[u8; PART_BYTES]) -> u128 {
        let (words, _) = part.as_chunks::<{ size_of::<u64>() }>();
        let mut sums = [0_u128; 2];
        let quads = words.as_chunks::<4>().0.iter().zip(self.words.as_chunks::<4>().0);
        for (words, keys) in quads {
            let word = |at: usize| u64::from_le_bytes(words[at]).wrapping_add(keys[at]);
            // Two sums, so that none waits for the one before.
            for (at, sum) in sums.iter_mut().enumerate() {
                let product = u128::from(word(2 * at)) * u128::from(word(2 * at + 1));
                *sum = sum.wrapping_add(product);
            }
        }
        sums[0].wrapping_add(sums[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_anywhere_has_another_print_and_what_is_the_same_has_the_same() {
        let printer = Printer::default();
        for len in [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, 3 * PART_BYTES + 13] {
            let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let print = printer.print(&payload, (1, 2));
            assert_eq!(print, printer.print(&payload.clone(), (1, 2)));
            // One in some billion is the same by chance.
            let mut same = u32::from(print == printer.print(&payload, (1, 3)));
            same += u32::from(print == printer.print(&payload, (2, 2)));
            same += u32::from(print == printer.print(&[&payload[..], &[0]].concat(), (1, 2)));
            for at in (0..len).step_by(7).chain(len.checked_sub(1)) {
                let mut other = payload.clone();
                other[at] ^= 1 << (at % 8);
                same += u32::from(print == printer.print(&other, (1, 2)));
            }
            assert!(same <= 1, "{len} bytes: {same} others have the same print");
        }
    }

    #[test]
    fn parts_that_change_places_make_another_print() {
        let printer = Printer::default();
        let (one, other) = (vec![1; PART_BYTES], vec![2; PART_BYTES]);
        let print = |parts: [&[u8]; 2]| printer.print(&parts.concat(), (0, 0));
        assert_ne!(print([&one, &other]), print([&other, &one]));
        assert_ne!(print([&one, &one]), print([&other, &other]));
    }

    #[test]
    fn each_printer_has_keys_of_its_own() {
        let payload = vec![7; 10 * PART_BYTES];
        let prints: Vec<u32> = (0..8).map(|_| Printer::default().print(&payload, (0, 0))).collect();
        assert!(prints.iter().any(|print| *print != prints[0]));
    }
}
