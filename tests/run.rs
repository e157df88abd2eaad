//! `coreflow run` as a user meets it: the real program, real files, result lines and exit codes.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What the program said.
struct Outcome {
    code: i32,
    lines: Vec<serde_json::Value>,
    err: String,
}

impl Outcome {
    /// The result line of an input line, from 1.
    fn of(&self, line: u64) -> &serde_json::Value {
        let mut found = self.lines.iter().filter(|result| result["line"] == line);
        let result = found.next().unwrap_or_else(|| panic!("line {line} has no result"));
        assert!(found.next().is_none(), "line {line} has two results");
        result
    }
}

/// Runs `coreflow run FILE` with the tuning that people start from.
fn run(words: &[&str], input: &str) -> Outcome {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_coreflow"))
        .arg("run")
        .args(words)
        .env("COREFLOW_CONFIG", root.join("tuning/default.toml"))
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    let input = input.to_owned();
    let feed = std::thread::spawn(move || {
        // A program that refuses its flags does not read.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().expect("the program ends");
    feed.join().expect("the input is written");
    let text = String::from_utf8(output.stdout).expect("result lines are UTF-8");
    let parse = |line: &str| serde_json::from_str(line).expect("a result line is JSON");
    Outcome {
        code: output.status.code().expect("the program was not killed"),
        lines: text.lines().map(parse).collect(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A directory of this test that disappears with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("coreflow-run-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("the temporary directory is writable");
        path.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn files_under(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the source tree is readable") {
        let path = entry.expect("the source tree is readable").path();
        match path.is_dir() {
            true => files_under(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn the_hashes_of_a_source_tree_are_those_of_sha256sum() {
    let mut files = Vec::new();
    for part in ["src", "tests", "tuning", "scripts"] {
        files_under(&Path::new(env!("CARGO_MANIFEST_DIR")).join(part), &mut files);
    }
    assert!(files.len() > 100, "{} files", files.len());
    let listed = Command::new("sha256sum").args(&files).output().expect("sha256sum runs");
    let listed = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    let expected: BTreeMap<&str, &str> =
        listed.lines().map(|line| (&line[66..], &line[..64])).collect();
    assert_eq!(expected.len(), files.len());
    let task = |path: &PathBuf| {
        serde_json::json!({"type": "sha256", "payload": {"path": path}}).to_string() + "\n"
    };
    let scratch = Scratch::new("tree");
    let input = scratch.file("tasks.jsonl", &files.iter().map(task).collect::<String>());
    let outcome = run(&[&input], "");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(outcome.lines.len(), files.len());
    let mut ids = HashSet::new();
    for (line, path) in (1..).zip(&files) {
        let result = outcome.of(line);
        assert_eq!(result["status"], "done", "{result}");
        assert_eq!(result["attempts"], 1);
        assert_eq!(result["result"], expected[path.to_str().unwrap()], "{}", path.display());
        assert!(ids.insert(result["id"].to_string()), "two tasks have one id");
    }
}

#[test]
fn lines_that_are_no_task_are_told_and_the_others_run() {
    let input = concat!(
        "{\"type\":\"echo\",\"payload\":{\"a\":[1,2.5,null,true,\"\\u00fc\"]}}\n",
        "not json\n",
        "{\"type\":\"no-such-type\",\"payload\":1}\n",
        "{\"payload\":1}\n",
        "\n",
        "{\"type\":\"echo\",\"payload\":1,\"priority\":\"urgent!\"}\n",
        "{\"type\":\"sha256\",\"payload\":\"abc\"}\n",
        "{\"type\":\"sha256\",\"payload\":{\"path\":\"/no/such/file\"}}",
    );
    let outcome = run(&["-"], input);
    assert_eq!(outcome.code, 1, "a line that did not end as done makes the run fail");
    let echoed = serde_json::json!({"a": [1, 2.5, null, true, "ü"]});
    assert_eq!(outcome.of(1)["result"], echoed);
    for line in [2, 3, 4, 6] {
        let result = outcome.of(line);
        assert_eq!(result["status"], "invalid", "{result}");
        assert!(result["error"].as_str().is_some_and(|error| error.len() > 5), "{result}");
    }
    assert!(outcome.of(3)["error"].as_str().unwrap().contains("echo, sha256, sleep"));
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(outcome.of(7)["result"], abc);
    let missing = outcome.of(8);
    assert_eq!(missing["status"], "dead", "{missing}");
    assert!(missing["error"].as_str().unwrap().contains("/no/such/file"), "{missing}");
    assert_eq!(outcome.lines.len(), 7, "an empty line is no task");
}

#[test]
fn lines_with_one_key_are_one_task() {
    let line = |key: &str| format!("{{\"type\":\"echo\",\"payload\":7,\"key\":\"{key}\"}}\n");
    let input: String = ["a", "b", "a", "a"].into_iter().map(line).collect();
    let outcome = run(&["-"], &input);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let id = |line| outcome.of(line)["id"].clone();
    assert_eq!((id(1), id(1)), (id(3), id(4)));
    assert_ne!(id(1), id(2));
}

#[test]
fn a_line_that_asks_for_another_task_with_a_key_that_is_taken_is_a_conflict() {
    let line = |agent_type: &str, payload: &str, more: &str| {
        format!("{{\"type\":\"{agent_type}\",\"payload\":{payload},\"key\":\"k\"{more}}}\n")
    };
    let input = [
        line("sleep", "{\"ms\":100}", ""),
        line("sleep", "{\"ms\":101}", ""),
        line("sleep", "{ \"ms\": 100 }", ",\"priority\":\"normal\""),
        line("sleep", "{\"ms\":100}", ",\"max_attempts\":9"),
        line("echo", "7", ""),
    ];
    let outcome = run(&["-"], &input.concat());
    assert_eq!(outcome.code, 1, "{}", outcome.err);
    let status = |line| outcome.of(line)["status"].clone();
    let statuses: Vec<_> = (1..=5).map(status).collect();
    assert_eq!(statuses, ["done", "conflict", "done", "conflict", "done"], "{:?}", outcome.lines);
    assert_eq!(outcome.of(1)["id"], outcome.of(3)["id"], "the same task, written otherwise");
    assert_eq!((&outcome.of(2)["id"], &outcome.of(5)["result"]), (&().into(), &7.into()));
    let error = outcome.of(2)["error"].as_str().expect("it says why");
    assert!(error.starts_with("key:"), "{error}");
}

#[test]
fn many_more_tasks_than_the_queues_hold_all_end() {
    const TASKS: u64 = 20_000;
    let task = |n: u64| format!("{{\"type\":\"echo\",\"payload\":{n}}}\n");
    let input: String = (1..=TASKS).map(task).collect();
    let small = ["--set", "tasks.queue_primary=100", "--set", "tasks.queue_overflow=10", "-"];
    let outcome = run(&small, &input);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let mut ended = vec![false; TASKS as usize];
    for result in &outcome.lines {
        assert_eq!((&result["status"], &result["result"]), (&"done".into(), &result["line"]));
        let line = result["line"].as_u64().unwrap() as usize;
        assert!(!std::mem::replace(&mut ended[line - 1], true), "line {line} ended twice");
    }
    assert!(ended.iter().all(|ended| *ended));
}

#[test]
fn a_file_that_is_not_there_and_a_wrong_flag_are_wrong_usage() {
    let missing = run(&["/no/such/file.jsonl"], "");
    assert_eq!(missing.code, 2, "{}", missing.err);
    assert!(missing.err.contains("/no/such/file.jsonl"), "{}", missing.err);
    let unknown = run(&["--set", "mesh.batch_mesages=10", "-"], "");
    assert_eq!(unknown.code, 2, "{}", unknown.err);
    assert!(unknown.err.contains("batch_messages"), "{}", unknown.err);
}
