//! The agents that come with the program, so that a first run needs nothing else.

mod echo;
mod sha256;
mod sleep;

use super::agent::Agent;

/// The names of the builtin agents.
pub const NAMES: [&str; 3] = ["echo", "sha256", "sleep"];

/// A builtin agent, by the name of its type.
pub fn make(name: &str) -> Option<Box<dyn Agent>> {
    match name {
        "echo" => Some(Box::new(echo::Echo)),
        "sha256" => Some(Box::new(sha256::Sha256Sum)),
        "sleep" => Some(Box::<sleep::Sleep>::default()),
        _ => None,
    }
}
