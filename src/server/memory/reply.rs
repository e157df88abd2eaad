//! What the memory answers, as MessagePack maps.

use super::{Stored, vector};
use crate::{
    node::gateway::Gateway,
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
    /// An answer that was written already, in pieces.
    Written(Vec<Vec<u8>>),
}

/// An answer with no more parts and no more bytes in them is written in one go.
const FEW_PARTS: usize = 64;
const FEW_BYTES: usize = 32 << 10;
/// Room of a piece of a long answer: a buffer for all would take long to make and to let go of, and one
/// that grew would be copied.
const PIECE_BYTES: usize = 64 << 10;
/// What a part has at most beside its texts and metadata.
const PART_BYTES: usize = 4 << 10;

impl MemoryReply {
    /// Appends the answer's map.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.begin(out);
        (0..self.parts()).for_each(|place| self.part(out, place));
        self.end(out);
    }

    /// The same reply, written if it is long: in steps, between which others have their turn.
    pub async fn written<G: Gateway>(self, gateway: &G) -> Self {
        if self.parts() <= FEW_PARTS && self.content_bytes() <= FEW_BYTES {
            return self;
        }
        let (mut pieces, mut out) = (Vec::new(), Vec::with_capacity(PIECE_BYTES));
        self.begin(&mut out);
        for place in 0..self.parts() {
            let bytes = self.part_bytes(place) + PART_BYTES;
            if out.len() + bytes > PIECE_BYTES && !out.is_empty() {
                let next = Vec::with_capacity(bytes.max(PIECE_BYTES));
                pieces.push(std::mem::replace(&mut out, next));
            }
            self.part(&mut out, place);
            gateway.breathe().await;
        }
        self.end(&mut out);
        pieces.push(out);
        // Letting go of many is work too.
        match self {
            Self::Hits(hits) => let_go(gateway, hits).await,
            Self::Page(page) => let_go(gateway, page.items).await,
            Self::StoredBatch(outcomes) => let_go(gateway, outcomes).await,
            Self::Stats { stats, .. } => let_go(gateway, stats.namespaces).await,
            _ => {}
        }
        Self::Written(pieces)
    }

    /// What is in front of the parts.
    fn begin(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stored { key, replaced } => stored(out, key, *replaced),
            Self::StoredBatch(outcomes) => list(out, 1, "results", outcomes.len()),
            Self::Item { item: it, with_vector } => item(out, it, *with_vector),
            Self::Hits(hits) => list(out, 1, "hits", hits.len()),
            Self::Deleted(deleted) => {
                write::map(out, 1);
                write::str(out, "deleted");
                write::bool(out, *deleted);
            }
            Self::Page(page) => {
                list(out, 1 + usize::from(page.cursor.is_some()), "items", page.items.len());
            }
            Self::Stats { stats, embedder } => begin_stats(out, stats, embedder),
            Self::Written(pieces) => pieces.iter().for_each(|piece| write::raw(out, piece)),
        }
    }

    /// Parts of which there may be many.
    fn parts(&self) -> usize {
        match self {
            Self::StoredBatch(outcomes) => outcomes.len(),
            Self::Hits(hits) => hits.len(),
            Self::Page(page) => page.items.len(),
            Self::Stats { stats, .. } => stats.namespaces.len(),
            _ => 0,
        }
    }

    fn part(&self, out: &mut Vec<u8>, place: usize) {
        match self {
            Self::StoredBatch(outcomes) => match &outcomes[place] {
                Ok((key, replaced)) => stored(out, key, *replaced),
                Err(error) => {
                    write::map(out, 1);
                    write::str(out, "error");
                    reply::error(out, error);
                }
            },
            Self::Hits(hits) => hit(out, &hits[place]),
            Self::Page(page) => item(out, &page.items[place], false),
            Self::Stats { stats, .. } => {
                let (name, count) = &stats.namespaces[place];
                number(out, name, *count);
            }
            _ => {}
        }
    }

    /// What is behind the parts.
    fn end(&self, out: &mut Vec<u8>) {
        match self {
            Self::Page(MemoryPage { cursor: Some(cursor), .. }) => text(out, "cursor", cursor),
            Self::Stats { stats, .. } => end_stats(out, stats),
            _ => {}
        }
    }

    /// Bytes of the texts and metadata of the parts.
    fn content_bytes(&self) -> usize {
        (0..self.parts()).map(|place| self.part_bytes(place)).sum()
    }

    /// Bytes of the text and metadata of a part.
    fn part_bytes(&self, place: usize) -> usize {
        let bytes = |text: &Option<String>, metadata: &Vec<u8>| {
            text.as_ref().map_or(0, String::len) + metadata.len()
        };
        match self {
            Self::Hits(hits) => bytes(&hits[place].text, &hits[place].metadata),
            Self::Page(page) => bytes(&page.items[place].text, &page.items[place].metadata),
            _ => 0,
        }
    }
}

async fn let_go<G: Gateway, T>(gateway: &G, parts: Vec<T>) {
    for part in parts {
        drop(part);
        gateway.breathe().await;
    }
}

fn list(out: &mut Vec<u8>, fields: usize, name: &str, len: usize) {
    write::map(out, fields);
    write::str(out, name);
    write::array(out, len);
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

fn begin_stats(out: &mut Vec<u8>, stats: &MemoryStats, embedder: &str) {
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
}

fn end_stats(out: &mut Vec<u8>, stats: &MemoryStats) {
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
    write::map(out, 6 + usize::from(partition.checkpoint_age_s.is_some()));
    number(out, "count", partition.count);
    number(out, "dead", partition.dead);
    number(out, "unlinked", partition.unlinked);
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
