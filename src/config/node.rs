//! `[[node]]` entries: from the values of one entry to a [`NodeEntry`], and back.

use super::entry::{Draft, List, Trouble};
use super::key::{Field, Value};
use super::model::NodeEntry;
use super::table::NODE;

/// The list of the cluster's nodes.
pub(super) static LIST: List = List {
    section: &NODE,
    id: "id",
    id_word: "ID",
    noun: "nodes",
    unknown: "no node has the number",
    unique: &["id", "peers", "rpc", "http"],
    once: "numbers and addresses that no other entry has",
    entries_max: 16,
    defaults: Vec::new,
};

/// Joins the allowed values of an entry, or says which are missing; nothing when a value was
/// refused before.
pub(super) fn build(draft: &Draft) -> Result<NodeEntry, Vec<Trouble>> {
    let entry = || {
        Some(NodeEntry {
            id: draft.field("id")?,
            peers: draft.field("peers")?,
            rpc: draft.field("rpc")?,
            http: draft.field("http")?,
        })
    };
    entry().ok_or_else(|| draft.missing(NODE.keys.iter()))
}

/// The values of an entry in the order of the table.
pub(super) fn values(node: &NodeEntry) -> Vec<Option<Value>> {
    let NodeEntry { id, peers, rpc, http } = node;
    [id.to_value(), peers.to_value(), rpc.to_value(), http.to_value()].map(Some).into()
}
