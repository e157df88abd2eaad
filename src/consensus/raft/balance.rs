//! Spreads leaders: each partition has a preferred voter, and whoever else leads it hands it over
//! when that is safe and cheap.
//!
//! Each partition counts on its own how often it was handed over: the pause before the next time
//! doubles, so that a preferred voter that cannot hold it does not make it flap.

use super::{
    group::{ELECTION_TICKS, Group, HEARTBEAT_TICKS},
    membership::{CAUGHT_UP_ENTRIES, Members},
    outputs::Role,
};

/// Ticks between two looks.
pub const LOOK_TICKS: u64 = 10;
/// Ticks that a node runs, and a leader leads, before anything is handed over.
pub const SETTLE_TICKS: u64 = 5 * ELECTION_TICKS as u64;
/// Ticks before a partition is handed over again, the first time.
const PAUSE_TICKS: u64 = 20 * ELECTION_TICKS as u64;
/// And at most.
const PAUSE_TICKS_MAX: u64 = 64 * PAUSE_TICKS;

/// The voter that should lead a partition; `None` while the membership changes.
pub fn preferred(partition: u16, members: &Members) -> Option<u64> {
    if members.is_joint() || members.voters.is_empty() {
        return None;
    }
    members.voters.get(usize::from(partition) % members.voters.len()).copied()
}

#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    led_since: Option<u64>,
    not_before: u64,
    pause: u64,
}

/// What was handed over when.
#[derive(Debug)]
pub(super) struct Balance {
    partitions: Vec<Memory>,
}

impl Balance {
    pub fn new(partitions: usize) -> Self {
        Self { partitions: vec![Memory::default(); partitions] }
    }

    /// Looks at all groups; hands over at most one.
    pub fn look(&mut self, now: u64, groups: &mut [Group]) {
        let mut may_hand_over = true;
        for (memory, group) in self.partitions.iter_mut().zip(groups) {
            if !matches!(group.role(), Role::Leader { .. }) {
                memory.led_since = None;
                continue;
            }
            let led_since = *memory.led_since.get_or_insert(now);
            let is_settled = now >= SETTLE_TICKS && now >= led_since + SETTLE_TICKS;
            let is_paused = now < memory.not_before;
            let Some(to) = next_leader(group).filter(|_| may_hand_over) else { continue };
            if is_settled && !is_paused && group.transfer(to).is_ok() {
                let is_long_ago = now > memory.not_before + PAUSE_TICKS_MAX;
                let again = (2 * memory.pause).min(PAUSE_TICKS_MAX);
                memory.pause = if is_long_ago { PAUSE_TICKS } else { again.max(PAUSE_TICKS) };
                memory.not_before = now + memory.pause;
                may_hand_over = false;
            }
        }
    }
}

/// The preferred leader, when it is another one that could take over at once.
fn next_leader(group: &Group) -> Option<u64> {
    let to = preferred(group.partition, group.members())?;
    let is_fit = to != group.me
        && !group.is_handing_over()
        && group.was_heard_within(to, 2 * HEARTBEAT_TICKS as u64 + 1)
        && group.missing(to) <= CAUGHT_UP_ENTRIES;
    is_fit.then_some(to)
}
