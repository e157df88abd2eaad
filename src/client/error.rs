//! Why a request did not do what it asked; the variant says what the caller should do.

use super::View;
use std::{io, net::SocketAddr, time::Duration};

/// What a node said when it did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal, such as `not_found` or `backpressure`.
    pub code: String,
    /// For people.
    pub message: String,
    /// When to try again, where waiting helps, milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// Reads the error map of an answer; a map that lacks its fields still says that it refused.
    pub fn of(error: View<'_>) -> Self {
        let text =
            |name, missing: &str| error.get(name).and_then(View::str).unwrap_or(missing).to_owned();
        Self {
            code: text("code", "unknown"),
            message: text("message", "the node refused and did not say why"),
            retry_after_ms: error.get("retry_after_ms").and_then(View::uint),
        }
    }
}

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody took the connection: nothing was sent.
    #[error("no node answers at {address}: {source}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The node said no: nothing was done.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection ended: the request took effect or not.
    #[error("the connection to the node was lost: {0}")]
    Lost(#[source] io::Error),
    /// No answer in this time: the request took effect or not, and the connection is still good.
    #[error("the node did not answer within {0:?}")]
    TimedOut(Duration),
    /// What came is no MessagePack-RPC answer; the connection is of no use any more.
    #[error("what the node sent is no answer: {0}")]
    Garbled(&'static str),
}

impl ClientError {
    /// Whether the request may have taken effect all the same.
    pub const fn is_uncertain(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::TimedOut(_) | Self::Garbled(_))
    }
}
