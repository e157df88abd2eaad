//! The table's tasks, a page at a time.

use super::{
    entry::{Entry, LETTER, State},
    table::TaskTable,
};
use crate::{
    registry::TypeIndex,
    wire::api::{TaskStatus, TaskView},
};

/// Slots that are looked at for one page, so that a question for what is rare is answered in
/// parts.
const LOOK_TOGETHER: usize = 16 * 1024;

/// Which tasks a page shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only tasks that are there in their life.
    pub status: Option<TaskStatus>,
    /// Only tasks of this type.
    pub type_index: Option<TypeIndex>,
    /// Only dead letters.
    pub letters: bool,
}

impl TaskTable {
    /// A page of tasks without their results, `max` at most, from where an earlier page ended (0
    /// for the first); and where the next one begins, `None` at the end. A page that is not the
    /// last may be short, or empty. A task that is there all the time is shown at least once,
    /// unless it comes back from the log meanwhile.
    pub fn list(
        &self,
        filter: ListFilter,
        cursor: u64,
        max: usize,
        name: impl Fn(TypeIndex) -> String,
    ) -> (Vec<TaskView>, Option<u64>) {
        let hot = self.entries.len();
        let slots = hot + self.cold.slab.slots() as usize;
        let begin = usize::try_from(cursor).unwrap_or(slots).min(slots);
        let end = slots.min(begin + LOOK_TOGETHER);
        let mut page = Vec::new();
        for slot in begin..end {
            if page.len() == max {
                return (page, Some(slot as u64));
            }
            let view = match slot < hot {
                true => self.list_hot(filter, slot as u32, &name),
                false => self.list_cold(filter, (slot - hot) as u32, &name),
            };
            page.extend(view);
        }
        (page, (end < slots).then_some(end as u64))
    }

    /// A page of the dead letters, as [`TaskTable::list`] shows them.
    pub fn dead(
        &self,
        cursor: u64,
        max: usize,
        name: impl Fn(TypeIndex) -> String,
    ) -> (Vec<TaskView>, Option<u64>) {
        let filter = ListFilter { letters: true, ..ListFilter::default() };
        self.list(filter, cursor, max, name)
    }

    /// Tasks of a type that are cold; when the log was just replayed, all that have not ended.
    pub fn count_cold(&self, type_index: TypeIndex) -> usize {
        let slab = &self.cold.slab;
        let of_type = |slot: &u32| slab[*slot].is_task() && slab[*slot].type_index == type_index;
        (0..slab.slots()).filter(of_type).count()
    }

    fn list_hot(
        &self,
        filter: ListFilter,
        key: u32,
        name: impl Fn(TypeIndex) -> String,
    ) -> Option<TaskView> {
        let entry: &Entry = &self.entries[key as usize];
        let status = entry.state.status()?;
        let shown = filter.status.is_none_or(|wanted| wanted == status)
            && filter.type_index.is_none_or(|wanted| wanted == entry.type_index)
            && (!filter.letters || entry.is(LETTER) || entry.state == State::Reviving);
        if shown { self.view_hot(key, None, name) } else { None }
    }

    fn list_cold(
        &self,
        filter: ListFilter,
        slot: u32,
        name: impl Fn(TypeIndex) -> String,
    ) -> Option<TaskView> {
        let cold = &self.cold.slab[slot];
        if !cold.is_task() || filter.letters {
            return None;
        }
        if filter.type_index.is_some_and(|wanted| wanted != cold.type_index) {
            return None;
        }
        let view = self.view_cold(slot, name);
        filter.status.is_none_or(|wanted| wanted == view.status).then_some(view)
    }
}
