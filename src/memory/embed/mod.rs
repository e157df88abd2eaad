//! Embedders: what makes a vector of a text.
//!
//! | file | duty |
//! |---|---|
//! | `lexical` | words and pieces of words, counted: pure, and the same for ever under one name |
//! | `protocol` | the lines that are exchanged with an embedder that is a child process |
//!
//! Invariants:
//! - A vector is made by the embedder that was asked for, or there is an error: none stands in for
//!   another, since their vectors cannot be compared.
//! - What the lexical embedder makes of a text never changes under its name, since it is stored:
//!   another way to make it has a name of its own.

mod lexical;
pub mod protocol;

pub use lexical::{LEXICAL_NAME, Lexical, NoWords};
