//! What the room promises about tuning files, each promise a test.

mod agents;
mod nodes;
mod refusals;
mod secrets;

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::key::{Key, Section};
use super::table::{AGENT, NODE, SECTIONS, values};
use super::*;

const FILES: [&str; 5] =
    ["cluster-3.toml", "cluster-4-pbft.toml", "default.toml", "latency.toml", "throughput.toml"];

fn tuning(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(name)
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "t.toml", &[])
}

fn valid(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The errors of a text as a user reads them.
fn refusals(text: &str) -> Vec<String> {
    let errors = parse(text).expect_err("the text is refused");
    errors.0.iter().map(ToString::to_string).collect()
}

/// The only error of a text.
fn refusal(text: &str) -> String {
    let all = refusals(text);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

fn overridden(text: &str, overrides: &[&str]) -> Result<Config, ConfigErrors> {
    let overrides: Vec<_> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Config::parse(text, "t.toml", &overrides)
}

fn override_refusal(overrides: &[&str]) -> String {
    overridden("", overrides).expect_err("the override is refused").to_string()
}

fn every_key() -> impl Iterator<Item = (&'static Section, &'static Key)> {
    let sections = SECTIONS.iter().chain([&AGENT, &NODE]);
    sections.flat_map(|section| section.keys.iter().map(move |key| (section, key)))
}

mod files {
    use super::*;

    /// The comment above each first assignment of a key, as one line. Sections and assignments that
    /// are commented out count as well.
    fn comments(text: &str) -> Vec<(String, String)> {
        let (mut section, mut block, mut found) = (String::new(), String::new(), Vec::new());
        for line in text.lines() {
            let body = line.trim_start_matches("# ");
            let key = body.split_once(" = ").map(|(key, _)| key);
            let key = key.filter(|key| every_key().any(|(_, known)| known.name == *key));
            let is_head = line.starts_with('[') || line.starts_with("# [[");
            if let Some(name) = body.strip_prefix('[').filter(|_| is_head) {
                section = name.trim_matches(['[', ']']).to_owned();
                block.clear();
            } else if let Some(key) = key {
                found.push((format!("{section}.{key}"), std::mem::take(&mut block)));
            } else if line.starts_with('#') {
                block.push_str(body);
                block.push(' ');
            } else {
                block.clear();
            }
        }
        found
    }

    #[test]
    fn every_key_stands_in_every_file_with_its_meaning_range_and_cost() {
        for file in FILES {
            let text = std::fs::read_to_string(tuning(file)).expect("the file is there");
            let comments = comments(&text);
            for (section, key) in every_key() {
                let path = format!("{}.{}", section.name, key.name);
                let comment = comments.iter().find(|(found, _)| *found == path);
                let (_, comment) = comment.unwrap_or_else(|| panic!("{file} lacks {path}"));
                let range = format!("Range: {}.", key.rule.allowed());
                for sentence in [key.meaning, &range, &format!("Cost: {}", key.cost)] {
                    assert!(comment.contains(sentence), "{file}: {path}: {sentence:?} is missing");
                }
            }
        }
    }

    #[test]
    fn every_file_is_valid_so_no_file_has_a_key_that_the_table_lacks() {
        for file in FILES {
            Config::load(&tuning(file), &[]).unwrap_or_else(|errors| panic!("{errors}"));
        }
    }

    #[test]
    fn the_default_file_is_the_default_configuration() {
        let loaded = Config::load(&tuning("default.toml"), &[]).expect("valid");
        assert_eq!(loaded, Config::default());
    }

    #[test]
    fn the_other_files_differ_from_the_default_where_they_say_so() {
        let latency = Config::load(&tuning("latency.toml"), &[]).expect("valid");
        assert_eq!(latency.runtime.spin, Spin::Forever);
        let throughput = Config::load(&tuning("throughput.toml"), &[]).expect("valid");
        assert!(throughput.mesh.batch_messages > Config::default().mesh.batch_messages);
        for file in FILES {
            let text = std::fs::read_to_string(tuning(file)).expect("the file is there");
            let marked = text.matches("# Here: ").count();
            let config = valid(&text);
            let defaults = values(&Config::default()).concat();
            let pairs = values(&config).concat().into_iter().zip(defaults);
            let changed = pairs.filter(|(here, there)| here != there).count();
            assert_eq!(marked, changed, "{file}: each changed value says why");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
        let error = Config::load(Path::new("/nowhere/t.toml"), &[]).expect_err("not there");
        assert!(error.to_string().starts_with("/nowhere/t.toml: cannot be read: "), "{error}");
        // A device that never ends must not fill the memory.
        let error = Config::load(Path::new("/dev/zero"), &[]).expect_err("endless");
        assert!(error.to_string().contains("larger than 1048576 bytes"), "{error}");
    }
}

mod values {
    use super::*;

    #[test]
    fn an_empty_file_has_the_documented_defaults() {
        let config = valid("");
        assert_eq!(config.cores, Cores { workers: CoreSet::Auto, raft: CoreSet::Auto });
        assert_eq!(config.runtime.spin, Spin::Micros(50));
        assert_eq!(config.mesh.batch_messages, 100);
        assert_eq!(config.mesh.batch_timeout_us, 10_000);
        assert_eq!(config.tasks.queue_primary + config.tasks.queue_overflow, 11_000);
        assert_eq!(config.server.rpc_address.to_string(), "127.0.0.1:7450");
        let names: Vec<_> = config.agent.iter().map(|agent| agent.name.as_str()).collect();
        assert_eq!(names, ["echo", "sleep", "sha256"]);
    }

    #[test]
    fn written_values_replace_defaults_and_leave_the_rest() {
        let config = valid(
            "[cores]\nworkers = [0, 1, 2]\nraft = [3]\n[runtime]\nspin_us = \"forever\"\n\
             [mesh]\nring_batches = 1_024\nbatch_bytes = 0x1000\n[server]\nrpc_address = \"[::1]:0\"",
        );
        assert_eq!(config.cores.workers, CoreSet::List(vec![0, 1, 2]));
        assert_eq!(config.cores.raft, CoreSet::List(vec![3]));
        assert_eq!(config.runtime.spin, Spin::Forever);
        assert_eq!((config.mesh.ring_batches, config.mesh.batch_bytes), (1024, 4096));
        assert_eq!(config.server.rpc_address.to_string(), "[::1]:0");
        assert_eq!(config.tasks, Config::default().tasks);
    }

    #[test]
    fn every_default_obeys_its_rule() {
        for (section, key) in every_key() {
            if let Some(value) = key.default.value() {
                key.rule.check(&value).unwrap_or_else(|problem| {
                    panic!("{}.{}: {problem}", section.name, key.name);
                });
            }
        }
    }

    #[test]
    fn values_at_the_edge_of_their_range_are_allowed_and_beyond_it_refused() {
        for (section, key) in every_key() {
            let (super::super::key::Rule::Integer { min, max, .. }
            | super::super::key::Rule::PowerOfTwo { min, max, .. }) = key.rule
            else {
                continue;
            };
            let check = |number: i128| key.rule.check(&super::super::key::Value::Integer(number));
            let path = format!("{}.{}", section.name, key.name);
            assert_eq!(check(min.into()), Ok(()), "{path}");
            assert_eq!(check(max.into()), Ok(()), "{path}");
            assert!(check(i128::from(min) - 1).is_err(), "{path}");
            assert!(check(i128::from(max) + 1).is_err(), "{path}");
        }
    }

    #[test]
    fn pattern_memory_lies_in_the_folder_of_the_log_or_where_it_is_told() {
        let folder = |text: &str| valid(text).memory_folder();
        assert_eq!(folder("[log]\nfolder = \"data-1\""), Path::new("data-1/memory"));
        assert_eq!(folder("[memory]\nfolder = \"/srv/m\""), Path::new("/srv/m"));
        let config = valid("[memory]\nembedder = \"exec\"\nembedder_command = [\"e\", \"x\"]");
        assert_eq!(config.memory.embedder, Embedder::Exec);
        assert_eq!(config.memory.embedder_command, ["e", "x"]);
        assert_eq!(Config::default().memory.embedder, Embedder::Lexical);
    }

    #[test]
    fn the_machine_needs_grow_with_the_executors() {
        let config = valid("[runtime]\nio_memory_kib = 65\n[server]\nmax_connections = 10");
        // 65 KiB is rounded up to 17 pages, registered with three rings.
        assert_eq!(config.locked_memory_bytes(2), 2 * 3 * 17 * 4096);
        assert_eq!(config.open_files(2) - config.open_files(1), 42);
        let exec = "[[agent]]\ntype = \"a\"\nkind = \"exec\"\nmax = 7\ncommand = [\"a\"]";
        assert_eq!(valid(exec).open_files(1), Config::default().open_files(1) + 21);
    }
}

mod overrides {
    use super::*;

    #[test]
    fn an_override_beats_the_file_and_the_last_one_beats_the_others() {
        let text = "[tasks]\nmax_attempts = 2";
        let config = overridden(text, &["tasks.max_attempts=4", "tasks.max_attempts = 5"]);
        assert_eq!(config.expect("valid").tasks.max_attempts, 5);
    }

    #[test]
    fn values_are_toml_and_bare_words_are_strings() {
        let config = overridden(
            "",
            &[
                "cores.workers=[0, 1]",
                "runtime.spin_us=forever",
                "server.rpc_address=127.0.0.1:9000",
                "server.http_address=\"[::1]:9001\"",
                "mesh.batch_bytes=0x2000",
            ],
        )
        .expect("valid");
        assert_eq!(config.cores.workers, CoreSet::List(vec![0, 1]));
        assert_eq!(config.runtime.spin, Spin::Forever);
        assert_eq!(config.server.rpc_address.port(), 9000);
        assert_eq!(config.server.http_address.port(), 9001);
        assert_eq!(config.mesh.batch_bytes, 8192);
    }

    #[test]
    fn an_agent_type_is_overridden_by_its_name() {
        let text = "[[agent]]\ntype = \"a\"\nkind = \"exec\"\ncommand = [\"a\"]";
        let config = overridden(text, &["agent.a.max=7", "agent.a.command=[\"b\"]"]);
        let agent = &config.expect("valid").agent[0];
        assert_eq!(agent.max, 7);
        assert_eq!(agent.kind, AgentKind::Exec { command: vec!["b".to_owned()] });
        let config = overridden("", &["agent.echo.max=8"]).expect("valid");
        assert_eq!((config.agent[0].max, config.agent[1].max), (8, 60));
    }

    #[test]
    fn errors_name_the_override() {
        assert_eq!(
            override_refusal(&["tasks.max_attempts=0"]),
            "--set tasks.max_attempts: 0 is too small; allowed: 1 to 1000 attempts"
        );
        assert!(override_refusal(&["task.retained=0"]).contains("did you mean \"tasks\"?"));
        assert!(override_refusal(&["tasks.retaned=0"]).contains("did you mean \"retained\"?"));
        assert!(override_refusal(&["agent.ecko.max=5"]).contains("did you mean \"echo\"?"));
        assert!(override_refusal(&["agent.echo.maxx=5"]).contains("did you mean \"max\"?"));
        assert!(override_refusal(&["tasks.retained"]).contains("must be section.key=value"));
        assert!(override_refusal(&["retained=5"]).contains("must be section.key=value"));
        assert!(override_refusal(&["agent.max=5"]).contains("agent.TYPE.key=value"));
        assert!(override_refusal(&["tasks.retained="]).contains("must be an integer"));
    }

    #[test]
    fn an_override_that_contradicts_the_file_is_the_one_that_is_blamed() {
        let error =
            overridden("[server]\nmax_frame_bytes = 4194304", &["mesh.batch_bytes=8388608"]);
        let error = error.expect_err("refused").to_string();
        assert!(error.starts_with("--set mesh.batch_bytes: a batch of 8388608"), "{error}");
        let error = override_refusal(&["agent.echo.max=2"]);
        assert!(error.starts_with("--set agent.echo.max: min is 5 and max is 2"), "{error}");
    }

    #[test]
    fn a_corrected_override_hides_the_value_that_it_replaces() {
        let text = "[mesh]\nbatch_bytes = 8_388_608";
        assert!(overridden(text, &["mesh.batch_bytes=65536"]).is_ok());
    }
}

mod printing {
    use super::*;

    #[test]
    fn what_is_printed_parses_to_the_same_configuration() {
        let exec =
            "[[agent]]\ntype = \"a\"\nkind = \"exec\"\ncommand = [\"a \\\" b\", \"\\n'\\\\\"]";
        let cores = "[cores]\nworkers = [2, 0]\nraft = [1]\n[runtime]\nspin_us = \"forever\"";
        let cluster = "[cluster]\nnode = 7\nstart = \"join\"\nsecret_file = \"a b\"\n\
                       [[node]]\nid = 7\npeers = \"[::1]:1\"\nrpc = \"127.0.0.1:2\"\n\
                       http = \"127.0.0.1:3\"";
        let memory = "[memory]\nmetric = \"dot\"\nfolder = \"a\"\nembedder = \"exec\"\n\
                      embedder_command = [\"python3\", \"embed.py\"]";
        for text in ["", "agent = []", exec, cores, cluster, memory] {
            let config = valid(text);
            assert_eq!(valid(&config.print_toml()), config, "{text}");
        }
    }

    #[test]
    fn no_printed_line_is_wider_than_a_screen() {
        for line in Config::default().print_toml().lines() {
            assert!(line.len() <= 100, "{line}");
        }
    }

    #[test]
    fn json_has_the_keys_and_values_of_the_file() {
        let config = valid("[runtime]\nspin_us = 7\n[cores]\nworkers = [1]");
        let mut bytes = config.print_json().into_bytes();
        let value = simd_json::to_owned_value(&mut bytes).expect("valid JSON");
        assert_eq!(value["runtime"]["spin_us"], 7);
        assert_eq!(value["cores"]["workers"][0], 1);
        assert_eq!(value["cores"]["raft"], "auto");
        assert_eq!(value["agent"][0]["type"], "echo");
        assert_eq!(value["node"], simd_json::json!([]));
    }

    #[test]
    fn the_hash_tells_values_apart_and_not_comments_or_order() {
        let hash = Config::default().hash();
        assert_eq!(hash.len(), 16);
        assert!(hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(valid("# other words\n[server]\n[mesh]\nring_batches = 64").hash(), hash);
        assert_ne!(valid("[mesh]\nring_batches = 128").hash(), hash);
        assert_ne!(valid("agent = []").hash(), hash);
        let node = "[[node]]\nid = 1\npeers = \"[::1]:1\"\nrpc = \"[::1]:2\"\nhttp = ";
        let hashes = ["3", "4"].map(|port| valid(&format!("{node}\"[::1]:{port}\"")).hash());
        assert!(hashes[0] != hash && hashes[1] != hash && hashes[0] != hashes[1]);
    }
}

mod junk {
    use super::*;

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_and_never_panics(text in ".{0,400}") {
            let _ = parse(&text);
        }

        #[test]
        fn almost_tuning_text_is_parsed_or_refused_and_never_panics(
            lines in proptest::collection::vec(
                "(\\[{1,2}(mesh|cores|agent|node|cluster|server|tasks)\\]{1,2}|\
                 (type|kind|min|max|id|peers|rpc|http|node|command|workers|ring_batches|rpc_address|spin_us) = \
                 (-?[0-9]{1,40}|\"(echo|exec|auto|[a-z:0-9.]{0,12})\"|\\[[0-9,\"a ]{0,8}\\]|\\{\\}|))",
                0..20,
            ),
            overrides in proptest::collection::vec("[a-z_.]{0,20}=?[a-z0-9\\[\\]\"]{0,8}", 0..3),
        ) {
            let text = lines.join("\n");
            match Config::parse(&text, "junk", &overrides) {
                Ok(config) => prop_assert_eq!(valid(&config.print_toml()), config),
                Err(errors) => prop_assert!(!errors.0.is_empty()),
            }
        }
    }
}
