//! Spreads leaders: each partition has a preferred voter, and whoever else leads it hands it over
//! when that is safe and cheap.
//!
//! Each partition counts on its own how often it was handed over: the pause before the next time
//! doubles, so that a preferred voter that cannot hold it does not make it flap. Whoever held it for
//! [`HELD_TICKS`] can: when it comes back from such a one, which was killed or drained, all that is
//! forgotten. One that did not come to be handed over, because the voter was slow just then, is tried again
//! much sooner.

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
/// And at most: a partition that is handed over takes no proposals for some ticks.
const PAUSE_TICKS_MAX: u64 = 4 * PAUSE_TICKS;
/// Ticks for which a voter leads that can hold a partition.
const HELD_TICKS: u64 = PAUSE_TICKS;
/// Ticks before another try after one that came to nothing; doubled with each, up to [`PAUSE_TICKS`].
/// Meanwhile the partition takes proposals: while it is handed over it takes none.
const RETRY_TICKS: u64 = ELECTION_TICKS as u64;

/// The voter that should lead a partition; `None` while the membership changes.
pub fn preferred(partition: u16, members: &Members) -> Option<u64> {
    if members.is_joint() || members.voters.is_empty() {
        return None;
    }
    members.voters.get(usize::from(partition) % members.voters.len()).copied()
}

#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// The term in which this node leads, and since when.
    leads: Option<(u64, u64)>,
    /// The term in which it is being handed over.
    trying: Option<u64>,
    /// Tries in a row that came to nothing.
    failures: u32,
    not_before: u64,
    pause: u64,
    /// When it was handed over, if it did not come back since.
    away_since: Option<u64>,
}

impl Memory {
    /// This node does not lead.
    fn follows(&mut self, now: u64) {
        self.leads = None;
        if self.trying.take().is_some() {
            self.was_handed_over(now);
        }
    }

    /// This node leads; gives whether it may hand the partition over.
    fn leads(&mut self, now: u64, term: u64, is_handing_over: bool) -> bool {
        if self.leads.is_none_or(|(known, _)| known != term) {
            // It may have been away between two looks.
            self.follows(now);
            if self.away_since.take().is_some_and(|since| now >= since + HELD_TICKS) {
                (self.pause, self.not_before) = (0, self.not_before.min(now));
            }
            self.leads = Some((term, now));
        }
        if self.trying.is_some() && !is_handing_over {
            self.trying = None;
            self.not_before = now + (RETRY_TICKS << self.failures.min(16)).min(PAUSE_TICKS);
            self.failures += 1;
        }
        let is_settled = self.leads.is_some_and(|(_, since)| now >= since + SETTLE_TICKS);
        is_settled && now >= SETTLE_TICKS && now >= self.not_before && self.trying.is_none()
    }

    /// A try begins.
    fn tries(&mut self) {
        self.trying = self.leads.map(|(term, _)| term);
    }

    fn was_handed_over(&mut self, now: u64) {
        let is_long_ago = now > self.not_before + PAUSE_TICKS_MAX;
        let again = (2 * self.pause).min(PAUSE_TICKS_MAX);
        self.pause = if is_long_ago { PAUSE_TICKS } else { again.max(PAUSE_TICKS) };
        (self.not_before, self.failures) = (now + self.pause, 0);
        self.away_since = Some(now);
    }
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
            let Role::Leader { term } = group.role() else {
                memory.follows(now);
                continue;
            };
            let may = memory.leads(now, term, group.is_handing_over());
            let Some(to) = next_leader(group).filter(|_| may && may_hand_over) else { continue };
            if group.transfer(to).is_ok() {
                memory.tries();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks until the partition may be handed over; gives when.
    fn until_may(memory: &mut Memory, from: u64, term: u64) -> u64 {
        let looks = (from..).step_by(LOOK_TICKS as usize);
        looks.take(100_000).find(|now| memory.leads(*now, term, false)).expect("it may again")
    }

    #[test]
    fn what_came_to_nothing_is_tried_again_soon_and_then_more_seldom() {
        let mut memory = Memory::default();
        let mut now = until_may(&mut memory, 0, 3);
        assert_eq!(now, SETTLE_TICKS);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            memory.tries();
            assert!(!memory.leads(now + LOOK_TICKS / 2, 3, true), "it is being handed over");
            now += LOOK_TICKS;
            let next = until_may(&mut memory, now, 3);
            pauses.push(next - now);
            now = next;
        }
        let ticks = RETRY_TICKS;
        let most = PAUSE_TICKS;
        let expected = [ticks, 2 * ticks, 4 * ticks, 8 * ticks, 16 * ticks, most, most, most];
        assert_eq!(pauses, expected);
        // It goes at last; when it comes back, that it came to nothing is forgotten, and the pause is that
        // of one which does not stay.
        memory.tries();
        memory.follows(now);
        assert_eq!(until_may(&mut memory, now + 10, 5), now + PAUSE_TICKS);
    }

    #[test]
    fn what_comes_back_is_handed_over_ever_more_seldom() {
        let (mut memory, mut now, mut term) = (Memory::default(), 0, 1);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            now = until_may(&mut memory, now, term);
            memory.tries();
            // It was away between two looks: only the term tells.
            term += 2;
            now += LOOK_TICKS;
            let next = until_may(&mut memory, now, term);
            pauses.push(next - now);
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 4].map(|times| times * PAUSE_TICKS));
    }

    #[test]
    fn what_comes_back_from_a_voter_that_held_it_is_handed_over_as_the_first_time() {
        let (mut memory, mut now, mut term) = (Memory::default(), 0, 1);
        for held_ticks in [1, 1, 1, HELD_TICKS, HELD_TICKS, 1, HELD_TICKS - 1, HELD_TICKS] {
            now = until_may(&mut memory, now, term);
            memory.tries();
            memory.follows(now);
            let pause = memory.pause;
            now += held_ticks;
            term += 2;
            let next = until_may(&mut memory, now, term);
            match held_ticks >= HELD_TICKS {
                true => assert_eq!(next - now, SETTLE_TICKS, "it was killed, and is back"),
                false => {
                    let expected = SETTLE_TICKS.max(pause - held_ticks);
                    assert!((expected..expected + LOOK_TICKS).contains(&(next - now)), "it flaps");
                }
            }
            now = next;
        }
    }
}
