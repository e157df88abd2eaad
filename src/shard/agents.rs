//! The agents that one core owns, each in its slot.

use super::agent::Agent;
use crate::{
    registry::TypeIndex,
    task::pool::Seat,
    wire::{
        api::AgentState,
        batch::{Attachment, Header, Parcel},
        id::{AgentId, CoreIndex},
    },
};
use std::collections::VecDeque;

/// A message that waits in a mailbox, out of the buffer that it came in.
pub struct Stored {
    header: Header,
    payload: Box<[u8]>,
    attachment: Option<Attachment>,
}

impl Stored {
    /// Copies a message, or takes a reference to what travelled beside it.
    pub fn new(parcel: Parcel<'_>) -> Self {
        let beside = matches!(parcel.attachment, Some(Attachment::Payload(_)));
        let payload = if beside { Box::default() } else { parcel.payload.into() };
        Self { header: parcel.header, payload, attachment: parcel.attachment.cloned() }
    }

    /// The message as it arrived.
    pub fn parcel(&self) -> Parcel<'_> {
        let payload = match &self.attachment {
            Some(Attachment::Payload(payload)) => &payload[..],
            _ => &self.payload[..],
        };
        Parcel { header: self.header, payload, attachment: self.attachment.as_ref() }
    }
}

/// What a core knows of one of its agents.
pub struct Resident {
    /// The agent.
    pub id: AgentId,
    /// Its code and state.
    pub agent: Box<dyn Agent>,
    /// Its type.
    pub type_index: TypeIndex,
    /// Its name.
    pub name: Option<String>,
    /// Whether it takes messages and tasks.
    pub state: AgentState,
    /// Messages that arrived while it was not ready.
    pub mailbox: VecDeque<Stored>,
    /// Whether the other cores were told that the mailbox is full.
    pub told_full: bool,
    /// Tasks it ended well.
    pub done: u64,
    /// Attempts that failed on it.
    pub failed: u64,
    /// Its place in its pool.
    pub seat: Seat,
    /// Whether one of its methods was called since the pool looked last.
    pub used: bool,
}

struct Slot {
    generation: u32,
    resident: Option<Resident>,
}

/// All agents of one core.
pub struct Agents {
    core: CoreIndex,
    slots: Vec<Slot>,
    free: Vec<u32>,
    limit: usize,
}

impl Agents {
    /// Room for `limit` agents.
    pub fn new(core: CoreIndex, limit: usize) -> Self {
        Self { core, slots: Vec::new(), free: Vec::new(), limit }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Gives an agent a slot and an id, or refuses when the core owns as many as it may.
    pub fn insert(
        &mut self,
        agent: Box<dyn Agent>,
        type_index: TypeIndex,
        name: Option<String>,
        seat: Seat,
    ) -> Option<AgentId> {
        if self.len() >= self.limit {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, resident: None });
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        let id = AgentId::new(self.core, slot, place.generation);
        place.resident = Some(Resident {
            id,
            agent,
            type_index,
            name,
            state: AgentState::Ready,
            mailbox: VecDeque::new(),
            told_full: false,
            done: 0,
            failed: 0,
            seat,
            used: false,
        });
        Some(id)
    }

    /// Takes an agent out; its id never comes back to another one until generations wrap.
    pub fn remove(&mut self, id: AgentId) -> Option<Resident> {
        self.get_mut(id)?;
        let slot = &mut self.slots[id.slot() as usize];
        slot.generation = (slot.generation + 1) % AgentId::SLOTS;
        self.free.push(id.slot());
        slot.resident.take()
    }

    /// The agent of that id, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, id: AgentId) -> Option<&mut Resident> {
        let resident = self.slots.get_mut(id.slot() as usize)?.resident.as_mut()?;
        (resident.id == id).then_some(resident)
    }

    /// The agent in a slot.
    pub fn in_slot(&mut self, slot: u32) -> Option<&mut Resident> {
        self.slots.get_mut(slot as usize)?.resident.as_mut()
    }

    /// All agents, by slot, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Resident> {
        self.slots.iter_mut().filter_map(|slot| slot.resident.as_mut())
    }

    /// All agents, by slot.
    pub fn iter(&self) -> impl Iterator<Item = &Resident> {
        self.slots.iter().filter_map(|slot| slot.resident.as_ref())
    }
}
