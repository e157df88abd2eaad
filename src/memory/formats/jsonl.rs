//! One JSON object a line: `{"key"?,"vector"|"text","namespace"?,"metadata"?}`.

use super::{
    error::{FormatError, Place},
    records::{Content, Record},
    rows,
};
use crate::wire::json::{self, Document, Json};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
};

/// The longest line, bytes: room for the longest vector, text and metadata, escapes among it.
const LINE_BYTES_MAX: usize = 2 << 20;
/// A file that is read line by line; lines of blanks only are passed over.
pub struct JsonlReader<R> {
    input: R,
    file: String,
    /// The line that was read last, from one.
    line: u64,
    bytes: Vec<u8>,
}

impl JsonlReader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let (input, file) = rows::open(path)?;
        Ok(Self::new(input, file))
    }
}

impl<R: BufRead> JsonlReader<R> {
    /// Reads lines from `input`; `file` is for the errors.
    pub fn new(input: R, file: String) -> Self {
        Self { input, file, line: 0, bytes: Vec::new() }
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read; when a line is no record, and then the next one can be read.
    pub fn read(&mut self) -> Result<Option<Record>, FormatError> {
        while self.fill()? {
            if !self.bytes.iter().all(u8::is_ascii_whitespace) {
                let record = record(self.line, &mut self.bytes);
                return record.map(Some).map_err(|problem| self.error(problem).passable());
            }
        }
        Ok(None)
    }

    /// Passes over lines until `line` is the next, counted from one.
    ///
    /// # Errors
    /// When the file cannot be read, or has fewer lines before that one.
    pub fn skip_to(&mut self, line: u64) -> Result<(), FormatError> {
        while self.line + 1 < line {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => {
                    let problem = format!("has {} lines, counted from 1", self.line - 1);
                    return Err(FormatError::at(&self.file, Place::File, problem));
                }
                Err(error) if error.goes_on => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the bytes of the next line; false at the end.
    fn fill(&mut self) -> Result<bool, FormatError> {
        self.bytes.clear();
        self.line += 1;
        let mut limited = self.input.by_ref().take(LINE_BYTES_MAX as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.bytes);
        let read = read.map_err(|error| self.error(error))?;
        if self.bytes.len() > LINE_BYTES_MAX {
            let error = self.error(format!("is longer than {LINE_BYTES_MAX} bytes"));
            if !self.bytes.ends_with(b"\n") {
                self.input.skip_until(b'\n').map_err(|error| self.error(error))?;
            }
            return Err(error.passable());
        }
        Ok(read > 0)
    }

    fn error(&self, problem: impl std::fmt::Display) -> FormatError {
        FormatError::at(&self.file, Place::Line(self.line), problem)
    }
}

/// The record of a line.
fn record(position: u64, line: &mut [u8]) -> Result<Record, String> {
    let document = Document::parse(line, LINE_BYTES_MAX).map_err(|error| format!("is {error}"))?;
    let root = document.root();
    if !root.is_object() {
        return Err("is no JSON object".into());
    }
    let (mut key, mut namespace, mut metadata) = (None, None, Vec::new());
    let (mut vector, mut text) = (None, None);
    for (name, value) in root.fields().filter(|(_, value)| !value.is_null()) {
        let string = || {
            let string = value.as_str().map(str::to_owned);
            string.ok_or_else(|| format!("{name} must be a string"))
        };
        match name {
            "key" => key = Some(string()?),
            "namespace" => namespace = Some(string()?),
            "text" => text = Some(string()?),
            "vector" => vector = Some(numbers(value)?),
            "metadata" if value.is_object() => json::to_msgpack(value, &mut metadata),
            "metadata" => return Err("metadata must be an object".into()),
            _ => {
                let known = "key, vector, text, namespace, metadata";
                return Err(format!("{name:.40} is not a field of a record, which has: {known}"));
            }
        }
    }
    let content = match (vector, text) {
        (Some(vector), None) => Content::Vector(vector),
        (None, Some(text)) => Content::Text(text),
        (None, None) => return Err("vector or text is missing".into()),
        (Some(_), Some(_)) => return Err("vector and text are both there".into()),
    };
    Ok(Record { position, key, namespace, content, metadata })
}

fn numbers(value: Json<'_, '_>) -> Result<Vec<f32>, String> {
    let wrong = || "vector must be an array of numbers".to_owned();
    if !value.is_array() {
        return Err(wrong());
    }
    value.items().map(|number| number.as_f64().map(|it| it as f32).ok_or_else(wrong)).collect()
}

/// Writes a record as a line.
///
/// # Errors
/// When it cannot be written, or the metadata have no JSON form.
pub fn write_line(out: &mut impl Write, record: &Record) -> std::io::Result<()> {
    let mut line = vec![b'{'];
    let mut field = |name: &str, value: &dyn Fn(&mut Vec<u8>)| {
        if line.len() > 1 {
            line.push(b',');
        }
        json::string(&mut line, name);
        line.push(b':');
        value(&mut line);
    };
    if let Some(key) = &record.key {
        field("key", &|line| json::string(line, key));
    }
    if let Some(namespace) = &record.namespace {
        field("namespace", &|line| json::string(line, namespace));
    }
    match &record.content {
        Content::Text(text) => field("text", &|line| json::string(line, text)),
        Content::Vector(vector) => field("vector", &|line| {
            // The shortest digits that are read as the same float32.
            let numbers: Vec<_> = vector.iter().map(f32::to_string).collect();
            line.extend_from_slice(format!("[{}]", numbers.join(",")).as_bytes());
        }),
    }
    if !record.metadata.is_empty() {
        let mut metadata = Vec::new();
        json::from_msgpack(&record.metadata, &mut metadata).map_err(std::io::Error::other)?;
        field("metadata", &|line| line.extend_from_slice(&metadata));
    }
    line.extend_from_slice(b"}\n");
    out.write_all(&line)
}
