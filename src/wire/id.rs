//! Names of agents and tasks, as numbers inside and as text outside.

use rkyv::{Archive, Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A worker core's place in the node, from 0; not the kernel's number of the processor.
pub type CoreIndex = u16;

/// A node of the cluster, as its configuration numbers it; 0 is no node.
pub type NodeId = u64;

/// Where an agent lives: its core, its place there, and which occupant of that place it is.
///
/// Text form: `core.slot.generation`, for example `1.17.3`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct AgentId(u64);

impl AgentId {
    /// Slots that a core can have.
    pub const SLOTS: u32 = 1 << 24;

    /// Packs the three parts; `slot` must be below [`AgentId::SLOTS`] and `generation` is taken
    /// modulo 2^24.
    pub const fn new(core: CoreIndex, slot: u32, generation: u32) -> Self {
        assert!(slot < Self::SLOTS);
        Self((core as u64) << 48 | (slot as u64) << 24 | (generation & (Self::SLOTS - 1)) as u64)
    }

    /// The id as one number, as it travels.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The id that [`AgentId::to_bits`] gave.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The worker core that owns the agent.
    pub const fn core(self) -> CoreIndex {
        (self.0 >> 48) as CoreIndex
    }

    /// The agent's place on its core.
    pub const fn slot(self) -> u32 {
        (self.0 >> 24) as u32 & (Self::SLOTS - 1)
    }

    /// Which occupant of the slot it is.
    pub const fn generation(self) -> u32 {
        self.0 as u32 & (Self::SLOTS - 1)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.core(), self.slot(), self.generation())
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentId({self})")
    }
}

/// Where an agent lives in a cluster: its node and its place there.
///
/// Text form: `node/core.slot.generation`, for example `2/1.17.3`. Without a node, an address is
/// of the node that reads it, and its node is 0.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Archive, Serialize, Deserialize,
)]
pub struct AgentAddress {
    /// The node; 0 for the one that the address is given to.
    pub node: NodeId,
    /// Its place there.
    pub agent: AgentId,
}

impl From<AgentId> for AgentAddress {
    /// An agent of this node.
    fn from(agent: AgentId) -> Self {
        Self { node: 0, agent }
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            0 => write!(f, "{}", self.agent),
            node => write!(f, "{node}/{}", self.agent),
        }
    }
}

impl FromStr for AgentAddress {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let Some((node, agent)) = text.split_once('/') else {
            return Ok(Self::from(text.parse::<AgentId>()?));
        };
        let is_number = node.bytes().all(|byte| byte.is_ascii_digit());
        match node.parse() {
            Ok(node @ 1..) if is_number => Ok(Self { node, agent: agent.parse()? }),
            _ => Err(IdError::Agent),
        }
    }
}

/// The text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `core.slot.generation`, with or without a node.
    #[error("an agent id is core.slot.generation, for example 1.17.3; of another node 2/1.17.3")]
    Agent,
    /// Not `t`, the partition, `-` and 32 hexadecimal digits.
    #[error("a task id is t, a partition, - and 32 hexadecimal digits, for example t0-00…2f")]
    Task,
}

impl FromStr for AgentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut parts = text.split('.');
        let mut part = |max: u32| {
            let digits = parts.next()?;
            let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
            let value: u32 = if all_digits { digits.parse().ok()? } else { return None };
            (value <= max).then_some(value)
        };
        let limit = Self::SLOTS - 1;
        let (Some(core), Some(slot), Some(generation)) =
            (part(CoreIndex::MAX as u32), part(limit), part(limit))
        else {
            return Err(IdError::Agent);
        };
        match parts.next() {
            None => Ok(Self::new(core as CoreIndex, slot, generation)),
            Some(_) => Err(IdError::Agent),
        }
    }
}

/// Fencing tokens are below this, so that JSON can carry them.
pub const TOKENS_END: u64 = 1 << 53;

/// Fencing tokens that are reserved at a time: no write takes so long that half of them are given
/// meanwhile.
pub const TOKENS_TOGETHER: u64 = 1 << 24;

/// A part of all tasks, from 0: a task stays in its partition for its whole life.
pub type PartitionIndex = u16;

/// A task's name for its whole life: the partition that it belongs to and 128 random bits.
///
/// Text form: `t`, the partition, `-`, 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct TaskId {
    /// Its partition.
    pub partition: PartitionIndex,
    /// What tells the task from every other.
    pub random: u128,
}

/// Hexadecimal digits of the random bits.
const DIGITS: usize = 32;
/// Longest text form of a task's id, bytes: `t`, five digits, `-` and the random bits.
const TASK_TEXT_MAX: usize = 1 + 5 + 1 + DIGITS;

/// The text form of a task's id, without an allocation: ASCII.
#[derive(Clone, Copy)]
pub struct TaskText {
    bytes: [u8; TASK_TEXT_MAX],
    begin: usize,
}

impl TaskText {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("every byte is ASCII")
    }

    /// Its bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }
}

impl TaskId {
    /// The text form.
    #[inline]
    pub fn text(self) -> TaskText {
        let mut bytes = [0; TASK_TEXT_MAX];
        let (head, digits) = bytes.split_at_mut(TASK_TEXT_MAX - DIGITS);
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.random.to_be_bytes()) {
            pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
        let (mut begin, mut partition) = (head.len() - 1, self.partition);
        head[begin] = b'-';
        loop {
            begin -= 1;
            head[begin] = b'0' + (partition % 10) as u8;
            partition /= 10;
            if partition == 0 {
                break;
            }
        }
        begin -= 1;
        head[begin] = b't';
        TaskText { bytes, begin }
    }
}

#[inline]
const fn hex_digit(value: u8) -> u8 {
    value + if value < 10 { b'0' } else { b'a' - 10 }
}

/// The value of a hexadecimal digit; above 15 when it is none.
#[inline]
const fn hex_value(digit: u8) -> u8 {
    let decimal = digit.wrapping_sub(b'0');
    let letter = (digit | 0x20).wrapping_sub(b'a');
    if decimal < 10 {
        decimal
    } else if letter < 6 {
        letter + 10
    } else {
        u8::MAX
    }
}

/// The number that 32 hexadecimal digits write.
#[inline]
fn parse_hex(digits: &[u8; DIGITS]) -> Option<u128> {
    let (mut bytes, mut all) = ([0; DIGITS / 2], 0);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (hex_value(pair[0]), hex_value(pair[1]));
        all |= high | low;
        *byte = high << 4 | low;
    }
    (all < 16).then_some(u128::from_be_bytes(bytes))
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({self})")
    }
}

impl FromStr for TaskId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (head, digits) = text.as_bytes().split_last_chunk().ok_or(IdError::Task)?;
        let [b't', partition @ .., b'-'] = head else { return Err(IdError::Task) };
        let partition = parse_decimal(partition).ok_or(IdError::Task)?;
        let random = parse_hex(digits).ok_or(IdError::Task)?;
        Ok(Self { partition, random })
    }
}

/// The number that one to five decimal digits write, when it is that of a partition.
#[inline]
fn parse_decimal(digits: &[u8]) -> Option<PartitionIndex> {
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    number.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text_form() {
        let agent = AgentId::new(3, 17, AgentId::SLOTS - 1);
        assert_eq!(agent.to_string().parse(), Ok(agent));
        assert_eq!(agent.to_string().parse(), Ok(AgentAddress::from(agent)));
        let address = AgentAddress { node: NodeId::MAX, agent };
        assert_eq!(address.to_string(), format!("18446744073709551615/{agent}"));
        assert_eq!(address.to_string().parse(), Ok(address));
        for partition in [0, 9, 10, 12_345, PartitionIndex::MAX] {
            for random in [0, u128::MAX - 5, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210] {
                let task = TaskId { partition, random };
                assert_eq!(task.to_string(), format!("t{partition}-{random:032x}"));
                assert_eq!(task.to_string().parse(), Ok(task));
                assert_eq!(task.to_string().to_uppercase().replace('T', "t").parse(), Ok(task));
            }
        }
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.+3", "70000.0.0", "0.16777216.0", "a.b.c"] {
            assert_eq!(text.parse::<AgentId>(), Err(IdError::Agent), "{text}");
            assert_eq!(text.parse::<AgentAddress>(), Err(IdError::Agent), "{text}");
        }
        for text in
            ["/1.2.3", "0/1.2.3", "+1/1.2.3", "1/", "1/2/1.2.3", "18446744073709551616/0.0.0"]
        {
            assert_eq!(text.parse::<AgentAddress>(), Err(IdError::Agent), "{text}");
        }
        for text in ["", "t", "t1", "t1-", "t1-ff", "x1-00000000000000000000000000000000"] {
            assert_eq!(text.parse::<TaskId>(), Err(IdError::Task), "{text}");
        }
        let digits = "0000000000000000000000000000000";
        for text in ["t1-+", "t1-g", "t-0", "t65536-0", "t+1-0", "t100000-0", "1-0", "t1_0"] {
            let text = format!("{text}{digits}");
            assert_eq!(text.parse::<TaskId>(), Err(IdError::Task), "{text}");
        }
    }
}
