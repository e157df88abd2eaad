//! The life of a task, from its submission to its end, and who runs it: state machines without a
//! clock, a socket or a file. The shard drives them.

mod body;
pub mod list;
mod load;
mod pace;
pub mod pool;
mod prefetch;
mod table;

pub use load::LoadIndex;
pub use table::{Counters, Failed, Lease, Stale, Submission, TableLimits, TaskTable, Watcher};
