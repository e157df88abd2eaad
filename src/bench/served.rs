//! A node that is another process: this same program, started with `serve`.

use crate::config::{AgentKind, AgentType, Config};
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// How long a node may take to read its log and to listen.
const START_LIMIT: Duration = Duration::from_secs(300);
/// The last lines of a node's log that an error repeats, bytes.
const LOG_TAIL_BYTES: usize = 2000;
/// Where nodes say what they say.
const LOG: &str = "node.log";

/// A folder that disappears with its owner.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A new folder inside `parent`, which is made when it is not there.
    pub(super) fn new(parent: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        let path = fs::canonicalize(parent)?.join(format!("{name}-{}", std::process::id()));
        // What a killed run with this process id left behind is nobody's.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How nodes are started again and again on one data folder.
pub(super) struct Plan {
    folder: PathBuf,
    tuning: PathBuf,
    settings: Vec<String>,
}

impl Plan {
    /// Nodes of the configuration with one agent type, with their log and all else in `folder`;
    /// `settings` are further keys. Each is alone, and for this process, so that it asks for no
    /// token.
    pub(super) fn new(
        config: &Config,
        agent: AgentType,
        folder: &Path,
        settings: &[String],
    ) -> io::Result<Self> {
        let config = Config { agent: vec![agent], node: Vec::new(), ..config.clone() };
        let mut all = vec![
            "server.rpc_address=127.0.0.1:0".to_owned(),
            "server.http_address=127.0.0.1:0".to_owned(),
            "cluster.node=0".to_owned(),
        ];
        all.extend_from_slice(settings);
        Self::write(&config, folder, all)
    }

    /// A node of the cluster that the configuration lists, with one agent type and all that it keeps
    /// in `folder`. It asks for no token.
    pub(super) fn of_node(
        config: &Config,
        node: u64,
        agent: AgentType,
        folder: &Path,
    ) -> io::Result<Self> {
        let config = Config { agent: vec![agent], ..config.clone() };
        Self::write(&config, folder, vec![format!("cluster.node={node}")])
    }

    fn write(config: &Config, folder: &Path, mut settings: Vec<String>) -> io::Result<Self> {
        let tuning = folder.join("tuning.toml");
        fs::write(&tuning, config.print_toml())?;
        settings.push("server.token_file=\"\"".to_owned());
        settings.push(format!("log.folder={:?}", folder.join("log")));
        Ok(Self { folder: folder.to_owned(), tuning, settings })
    }

    /// Starts a node and waits until it listens.
    ///
    /// # Errors
    /// When it does not; the text ends with what the node said.
    pub(super) fn start(&self) -> io::Result<Served> {
        let log = self.folder.join(LOG);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--json", "--config"]).arg(&self.tuning);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let append = File::options().create(true).append(true).open(&log)?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(append).spawn()?;
        let mut served = Served { child, rpc: SocketAddr::from(([127, 0, 0, 1], 0)) };
        served.rpc = served
            .listens()
            .ok_or_else(|| self.explain(io::Error::other("the node did not start")))?;
        Ok(served)
    }

    /// The error with the last that the nodes of the plan said.
    pub(super) fn explain(&self, error: io::Error) -> io::Error {
        let said = fs::read(self.folder.join(LOG)).unwrap_or_default();
        let tail = String::from_utf8_lossy(&said[said.len().saturating_sub(LOG_TAIL_BYTES)..]);
        io::Error::other(format!("{error}; the node said: {}", tail.trim()))
    }
}

/// A node in a process of its own; it is killed when this is dropped.
pub(super) struct Served {
    child: Child,
    rpc: SocketAddr,
}

impl Served {
    /// Where it listens, once it says so.
    fn listens(&mut self) -> Option<SocketAddr> {
        let stdout = self.child.stdout.take()?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            // Nobody waits any more when the limit is over.
            let _ = sender.send(line);
        });
        let mut line = receiver.recv_timeout(START_LIMIT).ok()?.into_bytes();
        let said: Said = simd_json::from_slice(&mut line).ok()?;
        said.rpc.parse().ok()
    }

    /// Where it listens for MessagePack-RPC.
    pub(super) fn rpc(&self) -> SocketAddr {
        self.rpc
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL, as a crash would, and waits until it is gone.
    pub(super) fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `serve --json` says when it listens.
#[derive(serde::Deserialize)]
struct Said {
    rpc: String,
}

/// The processes whose parent is `pid`.
pub(super) fn children_of(pid: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(child) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between the two looks.
        let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
        if parent_in(&stat) == Some(pid) {
            children.push(child);
        }
    }
    Ok(children)
}

/// The parent in a line of `/proc/PID/stat`; the name before it may hold anything. A process that
/// has ended and was not waited for counts no more.
fn parent_in(stat: &str) -> Option<u32> {
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    match words.next()? {
        "Z" | "X" => None,
        _ => words.next()?.parse().ok(),
    }
}

/// A type of agents that work on the tasks of a benchmark.
pub(super) fn agent_type(name: &str, kind: AgentKind, agents: usize, max_tasks: u32) -> AgentType {
    AgentType {
        name: name.into(),
        min: if kind == AgentKind::Remote { 0 } else { agents },
        max: agents,
        kind,
        max_tasks,
        idle_timeout_ms: 60_000,
        warmup_delay_ms: 0,
        capabilities: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in("7 (a) b) (c)) S 42 7 7"), Some(42));
        assert_eq!(parent_in("7 (gone) Z 42 7 7"), None);
        assert_eq!(parent_in("nonsense"), None);
    }

    #[test]
    fn children_are_found_while_they_run() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children_of(std::process::id()).unwrap().contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children_of(std::process::id()).unwrap().contains(&child.id()));
    }

    #[test]
    fn a_folder_goes_with_its_owner() {
        let scratch = Scratch::new(&std::env::temp_dir(), "coreflow-scratch-test").unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
