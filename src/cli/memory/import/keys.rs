//! The lines of a file of keys, one for each row of a file of vectors.

use super::super::super::remote::Trouble;
use crate::memory::formats::Records;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

/// The longest line, bytes: what is longer would leave its rest to the next row.
const LINE_BYTES_MAX: u64 = 4096;

/// The lines of a file of keys.
pub(super) struct Keys {
    file: String,
    lines: BufReader<File>,
}

impl Keys {
    /// Opens a file of keys for rows, the first `from` of which are passed over.
    pub(super) fn open(path: &Path, records: &Records, from: u64) -> Result<Self, Trouble> {
        if matches!(records, Records::Jsonl(_)) {
            let text = "--keys-from: a line of a .jsonl file has its key itself";
            return Err(Trouble::Usage(text.into()));
        }
        let file = path.display().to_string();
        let opened = File::open(path);
        let opened = opened.map_err(|error| Trouble::Usage(format!("{file}: {error}")))?;
        let mut keys = Self { file, lines: BufReader::new(opened) };
        for row in 0..from {
            keys.next(row).map_err(Trouble::Usage)?;
        }
        Ok(keys)
    }

    /// The key of the next row.
    ///
    /// # Errors
    /// What is wrong with the file at its line.
    pub(super) fn next(&mut self, row: u64) -> Result<String, String> {
        let wrong = |what: String| format!("{}: {what}", self.file);
        let mut line = String::new();
        let read = self.lines.by_ref().take(LINE_BYTES_MAX).read_line(&mut line);
        if read.map_err(|error| wrong(error.to_string()))? == 0 {
            return Err(wrong(format!("it has {row} keys, and row {row} needs one")));
        }
        if line.len() as u64 == LINE_BYTES_MAX && !line.ends_with('\n') {
            return Err(wrong(format!(
                "the key of row {row} is longer than {LINE_BYTES_MAX} bytes"
            )));
        }
        let key = line.trim_end_matches(['\n', '\r']);
        match key.is_empty() {
            true => Err(wrong(format!("the key of row {row} is empty"))),
            false => Ok(key.to_owned()),
        }
    }
}
