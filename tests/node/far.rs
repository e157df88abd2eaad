//! Messages between agents of two nodes: real cores, real sockets.

use super::{WAIT, receive};
use coreflow::{
    config::Config,
    metrics::prometheus,
    node::{AgentOptions, Node, NodeBuilder, gateway::Gateway},
    server::{
        Limits,
        listen::{Keys, Listen, Listeners},
    },
    shard::{
        agent::{Agent, CallId, Message, Reply, ReplyTo},
        context::{Context, SendError},
    },
    wire::{
        api::Error,
        id::{AgentAddress, AgentId, NodeId},
    },
};
use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

/// Where the nodes of a cluster listen and keep their logs.
pub(super) struct Places {
    folder: PathBuf,
    text: String,
    /// Where each node takes requests, and where it says that it does when that is elsewhere.
    rpc: Vec<SocketAddr>,
}

impl Places {
    /// For two nodes, on ports that are free now.
    fn new(name: &str) -> Self {
        Self::of(name, 2)
    }

    /// For so many nodes.
    pub(super) fn of(name: &str, nodes: usize) -> Self {
        let folder =
            std::env::temp_dir().join(format!("coreflow-far-{name}-{}", std::process::id()));
        let sockets: Vec<_> = (0..3 * nodes)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let addresses: Vec<SocketAddr> =
            sockets.iter().map(|it| it.local_addr().expect("it listens")).collect();
        let rpc = addresses.chunks_exact(3).map(|at| at[1]).collect();
        let nodes = addresses.chunks_exact(3).enumerate().map(|(place, at)| {
            let id = place + 1;
            let [peers, rpc, http] = [at[0], at[1], at[2]];
            format!(
                "[[node]]\nid = {id}\npeers = \"{peers}\"\nrpc = \"{rpc}\"\nhttp = \"{http}\"\n"
            )
        });
        Self { folder, text: nodes.collect(), rpc }
    }

    /// With more in the nodes' file.
    pub(super) fn with(mut self, text: &str) -> Self {
        self.text += text;
        self
    }

    /// Of a cluster that has a secret.
    pub(super) fn with_secret(self, secret: &str) -> Self {
        let path = self.keep("secret", secret);
        self.with(&format!("[cluster]\nsecret_file = \"{}\"\n", path.display()))
    }

    /// Whose nodes ask for a token.
    pub(super) fn with_token(self, token: &str) -> Self {
        let path = self.keep("token", token);
        self.with(&format!("[server]\ntoken_file = \"{}\"\n", path.display()))
    }

    /// A file that others may not read.
    fn keep(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::create_dir_all(&self.folder).expect("a folder of the test's own");
        std::fs::write(&path, text).expect("a file of the test's own");
        let owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, owner).expect("a file of the test's own");
        path
    }

    /// Where a node takes requests.
    pub(super) fn rpc_of(&self, id: NodeId) -> SocketAddr {
        self.rpc[id as usize - 1]
    }

    /// Lets a node say that it takes requests elsewhere.
    pub(super) fn say_rpc_of(&mut self, id: NodeId, address: SocketAddr) {
        let is = format!("rpc = \"{}\"", self.rpc_of(id));
        self.text = self.text.replace(&is, &format!("rpc = \"{address}\""));
    }

    /// Starts a node; `with` adds its agents.
    pub(super) fn start(&self, id: NodeId, with: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Node {
        let folder = Path::display(&self.folder);
        let overrides = [
            format!("cluster.node={id}"),
            format!("log.folder={folder}/log-{id}"),
            format!("memory.folder={folder}/memory-{id}"),
            "agents.mailbox_messages=100".to_owned(),
        ];
        let config = Config::parse(&self.text, "the test", &overrides).expect("its keys are right");
        let at = config.listen();
        let server = &config.server;
        let listeners = Listeners::new(Listen {
            token: config.token().expect("a file of the test's own"),
            rpc: self.rpc_of(id),
            http: at.http,
            keys: Keys { rpc: "rpc".into(), http: "http".into() },
            max_connections: server.max_connections,
            limits: Limits {
                max_frame_bytes: server.max_frame_bytes,
                max_payload_bytes: config.tasks.max_payload_bytes,
                max_in_flight: server.max_in_flight,
                write_buffer_bytes: server.write_buffer_bytes,
                stall_timeout: Duration::from_millis(server.stall_timeout_ms),
            },
            metrics: prometheus::render,
        });
        let builder = NodeBuilder::new(config).durable();
        let builder = builder.on_core(move |gateway| listeners.open(&gateway));
        with(builder).start().expect("the node starts")
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

pub(super) fn stop(node: Node) {
    node.drain(Duration::ZERO);
    node.close_doors(WAIT);
    node.shutdown().expect("no core fails");
}

pub(super) fn some(min: usize) -> AgentOptions {
    AgentOptions { min, ..AgentOptions::default() }
}

/// The addresses of a node's agents of a type, once there are as many as expected.
pub(super) fn addresses(
    node: &Node,
    id: NodeId,
    agent_type: &str,
    count: usize,
) -> Vec<AgentAddress> {
    let agents = super::agents(node, agent_type, count);
    agents.into_iter().map(|agent| AgentAddress { node: id, agent }).collect()
}

/// Sends numbered messages to every target and goes on in the next turn when a way is full.
pub(super) struct Sender {
    pub(super) targets: Arc<Mutex<Vec<AgentAddress>>>,
    pub(super) total: u64,
    /// Messages to each target in a turn, at most.
    pub(super) in_a_turn: u64,
    /// Sent to each target.
    pub(super) sent: Vec<u64>,
    pub(super) refused: mpsc::Sender<SendError>,
}

pub(super) fn numbered(number: u64) -> Vec<u8> {
    let mut payload = vec![number as u8; 8 + (number % 40) as usize];
    if number.is_multiple_of(997) {
        // Some are large, and some of those do not become smaller.
        payload.extend((0..20_000_u32).map(|place| (place * place / 7) as u8));
    }
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

impl Agent for Sender {
    fn on_message(&mut self, _: &Message<'_>, context: &mut Context<'_>) {
        context.request_turn();
    }

    fn on_turn(&mut self, context: &mut Context<'_>) {
        let targets = self.targets.lock().unwrap().clone();
        self.sent.resize(targets.len(), 0);
        for (target, sent) in targets.iter().zip(&mut self.sent) {
            let end = self.total.min(sent.saturating_add(self.in_a_turn));
            while *sent < end {
                match context.send_to(*target, &numbered(*sent)) {
                    Ok(()) => *sent += 1,
                    Err(error) => {
                        assert_eq!(error, SendError::Full);
                        self.refused.send(error).unwrap();
                        break;
                    }
                }
            }
        }
        if self.sent.iter().any(|sent| *sent < self.total) {
            context.request_turn();
        }
    }
}

/// Checks that each sender's numbers come in order and without a gap; it may pause at the first.
pub(super) struct Receiver {
    pub(super) total: u64,
    pub(super) senders: usize,
    pub(super) pause_ms: u64,
    pub(super) next: HashMap<AgentAddress, u64>,
    pub(super) done: mpsc::Sender<u64>,
}

impl Agent for Receiver {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let number = u64::from_le_bytes(message.payload()[..8].try_into().unwrap());
        assert_eq!(message.payload(), numbered(number), "another message's bytes");
        let sender = message.sender().expect("an agent sent it");
        assert_eq!(sender.node, 1);
        let next = self.next.entry(sender).or_default();
        assert_eq!(number, *next, "lost or out of order");
        *next += 1;
        if self.pause_ms > 0 {
            context.pause();
            context.set_timer(Duration::from_millis(std::mem::take(&mut self.pause_ms)), 0);
        }
        if self.next.len() == self.senders && self.next.values().all(|next| *next == self.total) {
            self.done.send(self.next.values().sum()).unwrap();
        }
    }

    fn on_timer(&mut self, _: u64, context: &mut Context<'_>) {
        context.resume();
    }
}

/// Lets senders of one node send to receivers of another, and checks that everything arrives; some way
/// is full meanwhile.
fn sends_in_order(name: &str, pairs: usize, total: u64, in_a_turn: u64, pause_ms: u64) {
    let places = Places::new(name);
    let (done, results) = mpsc::channel();
    let far = places.start(2, |builder| {
        builder.agent("receiver", some(pairs), move || Receiver {
            total,
            senders: pairs,
            pause_ms,
            next: HashMap::new(),
            done: done.clone(),
        })
    });
    let targets = Arc::new(Mutex::new(addresses(&far, 2, "receiver", pairs)));
    let (refused, refusals) = mpsc::channel();
    let near = places.start(1, |builder| {
        builder.agent("sender", some(pairs), move || Sender {
            targets: targets.clone(),
            total,
            in_a_turn,
            sent: Vec::new(),
            refused: refused.clone(),
        })
    });
    for sender in super::agents(&near, "sender", pairs) {
        super::send(&near, sender, &[]);
    }
    for _ in 0..pairs {
        let Ok(sum) = results.recv_timeout(WAIT) else {
            panic!("something was lost: {:?}\n{:?}", near.stats().cores, far.stats().cores);
        };
        assert_eq!(sum, pairs as u64 * total);
    }
    assert_eq!(refusals.try_recv(), Ok(SendError::Full), "no way was full: this shows nothing");
    let deadline = Instant::now() + WAIT;
    let received = || far.stats().cores.iter().map(|core| core.far_received).sum::<u64>();
    while received() < (pairs * pairs) as u64 * total {
        assert!(Instant::now() < deadline, "the cores do not publish their counters");
        std::thread::yield_now();
    }
    stop(near);
    stop(far);
}

#[test]
fn messages_to_another_node_arrive_in_order_and_a_full_trunk_holds_their_senders_back() {
    // Each sender has more than a trunk takes.
    sends_in_order("order", 3, 100_000, u64::MAX, 0);
}

#[test]
fn a_full_mailbox_on_another_node_holds_its_senders_back_and_loses_nothing() {
    // All messages together are less than a trunk takes: it is the mailbox that is full.
    sends_in_order("mailbox", 1, 10_000, 1, 300);
}

/// Answers with what it was asked, twice over; to "silence" never.
pub(super) struct Oracle;

impl Agent for Oracle {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        match (message.reply_to(), message.payload()) {
            (None, payload) => {
                // A message is answered with a message.
                let sender = message.sender().expect("an agent sent it");
                context.send_to(sender, &payload.repeat(3)).expect("the way is free");
            }
            (Some(_), b"silence") => {}
            (Some(to), payload) => context.reply(to, &payload.repeat(2)),
        }
    }
}

/// Sends what it gets to its target, as a call unless it begins with a point, and tells what comes.
struct Asker {
    target: AgentAddress,
    told: mpsc::Sender<Result<Vec<u8>, String>>,
}

impl Agent for Asker {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let payload = message.payload();
        if message.sender().is_some_and(|sender| sender == self.target) {
            return self.told.send(Ok(payload.to_vec())).unwrap();
        }
        let asked: Result<Option<CallId>, _> = match payload.strip_prefix(b".") {
            Some(rest) => context.send_to(self.target, rest).map(|()| None),
            None => context.call_to(self.target, payload, Some(WAIT)).map(Some),
        };
        if let Err(error) = asked {
            self.told.send(Err(error.to_string())).unwrap();
        }
    }

    fn on_reply(&mut self, reply: &Reply<'_>, _: &mut Context<'_>) {
        let answer = reply.answer.map(<[u8]>::to_vec).map_err(|error| error.to_string());
        self.told.send(answer).unwrap();
    }
}

#[test]
fn calls_to_another_node_end_with_an_answer_or_a_reason_and_a_node_that_returns_is_reached() {
    let places = Places::new("calls");
    let oracles = |builder: NodeBuilder| builder.agent("oracle", some(1), || Oracle);
    let far = places.start(2, oracles);
    let oracle = addresses(&far, 2, "oracle", 1)[0];
    let (told, answers) = mpsc::channel();
    let near = places.start(1, |builder| {
        builder.agent("asker", some(1), move || Asker { target: oracle, told: told.clone() })
    });
    let asker = super::agents(&near, "asker", 1)[0];
    let ask = |text: &str| {
        super::send(&near, asker, text.as_bytes());
        receive(&answers)
    };
    assert_eq!(ask("ab"), Ok(b"abab".to_vec()), "a call of an agent");
    assert_eq!(ask(".ab"), Ok(b"ababab".to_vec()), "a message, and one back");
    let large = "x".repeat(300_000);
    assert_eq!(ask(&large), Ok(large.repeat(2).into_bytes()), "far above a frame");

    // From outside, to agents and nodes that are there or not.
    let call = |to: AgentAddress, text: &str, timeout_ms: u64| {
        let payload = text.as_bytes().to_vec();
        near.handle().wait(move |gateway| gateway.call(to, payload, timeout_ms))
    };
    assert_eq!(call(oracle, "cd", 0), Ok(b"cdcd".to_vec()));
    assert_eq!(
        call(AgentAddress { node: 1, agent: AgentId::new(0, 77, 0) }, "x", 0).unwrap_err().code(),
        "not_found"
    );
    let nobody = AgentAddress { node: 2, agent: AgentId::new(0, 77, 0) };
    assert_eq!(call(nobody, "x", 0).unwrap_err().code(), "not_found");
    let no_core = AgentAddress { node: 2, agent: AgentId::new(999, 0, 0) };
    assert_eq!(call(no_core, "x", 0).unwrap_err().code(), "not_found");
    assert_eq!(call(AgentAddress { node: 9, ..oracle }, "x", 0).unwrap_err().code(), "not_found");
    assert!(matches!(call(oracle, "silence", 20), Err(Error::Uncertain(_))), "its time is up");
    let most = Config::default().server.max_frame_bytes;
    assert_eq!(call(oracle, &"x".repeat(most), 0).unwrap_err().code(), "too_large");
    let half = "x".repeat(most * 2 / 3);
    assert_eq!(call(oracle, &half, 0).unwrap_err().code(), "too_large", "the answer is");

    // The node goes while a call waits, and comes back.
    super::send(&near, asker, b"silence");
    assert_eq!(ask(".ab"), Ok(b"ababab".to_vec()), "so the call is there by now");
    stop(far);
    let lost = receive(&answers).expect_err("nobody can answer");
    assert!(lost.contains("node 2"), "{lost}");
    let gone = call(oracle, "x", 0).expect_err("nobody is there");
    assert_eq!(gone.code(), "unavailable");
    assert!(gone.to_string().contains("node 2"), "{gone}");
    // Once all know that, nothing is taken for it any more, however often it is tried.
    let send = || near.handle().wait(move |gateway| gateway.send(oracle, b"x".to_vec()));
    let (deadline, mut taken) = (Instant::now() + WAIT, Instant::now());
    while taken.elapsed() < Duration::from_secs(3) {
        assert!(Instant::now() < deadline, "what nobody can get is still taken");
        match send() {
            Ok(()) => taken = Instant::now(),
            Err(error) => assert_eq!(error.code(), "unavailable", "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let far = places.start(2, oracles);
    let oracle = addresses(&far, 2, "oracle", 1)[0];
    let deadline = Instant::now() + WAIT;
    while call(oracle, "ef", 0) != Ok(b"efef".to_vec()) {
        assert!(Instant::now() < deadline, "the node that came back is not reached");
        std::thread::sleep(Duration::from_millis(5));
    }
    stop(near);
    stop(far);
}

/// Says that it was called, and answers after a while.
struct Slow {
    called: mpsc::Sender<()>,
    asked: HashMap<u64, ReplyTo>,
}

impl Agent for Slow {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let token = self.asked.len() as u64;
        self.asked.insert(token, message.reply_to().expect("a call"));
        let wait_ms = u64::from_le_bytes(message.payload().try_into().expect("the test's"));
        context.set_timer(Duration::from_millis(wait_ms), token);
        self.called.send(()).unwrap();
    }

    fn on_timer(&mut self, token: u64, context: &mut Context<'_>) {
        context.reply(self.asked.remove(&token).expect("each answers once"), b"late");
    }
}

#[test]
fn a_node_that_closes_its_doors_answers_the_calls_that_it_has_and_takes_no_more() {
    let places = Places::new("leave");
    let (called, calls) = mpsc::channel();
    let far = places.start(2, |builder| {
        builder
            .agent("slow", some(1), move || Slow { called: called.clone(), asked: HashMap::new() })
    });
    let slow = addresses(&far, 2, "slow", 1)[0];
    let near = places.start(1, |builder| builder);
    let call = |wait_ms: u64| {
        let (handle, payload) = (near.handle(), wait_ms.to_le_bytes().to_vec());
        let limit_ms = WAIT.as_millis() as u64;
        std::thread::spawn(move || {
            handle.wait(move |gateway| gateway.call(slow, payload, limit_ms))
        })
    };
    let (soon, never) = (call(500), call(600_000));
    receive(&calls);
    receive(&calls);
    let began = Instant::now();
    far.drain(WAIT);
    assert_eq!(far.close_doors(WAIT), 0);
    assert!(began.elapsed() < WAIT / 2, "it waits for no answer for ever");
    assert_eq!(soon.join().unwrap(), Ok(b"late".to_vec()), "it was under way");
    let lost = never.join().unwrap().expect_err("nobody waited for it so long");
    assert!(matches!(lost, Error::Uncertain(_)), "{lost}");
    let late = call(0).join().unwrap().expect_err("the doors are closed");
    assert_eq!(late.code(), "unavailable");
    far.shutdown().expect("no core fails");
    stop(near);
}

/// Tells every message that it gets.
struct Listener(mpsc::Sender<Vec<u8>>);

impl Agent for Listener {
    fn on_message(&mut self, message: &Message<'_>, _: &mut Context<'_>) {
        self.0.send(message.payload().to_vec()).unwrap();
    }
}

/// Sends what it gets to all listeners of the second node.
struct Speaker;

impl Agent for Speaker {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        context.broadcast_to(2, "listener", message.payload()).expect("the way is free");
    }
}

#[test]
fn a_broadcast_reaches_every_agent_of_a_type_on_another_node() {
    let places = Places::new("broadcast");
    let (heard, hears) = mpsc::channel();
    let far = places
        .start(2, |builder| builder.agent("listener", some(5), move || Listener(heard.clone())));
    super::agents(&far, "listener", 5);
    let near = places.start(1, |builder| builder.agent("speaker", some(1), || Speaker));
    let speaker = super::agents(&near, "speaker", 1)[0];
    for payload in [b"small".to_vec(), vec![7; 10_000]] {
        super::send(&near, speaker, &payload);
        for _ in 0..5 {
            assert_eq!(receive(&hears), payload);
        }
    }
    assert!(hears.try_recv().is_err(), "each got it once");
    stop(near);
    stop(far);
}
