//! What holds for a whole folder of pattern memory, for as long as it is there.
//!
//! The first format said neither how long record files are nor what made vectors of texts, and had no
//! lists of files ([`super::files`]); a start gives such a folder the second one.

use crate::wire::memory::Metric;
use std::{fmt, str::FromStr};

/// What the first line says, but for the format's number.
const TITLE: &str = "coreflow pattern memory, format";

/// What a folder's partitions have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreHead {
    /// Numbers of each vector.
    pub dimension: u32,
    /// What near means.
    pub metric: Metric,
    /// Partitions that the items are dealt out to.
    pub partitions: u16,
    /// What the salts of all files follow from.
    pub salt: u32,
    /// Bytes of each record file; `None` in the first format.
    pub segment_bytes: Option<u32>,
    /// What makes vectors of texts, by the name that identifies it; nothing while nothing does.
    pub embedder: String,
}

/// The head's file is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no head of pattern memory, or damaged")]
pub struct HeadError;

impl StoreHead {
    /// What the lists of files repeat: all that never changes.
    pub fn without_embedder(&self) -> Self {
        Self { embedder: String::new(), ..self.clone() }
    }
}

impl fmt::Display for StoreHead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dimension, metric, partitions, salt, segment_bytes, embedder } = self;
        let format = if segment_bytes.is_some() { 2 } else { 1 };
        let mut text = format!(
            "{TITLE} {format}\ndimension {dimension}\nmetric {}\npartitions {partitions}\nsalt {salt}\n",
            metric.name()
        );
        if let Some(bytes) = segment_bytes {
            text += &format!("segment {bytes}\nembedder {embedder}\n");
        }
        let sum = crc32fast::hash(text.as_bytes());
        writeln!(formatter, "{text}sum {sum}")
    }
}

impl FromStr for StoreHead {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let find = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        };
        let value = |name: &str| find(name).ok_or(HeadError);
        let number = |name| value(name)?.parse::<u32>().map_err(|_| HeadError);
        let segment_bytes = find("segment").map(|text| text.parse().map_err(|_| HeadError));
        let head = Self {
            dimension: number("dimension")?,
            metric: Metric::from_name(value("metric")?).ok_or(HeadError)?,
            partitions: number("partitions")?.try_into().map_err(|_| HeadError)?,
            salt: number("salt")?,
            segment_bytes: segment_bytes.transpose()?,
            embedder: find("embedder").unwrap_or_default().to_owned(),
        };
        // It is written one way only.
        let is_whole = head.to_string() == text && head.partitions > 0;
        is_whole.then_some(head).ok_or(HeadError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written_and_no_other_way() {
        let first = StoreHead {
            dimension: 384,
            metric: Metric::Dot,
            partitions: 3,
            salt: 77,
            segment_bytes: None,
            embedder: String::new(),
        };
        let embedder = "exec python3 embedder.py".to_owned();
        let second = StoreHead { segment_bytes: Some(1 << 26), embedder, ..first.clone() };
        for head in [first, second] {
            let text = head.to_string();
            assert_eq!(text.parse(), Ok(head));
            for (at, byte) in text.bytes().enumerate() {
                let mut other = text.clone().into_bytes();
                other[at] = byte ^ 1;
                let other = String::from_utf8(other).unwrap();
                assert_eq!(other.parse::<StoreHead>(), Err(HeadError), "{other}");
            }
        }
    }
}
