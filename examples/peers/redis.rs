//! Redis streams: XADD, XREADGROUP in a consumer group, XACK.

use crate::{
    Peer, WINDOW, payload, race,
    server::Server,
    talk::{self, Producer, Talker, line},
};
use std::{io, io::Read, io::Write, path::Path, time::Duration};

/// How much is written down before a request is answered.
const SYNCS: [&str; 2] = ["always", "everysec"];

/// Appends a command as its words.
fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

struct Redis {
    server: Server,
    sync: &'static str,
    /// Whether one XACK names all tasks that were read at once.
    acks_together: bool,
    /// Streams that were used: each round has its own.
    rounds: u32,
}

/// Servers that sync always and every second.
pub fn start(folder: &Path) -> io::Result<Vec<Box<dyn Peer>>> {
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for (sync, acks_together) in SYNCS.into_iter().flat_map(|sync| [(sync, false), (sync, true)]) {
        let folder = folder.join(format!("redis-{sync}-{acks_together}"));
        let server = Server::start("redis-server", &folder, |port, folder| {
            let port = port.to_string();
            let words = [
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--dir",
                folder,
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                sync,
                "--auto-aof-rewrite-percentage",
                "0",
            ];
            words.map(str::to_owned).into()
        })?;
        let Some(server) = server else { break };
        peers.push(Box::new(Redis { server, sync, acks_together, rounds: 0 }));
    }
    Ok(peers)
}

impl Peer for Redis {
    fn name(&self) -> String {
        let acks = if self.acks_together { ", one XACK for each read" } else { "" };
        format!("Redis streams, appendfsync {}{acks}", self.sync)
    }

    fn run(&mut self, tasks: u32) -> io::Result<Duration> {
        self.rounds += 1;
        let key = format!("tasks-{}", self.rounds).into_bytes();
        let mut setup = Vec::new();
        command(&mut setup, &[b"XGROUP", b"CREATE", &key, b"workers", b"0", b"MKSTREAM"]);
        let mut stream = talk::connect(self.server.address())?;
        stream.write_all(&setup)?;
        let mut said = [0; 5];
        stream.read_exact(&mut said)?;
        if &said != b"+OK\r\n" {
            return Err(io::Error::other("the group was not created"));
        }
        let stream_key = key.clone();
        let put = move |out: &mut Vec<u8>, number| {
            command(out, &[b"XADD", &stream_key, b"*", b"d", &payload(number)]);
        };
        let producer = Producer::new(tasks, put, added);
        let consumer =
            Consumer { key, acks_together: self.acks_together, tasks, ..Consumer::default() };
        let took = race(self.server.address(), producer, consumer)?;
        // What was measured is not to fill the memory of the next round.
        let mut remove = Vec::new();
        command(&mut remove, &[b"UNLINK", format!("tasks-{}", self.rounds).as_bytes()]);
        stream.write_all(&remove)?;
        stream.read_exact(&mut [0; 4])?;
        Ok(took)
    }
}

/// The answer to XADD: the id, a bulk string.
fn added(bytes: &[u8]) -> Result<Option<usize>, String> {
    Ok(bulk(bytes, 0)?.map(|(_, end)| end))
}

/// The bulk string at `at`, and where it ends.
fn bulk(bytes: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, String> {
    let Some((head, length)) = line(&bytes[at..]) else { return Ok(None) };
    let size = head.strip_prefix('$').and_then(|size| size.parse::<usize>().ok());
    let begin = at + length;
    let end = begin + size.ok_or_else(|| head.to_owned())?;
    Ok(bytes.get(begin..end).filter(|_| bytes.len() >= end + 2).map(|text| (text, end + 2)))
}

#[derive(Default)]
struct Consumer {
    key: Vec<u8>,
    acks_together: bool,
    tasks: u32,
    acknowledged: u32,
    /// Entries of the answer that is being read.
    entries: u32,
    /// Ids of that answer, when they are acknowledged together.
    ids: Vec<Vec<u8>>,
}

impl Consumer {
    fn read(&self, out: &mut Vec<u8>) {
        let count = WINDOW.to_string();
        let words: [&[u8]; 10] = [
            b"XREADGROUP",
            b"GROUP",
            b"workers",
            b"one",
            b"COUNT",
            count.as_bytes(),
            b"BLOCK",
            b"1000",
            b"STREAMS",
            &self.key,
        ];
        command(out, &[&words[..], &[b">"]].concat());
    }

    /// Takes an entry of the answer: its id, and one field with the payload.
    fn entry(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, String> {
        let Some((_, at)) = line(bytes) else { return Ok(None) };
        let Some((id, at)) = bulk(bytes, at)? else { return Ok(None) };
        let Some((_, length)) = line(&bytes[at..]) else { return Ok(None) };
        let Some((_, at)) = bulk(bytes, at + length)? else { return Ok(None) };
        let Some((_, end)) = bulk(bytes, at)? else { return Ok(None) };
        self.entries -= 1;
        match self.acks_together {
            true => self.ids.push(id.to_vec()),
            false => command(out, &[b"XACK", &self.key, b"workers", id]),
        }
        if self.entries == 0 {
            if self.acks_together {
                let ids = std::mem::take(&mut self.ids);
                let mut words: Vec<&[u8]> = vec![b"XACK", &self.key, b"workers"];
                words.extend(ids.iter().map(|id| &id[..]));
                command(out, &words);
            }
            self.read(out);
        }
        Ok(Some(end))
    }

    /// Takes the head of an answer to XREADGROUP: one stream, its key, and how many entries follow.
    fn head(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, String> {
        let Some((first, at)) = line(bytes) else { return Ok(None) };
        if first == "*-1" {
            self.read(out);
            return Ok(Some(at));
        }
        let Some((_, length)) = line(&bytes[at..]) else { return Ok(None) };
        let Some((_, at)) = bulk(bytes, at + length)? else { return Ok(None) };
        let Some((count, length)) = line(&bytes[at..]) else { return Ok(None) };
        let count = count.strip_prefix('*').and_then(|count| count.parse().ok());
        self.entries = count.ok_or("no list of entries")?;
        Ok(Some(at + length))
    }
}

impl Talker for Consumer {
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.read(out);
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, String> {
        match bytes.first() {
            None => Ok(None),
            Some(b'*') if self.entries > 0 => self.entry(bytes, out),
            Some(b'*') => self.head(bytes, out),
            Some(b':') => Ok(line(bytes).map(|(text, length)| {
                self.acknowledged += text[1..].parse::<u32>().unwrap_or(0);
                length
            })),
            Some(_) => Err(line(bytes).map_or("?", |(text, _)| text).to_owned()),
        }
    }

    fn is_done(&self) -> bool {
        self.acknowledged == self.tasks
    }
}
