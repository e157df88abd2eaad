//! Replicated logs: puts into clusters of etcd, and what `coreflow bench throughput --only consensus`
//! commits one by one, in turns. Values and bodies have 256 bytes, 1,000 are under way over two
//! connections to each node, and every acknowledgement is on the disks of more than half of the nodes.

use crate::{
    PAYLOAD_BYTES, ROUNDS, WINDOW,
    grpc::Puts,
    ourselves::measure,
    server::{Folder, free_address},
    talk,
};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Nodes of the clusters, and the figure of `consensus` for each.
const SIZES: [(usize, &str); 3] = [
    (1, "single_1_node_ops_per_s"),
    (3, "single_3_nodes_ops_per_s"),
    (5, "single_5_nodes_ops_per_s"),
];
/// Connections to each node.
const CONNECTIONS: u32 = 2;
/// Puts that tell how many fill a round.
const TRIAL: u32 = 5_000;
/// How long a cluster may take to elect a leader.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A cluster of etcd; it ends with this.
struct Etcd {
    children: Vec<Child>,
    clients: Vec<SocketAddr>,
    next_key: u32,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Etcd {
    /// Starts so many nodes and waits until they serve.
    fn start(count: usize, folder: &Path) -> io::Result<Self> {
        fs::create_dir(folder)?;
        let addresses = |_| Ok((free_address()?, free_address()?));
        let nodes = (0..count).map(addresses).collect::<io::Result<Vec<_>>>()?;
        let names: Vec<_> = (0..count).map(|node| format!("n{node}")).collect();
        let all =
            names.iter().zip(&nodes).map(|(name, (_, peers))| format!("{name}=http://{peers}"));
        let all = all.collect::<Vec<_>>().join(",");
        let mut etcd = Self { children: Vec::new(), clients: Vec::new(), next_key: 0 };
        for (name, (client, peers)) in names.iter().zip(&nodes) {
            let (client_url, peers_url) = (format!("http://{client}"), format!("http://{peers}"));
            let log = File::create(folder.join(format!("{name}.log")))?;
            let child = Command::new("etcd")
                .args(["--name", name, "--initial-cluster", &all])
                .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
                .args(["--listen-peer-urls", &peers_url])
                .args(["--initial-advertise-peer-urls", &peers_url])
                .args([Path::new("--data-dir"), &folder.join(name)])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()?;
            etcd.children.push(child);
            etcd.clients.push(*client);
        }
        let deadline = Instant::now() + START_LIMIT;
        while !etcd.clients.iter().all(|client| is_healthy(*client)) {
            if Instant::now() > deadline {
                return Err(io::Error::other("a cluster of etcd does not serve"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(etcd)
    }

    /// Puts so many keys; tells how many in a second.
    fn put(&mut self, puts: u32) -> io::Result<f64> {
        let count = self.clients.len() as u32 * CONNECTIONS;
        let share = puts.div_ceil(count);
        let streams = (0..CONNECTIONS).flat_map(|_| &self.clients);
        let streams =
            streams.map(|client| talk::connect(*client)).collect::<io::Result<Vec<_>>>()?;
        let began = Instant::now();
        thread::scope(|scope| {
            let putting = streams.into_iter().enumerate().map(|(place, stream)| {
                let first = self.next_key + place as u32 * share;
                let value = vec![b'.'; PAYLOAD_BYTES];
                let puts = Puts::new(first, share, (WINDOW / count).max(1), value);
                scope.spawn(move || talk::talk(stream, puts))
            });
            let putting: Vec<_> = putting.collect();
            putting.into_iter().try_for_each(|it| it.join().expect("no client panics"))
        })?;
        self.next_key += share * count;
        Ok(f64::from(share * count) / began.elapsed().as_secs_f64())
    }
}

/// Whether a node says that its cluster has a leader.
fn is_healthy(client: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(client)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, io::Error>(answer)
    };
    ask().is_ok_and(|answer| answer.contains("\"health\":\"true\""))
}

/// What coreflow commits one by one, for each size.
fn ourselves(program: &Path, folder: &Path, seconds: f64) -> io::Result<[f64; SIZES.len()]> {
    let measured = measure(program, "consensus", seconds, folder)?;
    Ok(SIZES.map(|(_, name)| measured[name].as_f64().unwrap_or_default()))
}

/// Measures both in turns and prints a table.
pub fn run(program: &Path, folder: &Folder, seconds: f64) -> io::Result<()> {
    if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("etcd is not installed and left out");
        return Ok(());
    }
    let mut rates = [const { (Vec::new(), Vec::new()) }; SIZES.len()];
    for round in 0..ROUNDS {
        for (place, (size, _)) in SIZES.into_iter().enumerate() {
            eprintln!("etcd, {size} nodes …");
            let mut etcd = Etcd::start(size, &folder.path().join(format!("etcd-{round}-{size}")))?;
            let trial = etcd.put(TRIAL)?;
            rates[place].0.push(etcd.put((trial * seconds) as u32)?);
        }
        eprintln!("coreflow …");
        let ours = ourselves(program, &folder.path().join("coreflow-clusters"), seconds)?;
        for (place, rate) in ours.into_iter().enumerate() {
            rates[place].1.push(rate);
        }
    }
    println!(
        "{:54} {:>10} {:>10}",
        "operations of 256 bytes in a second, committed", "best", "median"
    );
    for ((size, _), (theirs, ours)) in SIZES.into_iter().zip(rates) {
        for (name, mut rates) in [("etcd", theirs), ("coreflow", ours)] {
            rates.sort_by(f64::total_cmp);
            let (best, median) = (rates[rates.len() - 1], rates[rates.len() / 2]);
            println!("{:54} {best:10.0} {median:10.0}", format!("{name}, {size} nodes"));
        }
    }
    Ok(())
}
