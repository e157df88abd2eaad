//! How many agents of one type a core has: when one starts, when one stops, and when one that
//! crashed starts again.
//!
//! Each agent has a *seat*, which its successor takes over when it crashes. `min` seats are filled
//! one after the other when the node starts, and whenever one becomes empty. More are filled one
//! at a time, up to `max`, while tasks wait and every agent is full; those are emptied again after
//! their agents had nothing to do for the idle timeout.
//!
//! Invariants worth naming:
//! - The pool itself never fills more than `max` seats, and never stops an agent when `min` or
//!   fewer of its own are up. What somebody asked for by `agent.spawn` it neither counts as its
//!   own nor stops.
//! - While an agent starts, or waits to start again, the pool does not grow: what is under way may
//!   be all that is needed, and a program that cannot live is not tried in many places at once.
//! - A seat starts again at most `max_restarts` times in any `restart_window_ms`.
//! - Whoever drives it answers each start with one of [`Input::Ready`], [`Input::Crashed`],
//!   [`Input::Stopped`] and [`Input::Refused`], and looks when [`Pool::next_look_ms`] says.

mod place;
#[cfg(test)]
mod tests;

use place::{Place, State};

/// Pause before a stopped agent has a successor, so that agents which stop themselves at once do
/// not keep the core busy, milliseconds.
const SUCCESSOR_PAUSE_MS: u64 = 10;
/// Pause after a start that the core had no room for, milliseconds.
const REFUSED_PAUSE_MS: u64 = 5_000;
/// Pause between two calls for help to other cores, milliseconds.
const SPREAD_PAUSE_MS: u64 = 100;
/// Looks at a pool with idle agents in one idle timeout: an agent stops when it was idle for
/// between one timeout and one and a quarter.
const LOOKS_A_TIMEOUT: u64 = 4;

/// The place of an agent and its successors in a pool.
pub type Seat = u32;

/// One core's share of a type's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Agents that are kept.
    pub min: usize,
    /// Agents that may exist at the same time.
    pub max: usize,
    /// Pause between two starts towards `min`, milliseconds.
    pub warmup_delay_ms: u64,
    /// How long an agent above `min` may have nothing to do, milliseconds.
    pub idle_timeout_ms: u64,
    /// How often a seat may start again within the window; at 0 a crashed agent stays away until
    /// somebody spawns one.
    pub max_restarts: u32,
    /// The window, milliseconds.
    pub restart_window_ms: u64,
    /// Whether other cores may own agents of the type.
    pub spreads: bool,
}

/// What a pool is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Look,
    /// A task waits, and no agent of this core can take it.
    Starved,
    /// Another core has too few agents: this one should have at least one.
    Wanted,
    /// The seat's agent can take work.
    Ready(Seat),
    /// The seat's agent has worked since the last look.
    Worked(Seat),
    /// The seat's agent crashed, or could not be made.
    Crashed(Seat),
    /// The seat's agent was stopped.
    Stopped(Seat),
    /// The core has no room for the seat's agent, or its name is taken.
    Refused(Seat),
}

/// What a pool wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Start an agent.
    Start {
        /// Its seat.
        seat: Seat,
        /// Whether it follows one that crashed.
        again: bool,
    },
    /// Stop the seat's agent, which is idle.
    Stop(Seat),
    /// Ask a core that may own agents of the type and has none to start one.
    Spread,
}

/// The agents of one type on one core.
pub struct Pool {
    limits: PoolLimits,
    places: Vec<Option<Place>>,
    free: Vec<Seat>,
    /// Seats whose agent starts.
    starting: usize,
    /// Seats whose agent waits to start again.
    waiting: usize,
    /// Seats that somebody asked for.
    kept: usize,
    /// The pool's own seats whose agent is up.
    own_up: usize,
    /// When the next start towards `min` may be.
    warm_ms: u64,
    /// When the next start of any kind may be, but for one again.
    hold_ms: u64,
    /// Whether a task waits for that.
    held: bool,
    /// When other cores may be asked again.
    spread_ms: u64,
    looked_ms: u64,
}

impl Pool {
    /// A pool without agents.
    pub fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            places: Vec::new(),
            free: Vec::new(),
            starting: 0,
            waiting: 0,
            kept: 0,
            own_up: 0,
            warm_ms: 0,
            hold_ms: 0,
            held: false,
            spread_ms: 0,
            looked_ms: 0,
        }
    }

    /// Takes in what happened and tells what to do about it.
    #[inline]
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Look => self.look(now_ms, &mut outputs),
            Input::Starved => self.grow(now_ms, &mut outputs),
            Input::Wanted if self.seats() == 0 => self.start_one(now_ms, &mut outputs),
            Input::Wanted => {}
            Input::Ready(seat) => self.set_state(seat, State::Up { idle_since_ms: now_ms }),
            Input::Worked(seat) => {
                if let State::Up { idle_since_ms } = &mut self.place_mut(seat).state {
                    *idle_since_ms = now_ms;
                }
            }
            Input::Crashed(seat) => self.crashed(now_ms, seat),
            Input::Stopped(seat) => {
                self.remove(seat);
                self.hold_ms = self.hold_ms.max(now_ms + SUCCESSOR_PAUSE_MS);
            }
            Input::Refused(seat) => {
                self.remove(seat);
                self.hold_ms = self.hold_ms.max(now_ms + REFUSED_PAUSE_MS);
            }
        }
        outputs
    }

    /// A seat for an agent that somebody asks for; `None` when the core has as many as it may.
    /// Named agents are never refused. One without a name takes the seat of an agent that waits to
    /// start again, if there is one, and its past is forgotten.
    pub fn spawn(&mut self, name: Option<String>) -> Option<Seat> {
        if name.is_none() && self.waiting > 0 {
            let waits = |place: &Option<Place>| {
                place.as_ref().is_some_and(|place| place.waits() && place.name.is_none())
            };
            if let Some(seat) = self.places.iter().position(waits) {
                let seat = seat as Seat;
                self.place_mut(seat).restarts.clear();
                self.set_state(seat, State::Starting);
                return Some(seat);
            }
        }
        if name.is_none() && self.seats() >= self.limits.max {
            return None;
        }
        Some(self.insert(Place::new(true, name)))
    }

    /// The name of a seat's agents.
    pub fn name(&self, seat: Seat) -> Option<&str> {
        self.place(seat).name.as_deref()
    }

    /// When a crashed seat's agent starts again, or `None` when it does not by itself.
    pub fn starts_again_ms(&self, seat: Seat) -> Option<u64> {
        let place = self.places.get(seat as usize)?.as_ref()?;
        match place.state {
            State::Waiting { until_ms } if until_ms < u64::MAX => Some(until_ms),
            _ => None,
        }
    }

    /// Whether some agents may have to stop: only then it matters who has worked.
    pub fn is_above_min(&self) -> bool {
        self.own_up > self.limits.min
    }

    /// When time alone may change something: look then, and see whether tasks still wait.
    pub fn next_look_ms(&self) -> Option<u64> {
        let warm = self.is_cold().then(|| self.warm_ms.max(self.hold_ms));
        let pause_ms = (self.limits.idle_timeout_ms / LOOKS_A_TIMEOUT).max(1);
        let idle = self.is_above_min().then(|| self.looked_ms + pause_ms);
        let held = self.held.then_some(self.hold_ms);
        let again = if self.waiting > 0 { self.first_restart_ms() } else { None };
        [warm, idle, held, again].into_iter().flatten().min()
    }

    fn first_restart_ms(&self) -> Option<u64> {
        let until = |place: &Place| match place.state {
            State::Waiting { until_ms } if until_ms < u64::MAX => Some(until_ms),
            _ => None,
        };
        self.places.iter().flatten().filter_map(until).min()
    }

    /// Filled seats.
    fn seats(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether another agent should start even if there is nothing to do.
    fn is_cold(&self) -> bool {
        self.seats() - self.kept < self.limits.min && self.seats() < self.limits.max
    }

    fn look(&mut self, now_ms: u64, outputs: &mut Vec<Output>) {
        self.looked_ms = now_ms;
        self.held &= now_ms < self.hold_ms;
        self.start_again(now_ms, outputs);
        while self.is_cold() && now_ms >= self.warm_ms.max(self.hold_ms) {
            self.warm_ms = now_ms + self.limits.warmup_delay_ms;
            self.start_one(now_ms, outputs);
        }
        self.shrink(now_ms, outputs);
    }

    fn start_again(&mut self, now_ms: u64, outputs: &mut Vec<Output>) {
        if self.waiting == 0 {
            return;
        }
        for seat in 0..self.places.len() as Seat {
            let Some(place) = &self.places[seat as usize] else { continue };
            if matches!(place.state, State::Waiting { until_ms } if until_ms <= now_ms) {
                self.set_state(seat, State::Starting);
                outputs.push(Output::Start { seat, again: true });
            }
        }
    }

    fn grow(&mut self, now_ms: u64, outputs: &mut Vec<Output>) {
        if self.starting > 0 || self.waiting > 0 {
            return;
        }
        self.held = self.seats() < self.limits.max && now_ms < self.hold_ms;
        self.start_one(now_ms, outputs);
        if self.limits.spreads && now_ms >= self.spread_ms {
            self.spread_ms = now_ms + SPREAD_PAUSE_MS;
            outputs.push(Output::Spread);
        }
    }

    fn start_one(&mut self, now_ms: u64, outputs: &mut Vec<Output>) {
        if self.seats() >= self.limits.max || now_ms < self.hold_ms {
            return;
        }
        let seat = self.insert(Place::new(false, None));
        outputs.push(Output::Start { seat, again: false });
    }

    fn shrink(&mut self, now_ms: u64, outputs: &mut Vec<Output>) {
        for seat in (0..self.places.len() as Seat).rev() {
            if !self.is_above_min() {
                return;
            }
            let Some(place) = &self.places[seat as usize] else { continue };
            let State::Up { idle_since_ms } = place.state else { continue };
            if !place.kept && now_ms.saturating_sub(idle_since_ms) >= self.limits.idle_timeout_ms {
                self.set_state(seat, State::Stopping);
                outputs.push(Output::Stop(seat));
            }
        }
    }

    fn crashed(&mut self, now_ms: u64, seat: Seat) {
        let limits = self.limits;
        let place = self.place_mut(seat);
        match place.next_restart_ms(now_ms, &limits) {
            Some(until_ms) => self.set_state(seat, State::Waiting { until_ms }),
            // The pool's own stay empty until somebody spawns an agent.
            None if !place.kept => self.set_state(seat, State::Waiting { until_ms: u64::MAX }),
            None => self.remove(seat),
        }
    }

    fn place(&self, seat: Seat) -> &Place {
        self.places[seat as usize].as_ref().expect("a seat is named only while it is filled")
    }

    fn place_mut(&mut self, seat: Seat) -> &mut Place {
        self.places[seat as usize].as_mut().expect("a seat is named only while it is filled")
    }

    fn insert(&mut self, place: Place) -> Seat {
        let seat = self.free.pop().unwrap_or(self.places.len() as Seat);
        if seat as usize == self.places.len() {
            self.places.push(None);
        }
        self.count(&place, true);
        self.places[seat as usize] = Some(place);
        seat
    }

    fn remove(&mut self, seat: Seat) {
        let place = self.places[seat as usize].take();
        self.count(&place.expect("a seat is emptied once"), false);
        self.free.push(seat);
    }

    fn set_state(&mut self, seat: Seat, state: State) {
        let mut place = self.places[seat as usize].take().expect("only filled seats change");
        self.count(&place, false);
        place.state = state;
        self.count(&place, true);
        self.places[seat as usize] = Some(place);
    }

    /// Takes a place into the counts, or out of them.
    fn count(&mut self, place: &Place, is_in: bool) {
        let step = |count: &mut usize, counts: bool| match (counts, is_in) {
            (true, true) => *count += 1,
            (true, false) => *count -= 1,
            (false, _) => {}
        };
        step(&mut self.starting, place.state == State::Starting);
        step(&mut self.waiting, place.waits());
        step(&mut self.kept, place.kept);
        step(&mut self.own_up, !place.kept && matches!(place.state, State::Up { .. }));
    }
}
