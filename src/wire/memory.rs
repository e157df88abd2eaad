//! The vocabulary of pattern memory: what a door asks of a node, and what its cores answer.
//!
//! Metadata and filters are MessagePack maps with text keys; no bytes stand for none.

use crate::wire::api::Error;
use rkyv::{Archive, Deserialize, Serialize};

/// The namespace of what is stored without one.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The longest key; the shortest has one byte.
pub const KEY_BYTES_MAX: usize = 256;
/// The longest name of a namespace; the shortest has one byte.
pub const NAMESPACE_BYTES_MAX: usize = 64;
/// The most metadata of one item.
pub const METADATA_BYTES_MAX: usize = 64 << 10;
/// The most fields of one item's metadata, those that are in others apart: they are compared with each other.
pub const METADATA_FIELDS_MAX: u32 = 1024;
/// The longest filter of a search: it is held beside many items.
pub const FILTER_BYTES_MAX: usize = 8 << 10;
/// The longest text of one item.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// The most hits of one search.
pub const K_MAX: u32 = 1000;
/// The widest search.
pub const EF_MAX: u32 = 4096;

/// The largest number of a vector, whatever its sign.
pub const COMPONENT_MAX: f32 = 1e17;

/// What near means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Metric {
    /// The angle between two vectors, whatever their lengths; a score is its cosine.
    #[default]
    Cosine,
    /// The distance of two points; a score is the negated distance.
    Euclidean,
    /// The dot product, which is the score: for vectors whose lengths are alike.
    Dot,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cosine, Self::Euclidean, Self::Dot];

    /// The name that users write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Euclidean => "euclidean",
            Self::Dot => "dot",
        }
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }
}

/// What is remembered: a vector under a name, and what its owner wants to find with it.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct MemoryItem {
    /// Its name, which no other item of the namespace has.
    pub key: String,
    /// The namespace that it is in.
    pub namespace: String,
    /// As many numbers as the memory has dimensions; none where a list shows it.
    pub vector: Vec<f32>,
    /// What the vector stands for, as text.
    pub text: Option<String>,
    /// A MessagePack map, or no bytes.
    pub metadata: Vec<u8>,
}

/// What is searched for.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct MemoryQuery {
    /// As many numbers as the memory has dimensions.
    pub vector: Vec<f32>,
    /// Hits at most: 1 to [`K_MAX`].
    pub k: u32,
    /// How widely to look: up to [`EF_MAX`]; `None` for the node's default.
    pub ef: Option<u32>,
    /// Only what is in this namespace; `None` for all.
    pub namespace: Option<String>,
    /// A MessagePack map: only items whose metadata have each of its fields with an equal value. No
    /// bytes for all items.
    pub filter: Vec<u8>,
}

/// One item that a search found.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct MemoryHit {
    /// Its name.
    pub key: String,
    /// The namespace that it is in.
    pub namespace: String,
    /// How near it is: larger is nearer, as the [`Metric`] says.
    pub score: f32,
    /// Its text.
    pub text: Option<String>,
    /// Its metadata.
    pub metadata: Vec<u8>,
}

/// What a search on a sample of what is stored found of what it should have found.
#[derive(Clone, Copy, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct RecallEstimate {
    /// The found part of the true nearest, from 0 to 1.
    pub recall: f64,
    /// Searches that were compared with an exhaustive scan.
    pub queries: u32,
    /// Hits of each.
    pub k: u32,
    /// How widely they looked.
    pub ef: u32,
}

/// One partition of the memory, which one core keeps.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct MemoryPartition {
    /// Items in it.
    pub count: u64,
    /// Vectors that were replaced or deleted and still take room in the index.
    pub dead: u64,
    /// Vectors that a start took in and that are not linked yet: each search compares all of them.
    pub unlinked: u64,
    /// Bytes of memory that the index and the tables beside it take.
    pub bytes_resident: u64,
    /// Bytes of its files.
    pub bytes_on_disk: u64,
    /// Changes since the last checkpoint, which a start reads again.
    pub changes_since_checkpoint: u64,
    /// Seconds since the last checkpoint; `None` before the first one.
    pub checkpoint_age_s: Option<u64>,
}

/// How the memory does, as `memory.stats` shows it.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct MemoryStats {
    /// Items.
    pub count: u64,
    /// Numbers of each vector.
    pub dimension: u32,
    /// What near means.
    pub metric: Metric,
    /// Whether items outlive the process.
    pub durable: bool,
    /// Bytes of memory that the index and the tables beside it take.
    pub bytes_resident: u64,
    /// Bytes of all files.
    pub bytes_on_disk: u64,
    /// Bytes of memory for one vector; 0 when there is none.
    pub bytes_per_vector: f64,
    /// Each namespace and the items in it, in the order of their names.
    pub namespaces: Vec<(String, u64)>,
    /// The partitions, in order.
    pub partitions: Vec<MemoryPartition>,
    /// How much searches find, when it was asked for and there is something to search.
    pub recall: Option<RecallEstimate>,
    /// Damaged records that were met since the start, at most 64, each in a sentence that names file
    /// and place.
    pub damaged: Vec<String>,
    /// Damaged records that were met since the start.
    pub damaged_count: u64,
    /// The damage by which something is lost at present, at most 64, each in a sentence.
    pub lost: Vec<String>,
    /// Items whose records are damaged and that were not stored again or deleted.
    pub lost_count: u64,
    /// Records that are gone and of which nobody knows whose they were: up to so many more items are
    /// lost.
    pub lost_unnamed_count: u64,
    /// Whether still more may be lost, since a file was shortened.
    pub lost_more: bool,
}

/// A part of a list of items.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct MemoryPage {
    /// The items, without their vectors.
    pub items: Vec<MemoryItem>,
    /// Where the next part begins; `None` at the end.
    pub cursor: Option<String>,
}

/// What one partition tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Archive, Serialize, Deserialize)]
pub struct PartitionReport {
    /// Its sizes.
    pub partition: MemoryPartition,
    /// Its namespaces, each with its items.
    pub namespaces: Vec<(String, u64)>,
    /// Searches on a sample: how many, true neighbours that they found, and true neighbours.
    pub sample: (u32, u64, u64),
    /// The first damaged records that were met.
    pub damaged: Vec<String>,
    /// All of them.
    pub damaged_count: u64,
    /// The first of what is lost at present.
    pub lost: Vec<String>,
    /// Items that are lost.
    pub lost_count: u64,
    /// Records that are gone and cannot be named.
    pub lost_unnamed_count: u64,
    /// Whether more may be lost.
    pub lost_more: bool,
}

/// What a node answers that keeps no memory.
pub fn not_configured() -> Error {
    Error::Unavailable("this node keeps no pattern memory: it has no [memory] configured".into())
}
