//! What the memory answers, as MessagePack maps.

use super::{Stored, vector};
use crate::{
    server::reply,
    wire::{
        api::Error,
        memory::{MemoryHit, MemoryItem, MemoryPage, MemoryPartition, MemoryStats},
        msgpack::write,
    },
};

/// An answer.
#[derive(Debug)]
pub enum MemoryReply {
    /// `{key, replaced}`
    Stored {
        /// The item's name.
        key: String,
        /// Whether it replaced another.
        replaced: bool,
    },
    /// `{results}`: of each item `{key, replaced}` or `{error}`
    StoredBatch(Vec<Result<Stored, Error>>),
    /// `{key, namespace, text?, vector?, metadata}`
    Item {
        /// The item.
        item: MemoryItem,
        /// Whether its vector is shown.
        with_vector: bool,
    },
    /// `{hits}`
    Hits(Vec<MemoryHit>),
    /// `{deleted}`
    Deleted(bool),
    /// `{items, cursor?}`
    Page(MemoryPage),
    /// The memory's figures.
    Stats {
        /// What they are.
        stats: MemoryStats,
        /// What makes vectors of texts.
        embedder: &'static str,
    },
}

impl MemoryReply {
    /// Appends the answer's map.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stored { key, replaced } => stored(out, key, *replaced),
            Self::StoredBatch(outcomes) => {
                write::map(out, 1);
                write::str(out, "results");
                write::array(out, outcomes.len());
                for outcome in outcomes {
                    match outcome {
                        Ok((key, replaced)) => stored(out, key, *replaced),
                        Err(error) => {
                            write::map(out, 1);
                            write::str(out, "error");
                            reply::error(out, error);
                        }
                    }
                }
            }
            Self::Item { item: it, with_vector } => item(out, it, *with_vector),
            Self::Hits(hits) => {
                write::map(out, 1);
                write::str(out, "hits");
                write::array(out, hits.len());
                hits.iter().for_each(|it| hit(out, it));
            }
            Self::Deleted(deleted) => {
                write::map(out, 1);
                write::str(out, "deleted");
                write::bool(out, *deleted);
            }
            Self::Page(page) => {
                write::map(out, 1 + usize::from(page.cursor.is_some()));
                write::str(out, "items");
                write::array(out, page.items.len());
                page.items.iter().for_each(|it| item(out, it, false));
                if let Some(cursor) = &page.cursor {
                    text(out, "cursor", cursor);
                }
            }
            Self::Stats { stats: it, embedder } => stats(out, it, embedder),
        }
    }
}

/// Appends what an item answers that was stored.
pub fn stored(out: &mut Vec<u8>, key: &str, replaced: bool) {
    write::map(out, 2);
    text(out, "key", key);
    write::str(out, "replaced");
    write::bool(out, replaced);
}

fn item(out: &mut Vec<u8>, item: &MemoryItem, with_vector: bool) {
    write::map(out, 3 + usize::from(item.text.is_some()) + usize::from(with_vector));
    text(out, "key", &item.key);
    text(out, "namespace", &item.namespace);
    if let Some(it) = &item.text {
        text(out, "text", it);
    }
    if with_vector {
        write::str(out, "vector");
        vector::write(out, &item.vector);
    }
    metadata(out, &item.metadata);
}

fn hit(out: &mut Vec<u8>, hit: &MemoryHit) {
    write::map(out, 4 + usize::from(hit.text.is_some()));
    text(out, "key", &hit.key);
    text(out, "namespace", &hit.namespace);
    write::str(out, "score");
    write::float(out, hit.score.into());
    if let Some(it) = &hit.text {
        text(out, "text", it);
    }
    metadata(out, &hit.metadata);
}

/// Metadata, an empty map where there are none.
fn metadata(out: &mut Vec<u8>, bytes: &[u8]) {
    write::str(out, "metadata");
    match bytes {
        [] => write::map(out, 0),
        bytes => write::raw(out, bytes),
    }
}

fn stats(out: &mut Vec<u8>, stats: &MemoryStats, embedder: &str) {
    write::map(out, 16 + usize::from(stats.recall.is_some()));
    number(out, "count", stats.count);
    number(out, "dimension", stats.dimension.into());
    text(out, "metric", stats.metric.name());
    text(out, "embedder", embedder);
    write::str(out, "durable");
    write::bool(out, stats.durable);
    number(out, "bytes_resident", stats.bytes_resident);
    number(out, "bytes_on_disk", stats.bytes_on_disk);
    write::str(out, "bytes_per_vector");
    write::float(out, stats.bytes_per_vector);
    write::str(out, "namespaces");
    write::map(out, stats.namespaces.len());
    stats.namespaces.iter().for_each(|(name, count)| number(out, name, *count));
    write::str(out, "partitions");
    write::array(out, stats.partitions.len());
    stats.partitions.iter().for_each(|it| partition(out, it));
    number(out, "damaged_count", stats.damaged_count);
    write::str(out, "damaged");
    write::array(out, stats.damaged.len());
    stats.damaged.iter().for_each(|it| write::str(out, it));
    number(out, "lost_count", stats.lost_count);
    number(out, "lost_unnamed_count", stats.lost_unnamed_count);
    write::str(out, "lost_more");
    write::bool(out, stats.lost_more);
    write::str(out, "lost");
    write::array(out, stats.lost.len());
    stats.lost.iter().for_each(|it| write::str(out, it));
    if let Some(recall) = &stats.recall {
        write::str(out, "recall");
        write::map(out, 4);
        write::str(out, "recall");
        write::float(out, recall.recall);
        number(out, "queries", recall.queries.into());
        number(out, "k", recall.k.into());
        number(out, "ef", recall.ef.into());
    }
}

fn partition(out: &mut Vec<u8>, partition: &MemoryPartition) {
    write::map(out, 5 + usize::from(partition.checkpoint_age_s.is_some()));
    number(out, "count", partition.count);
    number(out, "dead", partition.dead);
    number(out, "bytes_resident", partition.bytes_resident);
    number(out, "bytes_on_disk", partition.bytes_on_disk);
    number(out, "changes_since_checkpoint", partition.changes_since_checkpoint);
    if let Some(age) = partition.checkpoint_age_s {
        number(out, "checkpoint_age_s", age);
    }
}

fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    write::str(out, name);
    write::str(out, value);
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    write::str(out, name);
    write::uint(out, value);
}
