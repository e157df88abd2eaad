//! The child's life: start, lines to it, lines from it, its end.

use super::{log::log_lines, protocol};
use crate::{
    runtime::{fs::Pipe, process},
    shard::handle::{AgentHandle, Lease},
    wire::id::TaskId,
};
use futures_channel::{mpsc, oneshot};
use futures_lite::{StreamExt, future};
use std::{cell::RefCell, collections::HashMap, future::Future, io, rc::Rc};

/// Read from a child at once.
const PIECE_BYTES: usize = 64 * 1024;

/// What a child works on.
pub type Tasks = HashMap<TaskId, Lease>;

/// Where lines for a child go; dropping it ends the child.
pub struct ToChild {
    lines: mpsc::UnboundedSender<Vec<u8>>,
    _dismissed: oneshot::Sender<()>,
}

impl ToChild {
    /// Queues a line; a child that is gone has told so through its future.
    pub fn send(&self, line: Vec<u8>) {
        // Bounded by the tasks that the agent may have at the same time.
        let _ = self.lines.unbounded_send(line);
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
    let (dismiss, dismissed) = oneshot::channel::<()>();
    let stay = handle.stay();
    let life = async move {
        // The child does not outlive its core.
        let _stay = stay;
        let (child, streams) = match process::start(&command).await {
            Ok(started) => started,
            Err(error) => return handle.crash(error.to_string()),
        };
        tracing::debug!(agent = %handle.id(), pid = child.id(), "child started");
        handle.set_ready();
        let process::Streams { stdin, stdout, stderr } = streams;
        let (alive, ended) = oneshot::channel();
        handle.spawn_future(log_lines(handle.id(), stderr, ended));
        let reading = async { Some(read_answers(&stdout, &tasks, &handle, max_line_bytes).await) };
        let writing = write_lines(stdin, lines);
        let watching = async {
            // For children whose own children keep their output open.
            child.ended().await;
            Some("ended".into())
        };
        // A write to a child that does not read never ends by itself, so the dismissal is a
        // future of its own.
        let dismissed = async {
            let _ = dismissed.await;
            None
        };
        let why = future::or(future::or(reading, writing), future::or(dismissed, watching)).await;
        let status = child.end().await;
        drop(alive);
        if let Some(why) = why {
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            handle.crash(format!("its child {why} ({status})"));
        }
    };
    (ToChild { lines: sender, _dismissed: dismiss }, life)
}

/// Writes lines until the agent stops (`None`) or the child does not take them.
async fn write_lines(stdin: Pipe, mut lines: mpsc::UnboundedReceiver<Vec<u8>>) -> Option<String> {
    while let Some(mut line) = lines.next().await {
        while let Ok(more) = lines.try_recv() {
            line.extend_from_slice(&more);
        }
        if let Err(error) = stdin.write_all(&line).await {
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

/// Cuts what arrives into lines.
#[derive(Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// Bytes of lines that were given out.
    taken: usize,
    /// Bytes that are known to hold no other end of a line.
    searched: usize,
}

impl Lines {
    /// Reads more; false at the end of the stream. A line that is too long is an error.
    pub(super) async fn fill(&mut self, pipe: &Pipe, max_line_bytes: usize) -> io::Result<bool> {
        self.bytes.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        if self.bytes.len() > max_line_bytes {
            return Err(io::Error::other("a line is too long"));
        }
        let piece = pipe.read(PIECE_BYTES).await?;
        self.bytes.extend_from_slice(&piece);
        Ok(!piece.is_empty())
    }

    /// The next whole line, without its line break.
    pub(super) fn next_line(&mut self) -> Option<&mut [u8]> {
        let rest = &self.bytes[self.searched..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.bytes.len();
            return None;
        };
        let (start, end) = (self.taken, self.searched + length);
        self.taken = end + 1;
        self.searched = self.taken;
        Some(&mut self.bytes[start..end])
    }

    /// What came of the line that has not ended yet, when it is longer than `limit`: it is taken
    /// as a line.
    pub(super) fn take_unfinished(&mut self, limit: usize) -> Option<&[u8]> {
        let start = self.taken;
        if self.bytes.len() - start <= limit {
            return None;
        }
        self.taken = self.bytes.len();
        self.searched = self.taken;
        Some(&self.bytes[start..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_however_they_arrive() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in ["on", "e\ntwo\n\nth", "", "ree", "\nfour"] {
            lines.bytes.extend_from_slice(piece.as_bytes());
            while let Some(line) = lines.next_line() {
                found.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        assert_eq!(found, ["one", "two", "", "three"]);
        assert_eq!(lines.take_unfinished(4), None);
        assert_eq!(lines.take_unfinished(3), Some(&b"four"[..]));
        assert_eq!(lines.next_line(), None);
    }
}
