//! `[[node]]` entries: from the values of one entry to a [`NodeEntry`], and back.

use super::entry::{Draft, List, Trouble};
use super::key::{Field, Key, Value};
use super::model::NodeEntry;
use super::relations::exposed;
use super::table::NODE;

/// The list of the cluster's nodes.
pub(super) static LIST: List = List {
    section: &NODE,
    id: "id",
    id_word: "ID",
    noun: "nodes",
    unknown: "no node has the number",
    unique: &["id", "peers", "rpc", "http", "public_key"],
    once: "numbers, addresses and keys that no other entry has",
    entries_max: 16,
    defaults: Vec::new,
};

/// What an entry may lack: only some protocols need it.
const KEY: &str = "public_key";

/// Which proofs the configuration asks for.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// Clients must know a token.
    pub token: bool,
    /// Nodes must know a secret.
    pub secret: bool,
}

/// Joins the allowed values of an entry, or says which are missing and which addresses must not be
/// reachable; nothing more about a value that was refused before.
pub(super) fn build(draft: &Draft, asked: Asked) -> Result<NodeEntry, Vec<Trouble>> {
    let needed = |key: &&Key| key.name != KEY;
    let mut troubles = draft.missing(NODE.keys.iter().filter(needed));
    let guards = [
        (&["peers"], "cluster.secret_file", asked.secret),
        (&["rpc"], "server.token_file", asked.token),
        (&["http"], "server.token_file", asked.token),
    ];
    for (keys, guard, _) in guards.into_iter().filter(|(_, _, is_asked)| !is_asked) {
        let problem = draft.field(keys[0]).and_then(|address| exposed(address, guard));
        troubles.extend(problem.map(|problem| Trouble { keys, problem }));
    }
    let entry = || {
        Some(NodeEntry {
            id: draft.field("id")?,
            peers: draft.field("peers")?,
            rpc: draft.field("rpc")?,
            http: draft.field("http")?,
            public_key: draft.field("public_key"),
        })
    };
    entry().filter(|_| troubles.is_empty()).ok_or(troubles)
}

/// The values of an entry in the order of the table.
pub(super) fn values(node: &NodeEntry) -> Vec<Option<Value>> {
    let NodeEntry { id, peers, rpc, http, public_key } = node;
    let given = [id.to_value(), peers.to_value(), rpc.to_value(), http.to_value()];
    given.into_iter().map(Some).chain([public_key.as_ref().map(Field::to_value)]).collect()
}
