//! Numbers, digests and lists as bytes, little endian; reading is total.

use super::keys::{Digest, Signature};
use crate::consensus::malformed::Malformed;
use bytes::Bytes;

/// Reads from the front of bytes, and refers to them instead of copying.
pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    /// What travels apart.
    parts: std::slice::Iter<'a, Bytes>,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a Bytes, parts: &'a [Bytes]) -> Self {
        Self { bytes, at: 0, parts: parts.iter() }
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        if length > self.left() {
            return Err(Malformed::Short);
        }
        self.at += length;
        Ok(&self.bytes[self.at - length..self.at])
    }

    /// The next bytes.
    pub fn bytes(&mut self, length: usize) -> Result<Bytes, Malformed> {
        self.slice(length)?;
        Ok(self.bytes.slice(self.at - length..self.at))
    }

    /// The next part, which must be that long.
    pub fn part(&mut self, length: usize) -> Result<Bytes, Malformed> {
        let part = self.parts.next().ok_or(Malformed::Parts)?;
        if part.len() == length { Ok(part.clone()) } else { Err(Malformed::Parts) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(self.slice(N)?.try_into().expect("the slice is as long"))
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Flags),
        }
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn digest(&mut self) -> Result<Digest, Malformed> {
        self.array()
    }

    pub fn signature(&mut self) -> Result<Signature, Malformed> {
        self.array().map(Signature)
    }

    /// A count of items that take at least `bytes` each here.
    pub fn count(&mut self, max: usize, bytes: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count > max {
            return Err(Malformed::Count(count));
        }
        if count * bytes > self.left() { Err(Malformed::Short) } else { Ok(count) }
    }

    /// Ends the reading.
    pub fn end(&mut self) -> Result<(), Malformed> {
        match (self.left(), self.parts.next()) {
            (0, None) => Ok(()),
            (0, Some(_)) => Err(Malformed::Parts),
            _ => Err(Malformed::Long),
        }
    }
}

/// Appends numbers and the like.
pub(super) trait Put {
    fn put_u8(&mut self, number: u8);
    fn put_flag(&mut self, flag: bool);
    fn put_u32(&mut self, number: u32);
    fn put_u64(&mut self, number: u64);
    fn put_numbers(&mut self, numbers: &[u64]);
    fn put_digest(&mut self, digest: &Digest);
    fn put_signature(&mut self, signature: &Signature);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, number: u8) {
        self.push(number);
    }

    fn put_flag(&mut self, flag: bool) {
        self.push(u8::from(flag));
    }

    fn put_u32(&mut self, number: u32) {
        self.extend_from_slice(&number.to_le_bytes());
    }

    fn put_u64(&mut self, number: u64) {
        self.extend_from_slice(&number.to_le_bytes());
    }

    fn put_numbers(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.put_u64(*number));
    }

    fn put_digest(&mut self, digest: &Digest) {
        self.extend_from_slice(digest);
    }

    fn put_signature(&mut self, signature: &Signature) {
        self.extend_from_slice(&signature.0);
    }
}
