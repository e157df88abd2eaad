//! How much a partition's table holds.

use super::retry::RetryPolicy;
use crate::config::{self, DropPolicy};

/// How much a partition's table holds, and what submissions get that name nothing else.
#[derive(Clone, Copy, Debug)]
pub struct TableLimits {
    /// Tasks that may wait in normal operation.
    pub queue_primary: usize,
    /// Tasks that may wait beyond that; then submissions are refused.
    pub queue_overflow: usize,
    /// Bytes of waiting tasks that stay in memory when the log has them as well.
    pub queue_bytes: usize,
    /// Tasks that each queue may have in memory however many there are in all.
    pub hot_least: usize,
    /// Ended tasks that are remembered.
    pub retained: usize,
    /// Bytes that the results of remembered tasks may take.
    pub retained_bytes: usize,
    /// Longest payload and longest result, bytes.
    pub max_payload_bytes: usize,
    /// Attempts before a task is dead.
    pub max_attempts: u32,
    /// How long one attempt may take, milliseconds.
    pub timeout_ms: u64,
    /// How long a task waits until it is as urgent as a new one of the next higher priority,
    /// milliseconds.
    pub ageing_ms: u64,
    /// The pauses between attempts.
    pub retry: RetryPolicy,
    /// How long a key stands for a task, milliseconds.
    pub key_ttl_ms: u64,
    /// Keys that are remembered.
    pub keys_max: usize,
    /// Dead letters that are kept.
    pub dead_max: usize,
    /// What a full queue does with a new task.
    pub drop_policy: DropPolicy,
}

impl From<&config::Tasks> for TableLimits {
    fn from(tasks: &config::Tasks) -> Self {
        Self {
            queue_primary: tasks.queue_primary,
            queue_overflow: tasks.queue_overflow,
            queue_bytes: tasks.queue_bytes,
            hot_least: Self::HOT_LEAST,
            retained: tasks.retained,
            retained_bytes: tasks.retained_bytes,
            max_payload_bytes: tasks.max_payload_bytes,
            max_attempts: tasks.max_attempts,
            timeout_ms: tasks.timeout_ms,
            ageing_ms: tasks.ageing_ms,
            retry: RetryPolicy { base_ms: tasks.retry_base_ms, max_ms: tasks.retry_max_ms },
            key_ttl_ms: tasks.key_ttl_ms,
            keys_max: tasks.keys_max,
            dead_max: tasks.dead_max,
            drop_policy: tasks.drop_policy,
        }
    }
}

impl TableLimits {
    /// A `hot_least` that bridges the time which the log needs to read the next ones.
    pub const HOT_LEAST: usize = 64;

    /// How long an attempt of a task may take that asked for that, milliseconds; 49 days at most.
    #[inline]
    pub(super) fn timeout_of(&self, asked_ms: u32) -> u32 {
        if asked_ms == 0 { asked_for(self.timeout_ms) } else { asked_ms }
    }

    /// The attempts of a task that asked for that many.
    #[inline]
    pub(super) fn attempts_of(&self, asked: u32) -> u32 {
        if asked == 0 { self.max_attempts } else { asked }
    }
}

/// A time that a task asks for, milliseconds: 49 days at most.
#[inline]
pub(super) fn asked_for(ms: u64) -> u32 {
    ms.min(u32::MAX.into()) as u32
}
