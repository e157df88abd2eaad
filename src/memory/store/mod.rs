//! Pattern memory that outlives the process: record files, and one partition of items on top of them.
//!
//! | file | duty |
//! |---|---|
//! | `head` | what holds for a whole folder: dimension, metric, partitions |
//! | `files` | the list of a partition's record files |
//! | `folder` | head and lists of a folder, as they are or made |
//! | `watermark` | how far records are on the disk |
//! | `record` | the bytes of one record |
//! | `region` | the bytes of a segment: mapped, or in memory alone |
//! | `segment` | the files of a partition, and which place is where |
//! | `log` | where records are appended and lie |
//! | `job` | what a partition asks of those who may wait for the disk |
//! | `scan`, `recover` | what files have after a start |
//! | `damage`, `losses` | what is damaged, and what a partition knows of it |
//! | `table` | rows, names and namespaces |
//! | `room` | how many items all partitions may have together |
//! | `partition`, `read` | changes, and items by name |
//! | `search`, `filter` | items by nearness |
//! | `portion` | how much one step reads |
//! | `recall` | how much searches find |
//! | `tidy` | what makes searches quicker and can wait |
//! | `compact` | freeing the oldest segment |
//! | `checkpoint` | the graph and the rows, so that a start reads few records |
//! | `survey`, `compare` | every record of a folder that no node uses, and which items are lost |
//! | `repair` | what is damaged in such a folder is dropped |
//! | `open` | a folder, or memory alone, as partitions |
//!
//! Invariants:
//! - What is acknowledged is on the disk, and found by every search that begins later.
//! - A record that is not what was written is never answered with. It is told, with file and offset.
//! - Changes of one partition take effect in the order of their records, before a restart and after.
//! - Nothing here waits for the disk but `open` and `recover`, which run before a partition is served.

mod checkpoint;
mod compact;
mod compare;
mod damage;
mod files;
mod filter;
mod folder;
mod head;
mod job;
mod log;
mod losses;
mod open;
mod partition;
mod portion;
mod read;
mod recall;
mod record;
mod recover;
mod region;
mod repair;
mod room;
mod scan;
mod search;
mod segment;
mod survey;
mod table;
#[cfg(test)]
mod tests;
mod tidy;
mod watermark;

pub use checkpoint::Checkpoint;
pub use damage::{Damage, Harm, Lost};
pub use files::FileList;
pub use filter::Filter;
pub use head::{HeadError, StoreHead};
pub use job::{Done, Job, Load, Make, Piece, Remove, Save, Write};
pub use log::RecordLog;
pub use losses::Damages;
pub use open::{OpenError, Store, StoreSettings, partition_of};
pub use partition::{Outcome, Partition, Step, check_names, item_of};
pub use read::Listed;
pub use recall::{Recall, Tally};
pub use record::hash_of;
pub use recover::RecoverError;
pub use region::Region;
pub use repair::{Repaired, repair};
pub use search::{Search, check_query};
pub use survey::{Found as Finding, PartitionSurvey, Survey, survey};
pub use table::{Namespaces, Row, Table};
pub use watermark::Watermark;
