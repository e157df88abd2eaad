//! The program that the measured nodes run as `exec` agents: what it did outlasts it and the node.

use crate::wire::{id::TaskId, json::Document};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead, Write},
    path::Path,
};

/// What one line of the file of effects says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    pub id: TaskId,
    pub attempt: u32,
    /// The process that worked on it.
    pub pid: u32,
}

/// Reads tasks, appends a line to `effects` for each and answers with its process id; the first
/// attempt of a task is never answered when `hang_first`.
///
/// # Errors
/// When a line is no task, or the file cannot be written.
pub fn run(effects: &Path, hang_first: bool) -> io::Result<()> {
    let mut file = File::options().append(true).create(true).open(effects)?;
    let (pid, mut out) = (std::process::id(), io::stdout().lock());
    for line in io::stdin().lock().split(b'\n') {
        let Effect { id, attempt, .. } = parse_task(&mut line?, pid)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a task"))?;
        // One write: lines of several processes do not mix.
        file.write_all(format!("{id} {attempt} {pid}\n").as_bytes())?;
        if !(hang_first && attempt == 1) {
            out.write_all(format!("{{\"id\":\"{id}\",\"result\":{pid}}}\n").as_bytes())?;
            out.flush()?;
        }
    }
    Ok(())
}

fn parse_task(line: &mut [u8], pid: u32) -> Option<Effect> {
    let bytes = line.len();
    let document = Document::parse(line, bytes).ok()?;
    let root = document.root();
    let id = root.get("id")?.as_str()?.parse().ok()?;
    let attempt = root.get("attempt")?.as_u64()?.try_into().ok()?;
    Some(Effect { id, attempt, pid })
}

/// The effects that were written so far, in their order.
pub(super) fn read(effects: &Path) -> io::Result<Vec<Effect>> {
    let text = match fs::read_to_string(effects) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    Ok(text.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Effect> {
    let mut words = line.split(' ');
    let effect = Effect {
        id: words.next()?.parse().ok()?,
        attempt: words.next()?.parse().ok()?,
        pid: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(effect)
}

/// How often each task was worked on.
pub(super) fn count(effects: &[Effect]) -> HashMap<TaskId, u64> {
    let mut counts = HashMap::new();
    effects.iter().for_each(|effect| *counts.entry(effect.id).or_default() += 1);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_survive_their_file_and_half_a_line_does_not_count() {
        let id = TaskId { partition: 1, random: 9 };
        let line = format!("{id} 2 345");
        assert_eq!(parse(&line), Some(Effect { id, attempt: 2, pid: 345 }));
        for broken in ["", "t1-9 2 345", &line[..34], &format!("{line} 6")] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_task_is_read_from_its_line() {
        let id = TaskId { partition: 1, random: 9 };
        let mut line = format!("{{\"id\":\"{id}\",\"attempt\":3,\"payload\":\"\"}}").into_bytes();
        assert_eq!(parse_task(&mut line, 7), Some(Effect { id, attempt: 3, pid: 7 }));
        assert_eq!(parse_task(&mut b"{}".to_vec(), 7), None);
    }
}
