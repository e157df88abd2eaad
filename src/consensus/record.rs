//! One fact about one task, as bytes.
//!
//! A record is `bytes u32, crc32 u32, kind u8, body`, little endian; `bytes` counts all of it. The
//! checksum covers everything behind itself and starts from `bytes`, so a wrong length is a wrong
//! checksum.

use super::damage::Damage;
use crate::wire::{
    api::{Priority, TaskStatus},
    id::{PartitionIndex, TaskId},
};

/// Bytes before a record's body.
const HEAD_BYTES: usize = 9;
/// Bytes of a task's name.
const ID_BYTES: usize = 18;
/// What stands for "no key" where a key's length is written.
const NO_KEY: u32 = u32::MAX;

/// What is written down of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// It was submitted; once this is committed it is accepted.
    Submitted {
        /// Its name.
        id: TaskId,
        /// Any node asked for it, where nodes may lie: what becomes of it follows from the records
        /// before it, and it is a task unless they have its name or its key.
        is_asked: bool,
        /// The agent type that runs it.
        agent_type: &'a str,
        /// How urgent it is.
        priority: Priority,
        /// When it was submitted, Unix time in milliseconds.
        submitted_unix_ms: u64,
        /// When it may run first, Unix time in milliseconds; 0 for at once.
        due_unix_ms: u64,
        /// How long one attempt may take, milliseconds; 0 for the node's default.
        timeout_ms: u64,
        /// Attempts before it is dead; 0 for the node's default.
        max_attempts: u32,
        /// Attempts begun before this record: 0, but in a copy that was moved forward.
        attempts: u32,
        /// What makes its submission idempotent.
        key: Option<&'a [u8]>,
        /// One MessagePack value.
        payload: &'a [u8],
    },
    /// It ended; once this is committed whoever waits is told.
    Ended {
        /// Its name.
        id: TaskId,
        /// How.
        status: TaskStatus,
        /// Attempts begun.
        attempts: u32,
        /// When, Unix time in milliseconds.
        ended_unix_ms: u64,
        /// Its result or its last error.
        body: &'a [u8],
    },
    /// A dead letter is queued again, with no attempt counted.
    Requeued {
        /// Its name.
        id: TaskId,
    },
    /// A submission's key is known until it expires, whatever became of its task.
    Key {
        /// The key.
        key: &'a [u8],
        /// The task that was submitted with it.
        id: TaskId,
        /// What the submission asked for, hashed.
        body_hash: u64,
        /// When the key is forgotten, Unix time in milliseconds.
        expires_unix_ms: u64,
    },
    /// A dead letter was purged.
    Forgotten {
        /// Its name.
        id: TaskId,
    },
    /// Everything that lives in entries up to an index was appended again: those entries are not
    /// needed. Stands alone in its entry.
    Compacted {
        /// The partition.
        partition: PartitionIndex,
        /// The index.
        index: u64,
    },
    /// Fencing tokens below a number may be given; whoever leads next begins with it.
    Tokens {
        /// The partition.
        partition: PartitionIndex,
        /// The number.
        below: u64,
    },
    /// Where nodes may lie, keys that expire up to a time are forgotten: all replicas forget them here.
    Expired {
        /// The partition.
        partition: PartitionIndex,
        /// The time, Unix time in milliseconds.
        upto_unix_ms: u64,
    },
    /// Who asked for the records before it in its entry, where nodes may lie: what byzantine
    /// agreement needs to show others beside them. The last one of its entry.
    Order {
        /// The partition.
        partition: PartitionIndex,
        /// Bytes that say so.
        heads: &'a [u8],
    },
}

/// The names of the kinds of records, in the order of [`Record::kind`].
pub const KIND_NAMES: [&str; 10] = [
    "submitted",
    "ended",
    "requeued",
    "key",
    "forgotten",
    "compacted",
    "tokens",
    "order",
    "asked",
    "expired",
];

impl<'a> Record<'a> {
    /// Whether it is a task of which the record behind says that it has ended, and not as a dead letter: so
    /// tasks are written again that are remembered and run no more.
    pub fn is_over(&self, behind: Option<&Record<'_>>) -> bool {
        match (self, behind) {
            (Record::Submitted { id, .. }, Some(Record::Ended { id: ended, status, .. })) => {
                id == ended && *status != TaskStatus::Dead
            }
            _ => false,
        }
    }

    /// Which kind it is: an index into [`KIND_NAMES`].
    pub const fn kind(&self) -> usize {
        match self {
            Self::Submitted { is_asked: false, .. } => 0,
            Self::Submitted { is_asked: true, .. } => 8,
            Self::Ended { .. } => 1,
            Self::Requeued { .. } => 2,
            Self::Key { .. } => 3,
            Self::Forgotten { .. } => 4,
            Self::Compacted { .. } => 5,
            Self::Tokens { .. } => 6,
            Self::Order { .. } => 7,
            Self::Expired { .. } => 9,
        }
    }

    /// The task it is about; one without a name for what is about none.
    pub const fn id(&self) -> TaskId {
        match self {
            Self::Submitted { id, .. }
            | Self::Ended { id, .. }
            | Self::Requeued { id }
            | Self::Key { id, .. }
            | Self::Forgotten { id } => *id,
            Self::Compacted { partition, .. }
            | Self::Tokens { partition, .. }
            | Self::Expired { partition, .. }
            | Self::Order { partition, .. } => TaskId { partition: *partition, random: 0 },
        }
    }

    /// The same submission under another name.
    pub(super) fn named(self, name: TaskId) -> Self {
        let mut renamed = self;
        if let Self::Submitted { id, .. } = &mut renamed {
            *id = name;
        }
        renamed
    }

    /// Bytes that [`Record::encode`] appends.
    pub fn encoded_bytes(&self) -> usize {
        let body = match self {
            Self::Submitted { agent_type, key, payload, .. } => {
                39 + agent_type.len() + key.map_or(0, <[u8]>::len) + payload.len()
            }
            Self::Ended { body, .. } => 13 + body.len(),
            Self::Requeued { .. } | Self::Forgotten { .. } => 0,
            Self::Compacted { .. } | Self::Tokens { .. } | Self::Expired { .. } => 8,
            Self::Key { key, .. } => 16 + key.len(),
            Self::Order { heads, .. } => heads.len(),
        };
        HEAD_BYTES + ID_BYTES + body
    }

    /// Appends the record to `out`.
    ///
    /// # Panics
    /// When a part of it is longer than its length field can tell; the limits of requests are far
    /// below.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let bytes = u32::try_from(self.encoded_bytes()).expect("a record is below 4 GiB");
        out.reserve(bytes as usize);
        out.extend_from_slice(&bytes.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.push(self.kind() as u8 + 1);
        let id = self.id();
        out.extend_from_slice(&id.partition.to_le_bytes());
        out.extend_from_slice(&id.random.to_le_bytes());
        self.encode_body(out);
        debug_assert_eq!(out.len() - start, bytes as usize);
        let checksum = checksum(bytes, &out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Submitted {
                id: _,
                is_asked: _,
                agent_type,
                priority,
                submitted_unix_ms,
                due_unix_ms,
                timeout_ms,
                max_attempts,
                attempts,
                key,
                payload,
            } => {
                let type_bytes = u16::try_from(agent_type.len()).expect("a type's name is short");
                let key_bytes = key.map_or(NO_KEY, |key| key.len() as u32);
                out.push(priority as u8);
                for number in [submitted_unix_ms, due_unix_ms, timeout_ms] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                for number in [max_attempts, attempts, key_bytes] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                out.extend_from_slice(&type_bytes.to_le_bytes());
                out.extend_from_slice(agent_type.as_bytes());
                out.extend_from_slice(key.unwrap_or_default());
                out.extend_from_slice(payload);
            }
            Self::Ended { id: _, status, attempts, ended_unix_ms, body } => {
                out.push(status as u8);
                out.extend_from_slice(&attempts.to_le_bytes());
                out.extend_from_slice(&ended_unix_ms.to_le_bytes());
                out.extend_from_slice(body);
            }
            Self::Requeued { .. } | Self::Forgotten { .. } => {}
            Self::Compacted { index: number, .. }
            | Self::Tokens { below: number, .. }
            | Self::Expired { upto_unix_ms: number, .. } => {
                out.extend_from_slice(&number.to_le_bytes());
            }
            Self::Order { heads, .. } => out.extend_from_slice(heads),
            Self::Key { key, id: _, body_hash, expires_unix_ms } => {
                out.extend_from_slice(&body_hash.to_le_bytes());
                out.extend_from_slice(&expires_unix_ms.to_le_bytes());
                out.extend_from_slice(key);
            }
        }
    }

    /// The record at the start of `bytes`, and how many bytes it takes.
    ///
    /// # Errors
    /// What is wrong with the bytes; nothing of them may be believed then.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, usize), Damage> {
        let length = length(bytes)?;
        let (head, rest) = bytes[..length].split_at(8);
        let written = u32::from_le_bytes(head[4..].try_into().expect("four bytes"));
        if checksum(length as u32, rest) != written {
            return Err(Damage::RecordChecksum);
        }
        Self::decode_checked(bytes)
    }

    /// As [`Record::decode`], of bytes whose checksum was found right before.
    pub(super) fn decode_checked(bytes: &'a [u8]) -> Result<(Self, usize), Damage> {
        let length = length(bytes)?;
        let mut fields = Fields(&bytes[HEAD_BYTES..length]);
        let id = fields.id()?;
        let record = match bytes[8] {
            1 => fields.submitted(id, false)?,
            2 => Self::Ended {
                id,
                status: choice(&TaskStatus::ALL, fields.u8("status")?, "status")?,
                attempts: fields.u32("attempts")?,
                ended_unix_ms: fields.u64("ended_unix_ms")?,
                body: fields.0,
            },
            3 => Self::Requeued { id },
            4 => Self::Key {
                id,
                body_hash: fields.u64("body_hash")?,
                expires_unix_ms: fields.u64("expires_unix_ms")?,
                key: fields.0,
            },
            5 => Self::Forgotten { id },
            6 => Self::Compacted { partition: id.partition, index: fields.u64("index")? },
            7 => Self::Tokens { partition: id.partition, below: fields.u64("below")? },
            8 => Self::Order { partition: id.partition, heads: fields.0 },
            9 => fields.submitted(id, true)?,
            10 => {
                Self::Expired { partition: id.partition, upto_unix_ms: fields.u64("upto_unix_ms")? }
            }
            kind => return Err(Damage::RecordKind(kind)),
        };
        Ok((record, length))
    }
}

/// The length that a record says it has, when there are that many bytes.
fn length(bytes: &[u8]) -> Result<usize, Damage> {
    let head = bytes.first_chunk::<4>().ok_or(Damage::RecordCut)?;
    let length = u32::from_le_bytes(*head) as usize;
    let fits = length >= HEAD_BYTES && length <= bytes.len();
    if fits { Ok(length) } else { Err(Damage::RecordCut) }
}

fn checksum(bytes: u32, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(bytes);
    hasher.update(rest);
    hasher.finalize()
}

/// The variant that was written as `number`, of an enumeration whose variants are all in `all`.
fn choice<T: Copy>(all: &[T], number: u8, field: &'static str) -> Result<T, Damage> {
    all.get(usize::from(number)).copied().ok_or(Damage::RecordField(field))
}

/// The fields of a body that were not read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize, field: &'static str) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Damage::RecordField(field))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const BYTES: usize>(&mut self, field: &'static str) -> Result<[u8; BYTES], Damage> {
        Ok(self.take(BYTES, field)?.try_into().expect("as many bytes as were taken"))
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, Damage> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, Damage> {
        self.array(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, Damage> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, Damage> {
        self.array(field).map(u64::from_le_bytes)
    }

    fn id(&mut self) -> Result<TaskId, Damage> {
        let partition = self.u16("id")?;
        Ok(TaskId { partition, random: self.array("id").map(u128::from_le_bytes)? })
    }

    fn submitted(&mut self, id: TaskId, is_asked: bool) -> Result<Record<'a>, Damage> {
        let priority = choice(&Priority::ALL, self.u8("priority")?, "priority")?;
        let submitted_unix_ms = self.u64("submitted_unix_ms")?;
        let due_unix_ms = self.u64("due_unix_ms")?;
        let timeout_ms = self.u64("timeout_ms")?;
        let max_attempts = self.u32("max_attempts")?;
        let attempts = self.u32("attempts")?;
        let key_bytes = self.u32("key")?;
        let type_bytes = self.u16("agent_type")?;
        let agent_type = self.take(type_bytes.into(), "agent_type")?;
        let agent_type =
            std::str::from_utf8(agent_type).map_err(|_| Damage::RecordField("agent_type"))?;
        let key = match key_bytes {
            NO_KEY => None,
            bytes => Some(self.take(bytes as usize, "key")?),
        };
        Ok(Record::Submitted {
            id,
            is_asked,
            agent_type,
            priority,
            submitted_unix_ms,
            due_unix_ms,
            timeout_ms,
            max_attempts,
            attempts,
            key,
            payload: self.0,
        })
    }
}

// The number that stands for a variant is its place in `ALL`.
const _: () = {
    let mut index = 0;
    while index < Priority::ALL.len() {
        assert!(Priority::ALL[index] as usize == index);
        index += 1;
    }
    index = 0;
    while index < TaskStatus::ALL.len() {
        assert!(TaskStatus::ALL[index] as usize == index);
        index += 1;
    }
};
