//! The first bytes of a value: what it is, and how long its body is.

use rmp::Marker;

/// A value without its body: scalars are whole, the others say how much follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// True or false.
    Bool(bool),
    /// A number of 0 or more.
    Uint(u64),
    /// A number below 0, or one that its writer marked as signed.
    Int(i64),
    /// A floating point number; 32 bit ones are widened.
    Float(f64),
    /// Text of that many bytes.
    Str(u32),
    /// That many bytes.
    Bin(u32),
    /// An extension: its type and its length in bytes.
    Ext(i8, u32),
    /// That many values.
    Array(u32),
    /// That many pairs of values.
    Map(u32),
}

impl Value {
    /// Bytes that follow the head and belong to this value alone.
    pub const fn body_len(self) -> usize {
        match self {
            Self::Str(len) | Self::Bin(len) | Self::Ext(_, len) => len as usize,
            _ => 0,
        }
    }

    /// Values that follow the head.
    pub const fn children(self) -> u64 {
        match self {
            Self::Array(len) => len as u64,
            Self::Map(pairs) => pairs as u64 * 2,
            _ => 0,
        }
    }
}

/// A decoded head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// What begins here.
    pub value: Value,
    /// Bytes of the head itself.
    pub len: usize,
}

/// Why no head could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHead {
    /// The bytes end too early.
    Short,
    /// The byte 0xc1, which MessagePack never uses.
    Reserved,
}

impl Head {
    /// Reads the head at the start of `bytes`.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Result<Self, NoHead> {
        // Nearly all heads are one byte long: those are read where they are wanted.
        let value = match bytes.first() {
            Some(&first @ 0x00..=0x7f) => Value::Uint(first.into()),
            Some(&first @ 0x80..=0x8f) => Value::Map((first & 15).into()),
            Some(&first @ 0x90..=0x9f) => Value::Array((first & 15).into()),
            Some(&first @ 0xa0..=0xbf) => Value::Str((first & 31).into()),
            Some(_) => return Self::read_long(bytes),
            None => return Err(NoHead::Short),
        };
        Ok(Self { value, len: 1 })
    }

    fn read_long(bytes: &[u8]) -> Result<Self, NoHead> {
        let (&first, rest) = bytes.split_first().ok_or(NoHead::Short)?;
        let (value, extra) = match Marker::from_u8(first) {
            Marker::FixPos(number) => (Value::Uint(number.into()), 0),
            Marker::FixNeg(number) => (Value::Int(number.into()), 0),
            Marker::FixMap(len) => (Value::Map(len.into()), 0),
            Marker::FixArray(len) => (Value::Array(len.into()), 0),
            Marker::FixStr(len) => (Value::Str(len.into()), 0),
            Marker::Null => (Value::Nil, 0),
            Marker::True => (Value::Bool(true), 0),
            Marker::False => (Value::Bool(false), 0),
            Marker::Reserved => return Err(NoHead::Reserved),
            Marker::U8 => (Value::Uint(u8::from_be_bytes(take(rest)?).into()), 1),
            Marker::U16 => (Value::Uint(u16::from_be_bytes(take(rest)?).into()), 2),
            Marker::U32 => (Value::Uint(u32::from_be_bytes(take(rest)?).into()), 4),
            Marker::U64 => (Value::Uint(u64::from_be_bytes(take(rest)?)), 8),
            Marker::I8 => (Value::Int(i8::from_be_bytes(take(rest)?).into()), 1),
            Marker::I16 => (Value::Int(i16::from_be_bytes(take(rest)?).into()), 2),
            Marker::I32 => (Value::Int(i32::from_be_bytes(take(rest)?).into()), 4),
            Marker::I64 => (Value::Int(i64::from_be_bytes(take(rest)?)), 8),
            Marker::F32 => (Value::Float(f32::from_be_bytes(take(rest)?).into()), 4),
            Marker::F64 => (Value::Float(f64::from_be_bytes(take(rest)?)), 8),
            Marker::Str8 => (Value::Str(u8::from_be_bytes(take(rest)?).into()), 1),
            Marker::Str16 => (Value::Str(u16::from_be_bytes(take(rest)?).into()), 2),
            Marker::Str32 => (Value::Str(u32::from_be_bytes(take(rest)?)), 4),
            Marker::Bin8 => (Value::Bin(u8::from_be_bytes(take(rest)?).into()), 1),
            Marker::Bin16 => (Value::Bin(u16::from_be_bytes(take(rest)?).into()), 2),
            Marker::Bin32 => (Value::Bin(u32::from_be_bytes(take(rest)?)), 4),
            Marker::Array16 => (Value::Array(u16::from_be_bytes(take(rest)?).into()), 2),
            Marker::Array32 => (Value::Array(u32::from_be_bytes(take(rest)?)), 4),
            Marker::Map16 => (Value::Map(u16::from_be_bytes(take(rest)?).into()), 2),
            Marker::Map32 => (Value::Map(u32::from_be_bytes(take(rest)?)), 4),
            Marker::FixExt1 => (ext(rest, 0, 1)?, 1),
            Marker::FixExt2 => (ext(rest, 0, 2)?, 1),
            Marker::FixExt4 => (ext(rest, 0, 4)?, 1),
            Marker::FixExt8 => (ext(rest, 0, 8)?, 1),
            Marker::FixExt16 => (ext(rest, 0, 16)?, 1),
            Marker::Ext8 => (ext(rest, 1, u8::from_be_bytes(take(rest)?).into())?, 2),
            Marker::Ext16 => (ext(rest, 2, u16::from_be_bytes(take(rest)?).into())?, 3),
            Marker::Ext32 => (ext(rest, 4, u32::from_be_bytes(take(rest)?))?, 5),
        };
        Ok(Self { value, len: 1 + extra })
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<[u8; N], NoHead> {
    bytes.first_chunk().copied().ok_or(NoHead::Short)
}

/// The extension whose type byte is at `rest[at]`.
fn ext(rest: &[u8], at: usize, len: u32) -> Result<Value, NoHead> {
    let kind = *rest.get(at).ok_or(NoHead::Short)?;
    Ok(Value::Ext(kind as i8, len))
}
