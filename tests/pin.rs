//! `scripts/pin.sh` against made-up hosts: it must tell, change and put back what it says, and
//! start the program with what it was given.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use simd_json::OwnedValue;
use simd_json::prelude::*;

/// A folder that stands for `/`, and disappears with the test.
struct FakeHost(PathBuf);

impl FakeHost {
    /// Four cores on demand governors, two interrupts, huge pages everywhere.
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("coreflow-pin-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let host = Self(root);
        host.write("proc/sys/kernel/osrelease", "6.12.1");
        host.write("proc/sys/kernel/io_uring_disabled", "0");
        host.write("proc/sys/vm/swappiness", "60");
        host.write("proc/cpuinfo", "flags : fpu sse");
        host.write("proc/self/status", "Cpus_allowed_list:\t0-3");
        host.write("proc/irq/24/smp_affinity_list", "0-3");
        host.write("proc/irq/25/smp_affinity_list", "3");
        host.write("sys/devices/system/cpu/online", "0-3");
        host.write("sys/devices/system/cpu/isolated", "");
        for core in 0..4 {
            let path = format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
            host.write(&path, "schedutil");
        }
        host.write("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never");
        host
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("writable");
        fs::write(path, format!("{text}\n")).expect("writable");
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).expect("the file is there").trim_end().to_owned()
    }

    fn state(&self) -> PathBuf {
        self.0.join("run/coreflow-pin.state")
    }

    /// Every file and its text, to see whether anything changed.
    fn snapshot(&self) -> Vec<(PathBuf, String)> {
        fn walk(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
            for entry in fs::read_dir(folder).expect("readable").flatten() {
                match entry.path() {
                    path if path.is_dir() => walk(&path, files),
                    path => files.push((path.clone(), fs::read_to_string(path).expect("text"))),
                }
            }
        }
        let mut files = Vec::new();
        walk(&self.0, &mut files);
        files.sort();
        files
    }

    fn pin(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("bash runs")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/pin.sh"))
            .args(words)
            .current_dir(std::env::temp_dir())
            .env("COREFLOW_PIN_SYSROOT", &self.0)
            .env_remove("COREFLOW_PIN_RT");
        command
    }

    /// A program that prints its arguments in place of the release program.
    fn program(&self) -> PathBuf {
        let path = self.0.join("target/release/coreflow");
        self.write("target/release/coreflow", "#!/bin/sh\necho \"program $*\"");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("writable");
        path
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn checks(output: &Output) -> OwnedValue {
    let mut bytes = output.stdout.clone();
    simd_json::to_owned_value(&mut bytes).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The status of a check in the JSON report.
fn status(report: &OwnedValue, name: &str) -> String {
    let checks = report["checks"].as_array().expect("a list");
    let check = checks.iter().find(|check| check["name"] == *name);
    check.unwrap_or_else(|| panic!("no check {name}"))["status"].to_string()
}

#[test]
fn help_explains_every_command() {
    let output = FakeHost::new("help").pin(&["--help"]);
    assert!(output.status.success());
    for word in ["check", "plan", "apply", "undo", "COREFLOW_PIN_RT", "CARGO_TARGET_DIR"] {
        assert!(out(&output).contains(word), "{word}");
    }
}

#[test]
fn wrong_usage_exits_two() {
    let host = FakeHost::new("usage");
    for words in
        [&["bogus"][..], &["check", "--bogus"], &["plan", "--json"], &["undo", "x"], &["no.toml"]]
    {
        let output = host.pin(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn check_of_this_machine_is_valid_json() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/pin.sh");
    let output = Command::new(script).args(["check", "--json"]).output().expect("it runs");
    let report = checks(&output);
    assert_eq!(output.status.success(), report["status"] != "fail");
    assert!(report["checks"].as_array().is_some_and(|checks| checks.len() >= 9));
}

#[test]
fn check_tells_what_differs_and_apply_makes_it_well() {
    let host = FakeHost::new("check");
    let before = checks(&host.pin(&["check", "--json"]));
    for name in ["governor", "interrupts", "huge_pages", "swappiness"] {
        assert_eq!(status(&before, name), "warn", "{name}");
    }
    assert_eq!(before["status"], "warn");
    assert!(host.pin(&["apply"]).status.success());
    let after = checks(&host.pin(&["check", "--json"]));
    for name in ["governor", "interrupts", "huge_pages", "swappiness"] {
        assert_eq!(status(&after, name), "ok", "{name}");
    }
}

#[test]
fn check_fails_where_the_program_cannot_run() {
    let host = FakeHost::new("old");
    host.write("proc/sys/kernel/osrelease", "4.19.0-amd64");
    let output = host.pin(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(status(&checks(&output), "kernel"), "fail");
    host.write("proc/sys/kernel/osrelease", "6.1");
    host.write("proc/sys/kernel/io_uring_disabled", "2");
    assert_eq!(status(&checks(&host.pin(&["check", "--json"])), "io_uring"), "fail");
}

#[test]
fn plan_prints_what_apply_would_do_and_changes_nothing() {
    let host = FakeHost::new("plan");
    let before = host.snapshot();
    let output = host.pin(&["plan"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(host.snapshot(), before);
    let text = out(&output);
    assert!(text.contains("set /proc/sys/vm/swappiness from \"60\" to \"1\""), "{text}");
    assert!(text.contains("set /proc/irq/24/smp_affinity_list from \"0-3\" to \"3\""), "{text}");
    assert!(!text.contains("/proc/irq/25/"), "it already keeps off the worker cores: {text}");
    assert!(text.contains("isolcpus=managed_irq,domain,0,1,2 nohz_full=0,1,2"), "{text}");
}

#[test]
fn plan_keeps_interrupts_off_the_cores_of_the_given_tuning() {
    let host = FakeHost::new("tuned");
    host.write(
        "t.toml",
        "[cores] # two\nworkers = [\n  0, # first\n  1,\n]\nraft = \"auto\"\n[mesh]",
    );
    let file = host.0.join("t.toml");
    let text = out(&host.pin(&["plan", file.to_str().expect("UTF-8")]));
    assert!(text.contains("smp_affinity_list from \"0-3\" to \"2,3\""), "{text}");
    assert!(text.contains("taskset to core 0,1,3,"), "{text}");
}

#[test]
fn undo_restores_exactly_what_apply_found_also_after_a_second_apply() {
    let host = FakeHost::new("undo");
    host.write("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "powersave");
    for _ in 0..2 {
        let output = host.pin(&["apply"]);
        assert!(output.status.success(), "{output:?}");
    }
    let governor =
        |core| host.read(&format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"));
    assert_eq!((governor(1), governor(2)), ("performance".to_owned(), "performance".to_owned()));
    assert_eq!(host.read("sys/kernel/mm/transparent_hugepage/enabled"), "madvise");
    assert_eq!(host.read("proc/irq/24/smp_affinity_list"), "3");
    // Someone else's change between the two is not what apply found, and undo puts back the first.
    host.write("proc/sys/vm/swappiness", "30");
    assert!(host.pin(&["apply"]).status.success());

    assert!(host.pin(&["undo"]).status.success());
    assert_eq!((governor(1), governor(2)), ("schedutil".to_owned(), "powersave".to_owned()));
    assert_eq!(host.read("sys/kernel/mm/transparent_hugepage/enabled"), "always");
    assert_eq!(host.read("proc/irq/24/smp_affinity_list"), "0-3");
    assert_eq!(host.read("proc/irq/25/smp_affinity_list"), "3");
    assert_eq!(host.read("proc/sys/vm/swappiness"), "60");
    assert!(!host.state().exists());
    assert!(out(&host.pin(&["undo"])).contains("nothing to undo"));
}

#[test]
fn undo_writes_nowhere_but_below_proc_and_sys() {
    let host = FakeHost::new("damaged");
    host.write("run/coreflow-pin.state", "/etc/passwd\troot");
    let output = host.pin(&["undo"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("is damaged"), "{output:?}");
}

#[test]
fn small_machines_keep_their_interrupts_and_get_no_boot_lines() {
    let host = FakeHost::new("small");
    host.write("sys/devices/system/cpu/online", "0-1");
    host.write("proc/self/status", "Cpus_allowed_list:\t0-1");
    let text = out(&host.pin(&["plan"]));
    assert!(text.contains("leave the interrupts"), "{text}");
    assert!(text.contains("boot lines: none"), "{text}");
    assert!(!text.contains("isolcpus="), "{text}");
}

#[test]
fn the_program_gets_its_command_tuning_and_arguments() {
    let host = FakeHost::new("run");
    host.program();
    host.write("t.toml", "[cores]");
    let file = host.0.join("t.toml");
    let file = file.to_str().expect("UTF-8");
    let run = |words: &[&str]| {
        let output = host
            .command(words)
            .env("CARGO_TARGET_DIR", host.0.join("target"))
            .output()
            .expect("bash runs");
        assert!(output.status.success(), "{output:?}");
        output
    };
    let output = run(&[file, "bench", "all", "--out", "a b"]);
    assert_eq!(out(&output), format!("program bench --config {file} all --out a b\n"));
    assert_eq!(out(&run(&[file])), format!("program serve --config {file}\n"));
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/default.toml");
    assert_eq!(out(&run(&[])), format!("program serve --config {}\n", default.display()));
}

#[test]
fn cores_that_are_not_there_are_warned_of_and_replaced() {
    let host = FakeHost::new("fewer");
    host.program();
    host.write("t.toml", "[cores]\nworkers = [0, 9]\nraft = [10]");
    let file = host.0.join("t.toml");
    let file = file.to_str().expect("UTF-8");
    let output = host
        .command(&[file])
        .env("CARGO_TARGET_DIR", host.0.join("target"))
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{output:?}");
    assert!(err(&output).contains("core 9,10 is configured and is not there"), "{output:?}");
    let expected =
        format!("program serve --config {file} --set cores.workers=auto --set cores.raft=auto\n");
    assert_eq!(out(&output), expected);
}

#[test]
fn a_missing_program_is_built_first() {
    let host = FakeHost::new("build");
    host.write(
        "bin/cargo",
        "#!/bin/sh\necho \"cargo $*\" >&2\nmkdir -p \"$CARGO_TARGET_DIR/release\"\n\
         printf '#!/bin/sh\\necho built\\n' >\"$CARGO_TARGET_DIR/release/coreflow\"\n\
         chmod +x \"$CARGO_TARGET_DIR/release/coreflow\"",
    );
    let cargo = host.0.join("bin/cargo");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("writable");
    let path = format!("{}:{}", host.0.join("bin").display(), std::env::var("PATH").expect("set"));
    let output = host
        .command(&[])
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", host.0.join("target"))
        .output()
        .expect("bash runs");
    assert_eq!(out(&output), "built\n", "{output:?}");
    assert!(err(&output).contains("cargo build --release --locked"), "{output:?}");
}
