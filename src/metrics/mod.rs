//! What a run measured.

pub mod process;
pub mod prometheus;
