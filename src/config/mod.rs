//! Tuning files: what every key means, its range and what it costs.
//!
//! A [`Config`] that exists is valid: every value lies in its range and the relations between
//! values hold. Nothing else in the project checks a tuning value again.
//!
//! Invariants worth naming
//! - One table (`table.rs`) drives parsing, checking, printing and the documentation in the files.
//! - A key that the table lacks is refused, never ignored: a misspelt key must not silently run
//!   with its default.
//! - All errors of a file are reported at once, each with its line.
//! - What [`Config::print_toml`] prints parses to the same configuration.
//!
//! The files: `model.rs` is what the other rooms read, `table.rs` the rows, `key.rs` what a row is
//! made of, `entry.rs` lists of entries, `agent.rs` those of `[[agent]]` and `node.rs` those of
//! `[[node]]`, `relations.rs` what holds between keys, `parse.rs` and `print.rs` the two ways,
//! `derived.rs` what follows from a configuration: where it listens, what it needs of the machine;
//! `secret.rs` the files with secrets that it names.

mod agent;
mod derived;
mod entry;
mod error;
mod key;
mod model;
mod node;
mod parse;
mod print;
mod relations;
mod secret;
mod suggest;
mod table;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub use derived::Listen;
pub use error::{ConfigError, ConfigErrors};
pub use key::{AGENT_NAME_BYTES_MAX, CAPABILITIES_MAX, CAPABILITY_BYTES_MAX};
pub use model::*;
pub use relations::BATCH_BYTES_MAX;
pub use secret::{SecretError, identity};

/// Largest tuning file, bytes: far above any that a person writes, far below what would hurt.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Config {
    /// Reads a tuning file and applies overrides, each `section.key=value`,
    /// `agent.TYPE.key=value` or `node.ID.key=value`.
    ///
    /// # Errors
    /// Everything that is wrong with the file and the overrides; see [`ConfigErrors`].
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigErrors> {
        let place = path.display().to_string();
        match read(path) {
            Ok(text) => Self::parse(&text, &place, overrides),
            Err(error) => {
                let problem = format!("cannot be read: {error}");
                Err(ConfigErrors(vec![ConfigError { place, key: String::new(), problem }]))
            }
        }
    }

    /// Parses the text of a tuning file; `file_name` is only for the errors.
    ///
    /// # Errors
    /// Everything that is wrong with the text and the overrides; see [`ConfigErrors`].
    pub fn parse(text: &str, file_name: &str, overrides: &[String]) -> Result<Self, ConfigErrors> {
        parse::parse(text, file_name, overrides)
    }

    /// Sixteen hexadecimal digits that differ when any value differs; comments do not count.
    pub fn hash(&self) -> String {
        print::hash(self)
    }

    /// The configuration as a tuning file with the documentation of every key.
    pub fn print_toml(&self) -> String {
        print::toml_text(self)
    }

    /// The configuration as one JSON object: sections, keys and values as in the file.
    pub fn print_json(&self) -> String {
        simd_json::to_string(self).expect("sections, keys and values are plain JSON")
    }
}

impl Default for Config {
    /// The configuration of an empty file, which is that of `tuning/default.toml`.
    fn default() -> Self {
        Self::parse("", "the defaults", &[]).expect("the defaults obey their own rules")
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let size = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if size as u64 > FILE_BYTES_MAX {
        let problem = format!("larger than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(text)
}
