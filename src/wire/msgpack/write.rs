//! Writes MessagePack values at the end of a buffer, each in its shortest form.

use rmp::encode::{self, RmpWrite};

/// Memory takes every write: rmp's results cannot be errors here.
const INFALLIBLE: &str = "a buffer in memory takes every write";

/// Text.
pub fn str(out: &mut Vec<u8>, text: &str) {
    encode::write_str(out, text).expect(INFALLIBLE);
}

/// Text of which only the bytes are at hand: all of them ASCII.
pub fn ascii(out: &mut Vec<u8>, text: &[u8]) {
    encode::write_str_len(out, length(text.len())).expect(INFALLIBLE);
    raw(out, text);
}

/// Bytes.
pub fn bin(out: &mut Vec<u8>, bytes: &[u8]) {
    encode::write_bin(out, bytes).expect(INFALLIBLE);
}

/// A number of 0 or more.
pub fn uint(out: &mut Vec<u8>, number: u64) {
    encode::write_uint(out, number).expect(INFALLIBLE);
}

/// A number of any sign.
pub fn int(out: &mut Vec<u8>, number: i64) {
    encode::write_sint(out, number).expect(INFALLIBLE);
}

/// A 64 bit floating point number.
pub fn float(out: &mut Vec<u8>, number: f64) {
    encode::write_f64(out, number).expect(INFALLIBLE);
}

/// A 32 bit floating point number.
pub fn float32(out: &mut Vec<u8>, number: f32) {
    encode::write_f32(out, number).expect(INFALLIBLE);
}

/// True or false.
pub fn bool(out: &mut Vec<u8>, value: bool) {
    encode::write_bool(out, value).expect(INFALLIBLE);
}

/// Nothing.
pub fn nil(out: &mut Vec<u8>) {
    encode::write_nil(out).expect(INFALLIBLE);
}

/// The head of an array of `len` values, which follow.
pub fn array(out: &mut Vec<u8>, len: usize) {
    encode::write_array_len(out, length(len)).expect(INFALLIBLE);
}

/// The head of a map of `pairs` pairs, which follow.
pub fn map(out: &mut Vec<u8>, pairs: usize) {
    encode::write_map_len(out, length(pairs)).expect(INFALLIBLE);
}

/// A whole value that is MessagePack already.
pub fn raw(out: &mut Vec<u8>, value: &[u8]) {
    out.write_bytes(value).expect(INFALLIBLE);
}

/// MessagePack counts in 32 bits; requests and answers are bounded far below that.
fn length(len: usize) -> u32 {
    u32::try_from(len).expect("a value of more than 4 billion parts cannot have been built")
}
