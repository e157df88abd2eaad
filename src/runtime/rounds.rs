//! How the futures of a core share the time between two turns of its messages: in rounds.
//!
//! A round begins when messages had their turn. A future with more to do looks whether the time of the round is over;
//! then it waits for the next one. What runs on the core comes in two sorts: those that *enter* a round from outside,
//! such as a connection, and *steps* within them, of long work. No clock and no executor in here.
//!
//! Invariants:
//! - When the time of a round is over, at most one more enters it, and at most two more steps are done, of work that
//!   waited for [`ROUNDS_MAX`] rounds: one, and one more where somebody entered late, who may have come for it.
//! - Those that had no time stand in a line and come first in the next round: who has no place in it, whoever woke it,
//!   stands behind while one of it did not enter. The first of those that are to enter does,
//!   however late it is. So one with `n` others before it enters `n + 1` rounds later at the latest: each round takes
//!   the first one out of the line, since it enters or is gone.

use std::{
    task::{Poll, Waker},
    time::{Duration, Instant},
};

/// How long futures that have much to do go on together, before messages have their turn.
pub const BREATH: Duration = Duration::from_micros(30);
/// The same for those that do little at a time, such as a connection that has more to read: to stop and
/// begin again so soon would cost them a quarter of what they do.
pub const ROUND: Duration = Duration::from_micros(100);
/// The same while the core's messages have much to do in their own turns.
const SHORT_ROUND: Duration = BREATH;
/// Rounds that a step of long work waits for its turn, where others use up the time of each, until it may be the one
/// that is done late.
pub const ROUNDS_MAX: u64 = 4;

/// A place in the line of those that had no time, kept until they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The round in which it was taken.
    round: u64,
    number: u64,
}

/// Somebody in the line.
#[derive(Debug)]
struct Waiting {
    place: Place,
    /// Whether it is to enter from outside.
    enters: bool,
    waker: Waker,
}

/// The rounds of one core.
#[derive(Debug)]
pub struct Rounds {
    /// The number of the present round.
    round: u64,
    /// When it began; none where no rounds are.
    began: Option<Instant>,
    /// How long it lasts.
    limit: Duration,
    /// The core slept: the round begins with the first future that runs.
    rested: bool,
    /// Who enters the round late.
    head: Option<Place>,
    /// How many of the line are to enter and did not yet.
    unserved: usize,
    /// Whether a step may be done late.
    may_step: bool,
    /// The number of the next place in the line.
    next_number: u64,
    /// The line.
    line: Vec<Waiting>,
    /// Those that had time and have more to do.
    later: Vec<Waker>,
}

impl Default for Rounds {
    fn default() -> Self {
        Self::new()
    }
}

impl Rounds {
    /// No rounds yet: all have time.
    pub const fn new() -> Self {
        Self {
            round: 0,
            began: None,
            limit: ROUND,
            rested: false,
            head: None,
            unserved: 0,
            may_step: false,
            next_number: 0,
            line: Vec::new(),
            later: Vec::new(),
        }
    }

    /// A round begins, a shorter one where messages take long turns; who is to be woken, in that order.
    pub fn begin(&mut self, now: Instant, is_short: bool) -> impl Iterator<Item = Waker> + use<> {
        self.round += 1;
        self.limit = if is_short { SHORT_ROUND } else { ROUND };
        self.began = Some(now);
        self.may_step = true;
        let (line, later) = self.take_all();
        self.head = line.iter().find(|it| it.enters).map(|it| it.place);
        self.unserved = line.iter().filter(|it| it.enters).count();
        line.into_iter().map(|it| it.waker).chain(later)
    }

    /// No round follows: who is to be woken; nobody waits any more.
    pub fn end(&mut self) -> impl Iterator<Item = Waker> + use<> {
        (self.began, self.rested, self.unserved) = (None, false, 0);
        let (line, later) = self.take_all();
        line.into_iter().map(|it| it.waker).chain(later)
    }

    fn take_all(&mut self) -> (Vec<Waiting>, Vec<Waker>) {
        let mut line = std::mem::take(&mut self.line);
        line.sort_by_key(|it| it.place);
        // Who looked more than once in a round left as many wakers.
        line.dedup_by_key(|it| it.place);
        (line, std::mem::take(&mut self.later))
    }

    /// The core is about to sleep, with no message to wait for.
    pub fn rest(&mut self) {
        self.rested = true;
    }

    /// Whether somebody waits for the next round.
    pub fn is_due(&self) -> bool {
        !self.line.is_empty() || !self.later.is_empty()
    }

    /// Whether the time of the round is over; of those that have much to do sooner.
    pub fn is_over(&mut self, now: Instant, is_much: bool) -> bool {
        if std::mem::take(&mut self.rested) {
            self.began = Some(now);
        }
        let limit = if is_much { BREATH } else { self.limit };
        self.began.is_some_and(|began| now.saturating_duration_since(began) >= limit)
    }

    /// Waits for the next round, behind those that had no time in this one.
    pub fn wait(&mut self, waker: &Waker) {
        self.later.push(waker.clone());
    }

    /// Whether one that comes from outside may enter the round: true when that is late, and it should do no more than
    /// it must. While it may not it waits in the line, where `place` is its own.
    pub fn poll_enter(
        &mut self,
        now: Instant,
        is_much: bool,
        place: &mut Option<Place>,
        waker: &Waker,
    ) -> Poll<bool> {
        if !self.is_over(now, is_much) && (place.is_some() || self.unserved == 0) {
            if place.take().is_some_and(|place| place.round < self.round) {
                self.unserved = self.unserved.saturating_sub(1);
            }
            return Poll::Ready(false);
        }
        if place.is_some() && *place == self.head {
            (*place, self.head) = (None, None);
            // What it is polled for may be a step.
            self.may_step = true;
            return Poll::Ready(true);
        }
        self.stand_in_line(place, true, waker);
        Poll::Pending
    }

    /// Whether long work that waited may do its next step.
    pub fn poll_step(
        &mut self,
        now: Instant,
        place: &mut Option<Place>,
        waker: &Waker,
    ) -> Poll<()> {
        let is_over = self.is_over(now, true);
        let has_waited = place.is_some_and(|place| self.round - place.round >= ROUNDS_MAX);
        if !is_over || self.may_step && has_waited {
            self.may_step &= !is_over;
            return Poll::Ready(());
        }
        self.stand_in_line(place, false, waker);
        Poll::Pending
    }

    fn stand_in_line(&mut self, place: &mut Option<Place>, enters: bool, waker: &Waker) {
        let place = *place.get_or_insert_with(|| {
            self.next_number += 1;
            Place { round: self.round, number: self.next_number }
        });
        self.line.push(Waiting { place, enters, waker: waker.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that comes from outside, and how late it may be.
    struct Guest {
        place: Option<Place>,
        began: u64,
        longest: u64,
    }

    /// However many want to enter and however little time there is, one enters late in a round, and each is reached after
    /// as many rounds as others were before it.
    #[test]
    fn one_enters_late_in_a_round_and_each_is_reached() {
        const GUESTS: usize = 40;
        const ROUNDS: u64 = 400;
        let start = Instant::now();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut rounds = Rounds::new();
        let guest = || Guest { place: None, began: 0, longest: 0 };
        let mut guests: Vec<Guest> = std::iter::repeat_with(guest).take(GUESTS).collect();
        for round in 1..=ROUNDS {
            let began = start + ROUND * 10 * round as u32;
            drop(rounds.begin(began, false));
            // The time is over before anybody looks, or after some did.
            let in_time = if rng.bool() { 0 } else { rng.usize(..3) };
            let (mut entered, mut late) = (0, 0);
            // Those of the line are woken first; some are woken by something else before them, or again.
            let mut order: Vec<usize> = (0..GUESTS).collect();
            order.sort_by_key(|guest| guests[*guest].place);
            order.rotate_left(rng.usize(..GUESTS));
            order.extend_from_within(..rng.usize(..GUESTS));
            for at in order {
                let guest = &mut guests[at];
                let now = if entered < in_time { began } else { began + ROUND };
                let was_put_off = guest.place.is_some();
                match rounds.poll_enter(now, false, &mut guest.place, Waker::noop()) {
                    Poll::Pending if was_put_off => {}
                    Poll::Pending => guest.began = round,
                    Poll::Ready(is_late) => {
                        if was_put_off {
                            guest.longest = guest.longest.max(round - guest.began);
                        }
                        entered += 1;
                        late += usize::from(is_late);
                    }
                }
            }
            assert!(late <= 1, "{late} entered late");
            assert!(round == 1 || in_time > 0 || late == 1, "the first of the line did not enter");
        }
        let longest = guests.iter().map(|guest| guest.longest).max();
        assert!(longest.is_some_and(|it| it <= GUESTS as u64), "one waited for {longest:?} rounds");
    }

    /// Whatever is woken before them and by whatever: connections with answers, say, by the core's turn.
    #[test]
    fn whoever_had_no_time_comes_before_those_that_have_no_place() {
        let start = Instant::now();
        let mut rounds = Rounds::new();
        drop(rounds.begin(start, false));
        let enter = |rounds: &mut Rounds, now, place: &mut Option<Place>| {
            rounds.poll_enter(now, false, place, Waker::noop())
        };
        let (mut waits, mut comes) = ([None; 3], [None; 2]);
        for place in &mut waits {
            assert!(enter(&mut rounds, start + ROUND, place).is_pending());
        }
        let next = start + 2 * ROUND;
        drop(rounds.begin(next, false));
        assert!(enter(&mut rounds, next, &mut comes[0]).is_pending(), "the line is first");
        for place in &mut waits {
            assert_eq!(enter(&mut rounds, next, place), Poll::Ready(false));
        }
        assert_eq!(enter(&mut rounds, next, &mut comes[1]), Poll::Ready(false), "it is empty");
        drop(rounds.begin(next, false));
        assert_eq!(enter(&mut rounds, next, &mut comes[0]), Poll::Ready(false));
    }

    #[test]
    fn one_that_is_gone_holds_up_the_line_for_a_round() {
        let start = Instant::now();
        let mut rounds = Rounds::new();
        drop(rounds.begin(start, false));
        let (mut gone, mut next) = (None, None);
        let enter = |rounds: &mut Rounds, now, place: &mut Option<Place>| {
            rounds.poll_enter(now, false, place, Waker::noop())
        };
        for place in [&mut gone, &mut next] {
            assert!(enter(&mut rounds, start + ROUND, place).is_pending());
        }
        assert!(rounds.is_due());
        drop(rounds.begin(start + ROUND, false));
        assert!(enter(&mut rounds, start + 2 * ROUND, &mut next).is_pending());
        drop(rounds.begin(start + 2 * ROUND, false));
        assert_eq!(enter(&mut rounds, start + 3 * ROUND, &mut next), Poll::Ready(true));
        assert_eq!((next, rounds.is_due()), (None, false));
    }

    #[test]
    fn steps_that_waited_long_are_done_late_one_a_round_and_one_of_who_entered_late() {
        let start = Instant::now();
        let mut rounds = Rounds::new();
        let (mut steps, mut guest) = ([None; 5], None);
        let mut late = Vec::new();
        for round in 0..ROUNDS_MAX as u32 + 3 {
            let now = start + round * ROUND;
            drop(rounds.begin(now, false));
            let now = now + BREATH;
            let done = |rounds: &mut Rounds, steps: &mut [Option<Place>; 5]| {
                let poll = |place: &mut Option<Place>| rounds.poll_step(now, place, Waker::noop());
                steps.iter_mut().map(poll).filter(Poll::is_ready).count()
            };
            let before = done(&mut rounds, &mut steps);
            let entered = rounds.poll_enter(now, true, &mut guest, Waker::noop());
            late.push((before, entered.is_ready(), done(&mut rounds, &mut steps)));
        }
        // The guest enters in each round but those in which it begins to wait.
        let none = (0, false, 0);
        let guest = (0, true, 0);
        assert_eq!(late[..4], [none, guest, none, guest]);
        assert_eq!(late[4..], [(1, false, 0), (1, true, 1), (1, false, 0)]);
    }
}
