//! The secrets that a configuration names: files that only the node's user reads.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::model::Config;
use crate::wire::secret::{SECRET_BYTES_MAX, Secret, Unfit, bytes_of_hex};

/// Room in a file beside the secret, for blanks at its ends.
const BLANKS_MAX: u64 = 1024;
/// Permissions of those who are neither the file's owner nor of its group.
const OTHERS: u32 = 0o007;
/// Permissions of all but the file's owner.
const NOT_OWNER: u32 = 0o077;

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
    #[error("others than its owner may read or change the file; forbid it: chmod 600 FILE")]
    Shared,
    #[error("the file does not hold 64 hexadecimal digits, as `coreflow cluster identity` writes")]
    NoKey,
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

    /// The secret key that this node signs with; `None` when it has none.
    ///
    /// # Errors
    /// What is wrong with the file of `consensus.identity_file`.
    pub fn identity(&self) -> Result<Option<[u8; 32]>, SecretError> {
        let Some(path) = self.consensus.identity_file.as_deref() else { return Ok(None) };
        identity(Path::new(path)).map(Some)
    }
}

/// The secret key in a file that only its owner may read.
///
/// # Errors
/// What is wrong with the file.
pub fn identity(path: &Path) -> Result<[u8; 32], SecretError> {
    let (key, text) = ("consensus.identity_file", path.display().to_string());
    let error = |problem| SecretError { key, path: text.clone(), problem };
    let secret = read(path, NOT_OWNER, || Problem::Shared).map_err(error)?;
    bytes_of_hex(secret.expose()).ok_or_else(|| error(Problem::NoKey))
}

fn secret(key: &'static str, path: Option<&str>) -> Result<Option<Secret>, SecretError> {
    let Some(path) = path else { return Ok(None) };
    let error = |problem| SecretError { key, path: path.to_owned(), problem };
    read(Path::new(path), OTHERS, || Problem::Open).map(Some).map_err(error)
}

/// Reads a file that nobody may who has one of these permissions.
fn read(path: &Path, forbidden: u32, open: impl Fn() -> Problem) -> Result<Secret, Problem> {
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & forbidden != 0 {
        return Err(open());
    }
    let mut text = Vec::new();
    file.take(SECRET_BYTES_MAX as u64 + BLANKS_MAX).read_to_end(&mut text)?;
    Ok(Secret::parse(&text)?)
}
