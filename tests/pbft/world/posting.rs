//! What leaves somebody, on its way to somebody else, and what is made of it there.

use super::{CLIENTS_FROM, Due, World};
use crate::{
    operation::is_fit,
    trace::note,
    villain::{self, Parcel, Trick},
};
use bytes::Bytes;
use coreflow::consensus::pbft::{Dropped, Message};

impl World {
    pub(super) fn client_letters(&mut self, at: usize) {
        let (id, partition) = (self.askers[at].id, self.askers[at].partition);
        for (to, message) in self.askers[at].take_letters().collect::<Vec<_>>() {
            self.transmit(id, Parcel::new(partition, to, message));
        }
    }

    /// A replica, or what a villain makes of it, says something.
    pub(super) fn send(&mut self, at: usize, partition: u16, to: u64, message: Message) {
        let id = self.nodes[at].id;
        let Some(villain) = self.villains.get_mut(&id) else {
            self.oracle.say(id, partition, &message);
            self.duties.say(id, partition, &message);
            self.transmit(id, Parcel::new(partition, to, message));
            return;
        };
        let twin = self.nodes[..at].iter().filter(|node| node.id == id).count();
        if villain.has(Trick::Twin) && villain.twin_of(to) != twin {
            return;
        }
        let parcels = villain.twist(partition, to, message);
        self.post(id, parcels);
    }

    pub(super) fn post(&mut self, from: u64, parcels: Vec<Parcel>) {
        for parcel in parcels {
            self.transmit(from, parcel);
        }
    }

    pub(super) fn transmit(&mut self, from: u64, parcel: Parcel) {
        let Parcel { partition, to, message, late_us, garbled } = parcel;
        let (mut bytes, mut parts) = (Vec::new(), Vec::new());
        message.encode(&mut bytes, &mut parts);
        for _ in 0..garbled {
            let at = self.rng.usize(..bytes.len());
            bytes[at] ^= 1 << self.rng.u32(..8);
        }
        let bytes = Bytes::from(bytes);
        let arrivals: Vec<_> = self.network.arrivals(self.now_us + late_us, from, to).collect();
        for due_us in arrivals {
            let (bytes, parts) = (bytes.clone(), parts.clone());
            let due = Due::Arrive { from, to, partition, bytes, parts };
            self.later(due_us - self.now_us, due);
        }
    }

    pub(super) fn arrive(
        &mut self,
        from: u64,
        to: u64,
        partition: u16,
        bytes: &Bytes,
        parts: &[Bytes],
    ) {
        let message = match Message::decode(bytes, parts) {
            Ok(message) => message,
            Err(error) => {
                assert!(self.villains.contains_key(&from), "{from} wrote what is {error}");
                self.summary.dropped += 1;
                return;
            }
        };
        if !is_fit(&message) {
            assert!(self.villains.contains_key(&from), "{from} carries what nobody may ask for");
            self.summary.dropped += 1;
            return;
        }
        self.summary.messages += 1;
        if to >= CLIENTS_FROM {
            let at = (to - CLIENTS_FROM) as usize;
            self.askers[at].hear(from, &message);
            for (what, index, is_fast) in self.askers[at].take_done() {
                note!(self.trace, "{to} is answered {what:?} at {index} {is_fast}");
                self.oracle.accept(partition, what, index);
                *(if is_fast { &mut self.summary.fast } else { &mut self.summary.slow }) += 1;
                self.snuff();
                // Just now others may be about to learn of it.
                if self.rng.bool() {
                    self.askers[at].ask_head(self.oracle.accepted_upto(partition));
                }
            }
            if let Some((accepted, seq, chain)) = self.askers[at].take_head() {
                note!(self.trace, "{to} reads {partition} up to {seq}, behind {accepted}");
                self.oracle.read_head(partition, accepted, seq, chain);
                self.summary.reads += 1;
            }
            self.client_letters(at);
            return;
        }
        let mut only = None;
        if let Some(villain) = self.villains.get_mut(&to) {
            if !villain.hears(from) {
                return;
            }
            only = villain.has(Trick::Twin).then(|| villain.twin_of(from));
            let parcels = villain.hear(partition, from, &message);
            self.post(to, parcels);
        }
        let mut twin = 0;
        for at in 0..self.nodes.len() {
            if self.nodes[at].id != to {
                continue;
            }
            let is_it = only.is_none_or(|only| only == twin) || from >= CLIENTS_FROM;
            twin += 1;
            let Some(driver) = self.nodes[at].driver.as_mut().filter(|_| is_it) else { continue };
            let taken = driver.step(partition, from, message.clone());
            let kind = villain::kind(&message);
            note!(self.trace, "{to} hears {from} in {partition}: {kind} {taken:?}");
            let is_lie = matches!(taken, Err(Dropped::Signature | Dropped::Distrusted));
            if self.villains.contains_key(&from) {
                self.summary.dropped += u64::from(taken.is_err());
            } else {
                assert!(
                    !is_lie || self.villains.contains_key(&to),
                    "{to} distrusts {from}: {kind}"
                );
            }
            self.turn(at);
        }
    }
}
