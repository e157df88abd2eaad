//! What makes searches of a partition quicker or better and can wait.

use super::{
    partition::{Partition, Step},
    portion::Portion,
};

impl Partition {
    /// Goes on with what can wait: looking for the rows of namespaces that became small, linking what a start took in,
    /// which searches find meanwhile, coding anew what codes tell apart badly, and linking again what no way leads to. False when
    /// there is nothing of it.
    pub fn tidy_some(&mut self) -> Step<bool> {
        if self.table.gather_some() {
            return Step::Done(true);
        }
        let (mut portion, distances) = (Portion::new(), self.index.step_distances());
        let mut has_linked = false;
        while self.index.link_some(distances) {
            has_linked = true;
            if portion.is_over() {
                break;
            }
        }
        if has_linked {
            return Step::Done(true);
        }
        match self.recode_some() {
            Step::Done(false) => Step::Done(self.reach_some(&mut portion)),
            step => step,
        }
    }

    /// Goes on with looking for what no way leads to.
    fn reach_some(&mut self, portion: &mut Portion) -> bool {
        let (distances, mended) = (self.index.step_distances(), self.index.stats().mended);
        let mut has_looked = false;
        while self.index.reach_some(distances) {
            has_looked = true;
            if portion.is_over() {
                break;
            }
        }
        // The next checkpoint has those links, so that no start makes them again.
        self.changes += (self.index.stats().mended - mended) as u64;
        has_looked
    }

    /// Whether there is something of it.
    pub fn has_to_tidy(&self) -> bool {
        let recodes = self.recoding.is_some() || self.coarse.is_some() || self.index.has_coarse();
        let links = self.index.late() > 0 || self.index.has_to_reach();
        links || self.table.has_to_gather() || recodes
    }

    /// Goes on with giving a row a finer code, which the vector of its record is needed for.
    fn recode_some(&mut self) -> Step<bool> {
        if let Some(recoding) = &mut self.recoding {
            let distances = self.index.step_distances();
            if recoding.step(&mut self.index, distances).is_some() {
                self.recoding = None;
            }
            return Step::Done(true);
        }
        let Some(row) = self.coarse.take().or_else(|| self.index.take_coarse()) else {
            return Step::Done(self.index.has_coarse());
        };
        let Some(place) = self.place_of(row) else { return Step::Done(true) };
        if let Some(piece) = self.log.missing(place) {
            self.coarse = Some(row);
            return Step::Wait(vec![piece]);
        }
        match self.log.read(place) {
            Ok(record) => {
                let vector = self.log.vector(place, &record.head);
                // A stored vector has a code.
                self.recoding = self.index.begin_recode(row, vector).ok().flatten();
                // The next checkpoint has it, so that no start does it again.
                self.changes += u64::from(self.recoding.is_some());
            }
            Err(damage) => self.lose_row(row, damage),
        }
        Step::Done(true)
    }
}
