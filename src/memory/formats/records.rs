//! Any file of vectors, as what is to be stored: the name's end says which it is.

use super::{
    error::{FormatError, Place},
    fvecs::FvecsReader,
    jsonl::JsonlReader,
    npy::NpyReader,
};
use std::{fs::File, io::BufReader, path::Path};

/// What is to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its row, from zero, or its line, from one.
    pub position: u64,
    /// Its name, where the file has one.
    pub key: Option<String>,
    /// The namespace, where the file names one.
    pub namespace: Option<String>,
    /// What it is.
    pub content: Content,
    /// A MessagePack map, or no bytes.
    pub metadata: Vec<u8>,
}

/// A vector, or a text that becomes one.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A vector.
    Vector(Vec<f32>),
    /// A text.
    Text(String),
}

/// A file that is read record by record.
pub enum Records {
    /// `.npy`
    Npy(NpyReader<BufReader<File>>),
    /// `.fvecs`
    Fvecs(FvecsReader<BufReader<File>>),
    /// `.jsonl`
    Jsonl(JsonlReader<BufReader<File>>),
}

impl Records {
    /// Opens a file.
    ///
    /// # Errors
    /// When its name ends in none of `.npy`, `.fvecs` and `.jsonl`, and those of the format.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => NpyReader::open(path).map(Self::Npy),
            Some("fvecs") => FvecsReader::open(path).map(Self::Fvecs),
            Some("jsonl") => JsonlReader::open(path).map(Self::Jsonl),
            _ => {
                let problem = "the name ends in none of .npy, .fvecs and .jsonl";
                Err(FormatError::at(&path.display().to_string(), Place::File, problem))
            }
        }
    }

    /// How many records there are, where that is known.
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Npy(reader) => Some(reader.rows()),
            Self::Fvecs(reader) => Some(reader.rows()),
            Self::Jsonl(_) => None,
        }
    }

    /// How many numbers each row has, where all have the same.
    pub fn dimensions(&self) -> Option<usize> {
        match self {
            Self::Npy(reader) => Some(reader.dimensions()),
            Self::Fvecs(reader) => Some(reader.dimensions()),
            Self::Jsonl(_) => None,
        }
    }

    /// The position of the first record.
    pub fn first(&self) -> u64 {
        u64::from(matches!(self, Self::Jsonl(_)))
    }

    /// What positions count.
    pub fn unit(&self) -> &'static str {
        if matches!(self, Self::Jsonl(_)) { "line" } else { "row" }
    }

    /// Goes on at a position.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn seek(&mut self, position: u64) -> Result<(), FormatError> {
        match self {
            Self::Npy(reader) => reader.seek(position),
            Self::Fvecs(reader) => reader.seek(position),
            Self::Jsonl(reader) => reader.skip_to(position),
        }
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or what is there is no record.
    pub fn read(&mut self) -> Result<Option<Record>, FormatError> {
        let mut vector = Vec::new();
        let (position, is_there) = match self {
            Self::Npy(reader) => (reader.position(), reader.read_row(&mut vector)?),
            Self::Fvecs(reader) => (reader.position(), reader.read_row(&mut vector)?),
            Self::Jsonl(reader) => return reader.read(),
        };
        let content = Content::Vector(vector);
        let record = Record { position, key: None, namespace: None, content, metadata: Vec::new() };
        Ok(is_there.then_some(record))
    }
}
