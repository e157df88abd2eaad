//! Files and pipes as futures.

use super::sys;
use glommio::io::BufferedFile;
use std::{io, os::fd::OwnedFd, path::Path};

/// Written to a pipe at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A file that is read in pieces, without blocking the core.
pub struct ReadFile(BufferedFile);

impl ReadFile {
    /// Opens a file for reading.
    pub async fn open(path: &Path) -> io::Result<Self> {
        BufferedFile::open(path).await.map(Self).map_err(plain)
    }

    /// Up to `limit` bytes at `position`; empty at the end.
    pub async fn read_at(&self, position: u64, limit: usize) -> io::Result<impl AsRef<[u8]>> {
        struct Bytes(glommio::io::ReadResult);
        impl AsRef<[u8]> for Bytes {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        self.0.read_at(position, limit).await.map(Bytes).map_err(plain)
    }

    /// Closes it; without this the engine closes it later.
    pub async fn close(self) -> io::Result<()> {
        self.0.close().await.map_err(plain)
    }
}

/// A pipe or an eventfd, read and written as futures.
pub struct Pipe(glommio::io::BufferedFile);

impl Pipe {
    /// Takes over a descriptor that has no position.
    pub fn new(fd: OwnedFd) -> Self {
        Self(sys::engine_file(fd))
    }

    /// Up to `limit` bytes; empty at the end of the stream.
    pub async fn read(&self, limit: usize) -> io::Result<Vec<u8>> {
        let bytes = self.0.read_at(0, limit).await.map_err(plain)?;
        Ok(bytes.to_vec())
    }

    /// Writes all of `bytes`.
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            // The engine owns what it writes; a pipe takes no more than this at once anyway.
            let piece = rest[..rest.len().min(PIECE_BYTES)].to_vec();
            let written = self.0.write_at(piece, 0).await.map_err(plain)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[written..];
        }
        Ok(())
    }
}

/// The system's own error, without the engine's wrapping where it has one.
fn plain<T: std::fmt::Debug + 'static>(error: glommio::GlommioError<T>) -> io::Error {
    error.into()
}
