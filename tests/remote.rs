//! `coreflow task`, `dead` and `agent` as a user meets them: the real program against a real node,
//! and against a stand-in for what the node answers page by page.

use coreflow::{
    client::View,
    wire::{
        json::{self, Document},
        msgpack::{Scan, Scanner, write},
    },
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
};

/// What the program said.
#[derive(Debug)]
struct Outcome {
    code: i32,
    out: String,
    err: String,
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coreflow"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    command.args(words).current_dir(root).env_remove("COREFLOW_CONFIG");
    command
}

fn run(words: &[&str], input: &str) -> Outcome {
    let mut child = command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that refuses its flags does not read.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("the program was not killed");
    Outcome { code, out: text(output.stdout), err: text(output.stderr) }
}

/// A served node that ends with the test.
struct Node {
    child: Child,
    address: String,
    folder: PathBuf,
}

impl Node {
    fn start() -> Self {
        let chosen = ["server.rpc_address=127.0.0.1:0", "server.http_address=127.0.0.1:0"];
        static NODES: AtomicUsize = AtomicUsize::new(0);
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let folder = format!("coreflow-remote-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        let log = format!("log.folder={}", folder.display());
        let words = ["serve", "--json", "--set", chosen[0], "--set", chosen[1], "--set", &log];
        let mut child = command(&words)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the node starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the node says where it listens");
        let said: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        let address = said["rpc"].as_str().expect("an address").to_owned();
        Self { child, address, folder }
    }

    fn run(&self, words: &[&str]) -> Outcome {
        self.run_with(words, "")
    }

    fn run_with(&self, words: &[&str], input: &str) -> Outcome {
        run(&[words, &["--connect", &self.address]].concat(), input)
    }

    /// Runs what is to go well, and hands out its output without the last line break.
    fn well(&self, words: &[&str]) -> String {
        let outcome = self.run(words);
        assert_eq!(outcome.code, 0, "{words:?}: {outcome:?}");
        outcome.out.trim_end_matches('\n').to_owned()
    }

    fn json(&self, words: &[&str]) -> serde_json::Value {
        let text = self.well(&[words, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_task_is_submitted_followed_and_its_result_printed() {
    let node = Node::start();
    let id = node.well(&["task", "submit", "sha256", "\"abc\"", "--priority", "high"]);
    let abc = "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"";
    assert_eq!(node.well(&["task", "result", &id, "--wait-ms", "10000"]), abc);
    let status = node.json(&["task", "status", &id]);
    assert_eq!((&status["status"], &status["priority"]), (&"done".into(), &"high".into()));
    let table = node.well(&["task", "status", &id]);
    assert!(table.contains("STATUS") && table.contains(&id), "{table}");
    let result = node.run_with(&["task", "submit", "echo", "-", "--wait-ms", "10000"], "{\"n\":1}");
    assert_eq!((result.code, &*result.out), (0, "{\"n\":1}\n"), "{result:?}");
    let cancelled = node.run(&["task", "cancel", &id]);
    assert_eq!((cancelled.code, &*cancelled.out), (1, "it had ended before\n"));
}

#[test]
fn a_task_that_has_no_result_is_a_failure_that_says_why() {
    let node = Node::start();
    let id = node.well(&["task", "submit", "sleep", "{\"ms\":60000}"]);
    let early = node.run(&["task", "result", &id]);
    assert_eq!(early.code, 1, "{early:?}");
    assert_eq!(node.well(&["task", "cancel", &id]), "cancelled");
    let late = node.run(&["task", "result", &id, "--wait-ms", "10000"]);
    assert!(late.code == 1 && late.err.contains("is cancelled"), "{late:?}");
    let missing = "{\"path\":\"/no/such/file\"}";
    let dead = node.run(&["task", "submit", "sha256", missing, "--wait-ms", "20000"]);
    assert!(dead.code == 1 && dead.err.contains("/no/such/file"), "{dead:?}");
}

#[test]
fn agents_are_listed_spawned_called_and_stopped() {
    let node = Node::start();
    let id = node.well(&["agent", "spawn", "echo", "--name", "parrot"]);
    let listed = node.json(&["agent", "list", "--type", "echo"]);
    let mut named = listed["agents"].as_array().unwrap().iter();
    assert!(named.any(|agent| agent["name"] == "parrot" && agent["id"] == *id), "{listed}");
    let table = node.well(&["agent", "list"]);
    assert!(table.starts_with("ID ") && table.contains("parrot"), "{table}");
    assert_eq!(node.well(&["agent", "call", &id, "[1,\"two\"]"]), "[1,\"two\"]");
    assert_eq!(node.well(&["agent", "send", &id, "-1"]), "sent");
    let taken = node.run(&["agent", "spawn", "echo", "--name", "parrot"]);
    assert!(taken.code == 1 && taken.err.contains("parrot"), "{taken:?}");
    assert_eq!(node.well(&["agent", "stop", &id]), "stopped");
}

#[test]
fn errors_say_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = free.local_addr().expect("an address").to_string();
    drop(free);
    let down = run(&["task", "list", "--connect", &nobody], "");
    assert_eq!(down.code, 1, "{down:?}");
    assert!(down.err.contains(&nobody) && down.err.contains("coreflow serve"), "{down:?}");
    let named = format!("server.rpc_address={nobody}");
    let configured = run(&["agent", "list", "--set", &named], "");
    assert!(configured.code == 1 && configured.err.contains(&nobody), "{configured:?}");

    let node = Node::start();
    for (words, code, why) in [
        (&["task", "submit", "echo", "abc"][..], 2, "'\"text\"'"),
        (&["task", "submit", "echo", "1", "--priority", "urgent"], 2, "low, normal, high"),
        (&["task", "submit", "nope", "1"], 1, "echo"),
        (&["task", "status", "t0-1"], 2, "a task id is"),
        (&["task", "status", "t0-00000000000000000000000000000000"], 1, "not_found"),
        (&["dead", "requeue"], 2, "<ID>"),
        (&["agent", "stop", "7"], 2, "an agent id is"),
        (&["agent", "frobnicate"], 2, "frobnicate"),
    ] {
        let outcome = node.run(words);
        assert_eq!(outcome.code, code, "{words:?}: {outcome:?}");
        assert!(outcome.err.contains(why) && outcome.out.is_empty(), "{words:?}: {outcome:?}");
    }
}

#[test]
fn help_names_every_action() {
    for (subcommand, actions) in [
        ("task", &["submit", "status", "result", "list", "cancel"][..]),
        ("dead", &["list", "requeue"]),
        ("agent", &["list", "spawn", "stop", "send", "call"]),
    ] {
        let help = run(&[subcommand, "--help"], "");
        assert_eq!(help.code, 0);
        assert!(help.out.contains("--connect") && help.out.contains("Examples"), "{}", help.out);
        assert!(actions.iter().all(|action| help.out.contains(action)), "{}", help.out);
    }
}

/// A stand-in for a node on one connection: answers each request with the next of `results`
/// (JSON), and hands out the requests (method and parameters, JSON).
fn stand_in(results: &[&str]) -> (SocketAddr, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let results: Vec<String> = results.iter().map(|&text| text.to_owned()).collect();
    let (sender, requests) = channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client comes");
        for result in results {
            let request = read_request(&mut stream);
            let parts: Vec<_> = View::new(&request).items().collect();
            let params = parts[3].items().next().expect("one map");
            let method = parts[2].str().expect("a method").to_owned();
            sender.send((method, params.to_json().expect("JSON"))).expect("the test waits");
            let mut out = Vec::new();
            write::array(&mut out, 4);
            write::uint(&mut out, 1);
            write::raw(&mut out, parts[1].bytes());
            write::nil(&mut out);
            let mut text = result.into_bytes();
            let document = Document::parse(&mut text, 1 << 20).expect("JSON");
            json::to_msgpack(document.root(), &mut out);
            stream.write_all(&out).expect("the client reads");
        }
    });
    (address, requests)
}

fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !matches!(Scanner::new(1 << 20).scan(&bytes), Scan::Complete(_)) {
        stream.read_exact(&mut byte).expect("a whole request");
        bytes.push(byte[0]);
    }
    bytes
}

const FIRST: &str = "t0-00000000000000000000000000000001";

/// A task as a list shows it.
fn task(number: u32, status: &str) -> String {
    let error = if status == "dead" { ",\"error\":\"no\"" } else { "" };
    format!(
        "{{\"id\":\"t0-{number:032x}\",\"type\":\"echo\",\"status\":\"{status}\",\
         \"priority\":\"low\",\"attempts\":3{error}}}"
    )
}

#[test]
fn lists_are_followed_from_page_to_page() {
    let pages = [
        format!("{{\"tasks\":[{}],\"cursor\":\"a\\\"b\"}}", task(1, "dead")),
        format!("{{\"tasks\":[{}]}}", task(2, "dead")),
    ];
    let (address, requests) = stand_in(&[&pages[0], &pages[1]]);
    let connect = address.to_string();
    let list = ["task", "list", "--status", "dead", "--type", "echo", "--connect", &connect];
    let outcome = run(&list, "");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let lines: Vec<_> = outcome.out.lines().collect();
    assert_eq!(lines.len(), 3, "{outcome:?}");
    assert!(lines[1].starts_with(FIRST) && lines[1].ends_with("no"), "{outcome:?}");
    let filter = "\"status\":\"dead\",\"type\":\"echo\"";
    let asked: Vec<_> = requests.iter().collect();
    let expected = [format!("{{{filter}}}"), format!("{{{filter},\"cursor\":\"a\\\"b\"}}")];
    assert_eq!(asked, expected.map(|params| ("task.list".to_owned(), params)));
}

#[test]
fn a_list_that_stops_tells_where_the_next_one_begins() {
    let page = format!("{{\"tasks\":[{}],\"cursor\":\"a\\\"b\"}}", task(1, "queued"));
    let words = ["dead", "list", "--limit", "1", "--json", "--connect"];
    let (address, requests) = stand_in(&[&page]);
    let outcome = run(&[&words[..], &[&address.to_string()]].concat(), "");
    let said: serde_json::Value = serde_json::from_str(&outcome.out).expect("JSON");
    let expected: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!((outcome.code, said), (0, expected));
    assert_eq!(requests.recv().expect("a request"), ("dead.list".into(), "{}".into()));
    let (address, requests) = stand_in(&["{\"tasks\":[]}"]);
    let more = ["dead", "list", "--cursor", "x", "--connect", &address.to_string()];
    assert_eq!(run(&more, "").code, 0);
    assert_eq!(requests.recv().expect("a request").1, "{\"cursor\":\"x\"}");
}

#[test]
fn dead_letters_are_queued_again_one_by_one() {
    let (address, requests) = stand_in(&["{}", "{}"]);
    let second = FIRST.replace('1', "2");
    let connect = address.to_string();
    let outcome = run(&["dead", "requeue", FIRST, &second, "--connect", &connect], "");
    let expected = format!("{FIRST} is queued again\n{second} is queued again\n");
    assert_eq!((outcome.code, outcome.out), (0, expected));
    let ids: Vec<_> = requests.iter().map(|(_, params)| params).collect();
    assert_eq!(ids, [format!("{{\"id\":\"{FIRST}\"}}"), format!("{{\"id\":\"{second}\"}}")]);
}

#[test]
fn the_options_of_a_submission_reach_the_node() {
    let answer = format!("{{\"id\":\"{FIRST}\"}}");
    let (address, requests) = stand_in(&[&answer]);
    let connect = address.to_string();
    let words = ["task", "submit", "echo", "-5", "--key", "k", "--delay-ms", "9", "--timeout-ms"];
    let more = ["8", "--max-attempts", "2", "--not-durable", "--connect", &connect];
    let outcome = run(&[&words[..], &more].concat(), "");
    assert_eq!((outcome.code, outcome.out), (0, format!("{FIRST}\n")));
    let fields = "\"type\":\"echo\",\"payload\":-5,\"key\":\"k\",\"delay_ms\":9,\"timeout_ms\":8,\
                  \"max_attempts\":2,\"durable\":false";
    assert_eq!(requests.recv().expect("a request").1, format!("{{{fields}}}"));
}
