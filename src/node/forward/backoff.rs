//! When a node whose connection ended is dialled again, and of which ends the log tells.
//!
//! Pure: the time comes from outside.
//!
//! Invariants worth naming:
//! - The pause doubles from one dial that led to nothing to the next, up to a second, and begins again when
//!   requests went to the node.
//! - A node that is away is named once, however often it is dialled; and who takes connections at its
//!   address and is not believed is named once, however long the node was away before: the one passes, the
//!   other does not.

use std::time::{Duration, Instant};

/// The pause before a node that could not be reached is dialled again, the first time.
const FIRST: Duration = Duration::from_millis(20);
/// And at most.
const LONGEST: Duration = Duration::from_secs(1);

/// How far a connection had come when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Nobody took it, or whoever did hung up before it said what it had to prove.
    Nobody,
    /// Somebody took it who was not believed, or did not believe this node: as good as away.
    Stranger,
    /// Requests went to the node.
    Node,
}

/// What is known of the ends of a connection.
#[derive(Debug, Default)]
pub struct Backoff {
    /// When it may be dialled again, and the pause before that.
    closed: Option<(Instant, Duration)>,
    /// The log has told since requests last went to the node that it is away,
    is_away_told: bool,
    /// and that a stranger answers for it.
    is_stranger_told: bool,
}

impl Backoff {
    /// Whether the node may be dialled.
    pub fn may_dial(&self, now: Instant) -> bool {
        self.closed.is_none_or(|(until, _)| now >= until)
    }

    /// Notes how far the connection had come that ended; whether the log has to tell. `cuts_off`: requests
    /// waited for it.
    pub fn ended(&mut self, now: Instant, reached: Reached, cuts_off: bool) -> bool {
        let pause = match self.closed {
            Some((_, before)) if reached != Reached::Node => (before * 2).min(LONGEST),
            _ => FIRST,
        };
        self.closed = Some((now + pause, pause));
        match reached {
            Reached::Stranger => !std::mem::replace(&mut self.is_stranger_told, true),
            Reached::Node => {
                (self.is_stranger_told, self.is_away_told) = (false, cuts_off);
                cuts_off
            }
            Reached::Nobody => cuts_off && !std::mem::replace(&mut self.is_away_told, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_second_and_begins_again_when_requests_went_to_the_node() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        assert!(backoff.may_dial(now));
        let mut pauses = Vec::new();
        for reached in [Reached::Nobody, Reached::Stranger].into_iter().cycle().take(9) {
            backoff.ended(now, reached, true);
            let pause = (1..).map(Duration::from_millis).find(|of| backoff.may_dial(now + *of));
            pauses.push(pause.expect("it is dialled again").as_millis());
            now += Duration::from_secs(5);
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000]);
        backoff.ended(now, Reached::Node, true);
        assert!(!backoff.may_dial(now) && backoff.may_dial(now + FIRST));
    }

    #[test]
    fn a_node_that_is_away_is_named_once_and_a_stranger_at_its_address_too() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let mut told = |reached, cuts_off| backoff.ended(now, reached, cuts_off);
        assert!(told(Reached::Nobody, true) && !told(Reached::Nobody, true));
        assert!(
            told(Reached::Stranger, true),
            "nobody is told of a stranger where a node was away"
        );
        assert!(!told(Reached::Stranger, true) && !told(Reached::Nobody, true));
        assert!(!told(Reached::Stranger, true), "it is named twice");
        assert!(told(Reached::Node, true) && !told(Reached::Node, false), "nothing was cut off");
        assert!(told(Reached::Stranger, false), "a stranger that came after the node");
        // It died while nothing went to it.
        assert!(!told(Reached::Node, false));
        assert!(told(Reached::Nobody, true), "nobody is told that it is away");
        assert!(!told(Reached::Nobody, true), "it is told twice");
    }
}
