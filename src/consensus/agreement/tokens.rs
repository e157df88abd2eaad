//! Fencing tokens are not used up by a primary that lies.
//!
//! A primary reserves tokens when it begins and in good time before they are given; each reservation is of
//! so many. A pre-prepare that reserves more than all primaries can have needed since this node began is
//! dropped, so no quorum of correct replicas ever accepts it. What a quorum has agreed on is taken all the
//! same, and gone on from: it is what the others go by, and this node may have been away.
//!
//! Invariants worth naming
//! - Reservations grow by no more than one each [`EACH_MS`] on average, whoever leads: to use up 2^53
//!   tokens takes 17 years.

use crate::{
    consensus::record::Record,
    wire::id::{TOKENS_END, TOKENS_TOGETHER},
};

/// On average there is no more than one reservation in this time, milliseconds.
const EACH_MS: u64 = 1000;
/// Reservations that may come at once.
const AT_ONCE: u64 = 64;
/// While it is not known how many were reserved, no more than this are believed to be.
const UNKNOWN_BELOW: u64 = TOKENS_END / 2;

/// What a partition's primaries have reserved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokens {
    /// A reservation, and since when this node goes on from it, milliseconds.
    from: Option<(u64, u64)>,
}

impl Tokens {
    /// What the log says that was reserved, if it says anything, when the node begins.
    pub fn new(reserved: Option<u64>) -> Self {
        Self { from: reserved.map(|below| (0, below)) }
    }

    /// Records are committed.
    pub fn committed(&mut self, data: &[u8], now_ms: u64) {
        if self.from.is_none() || !self.may_order(data, now_ms) {
            self.from = reserved(data).map(|below| (now_ms, below)).or(self.from);
        }
    }

    /// Whether records may be ordered as far as they reserve tokens.
    pub fn may_order(&self, data: &[u8], now_ms: u64) -> bool {
        let most = match self.from {
            None => UNKNOWN_BELOW,
            Some((since_ms, below)) => {
                let times = AT_ONCE + now_ms.saturating_sub(since_ms) / EACH_MS;
                below.saturating_add(times.saturating_mul(TOKENS_TOGETHER))
            }
        };
        reserved(data).is_none_or(|below| below <= most)
    }
}

/// The highest reservation among records that were checked.
pub(super) fn reserved(data: &[u8]) -> Option<u64> {
    let (mut at, mut highest) = (0, None);
    while let Ok((record, bytes)) = Record::decode_checked(data.get(at..)?) {
        if let Record::Tokens { below, .. } = record {
            highest = highest.max(Some(below));
        }
        at += bytes;
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserve(below: u64) -> Vec<u8> {
        let mut data = Vec::new();
        for below in [1, below] {
            Record::Tokens { partition: 3, below }.encode(&mut data);
        }
        data
    }

    #[test]
    fn no_more_tokens_are_reserved_than_can_have_been_needed() {
        let mut tokens = Tokens::default();
        assert!(tokens.may_order(b"", 0) && tokens.may_order(&reserve(1 << 40), 0));
        assert!(!tokens.may_order(&reserve(TOKENS_END - 1), 0));
        let begin = 1 << 40;
        tokens.committed(&reserve(begin), 1_000);
        tokens.committed(&reserve(begin + 7), 2_000);
        let below = |times| reserve(begin + times * TOKENS_TOGETHER);
        assert!(tokens.may_order(&below(AT_ONCE), 1_000));
        assert!(!tokens.may_order(&below(AT_ONCE + 1), 1_999));
        assert!(tokens.may_order(&below(AT_ONCE + 1), 2_000));
        assert!(!tokens.may_order(&reserve(TOKENS_END - 1), u64::MAX / (1 << 30)));
    }

    #[test]
    fn a_node_that_begins_again_goes_on_from_its_log_and_from_what_a_quorum_agreed_on() {
        // More than anybody believes who knows nothing.
        let much = UNKNOWN_BELOW + TOKENS_TOGETHER;
        let mut tokens = Tokens::new(Some(much));
        assert!(tokens.may_order(&reserve(much + TOKENS_TOGETHER), 0));
        // It was away for long: the others have reserved much more meanwhile.
        let more = much + 1_000_000 * TOKENS_TOGETHER;
        assert!(!tokens.may_order(&reserve(more), 9));
        tokens.committed(&reserve(more), 9);
        assert!(tokens.may_order(&reserve(more + AT_ONCE * TOKENS_TOGETHER), 9));
        assert!(!tokens.may_order(&reserve(more + (AT_ONCE + 1) * TOKENS_TOGETHER), 9));
        // What it would have taken anyway moves nothing.
        tokens.committed(&reserve(more + TOKENS_TOGETHER), 10);
        assert!(!tokens.may_order(&reserve(more + (AT_ONCE + 1) * TOKENS_TOGETHER), 10));
    }
}
