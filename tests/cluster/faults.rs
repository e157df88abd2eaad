//! What goes wrong, one thing after the other, while clients go on.

use crate::{
    agents, check,
    clients::{self, Caller, Shared},
    cluster::{Cluster, SMALL, until},
    network::{NODES, Network},
    node::Signal,
    proxy::{Way, Ways},
    worker,
};
use fastrand::Rng;
use std::{
    env,
    fs::{self, File},
    io::Write,
    process::ExitCode,
    sync::{Mutex, atomic::Ordering, mpsc::sync_channel},
    thread,
    time::Instant,
};

/// Submissions that must be taken while something is wrong.
const TAKEN: u64 = 60;
/// Submitters, rivals and readers.
const CLIENTS: (usize, usize, usize) = (3, 2, 2);
/// Nodes that have a worker where nodes hear of each other's agents; the others lend them their tasks.
/// Two of the five may be cut off.
const WORKERS: usize = 3;
/// Keys and tasks on their way to rivals and readers.
const BEHIND_MAX: usize = 64;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// A leader is killed.
    Kill,
    /// A leader stands still, and goes on as if nothing had been.
    Freeze,
    /// A leader and one more are cut off from the three others.
    Part,
    /// A leader's cable is pulled.
    Isolate,
    /// A node's disk is full.
    FillDisk,
    /// All nodes are killed at the same moment.
    KillAll,
    /// A leader is asked to stop.
    Stop,
    /// What a leader sends does not arrive.
    Mute,
    /// What is sent to a leader does not arrive.
    Deafen,
    /// Everything takes long.
    Delay,
    /// Pieces are lost and connections break.
    Lose,
}

/// With cables right from node to node.
const LINKS: [Fault; 7] = [
    Fault::Kill,
    Fault::Freeze,
    Fault::Part,
    Fault::Isolate,
    Fault::FillDisk,
    Fault::KillAll,
    Fault::Stop,
];
/// Through the proxies in the middle.
const PROXIES: [Fault; 4] = [Fault::Mute, Fault::Deafen, Fault::Delay, Fault::Lose];

/// Lets everything go wrong, so many times, in an order of the seed.
pub fn run(network: &Network, rounds: u64, seed: u64) -> ExitCode {
    let mut rng = Rng::with_seed(seed);
    let ways = Ways::open();
    let mut is_well = true;
    for _ in 0..rounds {
        for (name, mut faults, proxies) in
            [("links", LINKS.to_vec(), false), ("proxies", PROXIES.to_vec(), true)]
        {
            rng.shuffle(&mut faults);
            faults.retain(|fault| is_wanted(*fault));
            if faults.is_empty() {
                continue;
            }
            let cluster = Cluster::start(network, name, proxies);
            let shared = Shared::new(cluster);
            // Datagrams pass no proxy.
            let scene = Scene { shared, network, ways: &ways, gossips: !proxies };
            is_well &= scene.play(name, &faults, &mut rng);
        }
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether something is to go wrong: `COREFLOW_CLUSTER_FAULTS=Part,Kill` chooses.
fn is_wanted(fault: Fault) -> bool {
    let wanted = env::var("COREFLOW_CLUSTER_FAULTS");
    wanted.map_or(true, |names| names.split(',').any(|name| name == format!("{fault:?}")))
}

/// A cluster with its clients, and what can be done to them.
struct Scene<'a> {
    shared: Shared,
    network: &'a Network,
    ways: &'a Ways,
    /// Whether nodes hear each other's gossip.
    gossips: bool,
}

/// Ends the clients, also when the test fails, and tells then what the nodes said.
struct Ends<'a>(&'a Shared);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end_submissions();
        self.0.end_work();
        if thread::panicking() {
            self.0.cluster.tell();
        }
    }
}

impl Scene<'_> {
    fn play(&self, name: &str, faults: &[Fault], rng: &mut Rng) -> bool {
        let shared = &self.shared;
        let (rivals, keys) = sync_channel(BEHIND_MAX);
        let (readers, tasks) = sync_channel(BEHIND_MAX);
        let (keys, tasks) = (Mutex::new(keys), Mutex::new(tasks));
        thread::scope(|scope| {
            let ends = Ends(shared);
            let mut busy = Vec::new();
            for _ in 0..CLIENTS.0 {
                busy.push(scope.spawn(|| clients::submit(shared, &rivals, &readers)));
            }
            for _ in 0..CLIENTS.1 {
                busy.push(scope.spawn(|| clients::rival(shared, &keys)));
            }
            for _ in 0..CLIENTS.2 {
                busy.push(scope.spawn(|| clients::read(shared, &tasks)));
            }
            let workers = if self.gossips { WORKERS } else { NODES as usize };
            for node in shared.cluster.nodes.iter().take(workers) {
                scope.spawn(|| worker::work(shared, node));
            }
            self.goes_on();
            self.agents_are_called(name, "before");
            for fault in faults {
                let began = Instant::now();
                let told = self.happen(*fault, rng);
                let over = Instant::now();
                shared.cluster.until_led();
                self.each_node_takes();
                if self.gossips {
                    let all: Vec<u64> = (1..=NODES).collect();
                    shared.cluster.until_seen(&all, &all, "alive");
                }
                println!(
                    "cluster: {name}: {fault:?}: {told}; took {:.1} s, and {:.1} s until every node \
                     took tasks again",
                    (over - began).as_secs_f64(),
                    over.elapsed().as_secs_f64()
                );
            }
            self.agents_are_called(name, "after");
            shared.end_submissions();
            busy.into_iter().for_each(|client| client.join().expect("no client panics"));
            check::settle(shared);
            drop(ends);
        });
        check::judge(shared, name)
    }

    /// Where nodes hear of each other's agents, those that start on one are called from all.
    fn agents_are_called(&self, name: &str, when: &str) {
        if self.gossips {
            let told = agents::are_called_from_everywhere(&self.shared.cluster, when);
            println!("cluster: {name}: {when} anything goes wrong, under load, {told}");
        }
    }

    /// Lets something go wrong and ends it; tells what was seen meanwhile.
    fn happen(&self, fault: Fault, rng: &mut Rng) -> String {
        let cluster = &self.shared.cluster;
        let leader = cluster.leader();
        let others = cluster.others(&[leader.id]);
        let began = Instant::now();
        let led = |nodes: &[u64], gone: &str| {
            cluster.until_led_among(nodes);
            let took = began.elapsed().as_secs_f64();
            let mut told =
                format!("node {}: the others led everything after {took:.2} s", leader.id);
            if self.gossips {
                cluster.until_seen(nodes, &cluster.others(nodes), gone);
                let took = began.elapsed().as_secs_f64();
                told += &format!(" and said that it is {gone} after {took:.2} s at most");
            }
            self.goes_on();
            told
        };
        match fault {
            Fault::Kill => {
                leader.kill();
                let told = led(&others, "dead");
                leader.start();
                told
            }
            Fault::Freeze => {
                leader.signal(Signal::Stop);
                let told = led(&others, "dead");
                leader.signal(Signal::Continue);
                told
            }
            Fault::Part => {
                let other = others[rng.usize(..others.len())];
                let minority = [leader.id, other];
                self.network.part(&minority);
                let told = led(&cluster.others(&minority), "dead");
                let took: Vec<_> = self.takers(&minority);
                self.network.join(&minority);
                assert!(took.is_empty(), "{took:?} took tasks in a minority of {minority:?}");
                format!("{told}; {minority:?} took nothing")
            }
            Fault::Isolate => {
                self.network.set_cable(leader.id, false);
                let told = led(&others, "dead");
                self.network.set_cable(leader.id, true);
                told
            }
            Fault::FillDisk => self.fill_disk(),
            Fault::KillAll => {
                cluster.nodes.iter().for_each(|node| node.signal(Signal::Kill));
                thread::scope(|scope| {
                    for node in &cluster.nodes {
                        scope.spawn(|| {
                            node.wait();
                            node.start();
                        });
                    }
                });
                "all at the same moment".into()
            }
            Fault::Stop => {
                leader.signal(Signal::Terminate);
                let code = leader.wait();
                assert_eq!(code, Some(0), "node {} said:\n{}", leader.id, leader.says());
                let told = led(&others, "left");
                leader.start();
                told
            }
            Fault::Mute | Fault::Deafen => {
                let way = Way { is_blocked: true, ..Way::default() };
                for other in &others {
                    match fault {
                        Fault::Mute => self.ways.set(leader.id, *other, way),
                        _ => self.ways.set(*other, leader.id, way),
                    }
                }
                let told = led(&others, "dead");
                self.ways.set_all(Way::default());
                told
            }
            Fault::Delay | Fault::Lose => {
                let way = match fault {
                    Fault::Delay => Way { delay_ms: (10, 50), ..Way::default() },
                    _ => Way { lost_pct: 5, breaks_permille: 3, ..Way::default() },
                };
                self.ways.set_all(way);
                for _ in 0..3 {
                    self.goes_on();
                }
                self.ways.set_all(Way::default());
                format!("{} tasks were taken with {way:?}", 3 * TAKEN)
            }
        }
    }

    /// Waits until clients have come further.
    fn goes_on(&self) {
        let taken = || self.shared.taken.load(Ordering::Relaxed);
        let enough = taken() + TAKEN;
        until("clients come further", || (taken() >= enough).then_some(()));
    }

    /// Every node takes a task, though it may lead nothing.
    fn each_node_takes(&self) {
        let mut caller = Caller::new(&self.shared);
        for node in 1..=NODES {
            let key = self.shared.new_key();
            until("a node takes a task", || caller.submit(node, key, 0).ok());
        }
    }

    /// The nodes of some that take a task, each asked once.
    fn takers(&self, nodes: &[u64]) -> Vec<u64> {
        thread::scope(|scope| {
            let asked = nodes.iter().map(|node| {
                let take =
                    || Caller::new(&self.shared).submit(*node, self.shared.new_key(), 0).is_ok();
                (*node, scope.spawn(take))
            });
            let asked: Vec<_> = asked.collect();
            let took = asked.into_iter().map(|(node, asked)| (node, asked.join()));
            took.filter(|(_, took)| *took.as_ref().expect("it does not panic"))
                .map(|(node, _)| node)
                .collect()
        })
    }

    /// Fills a node's disk, until its log is, and makes room again.
    fn fill_disk(&self) -> String {
        let cluster = &self.shared.cluster;
        let (node, ballast) = (cluster.node(SMALL), cluster.ballast());
        let mut file = File::create(&ballast).expect("there is room for an empty file");
        let before = node.says().len();
        while file.write_all(&[7; 64 << 10]).is_ok() {}
        let says = |what: &str| node.says()[before..].contains(what);
        until("the log of the node with the small disk finds no room", || {
            (says("cannot be made or removed") || !node.runs()).then_some(())
        });
        self.goes_on();
        fs::remove_file(&ballast).expect("it is there");
        let told = match node.runs() {
            true => "it waited".to_owned(),
            false => {
                let code = node.wait();
                node.start();
                format!("it ended with {code:?} and was started again")
            }
        };
        format!("node {SMALL}: when its log found no room, {told}")
    }
}
