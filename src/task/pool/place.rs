//! One seat of a pool: who sits there, and how soon its next agent may follow a crash.

use super::PoolLimits;
use std::collections::VecDeque;

/// The pause before a crashed agent starts again; it doubles with each restart in the window.
const FIRST_RESTART_MS: u64 = 10;
/// The longest such pause, unless the window is full.
const LAST_RESTART_MS: u64 = 5_000;

/// What a seat's agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It cannot take work yet.
    Starting,
    /// It can, and has had none since.
    Up {
        /// When it was last seen working, milliseconds.
        idle_since_ms: u64,
    },
    /// It crashed; another starts then.
    Waiting {
        /// When, milliseconds.
        until_ms: u64,
    },
    /// It is being stopped.
    Stopping,
}

/// A filled seat.
pub(super) struct Place {
    pub(super) state: State,
    /// Somebody asked for it: the pool does not stop it.
    pub(super) kept: bool,
    pub(super) name: Option<String>,
    /// When it started again within the window, oldest first.
    pub(super) restarts: VecDeque<u64>,
}

impl Place {
    pub(super) fn new(kept: bool, name: Option<String>) -> Self {
        Self { state: State::Starting, kept, name, restarts: VecDeque::new() }
    }

    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// When the next agent may start after a crash, or `None` when none may.
    pub(super) fn next_restart_ms(&mut self, now_ms: u64, limits: &PoolLimits) -> Option<u64> {
        let window_ms = limits.restart_window_ms;
        let is_past = |restart: &u64| now_ms.saturating_sub(*restart) > window_ms;
        while self.restarts.front().is_some_and(is_past) {
            self.restarts.pop_front();
        }
        let doubled = FIRST_RESTART_MS << self.restarts.len().min(16);
        let soon_ms = now_ms + doubled.min(LAST_RESTART_MS);
        let restart_ms = match self.restarts.len() < limits.max_restarts as usize {
            true => soon_ms,
            false => soon_ms.max(self.restarts.pop_front()? + window_ms + 1),
        };
        self.restarts.push_back(restart_ms);
        Some(restart_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_slow_down_and_wait_for_the_window_when_it_is_full() {
        let limits = PoolLimits {
            min: 1,
            max: 1,
            warmup_delay_ms: 0,
            idle_timeout_ms: 1,
            max_restarts: 3,
            restart_window_ms: 1000,
            spreads: false,
        };
        let mut place = Place::new(false, None);
        let mut restart = |now_ms| place.next_restart_ms(now_ms, &limits);
        assert_eq!([restart(0), restart(10), restart(30)], [Some(10), Some(30), Some(70)]);
        assert_eq!(restart(70), Some(1011), "the first of the three leaves the window");
        assert_eq!(restart(1011), Some(1091), "three restarts still make the pause long");
        assert_eq!(restart(5000), Some(5010), "all of that is long past");
        let never = PoolLimits { max_restarts: 0, ..limits };
        assert_eq!(Place::new(false, None).next_restart_ms(0, &never), None);
    }
}
