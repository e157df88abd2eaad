//! What a group writes, as blocks of the log.

use super::{
    message::encode_point,
    outputs::{HardState, Kind, Point, Write},
};
use crate::{
    consensus::{
        engine::{Block, ToBlock},
        format::BlockKind,
    },
    planted::{self, Bug},
};
use std::borrow::Cow;

/// Bytes of a hard state.
const HARD_STATE_BYTES: usize = 32;
/// What it was before replicas could be told that they are no members.
const OLD_HARD_STATE_BYTES: usize = 24;

impl ToBlock for Write {
    fn to_block(&self, _: u16) -> Block<'_> {
        let beside = |kind, body| Block { kind, term: 0, index: 0, body: Cow::Owned(body) };
        match self {
            Self::Entry { term, index, kind, data } => {
                let kind = match kind {
                    Kind::Normal => BlockKind::Records,
                    Kind::Change => BlockKind::Change,
                };
                Block { kind, term: *term, index: *index, body: Cow::Borrowed(data) }
            }
            Self::HardState(state) => {
                let vote = if planted::has(Bug::ForgottenVote) { 0 } else { state.vote };
                let body = encode_hard_state(HardState { vote, ..*state });
                beside(BlockKind::HardState, body.to_vec())
            }
            Self::Compacted(point) => beside(BlockKind::Compacted, point_bytes(point)),
            Self::Installed(point) => beside(BlockKind::Installed, point_bytes(point)),
        }
    }
}

/// A hard state as bytes.
pub fn encode_hard_state(state: HardState) -> [u8; HARD_STATE_BYTES] {
    let mut bytes = [0; HARD_STATE_BYTES];
    let numbers = [state.term, state.vote, state.commit, state.votes_from];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// Reads a hard state.
pub fn decode_hard_state(bytes: &[u8]) -> Option<HardState> {
    if ![OLD_HARD_STATE_BYTES, HARD_STATE_BYTES].contains(&bytes.len()) {
        return None;
    }
    let (numbers, _) = bytes.as_chunks();
    let number = |at: usize| numbers.get(at).copied().map_or(0, u64::from_le_bytes);
    let (term, vote, commit) = (number(0), number(1), number(2));
    Some(HardState { term, vote, commit, votes_from: number(3) })
}

/// A point as bytes.
pub fn point_bytes(point: &Point) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_point(point, &mut bytes);
    bytes
}
