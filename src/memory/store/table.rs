//! Which row of the index is which item: a row's record, name's hash and namespace, and the rows by hash.
//!
//! A row costs 12 bytes, and 6 to 11 in the table of hashes, which holds rows and no keys: who looks
//! a key up compares it with the record. The table is made of many small ones, so that none takes long to
//! grow, and rows lie in parts that never move.

use hashbrown::HashTable;
use std::collections::{BTreeMap, VecDeque};

/// Tables that the hashes are spread over.
const TABLES: usize = 1024;
/// Rows in one part.
const PART: usize = 4096;
/// Namespaces that a partition may have.
pub const NAMESPACES_MAX: usize = 1 << 16;

/// A namespace with so many items or fewer knows its rows, and one that had more when half as many are left: a
/// search there compares them all. A walk through the graph would meet next to none of a hundred among a million.
const ROWS_MAX: usize = 4096;
/// Rows that one step looks at for those of a namespace.
const LOOKS_A_STEP: Row = 4096;

/// Where a record begins, in units from the begin of the partition's first file ever.
pub type Place = u32;
/// A row of the index.
pub type Row = u32;

/// What is kept of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its record.
    pub place: Place,
    /// The low half of its name's hash.
    pub hash: u32,
    /// The namespace, by its number here.
    pub namespace: u16,
    /// Whether there is an item.
    pub is_taken: bool,
}

/// The namespaces of a partition, each with a number while there is something in it.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// A tree, as a map that grows to many thousand names would keep messages waiting.
    numbers: BTreeMap<Box<str>, u16>,
    spaces: Vec<Space>,
    free: Vec<u16>,
    /// Those that became small and do not know their rows.
    shrunk: VecDeque<u16>,
    gathering: Option<Gathering>,
}

/// One of them.
#[derive(Debug, Default)]
struct Space {
    name: Box<str>,
    count: u64,
    /// Its rows, in no order; none when there were more than [`ROWS_MAX`] and they were not gathered since.
    rows: Option<Vec<Row>>,
}

/// The rows of a namespace that became small are looked for.
#[derive(Debug)]
struct Gathering {
    number: u16,
    /// All before this one were looked at.
    next: Row,
    rows: Vec<Row>,
}

/// All rows of a partition.
#[derive(Debug)]
pub struct Table {
    parts: Vec<Box<[Entry; PART]>>,
    rows_by_hash: Vec<HashTable<Row>>,
    /// The namespaces of the rows.
    pub namespaces: Namespaces,
    live: usize,
}

impl Default for Table {
    fn default() -> Self {
        let rows_by_hash = (0..TABLES).map(|_| HashTable::new()).collect();
        Self { parts: Vec::new(), rows_by_hash, namespaces: Namespaces::default(), live: 0 }
    }
}

/// A hash of 64 bits out of half a one, for the table's own use.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn table_of(hash: u32) -> usize {
    hash as usize % TABLES
}

impl Table {
    /// Rows that are taken.
    pub fn live(&self) -> usize {
        self.live
    }

    /// One more than the highest row that was ever taken, or a little more.
    pub fn rows(&self) -> Row {
        (self.parts.len() * PART) as Row
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let tables: usize = self.rows_by_hash.iter().map(HashTable::allocation_size).sum();
        let own = TABLES * size_of::<HashTable<Row>>();
        self.parts.len() * PART * size_of::<Entry>() + tables + own + self.namespaces.bytes()
    }

    /// What is kept of a row; nothing for one that is free.
    #[inline]
    pub fn get(&self, row: Row) -> Option<Entry> {
        let entry = self.parts.get(row as usize / PART)?[row as usize % PART];
        entry.is_taken.then_some(entry)
    }

    /// Takes a free row.
    ///
    /// # Panics
    /// When it is taken, or its namespace has no number.
    pub fn insert(&mut self, row: Row, place: Place, hash: u32, namespace: u16) {
        assert!(self.get(row).is_none(), "a row is taken once");
        while self.rows() <= row {
            self.parts.push(Box::new([Entry::default(); PART]));
        }
        let entry = Entry { place, hash, namespace, is_taken: true };
        self.parts[row as usize / PART][row as usize % PART] = entry;
        let parts = &self.parts;
        let hash_of = |row: &Row| spread(parts[*row as usize / PART][*row as usize % PART].hash);
        self.rows_by_hash[table_of(hash)].insert_unique(spread(hash), row, hash_of);
        self.namespaces.take(namespace, row);
        self.live += 1;
    }

    /// Frees a row; what it was.
    pub fn remove(&mut self, row: Row) -> Option<Entry> {
        let entry = self.get(row)?;
        let table = &mut self.rows_by_hash[table_of(entry.hash)];
        if let Ok(found) = table.find_entry(spread(entry.hash), |other| *other == row) {
            found.remove();
        }
        self.parts[row as usize / PART][row as usize % PART] = Entry::default();
        self.namespaces.leave(entry.namespace, row);
        self.live -= 1;
        Some(entry)
    }

    /// The item of a row is at another place now.
    pub fn set_place(&mut self, row: Row, place: Place) {
        self.parts[row as usize / PART][row as usize % PART].place = place;
    }

    /// Goes on with looking for the rows of namespaces that became small; false when all know theirs.
    pub fn gather_some(&mut self) -> bool {
        let spaces = &mut self.namespaces;
        let begun = spaces.gathering.take().or_else(|| {
            let number = spaces.shrunk.pop_front()?;
            Some(Gathering { number, next: 0, rows: Vec::new() })
        });
        let Some(mut gathering) = begun else { return false };
        let end = self.rows().min(gathering.next + LOOKS_A_STEP);
        for row in gathering.next..end {
            if self.get(row).is_some_and(|entry| entry.namespace == gathering.number) {
                gathering.rows.push(row);
            }
        }
        gathering.next = end;
        let is_complete = end == self.rows();
        let spaces = &mut self.namespaces;
        let space = &mut spaces.spaces[usize::from(gathering.number)];
        if space.count > ROWS_MAX as u64 {
            // It has grown again.
        } else if is_complete {
            space.rows = Some(gathering.rows);
        } else {
            spaces.gathering = Some(gathering);
        }
        true
    }

    /// Whether rows are to be looked for.
    pub fn has_to_gather(&self) -> bool {
        self.namespaces.gathering.is_some() || !self.namespaces.shrunk.is_empty()
    }

    /// Rows whose names may have this hash: seldom more than one.
    pub fn with_hash(&self, hash: u32) -> impl Iterator<Item = Row> + '_ {
        let table = &self.rows_by_hash[table_of(hash)];
        let has_hash = move |row: &Row| self.get(*row).is_some_and(|entry| entry.hash == hash);
        table.iter_hash(spread(hash)).copied().filter(has_hash)
    }
}

impl Namespaces {
    /// The number of a namespace that has items.
    pub fn find(&self, name: &str) -> Option<u16> {
        self.numbers.get(name).copied()
    }

    /// The number of a namespace, a new one where it has none; `None` when there are too many.
    pub fn enter(&mut self, name: &str) -> Option<u16> {
        if let Some(number) = self.find(name) {
            return Some(number);
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.spaces.len() < NAMESPACES_MAX => {
                self.spaces.push(Default::default());
                (self.spaces.len() - 1) as u16
            }
            None => return None,
        };
        let space = Space { name: name.into(), count: 0, rows: Some(Vec::new()) };
        self.spaces[usize::from(number)] = space;
        self.numbers.insert(name.into(), number);
        Some(number)
    }

    /// An item comes.
    fn take(&mut self, number: u16, row: Row) {
        let space = &mut self.spaces[usize::from(number)];
        space.count += 1;
        match &mut space.rows {
            Some(rows) if rows.len() < ROWS_MAX => rows.push(row),
            rows => *rows = None,
        }
        if let Some(gathering) = self.gathering_of(number, row) {
            gathering.rows.push(row);
        }
    }

    /// What was gathered for a namespace, when this row was passed already.
    fn gathering_of(&mut self, number: u16, row: Row) -> Option<&mut Gathering> {
        self.gathering.as_mut().filter(|it| it.number == number && row < it.next)
    }

    /// An item is gone; a namespace without one gives its number back.
    fn leave(&mut self, number: u16, row: Row) {
        let space = &mut self.spaces[usize::from(number)];
        space.count -= 1;
        if let Some(rows) = &mut space.rows
            && let Some(at) = rows.iter().position(|&other| other == row)
        {
            rows.swap_remove(at);
        }
        let (count, is_to_gather) = (space.count, space.rows.is_none());
        if let Some(gathering) = self.gathering_of(number, row)
            && let Some(at) = gathering.rows.iter().position(|&other| other == row)
        {
            gathering.rows.swap_remove(at);
        }
        if count == 0 {
            self.shrunk.retain(|&other| other != number);
            self.gathering.take_if(|gathering| gathering.number == number);
        } else if is_to_gather && count == ROWS_MAX as u64 / 2 && !self.is_gathering(number) {
            self.shrunk.push_back(number);
        }
        let space = &mut self.spaces[usize::from(number)];
        if count == 0 {
            let Space { name, .. } = std::mem::take(space);
            self.numbers.remove(&name);
            self.free.push(number);
        }
    }

    fn is_gathering(&self, number: u16) -> bool {
        self.shrunk.contains(&number)
            || self.gathering.as_ref().is_some_and(|gathering| gathering.number == number)
    }

    /// Items of a namespace.
    pub fn count(&self, number: u16) -> u64 {
        self.spaces[usize::from(number)].count
    }

    /// The rows of a namespace, in no order, where there are not many.
    pub fn rows(&self, number: u16) -> Option<&[Row]> {
        self.spaces[usize::from(number)].rows.as_deref()
    }

    /// How many namespaces there are.
    pub fn used(&self) -> usize {
        self.numbers.len()
    }

    /// The name of a number that is in use.
    pub fn name(&self, number: u16) -> &str {
        &self.spaces[usize::from(number)].name
    }

    /// Each namespace that has items and whose number is at least `from`, with its number.
    pub fn numbered(&self, from: usize) -> impl Iterator<Item = (u16, &str)> {
        let all = (from..).zip(self.spaces.get(from..).unwrap_or_default());
        let used = all.filter(|(_, space)| space.count > 0);
        used.map(|(number, space)| (number as u16, &*space.name))
    }

    /// Each namespace and its items.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        let used = self.spaces.iter().filter(|space| space.count > 0);
        used.map(|space| (&*space.name, space.count))
    }

    fn bytes(&self) -> usize {
        // A name twice, its rows, and what a map has for a place.
        let bytes = |space: &Space| {
            let rows = space.rows.as_ref().map_or(0, Vec::capacity) * size_of::<Row>();
            2 * space.name.len() + rows + 96
        };
        self.spaces.iter().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_their_hash_until_they_are_removed() {
        let mut table = Table::default();
        let space = table.namespaces.enter("space").unwrap();
        for row in 0..10_000 {
            table.insert(row, row * 2, row / 2, space);
        }
        assert_eq!((table.live(), table.namespaces.count(space)), (10_000, 10_000));
        let mut rows: Vec<Row> = table.with_hash(70).collect();
        rows.sort_unstable();
        assert_eq!(rows, [140, 141]);
        assert_eq!(table.remove(140).unwrap().place, 280);
        assert_eq!(table.with_hash(70).collect::<Vec<_>>(), [141]);
        assert!(table.remove(140).is_none() && table.get(140).is_none());
        let bytes_a_row = table.bytes() as f64 / 10_000.0;
        assert!(bytes_a_row < 35.0, "{bytes_a_row} bytes a row");
    }

    #[test]
    fn a_small_namespace_knows_its_rows() {
        let mut table = Table::default();
        let (small, large) =
            (table.namespaces.enter("small").unwrap(), table.namespaces.enter("large").unwrap());
        for row in 0..ROWS_MAX as Row + 100 {
            table.insert(row, row, row, if row < 100 { small } else { large });
        }
        for row in (0..100).step_by(3) {
            table.remove(row).unwrap();
        }
        let mut rows = table.namespaces.rows(small).unwrap().to_vec();
        rows.sort_unstable();
        assert!(rows.into_iter().eq((0..100).filter(|row| row % 3 > 0)));
        assert_eq!(table.namespaces.rows(large).map(<[Row]>::len), Some(ROWS_MAX));
        table.insert(9999, 0, 0, large);
        assert_eq!(table.namespaces.rows(large), None);
        table.remove(9999);
        assert_eq!(table.namespaces.rows(large), None);
        assert!(!table.has_to_gather());
    }

    /// While its rows are looked for, some more come and go.
    #[test]
    fn a_namespace_that_became_small_knows_its_rows_again() {
        let mut table = Table::default();
        let (other, large) =
            (table.namespaces.enter("other").unwrap(), table.namespaces.enter("large").unwrap());
        const ROWS: Row = 4 * ROWS_MAX as Row;
        for row in 0..ROWS {
            table.insert(row, row, row, if row % 2 == 0 { other } else { large });
        }
        let mut removed = (1..ROWS).step_by(2);
        while table.namespaces.count(large) > ROWS_MAX as u64 / 2 {
            assert!(!table.has_to_gather());
            table.remove(removed.next().unwrap()).unwrap();
        }
        assert!(table.gather_some() && table.has_to_gather());
        // One that was passed comes, one goes; and so does one that was not passed.
        table.insert(1, 1, 1, large);
        table.remove(0).unwrap();
        table.remove(ROWS - 1).unwrap();
        table.insert(ROWS - 1, 2, 3, other);
        while table.gather_some() {}
        let mut rows = table.namespaces.rows(large).unwrap().to_vec();
        rows.sort_unstable();
        let is_of_it = |row: &Row| table.get(*row).is_some_and(|entry| entry.namespace == large);
        assert!(rows.iter().copied().eq((0..ROWS).filter(is_of_it)));
        assert_eq!(rows.len(), ROWS_MAX / 2);
        assert_eq!(table.namespaces.rows(other), None);
    }

    #[test]
    fn a_namespace_lives_as_long_as_something_is_in_it() {
        let mut table = Table::default();
        let first = table.namespaces.enter("first").unwrap();
        table.insert(0, 0, 0, first);
        let second = table.namespaces.enter("second").unwrap();
        table.insert(1, 1, 1, second);
        table.remove(0);
        assert_eq!(table.namespaces.find("first"), None);
        assert_eq!(table.namespaces.enter("third"), Some(first));
        table.insert(0, 2, 2, first);
        let mut all: Vec<_> = table.namespaces.iter().collect();
        all.sort_unstable();
        assert_eq!(all, [("second", 1), ("third", 1)]);
    }
}
