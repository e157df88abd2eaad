//! Agents start, stop, pause and panic.

use super::{
    agents::Resident,
    core::{Shard, call},
};
use crate::{
    registry::{Entry, TypeIndex},
    task::pool::{Input, Seat},
    wire::{
        api::{AgentState, AgentView, Error},
        batch::Kind,
        id::AgentId,
        letter::Notice,
    },
};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

impl Shard {
    /// Starts an agent in a seat of its pool.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is taken or the core owns as many agents as it may,
    /// [`Error::Unavailable`] when the agent could not be made.
    pub(super) fn start_agent(
        &mut self,
        type_index: TypeIndex,
        name: Option<String>,
        seat: Seat,
    ) -> Result<AgentId, Error> {
        let types = self.kernel.types.clone();
        let spec = types.get(type_index);
        if let Some(name) = &name
            && self.kernel.directory.find(name).is_some()
        {
            return Err(Error::Conflict(format!("an agent named {name} exists already")));
        }
        let made = catch_unwind(AssertUnwindSafe(|| (spec.factory)()))
            .map_err(|panic| Error::Unavailable(describe(panic.as_ref())))?;
        let Some(id) = self.agents.insert(made, type_index, name.clone(), seat) else {
            return Err(Error::Conflict(format!(
                "core {} owns as many agents as agents.max_per_core allows",
                self.kernel.index
            )));
        };
        self.kernel.stats.agents_started += 1;
        self.kernel.directory.insert(id, Entry { type_index, name: name.clone() });
        self.kernel.notify(&Notice::AgentUp(id, type_index, name));
        self.tasks.agent_started(id, type_index, spec.max_tasks);
        self.with_agent(id, |agent, context| agent.on_start(context));
        self.end_start(id);
        Ok(id)
    }

    /// An agent that paused itself while it started goes on starting until it resumes; any other
    /// is ready.
    fn end_start(&mut self, id: AgentId) {
        let Some(resident) = self.agents.get_mut(id) else { return };
        if resident.state == AgentState::Paused {
            resident.state = AgentState::Starting;
            self.kernel.directory.set_ready(id, false);
            self.kernel.notify(&Notice::AgentReady(id, false));
            return;
        }
        let (type_index, seat) = (resident.type_index, resident.seat);
        self.step_pool(type_index, Input::Ready(seat));
    }

    /// Stops an agent: what it was working on goes to others.
    pub(super) fn stop_agent(&mut self, id: AgentId) -> Result<(), Error> {
        if self.agents.get_mut(id).is_none() {
            return Err(Error::NotFound(format!("agent {id} does not exist (any more)")));
        }
        let stopped = call(&mut self.agents, &mut self.kernel, id, |agent, context| {
            agent.on_stop(context);
        });
        if let Err(panic) = stopped {
            tracing::error!(agent = %id, panic = describe(panic.as_ref()), "panicked in on_stop");
        }
        if let Some(resident) = self.remove_agent(id, "its agent was stopped") {
            self.step_pool(resident.type_index, Input::Stopped(resident.seat));
        }
        Ok(())
    }

    /// Stops every agent: the core is about to end.
    pub(super) fn stop_agents(&mut self) {
        self.pools.close();
        let ids: Vec<AgentId> = self.agents.iter().map(|resident| resident.id).collect();
        for id in ids {
            drop(self.stop_agent(id));
        }
    }

    /// Takes an agent off the core; `why` is told to whoever waited for it.
    fn remove_agent(&mut self, id: AgentId, why: &str) -> Option<Resident> {
        let resident = self.agents.remove(id)?;
        self.kernel.directory.remove(id);
        self.kernel.links.set_closed(id, None);
        self.kernel.notify(&Notice::AgentDown(id));
        self.kernel.stats.messages_undeliverable += resident.mailbox.len() as u64;
        for stored in &resident.mailbox {
            let header = stored.parcel().header;
            if header.kind == Kind::Call {
                self.refuse_call(header, &Error::Unavailable(why.into()));
            }
        }
        self.agent_gone(id, resident.type_index, why);
        Some(resident)
    }

    #[cold]
    pub(super) fn agent_panicked(&mut self, id: AgentId, panic: &(dyn Any + Send)) {
        self.kernel.stats.agent_panics += 1;
        self.agent_crashed(id, &format!("panicked: {}", describe(panic)));
    }

    /// Ends an agent that cannot go on, and starts another in its place after a pause.
    #[cold]
    pub(super) fn agent_crashed(&mut self, id: AgentId, reason: &str) {
        tracing::error!(agent = %id, reason, "an agent crashed");
        let Some(resident) = self.remove_agent(id, "its agent crashed") else { return };
        let (type_index, seat) = (resident.type_index, resident.seat);
        self.step_pool(type_index, Input::Crashed(seat));
        let agent_type = &self.kernel.types.get(type_index).name;
        match self.pools.starts_again_ms(type_index, seat) {
            Some(again_ms) => {
                let pause_ms = again_ms.saturating_sub(self.kernel.now_ms());
                tracing::info!(agent_type, pause_ms, "another agent takes its place after a pause");
            }
            None => tracing::error!(agent_type, "nobody takes its place before agent.spawn"),
        }
    }

    pub(super) fn pause(&mut self, id: AgentId) {
        let Some(resident) = self.agents.get_mut(id) else { return };
        if resident.state == AgentState::Ready {
            resident.state = AgentState::Paused;
        }
        self.tasks.set_ready(id, resident.type_index, false);
    }

    pub(super) fn resume(&mut self, id: AgentId) {
        let Some(resident) = self.agents.get_mut(id) else { return };
        let was = std::mem::replace(&mut resident.state, AgentState::Ready);
        let (type_index, seat) = (resident.type_index, resident.seat);
        self.tasks.set_ready(id, type_index, true);
        if was == AgentState::Starting {
            self.kernel.directory.set_ready(id, true);
            self.kernel.notify(&Notice::AgentReady(id, true));
            self.step_pool(type_index, Input::Ready(seat));
        }
        self.empty_mailbox(id);
    }

    /// This core's agents as doors see them.
    pub(super) fn list_agents(&self, type_index: Option<TypeIndex>) -> Vec<AgentView> {
        let wanted = |of_type: TypeIndex| type_index.is_none_or(|type_index| type_index == of_type);
        let residents = self.agents.iter().filter(|resident| wanted(resident.type_index));
        let view = |resident: &super::agents::Resident| {
            let spec = self.kernel.types.get(resident.type_index);
            AgentView {
                id: resident.id,
                agent_type: spec.name.clone(),
                kind: spec.kind,
                name: resident.name.clone(),
                state: resident.state,
                tasks: self.tasks.running_on(resident.id, resident.type_index),
                max_tasks: spec.max_tasks,
                done: resident.done,
                failed: resident.failed,
            }
        };
        residents.map(view).collect()
    }
}

/// What a panic said.
fn describe(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}
