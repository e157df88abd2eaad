//! What is wrong with a tuning file, all of it at once.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong: where, which key, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// `FILE:LINE`, `FILE`, or `--set section.key`.
    pub place: String,
    /// `section.key`; empty when the trouble is not one key's.
    pub key: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An override's place already ends with the key.
        if self.key.is_empty() || self.place.ends_with(&format!(" {}", self.key)) {
            write!(formatter, "{}: {}", self.place, self.problem)
        } else {
            write!(formatter, "{}: {}: {}", self.place, self.key, self.problem)
        }
    }
}

/// Everything that is wrong with a tuning file and its overrides; never empty.
///
/// Recover by changing the file: nothing was started and nothing was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            error.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
