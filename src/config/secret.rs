//! The secrets that a configuration names: files that only the node's user reads.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;

use super::model::Config;
use crate::wire::secret::{SECRET_BYTES_MAX, Secret, Unfit};

/// Room in a file beside the secret, for blanks at its ends.
const BLANKS_MAX: u64 = 1024;
/// Permissions of those who are neither the file's owner nor of its group.
const OTHERS: u32 = 0o007;

/// Why there is no secret though the configuration names one.
#[derive(Debug, thiserror::Error)]
#[error("{key} = {path:?}: {problem}")]
pub struct SecretError {
    key: &'static str,
    path: String,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("the file cannot be read: {0}")]
    Unread(#[from] io::Error),
    #[error("everybody on this machine may read or change the file; forbid it: chmod o= FILE")]
    Open,
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

impl From<SecretError> for io::Error {
    fn from(error: SecretError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

impl Config {
    /// The token that clients must know; `None` when the node asks for none.
    ///
    /// # Errors
    /// What is wrong with the file of `server.token_file`.
    pub fn token(&self) -> Result<Option<Secret>, SecretError> {
        secret("server.token_file", self.server.token_file.as_deref())
    }

    /// The secret that the nodes of the cluster prove to each other; `None` when none is asked for.
    ///
    /// # Errors
    /// What is wrong with the file of `cluster.secret_file`.
    pub fn cluster_secret(&self) -> Result<Option<Secret>, SecretError> {
        secret("cluster.secret_file", self.cluster.secret_file.as_deref())
    }
}

fn secret(key: &'static str, path: Option<&str>) -> Result<Option<Secret>, SecretError> {
    let Some(path) = path else { return Ok(None) };
    let error = |problem| SecretError { key, path: path.to_owned(), problem };
    read(path).map(Some).map_err(error)
}

fn read(path: &str) -> Result<Secret, Problem> {
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & OTHERS != 0 {
        return Err(Problem::Open);
    }
    let mut text = Vec::new();
    file.take(SECRET_BYTES_MAX as u64 + BLANKS_MAX).read_to_end(&mut text)?;
    Ok(Secret::parse(&text)?)
}
