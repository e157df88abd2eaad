//! `coreflow doctor --log` as a user meets it.

use super::{Node, Scratch, body, child::Appender, ended, settings};
use coreflow::consensus::place::Place;
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
};

struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

fn doctor(folder: &Path, words: &[&str]) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_coreflow"))
        .args(["doctor", "--log", "--folder"])
        .arg(folder)
        .args(words)
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A log with this many ended tasks, closed; tells where each lies.
fn log_with(folder: &Path, tasks: u128) -> Vec<Place> {
    let (mut node, _) = Node::open(settings(folder, 1, 4)).expect("it opens");
    let mut places = Vec::new();
    for number in 0..tasks {
        let (position, offset) = node.lane(0).append(ended(0, number, &body(number, 900)));
        places.extend(node.commit(0, position, &[(position, offset)]));
    }
    places
}

#[test]
fn a_log_that_is_well_is_counted() {
    let folder = Scratch::new("well");
    log_with(&folder.0, 50);
    let answer = doctor(&folder.0, &["--json"]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    let report: serde_json::Value = serde_json::from_str(&answer.out).expect("it is JSON");
    assert_eq!(report["status"], "ok");
    assert_eq!(report["records"]["ended"], 50);
    assert_eq!(report["records"]["submitted"], 0);
    assert_eq!(report["live_tasks"], 0);
    assert_eq!((&report["first_generation"], &report["epoch"]), (&1.into(), &1.into()));
    assert_eq!(report["segments"][0]["file"], "segment-000001.log");
    assert_eq!(report["segments"][0]["state"], "in use");
    assert_eq!(report["segments"][0]["records"], 50);
    assert_eq!(report["damage"], serde_json::json!([]));
    let answer = doctor(&folder.0, &[]);
    assert!(answer.out.contains("ended                50\n"), "{}", answer.out);
    assert!(answer.out.contains(": ok; generations 1 to 1, "), "{}", answer.out);
}

#[test]
fn damage_is_named_with_its_place_by_the_doctor_and_by_a_start() {
    let folder = Scratch::new("damage");
    let places = log_with(&folder.0, 50);
    let path = folder.0.join("segment-000001.log");
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("it is there");
    let place = u64::from(places[3].offset) + 20;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).expect("it is there");
    file.write_all_at(&[byte[0] ^ 16], place).expect("it is there");
    let answer = doctor(&folder.0, &[]);
    assert_eq!(answer.code, Some(1), "{}", answer.out);
    let group = place / 4096 * 4096;
    let damage = format!("segment-000001.log at byte {group}: the checksum of a record is wrong");
    assert!(answer.out.contains(&format!("DAMAGE: {damage}\n")), "{}", answer.out);
    assert!(answer.out.contains("ended                49\n"), "the rest is read: {}", answer.out);
    let error = Node::open(settings(&folder.0, 1, 4)).map(drop).expect_err("it is damaged");
    assert!(error.to_string().contains(&damage), "{error}");
    assert!(error.to_string().contains("coreflow doctor --log --folder"), "{error}");
    file.write_all_at(&byte, place).expect("it is there");
    let (_, replayed) = Node::open(settings(&folder.0, 1, 4)).expect("the refusal changed nothing");
    assert_eq!(replayed.len(), 50);
}

#[test]
fn a_log_that_a_node_uses_is_left_alone() {
    let folder = Scratch::new("busy");
    let mut appender = Appender::start(&folder.0, &[]);
    appender.next().expect("the child commits");
    let answer = doctor(&folder.0, &[]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(3), ""));
    let holder = format!("process {} uses it; stop it", appender.process.id());
    assert!(answer.err.contains(&holder), "{}", answer.err);
    appender.process.kill().expect("the child runs");
    appender.process.wait().expect("the child was killed");
    let before = fs::read(folder.0.join("lock")).expect("the lock's file stays");
    assert_eq!(doctor(&folder.0, &[]).code, Some(0));
    assert_eq!(fs::read(folder.0.join("lock")).expect("it stays"), before, "only read");
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let answer = doctor(Path::new("/nowhere/log"), &[]);
    assert_eq!(answer.code, Some(3), "nothing is known of it");
    assert!(answer.err.starts_with("the log in /nowhere/log cannot be used: "), "{}", answer.err);
}
