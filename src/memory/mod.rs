//! Pattern memory: what agents learned, as vectors, and which of them are nearest to a query.
//!
//! | folder | duty |
//! |---|---|
//! | `index` | the graph of one partition: pure, no file, no clock |
//! | `embed` | what makes a vector of a text |
//! | `formats` | files of vectors, read row by row, and written |

pub mod embed;
pub mod formats;
pub mod index;
pub mod store;
