//! beanstalkd with its binlog synced at every write: put, reserve, delete.

use crate::{
    PAYLOAD_BYTES, Peer, WINDOW, payload, race,
    server::Server,
    talk::{Producer, Talker, line},
};
use std::{io, io::Write, path::Path, time::Duration};

struct Beanstalk(Server);

/// The server, when it is installed.
pub fn start(folder: &Path) -> io::Result<Option<Box<dyn Peer>>> {
    let server = Server::start("beanstalkd", &folder.join("beanstalkd"), |port, folder| {
        let port = port.to_string();
        ["-l", "127.0.0.1", "-p", &port, "-b", folder, "-f", "0"].map(str::to_owned).into()
    })?;
    Ok(server.map(|server| Box::new(Beanstalk(server)) as Box<dyn Peer>))
}

impl Peer for Beanstalk {
    fn name(&self) -> String {
        "beanstalkd -f 0 (synced always)".into()
    }

    fn run(&mut self, tasks: u32) -> io::Result<Duration> {
        let put = |out: &mut Vec<u8>, number| {
            let _ = write!(out, "put 0 0 600 {PAYLOAD_BYTES}\r\n");
            out.extend_from_slice(&payload(number));
            out.extend_from_slice(b"\r\n");
        };
        let answer = |bytes: &[u8]| match line(bytes) {
            None => Ok(None),
            Some((text, length)) if text.starts_with("INSERTED ") => Ok(Some(length)),
            Some((text, _)) => Err(text.to_owned()),
        };
        let consumer = Consumer { tasks, reserving: 0, deleted: 0 };
        race(self.0.address(), Producer::new(tasks, put, answer), consumer)
    }
}

struct Consumer {
    tasks: u32,
    /// Reservations that were asked for, answered or not.
    reserving: u32,
    deleted: u32,
}

impl Consumer {
    fn reserve(&mut self, out: &mut Vec<u8>) {
        if self.reserving < self.tasks {
            self.reserving += 1;
            out.extend_from_slice(b"reserve\r\n");
        }
    }
}

impl Talker for Consumer {
    fn begin(&mut self, out: &mut Vec<u8>) {
        (0..WINDOW).for_each(|_| self.reserve(out));
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, String> {
        let Some((text, length)) = line(bytes) else { return Ok(None) };
        if text == "DELETED" {
            self.deleted += 1;
            return Ok(Some(length));
        }
        let words = text.strip_prefix("RESERVED ").and_then(|words| words.split_once(' '));
        let (id, size) = words.ok_or_else(|| text.to_owned())?;
        let end = length + size.parse::<usize>().map_err(|_| text.to_owned())? + 2;
        if bytes.len() < end {
            return Ok(None);
        }
        let _ = write!(out, "delete {id}\r\n");
        self.reserve(out);
        Ok(Some(end))
    }

    fn is_done(&self) -> bool {
        self.deleted == self.tasks
    }
}
