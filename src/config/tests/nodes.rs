//! `[cluster]` and `[[node]]`: what is read and what is refused.

use super::*;

/// An entry whose addresses have the ports `10 * id` and the two that follow.
fn entry(id: u64) -> String {
    let port = 10 * id;
    format!(
        "[[node]]\nid = {id}\npeers = \"127.0.0.1:{port}\"\nrpc = \"127.0.0.1:{}\"\n\
         http = \"127.0.0.1:{}\"\n",
        port + 1,
        port + 2
    )
}

fn nodes(ids: std::ops::RangeInclusive<u64>) -> String {
    ids.map(entry).collect()
}

#[test]
fn a_node_is_alone_unless_a_file_says_otherwise() {
    let config = valid("");
    let cluster = Cluster {
        node: 0,
        start: ClusterStart::New,
        partitions: 12,
        tick_ms: 50,
        name: "coreflow".to_owned(),
        secret_file: None,
    };
    assert_eq!((&config.cluster, &config.node), (&cluster, &Vec::new()));
    let Listen { rpc, http, peers } = config.listen();
    assert_eq!((rpc, http), (config.server.rpc_address, config.server.http_address));
    assert_eq!((peers, &*config.listen_key("rpc")), (None, "server.rpc_address"));
    // A list alone makes no member.
    assert_eq!(valid(&nodes(1..=3)).listen(), config.listen());
}

#[test]
fn a_member_listens_where_its_entry_says() {
    let text = nodes(1..=3) + "[cluster]\nstart = \"join\"\nsecret_file = \"s\"\nname = \"a-b\"";
    let config = overridden(&text, &["cluster.node=2", "node.2.rpc=[::1]:99"]).expect("valid");
    assert_eq!(config.cluster.start, ClusterStart::Join);
    assert_eq!(config.cluster.secret_file.as_deref(), Some("s"));
    assert_eq!(config.node.iter().map(|node| node.id).collect::<Vec<_>>(), [1, 2, 3]);
    let at = config.listen();
    assert_eq!(at.rpc.to_string(), "[::1]:99");
    assert_eq!(at.peers.map(|peers| peers.port()), Some(20));
    assert_eq!((at.http.port(), &*config.listen_key("http")), (22, "node.2.http"));
}

#[test]
fn links_to_other_nodes_need_descriptors() {
    let alone = valid(&nodes(1..=3));
    let member = overridden(&nodes(1..=3), &["cluster.node=1"]).expect("valid");
    assert_eq!(member.open_files(2) - alone.open_files(2), 3 * (3 + 2));
}

#[test]
fn a_member_must_be_listed() {
    let error = refusal("[cluster]\nnode = 2");
    assert!(error.starts_with("t.toml:2: cluster.node: no [[node]] has the id 2; "), "{error}");
    assert!(error.ends_with("an id of the list: none"), "{error}");
    let error = overridden(&nodes(1..=3), &["cluster.node=4"]).expect_err("refused").to_string();
    assert!(error.starts_with("--set cluster.node: no [[node]] has the id 4; "), "{error}");
    assert!(error.ends_with("an id of the list: 1, 2, 3"), "{error}");
    // The entry that would be meant is refused, and that is all that is said.
    let broken = "[cluster]\nnode = 1\n".to_owned() + &entry(1).replace(":11", ":x");
    assert!(refusal(&broken).starts_with("t.toml:6: node.1.rpc: \"127.0.0.1:x\" is not an IP"));
}

#[test]
fn seven_nodes_at_most_begin_a_cluster() {
    let begin = |last, overrides: &[&str]| {
        overridden(&nodes(1..=last), &[&["cluster.node=1"], overrides].concat())
    };
    assert!(begin(7, &[]).is_ok());
    let error = begin(8, &[]).expect_err("too many").to_string();
    assert!(error.starts_with("--set cluster.node: 8 nodes cannot begin a cluster"), "{error}");
    assert!(begin(8, &["cluster.start=join"]).is_ok());
    let error = refusal(&nodes(1..=17));
    assert!(error.starts_with("t.toml:1: node: lists 17 nodes; allowed: 16"), "{error}");
}

#[test]
fn addresses_that_others_can_reach_need_proofs() {
    let far =
        "[[node]]\nid = 1\npeers = \"10.0.0.1:1\"\nrpc = \"10.0.0.1:2\"\nhttp = \"[::1]:3\"\n";
    let all = refusals(far);
    assert!(all[0].starts_with("t.toml:3: node.1.peers: 10.0.0.1:1 can be reached"), "{all:?}");
    assert!(all[0].ends_with("or any together with cluster.secret_file"), "{all:?}");
    assert!(all[1].starts_with("t.toml:4: node.1.rpc: 10.0.0.1:2 can be reached"), "{all:?}");
    assert!(all[1].ends_with("or any together with server.token_file"), "{all:?}");
    assert_eq!(all.len(), 2, "{all:?}");
    let guarded = |text: &str| {
        overridden(&(far.to_owned() + text), &["cluster.secret_file=s", "server.token_file=t"])
    };
    assert!(guarded("").is_ok());
    let error = guarded("[server]\nrpc_address = \"0.0.0.0:1\"").map(|config| config.listen().rpc);
    assert_eq!(error.map(|rpc| rpc.to_string()), Ok("0.0.0.0:1".to_owned()));
    // One that listens on every address is no place to go to.
    let error = refusal(&entry(1).replace("127.0.0.1:11", "0.0.0.0:11"));
    assert!(error.contains("node.1.rpc: \"0.0.0.0:11\" stands for every address"), "{error}");
}

#[test]
fn every_key_of_an_entry_must_be_given() {
    let all = refusals("\n[[node]]\nrpc = \"127.0.0.1:1\"");
    let starts = ["node[0].id: must be", "node[0].peers: must be", "node[0].http: must be"];
    for (error, start) in all.iter().zip(starts) {
        assert!(error.starts_with(&format!("t.toml:2: {start}")), "{error}");
    }
    assert_eq!(all.len(), 3, "{all:?}");
    let error = refusal(&(entry(1) + "port = 5"));
    assert!(error.starts_with("t.toml:6: node.1.port: no such key"), "{error}");
}

#[test]
fn ids_and_addresses_are_there_once() {
    let error = refusal(&(entry(1) + &entry(2).replace("id = 2", "id = 1")));
    assert!(
        error.starts_with("t.toml:7: node.1.id: 1 was defined before in line 2; all"),
        "{error}"
    );
    let error = refusal(&(entry(1) + &entry(2).replace(":22", ":11")));
    let twin = "node.2.http: \"127.0.0.1:11\" was defined before in line 4; allowed: numbers, \
                addresses and keys that no other entry has";
    assert_eq!(error, format!("t.toml:10: {twin}"));
    // Two ways to write one address; and the override is the one to blame.
    let error =
        overridden(&entry(1).replace("127.0.0.1:11", "[0:0::1]:9"), &["node.1.http=[::1]:9"]);
    let error = error.expect_err("refused").to_string();
    assert!(
        error.starts_with("--set node.1.http: \"[::1]:9\" was defined before in line 4"),
        "{error}"
    );
    let error = overridden(&nodes(1..=2), &["node.1.id=2"]).expect_err("refused").to_string();
    assert!(error.starts_with("--set node.1.id: "), "{error}");
    assert!(error.contains(": 2 was defined before in line 7; allowed: "), "{error}");
}

#[test]
fn values_of_a_node_are_checked_like_all_others() {
    let problem = |from: &str, to: &str| refusal(&entry(1).replacen(from, to, 1));
    assert!(problem("id = 1", "id = 0").contains("0 is too small; allowed: 1 to 4294967295"));
    assert!(problem("id = 1", "id = \"a\"").contains("must be an integer, not a string"));
    assert!(problem(":10", ":0").contains("has no port that others could know"));
    assert!(problem("127.0.0.1:10", "localhost:10").contains("is not an IP address with a port"));
    assert!(refusal("[cluster]\nname = \"a b\"").contains("' ' may not be part of a name"));
    assert!(refusal("[cluster]\nstart = \"old\"").contains("allowed: \"new\", \"join\""));
    assert!(refusal("node = 2").contains("must be a list of entries, each written [[node]]"));
    assert!(refusal("node = [2]").contains("node[0]: must be an entry, written [[node]]"));
}

#[test]
fn overrides_change_entries_that_are_there() {
    let error = overridden(&nodes(1..=2), &["node.3.rpc=[::1]:9"]).expect_err("refused");
    let text = "--set node.3.rpc: no node has the number \"3\" (did you mean \"1\"?); nodes: 1, 2";
    assert_eq!(error.to_string(), text);
    assert!(override_refusal(&["node.3.rpc=[::1]:9"]).ends_with("number \"3\"; nodes: none"));
    assert!(override_refusal(&["node.rpc=[::1]:9"]).contains("or node.ID.key=value"));
    assert!(override_refusal(&["node.1.rpcs=[::1]:9"]).contains("did you mean \"rpc\"?"));
}

/// Four nodes with keys, of which this is the first.
fn agreeing(list: std::ops::RangeInclusive<u64>) -> String {
    let entry = |id| format!("{}public_key = \"{}\"\n", entry(id), format!("{id:02x}").repeat(32));
    "[consensus]\nprotocol = \"pbft\"\nidentity_file = \"key\"\n[cluster]\nnode = 1\n".to_owned()
        + &list.map(entry).collect::<String>()
}

#[test]
fn four_or_seven_nodes_with_keys_agree_by_pbft() {
    let config = valid(&agreeing(1..=4));
    assert_eq!(config.consensus.protocol, Protocol::Pbft);
    assert_eq!(config.node[2].public_key, Some(PublicKey([3; 32])));
    assert_eq!(valid(&config.print_toml()), config);
    valid(&agreeing(1..=7));
    for wrong in [1..=1, 1..=3, 1..=5, 1..=6] {
        let error = refusal(&agreeing(wrong.clone()));
        let count = wrong.count();
        assert!(
            error.contains(&format!("{count} nodes cannot agree by PBFT; allowed: ")),
            "{error}"
        );
    }
    // A file for all of them says nothing of itself.
    assert!(overridden(&agreeing(1..=3), &["cluster.node=0"]).is_ok());
}

#[test]
fn nodes_that_agree_by_pbft_take_no_more_at_once_than_they_order() {
    let text = agreeing(1..=4);
    let frames = "server.max_frame_bytes=8388608";
    for (key, most) in [("tasks.max_payload_bytes", 2_064_384), ("log.block_kib", 4_096)] {
        let with = |value: u64| overridden(&text, &[frames, &format!("{key}={value}")]);
        assert!(with(most).is_ok(), "{:?}", with(most));
        let error = with(most + 1).expect_err("it is more").to_string();
        let sentence = format!("{key}: nodes that agree by PBFT order less at once");
        assert!(error.contains(&sentence), "{error}");
    }
}

#[test]
fn a_node_that_agrees_by_pbft_needs_keys_and_fixed_members() {
    let text = agreeing(1..=4);
    let error = refusal(&text.replace("identity_file = \"key\"\n", ""));
    assert!(error.contains("consensus.protocol: a node that agrees by PBFT signs"), "{error}");
    let error = refusal(&(text.clone() + "# ").replace(&"03".repeat(32), ""));
    assert!(error.contains("node.3.public_key: \"\" is no public key; allowed: 64"), "{error}");
    let without = text.replace(&format!("public_key = \"{}\"\n", "03".repeat(32)), "");
    let error = refusal(&without);
    assert!(error.contains("consensus.protocol: node 3 has no public_key; allowed: "), "{error}");
    let given = format!("node.3.public_key={}", "0A".repeat(32));
    let config = overridden(&without, &[&given]).expect("an override gives it");
    assert_eq!(config.node[2].public_key, Some(PublicKey([10; 32])));
    let twin = text.replace(&"03".repeat(32), &"04".repeat(32));
    assert!(refusal(&twin).contains("public_key"), "{}", refusal(&twin));
    let error = overridden(&text, &["cluster.start=join"]).expect_err("refused").to_string();
    assert!(
        error.starts_with("--set cluster.start: nodes that agree by PBFT never join"),
        "{error}"
    );
}
