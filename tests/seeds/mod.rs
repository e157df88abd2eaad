//! What the simulators share: numbers of seeds on the command line, many seeds in some threads, what is
//! said of one that fails, and the search for planted bugs.

#[cfg(feature = "planted-bugs")]
pub mod planted;

use std::{
    cell::RefCell,
    fmt::Debug,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

thread_local! {
    /// What the last panic of this thread said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A number on the command line.
pub fn number(text: &str) -> Result<u64, String> {
    text.replace('_', "").parse().map_err(|_| format!("{text:?} is no number"))
}

/// Seeds on the command line: `A..B`.
pub fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("--seeds wants A..B")?;
    Ok(number(from)?..number(to)?)
}

/// What was asked for, or how the program ends without it.
pub fn asked<A>(arguments: Result<Option<A>, String>) -> Result<A, ExitCode> {
    match arguments {
        Ok(Some(arguments)) => Ok(arguments),
        Ok(None) => Err(ExitCode::SUCCESS),
        Err(text) => {
            eprintln!("{text}");
            Err(ExitCode::from(2))
        }
    }
}

/// From now on panics are told with the seed that they are of.
pub fn keep_panics() {
    panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
}

/// Runs one seed, and again when it is to be the same `twice`. The error is what `replay` makes of a
/// panic's words.
pub fn run<S: PartialEq + Debug>(
    seed: u64,
    twice: bool,
    one: impl Fn() -> S,
    replay: impl Fn(String) -> String,
) -> Result<S, String> {
    let run = || panic::catch_unwind(AssertUnwindSafe(&one)).map_err(|_| replay(PANIC.take()));
    let summary = run()?;
    if twice {
        let again = run()?;
        if again != summary {
            return Err(format!("seed {seed} is not the same twice: {summary:?}, {again:?}"));
        }
    }
    Ok(summary)
}

/// Does all jobs in as many threads as there are processors, and prints what is wrong as it comes.
/// What came of them, in their order; nothing for those that failed.
pub fn each<J: Sync, S: Send>(
    jobs: &[J],
    job: impl Fn(&J) -> Result<S, String> + Sync,
) -> Vec<Option<S>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<_>> = Mutex::new(jobs.iter().map(|_| None).collect());
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = jobs.get(place) else { return };
                    match job(one) {
                        Ok(summary) => done.lock().expect("no panic")[place] = Some(summary),
                        Err(text) => println!("{text}"),
                    }
                }
            });
        }
    });
    done.into_inner().expect("no panic")
}

/// Runs all seeds, prints what came of them together, and says whether all went well.
pub fn all<J: Sync + Debug, S: Send + Default + Debug>(
    seeds: &[J],
    run: impl Fn(&J) -> Result<S, String> + Sync,
    add: impl Fn(&mut S, &S),
) -> bool {
    let begun = Instant::now();
    let runs = each(seeds, run);
    let mut sum = S::default();
    runs.iter().flatten().for_each(|summary| add(&mut sum, summary));
    println!("{} seeds in {:.1} s: {sum:?}", seeds.len(), begun.elapsed().as_secs_f64());
    let failed = seeds.iter().zip(&runs).filter(|(_, run)| run.is_none());
    let failed: Vec<_> = failed.map(|(seed, _)| seed).collect();
    if !failed.is_empty() {
        println!("{} seeds failed: {failed:?}", failed.len());
    }
    failed.is_empty()
}

/// How a program ends.
pub fn code(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says that a build has no planted bugs.
#[cfg(not(feature = "planted-bugs"))]
pub fn no_bugs(test: &str) -> ExitCode {
    eprintln!("no bugs are planted: cargo test --features planted-bugs --test {test} -- --planted");
    ExitCode::from(2)
}
