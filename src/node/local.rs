//! The doors' view of a node on one core: sets a request on its way and waits for its answer.

use super::{Shared, gateway::Gateway};
use crate::{
    runtime::executor,
    shard::{
        core::Shard,
        doors::{self, Part},
        run::{Core, Door},
    },
    wire::{
        api::{
            AgentView, Completion, Error, Leased, NodeStats, Priority, TaskFilter, TaskPage,
            TaskSpec, TaskView, Worker,
        },
        id::{AgentId, CoreIndex, PartitionIndex, TaskId},
        letter::{Request, Response},
    },
};
use futures_channel::oneshot::{self, Receiver, Sender};
use std::{rc::Rc, sync::Arc, time::Duration};

/// The longest wait for a task's end that one request may ask for, milliseconds.
const WAIT_MS_MAX: u64 = 10 * 60 * 1000;
/// What a wait for a task's end takes on top until it counts as unanswered, milliseconds.
const ANSWER_MS: u64 = 5000;

/// A core's doors.
pub struct LocalGateway {
    core: Rc<Core>,
    shared: Arc<Shared>,
}

impl LocalGateway {
    /// The doors of a core.
    pub(crate) fn new(core: Rc<Core>, shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self { core, shared })
    }

    /// Tasks of this core's shard that the node waits for before it ends.
    pub(crate) fn wind_down(&self) -> u64 {
        self.core.with_shard(|shard| shard.wind_down())
    }

    /// Submits a task and waits for its end.
    ///
    /// # Errors
    /// As [`Gateway::submit`].
    pub async fn execute(self: Rc<Self>, spec: TaskSpec) -> Result<TaskView, Error> {
        self.check_accepting()?;
        self.request(|shard, answer| shard.execute(spec, answer)).await
    }

    /// Submits a task and waits for its end; while the node is full, tries again when it advises.
    ///
    /// # Errors
    /// As [`Gateway::submit`], but never [`Error::Backpressure`].
    pub async fn execute_when_there_is_room(
        self: Rc<Self>,
        spec: TaskSpec,
    ) -> Result<TaskView, Error> {
        loop {
            match self.clone().execute(spec.clone()).await {
                Err(Error::Backpressure(retry_after_ms)) => {
                    executor::sleep(Duration::from_millis(retry_after_ms)).await;
                }
                ended => return ended,
            }
        }
    }

    /// Adds a door, to be closed before the core stops.
    pub fn add_door(&self, door: Rc<dyn Door>) {
        self.core.add_door(door);
    }

    /// Closes this core's doors; tells whether nothing is inside any more. What is inside and waits
    /// for a task is answered with what there is now, since nothing will come of waiting longer.
    pub(crate) fn close_doors(&self) -> bool {
        let closed = self.core.close_doors();
        self.core.with_shard(|shard| shard.end_waits());
        closed
    }

    fn check_accepting(&self) -> Result<(), Error> {
        match self.shared.accepting() {
            true => Ok(()),
            false => Err(Error::Unavailable("the node is shutting down".into())),
        }
    }

    /// Sets something on its way at this core's shard and waits for the answer.
    async fn request<T>(
        &self,
        begin: impl FnOnce(&mut Shard, Sender<Result<T, Error>>) -> Result<(), Error>,
    ) -> Result<T, Error> {
        let (answer, answered): (_, Receiver<Result<T, Error>>) = oneshot::channel();
        self.core.with_shard(|shard| begin(shard, answer))?;
        let gone = || Error::Unavailable("the node has stopped".into());
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Worker cores of the node.
    pub(super) fn cores(&self) -> CoreIndex {
        self.shared.stats.len() as CoreIndex
    }

    /// This core.
    pub(super) fn index(&self) -> CoreIndex {
        self.core.with_shard(|shard| shard.index())
    }

    /// Asks a core for something whose answer is of no interest.
    pub(super) fn tell(&self, core: CoreIndex, request: &Request) {
        self.core.with_shard(|shard| shard.tell(core, request));
    }

    /// Asks a core.
    pub(super) async fn ask(
        &self,
        core: CoreIndex,
        request: &Request,
        timeout_ms: u64,
    ) -> Result<Response, Error> {
        self.request(|shard, answer| shard.ask(core, request, timeout_ms, answer)).await
    }

    /// The core that keeps a partition.
    pub(super) fn core_of(&self, partition: PartitionIndex) -> CoreIndex {
        partition % self.cores()
    }

    /// The core that keeps a task.
    fn core_of_task(&self, id: TaskId) -> Result<CoreIndex, Error> {
        match id.partition < self.shared.partitions {
            true => Ok(self.core_of(id.partition)),
            false => Err(Error::NotFound(format!("task {id} does not exist"))),
        }
    }

    /// The core that owns an agent, which `what` names.
    fn check_core(&self, core: CoreIndex, what: impl std::fmt::Display) -> Result<(), Error> {
        match (core as usize) < self.shared.stats.len() {
            true => Ok(()),
            false => Err(Error::NotFound(format!("{what} does not exist"))),
        }
    }

    /// Reserves room in every partition that takes a part of a batch; of all or of none.
    async fn reserve(&self, parts: Vec<Part>, least: Priority) -> Result<Reserved<'_>, Error> {
        let mut reserved = Reserved { gateway: self, parts: Vec::with_capacity(parts.len()) };
        for Part { partition, count, keys } in parts {
            let request = Request::Reserve(partition, count, least, keys);
            self.ask(self.core_of(partition), &request, 0).await?;
            reserved.parts.push((partition, count));
        }
        Ok(reserved)
    }
}

/// Room that was reserved; dropping it gives the room back.
struct Reserved<'a> {
    gateway: &'a LocalGateway,
    parts: Vec<(PartitionIndex, u32)>,
}

impl Reserved<'_> {
    /// The room is taken by submissions now.
    fn use_up(mut self) {
        self.parts.clear();
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        for &(partition, count) in &self.parts {
            let core = self.gateway.core_of(partition);
            self.gateway.tell(core, &Request::Release(partition, count));
        }
    }
}

/// Where the next part of a list of tasks begins: `partition.place`.
fn parse_cursor(text: &str) -> Result<(PartitionIndex, u64), Error> {
    let parts = text.split_once('.');
    let parsed =
        parts.and_then(|(partition, from)| Some((partition.parse().ok()?, from.parse().ok()?)));
    parsed.ok_or_else(|| Error::Invalid("cursor is not one that a list gave".into()))
}

impl Gateway for LocalGateway {
    async fn submit(self: Rc<Self>, specs: Vec<TaskSpec>) -> Result<Vec<TaskId>, Error> {
        self.check_accepting()?;
        if let [_] = specs[..] {
            return self.submit_each(specs).await?.into_iter().collect();
        }
        // One task is taken or refused as it arrives; of several all are or none, so their room
        // is reserved first.
        let place = |shard: &mut Shard| {
            specs.iter().map(|spec| shard.place(spec)).collect::<Result<Vec<_>, _>>()
        };
        let placed = self.core.with_shard(place)?;
        let least = specs.iter().map(|spec| spec.priority).min().unwrap_or_default();
        let reserved = self.reserve(doors::parts(&specs, &placed)?, least).await?;
        let begin = |shard: &mut Shard, answer| {
            shard.submit_reserved(&specs, &placed, answer)?;
            reserved.use_up();
            Ok(())
        };
        self.request(begin).await?.into_iter().collect()
    }

    async fn submit_each(
        self: Rc<Self>,
        specs: Vec<TaskSpec>,
    ) -> Result<Vec<Result<TaskId, Error>>, Error> {
        self.check_accepting()?;
        self.request(|shard, answer| shard.submit_each(&specs, answer)).await
    }

    async fn task_within(
        self: Rc<Self>,
        id: TaskId,
        wait_ms: u64,
        result_bytes: usize,
    ) -> Result<TaskView, Error> {
        let core = self.core_of_task(id)?;
        let wait_ms = wait_ms.min(WAIT_MS_MAX);
        let request = Request::Task(id, wait_ms, result_bytes as u64);
        match self.ask(core, &request, wait_ms + ANSWER_MS).await? {
            Response::Task(view) => Ok(view),
            other => unreachable!("a question for a task was answered with {other:?}"),
        }
    }

    async fn cancel(self: Rc<Self>, id: TaskId) -> Result<bool, Error> {
        match self.ask(self.core_of_task(id)?, &Request::Cancel(id), 0).await? {
            Response::Cancelled(cancelled) => Ok(cancelled),
            other => unreachable!("a cancellation was answered with {other:?}"),
        }
    }

    async fn tasks(
        self: Rc<Self>,
        filter: TaskFilter,
        cursor: Option<String>,
        max: u32,
    ) -> Result<TaskPage, Error> {
        if let Some(name) = &filter.agent_type {
            self.core.with_shard(|shard| shard.find_type(name))?;
        }
        let (mut partition, mut from) = cursor.as_deref().map_or(Ok((0, 0)), parse_cursor)?;
        let mut page = TaskPage::default();
        while partition < self.shared.partitions {
            let left = max - page.tasks.len() as u32;
            let request = Request::Tasks(partition, filter.clone(), from, left);
            let (tasks, next) = match self.ask(self.core_of(partition), &request, 0).await? {
                Response::Tasks(tasks, next) => (tasks, next),
                other => unreachable!("a question for tasks was answered with {other:?}"),
            };
            page.tasks.extend(tasks);
            (partition, from) = next.map_or((partition + 1, 0), |next| (partition, next));
            if page.tasks.len() as u32 >= max {
                let more = partition < self.shared.partitions;
                page.cursor = more.then(|| format!("{partition}.{from}"));
                break;
            }
        }
        Ok(page)
    }

    async fn requeue(self: Rc<Self>, id: TaskId) -> Result<(), Error> {
        self.check_accepting()?;
        self.ask(self.core_of_task(id)?, &Request::Requeue(id), 0).await.map(drop)
    }

    async fn register(self: Rc<Self>, types: Vec<String>, capacity: u32) -> Result<Worker, Error> {
        self.check_accepting()?;
        let find = |shard: &mut Shard| {
            types.iter().map(|name| shard.find_type(name)).collect::<Result<Vec<_>, _>>()
        };
        let types = self.core.with_shard(find)?;
        match self.ask(self.index(), &Request::Seat(types, capacity), 0).await? {
            Response::Seated(worker) => Ok(worker),
            other => unreachable!("a registration was answered with {other:?}"),
        }
    }

    async fn fetch(
        self: Rc<Self>,
        worker: Worker,
        max: u32,
        wait_ms: u64,
    ) -> Result<Leased, Error> {
        self.fetch_from_all(worker, max, wait_ms.min(WAIT_MS_MAX)).await
    }

    async fn end_attempts(
        self: Rc<Self>,
        completions: Vec<Completion>,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let ended = self.request(|shard, answer| shard.end_attempts(&completions, answer)).await?;
        Ok(ended.into_iter().map(|outcome| outcome.map(drop)).collect())
    }

    async fn extend(self: Rc<Self>, id: TaskId, lease: u64, extend_ms: u64) -> Result<(), Error> {
        self.ask(self.core_of_task(id)?, &Request::Extend(id, lease, extend_ms), 0).await.map(drop)
    }

    async fn leave(self: Rc<Self>, worker: Worker) {
        for (_, seat) in worker.seats {
            if let Err(error) = self.ask(seat.core(), &Request::Stop(seat), 0).await {
                tracing::debug!(%error, agent = %seat, "a worker had gone before");
            }
        }
    }

    async fn agents(self: Rc<Self>, agent_type: Option<String>) -> Result<Vec<AgentView>, Error> {
        let type_index = match agent_type {
            Some(name) => Some(self.core.with_shard(|shard| shard.find_type(&name))?),
            None => None,
        };
        let mut agents = Vec::new();
        for core in 0..self.shared.stats.len() {
            match self.ask(core as CoreIndex, &Request::Agents(type_index), 0).await? {
                Response::Agents(of_core) => agents.extend(of_core),
                other => unreachable!("a question for agents was answered with {other:?}"),
            }
        }
        Ok(agents)
    }

    async fn spawn(
        self: Rc<Self>,
        agent_type: String,
        name: Option<String>,
    ) -> Result<AgentId, Error> {
        self.check_accepting()?;
        let (core, request) = self.core.with_shard(|shard| shard.plan_spawn(&agent_type, name))?;
        match self.ask(core, &request, 0).await? {
            Response::Spawned(id) => Ok(id),
            other => unreachable!("a spawn was answered with {other:?}"),
        }
    }

    async fn stop(self: Rc<Self>, id: AgentId) -> Result<(), Error> {
        self.check_core(id.core(), format_args!("agent {id}"))?;
        self.ask(id.core(), &Request::Stop(id), 0).await.map(drop)
    }

    async fn send(self: Rc<Self>, id: AgentId, payload: Vec<u8>) -> Result<(), Error> {
        self.check_accepting()?;
        self.core.with_shard(|shard| shard.send_from_door(id, &payload))
    }

    async fn call(
        self: Rc<Self>,
        id: AgentId,
        payload: Vec<u8>,
        timeout_ms: u64,
    ) -> Result<Vec<u8>, Error> {
        self.check_accepting()?;
        self.request(|shard, answer| shard.call_from_door(id, &payload, timeout_ms, answer)).await
    }

    fn stats(&self) -> NodeStats {
        self.shared.stats()
    }

    fn ready(&self) -> bool {
        self.shared.accepting()
    }
}
