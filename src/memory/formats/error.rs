//! What is wrong with a file of vectors, and where.

use std::fmt;

/// Where in a file something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At its beginning, or in all of it.
    File,
    /// In a row, counted from 0.
    Row(u64),
    /// In a line, counted from 1.
    Line(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Row(row) => write!(f, " row {row}:"),
            Self::Line(line) => write!(f, " line {line}:"),
        }
    }
}

/// A file that cannot be read or written; what was read before the place is right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{place} {problem}")]
pub struct FormatError {
    /// The file's name.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// What is wrong, in a sentence.
    pub problem: String,
    /// What comes after the place can be read.
    pub goes_on: bool,
}

impl FormatError {
    /// An error at a place of a file.
    pub(super) fn at(file: &str, place: Place, problem: impl fmt::Display) -> Self {
        let (file, problem) = (file.to_owned(), problem.to_string());
        Self { file, place, problem, goes_on: false }
    }

    /// The same, where what comes after the place can be read.
    pub(super) fn passable(self) -> Self {
        Self { goes_on: true, ..self }
    }
}
