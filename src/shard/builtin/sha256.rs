//! `sha256`: the SHA-256 of a text, of bytes or of a file, in hexadecimal.

use crate::{
    runtime::fs::ReadFile,
    shard::{
        agent::{Agent, Outcome, Task},
        context::Context,
        handle::Failure,
    },
    wire::msgpack::write,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{fmt::Write, io, path::Path};

/// Read from a file at once: short enough that hashing it does not keep the core.
const PIECE_BYTES: usize = 64 * 1024;

/// Hashes a payload that is a string or bytes, or the file of `{"path": "…"}`.
pub struct Sha256Sum;

#[derive(Deserialize)]
struct FilePayload {
    path: String,
}

impl Agent for Sha256Sum {
    fn on_task(
        &mut self,
        task: &Task<'_>,
        result: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Outcome {
        if let Ok(text) = rmp_serde::from_slice::<&str>(task.payload) {
            write::str(result, &hex(Sha256::digest(text.as_bytes()).as_ref()));
            return Outcome::Done;
        }
        if let Some(bytes) = binary(task.payload) {
            write::str(result, &hex(Sha256::digest(bytes).as_ref()));
            return Outcome::Done;
        }
        let Ok(FilePayload { path }) = task.decode() else {
            let error = "payload: expected a string, bytes or {\"path\": \"…\"}".into();
            return Outcome::Failed { error, retry: false };
        };
        let (handle, lease) = (context.handle(), task.lease);
        context.spawn_future(async move {
            let hashed = hash_file(Path::new(&path)).await;
            let result = hashed.map(|hash| {
                let mut result = Vec::new();
                write::str(&mut result, &hash);
                result
            });
            // A file that cannot be read now cannot be read in a moment either.
            let failed =
                |error: io::Error| Failure { error: format!("{path}: {error}"), retry: false };
            handle.finish(lease, result.map_err(failed));
        });
        Outcome::Later
    }
}

/// The bytes of a MessagePack `bin` value.
fn binary(payload: &[u8]) -> Option<&[u8]> {
    let mut rest = payload;
    let length = rmp::decode::read_bin_len(&mut rest).ok()?;
    (rest.len() == length as usize).then_some(rest)
}

async fn hash_file(path: &Path) -> io::Result<String> {
    let file = ReadFile::open(path).await?;
    let mut hasher = Sha256::new();
    let mut position = 0;
    loop {
        let piece = file.read_at(position, PIECE_BYTES).await?;
        let piece = piece.as_ref();
        if piece.is_empty() {
            break;
        }
        hasher.update(piece);
        position += piece.len() as u64;
    }
    file.close().await?;
    Ok(hex(hasher.finalize().as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
