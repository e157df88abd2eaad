//! The records of a partition, as they were read, beside what its checkpoint says of them: which items
//! are lost.
//!
//! Invariants:
//! - What is lost here is what a start finds lost once it has looked at all records, and as many records
//!   that nobody can name.
//! - An item that is lost is told once, by its record; a damage by which nothing is lost says so.

use super::{
    checkpoint::Outline,
    damage::{Damage, Harm},
    record::Kind,
    recover::From,
    scan::{self, Gap, Seen},
    segment::{LogSettings, segment_name},
    survey::Found,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

/// Where a record lies: the number of its file, and the offset.
type At = (u32, usize);

/// The records of a partition, as they were read, and what is lost of them.
pub struct Comparison<'a> {
    /// Which files these are.
    pub settings: &'a LogSettings,
    /// Where they are.
    pub folder: &'a Path,
    /// The numbers of the files that were read.
    pub numbers: &'a [u32],
    /// What they have.
    pub scanned: scan::Found,
}

impl Comparison<'_> {
    fn at(&self, segment: u32, offset: u32) -> At {
        (self.numbers[segment as usize], offset as usize)
    }

    fn damage(&self, (number, offset): At, harm: Harm) -> Damage {
        let file = self.folder.join(segment_name(self.settings.partition, number));
        Damage { file: file.display().to_string(), offset, harm, key: None }
    }

    /// What is found where no checkpoint says what there was: of a record that is not whole its item is
    /// lost if no later record is of the same; whose the missing ones were nobody knows.
    pub fn alone(&self) -> Vec<Found> {
        let last = last_of_each(&self.scanned.records);
        let gaps = self.scanned.gaps.iter();
        let gaps = gaps.map(|gap| Found { damage: gap.damage.clone(), is_harmless: false });
        let broken = self.scanned.broken.iter().map(|(damage, seen)| Found {
            damage: damage.clone(),
            is_harmless: is_passed(seen, &last),
        });
        gaps.chain(broken).collect()
    }

    /// What is found where a checkpoint says what there was up to some record: of that each item is lost
    /// whose record is not there as a whole, unless a later record is of the same; what is behind it is
    /// judged as without one.
    pub fn with(&self, outline: Outline) -> Vec<Found> {
        let Outline { from, known, first, places } = outline;
        let scan::Found { records, gaps, broken, end, last: last_read, .. } = &self.scanned;
        let behind = records.iter().filter(|seen| seen.sequence > from.sequence);
        let changed: HashSet<u32> = behind.map(|seen| seen.hash as u32).collect();
        let whole = records.iter().filter(|seen| seen.is_whole);
        let whole: HashSet<At> = whole.map(|seen| self.at(seen.segment, seen.offset)).collect();
        let first_there = self.settings.list.as_ref().map(|list| list.span().first);
        let first_there = first_there.or(self.numbers.first().copied()).unwrap_or(first);
        // Records of items that the checkpoint has and the files have not.
        let mut lost: BTreeMap<At, Damage> = BTreeMap::new();
        for (place, hash) in places {
            let number = first + self.settings.distance(place, first) as u32;
            let at = (number, self.settings.offset(place));
            if number >= first_there && !whole.contains(&at) && !changed.contains(&hash) {
                lost.insert(at, self.damage(at, Harm::Record));
            }
        }
        let mut found: Vec<Found> =
            gaps.iter().filter_map(|gap| self.judge(gap, &from, &lost)).collect();
        let last = last_of_each(records);
        for (damage, seen) in broken {
            match lost.get_mut(&self.at(seen.segment, seen.offset)) {
                Some(entry) => entry.key.clone_from(&damage.key),
                None => {
                    let is_harmless = seen.sequence <= from.sequence || is_passed(seen, &last);
                    found.push(Found { damage: damage.clone(), is_harmless });
                }
            }
        }
        // Records that the checkpoint covers and that are behind the last one that was read.
        let end = end.map_or((first_there, 0), |(segment, offset)| self.at(segment, offset));
        if let Some(gone @ 1..) = from.sequence.checked_sub(*last_read)
            && lost.range(end..).next().is_none()
        {
            let damage = self.damage((from.number, from.offset), Harm::Gone(gone));
            found.push(Found { damage, is_harmless: true });
        }
        found.extend(lost.into_values().map(|damage| Found { damage, is_harmless: false }));
        let is_present = |hash: Option<u32>| hash.is_none_or(|hash| !changed.contains(&hash));
        let known = known.into_iter().filter(|(hash, _)| is_present(*hash));
        add_known(&mut found, &known.map(|(_, damage)| damage).collect::<Vec<_>>());
        found
    }

    /// What is lost of records that are gone, when a checkpoint says what there was up to `from`; nothing
    /// where `lost` tells it item by item.
    fn judge(&self, gap: &Gap, from: &From, lost: &BTreeMap<At, Damage>) -> Option<Found> {
        let Gap { damage, segment, next, sequences, .. } = gap;
        let begin = self.at(*segment, damage.offset as u32);
        let end = next.map_or((u32::MAX, 0), |(segment, offset)| self.at(segment, offset));
        let damage = damage.clone();
        match gap.gone_behind(from.sequence) {
            0 if lost.range(begin..end).next().is_some() => None,
            0 => Some(Found { damage, is_harmless: true }),
            gone => {
                // A start begins to read where the checkpoint ends.
                let is_part = sequences.start <= from.sequence;
                let damage = match is_part {
                    true => self.damage((from.number, from.offset), Harm::Gone(gone)),
                    false => damage,
                };
                Some(Found { damage, is_harmless: false })
            }
        }
    }
}

/// Adds what a checkpoint knows of damage, which it knows better than the files look like.
fn add_known(found: &mut Vec<Found>, known: &[Damage]) {
    let places: HashSet<_> = known.iter().map(place_of).collect();
    found.retain(|it| !it.is_harmless || !places.contains(&place_of(&it.damage)));
    let places: HashSet<_> = found.iter().map(|it| place_of(&it.damage)).collect();
    let new = known.iter().filter(|damage| !places.contains(&place_of(damage)));
    let new =
        new.map(|damage| Found { damage: damage.clone(), is_harmless: damage.harm.is_harmless() });
    let new: Vec<Found> = new.collect();
    found.extend(new);
}

/// Whether a later record is of the same item, or this one said itself that the item is gone, or was no
/// item's.
fn is_passed(seen: &Seen, last: &HashMap<u64, u64>) -> bool {
    seen.kind != Kind::Put || last.get(&seen.hash).is_some_and(|last| *last > seen.sequence)
}

/// What two damages have in common that are one: file, offset, and whether it is that of a record.
fn place_of(damage: &Damage) -> (&str, usize, bool) {
    let is_record = matches!(damage.harm, Harm::Record | Harm::Gone(_));
    (&damage.file, damage.offset, is_record)
}

/// The last record of each item, by the hash of its name.
fn last_of_each(records: &[Seen]) -> HashMap<u64, u64> {
    records.iter().map(|seen| (seen.hash, seen.sequence)).collect()
}
