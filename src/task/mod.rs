//! The life of a task, from its submission to its end, and who runs it: state machines without a
//! clock, a socket or a file. The shard drives them.
//!
//! | file | duty |
//! |---|---|
//! | `table`, `limits` | every task of a partition, how it waits and is found; how many there may be |
//! | `submit`, `end` | how a task comes in; how it ends and is forgotten |
//! | `attempts` | which task is next, leases, failures, waking |
//! | `queues`, `delays`, `retry` | order by type, priority and age; times; pauses |
//! | `backlog`, `cold` | tasks whose payload is in the log alone |
//! | `dead`, `evict` | dead letters; what a full queue gives up |
//! | `keys` | idempotent submissions |
//! | `agreed`, `census` | what any node may ask for, where nodes may lie, and how much of it |
//! | `print` | what tells the contents of tasks from others |
//! | `replay`, `moving`, `place` | a table from its log, and the log's oldest part made free |
//! | `page` | lists |
//! | `marked` | the few of very many keys that have a property |
//! | `load` | which agent gets the next task |
//! | `pool` | how many agents of a type a core has |

mod agreed;
mod attempts;
mod backlog;
mod body;
mod census;
mod cold;
mod dead;
mod delays;
mod end;
mod entry;
mod evict;
mod index;
mod keys;
pub mod lender;
mod limits;
pub mod list;
mod load;
mod marked;
mod moving;
mod pace;
mod page;
mod place;
pub mod pool;
mod prefetch;
mod print;
mod queues;
mod replay;
mod retry;
mod slab;
mod submit;
mod table;
#[cfg(test)]
mod tests;

pub use agreed::{Settled, Taken};
pub use attempts::{Failed, Lease, Stale};
pub use backlog::ColdKey;
pub use census::{ASKERS_MAX, Among};
pub use entry::Watcher;
pub use keys::{CHOSEN_KEY_BYTES_MAX, Fingerprint, KEY_BYTES_MAX, Key};
pub use limits::TableLimits;
pub use load::LoadIndex;
pub use moving::{Cursor, End, Live, Moving};
pub use page::ListFilter;
pub use place::Place;
pub use replay::Recorded;
pub use retry::RetryPolicy;
pub use submit::{Submission, Submitted};
pub use table::{Counters, Origin, TaskTable};
