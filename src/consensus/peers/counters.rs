//! What the links count, for `/metrics`.

use super::hello::Refusal;

/// What a link counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Bytes that were read.
    pub bytes_in: u64,
    /// Bytes that were written.
    pub bytes_out: u64,
    /// Frames that were read whole, without damage.
    pub frames_in: u64,
    /// Frames that were written whole.
    pub frames_out: u64,
    /// Messages that were told.
    pub messages_in: u64,
    /// Messages in frames that were written whole.
    pub messages_out: u64,
    /// Bytes that compressing kept from being written.
    pub saved_bytes: u64,
    /// Connections that were in use.
    pub connects: u64,
    /// Connections that were in use and are lost.
    pub losses: u64,
    /// Tries to connect that failed.
    pub failed_dials: u64,
    /// Messages that were dropped because the queue was full.
    pub dropped_messages: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Messages of frames that were under way when the connection was lost.
    pub cut_messages: u64,
    /// Messages that were refused because no frame may be that large.
    pub refused_messages: u64,
    /// Frames that were damaged or not understood.
    pub broken_frames: u64,
    /// Handshakes that one of the two sides refused.
    pub refusals: u64,
}

/// What the listener of a node counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorCounters {
    /// Connections that were accepted, before any handshake.
    pub accepted: u64,
    /// Connections that ended by themselves before their handshake.
    pub gone: u64,
    /// Connections that were refused, by [`Refusal::index`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Times that no connection could be accepted.
    pub failed: u64,
}

impl DoorCounters {
    /// Connections that were refused for a reason.
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused[why.index()]
    }
}
