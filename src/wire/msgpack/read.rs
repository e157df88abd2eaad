//! Reads values in place, one after the other.

use super::{
    Head, Value,
    span::{RUN, Span, children_of_run},
};

/// The bytes are not the MessagePack value that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the expected MessagePack value")]
pub struct Malformed;

/// Walks over MessagePack bytes; what it hands out borrows from them.
///
/// A method that fails leaves the reader where it was.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Everything that is left.
    pub const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next value's head, its body being left to read with [`Reader::body`].
    pub fn head(&mut self) -> Result<Value, Malformed> {
        let head = Head::read(self.bytes).map_err(|_| Malformed)?;
        self.bytes = &self.bytes[head.len..];
        Ok(head.value)
    }

    /// The next `len` bytes.
    pub fn body(&mut self, len: u32) -> Result<&'a [u8], Malformed> {
        let (body, rest) = self.bytes.split_at_checked(len as usize).ok_or(Malformed)?;
        self.bytes = rest;
        Ok(body)
    }

    /// Passes over what this one and another both have next, as far as that is long runs of values of one byte: many
    /// at a time.
    pub fn pass_same(&mut self, other: &mut Self) {
        while let Some(run) = self.bytes.first_chunk::<RUN>()
            && other.bytes.first_chunk() == Some(run)
            && children_of_run(run).is_some()
        {
            self.bytes = &self.bytes[RUN..];
            other.bytes = &other.bytes[RUN..];
        }
    }

    /// The next value's head when `accept` takes it; otherwise the reader stays where it is.
    fn expect<T>(&mut self, accept: impl FnOnce(Value) -> Option<T>) -> Result<T, Malformed> {
        let head = Head::read(self.bytes).map_err(|_| Malformed)?;
        let taken = accept(head.value).ok_or(Malformed)?;
        self.bytes = &self.bytes[head.len..];
        Ok(taken)
    }

    /// Enters an array: that many values follow.
    pub fn array(&mut self) -> Result<u32, Malformed> {
        self.expect(|value| if let Value::Array(len) = value { Some(len) } else { None })
    }

    /// Enters a map: that many pairs follow.
    pub fn map(&mut self) -> Result<u32, Malformed> {
        self.expect(|value| if let Value::Map(len) = value { Some(len) } else { None })
    }

    /// An integer of 0 or more, however it was written.
    pub fn uint(&mut self) -> Result<u64, Malformed> {
        self.expect(|value| match value {
            Value::Uint(number) => Some(number),
            Value::Int(number) => number.try_into().ok(),
            _ => None,
        })
    }

    /// Text.
    pub fn str(&mut self) -> Result<&'a str, Malformed> {
        let before = self.bytes;
        let text = self
            .expect(|value| if let Value::Str(len) = value { Some(len) } else { None })
            .and_then(|len| self.body(len))
            .and_then(|body| std::str::from_utf8(body).map_err(|_| Malformed));
        if text.is_err() {
            self.bytes = before;
        }
        text
    }

    /// Bytes.
    pub fn bin(&mut self) -> Result<&'a [u8], Malformed> {
        let mut ahead = self.clone();
        let len =
            ahead.expect(|value| if let Value::Bin(len) = value { Some(len) } else { None })?;
        let body = ahead.body(len)?;
        *self = ahead;
        Ok(body)
    }

    /// Skips nil; false when something else is next.
    pub fn nil(&mut self) -> bool {
        self.expect(|value| matches!(value, Value::Nil).then_some(())).is_ok()
    }

    /// The bytes of the next value, whole.
    pub fn raw(&mut self) -> Result<&'a [u8], Malformed> {
        let mut at = 0;
        let mut outstanding = 1u64;
        // How many values of one byte were passed over one after the other.
        let mut streak = 0;
        while outstanding > 0 {
            let rest = self.bytes.get(at..).ok_or(Malformed)?;
            // So many cannot end within a run: they are passed over together where all have one byte.
            if streak >= RUN
                && outstanding >= RUN as u64
                && let Some(run) = rest.first_chunk()
            {
                if let Some(children) = children_of_run(run) {
                    at += RUN;
                    outstanding = outstanding - RUN as u64 + children;
                    continue;
                }
                streak = 0;
            }
            let span = Span::read(rest).map_err(|_| Malformed)?;
            at += span.head + span.body;
            outstanding = outstanding - 1 + span.children;
            streak = if span.head + span.body == 1 { streak + 1 } else { 0 };
        }
        let (raw, rest) = self.bytes.split_at_checked(at).ok_or(Malformed)?;
        self.bytes = rest;
        Ok(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn raw_values_are_handed_out_whole_and_in_order() {
        let bytes = [0x82, 0xa1, b'a', 0x92, 1, 2, 0xa1, b'b', 0xc0];
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.map(), Ok(2));
        assert_eq!(reader.str(), Ok("a"));
        assert_eq!(reader.raw(), Ok(&bytes[3..6]));
        assert_eq!(reader.str(), Ok("b"));
        assert!(reader.nil());
        assert!(reader.is_empty());
    }

    #[test]
    fn a_failed_read_stays_in_place() {
        let mut reader = Reader::new(&[0xa1, b'x']);
        assert_eq!(reader.uint(), Err(Malformed));
        assert_eq!(reader.array(), Err(Malformed));
        assert_eq!(reader.str(), Ok("x"));
    }

    #[test]
    fn signed_markers_still_hold_small_numbers() {
        assert_eq!(Reader::new(&[0xd0, 5]).uint(), Ok(5));
        assert_eq!(Reader::new(&[0xd0, 0xff]).uint(), Err(Malformed));
    }

    /// A value as [`Reader::raw`] finds it, one head after the other.
    fn raw_one_by_one(bytes: &[u8]) -> Option<&[u8]> {
        let (mut at, mut outstanding) = (0, 1);
        while outstanding > 0 {
            let span = Span::read(bytes.get(at..)?).ok()?;
            at += span.head + span.body;
            outstanding = outstanding - 1 + span.children;
        }
        bytes.get(..at)
    }

    /// Bytes that often begin values of one byte.
    fn any_run() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            12 => 0_u8..0xa1, 1 => Just(0xc0), 2 => 0xe0..=0xff_u8, 1 => any::<u8>()
        ];
        (any::<u16>(), proptest::collection::vec(byte, 0..400)).prop_map(|(len, rest)| {
            let head = [0xdc, (len >> 8) as u8 & 1, len as u8];
            [&head[..], &rest].concat()
        })
    }

    proptest! {
        #[test]
        fn runs_are_passed_over_as_their_values_are(bytes in any_run()) {
            prop_assert_eq!(Reader::new(&bytes).raw().ok(), raw_one_by_one(&bytes));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut reader = Reader::new(&bytes);
            while reader.raw().is_ok() || reader.str().is_ok() {}
        }
    }
}
