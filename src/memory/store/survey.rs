//! What a folder of pattern memory has, every checksum looked at: for a node that does not run.
//!
//! Nothing is changed. What is damaged is told whether an item is lost by it or not.

use super::{
    checkpoint::{self, Known, State},
    damage::{Damage, Harm},
    files::{FileList, list_name},
    folder::{self, HEAD_NAME},
    head::StoreHead,
    log::{LogSettings, segment_name},
    open::OpenError,
    recover::{self, From, Numbers, RecoverError},
    scan::{self, Seen},
};
use crate::runtime::disk::FolderLock;
use std::{collections::HashMap, fs, io, path::Path, sync::Arc};

/// What a folder has.
#[derive(Debug)]
pub struct Survey {
    /// What holds for all of it.
    pub head: StoreHead,
    /// The partitions, in order.
    pub partitions: Vec<PartitionSurvey>,
}

/// Damage that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub damage: Damage,
    /// Nothing is lost by it: the item was stored again or deleted since, or it can be made again.
    pub is_harmless: bool,
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
    pub found: Vec<Found>,
}

/// Looks at every record in a folder.
///
/// # Errors
/// A node uses the folder, it has no head, or a file cannot be read.
pub fn survey(folder: &Path) -> Result<Survey, OpenError> {
    let lock = FolderLock::share(folder)
        .map_err(|source| OpenError::Lock { folder: folder.to_owned(), source })?;
    let io = |source| OpenError::Io { folder: folder.to_owned(), source };
    let Some(mut head) = folder::read_head(folder)? else {
        let file = folder.join(HEAD_NAME);
        return Err(match folder::needs_head(folder).map_err(io)? {
            Some(needs) => OpenError::NoHead { head: file, file: needs },
            None => io(io::Error::other("there is no pattern memory: it has no head")),
        });
    };
    let has_lists = head.segment_bytes.is_some();
    if !has_lists {
        head.segment_bytes = folder::longest_file(folder).map_err(io)?;
    }
    let partitions =
        (0..head.partitions).map(|number| survey_partition(folder, &head, has_lists, number));
    let partitions = partitions.collect::<Result<_, _>>()?;
    drop(lock);
    Ok(Survey { head, partitions })
}

pub(super) fn survey_partition(
    folder: &Path,
    head: &StoreHead,
    has_lists: bool,
    partition: u16,
) -> Result<PartitionSurvey, OpenError> {
    let mut settings = folder::settings_of(folder, head, partition);
    let mut found = Vec::new();
    let mut tell = |damage, is_harmless| found.push(Found { damage, is_harmless });
    if has_lists {
        let file = folder.join(list_name(partition)).display().to_string();
        match folder::list_of(folder, head, partition) {
            Ok(listing) => settings.list = Some(Arc::new(FileList::known(folder, listing))),
            Err(OpenError::Files(RecoverError::Missing(..))) => {
                tell(Damage::of_file(file, Harm::Missing), false);
            }
            Err(OpenError::List { .. }) => tell(Damage::of_file(file, Harm::Structure), false),
            Err(error) => return Err(error),
        }
    }
    let span = settings.list.as_ref().map(|list| list.span());
    let Numbers { there, missing, .. } = recover::list(folder, partition, span)?;
    for number in missing {
        let file = folder.join(segment_name(partition, number));
        tell(Damage::of_file(file.display().to_string(), Harm::Missing), false);
    }
    let length = |number: &u32| fs::metadata(folder.join(segment_name(partition, *number)));
    let bytes = there.iter().filter_map(|number| Some(length(number).ok()?.len())).sum();
    let (scanned, damages) = recover::read(&settings, &there, From::default())?;
    let scan::Found { records, damages: gone, broken, is_torn, last: last_read, .. } = scanned;
    damages.into_iter().chain(gone).for_each(|damage| tell(damage, false));
    let last = last_of_each(&records);
    for (damage, seen) in broken {
        let is_replaced = last.get(&seen.hash).is_some_and(|last| *last > seen.sequence);
        tell(damage, is_replaced);
    }
    let known = judge_checkpoint(&settings, folder, last_read, &mut tell)?;
    let has_checkpoint = known.is_some();
    for (_, damage) in known.unwrap_or_default() {
        if !found.iter().any(|found| found.damage == damage) {
            found.push(Found { damage, is_harmless: false });
        }
    }
    let (files, records) = (there.len(), records.len() as u64);
    Ok(PartitionSurvey { files, bytes, records, is_torn, has_checkpoint, found })
}

/// The last record of each item, by the hash of its name.
fn last_of_each(records: &[Seen]) -> HashMap<u64, u64> {
    records.iter().map(|seen| (seen.hash, seen.sequence)).collect()
}

/// What a checkpoint knows of damage, where there is one.
fn judge_checkpoint(
    settings: &LogSettings,
    folder: &Path,
    last_read: u64,
    tell: &mut impl FnMut(Damage, bool),
) -> Result<Option<Vec<Known>>, OpenError> {
    let io = |source| OpenError::Io { folder: folder.to_owned(), source };
    match checkpoint::look_at(settings).map_err(io)? {
        State::None => Ok(None),
        State::Well(known, From { number, offset, sequence }) => {
            if let Some(gone @ 1..) = sequence.checked_sub(last_read) {
                let file = folder.join(segment_name(settings.partition, number));
                let (file, harm) = (file.display().to_string(), Harm::Gone(gone));
                tell(Damage { file, offset, harm, key: None }, false);
            }
            Ok(Some(known))
        }
        State::Damaged => {
            let file = checkpoint::file_of(settings).unwrap_or_default();
            tell(Damage::of_file(file.display().to_string(), Harm::Checkpoint), true);
            Ok(Some(Vec::new()))
        }
    }
}
