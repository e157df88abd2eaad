//! What a replica refuses of its peers.
//!
//! Raft ends the process over messages that cannot be. A peer that lost its disk or runs another
//! program must not be able to do that.

use super::{membership::Members, message};
use raft::{
    RaftLog, Storage,
    eraftpb::{Message, MessageType},
};

/// Indexes and terms stay far below this, so that none overflows by being counted on.
pub(super) const NUMBER_MAX: u64 = 1 << 62;

/// Why a message is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// There is no such partition here.
    #[error("it is for a partition that does not exist")]
    Partition,
    /// Not for this node, or from itself.
    #[error("it is not for this node")]
    Address,
    /// A kind that no replica of this program sends.
    #[error("its kind is not used")]
    Kind,
    /// Not in the membership.
    #[error("its sender is no member")]
    NotMember,
    /// A number that cannot be.
    #[error("a number in it cannot be")]
    Number,
    /// Entries that are not in a row, or of a later term than the message.
    #[error("its entries are not in a row")]
    Entries,
    /// It counts on entries that this replica does not have: it lost a part of its log.
    #[error("it counts on entries that this replica has lost")]
    Beyond,
    /// A membership that cannot be.
    #[error("its membership cannot be")]
    Members,
}

/// Looks at a message before raft does.
pub(super) fn check<T: Storage>(
    message: &Message,
    me: u64,
    term: u64,
    log: &RaftLog<T>,
) -> Result<(), Dropped> {
    if message.to != me || message.from == me || message.from == 0 {
        return Err(Dropped::Address);
    }
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ];
    // Without a term raft takes a message for one of its own.
    if message.term == 0 || numbers.iter().any(|number| *number >= NUMBER_MAX) {
        return Err(Dropped::Number);
    }
    match message.get_msg_type() {
        MessageType::MsgHeartbeat if message.term >= term && message.commit > log.last_index() => {
            Err(Dropped::Beyond)
        }
        MessageType::MsgAppend => check_entries(message),
        MessageType::MsgAppendResponse if message.request_snapshot != 0 => Err(Dropped::Kind),
        MessageType::MsgAppendResponse
            if message.term == term && !message.reject && message.index > log.last_index() =>
        {
            Err(Dropped::Number)
        }
        MessageType::MsgSnapshot => check_point(message, me),
        MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgAppendResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow => Ok(()),
        // Proposals, reads and transfers are asked for at the leader itself.
        _ => Err(Dropped::Kind),
    }
}

fn check_entries(message: &Message) -> Result<(), Dropped> {
    // Raft finds the term 0 behind the end of its log, and would take that for a match.
    if (message.index == 0) != (message.log_term == 0) {
        return Err(Dropped::Entries);
    }
    let mut before = (message.index, message.log_term);
    for entry in &message.entries {
        let (index, term) = before;
        let is_next =
            entry.index == index + 1 && (term.max(1)..=message.term).contains(&entry.term);
        if !is_next || entry.index >= NUMBER_MAX {
            return Err(Dropped::Entries);
        }
        before = (entry.index, entry.term);
    }
    Ok(())
}

fn check_point(message: &Message, me: u64) -> Result<(), Dropped> {
    let point = message::point_of(message.get_snapshot());
    if !(1..NUMBER_MAX).contains(&point.index) || !(1..=message.term).contains(&point.term) {
        return Err(Dropped::Number);
    }
    let is_known = |members: &Members| members.is_valid() && members.is_member(me);
    if is_known(&point.members) { Ok(()) } else { Err(Dropped::Members) }
}
