//! Dropping what is damaged in a folder that no node uses, so that it is whole again.
//!
//! Head and lists are made again from each other and from the files; a record file that is gone is taken
//! as one whose records are all lost. Then each partition in which anything is damaged is copied: what
//! can be read goes to new record files, and the old ones are removed, oldest first.
//!
//! Invariants:
//! - No record that can be read and is the newest of its item is dropped.
//! - A repair that is cut off leaves a folder that can be repaired.

use super::{
    checkpoint,
    damage::{Damage, Harm, Lost},
    files::{FileList, list_name},
    folder::{self, HEAD_NAME},
    head::StoreHead,
    log::NoRoom,
    open::{OpenError, Store, StoreSettings},
    partition::{Partition, item_of},
    record::{Content, Kind},
    recover::{self, RecoverError},
    segment::{LogSettings, segment_name},
    survey::{Found, lost_by, survey_partition},
    watermark::watermark_name,
};
use crate::runtime::disk::{FolderLock, sync_folder};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

/// Rows that are copied between two syncs.
const ROWS_A_SYNC: u32 = 256;

/// What a repair did.
#[derive(Debug)]
pub struct Repaired {
    /// What was damaged: none of it is there any more.
    pub found: Vec<Found>,
    /// Items that are there.
    pub items: u64,
    /// Partitions that were copied.
    pub copied: usize,
}

impl Repaired {
    /// What is lost by what was damaged.
    pub fn lost(&self) -> Lost {
        lost_by(&self.found)
    }
}

/// Drops what is damaged in a folder; `ef_construction` is for an index that must be built again.
///
/// # Errors
/// A node uses the folder, nothing says what is in it, or the disk refuses.
pub fn repair(folder: &Path, ef_construction: usize) -> Result<Repaired, OpenError> {
    let lock = FolderLock::take(folder)
        .map_err(|source| OpenError::Lock { folder: folder.to_owned(), source })?;
    let mut found = Vec::new();
    let head = mend_head(folder, &mut found)?;
    let mut copied = vec![false; head.partitions.into()];
    for partition in 0..head.partitions {
        let has_stand_ins = mend_files(folder, &head, partition, &mut found)?;
        let survey = survey_partition(folder, &head, true, partition)?;
        copied[usize::from(partition)] = has_stand_ins || !survey.found.is_empty();
        let mended = found.len();
        for it in survey.found {
            if !found[..mended].iter().any(|other| other.damage.is_same(&it.damage)) {
                found.push(it);
            }
        }
    }
    let settings = StoreSettings {
        folder: Some(folder.to_owned()),
        dimension: head.dimension as usize,
        metric: head.metric,
        partitions: head.partitions,
        ef_construction,
        items_max: usize::MAX / 4,
        segment_bytes: head.segment_bytes.unwrap_or(0) as usize,
        embedder: head.embedder,
    };
    if found.is_empty() {
        return Ok(Repaired { found, items: 0, copied: 0 });
    }
    let io = |source| OpenError::Io { folder: folder.to_owned(), source };
    let mut store = Store::open_locked(&settings, folder, lock)?;
    let mut items = 0;
    for (partition, copied) in store.partitions.iter_mut().zip(&mut copied) {
        *copied |= partition.damages().count > 0;
        let told = if *copied { partition.copy().map_err(io)? } else { Vec::new() };
        for damage in told {
            if !found.iter().any(|other| other.damage.is_same(&damage)) {
                let is_harmless = damage.harm.is_harmless();
                found.push(Found { damage, is_harmless });
            }
        }
        partition.close().map_err(io)?;
        items += partition.len() as u64;
    }
    Ok(Repaired { found, items, copied: copied.into_iter().filter(|it| *it).count() })
}

/// A file that was gone or damaged; nothing is lost by one that was made again as it was.
fn told(file: &Path, harm: Harm, is_harmless: bool) -> Found {
    Found { damage: Damage::of_file(file.display().to_string(), harm), is_harmless }
}

/// The head of a folder, made again from a list where it is damaged or missing.
fn mend_head(folder: &Path, found: &mut Vec<Found>) -> Result<StoreHead, OpenError> {
    let file = folder.join(HEAD_NAME);
    let io = |source| OpenError::Io { folder: folder.to_owned(), source };
    let (harm, refusal) = match folder::read_head(folder) {
        Ok(Some(head)) if head.segment_bytes.is_some() => return Ok(head),
        Ok(Some(head)) => {
            let segment_bytes = folder::longest_file(folder).map_err(io)?.or(Some(64 << 20));
            let head = StoreHead { segment_bytes, ..head };
            for partition in 0..head.partitions {
                let settings = folder::settings_of(folder, &head, partition);
                let (span, _) = folder::find_span(&settings, folder)?;
                folder::give_list(folder, &head, partition, span)?;
            }
            folder::write_head(folder, &head).map_err(io)?;
            return Ok(head);
        }
        Ok(None) => {
            let needs = folder::needs_head(folder).map_err(io)?;
            let none = || io(io::Error::other("there is no pattern memory: it has no head"));
            let needs = needs.ok_or_else(none)?;
            (Harm::Missing, folder::no_head(folder, folder::missing_beside(&needs)).map_err(io)?)
        }
        Err(error @ (OpenError::Head { .. } | OpenError::Headless { .. })) => {
            (Harm::Structure, error)
        }
        Err(error) => return Err(error),
    };
    let Some(head) = folder::head_of_lists(folder).map_err(io)? else { return Err(refusal) };
    folder::write_head(folder, &head).map_err(io)?;
    found.push(told(&file, harm, true));
    Ok(head)
}

/// Sees to it that a partition has a list, and every file that is in it; whether one was gone.
fn mend_files(
    folder: &Path,
    head: &StoreHead,
    partition: u16,
    found: &mut Vec<Found>,
) -> Result<bool, OpenError> {
    let file = folder.join(list_name(partition));
    let harm = match folder::list_of(folder, head, partition) {
        Ok(_) => None,
        Err(OpenError::Files(RecoverError::Missing(..))) => Some(Harm::Missing),
        Err(OpenError::List { .. }) => Some(Harm::Structure),
        Err(error) => return Err(error),
    };
    let settings = folder::settings_of(folder, head, partition);
    if let Some(harm) = harm {
        let (span, _) = folder::find_span(&settings, folder)?;
        folder::give_list(folder, head, partition, span)?;
        found.push(told(&file, harm, true));
    }
    let list = FileList::known(folder, folder::list_of(folder, head, partition)?);
    let missing = recover::list(folder, partition, Some(list.span()))?.missing;
    let settings = LogSettings { list: Some(Arc::new(list)), ..settings };
    let has_stand_ins = !missing.is_empty();
    for number in missing {
        let path = folder.join(segment_name(partition, number));
        let stand_in = || {
            let file = File::create(&path)?;
            file.set_len(settings.segment_bytes as u64)?;
            file.write_all_at(&settings.head_of(number), 0)?;
            file.sync_all()?;
            sync_folder(folder)
        };
        stand_in().map_err(|source| OpenError::Io { folder: folder.to_owned(), source })?;
        found.push(told(&path, Harm::Missing, false));
    }
    Ok(has_stand_ins)
}

impl Partition {
    /// Copies what can be read to new segments, and removes the old ones: nothing is damaged any
    /// more. Tells what was. Waits for the disk.
    ///
    /// # Errors
    /// The disk refuses.
    fn copy(&mut self) -> io::Result<Vec<Damage>> {
        self.settle()?;
        if self.log.segments.is_empty() {
            // A checkpoint of nothing would only be wrong, and a watermark say that something is gone.
            let settings = self.log.settings();
            let mark = settings.folder.as_ref();
            let mark = mark.map(|folder| folder.join(watermark_name(settings.partition)));
            let files = checkpoint::file_of(settings).into_iter().chain(mark);
            for file in files.filter(|file| file.exists()) {
                fs::remove_file(file)?;
            }
            self.checkpoint_bytes = 0;
            return Ok(std::mem::take(&mut self.damages).told);
        }
        let (last, _) = self.log.end();
        self.wait_for_room(|partition| partition.log.begin_segment())?;
        for row in 0..self.table.rows() {
            let Some(place) = self.place_of(row) else { continue };
            if self.log.segment(place).is_none_or(|segment| segment.number > last) {
                continue;
            }
            while let Some((region, offset, length)) = self.log.missing(place) {
                region.load(offset, length)?;
            }
            let record = match self.log.read(place) {
                Ok(record) => record,
                Err(damage) => {
                    self.lose_row(row, damage);
                    continue;
                }
            };
            let (item, vector) = (item_of(&record), record.vector());
            self.wait_for_room(|partition| {
                let content = Content {
                    kind: Kind::Put,
                    namespace: &item.namespace,
                    key: &item.key,
                    vector: &vector,
                    text: item.text.as_deref(),
                    metadata: &item.metadata,
                };
                partition.append(&content, Some(place), None)
            })?;
            if row % ROWS_A_SYNC == 0 {
                self.settle()?;
            }
        }
        self.settle()?;
        self.free_first();
        self.settle()?;
        self.look_from = None;
        // A checkpoint is written at the end, which knows of no damage.
        self.changes += 1;
        Ok(std::mem::take(&mut self.damages).told)
    }

    /// Does what needs room in the log, as soon as there is some.
    fn wait_for_room(
        &mut self,
        mut act: impl FnMut(&mut Self) -> Result<(), NoRoom>,
    ) -> io::Result<()> {
        loop {
            match act(self) {
                Ok(()) => return Ok(()),
                Err(NoRoom::Soon) => self.settle()?,
                Err(NoRoom::Full) => return Err(io::Error::other("there are too many segments")),
                Err(NoRoom::Failed(problem)) => return Err(io::Error::other(problem)),
            }
        }
    }
}
