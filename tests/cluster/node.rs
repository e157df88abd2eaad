//! A node's place in the network; its process may end and begin again.

use crate::network::{Network, address};
use coreflow::{
    client::{Client, ClientError, Target},
    wire::secret::Secret,
};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, mpsc},
    thread,
    time::{Duration, Instant},
};

/// How long a start or a stop may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long an answer may take: a little longer than a node goes on trying.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(4);
/// How long nobody may take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// What a signal is called by `kill`.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Kill,
    Stop,
    Continue,
    Terminate,
}

/// A node.
pub struct Node {
    pub id: u64,
    namespace: String,
    config: PathBuf,
    said: PathBuf,
    pub folder: PathBuf,
    token: Secret,
    child: Mutex<Option<Child>>,
}

impl Node {
    /// A node that does not run yet.
    pub fn new(id: u64, network: &Network, folder: &Path, config: &str, token: Secret) -> Self {
        let file = folder.join(format!("node-{id}.toml"));
        fs::write(&file, config).expect("the folder is writable");
        Self {
            id,
            namespace: network.of_node(id),
            config: file,
            said: folder.join(format!("node-{id}.txt")),
            folder: folder.join(format!("node-{id}")),
            token,
            child: Mutex::default(),
        }
    }

    /// Where clients reach it.
    pub fn rpc(&self) -> SocketAddr {
        format!("{}:7450", address(self.id)).parse().expect("it is an address")
    }

    /// Starts it and waits until it listens.
    pub fn start(&self) {
        let log = File::options().create(true).append(true).open(&self.said);
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.namespace, env!("CARGO_BIN_EXE_coreflow")])
            .args(["serve", "--json", "--config"])
            .arg(&self.config)
            .arg("--set")
            .arg(format!("log.folder={}", self.folder.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.expect("the folder is writable"))
            .spawn()
            .expect("ip runs");
        let out = child.stdout.take().expect("it has a pipe");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(out).read_line(&mut line);
            // Nobody waits any more when the limit is over.
            let _ = sender.send(line);
        });
        *self.child() = Some(child);
        let line = receiver.recv_timeout(LIMIT).unwrap_or_default();
        assert!(line.contains("rpc"), "node {} did not start; it said:\n{}", self.id, self.says());
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().expect("no thread that has it panics")
    }

    /// Whether its process is there.
    pub fn runs(&self) -> bool {
        let mut child = self.child();
        child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends a signal to its process, which must be there.
    pub fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Kill => "-KILL",
            Signal::Stop => "-STOP",
            Signal::Continue => "-CONT",
            Signal::Terminate => "-TERM",
        };
        let pid = self.child().as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status();
        assert!(sent.expect("kill runs").success(), "node {} is not there", self.id);
    }

    /// Waits until its process has ended; tells its exit code, when it was not killed.
    pub fn wait(&self) -> Option<i32> {
        let deadline = Instant::now() + LIMIT;
        while self.runs() {
            assert!(Instant::now() < deadline, "node {} does not end", self.id);
            thread::sleep(Duration::from_millis(5));
        }
        self.child().take().and_then(|mut child| child.wait().ok()?.code())
    }

    /// Kills it, as a crash would.
    pub fn kill(&self) {
        self.signal(Signal::Kill);
        self.wait();
    }

    /// All that it said.
    pub fn says(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// A connection of a client.
    pub fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(self.target(), CONNECT_LIMIT)
    }

    /// What a client connects to.
    pub fn target(&self) -> Target {
        Target { address: self.rpc(), token: Some(self.token.clone()) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
