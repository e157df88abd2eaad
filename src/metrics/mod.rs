//! What a run measured: histograms, the files that keep them, and the comparison of two runs.

pub mod compare;
pub mod curve;
pub mod hgrm;
pub mod histogram;
pub mod manifest;
pub mod process;
pub mod prometheus;
pub mod results;
pub mod svg;
pub mod unit;

pub use compare::{Comparison, Verdict, compare};
pub use curve::{Curve, Point};
pub use hgrm::HgrmError;
pub use histogram::{Latency, LatencyFigures};
pub use manifest::{Manifest, Probe, Run};
pub use results::{Results, ResultsError};
