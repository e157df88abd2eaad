//! For how long a node is dialled to which connections end, or cannot be made. Pure: the time comes from
//! outside.

use std::time::{Duration, Instant};

/// How long a node is dialled that has the session, before that is given up. Gossip says sooner when the
/// node is gone.
pub const RESUME_LIMIT: Duration = Duration::from_secs(10);
/// The same for one that was not reached yet.
pub const REACH_LIMIT: Duration = Duration::from_secs(3);
/// How long a session is kept of which the other side, which dials, does not come back: by then it has given
/// the session up.
pub const RETURN_LIMIT: Duration = Duration::from_secs(20);

const _: () = assert!(RETURN_LIMIT.as_secs() >= 2 * RESUME_LIMIT.as_secs());

/// What a connection was good for that ended, or was not made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connection {
    /// A frame was taken on either side.
    pub has_moved: bool,
    /// When it was made there was nothing that the other side had not taken: that it was quiet is no failure.
    pub was_clear: bool,
}

impl Connection {
    /// Whether it did not fail. What the other side refuses ends a connection as often as one is made.
    pub fn was_well(self) -> bool {
        self.has_moved || self.was_clear
    }
}

/// Since when none of the connections was well.
#[derive(Debug)]
pub struct Patience(Instant);

impl Patience {
    /// Begins now.
    pub fn new(now: Instant) -> Self {
        Self(now)
    }

    /// A connection ended: whether another one is to be made, of a session that the other side has, or is to
    /// get.
    pub fn lasts(&mut self, now: Instant, was: Connection, is_established: bool) -> bool {
        if was.was_well() {
            self.0 = now;
        }
        let limit = if is_established { RESUME_LIMIT } else { REACH_LIMIT };
        now.saturating_duration_since(self.0) < limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_had_nothing_to_say_for_long_has_not_failed() {
        let then = Instant::now();
        let at = |seconds| then + Duration::from_secs(seconds);
        let quiet = Connection { has_moved: false, was_clear: true };
        let mut patience = Patience::new(then);
        assert!(patience.lasts(at(3600), quiet, true), "an hour of quiet is not held against it");
        let failed = Connection::default();
        assert!(patience.lasts(at(3600 + 9), failed, true));
        assert!(!patience.lasts(at(3600 + 10), failed, true), "what came then was refused");
    }

    #[test]
    fn a_session_is_given_up_after_ten_seconds_in_which_nothing_moved_and_a_new_one_after_three() {
        let then = Instant::now();
        let at = |seconds| then + Duration::from_secs(seconds);
        let (moved, failed) =
            (Connection { has_moved: true, was_clear: false }, Connection::default());
        let mut patience = Patience::new(then);
        assert!(patience.lasts(at(2), failed, false) && !patience.lasts(at(3), failed, false));
        assert!(patience.lasts(at(9), failed, true) && !patience.lasts(at(10), failed, true));
        assert!(patience.lasts(at(11), moved, true), "it goes on, however long it took");
        assert!(patience.lasts(at(20), failed, true) && !patience.lasts(at(21), failed, true));
    }
}
