//! Names of agents and tasks, as numbers inside and as text outside.

use rkyv::{Archive, Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A worker core's place in the node, from 0; not the kernel's number of the processor.
pub type CoreIndex = u16;

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

/// The text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `core.slot.generation`.
    #[error("an agent id is core.slot.generation, for example 1.17.3")]
    Agent,
    /// Not `t`, the shard, `-` and 32 hexadecimal digits.
    #[error("a task id is t, a shard, - and 32 hexadecimal digits, for example t0-00…2f")]
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

/// A task's name for its whole life: the shard that owns it and 128 random bits.
///
/// Text form: `t`, the shard, `-`, 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct TaskId {
    /// The shard that owns the task.
    pub shard: CoreIndex,
    /// What tells the task from every other.
    pub random: u128,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}-{:032x}", self.shard, self.random)
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
        let (shard, random) = text
            .strip_prefix('t')
            .and_then(|rest| rest.split_once('-'))
            .filter(|(_, random)| random.len() == 32)
            .ok_or(IdError::Task)?;
        let digits = shard.bytes().all(|byte| byte.is_ascii_digit())
            && random.bytes().all(|byte| byte.is_ascii_hexdigit());
        match (digits, shard.parse(), u128::from_str_radix(random, 16)) {
            (true, Ok(shard), Ok(random)) => Ok(Self { shard, random }),
            _ => Err(IdError::Task),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text_form() {
        let agent = AgentId::new(3, 17, AgentId::SLOTS - 1);
        assert_eq!(agent.to_string().parse(), Ok(agent));
        let task = TaskId { shard: 9, random: u128::MAX - 5 };
        assert_eq!(task.to_string().parse(), Ok(task));
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.+3", "70000.0.0", "0.16777216.0", "a.b.c"] {
            assert_eq!(text.parse::<AgentId>(), Err(IdError::Agent), "{text}");
        }
        for text in ["", "t", "t1", "t1-", "t1-ff", "x1-00000000000000000000000000000000"] {
            assert_eq!(text.parse::<TaskId>(), Err(IdError::Task), "{text}");
        }
        let signed = "t1-+0000000000000000000000000000000";
        assert_eq!(signed.parse::<TaskId>(), Err(IdError::Task));
    }
}
