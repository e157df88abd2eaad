//! What a folder of pattern memory has, every checksum looked at: for a node that does not run.
//!
//! Nothing is changed. Of what is damaged it is told whether an item is lost by it or not.

use super::{
    checkpoint::{self, State},
    compare::Comparison,
    damage::{Damage, Harm, Lost},
    files::{FileList, list_name},
    folder,
    head::StoreHead,
    open::OpenError,
    recover::{self, From, Numbers, RecoverError},
    segment::segment_name,
    watermark::{Mark, watermark_name},
};
use crate::runtime::disk::FolderLock;
use std::{fs, io, path::Path, sync::Arc};

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

impl Survey {
    /// What is lost by what is damaged.
    pub fn lost(&self) -> Lost {
        lost_by(self.partitions.iter().flat_map(|partition| &partition.found))
    }
}

/// What is lost by damage that was found.
pub(super) fn lost_by<'a>(found: impl IntoIterator<Item = &'a Found>) -> Lost {
    let mut lost = Lost::default();
    let harmful = found.into_iter().filter(|it| !it.is_harmless);
    harmful.for_each(|it| lost.add(it.damage.harm));
    lost
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
        return Err(match folder::needs_head(folder).map_err(io)? {
            Some(needs) => folder::no_head(folder, folder::missing_beside(&needs)).map_err(io)?,
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
                tell(Damage::of_file(file, Harm::Missing), true);
            }
            Err(OpenError::List { .. }) => tell(Damage::of_file(file, Harm::Structure), true),
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
    let io = |source| OpenError::Io { folder: folder.to_owned(), source };
    let state = checkpoint::look_at(&settings).map_err(io)?;
    let covered = state.outline().map_or(From::default(), |outline| outline.from);
    let (scanned, damages) = recover::read(&settings, &there, From::default(), covered)?;
    for damage in damages {
        let is_harmless = damage.harm.is_harmless();
        tell(damage, is_harmless);
    }
    if Mark::read(&settings).map_err(io)? == Mark::Damaged {
        let file = folder.join(watermark_name(partition));
        tell(Damage::of_file(file.display().to_string(), Harm::Watermark), true);
    }
    if let State::Graph(_) | State::Damaged = state {
        let file = checkpoint::file_of(&settings).unwrap_or_default();
        tell(Damage::of_file(file.display().to_string(), Harm::Checkpoint), true);
    }
    let has_checkpoint = state != State::None;
    let (is_torn, records) = (scanned.torn.is_some(), scanned.records.len() as u64);
    let comparison = Comparison { settings: &settings, folder, numbers: &there, scanned };
    let of_records = match state {
        State::Well(outline) | State::Graph(outline) => comparison.with(outline),
        State::None | State::Damaged => comparison.alone(),
    };
    let of_files = found.len();
    for it in of_records {
        if !found[..of_files].iter().any(|other: &Found| other.damage.is_same(&it.damage)) {
            found.push(it);
        }
    }
    let files = there.len();
    Ok(PartitionSurvey { files, bytes, records, is_torn, has_checkpoint, found })
}
