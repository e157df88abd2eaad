//! NATS JetStream with file storage: publish with an acknowledgement, pull, acknowledge with a
//! confirmation.

use crate::{
    PAYLOAD_BYTES, Peer, payload, race,
    server::Server,
    talk::{self, Talker, line},
};
use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

/// Messages that one request pulls.
const PULL: u32 = 500;
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";

struct Nats {
    server: Server,
    /// Streams that were used: each round has its own.
    rounds: u32,
}

/// The server, when it is installed.
pub fn start(folder: &Path) -> io::Result<Option<Box<dyn Peer>>> {
    let server = Server::start("nats-server", &folder.join("nats"), |port, folder| {
        let port = port.to_string();
        ["-a", "127.0.0.1", "-p", &port, "-js", "-sd", folder].map(str::to_owned).into()
    })?;
    Ok(server.map(|server| Box::new(Nats { server, rounds: 0 }) as Box<dyn Peer>))
}

impl Peer for Nats {
    fn name(&self) -> String {
        "NATS JetStream, file storage (syncs every 2 minutes)".into()
    }

    fn run(&mut self, tasks: u32) -> io::Result<Duration> {
        self.rounds += 1;
        let name = format!("tasks{}", self.rounds);
        let stream = format!(
            "{{\"name\":\"{name}\",\"subjects\":[\"{name}\"],\"storage\":\"file\",\
             \"retention\":\"limits\",\"num_replicas\":1}}"
        );
        let consumer = format!(
            "{{\"stream_name\":\"{name}\",\"config\":{{\"durable_name\":\"workers\",\
             \"ack_policy\":\"explicit\",\"deliver_policy\":\"all\",\"max_ack_pending\":100000,\
             \"ack_wait\":600000000000}}}}"
        );
        for (subject, body) in [
            (format!("$JS.API.STREAM.CREATE.{name}"), stream),
            (format!("$JS.API.CONSUMER.DURABLE.CREATE.{name}.workers"), consumer),
        ] {
            let ask = Ask { subject, body, answered: false };
            talk::talk(talk::connect(self.server.address())?, ask)?;
        }
        let producer = Producer { name: name.clone(), next: 0, answered: 0, tasks };
        let consumer = Consumer { name: name.clone(), pulled: 0, received: 0, confirmed: 0, tasks };
        let took = race(self.server.address(), producer, consumer)?;
        let subject = format!("$JS.API.STREAM.DELETE.{name}");
        let ask = Ask { subject, body: String::new(), answered: false };
        talk::talk(talk::connect(self.server.address())?, ask)?;
        Ok(took)
    }
}

/// A message from the server.
struct Message<'a> {
    subject: &'a str,
    reply: Option<&'a str>,
    body: &'a [u8],
}

/// Takes what the server sends from the front: the message in it, if it is one, and its length.
fn next<'a>(
    bytes: &'a [u8],
    out: &mut Vec<u8>,
) -> Result<Option<(Option<Message<'a>>, usize)>, String> {
    let Some((text, length)) = line(bytes) else { return Ok(None) };
    let Some(words) = text.strip_prefix("MSG ") else {
        if text == "PING" {
            out.extend_from_slice(b"PONG\r\n");
        }
        let ignored = ["PING", "PONG", "+OK"].contains(&text) || text.starts_with("INFO ");
        return if ignored { Ok(Some((None, length))) } else { Err(text.to_owned()) };
    };
    let words: Vec<_> = words.split(' ').collect();
    let (subject, reply) = (words[0], if words.len() == 4 { Some(words[2]) } else { None });
    let size: usize = words[words.len() - 1].parse().map_err(|_| text.to_owned())?;
    let end = length + size + 2;
    let body = match bytes.get(length..length + size) {
        Some(body) if bytes.len() >= end => body,
        _ => return Ok(None),
    };
    if body.starts_with(b"{\"error\"") || body.windows(9).take(200).any(|at| at == b"\"error\":{") {
        return Err(String::from_utf8_lossy(body).into_owned());
    }
    Ok(Some((Some(Message { subject, reply, body }), end)))
}

/// One request for the server's own interface.
struct Ask {
    subject: String,
    body: String,
    answered: bool,
}

impl Talker for Ask {
    fn begin(&mut self, out: &mut Vec<u8>) {
        let Self { subject, body, .. } = self;
        let _ = write!(out, "{CONNECT}SUB answer 1\r\nPUB {subject} answer {}\r\n", body.len());
        let _ = write!(out, "{body}\r\n");
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, String> {
        let Some((message, length)) = next(bytes, out)? else { return Ok(None) };
        self.answered |= message.is_some();
        Ok(Some(length))
    }

    fn is_done(&self) -> bool {
        self.answered
    }
}

struct Producer {
    name: String,
    next: u32,
    answered: u32,
    tasks: u32,
}

impl Producer {
    fn fill(&mut self, out: &mut Vec<u8>) {
        while self.next < self.tasks && self.next - self.answered < crate::WINDOW {
            let _ = write!(out, "PUB {} put.{} {PAYLOAD_BYTES}\r\n", self.name, self.next);
            out.extend_from_slice(&payload(self.next));
            out.extend_from_slice(b"\r\n");
            self.next += 1;
        }
    }
}

impl Talker for Producer {
    fn begin(&mut self, out: &mut Vec<u8>) {
        let _ = write!(out, "{CONNECT}SUB put.* 1\r\n");
        self.fill(out);
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, String> {
        let Some((message, length)) = next(bytes, out)? else { return Ok(None) };
        if message.is_some() {
            self.answered += 1;
            self.fill(out);
        }
        Ok(Some(length))
    }

    fn is_done(&self) -> bool {
        self.answered == self.tasks
    }
}

struct Consumer {
    name: String,
    /// Messages that were asked for.
    pulled: u32,
    received: u32,
    confirmed: u32,
    tasks: u32,
}

impl Consumer {
    fn pull(&mut self, out: &mut Vec<u8>) {
        while self.pulled < self.tasks && self.pulled - self.received <= PULL {
            let batch = PULL.min(self.tasks - self.pulled);
            self.pulled += batch;
            let body = format!("{{\"batch\":{batch},\"expires\":600000000000}}");
            let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.workers", self.name);
            let _ = write!(out, "PUB {subject} tasks {}\r\n{body}\r\n", body.len());
        }
    }
}

impl Talker for Consumer {
    fn begin(&mut self, out: &mut Vec<u8>) {
        let _ = write!(out, "{CONNECT}SUB tasks 1\r\nSUB confirmed 2\r\n");
        self.pull(out);
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, String> {
        let Some((message, length)) = next(bytes, out)? else { return Ok(None) };
        match message {
            None => {}
            Some(Message { subject: "confirmed", .. }) => self.confirmed += 1,
            Some(Message { reply: Some(reply), body, .. }) if body.len() == PAYLOAD_BYTES => {
                self.received += 1;
                let _ = write!(out, "PUB {reply} confirmed 4\r\n+ACK\r\n");
                self.pull(out);
            }
            Some(Message { subject, .. }) => return Err(format!("a message to {subject}")),
        }
        Ok(Some(length))
    }

    fn is_done(&self) -> bool {
        self.confirmed == self.tasks
    }
}
