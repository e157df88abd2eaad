//! Opening a file, and rows of one length in a row: what the formats share.

use super::error::{FormatError, Place};
use std::{
    fs::File,
    io::{BufReader, Read, Seek},
    path::Path,
};

/// Bytes read from the file at once.
const BUFFER_BYTES: usize = 1 << 18;

/// Opens a file; its name as errors tell it.
pub(super) fn open(path: &Path) -> Result<(BufReader<File>, String), FormatError> {
    let file = path.display().to_string();
    let failed = |error: std::io::Error| FormatError::at(&file, Place::File, error);
    let input = File::open(path).map_err(failed)?;
    // A folder can be opened; only reading it fails, with words that name nothing.
    if input.metadata().map_err(failed)?.is_dir() {
        return Err(FormatError::at(&file, Place::File, "is a folder, and a file is wanted"));
    }
    Ok((BufReader::with_capacity(BUFFER_BYTES, input), file))
}

/// Rows that are read one after the other.
pub(super) struct Rows<R> {
    input: R,
    file: String,
    /// How many there are.
    pub rows: u64,
    /// How many numbers each has.
    pub columns: usize,
    /// The one that is read next, from zero.
    pub next: u64,
    /// The bytes of the last one that was read.
    pub bytes: Vec<u8>,
}

impl<R: Read + Seek> Rows<R> {
    /// Rows of `row_bytes` each; `input` is at the first one.
    pub fn new(input: R, file: String, rows: u64, columns: usize, row_bytes: usize) -> Self {
        Self { input, file, rows, columns, next: 0, bytes: vec![0; row_bytes] }
    }

    /// Goes on at a row; behind the last one nothing is read.
    pub fn seek(&mut self, row: u64) -> Result<(), FormatError> {
        let row = row.min(self.rows);
        let rows = row as i64 - self.next as i64;
        let moved = self.input.seek_relative(rows * self.bytes.len() as i64);
        moved.map_err(|error| self.error(error))?;
        self.next = row;
        Ok(())
    }

    /// Reads the bytes of the next row, which is still the next one; false behind the last one.
    pub fn fill(&mut self) -> Result<bool, FormatError> {
        if self.next == self.rows {
            return Ok(false);
        }
        self.input
            .read_exact(&mut self.bytes)
            .map_err(|error| FormatError::at(&self.file, Place::Row(self.next), error))?;
        Ok(true)
    }

    /// An error in the next row.
    pub fn error(&self, problem: impl std::fmt::Display) -> FormatError {
        FormatError::at(&self.file, Place::Row(self.next), problem)
    }
}
