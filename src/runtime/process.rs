//! Child processes with piped standard input and output.

use super::{
    executor::{blocking, sleep},
    fs::Pipe,
    sys,
};
use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// Time between two looks whether a child has ended whose output something else keeps open.
const LOOK: Duration = Duration::from_secs(1);

/// The groups of all children that run, for an exit that waits for nobody. Locked while a child
/// starts, so that none is missed.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// The processors that this process was given, before its threads were pinned.
static PROCESSORS: OnceLock<sys::Affinity> = OnceLock::new();

/// Notes which processors this process may use: called before a thread is pinned.
pub(super) fn remember_processors() {
    PROCESSORS.get_or_init(sys::affinity);
}

fn running() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills every child and what it started: for a program that ends right after. No child starts
/// any more.
pub fn kill_all() {
    let running = running();
    running.iter().for_each(|group| sys::kill_group(*group));
    // Held until the end, whoever wants to start a child waits for it.
    std::mem::forget(running);
}

/// Kills a process and what it started, when it leads a group of its own as the children of this
/// program and of other nodes do; one that is gone is no error.
pub fn kill_group(leader: u32) {
    sys::kill_group(leader);
}

/// Kills what still runs of a child's group.
fn kill(group: u32) {
    sys::kill_group(group);
    running().retain(|other| *other != group);
}

/// A running child in a process group of its own, so that what it starts dies with it.
///
/// Dropping it kills the group; [`Process::end`] also waits for the child and tells how it ended.
pub struct Process {
    child: Option<Child>,
    pid: u32,
}

/// The three ends of a child's standard streams.
pub struct Streams {
    /// Written to the child.
    pub stdin: Pipe,
    /// What the child answers.
    pub stdout: Pipe,
    /// What the child says for the log.
    pub stderr: Pipe,
}

/// Starts a program with arguments; `command` is not empty.
///
/// # Errors
/// When the program cannot be started, with the program's name in the text.
pub async fn start(command: &[String]) -> io::Result<(Process, Streams)> {
    let command = command.to_vec();
    let program = command[0].clone();
    let started = blocking(move || {
        let mut running = running();
        let mut child = Command::new(&command[0]);
        child.args(&command[1..]).process_group(0);
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::before_exec(&mut child, PROCESSORS.get().copied());
        let child = child.spawn()?;
        running.push(child.id());
        Ok::<_, io::Error>(child)
    })
    .await?;
    let mut child = started.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot start {program}: {error}"))
    })?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        unreachable!("all three streams were asked for as pipes");
    };
    let streams = Streams {
        stdin: Pipe::new(stdin.into()),
        stdout: Pipe::new(stdout.into()),
        stderr: Pipe::new(stderr.into()),
    };
    Ok((Process { pid: child.id(), child: Some(child) }, streams))
}

impl Process {
    /// The child's process id.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Whether the child has ended, even if something that it started lives on.
    pub fn has_ended(&self) -> bool {
        sys::has_ended(self.pid)
    }

    /// Ends when the child has, as far as looks that are a second apart tell.
    pub async fn ended(&self) {
        while !self.has_ended() {
            sleep(LOOK).await;
        }
    }

    /// Kills what still runs of the group, waits for the child and tells how it ended.
    pub async fn end(mut self) -> io::Result<ExitStatus> {
        let Some(mut child) = self.child.take() else {
            unreachable!("the child is taken only here and in drop");
        };
        let pid = self.pid;
        blocking(move || {
            // Before the wait: until then nobody else can have this process id. A child that ended
            // by itself keeps its status.
            kill(pid);
            child.wait()
        })
        .await?
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill(self.pid);
            // The child was killed, so this wait is short.
            let _ = child.wait();
        }
    }
}
