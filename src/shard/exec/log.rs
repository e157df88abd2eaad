//! What a child writes to standard error: lines of the log, within limits.

use super::child::Lines;
use crate::runtime::{executor, fs::Pipe};
use futures_channel::oneshot::Receiver;
use futures_lite::future;
use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// The longest piece of standard error that becomes one line of the log.
const LINE_BYTES: usize = 4096;
/// Lines of one child in a second that the log takes.
const LINES_A_SECOND: u32 = 100;
/// How long what a child left behind in the pipe is read after its end.
const REST: Duration = Duration::from_secs(1);

/// Reads standard error until it is closed, or a moment longer than the child lives when something
/// else keeps it open.
pub(super) async fn log_lines(agent: impl Display + Copy, stderr: Pipe, ended: Receiver<()>) {
    let rest = async {
        // It is dropped, not sent, when the child has ended.
        let _ = ended.await;
        executor::sleep(REST).await;
    };
    future::or(read_lines(agent, stderr), rest).await;
}

async fn read_lines(agent: impl Display + Copy, stderr: Pipe) {
    let mut lines = Lines::default();
    let mut budget = Budget::default();
    // It is read to its end whatever comes, or the child would wait for ever to write.
    while let Ok(true) = lines.fill(&stderr, usize::MAX).await {
        while let Some(line) = lines.next_line() {
            log_line(agent, line, &mut budget);
        }
        if let Some(line) = lines.take_unfinished(LINE_BYTES) {
            log_line(agent, line, &mut budget);
        }
    }
}

fn log_line(agent: impl Display + Copy, line: &[u8], budget: &mut Budget) {
    for piece in line.chunks(LINE_BYTES) {
        match budget.spend(Instant::now()) {
            Spent::Line => {}
            Spent::LineAfter(left_out) => tracing::warn!(%agent, left_out, "lines were left out"),
            Spent::Nothing => continue,
        }
        tracing::info!(%agent, "{}", String::from_utf8_lossy(piece));
    }
}

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
enum Spent {
    /// It is logged.
    Line,
    /// It is logged, and so many before it were not.
    LineAfter(u64),
    /// It is not logged.
    Nothing,
}

/// Lines that a child may still log in this second.
#[derive(Default)]
struct Budget {
    since: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl Budget {
    fn spend(&mut self, now: Instant) -> Spent {
        let since = *self.since.get_or_insert(now);
        if now - since >= Duration::from_secs(1) {
            self.since = Some(now);
            self.logged = 0;
        }
        if self.logged >= LINES_A_SECOND {
            self.left_out += 1;
            return Spent::Nothing;
        }
        self.logged += 1;
        match std::mem::take(&mut self.left_out) {
            0 => Spent::Line,
            left_out => Spent::LineAfter(left_out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_talks_all_the_time_does_not_fill_the_log() {
        let mut budget = Budget::default();
        let begin = Instant::now();
        let spent: Vec<_> = (0..1_000).map(|_| budget.spend(begin)).collect();
        assert!(spent[..100].iter().all(|spent| *spent == Spent::Line));
        assert!(spent[100..].iter().all(|spent| *spent == Spent::Nothing));
        let later = begin + Duration::from_secs(1);
        assert_eq!(budget.spend(later), Spent::LineAfter(900));
        assert_eq!(budget.spend(later), Spent::Line);
    }
}
