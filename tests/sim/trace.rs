//! What happened in a run, as a hash that two runs of one seed share, and as text for whoever looks
//! for a cause.

use std::{cell::RefCell, fmt, fmt::Write, rc::Rc};

struct State {
    hash: u64,
    now_us: u64,
    line: String,
    prints: bool,
    events: u64,
}

/// A handle of the trace; clones are the same one.
#[derive(Clone)]
pub struct Trace(Rc<RefCell<State>>);

impl Trace {
    /// An empty trace, which also prints what it is told or not.
    pub fn new(prints: bool) -> Self {
        let (hash, line) = (0xcbf2_9ce4_8422_2325, String::new());
        Self(Rc::new(RefCell::new(State { hash, now_us: 0, line, prints, events: 0 })))
    }

    /// Everything from now on happens at this time.
    pub fn set_time(&self, now_us: u64) {
        self.0.borrow_mut().now_us = now_us;
    }

    /// Something happened.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let state = &mut *self.0.borrow_mut();
        state.line.clear();
        write!(state.line, "{:>10} {what}", state.now_us).expect("a string takes everything");
        for byte in state.line.bytes() {
            state.hash = (state.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        state.events += 1;
        if state.prints {
            println!("{}", state.line);
        }
    }

    /// The hash of everything, and how many events that were.
    pub fn hash(&self) -> (u64, u64) {
        let state = self.0.borrow();
        (state.hash, state.events)
    }
}

/// Notes an event in a trace.
macro_rules! note {
    ($trace:expr, $($what:tt)*) => { $trace.note(format_args!($($what)*)) };
}
pub(crate) use note;
