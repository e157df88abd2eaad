//! Parameters: one map, read field by field in place.

use crate::wire::{
    api::{Error, Priority, TaskSpec},
    id::{AgentId, TaskId},
    msgpack::Reader,
};
use std::{fmt::Display, str::FromStr};

/// The longest key of a submission, bytes.
const KEY_BYTES_MAX: usize = 256;
/// The longest delay of a task, milliseconds: a year.
const DELAY_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1000;
/// Most tasks that one worker may hold.
const CAPACITY_MAX: u64 = 100_000;
/// Most agent types that one worker may serve.
const TYPES_MAX: usize = 64;

/// Walks over the fields of a parameter map.
pub struct Fields<'a> {
    reader: Reader<'a>,
    remaining: u32,
}

impl<'a> Fields<'a> {
    /// The fields of the map that `bytes` begin with.
    pub fn of(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        let remaining =
            reader.map().map_err(|_| Error::Invalid("parameters must be a map".into()))?;
        Ok(Self { reader, remaining })
    }

    /// The next field; what nil means is up to the field.
    pub fn next(&mut self) -> Result<Option<Field<'a>>, Error> {
        if self.remaining == 0 {
            return Ok(None);
        }
        self.remaining -= 1;
        let name = self
            .reader
            .str()
            .map_err(|_| Error::Invalid("parameter names must be strings".into()))?;
        let value = self.reader.raw().map_err(|_| wrong(name, "is not a MessagePack value"))?;
        Ok(Some(Field { name, value }))
    }
}

/// One field of a parameter map.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value, MessagePack.
    pub value: &'a [u8],
}

impl<'a> Field<'a> {
    /// Text that is not empty; nil means absent.
    pub fn text(self) -> Result<Option<&'a str>, Error> {
        let mut reader = Reader::new(self.value);
        if reader.nil() {
            return Ok(None);
        }
        match reader.str() {
            Ok("") => Err(wrong(self.name, "must not be empty")),
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(wrong(self.name, "must be a string")),
        }
    }

    /// An integer of 0 or more; nil means absent.
    pub fn uint(self) -> Result<Option<u64>, Error> {
        let mut reader = Reader::new(self.value);
        if reader.nil() {
            return Ok(None);
        }
        let number = reader.uint();
        number.map(Some).map_err(|_| wrong(self.name, "must be an integer of 0 or more"))
    }

    /// An integer from 0 to `max`; nil means absent.
    pub fn at_most(self, max: u64) -> Result<Option<u64>, Error> {
        match self.uint()? {
            Some(number) if number > max => {
                Err(wrong(self.name, &format!("must be at most {max}")))
            }
            number => Ok(number),
        }
    }

    /// True or false; nil means absent.
    pub fn bool(self) -> Result<Option<bool>, Error> {
        match self.value {
            [0xc0] => Ok(None),
            [0xc2] => Ok(Some(false)),
            [0xc3] => Ok(Some(true)),
            _ => Err(wrong(self.name, "must be true or false")),
        }
    }

    /// An integer of 1 or more; nil means absent.
    pub fn positive(self) -> Result<Option<u64>, Error> {
        match self.uint()? {
            Some(0) => Err(wrong(self.name, "must be 1 or more")),
            number => Ok(number),
        }
    }

    /// An integer from 1 to `max`; nil means absent.
    pub fn positive_at_most(self, max: u64) -> Result<Option<u64>, Error> {
        match self.uint() {
            Ok(Some(number)) if (1..=max).contains(&number) => Ok(Some(number)),
            Ok(None) => Ok(None),
            _ => Err(wrong(self.name, &format!("must be an integer from 1 to {max}"))),
        }
    }

    /// A text that stands for something else.
    pub fn parsed<T: FromStr<Err: Display>>(self) -> Result<Option<T>, Error> {
        let Some(text) = self.text()? else { return Ok(None) };
        text.parse().map(Some).map_err(|error| wrong(self.name, &format!("is not right: {error}")))
    }

    /// So many bytes; nil means absent.
    pub fn bytes<const COUNT: usize>(self) -> Result<Option<[u8; COUNT]>, Error> {
        let mut reader = Reader::new(self.value);
        if reader.nil() {
            return Ok(None);
        }
        let bytes = reader.bin().ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Some).ok_or_else(|| wrong(self.name, &format!("must be {COUNT} bytes")))
    }

    /// Any value, as its bytes.
    pub fn payload(self, bytes_max: usize) -> Result<Vec<u8>, Error> {
        if self.value.len() > bytes_max {
            let (name, len) = (self.name, self.value.len());
            let text = format!("{name} is {len} bytes, the limit is {bytes_max}");
            return Err(Error::TooLarge(text));
        }
        Ok(self.value.to_vec())
    }

    /// The error for a field that the method does not have, which has those that are `known`.
    pub fn unknown_beside(self, known: &str) -> Error {
        wrong(self.name, &format!("is not a field of this method, which has: {known}"))
    }

    /// The error for a field that the method does not have.
    pub fn unknown(self) -> Error {
        wrong(self.name, "is not a field of this method")
    }
}

/// The value of a field that must be there.
pub fn required<T>(name: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| wrong(name, "is missing"))
}

fn wrong(name: &str, what: &str) -> Error {
    // A name can be a megabyte; an error message should not.
    Error::Invalid(format!("{name:.40} {what}"))
}

/// The fields of a task.
pub fn task_spec(params: &[u8], payload_bytes_max: usize) -> Result<TaskSpec, Error> {
    let mut fields = Fields::of(params)?;
    let (mut agent_type, mut payload, mut spec) = (None, None, TaskSpec::default());
    while let Some(field) = fields.next()? {
        match field.name {
            "type" => agent_type = field.text()?.map(str::to_owned),
            "payload" => payload = Some(field.payload(payload_bytes_max)?),
            "priority" => spec.priority = priority(field)?,
            "timeout_ms" => spec.timeout_ms = field.positive()?,
            "max_attempts" => {
                let attempts = field.positive()?.map(u32::try_from).transpose();
                spec.max_attempts = attempts.map_err(|_| wrong(field.name, "is too large"))?;
            }
            "key" => spec.key = key(field)?,
            "delay_ms" => spec.delay_ms = field.at_most(DELAY_MS_MAX)?.unwrap_or(0),
            "durable" => spec.transient = !field.bool()?.unwrap_or(true),
            _ => return Err(field.unknown()),
        }
    }
    spec.agent_type = required("type", agent_type)?;
    spec.payload = required("payload", payload)?;
    Ok(spec)
}

fn key(field: Field<'_>) -> Result<Option<String>, Error> {
    match field.text()? {
        Some(key) if key.len() > KEY_BYTES_MAX => {
            let text = format!("key is {} bytes, the limit is {KEY_BYTES_MAX}", key.len());
            Err(Error::TooLarge(text))
        }
        key => Ok(key.map(str::to_owned)),
    }
}

/// The one field `types` and the number of a registration.
pub fn registration(params: &[u8]) -> Result<(Vec<String>, u32), Error> {
    let (mut fields, mut types, mut capacity) = (Fields::of(params)?, None, None);
    while let Some(field) = fields.next()? {
        match field.name {
            "types" => types = Some(texts(field)?),
            "capacity" => capacity = field.at_most(CAPACITY_MAX)?,
            _ => return Err(field.unknown()),
        }
    }
    let types: Vec<String> = required("types", types)?;
    if types.is_empty() {
        return Err(wrong("types", "must name at least one agent type"));
    }
    match required("capacity", capacity)? {
        0 => Err(wrong("capacity", "must be at least 1")),
        capacity => Ok((types, capacity as u32)),
    }
}

fn texts(field: Field<'_>) -> Result<Vec<String>, Error> {
    let not_texts = |_| wrong(field.name, "must be an array of strings");
    let mut reader = Reader::new(field.value);
    let len = reader.array().map_err(not_texts)?;
    if len as usize > TYPES_MAX {
        return Err(wrong(field.name, "names too many agent types"));
    }
    (0..len).map(|_| reader.str().map(str::to_owned).map_err(not_texts)).collect()
}

fn priority(field: Field<'_>) -> Result<Priority, Error> {
    let Some(name) = field.text()? else { return Ok(Priority::default()) };
    Priority::from_name(name)
        .ok_or_else(|| wrong(field.name, "must be low, normal, high or critical"))
}

/// The one field `id` of a task.
pub fn task_id(params: &[u8]) -> Result<TaskId, Error> {
    only_id(params)
}

/// The one field `id` of an agent.
pub fn agent_id(params: &[u8]) -> Result<AgentId, Error> {
    only_id(params)
}

fn only_id<T: FromStr<Err: Display>>(params: &[u8]) -> Result<T, Error> {
    let (mut fields, mut id) = (Fields::of(params)?, None);
    while let Some(field) = fields.next()? {
        match field.name {
            "id" => id = field.parsed()?,
            _ => return Err(field.unknown()),
        }
    }
    required("id", id)
}
