//! What arrives: messages to agents, answers, broadcasts, and letters between cores.

use super::{
    agent::{CallId, Message, Reply},
    agents::Stored,
    bulletin::AgentNews,
    calls::CallKey,
    context::Context,
    core::Shard,
    kernel::{Waiter, door_of},
};
use crate::{
    registry::{Entry, TypeIndex},
    wire::{
        api::{AgentState, ArchivedError, Error},
        batch::{Batch, Header, Kind, Parcel, Value},
        id::AgentId,
        letter::{
            ArchivedNotice, ArchivedRequest, ArchivedResponse, Beside, Notice, Request, Response,
        },
    },
};
use rkyv::{deserialize, rancor};

/// Reads an archived letter of this process as a value.
macro_rules! letter {
    ($parcel:expr, $archived:ty, $native:ty) => {
        deserialize::<$native, rancor::Error>($parcel.open::<$archived>())
            .expect("a letter of this program deserializes")
    };
}

impl Shard {
    /// Delivers a batch, message by message, in order.
    pub(super) fn deliver_batch(&mut self, batch: &Batch) {
        // It may name a type that another core learned just now.
        self.know_types();
        let count = batch.len();
        let mut next = 0;
        while next < count {
            let progress = &mut next;
            self.catch(|shard| {
                while *progress < count {
                    let parcel = batch.parcel(*progress);
                    *progress += 1;
                    shard.deliver(parcel);
                }
            });
            self.run_commands();
        }
    }

    #[inline]
    fn deliver(&mut self, parcel: Parcel<'_>) {
        let header = parcel.header;
        match header.kind {
            Kind::Send | Kind::Call => {
                self.deliver_message(AgentId::from_bits(header.target), parcel);
            }
            Kind::Broadcast => self.deliver_broadcast(header.target as TypeIndex, parcel),
            Kind::Submit => self.accept_submission(parcel),
            Kind::Ending => self.accept_ending(parcel),
            Kind::TaskEvent => self.deliver_news(parcel),
            Kind::Reply => self.deliver_reply(header.correlation, Ok(parcel.payload)),
            Kind::Refusal => {
                let error = letter!(parcel, ArchivedError, Error);
                self.deliver_reply(header.correlation, Err(error));
            }
            Kind::Request => {
                let request = match parcel.attachment {
                    None => letter!(parcel, ArchivedRequest, Request),
                    Some(beside) => Beside::take(beside),
                };
                let asker = AgentId::from_bits(header.source).core();
                self.handle_request(asker, header.correlation, request);
            }
            Kind::Response => {
                let response = match parcel.attachment {
                    None => letter!(parcel, ArchivedResponse, Response),
                    Some(beside) => Beside::take(beside),
                };
                self.deliver_response(header.correlation, response);
            }
            Kind::Notice => self.deliver_notice(letter!(parcel, ArchivedNotice, Notice)),
        }
    }

    /// Calls the receiver, or puts the message in its mailbox while it is not ready.
    #[inline]
    fn deliver_message(&mut self, id: AgentId, parcel: Parcel<'_>) {
        let Some(resident) = self.agents.get_mut(id) else {
            return self.undeliverable(parcel.header);
        };
        if resident.state == AgentState::Ready && resident.mailbox.is_empty() {
            self.current = Some(id);
            resident.used = true;
            let mut context = Context { kernel: &mut self.kernel, id };
            resident.agent.on_message(&Message::new(parcel), &mut context);
            self.current = None;
            self.kernel.stats.messages_delivered += 1;
            if !self.kernel.commands.is_empty() {
                self.run_commands();
            }
            return;
        }
        resident.mailbox.push_back(Stored::new(parcel));
        let full = resident.mailbox.len() >= self.mailbox_messages;
        if full && !resident.told_full {
            resident.told_full = true;
            let notice = Notice::MailboxFull(id, resident.type_index);
            self.kernel.notify(&notice);
        }
    }

    /// Delivers what waited in an agent's mailbox, as long as the agent stays ready.
    pub(super) fn empty_mailbox(&mut self, id: AgentId) {
        loop {
            let Some(resident) = self.agents.get_mut(id) else { return };
            if resident.state != AgentState::Ready {
                return;
            }
            let stored = resident.mailbox.pop_front();
            let low = resident.mailbox.len() <= self.mailbox_messages / 2;
            if resident.told_full && low {
                resident.told_full = false;
                self.kernel.notify(&Notice::MailboxOpen(id));
            }
            let Some(stored) = stored else { return };
            self.kernel.stats.messages_delivered += 1;
            self.with_agent(id, |agent, context| {
                agent.on_message(&Message::new(stored.parcel()), context);
            });
        }
    }

    #[cold]
    fn undeliverable(&mut self, header: Header) {
        self.kernel.stats.messages_undeliverable += 1;
        if header.kind == Kind::Call {
            let gone = Error::NotFound(format!(
                "agent {} does not exist (any more)",
                AgentId::from_bits(header.target)
            ));
            self.refuse_call(header, &gone);
        }
    }

    /// Tells a caller that there will be no answer.
    pub(super) fn refuse_call(&mut self, call: Header, error: &Error) {
        let caller = AgentId::from_bits(call.source);
        let header = Header {
            target: call.source,
            source: call.target,
            correlation: call.correlation,
            kind: Kind::Refusal,
        };
        self.kernel.push_owed(caller.core(), header, Value(error));
    }

    fn deliver_broadcast(&mut self, type_index: TypeIndex, parcel: Parcel<'_>) {
        let core = self.kernel.index;
        let receivers: Vec<AgentId> =
            self.kernel.directory.of_type(type_index).filter(|id| id.core() == core).collect();
        for receiver in receivers {
            let header = Header { target: receiver.to_bits(), kind: Kind::Send, ..parcel.header };
            self.catch(|shard| shard.deliver_message(receiver, Parcel { header, ..parcel }));
        }
    }

    pub(super) fn deliver_reply(&mut self, correlation: u64, answer: Result<&[u8], Error>) {
        let Some(waiter) = self.kernel.close_call(CallKey::from_bits(correlation)) else { return };
        self.settle(correlation, waiter, answer);
    }

    /// Ends a question without an answer.
    pub(super) fn call_failed(&mut self, call: CallKey, error: Error) {
        let Some(waiter) = self.kernel.close_call(call) else { return };
        match waiter {
            Waiter::AgentCall(_) | Waiter::DoorCall(_) | Waiter::FarCall { .. } => {
                self.settle(call.to_bits(), waiter, Err(error));
            }
            _ => self.settle_response(call.to_bits(), waiter, Response::Failed(error)),
        }
    }

    fn settle(&mut self, call: u64, waiter: Waiter, answer: Result<&[u8], Error>) {
        match waiter {
            Waiter::AgentCall(agent) => {
                let answer = match &answer {
                    Ok(bytes) => Ok(*bytes),
                    Err(error) => Err(error),
                };
                let reply = Reply { call: CallId(call), answer };
                self.with_agent(agent, |agent, context| agent.on_reply(&reply, context));
            }
            Waiter::DoorCall(door) => {
                self.woke_futures = true;
                // A door that went away no longer wants the answer.
                let _ = door.send(answer.map(<[u8]>::to_vec));
            }
            Waiter::FarCall { trunk, correlation } => {
                self.answer_far(&trunk, (call, correlation), answer);
            }
            _ => unreachable!("only calls are answered with bytes"),
        }
    }

    fn deliver_response(&mut self, correlation: u64, response: Response) {
        let Some(waiter) = self.kernel.close_call(CallKey::from_bits(correlation)) else { return };
        self.settle_response(correlation, waiter, response);
    }

    fn settle_response(&mut self, correlation: u64, waiter: Waiter, response: Response) {
        match waiter {
            Waiter::AgentSpawn(agent) => {
                let spawned = match response {
                    Response::Spawned(id) => Ok(id),
                    Response::Failed(error) => Err(error),
                    other => unreachable!("a spawn was answered with {other:?}"),
                };
                self.with_agent(agent, |agent, context| {
                    agent.on_spawned(CallId(correlation), spawned, context);
                });
            }
            Waiter::DoorRequest(door) => {
                self.woke_futures = true;
                let answer = match response {
                    Response::Failed(error) => Err(error),
                    response => Ok(response),
                };
                // A door that went away no longer wants the answer.
                let _ = door.send(answer);
            }
            Waiter::DoorEach { answer, .. } => {
                self.woke_futures = true;
                let _ = answer.send(Err(failure(response)));
            }
            Waiter::DoorExecute { answer, .. } => {
                self.woke_futures = true;
                let _ = answer.send(Err(failure(response)));
            }
            Waiter::Nobody => {}
            Waiter::AgentCall(_) | Waiter::DoorCall(_) | Waiter::FarCall { .. } => {
                unreachable!("agents answer calls, cores do not")
            }
        }
    }

    fn deliver_notice(&mut self, notice: Notice) {
        match notice {
            Notice::AgentUp(id, type_index, name) => {
                if let (Some(neighbours), true) =
                    (&self.kernel.neighbours, id.core() == self.kernel.index)
                {
                    neighbours.tell(id, AgentNews::Up(type_index, name.clone()));
                }
                self.kernel.directory.insert(id, Entry { type_index, name });
            }
            Notice::AgentReady(id, ready) => self.kernel.directory.set_ready(id, ready),
            Notice::AgentDown(id) => {
                if let (Some(neighbours), true) =
                    (&self.kernel.neighbours, id.core() == self.kernel.index)
                {
                    neighbours.tell(id, AgentNews::Down);
                }
                self.kernel.directory.remove(id);
                self.kernel.links.set_closed(id, None);
                self.kernel.trunks.has_room(id);
                self.worker_gone(id);
                // If it was the last of its type, its tasks may go to other nodes.
                if self.kernel.neighbours.is_some() {
                    self.tasks.look_again();
                }
            }
            Notice::MailboxFull(id, type_index) => {
                self.kernel.links.set_closed(id, Some(type_index));
            }
            Notice::MailboxOpen(id) => {
                self.kernel.links.set_closed(id, None);
                self.kernel.trunks.has_room(id);
            }
        }
    }

    /// Whether a source is a door and not an agent.
    pub(super) fn is_door(source: AgentId) -> bool {
        source == door_of(source.core())
    }
}

fn failure(response: Response) -> Error {
    match response {
        Response::Failed(error) => error,
        other => unreachable!("a submission was answered with {other:?}"),
    }
}
