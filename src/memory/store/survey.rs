//! What a folder of pattern memory has, every checksum looked at: for a node that does not run.

use super::{
    checkpoint,
    head::StoreHead,
    log::{Damage, LogSettings, segment_name},
    open::{HEAD_NAME, OpenError},
    recover::{self, From},
    scan::Found,
};
use crate::runtime::disk::FolderLock;
use std::{fs, path::Path};

/// What a folder has.
#[derive(Debug)]
pub struct Survey {
    /// What holds for all of it.
    pub head: StoreHead,
    /// The partitions, in order.
    pub partitions: Vec<PartitionSurvey>,
}

/// What the files of a partition have.
#[derive(Debug, Default)]
pub struct PartitionSurvey {
    /// Record files.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Records that count.
    pub records: u64,
    /// Whether the end was cut off, which loses nothing that was acknowledged.
    pub is_torn: bool,
    /// Whether there is a checkpoint.
    pub has_checkpoint: bool,
    /// What is damaged.
    pub damages: Vec<Damage>,
}

/// Looks at every record in a folder.
///
/// # Errors
/// A node uses the folder, or a file cannot be read.
pub fn survey(folder: &Path) -> Result<Survey, OpenError> {
    let lock = FolderLock::share(folder)
        .map_err(|source| OpenError::Lock { folder: folder.to_owned(), source })?;
    let file = folder.join(HEAD_NAME);
    let text = fs::read_to_string(&file)
        .map_err(|source| OpenError::Io { folder: folder.to_owned(), source })?;
    let head: StoreHead = text.parse().map_err(|source| OpenError::Head { file, source })?;
    let partitions = (0..head.partitions).map(|number| survey_partition(folder, &head, number));
    let partitions = partitions.collect::<Result<_, _>>()?;
    drop(lock);
    Ok(Survey { head, partitions })
}

fn survey_partition(
    folder: &Path,
    head: &StoreHead,
    partition: u16,
) -> Result<PartitionSurvey, OpenError> {
    let numbers = recover::list(folder, partition)?;
    let length = |number: &u32| fs::metadata(folder.join(segment_name(partition, *number)));
    let lengths: Vec<u64> = numbers.iter().filter_map(|it| Some(length(it).ok()?.len())).collect();
    let settings = LogSettings {
        folder: Some(folder.to_owned()),
        partition,
        segment_bytes: lengths.first().copied().unwrap_or(0) as usize,
        dimensions: head.dimension as usize,
        salt: head.salt,
    };
    let (found, mut damages) = recover::read(&settings, &numbers, From::default())?;
    let Found { records, damages: lost, broken, is_torn, .. } = found;
    damages.extend(lost);
    damages.extend(broken);
    Ok(PartitionSurvey {
        files: numbers.len(),
        bytes: lengths.iter().sum(),
        records: records.len() as u64,
        is_torn,
        has_checkpoint: checkpoint::file_of(&settings).is_some_and(|file| file.exists()),
        damages,
    })
}
