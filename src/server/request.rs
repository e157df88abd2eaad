//! The requests that every door takes: parsed from one parameter map, run against the gateway.

use super::{
    Limits,
    cluster::{self, ClusterRequest},
    here::{self, HereRequest},
    large::LargeResults,
    memory::{self, MemoryRequest},
    params::{Fields, agent_id, required, task_id, task_spec},
    reply::Reply,
    worker::{self, WorkerRequest, WorkerSession},
};
use crate::{
    node::gateway::{Gateway, TrunkAnswer, prepare},
    wire::{
        api::{AgentView, Error, TaskFilter, TaskSpec, TaskStatus},
        id::{AgentAddress, AgentId, TaskId},
        msgpack::Reader,
        neighbours::{AgentFilter, FarAgent},
    },
};
use std::rc::Rc;

/// Tasks in one part of a list.
const PAGE_TASKS: u32 = 100;
/// Agents in one part of a list of all nodes.
const PAGE_AGENTS: usize = 1000;

/// A request whose parameters are right.
#[derive(Debug)]
pub enum Request {
    /// `task.submit`
    Submit(TaskSpec),
    /// `task.submit_batch`
    SubmitBatch(Vec<TaskSpec>),
    /// `task.status`
    TaskStatus(TaskId),
    /// `task.result`
    TaskResult {
        /// The task.
        id: TaskId,
        /// How long to wait for it to end.
        wait_ms: u64,
    },
    /// `task.list` and `dead.list`
    Tasks {
        /// Which tasks.
        filter: TaskFilter,
        /// Where the part begins.
        cursor: Option<String>,
    },
    /// `dead.requeue`
    Requeue(TaskId),
    /// What workers ask, who have a connection of their own.
    Worker(WorkerRequest),
    /// `task.cancel`
    Cancel(TaskId),
    /// `agent.list` with `all`
    AgentsEverywhere(AgentFilter),
    /// `agent.list`
    Agents {
        /// Only agents of this type.
        agent_type: Option<String>,
    },
    /// `agent.status`
    AgentStatus(AgentId),
    /// `agent.spawn`
    Spawn {
        /// A configured type.
        agent_type: String,
        /// A name for the new agent.
        name: Option<String>,
    },
    /// `agent.stop`
    Stop(AgentId),
    /// `agent.send`
    Send {
        /// The receiver.
        to: Receiver,
        /// One MessagePack value.
        payload: Vec<u8>,
    },
    /// `agent.call`
    Call {
        /// The receiver.
        to: Receiver,
        /// One MessagePack value.
        payload: Vec<u8>,
        /// How long to wait for the answer; 0 for the node's default.
        timeout_ms: u64,
    },
    /// `node.stats`
    Stats,
    /// `node.health`
    Health,
    /// What is asked of pattern memory.
    Memory(MemoryRequest),
    /// What is asked of a cluster.
    Cluster(ClusterRequest),
    /// What another node asks: it is not forwarded.
    Here(HereRequest),
}

impl Request {
    /// Reads the parameters of `method`: one MessagePack map.
    pub fn parse(method: &str, params: &[u8], limits: &Limits) -> Result<Self, Error> {
        let payload_bytes_max = limits.max_payload_bytes;
        Ok(match method {
            "task.submit" => Self::Submit(task_spec(params, payload_bytes_max)?),
            "task.submit_batch" => Self::SubmitBatch(batch(params, payload_bytes_max)?),
            "task.status" => Self::TaskStatus(task_id(params)?),
            "task.result" => task_result(params)?,
            "task.cancel" => Self::Cancel(task_id(params)?),
            "task.list" => tasks(params, None)?,
            "dead.list" => tasks(params, Some(TaskStatus::Dead))?,
            "dead.requeue" => Self::Requeue(task_id(params)?),
            "agent.list" => agents(params)?,
            "agent.status" => Self::AgentStatus(agent_id(params)?),
            "agent.spawn" => spawn(params)?,
            "agent.stop" => Self::Stop(agent_id(params)?),
            "agent.send" => {
                let (to, payload, _) = message(params, payload_bytes_max, false)?;
                Self::Send { to, payload }
            }
            "agent.call" => {
                let (to, payload, timeout_ms) = message(params, payload_bytes_max, true)?;
                Self::Call { to, payload, timeout_ms }
            }
            "node.stats" => no_fields(params, Self::Stats)?,
            "node.health" => no_fields(params, Self::Health)?,
            _ => return Self::parse_other(method, params, limits),
        })
    }

    /// Makes of it, if it is long, what would hold the core that does it: for whoever reads it aside.
    pub fn prepare(&mut self) {
        match self {
            Self::Submit(spec) => prepare(spec),
            Self::SubmitBatch(specs) => specs.iter_mut().for_each(prepare),
            Self::Here(HereRequest::Same(request)) => request.prepare(),
            Self::Memory(MemoryRequest::PutBatch(batch)) => batch.read_all(),
            _ => {}
        }
    }

    /// Whether it is an attempt that another node lends.
    pub fn is_lent_attempt(&self) -> bool {
        matches!(self, Self::Here(HereRequest::Run { .. }))
    }

    /// The methods of workers, of pattern memory, of clusters and of other nodes.
    fn parse_other(method: &str, params: &[u8], limits: &Limits) -> Result<Self, Error> {
        if let Some(request) = worker::parse(method, params, limits.max_payload_bytes)? {
            return Ok(Self::Worker(request));
        }
        if let Some(request) = memory::parse(method, params)? {
            return Ok(Self::Memory(request));
        }
        if let Some(request) = cluster::parse(method, params)? {
            return Ok(Self::Cluster(request));
        }
        let here = method.strip_prefix("here.").map(|method| here::parse(method, params, limits));
        match here.transpose()?.flatten() {
            Some(request) => Ok(Self::Here(request)),
            None => Err(Error::NotFound(format!("there is no method {method:.40}"))),
        }
    }

    /// Does what is asked on a connection whose worker, if it has one, is in `session`.
    pub async fn run<G: Gateway>(
        self,
        gateway: Rc<G>,
        session: &WorkerSession,
    ) -> Result<Reply, Error> {
        Ok(match self {
            Self::Submit(spec) => {
                let ids = gateway.submit(vec![spec]).await?;
                Reply::Submitted(single(&ids)?)
            }
            Self::SubmitBatch(specs) => Reply::SubmittedBatch(gateway.submit(specs).await?),
            Self::TaskStatus(id) => {
                let view = gateway.task_within(id, 0, 0).await?;
                Reply::Task { view, with_result: false, _turn: None }
            }
            Self::TaskResult { id, wait_ms } => {
                result(gateway, id, wait_ms, usize::MAX, &session.large_results).await?
            }
            Self::Memory(request) => Reply::Memory(request.run(gateway).await?),
            Self::Cluster(request) => Reply::Cluster(request.run(gateway).await?),
            Self::Here(request) => run_here(request, gateway.here(), session).await?,
            Self::Tasks { filter, cursor } => {
                Reply::Tasks(gateway.tasks(filter, cursor, PAGE_TASKS).await?)
            }
            Self::Requeue(id) => gateway.requeue(id).await.map(|()| Reply::Done)?,
            Self::Worker(request) => request.run(gateway, session).await?,
            Self::Cancel(id) => Reply::Cancelled(gateway.cancel(id).await?),
            Self::AgentsEverywhere(filter) => agents_everywhere(gateway, filter).await?,
            Self::Agents { agent_type } => Reply::Agents(gateway.agents(agent_type).await?),
            Self::AgentStatus(id) => {
                let mut agents = gateway.agents(None).await?.into_iter();
                let view = agents.find(|agent| agent.id == id);
                Reply::Agent(view.ok_or_else(|| Error::NotFound(format!("no agent {id}")))?)
            }
            Self::Spawn { agent_type, name } => {
                Reply::Spawned(gateway.spawn(agent_type, name).await?)
            }
            Self::Stop(id) => gateway.stop(id).await.map(|()| Reply::Done)?,
            Self::Send { to, payload } => {
                let to = to.find(&*gateway)?;
                gateway.send(to, payload).await.map(|()| Reply::Done)?
            }
            Self::Call { to, payload, timeout_ms } => {
                let to = to.find(&*gateway)?;
                Reply::Answer(gateway.call(to, payload, timeout_ms).await?)
            }
            Self::Stats => Reply::Stats(gateway.stats()),
            Self::Health => {
                Reply::Health { ready: gateway.readiness().is_ok(), stats: gateway.stats() }
            }
        })
    }
}

/// Does what another node asks.
async fn run_here<G: Gateway>(
    request: HereRequest,
    gateway: Rc<G>,
    session: &WorkerSession,
) -> Result<Reply, Error> {
    match request {
        HereRequest::Same(request) => Box::pin(request.run(gateway, session)).await,
        HereRequest::Task { id, wait_ms, result_bytes } => {
            result(gateway, id, wait_ms, result_bytes, &session.large_results).await
        }
        HereRequest::Trunk(said) => {
            let offer = said.offer;
            // A challenge is good for one proof.
            let answer = gateway.judge_trunk(*said, session.challenge.take()).await?;
            if let TrunkAnswer::Challenged(challenge) = answer {
                session.challenge.set(Some(challenge));
            }
            Ok(Reply::Trunk { offer, answer })
        }
        HereRequest::Run { agent_type, guest } => {
            Ok(Reply::Ran(gateway.run_guest(agent_type, guest).await?))
        }
        HereRequest::Stop { id, lease } => {
            gateway.stop_guest(id, lease);
            Ok(Reply::Done)
        }
        HereRequest::Tasks { partition, filter, from, max } => {
            let max = max.min(PAGE_TASKS);
            let (tasks, next) = gateway.tasks_of(partition, filter, from, max).await?;
            Ok(Reply::Part { tasks, next })
        }
    }
}

/// Waits for a task's end; a large result is read when it is its turn, and one of more than
/// `result_bytes` is left out.
async fn result<G: Gateway>(
    gateway: Rc<G>,
    id: TaskId,
    wait_ms: u64,
    result_bytes: usize,
    large_results: &LargeResults,
) -> Result<Reply, Error> {
    let small_bytes = large_results.small_bytes();
    let first_bytes = small_bytes.min(result_bytes);
    let mut view = gateway.clone().task_within(id, wait_ms, first_bytes).await?;
    let mut turn = None;
    if view.status == TaskStatus::Done && view.result.is_none() && result_bytes > small_bytes {
        turn = Some(large_results.turn().await);
        view = gateway.task_within(id, 0, result_bytes).await?;
    }
    Ok(Reply::Task { view, with_result: true, _turn: turn })
}

/// The id of the one task that was submitted.
fn single(ids: &[TaskId]) -> Result<TaskId, Error> {
    ids.first().copied().ok_or_else(|| Error::Unavailable("the node gave the task no id".into()))
}

fn batch(params: &[u8], payload_bytes_max: usize) -> Result<Vec<TaskSpec>, Error> {
    let (mut fields, mut specs) = (Fields::of(params)?, None);
    while let Some(field) = fields.next()? {
        if field.name != "tasks" {
            return Err(field.unknown());
        }
        let mut reader = Reader::new(field.value);
        let not_array = |_| Error::Invalid("tasks must be an array of maps".into());
        let len = reader.array().map_err(not_array)?;
        let mut tasks = Vec::new();
        for index in 0..len {
            let task = reader.raw().map_err(not_array)?;
            let in_task = |error| match error {
                Error::Invalid(text) => Error::Invalid(format!("tasks[{index}]: {text}")),
                Error::TooLarge(text) => Error::TooLarge(format!("tasks[{index}]: {text}")),
                other => other,
            };
            tasks.push(task_spec(task, payload_bytes_max).map_err(in_task)?);
        }
        specs = Some(tasks);
    }
    required("tasks", specs)
}

fn tasks(params: &[u8], status: Option<TaskStatus>) -> Result<Request, Error> {
    let (mut fields, mut cursor) = (Fields::of(params)?, None);
    let mut filter = TaskFilter { status, agent_type: None };
    while let Some(field) = fields.next()? {
        match field.name {
            "status" if status.is_none() => {
                filter.status = field.text()?.map(here::status).transpose()?;
            }
            "type" => filter.agent_type = field.text()?.map(str::to_owned),
            "cursor" => cursor = field.text()?.map(str::to_owned),
            _ => return Err(field.unknown()),
        }
    }
    Ok(Request::Tasks { filter, cursor })
}

fn task_result(params: &[u8]) -> Result<Request, Error> {
    let (mut fields, mut id, mut wait_ms) = (Fields::of(params)?, None, 0);
    while let Some(field) = fields.next()? {
        match field.name {
            "id" => id = field.parsed()?,
            "wait_ms" => wait_ms = field.uint()?.unwrap_or(0),
            _ => return Err(field.unknown()),
        }
    }
    Ok(Request::TaskResult { id: required("id", id)?, wait_ms })
}

fn agents(params: &[u8]) -> Result<Request, Error> {
    let (mut fields, mut agent_type) = (Fields::of(params)?, None);
    let (mut all, mut capability, mut cursor) = (false, None, None);
    while let Some(field) = fields.next()? {
        match field.name {
            "type" => agent_type = field.text()?.map(str::to_owned),
            "all" => all = field.bool()?.unwrap_or(false),
            "capability" => capability = field.text()?.map(str::to_owned),
            "cursor" => cursor = field.text()?.map(str::to_owned),
            _ => return Err(field.unknown()),
        }
    }
    if !all {
        return match (capability, cursor) {
            (None, None) => Ok(Request::Agents { agent_type }),
            _ => {
                Err(Error::Invalid("capability and cursor are for lists of all nodes: all".into()))
            }
        };
    }
    let after = cursor.map(|cursor| cursor.parse()).transpose();
    let after = after.map_err(|_| Error::Invalid("cursor is not one that a list gave".into()))?;
    let max = PAGE_AGENTS;
    Ok(Request::AgentsEverywhere(AgentFilter { agent_type, capability, after, max }))
}

/// The agents of all nodes; of a node that is alone its own.
async fn agents_everywhere<G: Gateway>(
    gateway: Rc<G>,
    filter: AgentFilter,
) -> Result<Reply, Error> {
    if let Some(agents) = gateway.agents_everywhere(&filter) {
        let full = agents.len() >= PAGE_AGENTS;
        let cursor = agents.last().filter(|_| full).map(|agent| agent.address.to_string());
        return Ok(Reply::AgentsEverywhere { agents, cursor });
    }
    let here = gateway.clone().agents(filter.agent_type).await?;
    let is_asked = |view: &AgentView| match &filter.capability {
        Some(capability) => gateway.is_able(&view.agent_type, capability),
        None => true,
    };
    let agents = here.into_iter().filter(is_asked).map(|view| FarAgent {
        address: view.id.into(),
        agent_type: view.agent_type,
        name: view.name,
        status: "alive",
    });
    Ok(Reply::AgentsEverywhere { agents: agents.collect(), cursor: None })
}

/// Who gets a message.
#[derive(Debug)]
pub enum Receiver {
    /// An agent of any node.
    Address(AgentAddress),
    /// The agent that has this name.
    Name(String),
}

impl Receiver {
    fn find<G: Gateway>(self, gateway: &G) -> Result<AgentAddress, Error> {
        match self {
            Self::Address(address) => Ok(address),
            Self::Name(name) => gateway.find_agent(&name).ok_or_else(|| {
                Error::NotFound(format!("no agent is called {name:?}, as far as this node knows"))
            }),
        }
    }
}

fn spawn(params: &[u8]) -> Result<Request, Error> {
    let (mut fields, mut agent_type, mut name) = (Fields::of(params)?, None, None);
    while let Some(field) = fields.next()? {
        match field.name {
            "type" => agent_type = field.text()?.map(str::to_owned),
            "name" => name = field.text()?.map(str::to_owned),
            _ => return Err(field.unknown()),
        }
    }
    Ok(Request::Spawn { agent_type: required("type", agent_type)?, name })
}

/// The fields of a send or a call: receiver, payload, and for a call its timeout.
fn message(
    params: &[u8],
    payload_bytes_max: usize,
    has_timeout: bool,
) -> Result<(Receiver, Vec<u8>, u64), Error> {
    let (mut fields, mut id, mut payload, mut timeout_ms) = (Fields::of(params)?, None, None, 0);
    let mut name = None;
    while let Some(field) = fields.next()? {
        match field.name {
            "id" => id = field.parsed()?,
            "name" => name = field.text()?.map(str::to_owned),
            "payload" => payload = Some(field.payload(payload_bytes_max)?),
            "timeout_ms" if has_timeout => timeout_ms = field.uint()?.unwrap_or(0),
            _ => return Err(field.unknown()),
        }
    }
    let to = match (id, name) {
        (Some(_), Some(_)) => {
            return Err(Error::Invalid("id and name: one of them says who gets it".into()));
        }
        (None, Some(name)) => Receiver::Name(name),
        (id, None) => Receiver::Address(required("id", id)?),
    };
    Ok((to, required("payload", payload)?, timeout_ms))
}

fn no_fields(params: &[u8], request: Request) -> Result<Request, Error> {
    match Fields::of(params)?.next()? {
        Some(field) => Err(field.unknown()),
        None => Ok(request),
    }
}
