//! Durable tasks through coreflow and through other servers, on the same machine and disk, in one
//! sitting: 256 bytes are put, reserved and acknowledged, on one pipelined connection each way with
//! a window of 1,000.
//!
//! `scripts/peers.sh` installs the servers, builds this and runs it. Servers that are not installed
//! are left out. Each is started on loopback, on a port that the system chooses, with its data in a
//! folder that goes with the run; rounds go from server to server, so that a slow minute of the
//! machine meets them all.

mod beanstalk;
mod clusters;
mod grpc;
mod nats;
mod ourselves;
mod redis;
mod server;
mod talk;

use std::{
    io,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};
use talk::Talker;

/// Bytes of a task.
const PAYLOAD_BYTES: usize = 256;
/// Tasks that are under way in each direction.
const WINDOW: u32 = 1000;
/// Tasks that tell how fast a server is, before rounds of a fixed time.
const TRIAL: u32 = 2000;
/// Rounds of each server.
const ROUNDS: usize = 3;

/// A server that is measured.
trait Peer {
    /// What stands in the table.
    fn name(&self) -> String;
    /// Moves so many tasks; both connections are set up before the clock starts.
    fn run(&mut self, tasks: u32) -> io::Result<Duration>;
}

/// Both sides of a round, each on a thread of its own.
fn race(
    address: std::net::SocketAddr,
    producer: impl Talker,
    consumer: impl Talker,
) -> io::Result<Duration> {
    let producing = talk::connect(address)?;
    let consuming = talk::connect(address)?;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let consumed = scope.spawn(move || talk::talk(consuming, consumer));
        let produced = talk::talk(producing, producer);
        let consumed = consumed.join().expect("the consumer does not panic");
        produced.and(consumed)
    })?;
    Ok(began.elapsed())
}

/// The payload of a task.
fn payload(number: u32) -> [u8; PAYLOAD_BYTES] {
    let mut payload = [b'.'; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(format!("{number:08x}").as_bytes());
    payload
}

/// What the command line says.
struct Arguments {
    /// The program to measure beside the others.
    coreflow: PathBuf,
    /// Where data goes: on the disk that is to be measured.
    folder: PathBuf,
    seconds: f64,
    /// Replicated logs instead of servers that are alone.
    only_clusters: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut words = std::env::args().skip(1);
    let mut arguments = Arguments {
        coreflow: "target/release/coreflow".into(),
        folder: "target".into(),
        seconds: 3.0,
        only_clusters: false,
    };
    while let Some(word) = words.next() {
        if word == "--only-clusters" {
            arguments.only_clusters = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        match &*word {
            "--coreflow" => arguments.coreflow = value.into(),
            "--folder" => arguments.folder = value.into(),
            "--seconds" => {
                arguments.seconds = value.parse().map_err(|_| "--seconds needs a number")?;
            }
            _ => {
                return Err(format!(
                    "{word} is not --coreflow, --folder, --seconds or --only-clusters"
                ));
            }
        }
    }
    Ok(arguments)
}

/// A row of the table.
struct Row {
    peer: Box<dyn Peer>,
    /// Tasks of a round.
    tasks: u32,
    rates: Vec<f64>,
    failure: Option<io::Error>,
}

impl Row {
    /// Finds out how many tasks fill a round.
    fn new(mut peer: Box<dyn Peer>, seconds: f64) -> Self {
        eprintln!("trying {} …", peer.name());
        let (tasks, failure) = match peer.run(TRIAL) {
            Ok(took) => {
                (((f64::from(TRIAL) / took.as_secs_f64() * seconds) as u32).max(TRIAL), None)
            }
            Err(error) => (0, Some(error)),
        };
        Self { peer, tasks, rates: Vec::new(), failure }
    }

    fn round(&mut self) {
        if self.failure.is_some() {
            return;
        }
        eprintln!("{}: {} tasks …", self.peer.name(), self.tasks);
        match self.peer.run(self.tasks) {
            Ok(took) => self.rates.push(f64::from(self.tasks) / took.as_secs_f64()),
            Err(error) => self.failure = Some(error),
        }
    }

    fn print(&mut self) {
        let name = self.peer.name();
        self.rates.sort_by(f64::total_cmp);
        match (&self.failure, &self.rates[..]) {
            (Some(error), _) => println!("{name:54} failed: {error}"),
            (None, rates) => {
                let (best, median) = (rates[rates.len() - 1], rates[rates.len() / 2]);
                println!("{name:54} {best:10.0} {median:10.0}");
            }
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let folder = server::Folder::new(&arguments.folder)?;
    if arguments.only_clusters {
        let program = arguments.coreflow.canonicalize()?;
        return clusters::run(&program, &folder, arguments.seconds);
    }
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    peers.extend(ourselves::start(&arguments.coreflow, folder.path()));
    peers.extend(redis::start(folder.path())?);
    peers.extend(beanstalk::start(folder.path())?);
    peers.extend(nats::start(folder.path())?);
    let mut rows: Vec<_> =
        peers.into_iter().map(|peer| Row::new(peer, arguments.seconds)).collect();
    for _ in 0..ROUNDS {
        rows.iter_mut().for_each(Row::round);
    }
    println!("{:54} {:>10} {:>10}", "tasks in a second", "best", "median");
    rows.iter_mut().for_each(Row::print);
    Ok(())
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
