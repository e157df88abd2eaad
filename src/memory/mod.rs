//! Pattern memory: what agents learned, as vectors, and which of them are nearest to a query.
//!
//! | folder | duty |
//! |---|---|
//! | `index` | the graph of one partition: pure, no file, no clock |
//! | `formats` | files of vectors, read row by row, and written |

pub mod formats;
pub mod index;
