//! `coreflow bench` and `coreflow compare` as a user meets them: the real program, the files that
//! it writes, and what `--json` prints.

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Runs the program and tells its exit code.
fn program(words: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_coreflow"))
        .args(words)
        .env_remove("COREFLOW_CONFIG")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    (status.code().expect("it was not killed"), text(stdout), text(stderr))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// A directory of this test that disappears with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("coreflow-measure-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A copy of a folder in which a report is changed.
fn changed(from: &str, to: &str, suite: &str, change: impl FnOnce(&mut Value)) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), Path::new(to).join(file.file_name())).unwrap();
    }
    let report = Path::new(to).join(format!("{suite}.json"));
    let mut value = json(&fs::read_to_string(&report).unwrap());
    change(&mut value);
    fs::write(report, value.to_string()).unwrap();
}

#[test]
fn what_bench_writes_is_what_compare_reads() {
    let scratch = Scratch::new("bench");
    let [a, b] = ["a", "b"].map(|name| scratch.path(name));
    let quick = ["bench", "all", "--quick", "--seconds", "0.05", "--json", "--out", &a];
    let (code, out, err) = program(&quick);
    assert_eq!(code, 0, "{err}");
    let printed = json(&out);
    for (suite, components) in [
        (
            "throughput",
            &[
                "message_passing",
                "agent_scheduling",
                "durable_tasks",
                "consensus",
                "consensus_log",
                "pattern_search",
            ][..],
        ),
        (
            "latency",
            &["message_latency", "message_latency_open", "consensus_finality", "search_latency"],
        ),
        ("memory", &["hnsw_index"]),
        ("reliability", &["task_loss", "split_brain", "gossip_convergence"]),
    ] {
        let report = json(&fs::read_to_string(format!("{a}/{suite}.json")).unwrap());
        assert_eq!(printed[suite], report, "what is printed is what is written");
        for key in ["cpu", "kernel", "cores", "config_hash", "git", "probe_before", "probe_after"] {
            assert!(!report["manifest"][key].is_null(), "the manifest of {suite} has no {key}");
        }
        let results = report["results"].as_array().unwrap();
        for component in components {
            let result = results.iter().find(|result| result["component"] == *component);
            let result = result.unwrap_or_else(|| panic!("{component} is not in {report}"));
            assert!(result["target_met"].is_boolean() && result["goal_met"].is_boolean());
        }
    }
    let figure = &printed["throughput"]["results"][0]["throughput_msg_per_s"];
    assert!(figure.as_f64().is_some_and(|rate| rate > 0.0), "{printed}");
    let results = printed["throughput"]["results"].as_array().unwrap();
    let agreement = results.iter().find(|result| result["component"] == "pbft_throughput").unwrap();
    assert!(agreement["requests_ops_per_s"].is_number(), "{agreement}");
    // What was asked for was finished: this counts requests, not time.
    assert!(agreement["requests_finished"].as_u64().is_some_and(|count| count > 0), "{agreement}");
    let loss = &printed["reliability"]["results"][0];
    for (figure, expected) in [("total_tasks", 22_000), ("kills", 10)] {
        assert_eq!(loss[figure], expected, "{loss}");
    }
    for figure in ["lost_tasks", "never_run_tasks", "keys_broken", "ended_twice"] {
        assert_eq!(loss[figure], 0, "{loss}");
    }
    let results = printed["reliability"]["results"].as_array().unwrap();
    let parted = results.iter().find(|result| result["component"] == "split_brain").unwrap();
    assert!(parted["total_tasks"].as_u64().is_some_and(|tasks| tasks > 0), "{parted}");
    for figure in ["lost_tasks", "keys_broken", "terms_with_two_leaders"] {
        assert_eq!(parted[figure], 0, "{parted}");
    }
    let results = printed["throughput"]["results"].as_array().unwrap();
    let searched = results.iter().find(|result| result["component"] == "pattern_search").unwrap();
    for curve in ["curve", "curve_reranked"] {
        let points = searched[curve].as_array().unwrap();
        let last = points.last().unwrap();
        assert!(last["recall"].as_f64().is_some_and(|recall| recall >= 0.95), "{last}");
        for figure in ["ef", "throughput_searches_per_s", "p99_us"] {
            assert!(points.iter().all(|point| point[figure].as_f64().unwrap() > 0.0), "{searched}");
        }
    }
    assert!(fs::read_to_string(format!("{a}/pattern_search.svg")).unwrap().contains("polyline"));
    assert!(Path::new(&a).join("search_latency.hgrm").exists());
    let failover = fs::read_to_string(format!("{a}/agent_failover.hgrm")).unwrap();
    assert!(failover.contains("Total count    =           20"), "{failover}");
    let curve = fs::read_to_string(format!("{a}/message_latency.hgrm")).unwrap();
    let columns: Vec<_> = curve.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns, ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);

    let (code, out, _) = program(&["compare", &a, &a]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("verdict: no change"), "{out}");
    changed(&a, &b, "throughput", |report| {
        let rate = &mut report["results"][0]["throughput_msg_per_s"];
        *rate = (rate.as_f64().unwrap() / 2.0).into();
        report["manifest"]["config_hash"] = "another".into();
    });
    let svg = scratch.path("curves.svg");
    let (code, out, err) = program(&["compare", &a, &b, "--svg", &svg]);
    assert_eq!(code, 1, "{out}");
    let verdict = out.lines().last().unwrap();
    assert!(verdict.contains("regressed") && verdict.contains("message_passing"), "{verdict}");
    assert!(err.contains("warning: ") && err.contains("another"), "{err}");
    let drawing = fs::read_to_string(&svg).unwrap();
    assert!(drawing.starts_with("<svg ") && drawing.trim_end().ends_with("</svg>"));
    assert_eq!(program(&["compare", &a, &b, "--threshold", "60%"]).0, 0);
    let (code, out, _) = program(&["compare", &a, &b, "--json"]);
    let answer = json(&out);
    assert_eq!((code, &answer["verdict"]), (1, &"regressed".into()));
    assert!(answer["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty()));
    assert_eq!(program(&["compare", &b, &a]).0, 0, "better is no regression");
}

#[test]
fn two_percentile_files_are_compared() {
    let scratch = Scratch::new("curves");
    let a = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics/fixtures/lognormal.hgrm");
    let text = fs::read_to_string(&a).unwrap();
    let slower = text.lines().map(|line| match line.split_whitespace().next() {
        Some(value) if value.parse::<f64>().is_ok() => {
            let slower = value.parse::<f64>().unwrap() * 1.3;
            line.replacen(value, &format!("{slower:.3}"), 1)
        }
        _ => line.to_owned(),
    });
    let b = scratch.path("slower.hgrm");
    fs::write(&b, slower.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    let a = a.to_str().unwrap();
    let (code, out, _) = program(&["compare", a, &b]);
    assert_eq!(code, 1, "{out}");
    for figure in ["p50", "p90", "p99", "p99.9", "max", "+30.0 %", "worse"] {
        assert!(out.contains(figure), "no {figure} in {out}");
    }
    assert_eq!(program(&["compare", a, &b, "--threshold", "40"]).0, 0);
    assert_eq!(program(&["compare", a, a]).0, 0);
}

#[test]
fn what_cannot_be_compared_is_wrong_usage() {
    let scratch = Scratch::new("wrong");
    let curve = "src/metrics/fixtures/lognormal.hgrm";
    let folder = scratch.path("empty");
    fs::create_dir(&folder).unwrap();
    let broken = scratch.path("broken.hgrm");
    fs::write(&broken, "Value Percentile\n1 x\n").unwrap();
    for (words, part) in [
        (["/no/such/run", curve], "/no/such/run"),
        ([curve, &folder], "is a folder"),
        ([&folder, &folder], "no SUITE.json"),
        ([curve, &broken], "broken.hgrm"),
    ] {
        let (code, out, err) = program(&["compare", words[0], words[1]]);
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}: {err}");
        assert!(err.contains(part), "{words:?}: {err}");
    }
    assert_eq!(program(&["compare", curve, curve, "--threshold", "-1"]).0, 2);
    assert_eq!(program(&["bench", "nonsense"]).0, 2);
    assert_eq!(program(&["bench", "all", "--quick", "--rate", "0"]).0, 2);
}

#[test]
fn a_core_that_is_not_there_is_a_wrong_configuration_for_whatever_starts_a_node() {
    for words in [
        &["serve"][..],
        &["run", "examples/tasks.jsonl"],
        &["bench", "latency", "--quick"],
        &["mcp"],
    ] {
        let (code, out, err) = program(&[words, &["--set", "cores.workers=[1023]"]].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}: {err}");
        assert!(err.contains("cores.workers") && err.contains("1023"), "{words:?}: {err}");
    }
}

#[test]
fn one_document_of_json_is_all_that_is_printed() {
    let ports =
        ["--set", "server.rpc_address=127.0.0.1:0", "--set", "server.http_address=127.0.0.1:0"];
    // What the doctor finds is the host's affair.
    for (words, codes) in [
        (&["config", "check", "tuning/default.toml", "tuning/latency.toml"][..], 0..=0),
        (&["config", "check", "README.md"], 2..=2),
        (&["config", "print"], 0..=0),
        (&["doctor"], 0..=1),
    ] {
        let (code, out, err) = program(&[&["--json"], words, &ports].concat());
        assert!(codes.contains(&code), "{words:?}: {code}, {err}");
        json(&out);
    }
}

/// A `.npy` of rows, with the name of its numbers' type.
fn npy(path: &str, of: &str, columns: usize, numbers: &[u8], rows: usize) {
    let mut file = b"\x93NUMPY\x01\0\x76\0".to_vec();
    file.extend(
        format!("{{'descr': '{of}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}")
            .bytes(),
    );
    file.resize(127, b' ');
    file.push(b'\n');
    file.extend(numbers);
    fs::write(path, file).unwrap();
}

/// The truth in the file is wrong on purpose: what is found is held against it and nothing else.
#[test]
fn vectors_of_files_are_measured() {
    let scratch = Scratch::new("vectors");
    let [out, vectors, queries, truth] =
        ["out", "v.npy", "q.npy", "t.npy"].map(|name| scratch.path(name));
    let on_circle = |row: usize| {
        let (sin, cos) = (row as f32 / 50.0).sin_cos();
        [cos, sin].map(f32::to_le_bytes).concat()
    };
    npy(&vectors, "<f4", 2, &(0..300).flat_map(on_circle).collect::<Vec<_>>(), 300);
    npy(&queries, "<f4", 2, &[20, 100].into_iter().flat_map(on_circle).collect::<Vec<_>>(), 2);
    let near = |row: i32| (row - 4..row + 6).flat_map(i32::to_le_bytes);
    npy(&truth, "<i4", 10, &near(20).chain(near(250)).collect::<Vec<_>>(), 2);
    let words = ["bench", "throughput", "--only", "pattern_search", "--quick", "--seconds", "0.01"];
    let files = ["--vectors", &vectors, "--queries", &queries, "--truth", &truth];
    let words: Vec<_> = words.into_iter().chain(files).chain(["--json", "--out", &out]).collect();
    let (code, printed, err) = program(&words);
    assert_eq!(code, 0, "{err}");
    let result = &json(&printed)["results"][0];
    assert_eq!((&result["vectors"], &result["dimensions"]), (&300.into(), &2.into()), "{result}");
    let last = result["curve_reranked"].as_array().and_then(|points| points.last()).unwrap();
    let recall = last["recall"].as_f64().unwrap();
    assert!((0.4..=0.5).contains(&recall), "half of the truth is true: {last}");

    npy(&truth, "<i4", 10, &near(20).chain(near(299)).collect::<Vec<_>>(), 2);
    let (code, _, err) = program(&words);
    assert_eq!(code, 2);
    assert!(err.contains("t.npy: row 1: does not name 10 of the 300 vectors"), "{err}");
}

/// Before anything is measured, but for what only reading all of a file tells.
#[test]
fn files_that_are_no_vectors_to_measure_are_wrong_usage() {
    let scratch = Scratch::new("wrong-vectors");
    let out = scratch.path("out");
    let ones = |count: usize| 1.0_f32.to_le_bytes().repeat(count);
    let path = |name: &str| scratch.path(name);
    npy(&path("well"), "<f4", 4, &ones(80), 20);
    npy(&path("torn"), "<f4", 4, &ones(79), 20);
    npy(&path("few"), "<f4", 4, &ones(36), 9);
    npy(&path("narrow"), "<f4", 3, &ones(60), 20);
    npy(&path("none"), "<f4", 4, &[], 0);
    npy(&path("wide"), "<f4", 5000, &ones(50_000), 10);
    npy(&path("double"), "<f8", 4, &ones(160), 20);
    npy(&path("integers"), "<i4", 4, &ones(80), 20);
    npy(&path("truth"), "<i4", 10, &ones(100), 10);
    npy(&path("thin"), "<i4", 9, &ones(180), 20);
    let mut spoilt = ones(80);
    spoilt[52..56].copy_from_slice(&f32::NAN.to_le_bytes());
    npy(&path("spoilt"), "<f4", 4, &spoilt, 20);
    let mut zero = ones(80);
    zero[64..].fill(0);
    npy(&path("zero"), "<f4", 4, &zero, 20);
    fs::write(path("text"), "1,2,3\n").unwrap();
    fs::create_dir(path("folder")).unwrap();
    for (files, problem) in [
        (&["missing"][..], "missing: No such file"),
        (&["folder"], "folder: is a folder"),
        (&["text"], "text: is no NumPy array"),
        (&["torn"], "torn: its head tells of 20 rows of 16 bytes, and it has 19 of them"),
        (&["double"], "double: its numbers are \"<f8\"; float16 and float32"),
        (&["integers"], "integers: holds integers, not the float16 or float32 of vectors"),
        (&["few"], "few: has 9 vectors, and at least 10"),
        (&["wide"], "wide: has rows of 5000 numbers: option dimensions must be 1 to 4096"),
        (&["well", "missing"], "missing: No such file"),
        (&["well", "narrow"], "narrow: has queries of 3 numbers, and the vectors have 4"),
        (&["well", "none"], "none: has no query"),
        (&["well", "integers"], "integers: holds integers"),
        (&["well", "well", "missing"], "missing: No such file"),
        (&["well", "well", "well"], "well: holds floats, not the integers of rows"),
        (&["well", "well", "truth"], "truth: has 10 rows of 10 numbers, and one of at least 10"),
        (&["well", "well", "thin"], "thin: has 20 rows of 9 numbers"),
        (&["spoilt"], "spoilt: row 3: component 1 of the vector is not finite"),
        (&["well", "zero"], "zero: row 4: the vector is zero, which has no cosine"),
    ] {
        let paths: Vec<String> = files.iter().map(|name| path(name)).collect();
        let words = ["bench", "memory", "--quick", "--out", &out];
        let options = ["--vectors", "--queries", "--truth"].into_iter().zip(&paths);
        let options = options.flat_map(|(option, path)| [option, path]);
        let (code, _, err) = program(&words.into_iter().chain(options).collect::<Vec<_>>());
        assert_eq!(code, 2, "{files:?}: {err}");
        assert!(err.contains(problem), "{files:?}: {err}");
        let is_read_first = !problem.contains("row ");
        assert_eq!(err.contains("measuring"), !is_read_first, "{files:?}: {err}");
        assert!(!Path::new(&out).exists(), "{files:?}: there is a report");
    }
}
