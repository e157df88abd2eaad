//! `.fvecs`, as the ANN benchmark sets have it: before the float32 of each row its length, 32 bits in
//! little endian.

use super::{
    error::{FormatError, Place},
    rows::{self, Rows},
};
use crate::memory::index::DIMENSIONS_MAX;
use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

/// Bytes of a row's length.
const LENGTH_BYTES: u64 = 4;

/// A file that is read row by row; all rows have the length of the first, or reading ends at the one
/// that has not.
pub struct FvecsReader<R> {
    rows: Rows<R>,
    /// What is wrong with the bytes behind the last row that has all of its own.
    tail: Option<String>,
}

impl FvecsReader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read, or its first row has no length that a vector may have.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let (input, file) = rows::open(path)?;
        Self::new(input, file)
    }
}

impl<R: Read + Seek> FvecsReader<R> {
    /// Looks at the first row and at the length of the file; `file` is for the errors.
    ///
    /// # Errors
    /// As [`FvecsReader::open`].
    pub fn new(mut input: R, file: String) -> Result<Self, FormatError> {
        let failed = |error: std::io::Error| FormatError::at(&file, Place::File, error);
        let end = input.seek(SeekFrom::End(0)).map_err(failed)?;
        input.seek(SeekFrom::Start(0)).map_err(failed)?;
        if end == 0 {
            return Ok(Self { rows: Rows::new(input, file, 0, 0, 0), tail: None });
        }
        let mut length = [0; LENGTH_BYTES as usize];
        input.read_exact(&mut length).map_err(failed)?;
        input.seek(SeekFrom::Start(0)).map_err(failed)?;
        let columns = i32::from_le_bytes(length);
        let columns =
            usize::try_from(columns).ok().filter(|columns| (1..=DIMENSIONS_MAX).contains(columns));
        let columns = columns.ok_or_else(|| {
            let length = i32::from_le_bytes(length);
            let problem = format!("has {length} numbers; a vector has 1 to {DIMENSIONS_MAX}");
            FormatError::at(&file, Place::Row(0), problem)
        })?;
        let row_bytes = LENGTH_BYTES + 4 * columns as u64;
        let (rows, left) = (end / row_bytes, end % row_bytes);
        let tail = (left > 0).then(|| tail(&mut input, rows * row_bytes, left, columns));
        let tail = tail.transpose().map_err(failed)?;
        input.seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok(Self { rows: Rows::new(input, file, rows, columns, row_bytes as usize), tail })
    }

    /// How many rows there are, by the file's length; one that is cut off counts.
    pub fn rows(&self) -> u64 {
        self.rows.rows + u64::from(self.tail.is_some())
    }

    /// How many numbers each row has; 0 where there is no row.
    pub fn dimensions(&self) -> usize {
        self.rows.columns
    }

    /// The row that is read next, from zero.
    pub fn position(&self) -> u64 {
        self.rows.next
    }

    /// Goes on at a row; behind the last one nothing is read.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn seek(&mut self, row: u64) -> Result<(), FormatError> {
        self.rows.seek(row)
    }

    /// Reads the next row into `row`, which is overwritten; false behind the last one.
    ///
    /// # Errors
    /// When the file cannot be read, the row has another length than the first, or is cut off.
    pub fn read_row(&mut self, row: &mut Vec<f32>) -> Result<bool, FormatError> {
        if !self.rows.fill()? {
            return self.tail.as_ref().map_or(Ok(false), |problem| Err(self.rows.error(problem)));
        }
        let (numbers, _) = self.rows.bytes.as_chunks::<4>();
        let (length, numbers) = numbers.split_first().expect("a row begins with its length");
        if let Some(problem) = other_length(*length, self.rows.columns) {
            // Where the next row begins nobody knows.
            let error = self.rows.error(&problem);
            self.rows.rows = self.rows.next;
            self.tail = Some(problem);
            return Err(error);
        }
        row.clear();
        row.extend(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        self.rows.next += 1;
        Ok(true)
    }
}

/// What is wrong with the `left` bytes from `at` to the file's end, which are too few for a row.
fn tail(
    input: &mut (impl Read + Seek),
    at: u64,
    left: u64,
    columns: usize,
) -> std::io::Result<String> {
    if left >= LENGTH_BYTES {
        let mut length = [0; LENGTH_BYTES as usize];
        input.seek(SeekFrom::Start(at))?;
        input.read_exact(&mut length)?;
        if let Some(problem) = other_length(length, columns) {
            return Ok(problem);
        }
    }
    Ok(format!("is cut off: the file ends in the middle of a row of {columns} numbers"))
}

/// What is wrong with a row's length, when it is not that of the first row.
fn other_length(length: [u8; LENGTH_BYTES as usize], columns: usize) -> Option<String> {
    let length = i32::from_le_bytes(length);
    (usize::try_from(length) != Ok(columns))
        .then(|| format!("has {length} numbers, the first row has {columns}"))
}
