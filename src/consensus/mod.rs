//! The log that everything which must survive goes through, and the engines behind it.

mod log;

pub use log::{MemoryLog, Pending, Position, Record, TaskLog};
