//! What waits for an agent, by type and priority, and which of it is next.

use super::{
    cold::{Cold, Kind},
    entry::{BEHIND, Entry},
    list::List,
    slab::Slab,
};
use crate::{registry::TypeIndex, wire::api::Priority};

/// No slot.
const NONE: u32 = u32::MAX;

/// Tasks of one type and priority, first come, first served.
///
/// The hot ones come before the cold ones. A task that stays in memory though cold ones came before
/// it has a *stand-in* among those. The first of the cold ones is never a stand-in.
#[derive(Clone, Copy)]
pub(super) struct Queue {
    pub(super) hot: List,
    pub(super) hot_len: u32,
    cold: List,
    /// Cold ones and stand-ins.
    cold_len: u32,
    /// The first of the cold ones that nobody asked the log for.
    unasked: u32,
    /// The cold ones before `unasked`.
    coming: u32,
}

impl Default for Queue {
    fn default() -> Self {
        let empty = List::default();
        Self { hot: empty, hot_len: 0, cold: empty, cold_len: 0, unasked: NONE, coming: 0 }
    }
}

impl Queue {
    #[inline]
    pub(super) fn push(&mut self, entries: &mut Vec<Entry>, key: u32) {
        self.hot.push(entries, key);
        self.hot_len += 1;
    }

    pub(super) fn push_first(&mut self, entries: &mut Vec<Entry>, key: u32) {
        self.hot.push_first(entries, key);
        self.hot_len += 1;
    }

    #[inline]
    pub(super) fn remove(&mut self, entries: &mut Vec<Entry>, key: u32) {
        self.hot.remove(entries, key);
        self.hot_len -= 1;
    }

    /// Whether whoever comes now must stand behind cold ones.
    #[inline]
    pub(super) fn has_cold(&self) -> bool {
        self.cold_len > 0
    }

    /// Tasks that are in memory or will be soon, in front of everything that nobody asked for.
    pub(super) fn ready_len(&self) -> usize {
        (self.hot_len + self.coming) as usize
    }

    pub(super) fn coming(&self) -> u32 {
        self.coming
    }

    /// Whether there is something to ask the log for.
    pub(super) fn has_unasked(&self) -> bool {
        self.unasked != NONE
    }

    pub(super) fn push_cold(&mut self, cold: &mut Slab<Cold>, slot: u32) {
        self.cold.push(cold, slot);
        self.cold_len += 1;
        if self.unasked == NONE {
            self.unasked = slot;
        }
    }

    /// Takes a cold one or a stand-in out; `settle` must follow.
    pub(super) fn remove_cold(&mut self, cold: &mut Slab<Cold>, slot: u32) {
        if self.unasked == slot {
            self.unasked = self.cold.after(cold, slot).unwrap_or(NONE);
        } else if cold[slot].is_coming() {
            self.coming -= 1;
        }
        self.cold.remove(cold, slot);
        self.cold_len -= 1;
    }

    /// Goes past the first that nobody asked for; its slot when the log must be asked.
    pub(super) fn ask(&mut self, cold: &mut Slab<Cold>) -> Option<u32> {
        let slot = self.unasked;
        self.unasked = self.cold.after(cold, slot).unwrap_or(NONE);
        self.coming += 1;
        cold[slot].set_coming();
        (cold[slot].kind() == Kind::Waiting).then_some(slot)
    }

    /// Moves those whose turn has come from the stand-ins to the hot ones.
    pub(super) fn settle(&mut self, entries: &mut Vec<Entry>, cold: &mut Slab<Cold>) {
        while let Some(slot) = self.cold.first()
            && cold[slot].kind() == Kind::StandIn
        {
            let key = cold[slot].spot.key();
            self.remove_cold(cold, slot);
            cold.remove(slot);
            let last = self.hot.last().map(|last| entries[last as usize].when_ms as i64);
            let entry = &mut entries[key as usize];
            entry.unset(BEHIND);
            // The log does not know when a repeated attempt was queued: not before the last one.
            entry.when_ms = (entry.when_ms as i64).max(last.unwrap_or(i64::MIN)) as u64;
            self.push(entries, key);
        }
    }
}

/// The queues of every agent type.
pub(super) struct Queues {
    types: Vec<[Queue; Priority::ALL.len()]>,
    ageing_ms: u64,
}

impl Queues {
    pub(super) fn new(ageing_ms: u64) -> Self {
        Self { types: Vec::new(), ageing_ms }
    }

    #[inline]
    pub(super) fn of(&mut self, type_index: TypeIndex, priority: Priority) -> &mut Queue {
        let type_index = type_index as usize;
        if type_index >= self.types.len() {
            self.types.resize_with(type_index + 1, Default::default);
        }
        &mut self.types[type_index][priority as usize]
    }

    /// Tasks of a type that wait; some that stay in memory while others do not count twice.
    pub(super) fn waiting(&self, type_index: TypeIndex) -> usize {
        let queues = self.types.get(usize::from(type_index)).into_iter().flatten();
        queues.map(|queue| queue.hot_len as usize + queue.cold_len as usize).sum()
    }

    /// The less, the sooner it should run: since when it waits, a step of priority counting like
    /// a time of waiting.
    #[inline]
    pub(super) fn urgency(&self, rank: i64, entry: &Entry) -> i64 {
        (entry.when_ms as i64).saturating_sub(rank * self.ageing_ms as i64)
    }

    /// Every queue.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.types.iter_mut().flatten()
    }

    /// The task of a type that should run next: of the first of each priority the one that has
    /// waited longest, a step of priority counting like a time of waiting.
    #[inline]
    pub(super) fn next(&self, type_index: TypeIndex, entries: &[Entry]) -> Option<u32> {
        let queues = self.types.get(type_index as usize)?;
        let ranked = queues.iter().enumerate().rev();
        let mut heads = ranked.filter_map(|(rank, queue)| Some((rank as i64, queue.hot.first()?)));
        let (rank, mut best) = heads.next()?;
        let Some(second) = heads.next() else { return Some(best) };
        let urgency = |rank: i64, key: u32| self.urgency(rank, &entries[key as usize]);
        let mut least = urgency(rank, best);
        for (rank, key) in std::iter::once(second).chain(heads) {
            let urgency = urgency(rank, key);
            if urgency < least {
                (least, best) = (urgency, key);
            }
        }
        Some(best)
    }
}
