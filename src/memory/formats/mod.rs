//! Files of vectors: read one row at a time, so that a file may be larger than memory.
//!
//! | file | duty |
//! |---|---|
//! | `error` | what is wrong with a file, and where |
//! | `npy` | NumPy's `.npy`: float16 and float32 rows, and rows of integers |
//! | `fvecs` | `.fvecs`: each row with its length before it |
//! | `rows` | what the formats share: opening a file, rows of one length |
//! | `jsonl` | one JSON object a line, and writing such lines |
//! | `records` | any of these files, as what is to be stored |
//!
//! Invariants:
//! - What a file only declares allocates nothing beyond one row or one line, both bounded.
//! - Every error names the file and the row, from zero, or the line, from one.

mod error;
mod fvecs;
mod jsonl;
mod npy;
mod records;
mod rows;

pub use error::{FormatError, Place};
pub use fvecs::FvecsReader;
pub use jsonl::{JsonlReader, write_line};
pub use npy::{NpyReader, NpyWriter};
pub use records::{Content, Record, Records};

#[cfg(test)]
mod tests;
