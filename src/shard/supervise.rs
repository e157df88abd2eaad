//! Agents start, stop, pause, panic and start again.

use super::{
    core::{Shard, call},
    kernel::Timer,
};
use crate::{
    registry::{Entry, TypeIndex},
    wire::{
        api::{AgentState, AgentView, Error},
        batch::Kind,
        id::AgentId,
        letter::Notice,
    },
};
use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// The first pause before a crashed agent starts again; it doubles with each crash in the window.
const FIRST_RESTART_MS: u64 = 10;
/// The longest pause before a crashed agent starts again.
const LAST_RESTART_MS: u64 = 5000;

impl Shard {
    /// Lets this core's share of every pool start, one agent after the other.
    pub fn start_pools(&mut self) {
        let types = self.kernel.types.clone();
        for (type_index, spec) in types.iter() {
            for turn in 0..spec.share(self.kernel.index, spec.min) as u64 {
                let start_ms = self.kernel.now_ms() + turn * spec.warmup_delay_ms;
                self.kernel.wheel.insert(start_ms, Timer::Start(type_index, None));
            }
        }
    }

    /// Starts an agent.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is taken or the core has as many agents as it may,
    /// [`Error::Unavailable`] when the agent could not be made.
    pub fn start_agent(
        &mut self,
        type_index: TypeIndex,
        name: Option<String>,
    ) -> Result<AgentId, Error> {
        let types = self.kernel.types.clone();
        let spec = types
            .try_get(type_index)
            .ok_or_else(|| Error::NotFound("there is no such agent type".into()))?;
        if let Some(name) = &name
            && self.kernel.directory.find(name).is_some()
        {
            return Err(Error::Conflict(format!("an agent named {name} exists already")));
        }
        let of_type = self.agents.iter().filter(|agent| agent.type_index == type_index).count();
        if name.is_none() && of_type >= spec.share(self.kernel.index, spec.max) {
            return Err(Error::Conflict(format!(
                "core {} has as many agents of type {} as `max` allows",
                self.kernel.index, spec.name
            )));
        }
        let made = catch_unwind(AssertUnwindSafe(|| (spec.factory)()))
            .map_err(|panic| Error::Unavailable(describe(panic.as_ref())))?;
        let Some(id) = self.agents.insert(made, type_index, name.clone()) else {
            return Err(Error::Conflict(format!(
                "core {} owns as many agents as agents.max_per_core allows",
                self.kernel.index
            )));
        };
        self.kernel.directory.insert(id, Entry { type_index, name: name.clone() });
        self.kernel.notify(&Notice::AgentUp(id, type_index, name));
        self.tasks.agent_started(id, type_index, spec.max_tasks);
        self.with_agent(id, |agent, context| agent.on_start(context));
        Ok(id)
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
        self.remove_agent(id, "its agent was stopped");
        Ok(())
    }

    /// Stops every agent: the core is about to end.
    pub(super) fn stop_agents(&mut self) {
        let ids: Vec<AgentId> = self.agents.iter().map(|resident| resident.id).collect();
        for id in ids {
            drop(self.stop_agent(id));
        }
    }

    /// Takes an agent off the core; `why` is told to whoever waited for it.
    fn remove_agent(&mut self, id: AgentId, why: &str) -> Option<(TypeIndex, Option<String>)> {
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
        Some((resident.type_index, resident.name))
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
        let Some((type_index, name)) = self.remove_agent(id, "its agent crashed") else { return };
        self.schedule_restart(type_index, name);
    }

    fn schedule_restart(&mut self, type_index: TypeIndex, name: Option<String>) {
        let now_ms = self.kernel.now_ms();
        let crashes = self.tasks.crashes_of(type_index);
        let Some(delay_ms) = restart_delay(crashes, now_ms, &self.limits) else {
            let agent_type = &self.kernel.types.get(type_index).name;
            tracing::error!(agent_type, "crashed too often; it stays stopped until agent.spawn");
            return;
        };
        self.kernel.wheel.insert(now_ms + delay_ms, Timer::Start(type_index, name));
    }

    /// Starts an agent of a pool, at first or again.
    pub(super) fn start_again(&mut self, type_index: TypeIndex, name: Option<String>) {
        if let Err(error) = self.start_agent(type_index, name.clone()) {
            let agent_type = self.kernel.types.get(type_index).name.clone();
            tracing::error!(agent_type, %error, "an agent did not start");
            if !matches!(error, Error::Conflict(_)) {
                self.schedule_restart(type_index, name);
            }
        }
    }

    pub(super) fn pause(&mut self, id: AgentId) {
        let Some(resident) = self.agents.get_mut(id) else { return };
        resident.state = AgentState::Paused;
        self.tasks.set_ready(id, resident.type_index, false);
    }

    pub(super) fn resume(&mut self, id: AgentId) {
        let Some(resident) = self.agents.get_mut(id) else { return };
        resident.state = AgentState::Ready;
        self.tasks.set_ready(id, resident.type_index, true);
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

/// The pause before the next start, or `None` when there were too many crashes in the window.
fn restart_delay(
    crashes: &mut VecDeque<u64>,
    now_ms: u64,
    limits: &crate::config::Agents,
) -> Option<u64> {
    while crashes.front().is_some_and(|crash| now_ms - crash > limits.restart_window_ms) {
        crashes.pop_front();
    }
    if crashes.len() >= limits.max_restarts as usize {
        return None;
    }
    let doubled = FIRST_RESTART_MS << crashes.len().min(16);
    crashes.push_back(now_ms);
    Some(doubled.min(LAST_RESTART_MS))
}

/// What a panic said.
fn describe(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_slow_down_and_stop_until_the_window_has_passed() {
        let limits = crate::config::Agents {
            max_restarts: 3,
            restart_window_ms: 1000,
            ..crate::config::Config::default().agents
        };
        let mut crashes = VecDeque::new();
        let delays: Vec<_> =
            (0..4).map(|crash| restart_delay(&mut crashes, crash, &limits)).collect();
        assert_eq!(delays, [Some(10), Some(20), Some(40), None]);
        assert_eq!(restart_delay(&mut crashes, 1002, &limits), Some(20));
    }
}
