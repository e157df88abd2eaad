//! SIGTERM and SIGINT: the first one asks the program to end, the next one makes it.

use crate::runtime::process;
use futures_channel::oneshot::{self, Receiver};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level,
};
use std::{
    io, thread,
    time::{Duration, Instant},
};

/// The exit code after a second signal, which leaves tasks behind.
const EXIT_AT_ONCE: i32 = 1;
/// Signals closer together are one: `timeout` and some supervisors signal a program and then the
/// group that it is in.
const ONE_SIGNAL: Duration = Duration::from_millis(50);

/// Hears the first signal.
pub struct Interrupt(Receiver<()>);

impl Interrupt {
    /// Takes the signals over from now on. After the first one, a second one ends the program at
    /// once, whatever it does, and the children of its agents with it.
    ///
    /// # Errors
    /// When the system refuses the handlers or a thread.
    pub fn listen() -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let (tell, told) = oneshot::channel();
        thread::Builder::new().name("coreflow-signals".into()).spawn(move || {
            let mut signals = signals.forever();
            signals.next();
            let first = Instant::now();
            // A program that ends by itself just now does not listen any more.
            let _ = tell.send(());
            if signals.any(|_| first.elapsed() >= ONE_SIGNAL) {
                process::kill_all();
                low_level::exit(EXIT_AT_ONCE);
            }
        })?;
        Ok(Self(told))
    }

    /// Ends with the first signal.
    pub async fn first(&mut self) {
        if (&mut self.0).await.is_err() {
            unreachable!("the thread tells before it ends");
        }
    }
}
