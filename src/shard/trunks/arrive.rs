//! What arrives over trunks.

use super::{Bounds, Offer, Trunk, Trunks, trunk::Ended};
use crate::{
    shard::{
        calls::CallKey,
        core::Shard,
        kernel::{Waiter, door_of},
    },
    wire::{
        api::Error,
        batch::{Attachment, Header, Kind},
        id::{AgentId, CoreIndex, NodeId},
        trunk::{Progress, Record},
    },
};
use std::{rc::Rc, sync::Arc, task::Waker, time::Duration};

/// Longest reason for which an agent of another node is refused, bytes.
const REASON_BYTES: usize = 4096;

impl Shard {
    /// Takes a record in that came over a trunk; `false` when there is no room for it now.
    #[inline]
    pub fn take_record(&mut self, trunk: &Rc<Trunk>, record: &Record<'_>) -> bool {
        self.kernel.trunks.note(self.kernel.now_us);
        match *record {
            Record::Send { target, source, payload } => {
                self.take_send(trunk, target, source, payload)
            }
            Record::Call { target, correlation, patience_ms, payload, .. } => {
                self.take_call(trunk, target, (correlation, patience_ms), payload)
            }
            Record::Broadcast { source, agent_type, payload } => {
                self.take_broadcast(trunk.node(), source, agent_type, payload)
            }
            Record::Reply { correlation, payload } => {
                if trunk.answered(correlation) {
                    self.deliver_reply(correlation, Ok(payload));
                }
                true
            }
            Record::Refusal { correlation, ref error } => {
                if trunk.answered(correlation) {
                    self.deliver_reply(correlation, Err(error.clone()));
                }
                true
            }
            Record::Full(agent) => {
                trunk.set_full(agent, true);
                true
            }
            Record::Room(agent) => {
                trunk.set_full(agent, false);
                true
            }
            Record::Leaves => {
                trunk.is_left_by_other();
                true
            }
        }
    }

    fn take_send(
        &mut self,
        trunk: &Rc<Trunk>,
        target: AgentId,
        source: AgentId,
        payload: &[u8],
    ) -> bool {
        let kernel = &mut self.kernel;
        if usize::from(target.core()) >= kernel.links.cores() {
            kernel.stats.messages_undeliverable += 1;
            return true;
        }
        let correlation = trunk.node();
        let header = Header {
            target: target.to_bits(),
            source: source.to_bits(),
            correlation,
            kind: Kind::Send,
        };
        let pushed = kernel.links.push(kernel.now_us, target.core(), header, payload);
        if pushed.is_err() {
            return false;
        }
        kernel.stats.far_received += 1;
        if kernel.links.is_closed(target) {
            kernel.trunks.woke |= trunk.tell_full(target);
        }
        true
    }

    fn take_call(
        &mut self,
        trunk: &Rc<Trunk>,
        target: AgentId,
        (correlation, patience_ms): (u64, u32),
        payload: &[u8],
    ) -> bool {
        let kernel = &mut self.kernel;
        let refuse = |error| Record::Refusal { correlation, error };
        if usize::from(target.core()) >= kernel.links.cores() {
            kernel.stats.messages_undeliverable += 1;
            let gone = Error::NotFound(format!("agent {target} does not exist (any more)"));
            kernel.trunks.woke |= trunk.put(&refuse(gone));
            return true;
        }
        if trunk.leaves().is_some() {
            let stops = Error::Unavailable("the node is shutting down; nothing was done".into());
            kernel.trunks.woke |= trunk.put(&refuse(stops));
            return true;
        }
        if kernel.calls.is_full() || kernel.links.is_closed(target) {
            if kernel.links.is_closed(target) {
                kernel.trunks.woke |= trunk.tell_full(target);
            }
            kernel.trunks.woke |= trunk.put(&refuse(Error::Backpressure(10)));
            return true;
        }
        if kernel.links.is_full(target.core()) {
            return false;
        }
        kernel.stats.far_received += 1;
        let waiter = Waiter::FarCall { trunk: trunk.clone(), correlation };
        let key = kernel.open_call(waiter, patience_ms.max(1).into());
        trunk.serves(key.to_bits());
        let header = Header {
            target: target.to_bits(),
            source: door_of(kernel.index).to_bits(),
            correlation: key.to_bits(),
            kind: Kind::Call,
        };
        let pushed = kernel.links.push(kernel.now_us, target.core(), header, payload);
        assert_eq!(pushed, Ok(()), "the way was seen to have room");
        true
    }

    fn take_broadcast(
        &mut self,
        node: NodeId,
        source: AgentId,
        agent_type: &str,
        payload: &[u8],
    ) -> bool {
        let kernel = &mut self.kernel;
        let Some(type_index) = kernel.types.find(agent_type) else {
            kernel.stats.messages_undeliverable += 1;
            return true;
        };
        if kernel.links.is_type_closed(type_index) {
            // As the sender would have been refused here; it must not hold up all that is behind it.
            kernel.stats.messages_undeliverable += 1;
            return true;
        }
        let cores = kernel.links.cores() as CoreIndex;
        if (0..cores).any(|core| kernel.links.is_full(core)) {
            return false;
        }
        kernel.stats.far_received += 1;
        let header = Header {
            target: u64::from(type_index),
            source: source.to_bits(),
            correlation: node,
            kind: Kind::Broadcast,
        };
        kernel.broadcast_here(header, payload);
        true
    }

    /// A call of another node was answered, or will not be.
    pub(in crate::shard) fn answer_far(
        &mut self,
        trunk: &Rc<Trunk>,
        (key, correlation): (u64, u64),
        answer: Result<&[u8], Error>,
    ) {
        let record = match answer {
            Ok(payload) => Record::Reply { correlation, payload },
            Err(Error::Unavailable(why)) if why.len() > REASON_BYTES => {
                let why: String = why.chars().take(REASON_BYTES / 4).collect();
                Record::Refusal { correlation, error: Error::Unavailable(why + " …") }
            }
            Err(error) => Record::Refusal { correlation, error },
        };
        let most = trunk.bounds().record_bytes;
        let record = match &record {
            Record::Reply { payload, .. } if payload.len() + 64 > most => Record::Refusal {
                correlation,
                error: Error::TooLarge(format!(
                    "the answer has {} bytes, between nodes {most} are allowed \
                     (server.max_frame_bytes)",
                    payload.len()
                )),
            },
            _ => record,
        };
        trunk.served(key);
        self.kernel.trunks.woke |= trunk.put(&record);
    }

    /// A core of another node offers a trunk: tells the last of its frames that was taken, or `None`
    /// when nothing is known of a session that it means to go on with. A session that the offer ends goes on
    /// until the connection is there.
    ///
    /// # Errors
    /// [`Error::Conflict`] when that core has begun another session since.
    pub fn trunk_offered(&mut self, offer: &Offer) -> Result<Option<u64>, Error> {
        let key = (offer.from.node, offer.from.core);
        let known = self.kernel.trunks.accepted.get(&key).cloned();
        if let Some(known) = &known {
            let is_of_this_life = known.origin() == offer.from;
            if is_of_this_life && known.session() == offer.session {
                return Ok(Some(known.disconnect()));
            }
            if is_of_this_life && known.session() > offer.session {
                let text = format!("session {} is over", offer.session);
                return Err(Error::Conflict(text));
            }
        }
        let over = self.kernel.trunks.over.get(&key);
        let is_over =
            over.is_some_and(|(from, last)| *from == offer.from && offer.session <= *last);
        if is_over && !offer.resumes {
            // An offer that is late: who made it has had an answer to another one.
            return Err(Error::Conflict(format!("session {} is over", offer.session)));
        }
        // The answer to an offer may have come and the connection not: then it is gone on with what was
        // not begun here.
        let last = self.kernel.trunks.offered.get(&key);
        let is_offered = last.is_some_and(|last| {
            last.from == offer.from && last.session == offer.session && offer.taken == 0
        });
        if offer.resumes && (is_over || !is_offered) {
            return Ok(None);
        }
        self.kernel.trunks.offered.insert(key, *offer);
        Ok(Some(0))
    }

    /// The connection over which a trunk was offered is there: tells the trunk and the connection's
    /// number. `None` when the session is over, or another one was offered since.
    pub fn trunk_accepted(&mut self, offer: &Offer, bounds: Bounds) -> Option<(Rc<Trunk>, u64)> {
        let key = (offer.from.node, offer.from.core);
        let known = self.kernel.trunks.accepted.get(&key).cloned();
        let is_it =
            |known: &&Rc<Trunk>| known.origin() == offer.from && known.session() == offer.session;
        let trunk = match known.as_ref().filter(is_it) {
            Some(same) => same.clone(),
            None => {
                let offered = &mut self.kernel.trunks.offered;
                offered.get(&key).filter(|last| *last == offer)?;
                offered.remove(&key);
                if let Some(before) = known {
                    self.trunk_ended(&before, "it begins again");
                }
                let trunk = Rc::new(Trunk::from(offer, bounds));
                self.kernel.trunks.accepted.insert(key, trunk.clone());
                trunk
            }
        };
        trunk.limit_records(offer.record_bytes);
        match trunk.connect(offer.taken) {
            Ok(connection) => Some((trunk, connection)),
            Err(error) => {
                self.trunk_broken(&trunk, &error.to_string());
                self.trunk_ended(&trunk, &error.to_string());
                None
            }
        }
    }

    /// The other side of a trunk says what cannot be: its session goes on over no connection.
    pub fn trunk_broken(&mut self, trunk: &Rc<Trunk>, why: &str) {
        self.kernel.stats.far_broken += 1;
        let (node, core, session) = (trunk.node(), self.kernel.index, trunk.session());
        tracing::warn!(node, core, session, why, "a session with another node is broken");
    }

    /// A trunk is not taken that somebody offered in the name of a node, or answered in one.
    pub fn trunk_refused(&mut self) {
        self.kernel.stats.far_refused += 1;
    }

    /// The session of a trunk that this core dials is over, and the node is there: another session begins
    /// with what the node cannot have got, after the pause. `None` when there is nothing of that.
    pub fn trunk_begins_again(&mut self, trunk: &Rc<Trunk>, why: &str) -> Option<Duration> {
        let (ended, pause) = trunk.begin_again();
        self.session_ended(trunk, ended, why);
        pause
    }

    /// The session of a trunk is over: its calls have no answer, and what may not have arrived is told.
    pub fn trunk_ended(&mut self, trunk: &Rc<Trunk>, why: &str) {
        let (session, taken) = (trunk.session(), trunk.taken());
        let ended = trunk.end();
        if trunk.is_accepted() {
            let origin = trunk.origin();
            let Trunks { accepted, over, .. } = &mut self.kernel.trunks;
            let key = (origin.node, origin.core);
            if taken != Progress::default() {
                over.insert(key, (origin, session));
            }
            if accepted.get(&key).is_some_and(|known| Rc::ptr_eq(known, trunk)) {
                accepted.remove(&key);
            }
        }
        self.session_ended(trunk, ended, why);
    }

    fn session_ended(&mut self, trunk: &Rc<Trunk>, ended: Ended, why: &str) {
        let node = trunk.node();
        let Ended { asked, served, messages } = ended;
        if messages > 0 {
            self.kernel.stats.far_lost += messages;
            let core = self.kernel.index;
            tracing::warn!(
                node,
                core,
                messages,
                why,
                "messages for agents of another node may not have arrived"
            );
        }
        for key in served {
            // Nobody is left whom the agent could answer.
            drop(self.kernel.close_call(CallKey::from_bits(key)));
        }
        for (correlation, may_be_there) in asked {
            let error = match may_be_there {
                true => Error::Uncertain(format!("node {node}: {why}; the agent got it or not")),
                false => Error::Unavailable(format!("node {node}: {why}; nothing was sent")),
            };
            self.call_failed(CallKey::from_bits(correlation), error);
        }
        self.kernel.trunks.woke = true;
    }

    /// Ends the sessions with a node that is known to be gone, and the attempts that it was lent. One that
    /// was answered and has not begun stays: nothing was taken of it, so when the node lives after all it
    /// loses nothing by it.
    pub fn sever_trunks(&mut self, node: NodeId) {
        for trunk in self.kernel.trunks.of(node) {
            self.trunk_ended(&trunk, "the node is gone");
        }
        self.borrower_gone(node);
    }

    /// Wakes what drives a trunk after the core's next turn.
    ///
    /// A future that woke itself would keep the core: the engine goes on with futures that can run, and
    /// what they brought would wait for its timer.
    pub fn wake_after_turn(&mut self, waker: &Waker) {
        self.kernel.trunks.after_turn.push(waker.clone());
    }
}

impl crate::shard::kernel::Kernel {
    /// Puts a broadcast on its way to all cores, each of which was seen to have room.
    pub(in crate::shard) fn broadcast_here(&mut self, header: Header, payload: &[u8]) {
        let shared: Option<Arc<[u8]>> =
            (payload.len() >= self.links.shared_payload_bytes()).then(|| payload.into());
        for core in 0..self.links.cores() as CoreIndex {
            let pushed = match &shared {
                Some(shared) => {
                    let shared = Attachment::Payload(shared.clone());
                    self.links.push(self.now_us, core, header, shared)
                }
                None => self.links.push(self.now_us, core, header, payload),
            };
            assert!(pushed.is_ok(), "every way was seen to have room");
        }
    }
}
