//! A replica that was taken out of its group and does not know it.
//!
//! Those that remain do not speak to it any more, so it may never get the entry that says so. A
//! replica that hears nothing of a leader for long asks all nodes whether it is a member still. A
//! leader of whom it is none makes sure that it leads (as for a read), and answers with the index up
//! to which it has applied the log. The replica then forgets its log and is as one that waits to be
//! told.
//!
//! Why nothing is lost by that
//! - It forgets only when it heard of no leader between its question and the answer, and its term is
//!   the same: it is not meanwhile a member again whom somebody counts on.
//! - Until its log holds the index of the answer, it neither votes nor stands for election
//!   ([`HardState::votes_from`]). For all who may count on what it had, it is a replica that has
//!   crashed; and when it votes again, it has all that it had a part in. That stands on the disk
//!   before its log is forgotten there.
//! - The leader answers when a majority of the voters know the membership that it is no part of: they
//!   do not need its vote to go on.

use super::{
    HardState, Restore,
    group::{ELECTION_TICKS, Group, mix},
    guard::NUMBER_MAX,
    outputs::{Event, Outputs, Point, Role, Write},
};
use raft::{
    StateRole,
    eraftpb::{Message, MessageType},
};

/// Ticks without a leader after which a replica asks, and between two questions.
pub const DOUBT_TICKS: u64 = 4 * ELECTION_TICKS as u64;

/// What a replica knows of its leader, and what it asked.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// When it last heard of a leader, or asked, ticks.
    since: u64,
    /// What it asked and in which term, as long as it has heard of no leader after that.
    asked: Option<(u64, u64)>,
    /// Questions that it asked.
    count: u64,
    /// Its question is to be sent.
    pub is_due: bool,
}

impl Group {
    /// Whether it holds less than what it forgot: it has no vote until it has all of that again.
    pub(super) fn is_mute(&self) -> bool {
        self.raft.raft.raft_log.last_index() < self.raft.store().hard_state().votes_from
    }

    /// Whether a message asks something of a replica that has no vote.
    pub(super) fn is_muted(&self, message: &Message) -> bool {
        use MessageType::{MsgRequestPreVote, MsgRequestVote, MsgTimeoutNow};
        let asks = [MsgRequestVote, MsgRequestPreVote, MsgTimeoutNow];
        asks.contains(&message.get_msg_type()) && self.is_mute()
    }

    /// A message came: one of a leader ends the doubt.
    pub(super) fn hear_of_leader(&mut self, message: &Message) {
        use MessageType::{MsgAppend, MsgHeartbeat, MsgSnapshot};
        let is_leaders = [MsgAppend, MsgHeartbeat, MsgSnapshot].contains(&message.get_msg_type());
        if is_leaders && message.term >= self.raft.raft.term {
            (self.doubt.since, self.doubt.asked) = (self.now, None);
        }
    }

    /// Asks, when it is time to: not a leader, nor who holds nothing and waits to be told.
    pub(super) fn doubt(&mut self) {
        let raft = &self.raft.raft;
        if raft.state == StateRole::Leader || raft.raft_log.last_index() == 0 {
            (self.doubt.since, self.doubt.asked) = (self.now, None);
            return;
        }
        if self.now >= self.doubt.since + DOUBT_TICKS {
            let count = self.doubt.count + 1;
            let asked = Some((mix(self.seed ^ mix(count)), raft.term));
            self.doubt = Doubt { since: self.now, asked, count, is_due: true };
        }
    }

    /// Takes its question, when it is to be sent.
    pub(super) fn take_question(&mut self, outputs: &mut Outputs) {
        if std::mem::take(&mut self.doubt.is_due)
            && let Some((question, _)) = self.doubt.asked
        {
            outputs.questions.push((self.partition, question));
        }
    }

    /// Whether a majority of the voters know that the members are what they are.
    pub fn is_membership_known(&self) -> bool {
        let raft = &self.raft.raft;
        let (since, members) = (self.raft.store().members_since(), self.members());
        let knows = |id: &&u64| match raft.prs().get(**id) {
            Some(_) if **id == self.me => raft.raft_log.committed >= since,
            progress => progress.is_some_and(|progress| progress.committed_index >= since),
        };
        let most = |voters: &[u64]| 2 * voters.iter().filter(knows).count() > voters.len();
        most(&members.voters) && (members.outgoing.is_empty() || most(&members.outgoing))
    }

    /// The answer to a question of this replica: it is no member, and `applied` is the index up to
    /// which the leader who says so has applied the log.
    pub fn disown(&mut self, question: u64, applied: u64) {
        let raft = &self.raft.raft;
        let is_answer = self.doubt.asked == Some((question, raft.term));
        // Whoever leads has applied what is committed here.
        let is_possible = (raft.raft_log.committed..NUMBER_MAX).contains(&applied);
        // What waits for the disk is told first; the next question finds it told.
        let is_busy = !self.held.is_empty() || raft.state == StateRole::Leader;
        if !is_answer || !is_possible || is_busy {
            return;
        }
        let state = self.raft.store().hard_state();
        let mute = HardState { votes_from: state.votes_from.max(applied), ..state };
        let state = HardState { commit: 0, ..mute };
        let mut restore = Restore::empty(self.partition);
        restore.hard_state(state);
        let Ok(mut empty) = Self::new(self.me, self.seed, self.limits, restore) else { return };
        let mut events = std::mem::take(&mut self.to_tell);
        let was = self.role;
        self.step_down(&mut events);
        if was != self.role {
            events.push(Event::Role(Role::Follower { leader: None }));
        }
        let (point, members) = (Point::default(), super::Members::default());
        events.extend([Event::Installed { index: 0 }, Event::Membership(members)]);
        let mut writes = std::mem::take(&mut self.writes);
        // The write may be cut off between any two of them.
        let forget = [Write::HardState(mute), Write::Installed(point), Write::HardState(state)];
        writes.extend(forget);
        (empty.to_tell, empty.writes) = (events, writes);
        // No question is asked twice.
        (empty.seed, empty.campaigns, empty.now) = (self.seed, self.campaigns, self.now);
        empty.doubt = Doubt { since: self.now, count: self.doubt.count, ..Doubt::default() };
        *self = empty;
    }
}
