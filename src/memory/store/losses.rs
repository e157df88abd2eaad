//! What a partition knows of damage: it is told, and an item whose record is damaged is known as lost
//! until it is stored again or deleted.
//!
//! A start that has a checkpoint reads few records, so afterwards all that live are looked at once, some
//! in each step.
//!
//! Invariants:
//! - A lost item has no row: it is no hit, and what it was before does not come back in its place.
//! - What is known of damage stands in the next checkpoint, so that a later start tells it again.

use super::{
    checkpoint::Known,
    damage::{Damage, Lost},
    partition::{Partition, Step, damaged},
    portion::Portion,
    record::Kind,
    table::Row,
};
use crate::wire::api::Error;
use std::collections::BTreeMap;

/// Damage that is told with its place.
const TOLD_MAX: usize = 64;
/// Damaged items that are known as such.
const LOST_MAX: usize = 64 << 10;
/// Damage that is no item's, or nobody knows whose, and is known as such.
const UNNAMED_MAX: usize = 4 << 10;
/// Rows whose records one step looks at.
const ROWS_A_STEP: Row = 32;

/// A place in the order of what is damaged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    /// Of what is no item's.
    unnamed: usize,
    /// Of lost items, by hash; none behind the last.
    item: Option<u32>,
}

impl Next {
    pub(super) fn is_first(self) -> bool {
        self.unnamed == 0 && self.item == Some(0)
    }
}

impl Default for Next {
    fn default() -> Self {
        Self { unnamed: 0, item: Some(0) }
    }
}

/// What damage was met.
#[derive(Debug, Default)]
pub struct Damages {
    /// The first ones.
    pub told: Vec<Damage>,
    /// All of them.
    pub count: u64,
    /// Items that are lost, by the low halves of the hashes of their names.
    lost: BTreeMap<u32, Damage>,
    /// Damage that is no item's, or nobody knows whose.
    unnamed: Vec<Damage>,
}

impl Damages {
    /// Takes note of it; false when it was known.
    fn note(&mut self, damage: &Damage) -> bool {
        if self.told.iter().any(|told| told.is_same(damage)) {
            return false;
        }
        self.count += 1;
        if self.told.len() < TOLD_MAX {
            tracing::error!("{damage}");
            self.told.push(damage.clone());
        } else if self.count == TOLD_MAX as u64 + 1 {
            tracing::error!(
                "there is more damage, which is counted: coreflow doctor --memory shows all"
            );
        }
        true
    }

    fn lose(&mut self, hash: u32, damage: Damage) {
        self.note(&damage);
        if self.lost.len() < LOST_MAX {
            self.lost.insert(hash, damage);
        }
    }

    /// The damage of an item that is lost.
    pub fn of_item(&self, hash: u64) -> Option<&Damage> {
        self.lost.get(&(hash as u32))
    }

    /// An item is stored again or deleted; whether it was lost.
    pub(super) fn forget_item(&mut self, hash: u64) -> bool {
        self.lost.remove(&(hash as u32)).is_some()
    }

    /// What [`lasting`](Self::lasting) has, from a place on, each with the place behind it: first what is no item's,
    /// then the lost items. What comes or goes meanwhile moves no other.
    pub(super) fn lasting_from(
        &self,
        next: Next,
    ) -> impl Iterator<Item = (Option<u32>, &Damage, Next)> {
        let Next { unnamed, item } = next;
        let others = self.unnamed.iter().enumerate().skip(unnamed);
        let others = others.map(move |(at, damage)| (None, damage, Next { unnamed: at + 1, item }));
        let items = item.map(|item| self.lost.range(item..)).into_iter().flatten();
        let items = items.map(|(&hash, damage)| {
            (Some(hash), damage, Next { unnamed: UNNAMED_MAX, item: hash.checked_add(1) })
        });
        others.chain(items)
    }

    /// What is damaged at present and is not told by the records themselves.
    pub(super) fn lasting(&self) -> impl Iterator<Item = (Option<u32>, &Damage)> {
        let items = self.lost.iter().map(|(hash, damage)| (Some(*hash), damage));
        items.chain(self.unnamed.iter().map(|damage| (None, damage)))
    }

    /// What is lost at present.
    pub fn lost(&self) -> Lost {
        let mut lost = Lost { items: self.lost.len() as u64, ..Lost::default() };
        self.unnamed.iter().for_each(|damage| lost.add(damage.harm));
        lost
    }

    /// The first damage by which something is lost at present.
    pub fn lost_told(&self) -> impl Iterator<Item = &Damage> {
        let all = self.lasting().map(|(_, damage)| damage);
        all.filter(|damage| !damage.harm.is_harmless()).take(TOLD_MAX)
    }
}

impl Partition {
    /// Takes note of damage that is no item's, or nobody knows whose.
    pub(super) fn note_unnamed(&mut self, damage: Damage) {
        let is_new = !self.damages.unnamed.iter().any(|known| known.is_same(&damage));
        if self.damages.note(&damage) && is_new && self.damages.unnamed.len() < UNNAMED_MAX {
            self.damages.unnamed.push(damage);
        }
    }

    /// Takes over what a checkpoint knows.
    pub(super) fn take_known(&mut self, known: Vec<Known>) {
        for (hash, damage) in known {
            match hash {
                Some(hash) => self.damages.lose(hash, damage),
                None => self.note_unnamed(damage),
            }
        }
    }

    /// An item's record is damaged: what was there before does not come back in its place. The item is
    /// lost, unless the record said that it is gone.
    pub(super) fn lose(&mut self, kind: Kind, hash: u64, damage: Damage) -> Error {
        if kind == Kind::Seal {
            self.damages.note(&damage);
            return damaged(&damage);
        }
        let rows: Vec<Row> = self.table.with_hash(hash as u32).collect();
        for row in rows {
            let head = self.place_of(row).and_then(|place| self.log.head(place));
            if head.is_none_or(|head| head.hash == hash) {
                self.remove_row(row);
            }
        }
        let error = damaged(&damage);
        match kind {
            Kind::Delete => {
                self.damages.forget_item(hash);
                self.damages.note(&damage);
            }
            Kind::Put => self.damages.lose(hash as u32, damage),
            Kind::Seal => unreachable!("it is no item's"),
        }
        error
    }

    /// The record of a row is damaged: its item is lost.
    pub(super) fn lose_row(&mut self, row: Row, damage: Damage) {
        if let Some(entry) = self.table.get(row) {
            self.remove_row(row);
            self.damages.lose(entry.hash, damage);
        }
    }

    /// Begins to look at the records of all rows.
    pub(super) fn begin_to_look(&mut self) {
        self.look_from = self.look_from.or(Some(0));
    }

    /// Whether records are to be looked at.
    pub fn is_looking(&self) -> bool {
        self.look_from.is_some()
    }

    /// Looks at the records of some rows; false when there are no more.
    pub fn look(&mut self) -> Step<bool> {
        let Some(from) = self.look_from else { return Step::Done(false) };
        let mut end = self.table.rows().min(from.saturating_add(ROWS_A_STEP));
        let (mut missing, mut damages, mut portion) = (Vec::new(), Vec::new(), Portion::new());
        for row in from..end {
            let Some(place) = self.place_of(row) else { continue };
            if let Some(piece) = self.log.missing(place) {
                missing.push(piece);
                continue;
            }
            if !portion.take(self.log.head(place).map_or(0, |head| head.length)) {
                end = row;
                break;
            }
            damages.extend(self.log.read(place).err().map(|damage| (row, damage)));
        }
        if !missing.is_empty() {
            return Step::Wait(missing);
        }
        damages.into_iter().for_each(|(row, damage)| self.lose_row(row, damage));
        self.look_from = (end < self.table.rows()).then_some(end);
        Step::Done(true)
    }
}
