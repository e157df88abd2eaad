//! What a link may take, in time and in memory.

/// How long things may take, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From the dial to the end of the handshake.
    pub handshake_ms: u64,
    /// After this long without a byte written, a keepalive is.
    pub keepalive_ms: u64,
    /// After this long without a byte read, the connection is lost.
    pub silence_ms: u64,
    /// The pause before a second dial; each further one is twice as long.
    pub backoff_first_ms: u64,
    /// The longest such pause.
    pub backoff_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake_ms: 1000,
            keepalive_ms: 500,
            silence_ms: 3000,
            backoff_first_ms: 50,
            backoff_max_ms: 2000,
        }
    }
}

/// What a link may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a frame's body, compressed or not; all nodes of a cluster must have the same.
    pub frame_bytes: usize,
    /// Bytes that wait for one peer, the frame under way apart.
    pub queue_bytes: usize,
    /// Messages that wait for one peer.
    pub queue_messages: usize,
    /// Whether shared parts are compressed.
    pub compresses: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 8 << 20,
            queue_bytes: 32 << 20,
            queue_messages: 65_536,
            compresses: true,
        }
    }
}
