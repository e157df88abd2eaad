//! What holds for a whole folder of pattern memory, for as long as it is there.

use crate::wire::memory::Metric;
use std::{fmt, str::FromStr};

/// What the first line says.
const TITLE: &str = "coreflow pattern memory, format 1";

/// What a folder's partitions have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreHead {
    /// Numbers of each vector.
    pub dimension: u32,
    /// What near means.
    pub metric: Metric,
    /// Partitions that the items are dealt out to.
    pub partitions: u16,
    /// What the salts of all files follow from.
    pub salt: u32,
}

/// The head's file is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no head of pattern memory, or damaged")]
pub struct HeadError;

impl fmt::Display for StoreHead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dimension, metric, partitions, salt } = self;
        let text = format!(
            "{TITLE}\ndimension {dimension}\nmetric {}\npartitions {partitions}\nsalt {salt}\n",
            metric.name()
        );
        let sum = crc32fast::hash(text.as_bytes());
        writeln!(formatter, "{text}sum {sum}")
    }
}

impl FromStr for StoreHead {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let value = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).ok_or(HeadError)
        };
        let number = |name| value(name)?.parse::<u32>().map_err(|_| HeadError);
        let head = Self {
            dimension: number("dimension")?,
            metric: Metric::from_name(value("metric")?).ok_or(HeadError)?,
            partitions: number("partitions")?.try_into().map_err(|_| HeadError)?,
            salt: number("salt")?,
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
        let head = StoreHead { dimension: 384, metric: Metric::Dot, partitions: 3, salt: 77 };
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
