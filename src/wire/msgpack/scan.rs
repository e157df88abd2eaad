//! Finds where a MessagePack value ends, while its bytes still arrive.

use super::{DEPTH_MAX, head::NoHead, span::Span};

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
}

impl Scanner {
    /// A scanner for values of at most `bytes_max` bytes.
    pub const fn new(bytes_max: usize) -> Self {
        let mut remaining = [0; DEPTH_MAX + 1];
        remaining[0] = 1;
        Self { bytes_max, scanned: 0, remaining, depth: 0, outstanding: 1 }
    }

    /// Whether a value has begun and not ended.
    pub const fn in_value(&self) -> bool {
        self.scanned > 0
    }

    /// Looks at the bytes that arrived since the last call.
    pub fn scan(&mut self, buffer: &[u8]) -> Scan {
        while self.outstanding > 0 {
            let span = match Span::read(&buffer[self.scanned.min(buffer.len())..]) {
                Ok(span) => span,
                Err(NoHead::Short) if buffer.len() >= self.bytes_max => return Scan::TooLarge,
                Err(NoHead::Short) => return Scan::Incomplete,
                Err(NoHead::Reserved) => return Scan::Invalid("0xc1 begins no MessagePack value"),
            };
            let body = self.scanned + span.head;
            let end = body + span.body;
            let after = self.outstanding - 1 + span.children;
            if end as u64 + after > self.bytes_max as u64 {
                return Scan::TooLarge;
            }
            if buffer.len() < end {
                return Scan::Incomplete;
            }
            if span.is_text && !is_text(&buffer[body..end]) {
                return Scan::Invalid("a string is not UTF-8");
            }
            self.scanned = end;
            self.outstanding = after;
            if !self.step(span.children) {
                return Scan::Invalid("arrays and maps are nested deeper than 64");
            }
        }
        // Back at level 0: ready for the next value without touching the other levels.
        self.remaining[0] = 1;
        self.outstanding = 1;
        Scan::Complete(std::mem::take(&mut self.scanned))
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

/// Whether bytes are UTF-8, as most are by being ASCII.
#[inline]
fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
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

    proptest! {
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
