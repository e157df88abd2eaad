//! When something that another node should do is tried again.
//!
//! While a partition gets a new leader, nobody takes its requests: that lasts about as long as an
//! election, and clients should not notice more of it than a pause. So what was surely not done is
//! tried again, and so is what may be done twice; anything else is the client's to decide.

use crate::wire::api::Error;
use std::time::{Duration, Instant};

/// The pause before another try, the first time.
const PAUSE: Duration = Duration::from_millis(10);
/// And at most.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Whether a request may be done twice without a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeatable {
    /// It may: it reads, or it has a key.
    Yes,
    /// It may not.
    No,
}

/// The tries of one request.
#[derive(Debug)]
pub struct Tries {
    patience: Duration,
    since: Option<Instant>,
    pause: Duration,
}

impl Tries {
    /// Tries that end when for so long none of them came to anything.
    pub fn new(patience: Duration) -> Self {
        Self { patience, since: None, pause: PAUSE }
    }

    /// How long to pause before another try, after one that began at `began` ended with `error`;
    /// `None` when there should be none.
    pub fn again(
        &mut self,
        error: &Error,
        repeatable: Repeatable,
        began: Instant,
        now: Instant,
    ) -> Option<Duration> {
        match error {
            Error::NotLeader(_) | Error::Unavailable(_) => {}
            Error::Uncertain(_) if repeatable == Repeatable::Yes => {}
            _ => return None,
        }
        // One that waited at a leader for the end of a task was well under way until that leader
        // was replaced: that begins a new account.
        if matches!(error, Error::NotLeader(_)) && now - began >= self.patience {
            (self.since, self.pause) = (Some(now), PAUSE);
        }
        let since = *self.since.get_or_insert(began);
        if now - since >= self.patience {
            return None;
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn not_done() -> [Error; 2] {
        [Error::NotLeader(None), Error::Unavailable("it cannot be reached".into())]
    }

    #[test]
    fn what_was_surely_not_done_is_tried_again_until_patience_ends() {
        for error in not_done() {
            let (start, mut tries) = (Instant::now(), Tries::new(PATIENCE));
            let (mut now, mut pauses) = (start, Vec::new());
            while let Some(pause) = tries.again(&error, Repeatable::No, now, now) {
                pauses.push(pause);
                now += pause;
            }
            assert_eq!(pauses[..4], [10, 20, 40, 80].map(Duration::from_millis));
            assert!(pauses.iter().all(|pause| *pause <= PAUSE_MAX));
            assert!(now - start >= PATIENCE && now - start < PATIENCE + PAUSE_MAX);
        }
    }

    #[test]
    fn what_may_have_been_done_is_tried_again_only_if_that_makes_no_difference() {
        let (now, error) = (Instant::now(), Error::Uncertain("no answer".into()));
        let again = |repeatable| Tries::new(PATIENCE).again(&error, repeatable, now, now);
        assert_eq!(again(Repeatable::No), None);
        assert_eq!(again(Repeatable::Yes), Some(PAUSE));
    }

    #[test]
    fn what_was_decided_is_not_tried_again() {
        let now = Instant::now();
        for error in [
            Error::Invalid(String::new()),
            Error::NotFound(String::new()),
            Error::Conflict(String::new()),
            Error::Backpressure(1),
            Error::StaleLease(String::new()),
            Error::TooLarge(String::new()),
        ] {
            assert_eq!(Tries::new(PATIENCE).again(&error, Repeatable::Yes, now, now), None);
        }
    }

    #[test]
    fn a_try_that_was_under_way_for_long_begins_a_new_account() {
        let (start, mut tries) = (Instant::now(), Tries::new(PATIENCE));
        let error = Error::NotLeader(None);
        let mut now = start;
        for _ in 0..5 {
            // Minutes of waiting, then the leader changes.
            let began = now;
            now += 20 * PATIENCE;
            assert_eq!(tries.again(&error, Repeatable::Yes, began, now), Some(PAUSE));
            now += PATIENCE / 2;
            assert!(tries.again(&error, Repeatable::Yes, now, now).is_some());
        }
        now += PATIENCE;
        assert_eq!(tries.again(&error, Repeatable::Yes, now, now), None);
    }

    #[test]
    fn who_never_answers_is_not_asked_for_ever() {
        let (now, mut tries) = (Instant::now(), Tries::new(PATIENCE));
        let silent = Error::Uncertain("no answer".into());
        assert_eq!(tries.again(&silent, Repeatable::Yes, now, now + 2 * PATIENCE), None);
    }
}
