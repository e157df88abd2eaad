//! Finds where a MessagePack value ends, while its bytes still arrive.

use super::{
    DEPTH_MAX,
    head::NoHead,
    span::{RUN, Span, children_of_run},
};

/// What is known of the value at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The value is whole and this many bytes long.
    Complete(usize),
    /// More bytes are needed; nothing seen so far is wrong.
    Incomplete,
    /// No bytes that follow could make it a value; the text says why.
    Invalid(&'static str),
    /// The value is, or will be, longer than the limit.
    TooLarge,
}

/// Scans one value after the other, keeping its place: each byte is looked at once however small
/// the pieces it arrives in.
///
/// Give [`Scanner::scan`] a buffer that starts with the same value each time, longer than before.
/// After [`Scan::Complete`] the scanner is ready for the value that follows.
#[derive(Debug)]
pub struct Scanner {
    bytes_max: usize,
    /// Bytes of the value that were scanned.
    scanned: usize,
    /// Values still to come at each level; the level 0 is the value itself.
    remaining: [u64; DEPTH_MAX + 1],
    depth: usize,
    /// Values still to come, all levels together: each needs at least one byte.
    outstanding: u64,
    /// Bytes of the text that comes next which were found to be UTF-8.
    checked: usize,
    /// Texts of this value so far, and of the last one that was found.
    texts: usize,
    texts_of_last: usize,
}

/// Bytes of text that cost about as much as a value.
const TEXT_A_VALUE: usize = 32;

impl Scanner {
    /// A scanner for values of at most `bytes_max` bytes.
    pub const fn new(bytes_max: usize) -> Self {
        let mut remaining = [0; DEPTH_MAX + 1];
        remaining[0] = 1;
        let (texts, texts_of_last) = (0, 0);
        Self {
            bytes_max,
            scanned: 0,
            remaining,
            depth: 0,
            outstanding: 1,
            checked: 0,
            texts,
            texts_of_last,
        }
    }

    /// How many texts are in the last value that was found, names of maps among them.
    pub const fn texts_of_last(&self) -> usize {
        self.texts_of_last
    }

    /// Whether a value has begun and not ended.
    pub const fn in_value(&self) -> bool {
        self.scanned > 0
    }

    /// Looks at the bytes that arrived since the last call.
    pub fn scan(&mut self, buffer: &[u8]) -> Scan {
        self.scan_some(buffer, usize::MAX).expect("no buffer has so many values")
    }

    /// The same for at most so many values, or texts that cost as much; `None` when it is to be called again
    /// with the same buffer.
    pub fn scan_some(&mut self, buffer: &[u8], values: usize) -> Option<Scan> {
        let mut left = values;
        // How many scalars of one byte came one after the other.
        let mut streak = 0;
        while self.outstanding > 0 {
            if left == 0 {
                return None;
            }
            left -= 1;
            if streak >= RUN {
                if self.pass_run(buffer) {
                    continue;
                }
                streak = 0;
            }
            let span = match Span::read(&buffer[self.scanned.min(buffer.len())..]) {
                Ok(span) => span,
                Err(NoHead::Short) if buffer.len() >= self.bytes_max => {
                    return Some(Scan::TooLarge);
                }
                Err(NoHead::Short) => return Some(Scan::Incomplete),
                Err(NoHead::Reserved) => {
                    return Some(Scan::Invalid("0xc1 begins no MessagePack value"));
                }
            };
            let body = self.scanned + span.head;
            let end = body + span.body;
            let after = self.outstanding - 1 + span.children;
            if end as u64 + after > self.bytes_max as u64 {
                return Some(Scan::TooLarge);
            }
            if span.is_text {
                let most = left.saturating_mul(TEXT_A_VALUE).max(TEXT_A_VALUE);
                let (from, there) = (body + self.checked, end.min(buffer.len()));
                let part = &buffer[from.min(there)..there.min(from.saturating_add(most))];
                let Some(checked) = checked_text(part, from + part.len() < end) else {
                    return Some(Scan::Invalid("a string is not UTF-8"));
                };
                self.checked += checked;
                left = left.saturating_sub(part.len() / TEXT_A_VALUE);
                if from + part.len() < there {
                    return None;
                }
            }
            if buffer.len() < end {
                return Some(Scan::Incomplete);
            }
            streak = if span.head + span.body == 1 && span.children == 0 { streak + 1 } else { 0 };
            self.scanned = end;
            self.checked = 0;
            self.texts += usize::from(span.is_text);
            self.outstanding = after;
            if !self.step(span.children) {
                return Some(Scan::Invalid("arrays and maps are nested deeper than 64"));
            }
        }
        // Back at level 0: ready for the next value without touching the other levels.
        self.remaining[0] = 1;
        self.outstanding = 1;
        self.texts_of_last = std::mem::take(&mut self.texts);
        Some(Scan::Complete(std::mem::take(&mut self.scanned)))
    }

    /// Passes over a run of scalars of one byte that are neither the last ones of their level nor change what
    /// the value may come to; false when that is not what comes next.
    fn pass_run(&mut self, buffer: &[u8]) -> bool {
        let level = &mut self.remaining[self.depth];
        let next = buffer.get(self.scanned..).and_then(|rest| rest.first_chunk());
        let is_run = *level > RUN as u64 && next.and_then(children_of_run) == Some(0);
        if is_run {
            *level -= RUN as u64;
            self.outstanding -= RUN as u64;
            self.scanned += RUN;
        }
        is_run
    }

    /// Counts one value off its level and enters it when it has children; false when that is
    /// too deep.
    fn step(&mut self, children: u64) -> bool {
        self.remaining[self.depth] -= 1;
        if children > 0 {
            if self.depth == DEPTH_MAX {
                return false;
            }
            self.depth += 1;
            self.remaining[self.depth] = children;
        }
        while self.depth > 0 && self.remaining[self.depth] == 0 {
            self.depth -= 1;
        }
        true
    }
}

/// How many of the bytes are whole letters of UTF-8, as most are by being ASCII: all of them, or all but the
/// last ones where more follow. `None` when they are no UTF-8.
#[inline]
fn checked_text(bytes: &[u8], more_follow: bool) -> Option<usize> {
    if bytes.is_ascii() {
        return Some(bytes.len());
    }
    match std::str::from_utf8(bytes) {
        Ok(_) => Some(bytes.len()),
        Err(error) => (more_follow && error.error_len().is_none()).then(|| error.valid_up_to()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(bytes: &[u8]) -> Scan {
        Scanner::new(1 << 20).scan(bytes)
    }

    #[test]
    fn a_whole_value_ends_where_the_next_begins() {
        assert_eq!(scan(&[0x93, 1, 0xa1, b'x', 0xc0, 7]), Scan::Complete(5));
        assert_eq!(scan(&[0x80, 0x80]), Scan::Complete(1));
        assert_eq!(scan(&[]), Scan::Incomplete);
    }

    #[test]
    fn one_scanner_finds_value_after_value() {
        let mut scanner = Scanner::new(100);
        assert_eq!(scanner.scan(&[0x92, 1]), Scan::Incomplete);
        assert!(scanner.in_value());
        assert_eq!(scanner.scan(&[0x92, 1, 2, 0xc3]), Scan::Complete(3));
        assert_eq!(scanner.scan(&[0xc3]), Scan::Complete(1));
        assert!(!scanner.in_value());
    }

    #[test]
    fn values_end_where_they_do_one_by_one_however_much_is_scanned_at_once() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            let mut bytes = vec![0xdd, 0, 0];
            let count = random.u16(0..600);
            bytes.extend_from_slice(&count.to_be_bytes());
            for _ in 0..count {
                match random.u8(0..200) {
                    0 => bytes.extend_from_slice(&[0x92, 1, 0xc0]),
                    1 => bytes.extend_from_slice(&[0xcd, 1, 2]),
                    2 => bytes.push(0x90),
                    other => bytes.push(other & 0x7f),
                }
            }
            let len = bytes.len();
            bytes.extend_from_slice(&[1; 40]);
            assert_eq!(scan(&bytes), Scan::Complete(len));
            for most in [1, 7, 100] {
                let (mut scanner, mut there, mut rounds) = (Scanner::new(len), 0, 0);
                let found = loop {
                    rounds += 1;
                    match scanner.scan_some(&bytes[..there], most) {
                        Some(Scan::Incomplete) => there = (there + random.usize(1..60)).min(len),
                        Some(found) => break found,
                        None => {}
                    }
                };
                assert_eq!(found, Scan::Complete(len), "{rounds} rounds");
            }
            assert_eq!(Scanner::new(len - 1).scan(&bytes), Scan::TooLarge);
        }
    }

    #[test]
    fn texts_are_counted_however_they_arrive() {
        let mut values = vec![0xdc, 1, 0];
        values.extend([0xa1, b'x', 0xcc, 7].repeat(128));
        let mut scanner = Scanner::new(4096);
        assert!(matches!(scanner.scan(&values), Scan::Complete(_)));
        assert_eq!(scanner.texts_of_last(), 128);
        for cut in [300, 302] {
            assert_eq!(scanner.scan(&values[..cut]), Scan::Incomplete);
            while scanner.scan_some(&values, 10).is_none() {}
            assert_eq!(scanner.texts_of_last(), 128);
        }
        assert_eq!(scanner.scan(&[0xc0]), Scan::Complete(1));
        assert_eq!(scanner.texts_of_last(), 0);
    }

    #[test]
    fn a_declared_length_beyond_the_limit_is_refused_at_its_head() {
        assert_eq!(scan(&[0xdb, 0xff, 0xff, 0xff, 0xff]), Scan::TooLarge);
        assert_eq!(scan(&[0xdd, 0xff, 0xff, 0xff, 0xff]), Scan::TooLarge);
        assert_eq!(scan(&[0xdf, 0xff, 0xff, 0xff, 0xff]), Scan::TooLarge);
        let mut small = Scanner::new(4);
        assert_eq!(small.scan(&[0x94, 1, 1]), Scan::TooLarge);
        assert_eq!(Scanner::new(4).scan(&[0x93, 1, 1, 1]), Scan::Complete(4));
    }

    #[test]
    fn nesting_is_bounded() {
        let mut bytes = vec![0x91; DEPTH_MAX];
        bytes.push(1);
        assert_eq!(scan(&bytes), Scan::Complete(DEPTH_MAX + 1));
        bytes.insert(0, 0x91);
        assert!(matches!(scan(&bytes), Scan::Invalid(_)));
    }

    #[test]
    fn what_messagepack_forbids_is_invalid() {
        assert!(matches!(scan(&[0x91, 0xc1]), Scan::Invalid(_)));
        assert!(matches!(scan(&[0xa2, 0xc3, 0x28]), Scan::Invalid(_)));
        assert_eq!(scan(&[0xc4, 2, 0xc3, 0x28]), Scan::Complete(4), "bytes need not be UTF-8");
    }

    #[test]
    fn a_large_string_in_small_pieces_is_scanned_once() {
        let mut bytes = vec![0xdb, 0, 8, 0, 0];
        bytes.resize(5 + (8 << 16), b'a');
        let mut scanner = Scanner::new(1 << 20);
        for end in (1..bytes.len()).step_by(16) {
            assert_eq!(scanner.scan(&bytes[..end]), Scan::Incomplete);
        }
        assert_eq!(scanner.scan(&bytes), Scan::Complete(bytes.len()));
    }

    /// Scans in steps of so many values; what comes of it, and how many steps that took.
    fn scan_in_steps(bytes: &[u8], values: usize) -> (Scan, usize) {
        let mut scanner = Scanner::new(1 << 20);
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps <= 2 * bytes.len() + 2, "each step comes further");
            if let Some(scan) = scanner.scan_some(bytes, values) {
                return (scan, steps);
            }
        }
    }

    #[test]
    fn many_values_and_long_texts_are_scanned_in_steps() {
        let mut many = vec![0xdc, 0x27, 0x10];
        many.extend([0xcc, 7].repeat(10_000));
        let (scan, steps) = scan_in_steps(&many, 1000);
        assert_eq!((scan, steps), (Scan::Complete(many.len()), 11));
        let mut small = vec![0xdc, 0x27, 0x10];
        small.extend([7].repeat(10_000));
        let (scan, steps) = scan_in_steps(&small, 100);
        assert_eq!(scan, Scan::Complete(small.len()));
        assert!((7..10).contains(&steps), "{steps}: sixteen of them count as one");
        for letter in ["a", "é", "€", "𝄞"] {
            let mut text = vec![0xdb, 0, 1, 0x86, 0xa0];
            text.extend(letter.repeat(100_000 / letter.len()).bytes());
            text.resize(5 + 100_000, b'a');
            let (scan, steps) = scan_in_steps(&text, 64);
            assert_eq!(scan, Scan::Complete(text.len()), "{letter}");
            assert!((40..70).contains(&steps), "{letter}: {steps}");
            let last = text.len() - 1;
            text[last] = 0xff;
            assert!(matches!(scan_in_steps(&text, 64).0, Scan::Invalid(_)), "{letter}");
            text[last] = 0xc3;
            assert!(matches!(scan_in_steps(&text, 64).0, Scan::Invalid(_)), "{letter}");
        }
    }

    proptest! {
        #[test]
        fn steps_and_the_whole_scan_alike(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            values in 1_usize..5,
        ) {
            prop_assert_eq!(scan_in_steps(&bytes, values).0, scan(&bytes));
        }

        #[test]
        fn texts_in_steps_and_pieces_scan_as_a_whole(text in any::<String>(), cut in 0_usize..200, values in 1_usize..5) {
            let mut bytes = Vec::new();
            crate::wire::msgpack::write::str(&mut bytes, &text.repeat(20));
            if let Some(byte) = bytes.get_mut(10 * cut + 3) {
                *byte ^= 0x80;
            }
            let whole = scan(&bytes);
            prop_assert_eq!(scan_in_steps(&bytes, values).0, whole);
            let mut scanner = Scanner::new(1 << 20);
            let mut piecewise = Scan::Incomplete;
            for end in (0..bytes.len()).step_by(7).chain([bytes.len()]) {
                piecewise = scanner.scan(&bytes[..end]);
                if piecewise != Scan::Incomplete {
                    break;
                }
            }
            prop_assert_eq!(piecewise, whole);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Scan::Complete(len) = scan(&bytes) {
                prop_assert!(len <= bytes.len());
            }
        }

        #[test]
        fn pieces_and_the_whole_scan_alike(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut scanner = Scanner::new(1 << 20);
            let mut piecewise = Scan::Incomplete;
            for end in 0..=bytes.len() {
                piecewise = scanner.scan(&bytes[..end]);
                if piecewise != Scan::Incomplete {
                    break;
                }
            }
            // A piece can be refused for its declared size before the whole shows another fault.
            let whole = scan(&bytes);
            prop_assert_eq!(piecewise, whole);
        }
    }
}
