//! The process that is killed: appends for ever and prints what was committed.

use super::{Node, body, ended, next_committed, settings};
use coreflow::consensus::place::Position;
use std::{
    io::{self, BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
};

/// Names the folder to the child.
const FOLDER: &str = "COREFLOW_TEST_LOG";
/// What lines of the child that matter begin with; the rest is the test harness's.
const COMMITTED: &str = "committed ";
/// Longest body, bytes.
pub const BODY_BYTES_MAX: usize = 600;

/// The number of a record: unique over all lives of the log.
fn number(epoch: u64, lane: usize, position: Position) -> u128 {
    u128::from(epoch) << 64 | (lane as u128) << 56 | u128::from(position.0)
}

#[test]
#[ignore = "the process that the other tests kill"]
fn child() {
    let folder = std::env::var(FOLDER).expect("the parent names a folder");
    let (mut node, _) = Node::open(settings(Path::new(&folder), 4, 4096)).expect("it opens");
    let epoch = node.log.epoch;
    let mut random = fastrand::Rng::with_seed(epoch);
    let mut told = [Position(0); 2];
    loop {
        for (lane, told) in told.iter_mut().enumerate() {
            // Small batches and large ones, so that groups of all sizes are cut off.
            let records = if random.u8(..8) == 0 { 300 } else { random.u64(..6) };
            for _ in 0..records {
                if !node.lane(lane).has_room() {
                    break;
                }
                let next = Position(node.log.lanes[lane].append_position().0 + 1);
                let number = number(epoch, lane, next);
                let body = body(number, BODY_BYTES_MAX);
                assert_eq!(node.lane(lane).append(ended(lane, number, &body)).0, next);
            }
            node.lane(lane).flush();
            while let Some(committed) = next_committed(node.lane(lane)) {
                print(epoch, lane, told.0 + 1, committed.upto.0);
                *told = committed.upto;
            }
        }
        if random.u8(..4) == 0 {
            node.park();
        }
    }
}

/// One write a line, so that a line that was read whole was printed whole.
fn print(epoch: u64, lane: usize, first: u64, last: u64) {
    let line = format!("{COMMITTED}{epoch} {lane} {first} {last}\n");
    let _ = io::stdout().write_all(line.as_bytes());
}

/// A running child.
pub struct Appender {
    pub process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Appender {
    /// Starts it; `launcher` is a program with arguments that the child's own command follows.
    pub fn start(folder: &Path, launcher: &[&str]) -> Self {
        let program = std::env::current_exe().expect("the test knows itself");
        let program = program.to_str().expect("the path is UTF-8");
        let words = ["child::child", "--exact", "--ignored", "--nocapture"];
        let mut all = launcher.iter().chain([&program]).chain(&words);
        let mut process = Command::new(all.next().expect("there is a program"))
            .args(all)
            .env(FOLDER, folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let stdout = process.stdout.take().expect("standard output is a pipe");
        Self { process, lines: BufReader::new(stdout).lines() }
    }

    /// The numbers of the next line that tells of records; `None` when the child has ended.
    pub fn next(&mut self) -> Option<Vec<u128>> {
        loop {
            let line = self.lines.next()?.expect("the child prints UTF-8");
            // The harness prints the test's name without a line's end.
            let Some((_, rest)) = line.split_once(COMMITTED) else { continue };
            let words: Vec<u64> =
                rest.split(' ').map(|word| word.parse().expect("a number")).collect();
            let [epoch, lane, first, last] = words[..] else { panic!("{line:?}") };
            let positions = (first..=last).map(Position);
            return Some(positions.map(|at| number(epoch, lane as usize, at)).collect());
        }
    }

    /// What the child writes to standard error.
    pub fn stderr(&mut self) -> ChildStderr {
        self.process.stderr.take().expect("standard error is a pipe")
    }
}
