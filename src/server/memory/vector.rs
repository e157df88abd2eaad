//! A vector as a client sends it: an array of numbers, or the bytes of float32 in little endian.

use crate::{
    server::params::Field,
    wire::{
        api::Error,
        msgpack::{Reader, Value, write},
    },
};

/// The longest vector: that of the largest dimension.
const NUMBERS_MAX: usize = 4096;

/// Reads a vector; its dimension is judged later.
pub fn read(field: Field<'_>) -> Result<Vec<f32>, Error> {
    let wrong = || {
        let text = "must be an array of numbers, or bytes of little-endian float32";
        Error::Invalid(format!("{} {text}", field.name))
    };
    let too_long = |len: usize| {
        let text = format!("{} has {len} numbers, at most {NUMBERS_MAX} are read", field.name);
        Error::Invalid(text)
    };
    let mut reader = Reader::new(field.value);
    let vector: Vec<f32> = match reader.head().map_err(|_| wrong())? {
        Value::Bin(len) => {
            let bytes = reader.body(len).map_err(|_| wrong())?;
            let (numbers, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                let text = format!("{} has {len} bytes, and a float32 has four", field.name);
                return Err(Error::Invalid(text));
            }
            if numbers.len() > NUMBERS_MAX {
                return Err(too_long(numbers.len()));
            }
            numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        Value::Array(len) if len as usize > NUMBERS_MAX => return Err(too_long(len as usize)),
        Value::Array(len) => {
            let mut number = || match reader.head() {
                Ok(Value::Float(number)) => Ok(number as f32),
                Ok(Value::Uint(number)) => Ok(number as f32),
                Ok(Value::Int(number)) => Ok(number as f32),
                _ => Err(wrong()),
            };
            (0..len).map(|_| number()).collect::<Result<_, _>>()?
        }
        _ => return Err(wrong()),
    };
    if vector.is_empty() {
        return Err(Error::Invalid(format!("{} is empty", field.name)));
    }
    match vector.iter().position(|number| !number.is_finite()) {
        Some(place) => {
            Err(Error::Invalid(format!("{}[{place}] is not finite in float32", field.name)))
        }
        None => Ok(vector),
    }
}

/// Appends a vector as an array of float32.
pub fn write(out: &mut Vec<u8>, vector: &[f32]) {
    write::array(out, vector.len());
    vector.iter().for_each(|number| write::float32(out, *number));
}
