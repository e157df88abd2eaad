//! The doors' view of a node on one core: sets a request on its way and waits for its answer.

use super::{
    Shared,
    forward::Forwarder,
    gateway::{
        Answer, Ask, Challenge, ClusterStatus, Gateway, Known, Offer, TrunkAnswer, TrunkOffer,
        TrunkWords,
    },
    gossip, lend,
    trunk::{self, Dialer},
};
use crate::{
    runtime::{executor, net::TcpStream},
    shard::{
        core::Shard,
        doors::{self, Part, Placed},
        run::{Core, Door},
    },
    wire::{
        api::{
            AgentView, Completion, Error, Guest, Leased, NodeStats, Priority, Ran, TaskFilter,
            TaskPage, TaskSpec, TaskView, Worker,
        },
        id::{AgentAddress, AgentId, CoreIndex, PartitionIndex, TaskId},
        letter::{Request, Response},
        memory::{MemoryHit, MemoryItem, MemoryPage, MemoryQuery, MemoryStats, Metric},
        neighbours::{AgentFilter, FarAgent, Neighbour},
    },
};
use futures_channel::oneshot::{self, Receiver, Sender};
use std::{rc::Rc, sync::Arc, time::Duration};

/// The longest wait for a task's end that one request may ask for, milliseconds.
const WAIT_MS_MAX: u64 = 10 * 60 * 1000;

/// A core's doors.
pub struct LocalGateway {
    pub(super) core: Rc<Core>,
    pub(super) shared: Arc<Shared>,
    /// The way to other nodes, when they may lead partitions.
    pub(super) forwarder: Option<Rc<Forwarder>>,
    /// Whether what another node leads goes there; if not it is refused.
    pub(super) forwards: bool,
}

impl LocalGateway {
    /// The doors of a core.
    pub(crate) fn new(core: Rc<Core>, shared: Arc<Shared>) -> Rc<Self> {
        let forwarder = shared.cluster.as_ref().zip(shared.forward.as_ref());
        let forwarder = forwarder.map(|(cluster, settings)| {
            core.companion(|| Forwarder::new(cluster.clone(), settings.clone()))
        });
        Rc::new(Self { core, shared, forwarder, forwards: true })
    }

    /// Lets agents of this core talk to those of other nodes, and know who is where.
    pub(crate) fn join_cluster(&self) {
        let Shared { cluster, forward, neighbours, .. } = &*self.shared;
        let (Some(cluster), Some(settings), Some(desk)) = (cluster, forward, neighbours) else {
            return;
        };
        let dialer = Dialer::new(&self.core, cluster.clone(), settings.clone());
        let gossip::Desk { board, bulletin, .. } = desk.clone();
        let way = self.forwarder.as_ref().map(|it| lend::Way::new(&self.core, it.clone()));
        self.core.with_shard(|shard| {
            shard.join_cluster(cluster.leaders.me(), dialer, board, bulletin, self.shared.cache);
            if let Some(way) = way {
                shard.lend_to_others(way);
            }
        });
    }

    /// Takes messages for agents from another node, on the core that has its session, until the
    /// connection ends. From `leaves` on no call begins.
    pub(crate) async fn serve_trunk(
        &self,
        offer: Offer,
        stream: TcpStream,
        leaves: impl Future<Output = ()>,
    ) {
        let Some(settings) = &self.shared.forward else { return };
        let bounds = trunk::bounds(settings);
        trunk::serve_at_home(&self.shared.jobs, bounds, offer, stream, leaves).await;
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
        if self.forwarder.is_some() {
            return self.execute_in_cluster(spec).await;
        }
        self.request(|shard, answer| shard.execute(spec, answer)).await
    }

    async fn execute_in_cluster(&self, spec: TaskSpec) -> Result<TaskView, Error> {
        let ids = self.submit_at_leaders(vec![spec]).await?;
        let [id] = ids[..] else { unreachable!("one task has one id") };
        loop {
            let view = self.task_at_leader(id, WAIT_MS_MAX, usize::MAX).await?;
            if view.status.is_ended() {
                return Ok(view);
            }
        }
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
        // What another node sends belongs here until this one has handed over what it leads.
        match self.shared.accepting() || !self.forwards {
            true => Ok(()),
            false => Err(Error::Unavailable("the node is shutting down".into())),
        }
    }

    /// Sets something on its way at this core's shard and waits for the answer.
    pub(super) async fn request<T>(
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

    /// Finds out whether there is the partition of a task.
    pub(super) fn check_partition(&self, id: TaskId) -> Result<(), Error> {
        match id.partition < self.shared.partitions.all {
            true => Ok(()),
            false => Err(Error::NotFound(format!("task {id} does not exist"))),
        }
    }

    /// Ends attempts of partitions that this node leads.
    pub(super) async fn end_attempts_here(
        &self,
        completions: &[Completion],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let ended = self.request(|shard, answer| shard.end_attempts(completions, answer)).await?;
        Ok(ended.into_iter().map(|outcome| outcome.map(drop)).collect())
    }

    /// Submits placed tasks, all or none: their room is reserved first.
    pub(super) async fn submit_all_here(
        &self,
        specs: &[TaskSpec],
        placed: &[Placed],
    ) -> Result<Vec<TaskId>, Error> {
        let least = specs.iter().map(|spec| spec.priority).min().unwrap_or_default();
        let reserved = self
            .reserve(doors::parts(specs, placed, self.shared.partitions.agreed)?, least)
            .await?;
        let begin = |shard: &mut Shard, answer| {
            shard.submit_reserved(specs, placed, answer)?;
            reserved.use_up();
            Ok(())
        };
        self.request(begin).await?.into_iter().collect()
    }

    /// The core that owns an agent, which `what` names.
    fn check_core(&self, core: CoreIndex, what: impl std::fmt::Display) -> Result<(), Error> {
        match (core as usize) < self.shared.stats.len() {
            true => Ok(()),
            false => Err(Error::NotFound(format!("{what} does not exist"))),
        }
    }

    /// Names of tasks that never were, for what other nodes hand on, when this one lies.
    #[cfg(feature = "byzantine")]
    fn made_up(&self, count: usize) -> Option<Vec<TaskId>> {
        let lies = !self.forwards && crate::consensus::agreement::byzantine::acknowledges();
        let made_up = |_| TaskId { partition: 0, random: fastrand::u128(..) };
        lies.then(|| (0..count).map(made_up).collect())
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
    async fn breathe(&self) {
        executor::breathe().await;
    }

    async fn submit(self: Rc<Self>, specs: Vec<TaskSpec>) -> Result<Vec<TaskId>, Error> {
        self.check_accepting()?;
        #[cfg(feature = "byzantine")]
        if let Some(ids) = self.made_up(specs.len()) {
            return Ok(ids);
        }
        self.submit_at_leaders(specs).await
    }

    async fn submit_each(
        self: Rc<Self>,
        specs: Vec<TaskSpec>,
    ) -> Result<Vec<Result<TaskId, Error>>, Error> {
        self.check_accepting()?;
        #[cfg(feature = "byzantine")]
        if let Some(ids) = self.made_up(specs.len()) {
            return Ok(ids.into_iter().map(Ok).collect());
        }
        if self.forwarder.is_some() {
            return self.submit_each_at_leaders(specs).await;
        }
        self.request(|shard, answer| shard.submit_each(&specs, answer)).await
    }

    async fn task_within(
        self: Rc<Self>,
        id: TaskId,
        wait_ms: u64,
        result_bytes: usize,
    ) -> Result<TaskView, Error> {
        self.check_partition(id)?;
        self.task_at_leader(id, wait_ms.min(WAIT_MS_MAX), result_bytes).await
    }

    async fn cancel(self: Rc<Self>, id: TaskId) -> Result<bool, Error> {
        self.check_partition(id)?;
        self.cancel_at_leader(id).await
    }

    async fn tasks(
        self: Rc<Self>,
        filter: TaskFilter,
        cursor: Option<String>,
        max: u32,
    ) -> Result<TaskPage, Error> {
        if let Some(name) = &filter.agent_type {
            self.core.with_shard(|shard| shard.check_type(name))?;
        }
        let (mut partition, mut from) = cursor.as_deref().map_or(Ok((0, 0)), parse_cursor)?;
        let mut page = TaskPage::default();
        while partition < self.shared.partitions.all {
            let left = max - page.tasks.len() as u32;
            let (tasks, next) = self.tasks_at_leader(partition, &filter, from, left).await?;
            page.tasks.extend(tasks);
            (partition, from) = next.map_or((partition + 1, 0), |next| (partition, next));
            if page.tasks.len() as u32 >= max {
                let more = partition < self.shared.partitions.all;
                page.cursor = more.then(|| format!("{partition}.{from}"));
                break;
            }
        }
        Ok(page)
    }

    async fn requeue(self: Rc<Self>, id: TaskId) -> Result<(), Error> {
        self.check_accepting()?;
        self.check_partition(id)?;
        self.requeue_at_leader(id).await
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
        self.end_attempts_at_leaders(completions).await
    }

    async fn extend(self: Rc<Self>, id: TaskId, lease: u64, extend_ms: u64) -> Result<(), Error> {
        self.extend_anywhere(id, lease, extend_ms).await
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

    async fn send(
        self: Rc<Self>,
        to: impl Into<AgentAddress>,
        payload: Vec<u8>,
    ) -> Result<(), Error> {
        self.check_accepting()?;
        self.core.with_shard(|shard| shard.send_from_door(to.into(), &payload))
    }

    async fn call(
        self: Rc<Self>,
        to: impl Into<AgentAddress>,
        payload: Vec<u8>,
        timeout_ms: u64,
    ) -> Result<Vec<u8>, Error> {
        self.check_accepting()?;
        let to = to.into();
        self.request(|shard, answer| shard.call_from_door(to, &payload, timeout_ms, answer)).await
    }

    fn known(&self) -> Option<Known> {
        let secret = self.shared.forward.as_ref()?.secret.clone()?;
        Some(Known::new(self.shared.cluster.as_ref()?.leaders.me(), secret))
    }

    async fn judge_trunk(
        self: Rc<Self>,
        said: TrunkOffer,
        given: Option<Challenge>,
    ) -> Result<TrunkAnswer, Error> {
        let settings = self.shared.forward.as_ref();
        let me = self.shared.cluster.as_ref().map(|cluster| cluster.leaders.me());
        let secret = settings.and_then(|settings| settings.secret.as_ref());
        let judged = trunk::judge(settings.and(me), secret, &said, given);
        let version = match judged {
            Ok(Ok(version)) => version,
            Ok(Err(challenge)) => return Ok(TrunkAnswer::Challenged(challenge)),
            Err(refused) => {
                self.core.with_shard(|shard| shard.trunk_refused());
                return Err(refused);
            }
        };
        let offer = said.offer;
        let from = offer.from.node;
        if self.shared.cluster.as_ref().is_none_or(|it| it.address(from).is_none()) {
            // It may have heard of this node before this one hears of it.
            return Err(Error::Unavailable(format!("from: no node {from} is known yet")));
        }
        let bounds = trunk::bounds(settings.expect("it was judged"));
        let taken = trunk::offered(&self.shared.jobs, offer).await?;
        let words = TrunkWords { record_bytes: bounds.record_bytes, version, taken };
        let proof = trunk::prove_answer(secret, &said, given, &words);
        Ok(TrunkAnswer::Heard { words, proof })
    }

    fn stats(&self) -> NodeStats {
        self.shared.stats()
    }

    fn readiness(&self) -> Result<(), String> {
        self.shared.readiness()
    }

    fn here(self: Rc<Self>) -> Rc<Self> {
        let (core, shared) = (self.core.clone(), self.shared.clone());
        Rc::new(Self { core, shared, forwarder: self.forwarder.clone(), forwards: false })
    }

    async fn tasks_of(
        self: Rc<Self>,
        partition: PartitionIndex,
        filter: TaskFilter,
        from: u64,
        max: u32,
    ) -> Result<(Vec<TaskView>, Option<u64>), Error> {
        self.check_partition(TaskId { partition, random: 0 })?;
        self.tasks_at_leader(partition, &filter, from, max).await
    }

    async fn run_guest(self: Rc<Self>, agent_type: String, guest: Guest) -> Result<Ran, Error> {
        self.run_guest_here(&agent_type, guest).await
    }

    fn stop_guest(&self, id: TaskId, lease: u64) {
        self.stop_guest_here(id, lease);
    }

    fn cluster_status(&self) -> Result<Arc<ClusterStatus>, Error> {
        self.shared.cluster_status()
    }

    fn agents_everywhere(&self, filter: &AgentFilter) -> Option<Vec<FarAgent>> {
        self.shared.agents_everywhere(filter)
    }

    fn is_able(&self, agent_type: &str, capability: &str) -> bool {
        self.shared.is_able(agent_type, capability)
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        self.shared.neighbours()
    }

    fn find_agent(&self, name: &str) -> Option<AgentAddress> {
        self.core.with_shard(|shard| shard.find_agent(name))
    }

    async fn ask_cluster(self: Rc<Self>, ask: Ask) -> Result<Answer, Error> {
        self.shared.ask_cluster(ask).await
    }

    async fn memory_put(
        self: Rc<Self>,
        items: Vec<MemoryItem>,
    ) -> Result<Vec<Result<bool, Error>>, Error> {
        self.check_accepting()?;
        self.put_items(items).await
    }

    async fn memory_get(
        self: Rc<Self>,
        namespace: String,
        key: String,
    ) -> Result<MemoryItem, Error> {
        self.get_item(namespace, key).await
    }

    async fn memory_delete(self: Rc<Self>, namespace: String, key: String) -> Result<bool, Error> {
        self.check_accepting()?;
        self.delete_item(namespace, key).await
    }

    async fn memory_search(self: Rc<Self>, query: MemoryQuery) -> Result<Vec<MemoryHit>, Error> {
        self.search_items(query).await
    }

    async fn memory_list(
        self: Rc<Self>,
        namespace: Option<String>,
        cursor: Option<String>,
        max: u32,
    ) -> Result<MemoryPage, Error> {
        self.list_items(namespace, cursor, max).await
    }

    async fn memory_stats(self: Rc<Self>, sample: u32) -> Result<MemoryStats, Error> {
        self.describe_memory(sample).await
    }

    async fn memory_embed(
        self: Rc<Self>,
        texts: Vec<String>,
    ) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        self.shared.embedder.embed(texts).await
    }

    fn embedder_name(&self) -> &'static str {
        self.shared.embedder.name()
    }

    fn memory_shape(&self) -> Option<(usize, Metric)> {
        Some(self.shared.embedder.shape())
    }
}
