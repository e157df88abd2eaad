//! What a run measured.

pub mod process;
