//! `coreflow run FILE.jsonl`.

mod lines;
mod record;
mod unended;

use super::{
    common::{Common, EXIT_WRONG_USAGE, failed},
    interrupt::Interrupt,
};
use crate::{
    config::Config,
    node::{Node, NodeBuilder, NodeHandle},
    wire::api::{Error, TaskView},
};
use async_io::Timer;
use clap::Args;
use futures_lite::{StreamExt as _, future};
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use lines::{Line, Lines};
use record::{Invalid, Job, Record};
use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    io::{self, Write},
    path::PathBuf,
    pin::pin,
    process::ExitCode,
    time::Duration,
};
use unended::Unended;

/// Tasks that are in flight at the same time.
const IN_FLIGHT: usize = 4096;
/// What cores have to stop after the last task has ended.
const DRAIN: Duration = Duration::from_secs(5);

/// Run the tasks of a file on a node in this process, one JSON object a line
///
/// A line is {"type","payload"?,"priority"?,"key"?,"timeout_ms"?,"max_attempts"?}; "type" names
/// an agent type of the tuning file. For each line one result line goes to standard output, in
/// the order in which tasks end: {"line","id","status","result"|"error","attempts"}. Lines with
/// the same type and key are one task, which runs once; one that differs in anything else from the
/// first of them gets the status "conflict". A line that is no task gets the status "invalid".
/// Exit code 1 when a line did not end as "done".
///
/// SIGINT or SIGTERM stops reading; what was accepted has server.drain_ms to end, and the lines
/// that have no result then are told on standard error. A second signal exits at once.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The file; - reads standard input
    #[arg(value_name = "FILE.jsonl")]
    file: PathBuf,
}

/// Runs the subcommand; result lines go to `out`, errors to `err`.
pub fn run(args: &RunArgs, common: &Common, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    let config = match common.load_or_explain(err) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let lines = match Lines::open(&args.file, config.server.max_frame_bytes) {
        Ok(lines) => lines,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(err, "{}: {error}", args.file.display());
            return ExitCode::from(EXIT_WRONG_USAGE);
        }
    };
    match run_all(config, lines, out, err) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

/// Runs the tasks of all lines; tells whether all are done.
fn run_all(
    config: Config,
    lines: Lines,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<bool> {
    let interrupt = Interrupt::listen()?;
    let drain = Duration::from_millis(config.server.drain_ms);
    let node = NodeBuilder::new(config).start()?;
    let count = lines.count();
    let progress = show_progress(count);
    let mut run = Run {
        node: &node,
        out: io::BufWriter::new(out),
        progress: progress.clone(),
        all_done: true,
        keys: HashMap::new(),
        hasher: RandomState::new(),
        unended: Unended::default(),
        patience: Patience::WithoutEnd(interrupt, drain),
    };
    let written = future::block_on(run.all(lines)).and_then(|()| run.out.flush());
    progress.finish_and_clear();
    let interrupted = matches!(run.patience, Patience::Until(_));
    let all_done = run.all_done && !interrupted;
    if interrupted {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(err, "interrupted: {}", run.unended.tell(count));
    }
    drop(run);
    if written.is_ok() && !interrupted {
        node.drain(DRAIN);
    }
    node.shutdown()?;
    let explain = |error| io::Error::other(format!("standard output: {error}"));
    written.map(|()| all_done).map_err(explain)
}

fn show_progress(lines: Option<u64>) -> ProgressBar {
    let progress = match lines {
        Some(lines) => ProgressBar::new(lines),
        None => ProgressBar::new_spinner(),
    };
    let template = if lines.is_some() {
        "{bar:40} {pos}/{len} tasks, {per_sec}, {eta} left"
    } else {
        "{spinner} {pos} tasks, {per_sec}"
    };
    progress.with_style(ProgressStyle::with_template(template).expect("the template is valid"))
}

/// An agent type and a key of it.
type TypedKey = (String, String);

/// Lines that share a key.
struct Keyed {
    /// The hash of what the first of them asks.
    spec_hash: u64,
    shared: Shared,
}

/// What became of the task of lines that share a key.
enum Shared {
    /// The task goes on; these lines wait for it.
    Waiting(Vec<u64>),
    /// It ended so.
    Ended(Result<TaskView, Error>),
}

struct Run<'a> {
    node: &'a Node,
    out: io::BufWriter<&'a mut dyn Write>,
    progress: ProgressBar,
    all_done: bool,
    keys: HashMap<TypedKey, Keyed>,
    /// One for the whole run, so that equal tasks have equal hashes.
    hasher: RandomState,
    unended: Unended,
    patience: Patience,
}

/// How long the run waits for what is in flight.
enum Patience {
    /// Until the first signal, and then for this long.
    WithoutEnd(Interrupt, Duration),
    /// There was a signal.
    Until(Timer),
}

impl Patience {
    /// Ends with the signal, and after it with the time.
    async fn end(&mut self) {
        match self {
            Self::WithoutEnd(interrupt, _) => interrupt.first().await,
            Self::Until(timer) => drop(timer.await),
        }
    }
}

/// What a future of the run ends with: a line, its key and how its task ended.
type Ended = (u64, Option<TypedKey>, Result<TaskView, Error>);

/// What happens next.
enum Next {
    Line(Option<Line>),
    Ended(Ended),
    /// The patience has ended.
    Enough,
}

async fn next(
    in_flight: &mut FuturesUnordered<impl Future<Output = Ended>>,
    lines: &mut Lines,
    may_read: bool,
    patience: &mut Patience,
) -> Next {
    let ended = async {
        match in_flight.next().await {
            Some(ended) => Next::Ended(ended),
            None => future::pending().await,
        }
    };
    let line = async {
        match may_read {
            true => Next::Line(lines.next().await),
            false => future::pending().await,
        }
    };
    let enough = async {
        patience.end().await;
        Next::Enough
    };
    future::or(enough, future::or(ended, line)).await
}

impl Run<'_> {
    async fn all(&mut self, mut lines: Lines) -> io::Result<()> {
        let mut in_flight = FuturesUnordered::new();
        let mut more = true;
        while more || !in_flight.is_empty() {
            let may_read = more && in_flight.len() < IN_FLIGHT;
            let next = {
                let patience = &mut self.patience;
                let mut next = pin!(next(&mut in_flight, &mut lines, may_read, patience));
                match future::poll_once(&mut next).await {
                    Some(next) => next,
                    None => {
                        // Results are seen when they come, not when a buffer is full.
                        self.out.flush()?;
                        next.await
                    }
                }
            };
            match next {
                Next::Line(None) => more = false,
                Next::Line(Some(line)) => {
                    if let Some((number, job)) = self.read(line)? {
                        in_flight.push(execute(self.node.handle(), number, job));
                    }
                }
                Next::Ended((number, key, ended)) => self.ended(number, key, ended)?,
                Next::Enough => {
                    more = false;
                    self.out.flush()?;
                    if !self.interrupted() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes nothing new after a signal; false when that was done before, so that time is up.
    fn interrupted(&mut self) -> bool {
        let Patience::WithoutEnd(_, drain) = self.patience else { return false };
        self.node.stop_accepting();
        tracing::warn!(
            drain_ms = drain.as_millis() as u64,
            "interrupted: what was accepted may end; a second signal exits at once"
        );
        self.patience = Patience::Until(Timer::after(drain));
        true
    }

    /// The task of a line; `None` when the line has its result already or will share another's.
    fn read(&mut self, line: Line) -> io::Result<Option<(u64, Job)>> {
        let number = line.number;
        self.unended.begin(number);
        let job = match line.text.map_err(Invalid).and_then(record::parse) {
            Ok(Some(job)) => job,
            Ok(None) => {
                self.unended.skip(number);
                self.progress.inc(1);
                return Ok(None);
            }
            Err(Invalid(error)) => {
                self.write(&Record::invalid(number, &error))?;
                return Ok(None);
            }
        };
        let Some(key) = typed_key(&job) else { return Ok(Some((number, job))) };
        let spec_hash = self.hasher.hash_one(&job.spec);
        let ended = match self.keys.get_mut(&key) {
            None => {
                let shared = Shared::Waiting(Vec::new());
                self.keys.insert(key, Keyed { spec_hash, shared });
                return Ok(Some((number, job)));
            }
            Some(first) if first.spec_hash != spec_hash => {
                let text = "key: a line before has it and asks for another task";
                Err(Error::Conflict(text.into()))
            }
            Some(Keyed { shared: Shared::Ended(ended), .. }) => ended.clone(),
            Some(Keyed { shared: Shared::Waiting(numbers), .. }) => {
                numbers.push(number);
                return Ok(None);
            }
        };
        self.write(&Record::ended(number, &ended))?;
        Ok(None)
    }

    fn ended(
        &mut self,
        number: u64,
        key: Option<TypedKey>,
        ended: Result<TaskView, Error>,
    ) -> io::Result<()> {
        if matches!((&ended, &self.patience), (Err(Error::Unavailable(_)), Patience::Until(_))) {
            // Not accepted before the signal: it has no result, and the run tells so.
            return Ok(());
        }
        self.write(&Record::ended(number, &ended))?;
        let Some(keyed) = key.and_then(|key| self.keys.get_mut(&key)) else { return Ok(()) };
        let before = std::mem::replace(&mut keyed.shared, Shared::Ended(ended.clone()));
        if let Shared::Waiting(numbers) = before {
            for number in numbers {
                self.write(&Record::ended(number, &ended))?;
            }
        }
        Ok(())
    }

    fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.all_done &= record.is_done();
        self.unended.end(record.line());
        self.progress.inc(1);
        record.write(&mut self.out)?;
        match self.patience {
            Patience::WithoutEnd(..) => Ok(()),
            // A second signal leaves no time for it.
            Patience::Until(_) => self.out.flush(),
        }
    }
}

fn typed_key(job: &Job) -> Option<TypedKey> {
    job.key.as_ref().map(|key| (job.spec.agent_type.clone(), key.clone()))
}

async fn execute(handle: NodeHandle, number: u64, job: Job) -> Ended {
    let key = typed_key(&job);
    let spec = job.spec;
    let ended = loop {
        let attempt = spec.clone();
        let run = handle.run(move |gateway| gateway.execute_when_there_is_room(attempt)).await;
        match run {
            // A core's own queue was full; it empties in microseconds.
            Err(Error::Backpressure(_)) => future::yield_now().await,
            ended => break ended,
        }
    };
    (number, key, ended)
}
