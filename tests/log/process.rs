//! Whole processes: killed, refused, and ended by a failing disk.

use super::{
    Node, Replayed, Scratch, body,
    child::{Appender, BODY_BYTES_MAX},
    settings,
};
use coreflow::consensus::{open::OpenError, thread::EXIT_LOG_FAILED};
use std::{
    collections::BTreeSet,
    io::Read,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const KILLS: u64 = 24;

/// Every number that was printed is there, with the body that belongs to it.
fn check(replayed: &Replayed, printed: &BTreeSet<u128>, when: &str) {
    let lost: Vec<_> = printed.iter().filter(|number| !replayed.contains_key(number)).collect();
    assert!(lost.is_empty(), "{when}: {} of {} are lost: {lost:x?}", lost.len(), printed.len());
    for (number, (found, _)) in replayed {
        assert_eq!(*found, body(*number, BODY_BYTES_MAX), "{when}: the body of {number:x}");
    }
}

fn reopen(folder: &Path) -> (Node, Replayed) {
    Node::open(settings(folder, 4, 4096)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_was_printed_as_committed_is_there_after_every_kill() {
    let folder = Scratch::new("kill");
    let mut printed = BTreeSet::new();
    for seed in 0..KILLS {
        let mut random = fastrand::Rng::with_seed(seed);
        let pause = Duration::from_micros(random.u64(..120_000));
        let mut appender = Appender::start(&folder.0, &[]);
        let mut kill_at = None;
        while let Some(numbers) = appender.next() {
            printed.extend(numbers);
            let kill_at = *kill_at.get_or_insert_with(|| Instant::now() + pause);
            if Instant::now() >= kill_at {
                // What it still prints until it is dead must be there too.
                appender.process.kill().expect("the child runs");
            }
        }
        appender.process.wait().expect("the child was killed");
        let (node, replayed) = reopen(&folder.0);
        println!(
            "kill {seed}: seed {seed}, {} ms after the first commit, epoch {}: {} printed, {} found",
            pause.as_millis(),
            node.log.epoch,
            printed.len(),
            replayed.len()
        );
        check(&replayed, &printed, &format!("kill with seed {seed}"));
        assert_eq!(node.log.epoch, 2 * seed + 2, "each open counts");
    }
    assert!(printed.len() as u64 > KILLS * 10, "{} records", printed.len());
}

#[test]
fn a_disk_that_refuses_a_write_ends_the_node_and_what_it_told_before_is_there() {
    let folder = Scratch::new("refusal");
    // The limit of a file's size stands for a disk that fails; its signal must not end the child.
    let mut appender = Appender::start(&folder.0, &["env", "--ignore-signal=XFSZ"]);
    let mut printed = BTreeSet::from_iter(appender.next().expect("the child commits"));
    let pid = appender.process.id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, "--fsize=4096"]).status();
    assert!(limited.expect("util-linux is there").success());
    while let Some(numbers) = appender.next() {
        printed.extend(numbers);
    }
    let mut told = String::new();
    appender.stderr().read_to_string(&mut told).expect("the child writes UTF-8");
    let status = appender.process.wait().expect("the child has ended");
    assert_eq!(status.code(), Some(EXIT_LOG_FAILED), "{told}");
    assert!(told.contains("fatal: the log cannot be written"), "{told}");
    check(&reopen(&folder.0).1, &printed, "after the refusal");
}

#[test]
fn a_second_instance_is_refused_and_told_who_has_the_log() {
    let folder = Scratch::new("second");
    let mut appender = Appender::start(&folder.0, &[]);
    appender.next().expect("the child commits");
    let error = Node::open(settings(&folder.0, 4, 4096)).map(drop).expect_err("it is in use");
    assert!(matches!(error, OpenError::Locked { .. }), "{error:?}");
    let holder = format!("process {} uses it", appender.process.id());
    assert!(error.to_string().contains(&holder), "{error}");
    appender.process.kill().expect("the child runs");
    appender.process.wait().expect("the child was killed");
    reopen(&folder.0);
}
