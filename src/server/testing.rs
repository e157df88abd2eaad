//! What the protocol tests share: real sockets and time, and a node of a few lines.

use super::{Drain, Engine, Limits};
use crate::{
    consensus::{
        cluster::{NodeStatus, PartitionStatus},
        members::Members,
    },
    node::gateway::{Address, Answer, Ask, Change, ChangeRefused, ClusterStatus, Gateway},
    wire::{
        api::{
            AgentKind, AgentState, AgentView, Completion, CoreStats, Error, Guest, Leased,
            LeasedTask, NodeStats, Ran, TaskFilter, TaskPage, TaskSpec, TaskStatus, TaskView,
            Worker,
        },
        id::{AgentAddress, AgentId, PartitionIndex, TaskId},
        memory::{MemoryHit, MemoryItem, MemoryPage, MemoryQuery, MemoryStats, Metric},
        msgpack::write,
    },
};
use async_executor::LocalExecutor;
use async_io::{Async, Timer};
use futures_channel::oneshot;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

/// A stream that the tests' servers serve.
pub type Socket = Async<TcpStream>;

/// Time, for tests.
#[derive(Clone)]
pub struct TestEngine;

thread_local! {
    static LOOKS: Cell<u64> = const { Cell::new(0) };
    static IS_LATE: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread's futures have no time whenever they look.
pub fn be_late() {
    IS_LATE.set(true);
}

impl Engine for TestEngine {
    type Place = ();

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let timer = Timer::after(duration);
        async move {
            timer.await;
        }
    }

    /// At two looks of three others should have their turn, so that rounds end wherever they may; or at all.
    fn is_over(&self, _: bool) -> bool {
        LOOKS.set(LOOKS.get() + 1);
        IS_LATE.get() || !LOOKS.get().is_multiple_of(3)
    }

    /// Who was put off comes late the next time.
    fn poll_enter(&self, waker: &Waker, is_much: bool, place: &mut Option<()>) -> Poll<bool> {
        match self.is_over(is_much) {
            true if place.take().is_none() => {
                *place = Some(());
                waker.wake_by_ref();
                Poll::Pending
            }
            is_late => {
                *place = None;
                Poll::Ready(is_late)
            }
        }
    }

    fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + 'static {
        let (tell, told) = oneshot::channel();
        std::thread::spawn(move || {
            // Whoever asked may be gone.
            let _ = tell.send(work());
        });
        async { told.await.expect("it is done") }
    }
}

/// Limits small enough to reach.
pub const LIMITS: Limits = Limits {
    max_frame_bytes: 64 << 10,
    max_payload_bytes: 32 << 10,
    max_in_flight: 64,
    write_buffer_bytes: 64 << 10,
    stall_timeout: Duration::from_millis(300),
};

/// A node that holds tasks in a map: `echo` is done at once, `slow` after 100 ms, `never` never;
/// `full` is refused.
#[derive(Default)]
pub struct TestNode {
    pub tasks: RefCell<BTreeMap<TaskId, TaskView>>,
    /// How often tasks were submitted, one after the other or many at once.
    pub submissions: Cell<usize>,
    /// Calls that wait now.
    pub waiting: Cell<usize>,
    pub sent: RefCell<Vec<Vec<u8>>>,
    /// How often attempts were ended, one after the other or many at once.
    pub endings: Cell<usize>,
    /// Lent attempts of the type `later` that run.
    pub attempts: RefCell<Vec<oneshot::Sender<()>>>,
    /// What each of them comes to.
    pub result_bytes: Cell<usize>,
    /// Workers that left.
    pub left: Cell<usize>,
    /// How often something was asked of this node alone.
    pub asked_here: Cell<usize>,
    /// Whether nobody is known to lead.
    pub leaderless: Cell<bool>,
    /// What is remembered, by namespace and key: vectors of two numbers, compared by the cosine.
    pub memory: RefCell<BTreeMap<(String, String), MemoryItem>>,
    /// How often items were stored, one after the other or many at once.
    pub puts: Cell<usize>,
}

/// A cluster of two nodes, of which the second is not connected.
fn status() -> ClusterStatus {
    let address = |port| Address {
        peers: ([127, 0, 0, 1], port).into(),
        rpc: ([127, 0, 0, 1], port + 1).into(),
    };
    let node = |id, address, is_connected| NodeStatus {
        is_member: true,
        id,
        address,
        is_connected,
        messages: (3, 4),
        bytes: (5, 6),
        dropped: 7,
    };
    let members = Members { learners: vec![3], ..Members::of_voters(&[1, 2]) };
    let partition = |partition, leader| PartitionStatus {
        partition,
        leader,
        term: 2,
        first: 1,
        last: 9,
        committed: 8,
        members: members.clone(),
        agreement: None,
    };
    ClusterStatus {
        me: 1,
        nodes: vec![node(1, Some(address(7452)), true), node(2, None, false)],
        partitions: vec![partition(0, Some(1)), partition(1, None)],
    }
}

pub const AGENT: AgentId = AgentId::new(0, 1, 1);

fn agent(agent_type: &str) -> AgentView {
    AgentView {
        id: AGENT,
        agent_type: agent_type.into(),
        kind: AgentKind::Builtin,
        name: Some("first".into()),
        state: AgentState::Ready,
        tasks: 0,
        max_tasks: 1,
        done: 3,
        failed: 0,
    }
}

struct Waiting<'a>(&'a Cell<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl TestNode {
    fn accept(&self, spec: TaskSpec) -> Result<TaskId, Error> {
        match spec.agent_type.as_str() {
            "echo" | "slow" | "never" => {}
            "full" => return Err(Error::Backpressure(50)),
            other => return Err(Error::NotFound(format!("no agent type {other}"))),
        }
        let id = TaskId { partition: 0, random: self.tasks.borrow().len() as u128 };
        let done = spec.agent_type == "echo";
        let view = TaskView {
            id,
            agent_type: spec.agent_type,
            status: if done { TaskStatus::Done } else { TaskStatus::Queued },
            priority: spec.priority,
            attempts: u32::from(done),
            node: None,
            result: Some(spec.payload),
            error: None,
        };
        self.tasks.borrow_mut().insert(id, view);
        Ok(id)
    }
}

impl Gateway for TestNode {
    /// `later` ends when somebody rings, with a result of `result_bytes`; others never end.
    async fn run_guest(self: Rc<Self>, agent_type: String, _: Guest) -> Result<Ran, Error> {
        if agent_type != "later" {
            return std::future::pending().await;
        }
        let (bell, rings) = oneshot::channel();
        self.attempts.borrow_mut().push(bell);
        rings.await.map_err(|_| Error::Unavailable("the node is gone".into()))?;
        let mut result = Vec::new();
        write::str(&mut result, &"r".repeat(self.result_bytes.get()));
        Ok(Ok(result))
    }

    async fn submit(self: Rc<Self>, specs: Vec<TaskSpec>) -> Result<Vec<TaskId>, Error> {
        self.submissions.set(self.submissions.get() + 1);
        specs.into_iter().map(|spec| self.accept(spec)).collect()
    }

    async fn submit_each(
        self: Rc<Self>,
        specs: Vec<TaskSpec>,
    ) -> Result<Vec<Result<TaskId, Error>>, Error> {
        self.submissions.set(self.submissions.get() + 1);
        Ok(specs.into_iter().map(|spec| self.accept(spec)).collect())
    }

    async fn tasks(
        self: Rc<Self>,
        filter: TaskFilter,
        cursor: Option<String>,
        max: u32,
    ) -> Result<TaskPage, Error> {
        let from: u128 = cursor.map_or(0, |cursor| cursor.parse().expect("a cursor of its own"));
        let wanted = |view: &&TaskView| {
            filter.status.is_none_or(|status| status == view.status) && view.id.random >= from
        };
        let tasks = self.tasks.borrow();
        let mut found: Vec<TaskView> = tasks.values().filter(wanted).cloned().collect();
        found.sort_by_key(|view| view.id.random);
        let cursor = found.get(max as usize).map(|next| next.id.random.to_string());
        found.truncate(max as usize);
        Ok(TaskPage { tasks: found, cursor })
    }

    async fn requeue(self: Rc<Self>, id: TaskId) -> Result<(), Error> {
        Err(Error::NotFound(format!("no dead task {id}")))
    }

    async fn register(self: Rc<Self>, types: Vec<String>, capacity: u32) -> Result<Worker, Error> {
        match types.iter().find(|name| *name != "echo") {
            Some(name) => Err(Error::NotFound(format!("no agent type {name}"))),
            None => Ok(Worker { seats: vec![(0, AGENT)], capacity }),
        }
    }

    async fn fetch(self: Rc<Self>, worker: Worker, max: u32, _: u64) -> Result<Leased, Error> {
        let mut leased = Leased::default();
        for random in 0..u128::from(max.min(worker.capacity)) {
            let task = LeasedTask {
                id: TaskId { partition: 0, random },
                lease: 7,
                type_place: 0,
                attempt: 1,
                deadline_ms: 60_000,
                payload_bytes: 0,
            };
            leased.push(task, &[0xc0]);
        }
        Ok(leased)
    }

    async fn end_attempts(
        self: Rc<Self>,
        completions: Vec<Completion>,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        self.endings.set(self.endings.get() + 1);
        let end = |completion: Completion| match completion.lease {
            7 => Ok(()),
            _ => Err(Error::StaleLease("not that lease".into())),
        };
        Ok(completions.into_iter().map(end).collect())
    }

    async fn extend(self: Rc<Self>, _: TaskId, _: u64, _: u64) -> Result<(), Error> {
        Ok(())
    }

    async fn leave(self: Rc<Self>, _: Worker) {
        self.left.set(self.left.get() + 1);
    }

    async fn task_within(
        self: Rc<Self>,
        id: TaskId,
        wait_ms: u64,
        result_bytes: usize,
    ) -> Result<TaskView, Error> {
        let view = self.tasks.borrow().get(&id).cloned();
        let mut view = view.ok_or_else(|| Error::NotFound(format!("no task {id}")))?;
        if !view.status.is_ended() && wait_ms > 0 {
            self.waiting.set(self.waiting.get() + 1);
            let _waiting = Waiting(&self.waiting);
            let slow = view.agent_type == "slow";
            TestEngine.sleep(Duration::from_millis(if slow { 100 } else { wait_ms })).await;
            if slow {
                view.status = TaskStatus::Done;
            }
        }
        let done = view.status == TaskStatus::Done;
        view.result = view.result.filter(|result| done && result.len() <= result_bytes);
        Ok(view)
    }

    async fn cancel(self: Rc<Self>, id: TaskId) -> Result<bool, Error> {
        let mut tasks = self.tasks.borrow_mut();
        let view = tasks.get_mut(&id).ok_or_else(|| Error::NotFound(format!("no task {id}")))?;
        let open = !view.status.is_ended();
        if open {
            view.status = TaskStatus::Cancelled;
        }
        Ok(open)
    }

    async fn agents(self: Rc<Self>, agent_type: Option<String>) -> Result<Vec<AgentView>, Error> {
        let all = vec![agent("echo")];
        let wanted = |view: &AgentView| agent_type.as_ref().is_none_or(|t| *t == view.agent_type);
        Ok(all.into_iter().filter(wanted).collect())
    }

    async fn spawn(
        self: Rc<Self>,
        agent_type: String,
        name: Option<String>,
    ) -> Result<AgentId, Error> {
        match (agent_type.as_str(), name.as_deref()) {
            ("echo", Some("taken")) => Err(Error::Conflict("the name taken is taken".into())),
            ("echo", _) => Ok(AGENT),
            _ => Err(Error::NotFound(format!("no agent type {agent_type}"))),
        }
    }

    async fn stop(self: Rc<Self>, id: AgentId) -> Result<(), Error> {
        if id == AGENT { Ok(()) } else { Err(Error::NotFound(format!("no agent {id}"))) }
    }

    async fn send(
        self: Rc<Self>,
        _: impl Into<AgentAddress>,
        payload: Vec<u8>,
    ) -> Result<(), Error> {
        self.sent.borrow_mut().push(payload);
        Ok(())
    }

    async fn call(
        self: Rc<Self>,
        _: impl Into<AgentAddress>,
        payload: Vec<u8>,
        _: u64,
    ) -> Result<Vec<u8>, Error> {
        Ok(payload)
    }

    fn stats(&self) -> NodeStats {
        let accepted = self.tasks.borrow().len() as u64;
        let core = CoreStats { agents: 1, tasks_accepted: accepted, ..CoreStats::default() };
        let cores = vec![core.clone(), core];
        NodeStats { version: "0.0.0", accepting: true, cores, ..NodeStats::default() }
    }

    fn readiness(&self) -> Result<(), String> {
        match self.leaderless.get() {
            false => Ok(()),
            true => Err("nobody is known to lead the partitions 0".into()),
        }
    }

    fn here(self: Rc<Self>) -> Rc<Self> {
        self.asked_here.set(self.asked_here.get() + 1);
        self
    }

    async fn tasks_of(
        self: Rc<Self>,
        _: PartitionIndex,
        filter: TaskFilter,
        from: u64,
        max: u32,
    ) -> Result<(Vec<TaskView>, Option<u64>), Error> {
        let page = self.tasks(filter, Some(from.to_string()), max).await?;
        Ok((page.tasks, page.cursor.and_then(|cursor| cursor.parse().ok())))
    }

    fn cluster_status(&self) -> Result<Arc<ClusterStatus>, Error> {
        Ok(Arc::new(status()))
    }

    async fn ask_cluster(self: Rc<Self>, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Know(..) => Ok(Answer::Done),
            Ask::Change(Change::AddLearners(nodes)) => Ok(Answer::Changes(vec![
                (0, Ok(())),
                (1, Err(ChangeRefused::AlreadyMember(nodes[0]))),
            ])),
            Ask::Change(_) => {
                let refused = ChangeRefused::NoQuorum { reachable: 1, voters: 2 };
                Ok(Answer::Changes(vec![(0, Err(refused))]))
            }
            Ask::Transfer { partition: 0, .. } => Ok(Answer::Done),
            Ask::Request { .. } => Ok(Answer::Busy),
            Ask::Transfer { .. } => Err(Error::NotLeader(Some("127.0.0.1:7450".into()))),
        }
    }

    /// Left is (1, 0), right (0, 1); no other text has a vector. The more blanks are before it, the longer it
    /// takes.
    async fn memory_embed(
        self: Rc<Self>,
        texts: Vec<String>,
    ) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        let blanks = |text: &String| text.len() - text.trim_start().len();
        for _ in 0..texts.iter().map(blanks).sum() {
            futures_lite::future::yield_now().await;
        }
        let embed = |text: &String| match text.trim_start() {
            "left" => Ok(vec![1.0, 0.0]),
            "right" => Ok(vec![0.0, 1.0]),
            _ => Err(Error::Invalid("neither left nor right".into())),
        };
        Ok(texts.iter().map(embed).collect())
    }

    fn embedder_name(&self) -> &'static str {
        "exec"
    }

    fn memory_shape(&self) -> Option<(usize, Metric)> {
        Some((2, Metric::Cosine))
    }

    async fn memory_put(
        self: Rc<Self>,
        items: Vec<MemoryItem>,
    ) -> Result<Vec<Result<bool, Error>>, Error> {
        self.puts.set(self.puts.get() + 1);
        let put = |item: MemoryItem| {
            if item.key == "full" {
                return Err(Error::Backpressure(50));
            }
            let name = (item.namespace.clone(), item.key.clone());
            Ok(self.memory.borrow_mut().insert(name, item).is_some())
        };
        Ok(items.into_iter().map(put).collect())
    }

    async fn memory_get(
        self: Rc<Self>,
        namespace: String,
        key: String,
    ) -> Result<MemoryItem, Error> {
        let item = self.memory.borrow().get(&(namespace, key.clone())).cloned();
        item.ok_or_else(|| Error::NotFound(format!("nothing is stored as {key}")))
    }

    async fn memory_delete(self: Rc<Self>, namespace: String, key: String) -> Result<bool, Error> {
        Ok(self.memory.borrow_mut().remove(&(namespace, key)).is_some())
    }

    async fn memory_search(self: Rc<Self>, query: MemoryQuery) -> Result<Vec<MemoryHit>, Error> {
        let hit = |item: &MemoryItem| MemoryHit {
            key: item.key.clone(),
            namespace: item.namespace.clone(),
            score: item.vector.iter().zip(&query.vector).map(|(a, b)| a * b).sum(),
            text: item.text.clone(),
            metadata: item.metadata.clone(),
        };
        let mut hits: Vec<_> = self.memory.borrow().values().map(hit).collect();
        hits.retain(|hit| query.namespace.as_ref().is_none_or(|it| *it == hit.namespace));
        hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        hits.truncate(query.k as usize);
        Ok(hits)
    }

    async fn memory_list(
        self: Rc<Self>,
        namespace: Option<String>,
        cursor: Option<String>,
        max: u32,
    ) -> Result<MemoryPage, Error> {
        let from: usize = cursor.map_or(0, |cursor| cursor.parse().expect("a cursor of its own"));
        let memory = self.memory.borrow();
        let wanted = |item: &&MemoryItem| namespace.as_ref().is_none_or(|it| *it == item.namespace);
        let found: Vec<_> = memory.values().filter(wanted).cloned().collect();
        let end = found.len().min(from + max as usize);
        let cursor = (end < found.len()).then(|| end.to_string());
        Ok(MemoryPage { items: found[from..end].to_vec(), cursor })
    }

    async fn memory_stats(self: Rc<Self>, _: u32) -> Result<MemoryStats, Error> {
        let count = self.memory.borrow().len() as u64;
        Ok(MemoryStats { count, dimension: 2, durable: true, ..MemoryStats::default() })
    }
}

/// A listener on a free port of the loopback, and where it is.
pub fn listen() -> (Async<TcpListener>, SocketAddr) {
    let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
    let address = listener.get_ref().local_addr().unwrap();
    (listener, address)
}

/// Serves every connection with `serve` while `client` runs, and hands out the node and the drain.
pub fn with_server<S, C>(
    serve: impl Fn(Socket, Rc<TestNode>, Rc<Drain>) -> S + 'static,
    client: impl FnOnce(SocketAddr, Rc<TestNode>, Rc<Drain>) -> C,
) where
    S: Future<Output: 'static> + 'static,
    C: Future<Output = ()>,
{
    let executor = Rc::new(LocalExecutor::new());
    let (listener, address) = listen();
    let (node, drain) = (Rc::new(TestNode::default()), Drain::new());
    let (served, signal, spawner) = (node.clone(), drain.clone(), executor.clone());
    let accepting = executor.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            spawner.spawn(serve(stream, served.clone(), signal.clone())).detach();
        }
    });
    let client = async {
        let finished = async {
            client(address, node, drain).await;
            true
        };
        let late = async {
            Timer::after(Duration::from_secs(20)).await;
            false
        };
        assert!(futures_lite::future::or(finished, late).await, "the test took too long");
    };
    async_io::block_on(executor.run(client));
    drop(accepting);
}
