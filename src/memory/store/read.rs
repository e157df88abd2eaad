//! Items by their names, and all of them in parts.

use super::{
    partition::{Partition, Step, check_names, damaged, item_of},
    portion::Portion,
    record::hash_of,
    table::Row,
};
use crate::wire::{api::Error, memory::MemoryItem};

/// A part of a list: its items, and the row that the next part begins with.
pub type Listed = (Vec<MemoryItem>, Option<Row>);

impl Partition {
    /// An item by its name.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`] when its record is damaged.
    pub fn get(&mut self, namespace: &str, key: &str) -> Step<Result<MemoryItem, Error>> {
        if let Err(error) = check_names(namespace, key) {
            return Step::Done(Err(error));
        }
        let row = match self.find(namespace, key) {
            Step::Wait(pieces) => return Step::Wait(pieces),
            Step::Done(row) => row,
        };
        let found = row.and_then(|row| Some((row, self.place_of(row)?)));
        let Some((row, place)) = found else {
            return Step::Done(Err(match self.damages.of_item(hash_of(namespace, key)) {
                Some(damage) => damaged(damage),
                None => Error::NotFound(format!("no item {key:?} in the namespace {namespace:?}")),
            }));
        };
        let read = self.log.read(place).map(|record| {
            let vector = self.log.vector(place, &record.head).to_vec();
            MemoryItem { vector, ..item_of(&record) }
        });
        Step::Done(read.map_err(|damage| {
            let error = damaged(&damage);
            self.lose_row(row, damage);
            error
        }))
    }

    /// Items from a row on, without their vectors, at most `max`, and the row to go on from. Looks at
    /// `rows_max` rows and one portion of records at most.
    pub fn list(
        &mut self,
        namespace: Option<&str>,
        from: Row,
        max: usize,
        rows_max: usize,
    ) -> Step<Listed> {
        let wanted = namespace.map(|name| self.table.namespaces.find(name));
        let end = self.table.rows();
        let (mut items, mut missing, mut damages) = (Vec::new(), Vec::new(), Vec::new());
        let mut portion = Portion::new();
        let mut row = from;
        while row < end && items.len() + missing.len() < max && row - from < rows_max as Row {
            let entry = self.table.get(row);
            let is_wanted = |number| wanted.is_none_or(|wanted| wanted == Some(number));
            if let Some(entry) = entry.filter(|entry| is_wanted(entry.namespace)) {
                let piece = self.log.missing(entry.place);
                let head = if piece.is_none() { self.log.head(entry.place) } else { None };
                if !portion.take(head.map_or(0, |head| head.length)) {
                    break;
                }
                match piece {
                    Some(piece) => missing.push(piece),
                    None => match self.log.read(entry.place) {
                        Ok(record) => items.push(item_of(&record)),
                        Err(damage) => damages.push((row, damage)),
                    },
                }
            }
            row += 1;
        }
        damages.into_iter().for_each(|(row, damage)| self.lose_row(row, damage));
        if !missing.is_empty() {
            return Step::Wait(missing);
        }
        Step::Done((items, (row < end).then_some(row)))
    }
}
