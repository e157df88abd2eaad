//! Pattern memory: what agents learned, as vectors, and which of them are nearest to a query.
//!
//! | folder | duty |
//! |---|---|
//! | `index` | the graph of one partition: pure, no file, no clock |
//! | `store` | items by name, in files that outlive the process |
//! | `thread` | the threads that wait for the disk |
//! | `embed` | what makes a vector of a text |
//! | `formats` | files of vectors, read row by row, and written |

#[cfg(test)]
mod cases;
pub mod embed;
pub mod formats;
pub mod index;
pub mod store;
pub mod thread;
