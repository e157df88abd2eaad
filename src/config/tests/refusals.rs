//! What is refused, with the sentence that a user reads.

use super::*;

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_key() {
    assert_eq!(
        refusal("[mesh]\n\n# a comment\nring_batchs = 64"),
        "t.toml:4: mesh.ring_batchs: no such key; did you mean \"ring_batches\"?"
    );
    assert_eq!(
        refusal("[mesh]\ntimeout_ms = 5"),
        "t.toml:2: mesh.timeout_ms: no such key; did you mean tasks.timeout_ms?"
    );
    assert!(refusal("[cores]\ncolour = 1").ends_with("no such key; allowed: workers, raft"));
}

#[test]
fn an_unknown_section_names_the_nearest_section() {
    assert_eq!(
        refusal("[serve]\n"),
        "t.toml:1: serve: no section is called \"serve\"; did you mean \"server\"?"
    );
    assert!(refusal("\nring_depth = 64").contains("the key belongs to [runtime]"));
    assert!(refusal("[colour]").contains("allowed: cores, runtime, mesh, agents, tasks"));
}

#[test]
fn a_value_out_of_range_tells_the_range() {
    assert_eq!(
        refusal("[tasks]\nmax_attempts = 0"),
        "t.toml:2: tasks.max_attempts: 0 is too small; allowed: 1 to 1000 attempts"
    );
    assert!(refusal("[tasks]\nmax_attempts = -3").contains("-3 is too small"));
    assert!(refusal("[tasks]\nmax_attempts = 1001").contains("1001 is too large"));
    let huge = "9".repeat(60);
    assert!(refusal(&format!("[tasks]\nmax_attempts = {huge}")).contains("38 digits"));
}

#[test]
fn a_value_of_a_wrong_type_tells_the_right_one() {
    let problem = |text: &str| refusal(&format!("[runtime]\n{text}"));
    assert_eq!(
        problem("poll_io_us = \"50\""),
        "t.toml:2: runtime.poll_io_us: must be an integer, not a string; \
         allowed: 1 to 10000 microseconds"
    );
    assert!(problem("poll_io_us = 0.5").contains("not a number with a fraction"));
    assert!(problem("poll_io_us = true").contains("not true or false"));
    assert!(problem("poll_io_us = [50]").contains("not a list"));
    assert!(problem("poll_io_us = { a = 1 }").contains("not a section"));
    assert!(problem("poll_io_us = 2026-01-01").contains("not a date"));
    assert!(problem("poll_io_us = [1, true]").contains("not a list of other values"));
}

#[test]
fn a_ring_that_is_no_power_of_two_tells_its_neighbours() {
    assert_eq!(
        refusal("[mesh]\nring_batches = 100"),
        "t.toml:2: mesh.ring_batches: 100 is not a power of two (64 and 128 are the nearest); \
         allowed: 2 to 65536 batches, a power of two"
    );
    assert!(refusal("[runtime]\nring_depth = 100").contains("not a power of two"));
}

#[test]
fn spin_is_a_number_or_forever() {
    assert!(refusal("[runtime]\nspin_us = \"for ever\"").contains("mean \"forever\"?"));
    assert!(refusal("[runtime]\nspin_us = -1").contains("-1 is too small"));
    assert!(refusal("[runtime]\nspin_us = []").contains("an integer or \"forever\""));
}

#[test]
fn core_lists_name_different_cores_that_can_exist() {
    let problem = |value: &str| refusal(&format!("[cores]\nworkers = {value}"));
    assert!(problem("[]").contains("an empty list leaves no core"));
    assert!(problem("[1, 2, 1]").contains("core 1 is listed twice"));
    assert!(problem("[-1]").contains("core -1 does not exist"));
    assert!(problem("[1024]").contains("core 1024 does not exist"));
    assert!(problem("[\"0\"]").contains("a core is an integer, not a string"));
    assert!(problem("\"all\"").contains("\"all\" is not known"));
    assert!(problem("3").contains("must be \"auto\" or a list of integers"));
}

#[test]
fn a_core_in_both_groups_is_refused() {
    let text = "[cores]\nworkers = [0, 1]\nraft = [1]";
    assert!(refusal(text).starts_with("t.toml:3: cores.raft: core 1 is in cores.workers and"));
    valid("[cores]\nworkers = [0, 1]\nraft = \"auto\"");
}

#[test]
fn an_address_that_others_can_reach_needs_a_token() {
    let problem = |value: &str| refusal(&format!("[server]\nrpc_address = {value}"));
    assert_eq!(
        problem("\"0.0.0.0:7450\""),
        "t.toml:2: server.rpc_address: 0.0.0.0:7450 can be reached from other machines; allowed: a \
         loopback address, or any together with server.token_file"
    );
    assert!(problem("\"[::]:7450\"").contains("together with server.token_file"));
    assert!(refusal("[server]\nhttp_address = \"10.0.0.1:1\"").contains("server.token_file"));
    assert!(problem("\"localhost:7450\"").contains("is not an IP address with a port"));
    assert!(problem("\"127.0.0.1\"").contains("is not an IP address with a port"));
    assert!(problem("7450").contains("must be a string"));
    let open = "[server]\ntoken_file = \"t\"\nrpc_address = \"0.0.0.0:7450\"";
    assert_eq!(valid(open).server.token_file.as_deref(), Some("t"));
    let error = overridden(open, &["server.token_file="]).expect_err("refused").to_string();
    assert!(error.starts_with("--set server.token_file: 0.0.0.0:7450 can be reached"), "{error}");
}

#[test]
fn a_folder_is_a_path_that_can_be_opened() {
    let problem = |value: &str| refusal(&format!("[log]\nfolder = {value}"));
    assert!(problem("\"\"").contains("the path is empty; allowed: a path of 1 to 4095 bytes"));
    assert!(problem("\"a\\u0000b\"").contains("the path holds a zero byte"));
    assert!(problem(&format!("\"{}\"", "a".repeat(4096))).contains("4096 bytes is too long"));
    assert!(problem("5").contains("must be a string"));
    assert_eq!(valid("[log]\nfolder = \"/srv/a b\"").log.folder, "/srv/a b");
    let config = valid("[log]\nrealtime = \"off\"");
    assert_eq!(config.log.realtime, Realtime::Off);
    assert_eq!(valid(&config.print_toml()), config);
    assert!(refusal("[log]\nrealtime = \"of\"").contains("did you mean \"off\"?"));
}

#[test]
fn values_that_contradict_each_other_are_refused_at_the_key_that_was_written() {
    let blamed = |text: &str| refusal(text).split(": ").nth(1).unwrap_or_default().to_owned();
    assert_eq!(blamed("[mesh]\nbatch_bytes = 2048"), "mesh.batch_bytes");
    assert_eq!(blamed("[mesh]\nshared_payload_bytes = 100_000"), "mesh.shared_payload_bytes");
    assert_eq!(blamed("[mesh]\nbatch_bytes = 8_388_608"), "mesh.batch_bytes");
    assert_eq!(blamed("[tasks]\nmax_payload_bytes = 4_194_304"), "tasks.max_payload_bytes");
    assert_eq!(blamed("[tasks]\nretained_bytes = 4096"), "tasks.retained_bytes");
    assert_eq!(blamed("[server]\nwrite_buffer_bytes = 65536"), "server.write_buffer_bytes");
    assert_eq!(blamed("[server]\nmax_frame_bytes = 16_777_216"), "server.max_frame_bytes");
    assert_eq!(blamed("[server]\nhttp_address = \"127.0.0.1:7450\""), "server.http_address");
    assert_eq!(blamed("[log]\nsegment_mib = 5"), "log.segment_mib");
    assert_eq!(blamed("[log]\nblock_kib = 16_385"), "log.block_kib");
    assert_eq!(blamed("[log]\nkeep_mib = 255"), "log.keep_mib");
    assert_eq!(blamed("[log]\nsegment_mib = 129"), "log.segment_mib");
    assert_eq!(blamed("[memory]\nembedder = \"exec\""), "memory.embedder");
    assert_eq!(blamed("[memory]\nembedder_command = [\"a\"]"), "memory.embedder_command");
    assert_eq!(blamed("[gossip]\ninterval_ms = 161"), "gossip.interval_ms");
    assert_eq!(blamed("[gossip]\nsuspicion_ms = 499"), "gossip.suspicion_ms");
    assert_eq!(blamed("[gossip]\nreconcile_ms = 499"), "gossip.reconcile_ms");
    valid("[gossip]\ninterval_ms = 1000\nsuspicion_ms = 5000\nreconcile_ms = 5000");
    valid("[log]\nsegment_mib = 6\nkeep_mib = 24\nblock_kib = 1536");
    let crowded = "[cores]\nworkers = [0]\n[agents]\nmax_per_core = 10";
    assert_eq!(blamed(crowded), "agents.max_per_core");
    valid("[server]\nrpc_address = \"127.0.0.1:0\"\nhttp_address = \"127.0.0.1:0\"");
}

#[test]
fn a_refused_value_is_not_refused_again_by_its_relations() {
    let all = refusals("[mesh]\nbatch_bytes = 1\n[server]\nmax_frame_bytes = 4096");
    // The frame contradicts the payload, but the batch that was refused is not judged again.
    assert!(all.iter().all(|error| !error.contains("mesh.batch_bytes)")), "{all:?}");
}

#[test]
fn all_errors_are_reported_in_the_order_of_their_lines() {
    let all = refusals(
        "[tasks]\nmax_attempts = 0\nretaned = 1\n[mesh]\nring_batches = 3\n[nosuch]\n\
         [[agent]]\ntype = \"echo\"\nkind = \"builtin\"\nmin = 9\nmax = 2\n",
    );
    let lines: Vec<_> = all.iter().map(|error| error.split(':').nth(1)).collect();
    assert_eq!(lines, [Some("2"), Some("3"), Some("5"), Some("6"), Some("10")], "{all:?}");
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_line_and_the_rest_still_checked() {
    let all = refusals("[mesh]\nring_batches = \n[tasks]\nmax_attempts = 0\n");
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[0].starts_with("t.toml:2: "), "{all:?}");
    assert!(all[1].starts_with("t.toml:4: tasks.max_attempts"), "{all:?}");
    assert!(refusal("[mesh]\nring_batches = 64\nring_batches = 64").starts_with("t.toml:3: "));
}

#[test]
fn sections_and_entries_of_the_wrong_shape_are_refused() {
    assert!(refusal("mesh = 5").contains("must be a section, written [mesh]"));
    assert!(refusal("[[mesh]]").contains("must be a section, written [mesh]"));
    assert!(refusal("[agent]").contains("each written [[agent]]"));
    assert!(refusal("agent = [5]").contains("agent[0]: must be an entry"));
    let many = "[[agent]]\n".repeat(1025);
    assert!(refusal(&many).contains("lists 1025 types; allowed: 1024"));
}
