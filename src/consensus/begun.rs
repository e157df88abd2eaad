//! In which lives of its cluster a node that signs has begun a log: a file beside its key says so.
//!
//! A node that has lost its log and begins with an empty folder would vote again on what it has forgotten,
//! and be one more that lies. It cannot ask the others, since some of those may lie as well; but to vote it
//! needs its key, and the file goes with that.
//!
//! Invariants worth naming
//! - A node has said that it begins a log before it signs anything that is in it.

use crate::runtime::disk::replace_file;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What follows the name of the key's file.
const SUFFIX: &str = ".begun";

/// The file that belongs to a key's.
pub fn file_of(identity: &Path) -> PathBuf {
    let mut name = identity.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

fn line(genesis: u128) -> String {
    format!("{genesis:032x}")
}

fn read(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

/// Whether a log was begun in a life.
///
/// # Errors
/// The file cannot be read.
pub(super) fn has_begun(file: &Path, genesis: u128) -> io::Result<bool> {
    Ok(read(file)?.lines().any(|known| known == line(genesis)))
}

/// Says that a log is begun in a life.
///
/// # Errors
/// The file cannot be written.
pub(super) fn begin(file: &Path, genesis: u128) -> io::Result<()> {
    if has_begun(file, genesis)? {
        return Ok(());
    }
    let text = read(file)? + &line(genesis) + "\n";
    replace_file(file, text.as_bytes())
}
