//! Requests from parameters: one map, unknown fields refused by name.

use super::{MemoryRequest, vector};
use crate::{
    server::params::{Field, Fields, required},
    wire::{
        api::Error,
        memory::{
            DEFAULT_NAMESPACE, EF_MAX, FILTER_BYTES_MAX, K_MAX, KEY_BYTES_MAX, METADATA_BYTES_MAX,
            METADATA_FIELDS_MAX, MemoryItem, MemoryQuery, NAMESPACE_BYTES_MAX, TEXT_BYTES_MAX,
        },
        msgpack::Reader,
    },
};
use std::collections::{HashSet, VecDeque};

/// The method that stores many items.
const BATCH_METHOD: &str = "memory.put_batch";
/// Hits of a search that does not say how many.
const K_DEFAULT: u64 = 10;
/// Items in one part of a list that does not say how many.
const LIMIT_DEFAULT: u64 = 100;
/// The most items in one part of a list.
const LIMIT_MAX: u64 = 1000;
/// The most searches that recall is estimated with: each costs an exhaustive scan.
const SAMPLE_MAX: u64 = 1000;
/// Names that are compared by putting them in order.
const FEW_NAMES: usize = 64;
/// The most items in one batch.
const BATCH_MAX: u32 = 10_000;

/// Reads the parameters of a method of the memory; `None` when there is no such method.
pub fn parse(method: &str, params: &[u8]) -> Result<Option<MemoryRequest>, Error> {
    Ok(Some(match method {
        "memory.put" => MemoryRequest::Put(item(params)?),
        BATCH_METHOD => MemoryRequest::PutBatch(Batch::new(params.to_vec())?),
        "memory.get" => get(params, true)?,
        // The same for models, which read every number that they are shown.
        "memory.retrieve" => get(params, false)?,
        "memory.search" => search(params)?,
        "memory.delete" => {
            let (namespace, key, _) = name(params, None)?;
            MemoryRequest::Delete { namespace, key }
        }
        "memory.list" => list(params)?,
        "memory.stats" => stats(params)?,
        _ => return Ok(None),
    }))
}

/// The items of a batch: those that were read, and then those that are as a client sent them, each read by
/// itself when it is its turn, for there may be many.
#[derive(Debug)]
pub struct Batch {
    read: VecDeque<Result<MemoryItem, Error>>,
    bytes: Vec<u8>,
    /// Where the next item begins that was not read.
    next: usize,
    /// Items that were not read.
    len: u32,
}

impl Batch {
    /// The batch that parameters are.
    ///
    /// # Errors
    /// When there is no array of items, or it is too long.
    fn new(params: Vec<u8>) -> Result<Self, Error> {
        let (items, len) = items(&params)?;
        // What follows the array is within the parameters.
        let next = items.as_ptr() as usize - params.as_ptr() as usize;
        Ok(Self { read: VecDeque::new(), bytes: params, next, len })
    }

    /// Items that are left.
    pub fn len(&self) -> usize {
        self.read.len() + self.len as usize
    }

    /// Reads all items at once, so that each is there when it is its turn.
    pub fn read_all(&mut self) {
        let mut read = std::mem::take(&mut self.read);
        read.reserve(self.len as usize);
        read.extend(std::iter::from_fn(|| self.read_next()));
        *self = Self { read, bytes: Vec::new(), next: 0, len: 0 };
    }

    /// The next item, or what is wrong with it.
    pub fn next(&mut self) -> Option<Result<MemoryItem, Error>> {
        self.read.pop_front().or_else(|| self.read_next())
    }

    fn read_next(&mut self) -> Option<Result<MemoryItem, Error>> {
        self.len = self.len.checked_sub(1)?;
        let mut reader = Reader::new(&self.bytes[self.next..]);
        let Ok(one) = reader.raw() else {
            self.len = 0;
            return Some(Err(Error::Invalid("items must be an array of maps".into())));
        };
        self.next += one.len();
        Some(match Reader::new(one).map() {
            Ok(_) => item(one),
            Err(_) => Err(Error::Invalid("an item must be a map".into())),
        })
    }
}

/// What follows the head of an array of items, and how many there are.
fn array<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], u32), Error> {
    let not_array = |_| Error::Invalid("items must be an array of maps".into());
    let len = reader.array().map_err(not_array)?;
    match len > BATCH_MAX {
        true => Err(Error::TooLarge(format!("a batch has at most {BATCH_MAX} items"))),
        false => Ok((reader.rest(), len)),
    }
}

/// The same of the items of a batch.
fn items(params: &[u8]) -> Result<(&[u8], u32), Error> {
    let mut only = Reader::new(params);
    if only.map() == Ok(1) && only.str() == Ok("items") {
        // Where nothing else is, nobody needs to know where the items end.
        return array(&mut only);
    }
    let (mut fields, mut items) = (Fields::of(params)?, None);
    while let Some(field) = fields.next()? {
        if field.name != "items" {
            return Err(field.unknown_beside("items"));
        }
        items = Some(array(&mut Reader::new(field.value))?);
    }
    required("items", items)
}

/// An item to store; without a key it gets one that no other has.
fn item(params: &[u8]) -> Result<MemoryItem, Error> {
    let mut fields = Fields::of(params)?;
    let (mut key, mut content) = (None, Content::default());
    let mut item = MemoryItem { namespace: DEFAULT_NAMESPACE.into(), ..MemoryItem::default() };
    while let Some(field) = fields.next()? {
        match field.name {
            "key" => key = limited(field, KEY_BYTES_MAX)?,
            "namespace" => {
                item.namespace = limited(field, NAMESPACE_BYTES_MAX)?.unwrap_or(item.namespace);
            }
            "vector" | "text" => content.read(field)?,
            "metadata" => item.metadata = map(field, METADATA_BYTES_MAX)?,
            _ => return Err(field.unknown_beside("key, vector, text, namespace, metadata")),
        }
    }
    item.key = key.unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)));
    (item.vector, item.text) = content.one()?;
    Ok(item)
}

/// What is stored or searched for: a vector, or a text that becomes one.
#[derive(Default)]
struct Content {
    vector: Option<Vec<f32>>,
    text: Option<String>,
}

impl Content {
    fn read(&mut self, field: Field<'_>) -> Result<(), Error> {
        if Reader::new(field.value).nil() {
            return Ok(());
        }
        match field.name {
            "vector" => self.vector = Some(vector::read(field)?),
            _ => self.text = limited(field, TEXT_BYTES_MAX)?,
        }
        Ok(())
    }

    /// The vector, or none and the text.
    fn one(self) -> Result<(Vec<f32>, Option<String>), Error> {
        match (self.vector, self.text) {
            (Some(vector), None) => Ok((vector, None)),
            (None, Some(text)) => Ok((Vec::new(), Some(text))),
            (None, None) => Err(Error::Invalid("vector or text is missing".into())),
            (Some(_), Some(_)) => Err(Error::Invalid(
                "vector and text are both there, and one of them is wanted: text beside a vector \
                 belongs into metadata"
                    .into(),
            )),
        }
    }
}

fn get(params: &[u8], vector_default: bool) -> Result<MemoryRequest, Error> {
    let (namespace, key, with_vector) = name(params, Some(vector_default))?;
    Ok(MemoryRequest::Get { namespace, key, with_vector })
}

/// The name of an item, and with a default the field `vector`.
fn name(params: &[u8], vector_default: Option<bool>) -> Result<(String, String, bool), Error> {
    let (mut fields, mut key, mut namespace) = (Fields::of(params)?, None, None);
    let mut with_vector = vector_default.unwrap_or(false);
    while let Some(field) = fields.next()? {
        match field.name {
            "key" => key = limited(field, KEY_BYTES_MAX)?,
            "namespace" => namespace = limited(field, NAMESPACE_BYTES_MAX)?,
            "vector" if vector_default.is_some() => {
                with_vector = field.bool()?.unwrap_or(with_vector);
            }
            _ if vector_default.is_some() => {
                return Err(field.unknown_beside("key, namespace, vector"));
            }
            _ => return Err(field.unknown_beside("key, namespace")),
        }
    }
    let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.into());
    Ok((namespace, required("key", key)?, with_vector))
}

fn search(params: &[u8]) -> Result<MemoryRequest, Error> {
    let (mut fields, mut content) = (Fields::of(params)?, Content::default());
    let mut query = MemoryQuery { k: K_DEFAULT as u32, ..MemoryQuery::default() };
    while let Some(field) = fields.next()? {
        match field.name {
            "vector" | "text" => content.read(field)?,
            "k" => {
                query.k = field.positive_at_most(K_MAX.into())?.unwrap_or(K_DEFAULT) as u32;
            }
            "ef" => query.ef = field.positive_at_most(EF_MAX.into())?.map(|ef| ef as u32),
            "namespace" => query.namespace = limited(field, NAMESPACE_BYTES_MAX)?,
            "filter" => query.filter = map(field, FILTER_BYTES_MAX)?,
            _ => return Err(field.unknown_beside("vector, text, k, ef, namespace, filter")),
        }
    }
    let (vector, text) = content.one()?;
    query.vector = vector;
    Ok(MemoryRequest::Search { query, text })
}

fn list(params: &[u8]) -> Result<MemoryRequest, Error> {
    let (mut fields, mut namespace, mut cursor) = (Fields::of(params)?, None, None);
    let mut limit = LIMIT_DEFAULT;
    while let Some(field) = fields.next()? {
        match field.name {
            "namespace" => namespace = limited(field, NAMESPACE_BYTES_MAX)?,
            "cursor" => cursor = field.text()?.map(str::to_owned),
            "limit" => limit = field.positive_at_most(LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT),
            _ => return Err(field.unknown_beside("namespace, cursor, limit")),
        }
    }
    Ok(MemoryRequest::List { namespace, cursor, limit: limit as u32 })
}

fn stats(params: &[u8]) -> Result<MemoryRequest, Error> {
    let (mut fields, mut sample) = (Fields::of(params)?, 0);
    while let Some(field) = fields.next()? {
        match field.name {
            "sample" => sample = field.at_most(SAMPLE_MAX)?.unwrap_or(0),
            _ => return Err(field.unknown_beside("sample")),
        }
    }
    Ok(MemoryRequest::Stats { sample: sample as u32 })
}

/// A text that is not empty and not too long; nil means absent.
fn limited(field: Field<'_>, bytes_max: usize) -> Result<Option<String>, Error> {
    match field.text()? {
        Some(text) if text.len() > bytes_max => {
            let (name, len) = (field.name, text.len());
            Err(Error::TooLarge(format!("{name} is {len} bytes, the limit is {bytes_max}")))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

/// A name that is there twice.
fn repeated<'a>(names: &mut [&'a str]) -> Option<&'a str> {
    if names.len() > FEW_NAMES {
        // To put a thousand in order takes twice as long.
        let mut seen = HashSet::with_capacity(names.len());
        return names.iter().find(|name| !seen.insert(**name)).copied();
    }
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// A map with text keys, each of them once, as its bytes; none for nil and for an empty one.
fn map(field: Field<'_>, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let wrong = || Error::Invalid(format!("{} must be a map with text keys", field.name));
    let mut reader = Reader::new(field.value);
    if reader.nil() {
        return Ok(Vec::new());
    }
    let len = reader.map().map_err(|_| wrong())?;
    // What is too long is not looked into.
    let bytes = field.payload(bytes_max)?;
    if len > METADATA_FIELDS_MAX {
        let text = format!("{} has {len} fields; allowed: {METADATA_FIELDS_MAX}", field.name);
        return Err(Error::Invalid(text));
    }
    let mut names = Vec::with_capacity(len as usize);
    for _ in 0..len {
        names.push(reader.str().map_err(|_| wrong())?);
        reader.raw().map_err(|_| wrong())?;
    }
    if let Some(name) = repeated(&mut names) {
        return Err(Error::Invalid(format!("{} has the key {name:.40} twice", field.name)));
    }
    if len == 0 { Ok(Vec::new()) } else { Ok(bytes) }
}
