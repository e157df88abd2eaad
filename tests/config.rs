//! `coreflow config` as a user meets it: files in, sentences and exit codes out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use coreflow::cli::common::Common;
use coreflow::cli::config::{ConfigArgs, run};
use coreflow::config::Config;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    args: ConfigArgs,
}

struct Answer {
    code: ExitCode,
    out: String,
    err: String,
}

fn config(words: &[&str]) -> Answer {
    let command = Command::parse_from([&["config"], words].concat());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&command.args, &command.common, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    Answer { code, out: text(out), err: text(err) }
}

fn tuning(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(name);
    path.display().to_string()
}

/// A file of this test that disappears with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("coreflow-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("the temporary directory is writable");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("the path is UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn check_says_ok_for_every_tuning_file_of_the_project() {
    let files = [
        "cluster-3.toml",
        "cluster-4-pbft.toml",
        "default.toml",
        "latency.toml",
        "throughput.toml",
    ];
    for name in files {
        let file = tuning(name);
        let answer = config(&["check", &file]);
        assert_eq!(answer.err, "");
        assert_eq!(answer.out, format!("{file}: ok\n"));
        assert_eq!(answer.code, ExitCode::SUCCESS);
    }
}

#[test]
fn check_tells_every_error_with_its_line_and_exits_two() {
    let file =
        Scratch::new("two-errors.toml", "[mesh]\nring_batches = 65\n\n[tasks]\nretaned = 1\n");
    let answer = config(&["check", file.path()]);
    assert_eq!(answer.out, "");
    assert_eq!(answer.code, ExitCode::from(2));
    let lines: Vec<_> = answer.err.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{}:2: mesh.ring_batches: 65 is", file.path())));
    assert!(lines[1].starts_with(&format!("{}:5: tasks.retaned: ", file.path())));
    assert!(lines[1].contains("\"retained\""), "{}", lines[1]);
}

#[test]
fn check_of_several_files_judges_each() {
    let file = Scratch::new("one-error.toml", "[mesh]\nbatch_messages = 0\n");
    let good = tuning("default.toml");
    let answer = config(&["check", &good, file.path()]);
    assert_eq!(answer.out, format!("{good}: ok\n"));
    assert!(answer.err.contains(":2: mesh.batch_messages"), "{}", answer.err);
    assert_eq!(answer.code, ExitCode::from(2));
}

#[test]
fn check_of_a_file_that_is_not_there_names_it() {
    let answer = config(&["check", "/nowhere/tuning.toml"]);
    assert!(answer.err.starts_with("/nowhere/tuning.toml: cannot be read"), "{}", answer.err);
    assert_eq!(answer.code, ExitCode::from(2));
}

#[test]
fn check_prints_json_when_asked() {
    let file = Scratch::new("json.toml", "[mesh]\nring_batches = 65\n");
    let answer = config(&["check", "--json", file.path()]);
    let mut bytes = answer.out.into_bytes();
    let value = simd_json::to_owned_value(&mut bytes).expect("valid JSON");
    assert_eq!(value[0]["ok"], false);
    assert_eq!(value[0]["errors"][0]["key"], "mesh.ring_batches");
}

#[test]
fn print_shows_overrides_and_parses_to_what_it_shows() {
    let answer =
        config(&["print", "--set", "runtime.spin_us=forever", "--set", "agent.echo.max=8"]);
    assert_eq!(answer.err, "");
    let printed = Config::parse(&answer.out, "printed", &[]).expect("the print is a tuning file");
    let overrides = ["runtime.spin_us=forever".to_owned(), "agent.echo.max=8".to_owned()];
    assert_eq!(printed, Config::parse("", "empty", &overrides).expect("the overrides are valid"));
    assert_eq!(printed.agent[0].max, 8);
}

#[test]
fn print_reads_the_file_that_config_names() {
    let answer = config(&["print", "--json", "--config", &tuning("latency.toml")]);
    let mut bytes = answer.out.into_bytes();
    let value = simd_json::to_owned_value(&mut bytes).expect("valid JSON");
    assert_eq!(value["runtime"]["spin_us"], "forever");
    assert_eq!(value["agent"][2]["type"], "sha256");
}

#[test]
fn print_refuses_a_bad_override_and_exits_two() {
    let answer = config(&["print", "--set", "mesh.ring_batches=65"]);
    assert_eq!(answer.out, "");
    assert!(answer.err.starts_with("--set mesh.ring_batches: 65 is not a power"), "{}", answer.err);
    assert_eq!(answer.code, ExitCode::from(2));
}
