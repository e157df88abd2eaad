//! Numbers and lists as bytes, little endian; reading is total.

use crate::consensus::malformed::Malformed;

/// Reads from the front of a slice and keeps how far it came.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next bytes, as a range of the whole.
    pub fn range(&mut self, length: usize) -> Result<std::ops::Range<usize>, Malformed> {
        if length > self.left() {
            return Err(Malformed::Short);
        }
        self.at += length;
        Ok(self.at - length..self.at)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let range = self.range(N)?;
        Ok(self.bytes[range].try_into().expect("the range is as long"))
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A list of up to `max` numbers, led by their count.
    pub fn list(&mut self, max: usize) -> Result<Vec<u64>, Malformed> {
        let count = usize::from(self.u16()?);
        if count > max {
            return Err(Malformed::Members);
        }
        (0..count).map(|_| self.u64()).collect()
    }

    /// Ends the reading.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.left() == 0 { Ok(()) } else { Err(Malformed::Long) }
    }
}

/// Writes a list, led by its count.
pub(super) fn put_list(list: &[u64], out: &mut Vec<u8>) {
    out.extend_from_slice(&(list.len() as u16).to_le_bytes());
    for number in list {
        out.extend_from_slice(&number.to_le_bytes());
    }
}
