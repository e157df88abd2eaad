//! Tuning files: what every key means, its range and what it costs.
//!
//! A [`Config`] that exists is valid: every value lies in its range and the relations between
//! values hold. Nothing else in the project checks a tuning value again.

mod model;

pub use model::*;
