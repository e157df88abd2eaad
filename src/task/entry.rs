//! What the table keeps of one task.

use super::{
    body::Body,
    list::{Arena, Link, Linked},
    place::{Place, Spot},
};
use crate::{
    registry::TypeIndex,
    wire::api::{Priority, TaskStatus},
};

/// Who waits for news of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watcher {
    /// Where the news go.
    pub target: u64,
    /// What the receiver knows them by.
    pub correlation: u64,
}

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Vacant,
    /// Its submission waits for the log.
    Accepting,
    Queued,
    Delayed,
    Running,
    /// Its end is decided and waits for the log.
    EndingDone,
    EndingDead,
    EndingCancelled,
    Done,
    Dead,
    Cancelled,
    /// A dead letter that is queued again, which waits for the log; dead until then.
    Reviving,
}

impl State {
    /// That end, once the log has it.
    pub(super) fn of_end(status: TaskStatus) -> Self {
        match status {
            TaskStatus::Done => Self::Done,
            TaskStatus::Dead => Self::Dead,
            TaskStatus::Cancelled => Self::Cancelled,
            _ => unreachable!("{} is no end", status.name()),
        }
    }

    /// How the task ended, also when the log does not have it yet.
    #[inline]
    pub(super) fn end(self) -> Option<TaskStatus> {
        match self {
            Self::EndingDone | Self::Done => Some(TaskStatus::Done),
            Self::EndingDead | Self::Dead | Self::Reviving => Some(TaskStatus::Dead),
            Self::EndingCancelled | Self::Cancelled => Some(TaskStatus::Cancelled),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Dead | Self::Cancelled | Self::Reviving)
    }

    /// What others see; `None` when there is nothing to be seen.
    pub(super) fn status(self) -> Option<TaskStatus> {
        match self {
            Self::Vacant | Self::Accepting => None,
            Self::Queued => Some(TaskStatus::Queued),
            Self::Delayed => Some(TaskStatus::Delayed),
            // An end that is not committed has not happened.
            Self::Running | Self::EndingDone | Self::EndingDead | Self::EndingCancelled => {
                Some(TaskStatus::Running)
            }
            Self::Done | Self::Dead | Self::Cancelled | Self::Reviving => self.end(),
        }
    }
}

/// Kept in memory only.
pub(super) const TRANSIENT: u8 = 1;
/// `watcher` is somebody.
pub(super) const WATCHED: u8 = 1 << 1;
/// Waits behind cold tasks: the list of those holds a stand-in for it.
pub(super) const BEHIND: u8 = 1 << 2;
/// Among the dead letters.
pub(super) const LETTER: u8 = 1 << 3;
/// Its payload is in the log alone.
pub(super) const BARE: u8 = 1 << 4;
/// Ended because its room was needed.
pub(super) const EVICTED: u8 = 1 << 5;
/// Where the priority stands.
const PRIORITY_SHIFT: u32 = 6;

/// Three cache lines.
#[repr(align(64))]
pub(super) struct Entry {
    pub(super) random: u128,
    /// The payload; of a task that ended well its result.
    pub(super) body: Body,
    /// Its neighbours in its queue or among the dead letters; in `Accepting` the slot of its key;
    /// in `Delayed` its place in the heap; with [`BEHIND`] the slot of its stand-in; in `EndingDone` and
    /// `EndingCancelled`, where nodes agree on the table, what tells its contents from others.
    pub(super) link: Link,
    /// Token of the attempt that runs.
    pub(super) token: u64,
    /// In `Accepting` and `Delayed` when it may run, in `Queued` since when it waits, in
    /// `Running` when the attempt has taken too long, in the rest when it ended.
    pub(super) when_ms: u64,
    pub(super) submitted_ms: u64,
    /// Where the log has its submission; of a transient task its neighbours among those that may
    /// be evicted.
    pub(super) spot: Spot,
    pub(super) watcher: Watcher,
    pub(super) rare: Option<Box<Rare>>,
    /// As it was asked for, 0 for the table's limit.
    pub(super) timeout_ms: u32,
    pub(super) attempts: u32,
    /// As it was asked for, 0 for the table's limit.
    pub(super) max_attempts: u32,
    pub(super) type_index: TypeIndex,
    pub(super) state: State,
    flags: u8,
}

const _: () = assert!(size_of::<Entry>() == 3 * 64);

/// What few tasks have.
#[derive(Default)]
pub(super) struct Rare {
    /// Who waits beyond the first.
    pub(super) watchers: Vec<Watcher>,
    /// What the last failed attempt said.
    pub(super) error: Option<Box<str>>,
    /// Of a dead letter whose payload is in the log alone, where nodes agree on the table: what tells its
    /// contents from others.
    pub(super) print: u32,
}

impl Linked for Entry {
    #[inline]
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }
}

impl Entry {
    /// A place that no task has.
    pub(super) const VACANT: Self = Self {
        random: 0,
        body: Body::EMPTY,
        link: Link::NONE,
        token: 0,
        when_ms: 0,
        submitted_ms: 0,
        spot: Spot::NONE,
        watcher: Watcher { target: 0, correlation: 0 },
        rare: None,
        timeout_ms: 0,
        attempts: 0,
        max_attempts: 0,
        type_index: 0,
        state: State::Vacant,
        flags: 0,
    };

    #[inline]
    pub(super) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    pub(super) fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }

    #[inline]
    pub(super) fn unset(&mut self, flag: u8) {
        self.flags &= !flag;
    }

    /// Sets the priority and clears every flag.
    #[inline]
    pub(super) fn begin(&mut self, priority: Priority) {
        self.flags = (priority as u8) << PRIORITY_SHIFT;
    }

    #[inline]
    pub(super) fn priority(&self) -> Priority {
        Priority::ALL[(self.flags >> PRIORITY_SHIFT) as usize]
    }

    /// Where the log has its submission.
    #[inline]
    pub(super) fn place(&self) -> Option<Place> {
        if self.is(TRANSIENT) { None } else { self.spot.place() }
    }

    /// What each takes in the table, bytes.
    pub(super) const BYTES: usize = size_of::<Self>();

    /// What it takes with its payload, bytes; does not change while it waits.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        Self::BYTES + self.body.heap_bytes()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.body.heap_bytes() + self.error().map_or(0, str::len)
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.rare.as_ref()?.error.as_deref()
    }

    /// Whether it is a task that has not ended, or a dead letter.
    pub(super) fn lives(&self) -> bool {
        !self.state.is_ended() || self.is(LETTER) || self.state == State::Reviving
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(super) fn watch(&mut self, watcher: Watcher) {
        if self.is(WATCHED) {
            return self.rare().watchers.push(watcher);
        }
        self.watcher = watcher;
        self.set(WATCHED);
    }

    /// False when the watcher was not there.
    pub(super) fn unwatch(&mut self, watcher: Watcher) -> bool {
        if self.is(WATCHED) && self.watcher == watcher {
            match self.rare.as_mut().and_then(|rare| rare.watchers.pop()) {
                Some(another) => self.watcher = another,
                None => self.unset(WATCHED),
            }
            return true;
        }
        let Some(rare) = &mut self.rare else { return false };
        let place = rare.watchers.iter().position(|there| *there == watcher);
        place.map(|place| rare.watchers.swap_remove(place)).is_some()
    }

    #[inline]
    pub(super) fn take_watchers(&mut self) -> impl Iterator<Item = Watcher> + use<> {
        let first = self.is(WATCHED).then_some(self.watcher);
        self.unset(WATCHED);
        let more = self.rare.as_mut().map(|rare| std::mem::take(&mut rare.watchers));
        first.into_iter().chain(more.unwrap_or_default())
    }
}

/// The links among the transient tasks that wait.
pub(super) struct Evictable<'a>(pub(super) &'a mut [Entry]);

impl Arena for Evictable<'_> {
    fn link(&mut self, key: u32) -> &mut Link {
        self.0[key as usize].spot.link()
    }
}
