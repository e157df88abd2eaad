//! What nodes say to each other of a partition, beside the messages of its group.

use crate::wire::id::PartitionIndex;

/// Something that one node tells another of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The partition.
    pub partition: PartitionIndex,
    /// What is said.
    pub saying: Saying,
}

/// What is said of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saying {
    /// To the leader: the oldest segments of a follower cannot be freed before the log begins behind
    /// this entry.
    Wanted {
        /// The index of the entry.
        index: u64,
    },
    /// To everybody: whoever leads, is this node a member?
    AmIMember {
        /// What the answer is given with.
        question: u64,
    },
    /// The leader's answer to that: no.
    NoMember {
        /// What was asked.
        question: u64,
        /// The index up to which the leader has applied the log.
        applied: u64,
    },
}

impl Notice {
    /// Kind, partition, two numbers.
    const BYTES: usize = 1 + size_of::<PartitionIndex>() + 2 * size_of::<u64>();

    /// As bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let (kind, one, other) = match self.saying {
            Saying::Wanted { index } => (0, index, 0),
            Saying::AmIMember { question } => (1, question, 0),
            Saying::NoMember { question, applied } => (2, question, applied),
        };
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.push(kind);
        bytes.extend(self.partition.to_le_bytes());
        bytes.extend(one.to_le_bytes());
        bytes.extend(other.to_le_bytes());
        bytes
    }

    /// What the bytes say; `None` when no node writes such.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let (kind, rest) = bytes.split_first()?;
        let (partition, rest) = rest.split_first_chunk()?;
        let (one, other) = rest.split_first_chunk()?;
        let one = u64::from_le_bytes(*one);
        let other = u64::from_le_bytes(other.try_into().ok()?);
        let saying = match (kind, other) {
            (0, 0) => Saying::Wanted { index: one },
            (1, 0) => Saying::AmIMember { question: one },
            (2, applied) => Saying::NoMember { question: one, applied },
            _ => return None,
        };
        Some(Self { partition: PartitionIndex::from_le_bytes(*partition), saying })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_as_it_was_written_and_nothing_else_is() {
        let number = 0x0102_0304_0506_0708;
        let sayings = [
            Saying::Wanted { index: number },
            Saying::AmIMember { question: number },
            Saying::NoMember { question: number, applied: !number },
        ];
        for saying in sayings {
            let notice = Notice { partition: 0x1234, saying };
            let bytes = notice.to_bytes();
            assert_eq!(Notice::from_bytes(&bytes), Some(notice));
            assert_eq!(Notice::from_bytes(&bytes[1..]), None);
            assert_eq!(Notice::from_bytes(&[&bytes[..], &[0]].concat()), None);
            assert_eq!(Notice::from_bytes(&[&[3], &bytes[1..]].concat()), None);
        }
    }
}
