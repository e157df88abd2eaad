//! The bytes of closed frames, which are given up at the front as new ones come at the end.
//!
//! Invariants worth naming:
//! - A frame lies in one part, and no byte of it moves before it is given up but while its part still grows,
//!   up to [`PART_BYTES`]: so no turn moves more, however much is kept.
//! - A place in the stream of all bytes is never that of other ones.

use std::collections::VecDeque;

/// Bytes from which on a part takes no further frame.
pub const PART_BYTES: usize = 256 << 10;

/// Bytes in parts.
#[derive(Debug, Default)]
pub struct Parts {
    /// None is empty, but for one that may be kept for what comes.
    parts: VecDeque<Vec<u8>>,
    /// Where the first part begins, in the stream of all bytes that were ever put in.
    begin: usize,
    /// Where the last one ends.
    end: usize,
}

impl Parts {
    /// Where the last byte ends, in the stream of all bytes.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Bytes of memory that they hold.
    pub fn memory_bytes(&self) -> usize {
        let places = self.parts.capacity() * size_of::<Vec<u8>>();
        self.parts.iter().map(Vec::capacity).sum::<usize>() + places
    }

    /// Puts a frame behind all others.
    pub fn push(&mut self, head: &[u8], body: &[u8]) {
        if self.parts.back().is_none_or(|last| last.len() >= PART_BYTES) {
            self.parts.push_back(Vec::new());
        }
        let last = self.parts.back_mut().expect("one was put there");
        last.extend_from_slice(head);
        last.extend_from_slice(body);
        self.end += head.len() + body.len();
    }

    /// The part that a place lies in, and where in it.
    fn find(&self, at: usize) -> Option<(usize, usize)> {
        let mut within = at.checked_sub(self.begin)?;
        for (place, part) in self.parts.iter().enumerate() {
            match within.checked_sub(part.len()) {
                Some(beyond) => within = beyond,
                None => return Some((place, within)),
            }
        }
        None
    }

    /// The bytes from a place to the end of its part.
    pub fn rest(&self, at: usize) -> &[u8] {
        self.find(at).map_or(&[], |(place, within)| &self.parts[place][within..])
    }

    /// The same, to be changed.
    pub fn rest_mut(&mut self, at: usize) -> &mut [u8] {
        match self.find(at) {
            Some((place, within)) => &mut self.parts[place][within..],
            None => &mut [],
        }
    }

    /// Gives the bytes before a place up.
    pub fn give_up(&mut self, to: usize) {
        while let Some(first) = self.parts.front()
            && self.begin + first.len() <= to
        {
            self.begin += first.len();
            if self.parts.len() == 1 {
                // Kept for the next ones.
                self.parts[0].clear();
                self.parts[0].shrink_to(PART_BYTES);
                return;
            }
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_where_they_are_until_they_are_given_up() {
        let (mut parts, mut random) = (Parts::default(), fastrand::Rng::with_seed(7));
        // Where each frame begins, its bytes, and where its first byte is in memory.
        let mut frames: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
        let mut most = 0;
        for number in 0..4_000_u32 {
            let frame = vec![number as u8; 1 + random.usize(..30_000)];
            frames.push_back((parts.end(), frame.clone()));
            let (head, body) = frame.split_at(1);
            parts.push(head, body);
            let kept: usize = frames.iter().map(|(_, frame)| frame.len()).sum();
            most = most.max(kept);
            if kept > 4 << 20 {
                for _ in 0..random.usize(1..frames.len()) {
                    frames.pop_front();
                }
                parts.give_up(frames.front().map_or(parts.end(), |(at, _)| *at));
            }
            for (at, frame) in &frames {
                assert!(parts.rest(*at).starts_with(frame), "frame {number}");
            }
        }
        assert!(most > 4 << 20, "nothing was kept");
        assert!(parts.memory_bytes() < 10 << 20, "{} bytes", parts.memory_bytes());
        parts.give_up(parts.end());
        assert!(parts.memory_bytes() <= 2 * PART_BYTES && parts.rest(parts.end()).is_empty());
        parts.push(b"h", b"ead");
        assert_eq!(parts.rest(parts.end() - 4), b"head");
        parts.rest_mut(parts.end() - 4)[0] = b'H';
        assert_eq!(parts.rest(parts.end() - 4), b"Head");
    }

    #[test]
    fn no_byte_of_a_full_part_moves() {
        let mut parts = Parts::default();
        let frame = [7; 1_000];
        let mut at = Vec::new();
        for _ in 0..4_000 {
            let begin = parts.end();
            parts.push(&frame[..32], &frame[32..]);
            at.push(begin);
        }
        let places = |parts: &Parts, from: usize| -> Vec<*const u8> {
            at[from..3_500].iter().map(|at| parts.rest(*at).as_ptr()).collect()
        };
        let before = places(&parts, 0);
        parts.give_up(at[3_000]);
        assert_eq!(places(&parts, 3_000), before[3_000..], "they moved");
        assert!(parts.memory_bytes() < 3 << 20);
    }
}
