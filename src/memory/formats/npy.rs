//! NumPy's `.npy` (its *NPY format* specification, versions 1 to 3): a head that says what the array is,
//! then its numbers.
//!
//! Read are little-endian arrays in C order with one or two dimensions; a head that says otherwise is
//! refused with what to do. One dimension is one row.

use super::{
    error::{FormatError, Place},
    rows::{self, Rows},
};
use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The longest head that is read: one of a plain array has 128 bytes.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// Numbers in a row at most: far more than a vector has.
const COLUMNS_MAX: u64 = 1 << 20;
/// Bytes written to the file at once.
const BUFFER_BYTES: usize = 1 << 18;
/// Bytes of a head that is written; a multiple of 64, with room for any number of rows.
const HEAD_BYTES: usize = 128;

/// What the numbers of an array are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Float16,
    Float32,
    Int32,
    Int64,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name {
            "<f2" => Some(Self::Float16),
            "<f4" => Some(Self::Float32),
            "<i4" | "<u4" => Some(Self::Int32),
            "<i8" | "<u8" => Some(Self::Int64),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Float16 => 2,
            Self::Float32 | Self::Int32 => 4,
            Self::Int64 => 8,
        }
    }
}

/// An array that is read row by row.
pub struct NpyReader<R> {
    kind: Kind,
    rows: Rows<R>,
}

impl NpyReader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read, is no array of rows, or is not as long as its head says.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let (input, file) = rows::open(path)?;
        Self::new(input, file)
    }
}

impl<R: Read + Seek> NpyReader<R> {
    /// Reads the head of an array; `file` is for the errors.
    ///
    /// # Errors
    /// As [`NpyReader::open`].
    pub fn new(mut input: R, file: String) -> Result<Self, FormatError> {
        let refuse = |problem: &str| FormatError::at(&file, Place::File, problem);
        let failed = |error: std::io::Error| FormatError::at(&file, Place::File, error);
        let head = head(&mut input).map_err(|problem| refuse(&problem))?;
        let head = Head::parse(&head).map_err(|problem| refuse(&problem))?;
        let start = input.stream_position().map_err(failed)?;
        let end = input.seek(SeekFrom::End(0)).map_err(failed)?;
        input.seek(SeekFrom::Start(start)).map_err(failed)?;
        let row_bytes = head.columns * head.kind.bytes() as u64;
        if head.rows.checked_mul(row_bytes) != Some(end - start) {
            let (rows, there) = (head.rows, (end - start) / row_bytes);
            return Err(refuse(&format!(
                "its head tells of {rows} rows of {row_bytes} bytes, and it has {there} of them in \
                 {} bytes",
                end - start
            )));
        }
        let (columns, row_bytes) = (head.columns as usize, row_bytes as usize);
        let rows = Rows::new(input, file, head.rows, columns, row_bytes);
        Ok(Self { kind: head.kind, rows })
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.rows.rows
    }

    /// How many numbers each row has.
    pub fn dimensions(&self) -> usize {
        self.rows.columns
    }

    /// Whether its numbers are integers, and not floats.
    pub fn has_integers(&self) -> bool {
        matches!(self.kind, Kind::Int32 | Kind::Int64)
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

    /// Reads the next row of floats into `row`, which is overwritten; false behind the last one.
    ///
    /// # Errors
    /// When the file cannot be read or holds integers.
    pub fn read_row(&mut self, row: &mut Vec<f32>) -> Result<bool, FormatError> {
        if self.has_integers() {
            return Err(self.rows.error("holds integers, not the float16 or float32 of vectors"));
        }
        if !self.fill()? {
            return Ok(false);
        }
        row.clear();
        match self.kind {
            Kind::Float16 => row.extend(numbers::<2>(&self.rows.bytes).map(from_half)),
            _ => row.extend(numbers::<4>(&self.rows.bytes).map(f32::from_le_bytes)),
        }
        Ok(true)
    }

    /// Reads the next row of integers into `row`, which is overwritten; false behind the last one.
    /// Unsigned numbers beyond the signed range come out negative.
    ///
    /// # Errors
    /// When the file cannot be read or holds floats.
    pub fn read_integers(&mut self, row: &mut Vec<i64>) -> Result<bool, FormatError> {
        if !self.has_integers() {
            return Err(self.rows.error("holds floats, not integers"));
        }
        if !self.fill()? {
            return Ok(false);
        }
        row.clear();
        match self.kind {
            Kind::Int32 => {
                row.extend(
                    numbers(&self.rows.bytes).map(|bytes| i64::from(i32::from_le_bytes(bytes))),
                );
            }
            _ => row.extend(numbers::<8>(&self.rows.bytes).map(i64::from_le_bytes)),
        }
        Ok(true)
    }

    /// Reads the bytes of the next row; false behind the last one.
    fn fill(&mut self) -> Result<bool, FormatError> {
        let is_filled = self.rows.fill()?;
        self.rows.next += u64::from(is_filled);
        Ok(is_filled)
    }
}

/// The numbers of a row, each of `BYTES` bytes.
fn numbers<const BYTES: usize>(row: &[u8]) -> impl Iterator<Item = [u8; BYTES]> {
    row.as_chunks::<BYTES>().0.iter().copied()
}

/// A float16 (IEEE 754 binary16) as float32, which has every one of them.
fn from_half(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let (sign, exponent, fraction) = (bits >> 15 << 31, bits >> 10 & 0x1f, bits & 0x3ff);
    match exponent {
        0 => {
            let least = f32::from_bits((127 - 24) << 23);
            f32::from_bits((fraction as f32 * least).to_bits() | sign)
        }
        0x1f => f32::from_bits(sign | 0xff << 23 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 127 - 15) << 23 | fraction << 13),
    }
}

/// Reads the text that describes the array; the input is at the first number afterwards.
fn head(input: &mut impl Read) -> Result<String, String> {
    let mut start = [0; 8];
    let read = input.read_exact(&mut start);
    if read.is_err() || &start[..6] != MAGIC {
        return Err("is no NumPy array: it does not begin with \"\\x93NUMPY\"".into());
    }
    let mut length = [0; 4];
    let length_bytes = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(format!("has the format version {version}, which is not known")),
    };
    let ends = |error: std::io::Error| format!("its head cannot be read: {error}");
    input.read_exact(&mut length[..length_bytes]).map_err(ends)?;
    let length = u64::from(u32::from_le_bytes(length));
    if length > HEAD_BYTES_MAX {
        return Err(format!("its head is {length} bytes, at most {HEAD_BYTES_MAX} are read"));
    }
    let mut text = vec![0; length as usize];
    input.read_exact(&mut text).map_err(ends)?;
    String::from_utf8(text).map_err(|_| "its head is not text".into())
}

/// What a head says.
struct Head {
    kind: Kind,
    rows: u64,
    columns: u64,
}

impl Head {
    /// Reads Python's `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
    fn parse(text: &str) -> Result<Self, String> {
        let descr = value(text, "descr")?;
        let descr =
            descr.split(['\'', '"']).nth(1).ok_or("its numbers are of more than one kind")?;
        let kind = Kind::of(descr).ok_or_else(|| {
            format!(
                "its numbers are {descr:?}; float16 and float32 in little endian are read \
                 (in Python: array.astype('<f4'))"
            )
        })?;
        if !value(text, "fortran_order")?.starts_with("False") {
            return Err("is in Fortran's order (in Python: numpy.ascontiguousarray(array))".into());
        }
        let shape = value(text, "shape")?;
        let inside = shape.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let (inside, _) = inside.ok_or("its head has no shape")?;
        let numbers = inside.split(',').map(str::trim).filter(|number| !number.is_empty());
        let shape: Result<Vec<u64>, _> = numbers.map(str::parse).collect();
        let (rows, columns) = match *shape.map_err(|_| "its head has no shape")? {
            [columns] => (1, columns),
            [rows, columns] => (rows, columns),
            ref other => {
                return Err(format!("has {} dimensions, vectors are rows of 2", other.len()));
            }
        };
        if !(1..=COLUMNS_MAX).contains(&columns) {
            return Err(format!("has rows of {columns} numbers; 1 to {COLUMNS_MAX} are read"));
        }
        Ok(Self { kind, rows, columns })
    }
}

/// What follows a key in a head, to the head's end.
fn value<'a>(text: &'a str, key: &str) -> Result<&'a str, String> {
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let found = quoted.iter().find_map(|quoted| text.split_once(quoted.as_str()));
    let rest = found.map(|(_, rest)| rest.trim_start().trim_start_matches(':').trim_start());
    rest.ok_or_else(|| format!("its head has no {key:?}"))
}

/// Writes float32 rows of one length as version 1.
pub struct NpyWriter<W: Write + Seek> {
    output: W,
    file: String,
    columns: usize,
    rows: u64,
    bytes: Vec<u8>,
}

impl NpyWriter<BufWriter<File>> {
    /// Makes a file, or empties it, for rows of that length.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, columns: usize) -> Result<Self, FormatError> {
        let file = path.display().to_string();
        let output = File::create(path);
        let output = output.map_err(|error| FormatError::at(&file, Place::File, error))?;
        Self::new(BufWriter::with_capacity(BUFFER_BYTES, output), file, columns)
    }
}

impl<W: Write + Seek> NpyWriter<W> {
    /// Writes an array at the start of `output`; `file` is for the errors.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(output: W, file: String, columns: usize) -> Result<Self, FormatError> {
        let mut writer = Self { output, file, columns, rows: 0, bytes: Vec::new() };
        writer.head()?;
        Ok(writer)
    }

    /// Writes a row.
    ///
    /// # Errors
    /// When it cannot be written or has another length.
    pub fn write_row(&mut self, row: &[f32]) -> Result<(), FormatError> {
        if row.len() != self.columns {
            let problem = format!("has {} numbers, the others {}", row.len(), self.columns);
            return Err(self.error(problem));
        }
        self.bytes.clear();
        self.bytes.extend(row.iter().flat_map(|number| number.to_le_bytes()));
        let written = self.output.write_all(&self.bytes);
        written.map_err(|error| self.error(error))?;
        self.rows += 1;
        Ok(())
    }

    /// Says in the head how many rows there are, and hands the output back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<W, FormatError> {
        self.head()?;
        let flushed = self.output.flush();
        flushed.map_err(|error| self.error(error))?;
        Ok(self.output)
    }

    fn head(&mut self) -> Result<(), FormatError> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&[1, 0]);
        head.extend_from_slice(&(HEAD_BYTES as u16 - 10).to_le_bytes());
        let shape = format!("({}, {})", self.rows, self.columns);
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        head.extend_from_slice(text.as_bytes());
        assert!(head.len() < HEAD_BYTES, "two numbers of 64 bits have their room");
        head.resize(HEAD_BYTES - 1, b' ');
        head.push(b'\n');
        let written =
            self.output.seek(SeekFrom::Start(0)).and_then(|_| self.output.write_all(&head));
        written.map_err(|error| self.error(error))
    }

    fn error(&self, problem: impl std::fmt::Display) -> FormatError {
        FormatError::at(&self.file, Place::Row(self.rows), problem)
    }
}
