//! How fast the disk itself is: what no durable acknowledgement can beat.

use crate::metrics::Latency;
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

/// One write.
const BLOCK_BYTES: usize = 4096;
/// Writes that are measured, unless they take longer than the limit.
const WRITES: u64 = 1000;
/// The longest that the measurement goes on.
const LIMIT: Duration = Duration::from_secs(2);

/// Synced writes (`O_DSYNC`) of 4 KiB over blocks that were written before, one after the other,
/// in a file of `folder`.
pub(super) fn synced_writes(folder: &Path) -> io::Result<Latency> {
    let path = folder.join("disk-probe");
    std::fs::write(&path, vec![0; BLOCK_BYTES * WRITES as usize])?;
    let file = File::options().write(true).custom_flags(libc::O_DSYNC).open(&path)?;
    file.sync_all()?;
    let (block, mut latency, began) = ([7; BLOCK_BYTES], Latency::new(), Instant::now());
    for number in 0..WRITES {
        let begin = Instant::now();
        file.write_all_at(&block, number * BLOCK_BYTES as u64)?;
        latency.record(begin.elapsed().as_nanos() as u64);
        if began.elapsed() > LIMIT {
            break;
        }
    }
    std::fs::remove_file(&path)?;
    Ok(latency)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::served::Scratch;

    #[test]
    fn writes_are_counted_and_the_file_goes() {
        let scratch = Scratch::new(&std::env::temp_dir(), "coreflow-disk-test").unwrap();
        let latency = synced_writes(scratch.path()).unwrap();
        assert!((1..=WRITES).contains(&latency.count()));
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
