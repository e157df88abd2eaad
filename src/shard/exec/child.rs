//! The child's life: start, lines to it, lines from it, its end.

use super::protocol;
use crate::{
    runtime::{executor, fs::Pipe, process},
    shard::handle::{AgentHandle, Lease},
    wire::id::TaskId,
};
use futures_channel::mpsc;
use futures_lite::{StreamExt, future};
use std::{cell::RefCell, collections::HashMap, future::Future, io, rc::Rc, time::Duration};

/// Read from a child at once.
const PIECE_BYTES: usize = 64 * 1024;
/// The longest piece of standard error that becomes one line of the log.
const LOG_LINE_BYTES: usize = 4096;

/// How often a child is looked at whose output does not end: what it started may hold that open.
const LOOK: Duration = Duration::from_millis(500);

/// What a child works on.
pub type Tasks = HashMap<TaskId, Lease>;

/// Where lines for a child go; dropping it closes the child's standard input.
pub struct ToChild(mpsc::UnboundedSender<Vec<u8>>);

impl ToChild {
    /// Queues a line; a child that is gone has told so through its future.
    pub fn send(&self, line: Vec<u8>) {
        // Bounded by the tasks that the agent may have at the same time.
        let _ = self.0.unbounded_send(line);
    }
}

/// Where lines for the child go, and the future that is the child's life: it ends, and the child
/// with it, when the child does something wrong or its [`ToChild`] is dropped.
pub fn run(
    command: Vec<String>,
    tasks: Rc<RefCell<Tasks>>,
    handle: AgentHandle,
    max_line_bytes: usize,
) -> (ToChild, impl Future<Output = ()>) {
    let (sender, lines) = mpsc::unbounded();
    let stay = handle.stay();
    let life = async move {
        // The child does not outlive its core.
        let _stay = stay;
        let (mut child, streams) = match process::start(&command).await {
            Ok(started) => started,
            Err(error) => return handle.crash(error.to_string()),
        };
        tracing::debug!(agent = %handle.id(), pid = child.id(), "child started");
        handle.set_ready();
        let process::Streams { stdin, stdout, stderr } = streams;
        let log_id = handle.id();
        handle.spawn_future(async move { log_lines(log_id, stderr).await });
        let reading = read_answers(&stdout, &tasks, &handle, max_line_bytes);
        let reading = future::or(reading, until_dead(&mut child));
        let why = future::or(async { Some(reading.await) }, write_lines(stdin, lines)).await;
        let ended = child.end().await;
        if let Some(why) = why {
            let ended = match ended {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            handle.crash(format!("its child {why} ({ended})"));
        }
    };
    (ToChild(sender), life)
}

/// Notices that a child is dead, and leaves what it wrote before a moment to be read.
async fn until_dead(child: &mut process::Process) -> String {
    while !child.has_ended() {
        executor::sleep(LOOK).await;
    }
    executor::sleep(LOOK).await;
    "left its standard output to others".into()
}

/// Writes lines until the agent stops (`None`) or the child does not take them.
async fn write_lines(stdin: Pipe, mut lines: mpsc::UnboundedReceiver<Vec<u8>>) -> Option<String> {
    while let Some(mut line) = lines.next().await {
        while let Ok(more) = lines.try_recv() {
            line.extend_from_slice(&more);
        }
        if let Err(error) = stdin.write_all(line).await {
            return Some(format!("does not read its tasks: {error}"));
        }
    }
    None
}

/// Ends attempts as the child says, until it says or does something else; tells what.
async fn read_answers(
    stdout: &Pipe,
    tasks: &RefCell<Tasks>,
    handle: &AgentHandle,
    max_line_bytes: usize,
) -> String {
    let mut lines = Lines::default();
    loop {
        match lines.fill(stdout, max_line_bytes).await {
            Ok(true) => {}
            Ok(false) => return "closed its standard output".into(),
            Err(error) => return format!("cannot be read: {error}"),
        }
        while let Some(line) = lines.next_line() {
            let answer = match protocol::answer(line, max_line_bytes) {
                Ok(answer) => answer,
                Err(error) => return format!("wrote a line that is no answer: {error}"),
            };
            let Some(lease) = tasks.borrow_mut().remove(&answer.id) else {
                return format!("answered task {}, which it does not have", answer.id);
            };
            handle.finish(lease, answer.result);
        }
    }
}

async fn log_lines(agent: crate::wire::id::AgentId, stderr: Pipe) {
    let mut lines = Lines::default();
    // It is read to its end whatever comes, or the child would wait for ever to write.
    while let Ok(true) = lines.fill(&stderr, usize::MAX).await {
        while let Some(line) = lines.next_line() {
            let line = String::from_utf8_lossy(line);
            tracing::info!(%agent, "{line}");
        }
        if lines.unfinished() > LOG_LINE_BYTES {
            lines.bytes.push(b'\n');
        }
    }
}

/// Cuts what arrives into lines.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    taken: usize,
}

impl Lines {
    /// Reads more; false at the end of the stream. A line that is too long is an error.
    async fn fill(&mut self, pipe: &Pipe, max_line_bytes: usize) -> io::Result<bool> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        if self.bytes.len() > max_line_bytes {
            return Err(io::Error::other("a line is too long"));
        }
        let piece = pipe.read(PIECE_BYTES).await?;
        self.bytes.extend_from_slice(&piece);
        Ok(!piece.is_empty())
    }

    /// Bytes of the line that has not ended yet.
    fn unfinished(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// The next whole line, without its line break.
    fn next_line(&mut self) -> Option<&mut [u8]> {
        let rest = &self.bytes[self.taken..];
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let start = self.taken;
        self.taken += length + 1;
        Some(&mut self.bytes[start..start + length])
    }
}
