//! A side of a connection between nodes whose words are the test's.

use super::{
    WAIT,
    far::{Places, addresses, some, stop},
    receive,
};
use coreflow::{
    client::{Params, View},
    node::{
        Node, NodeHandle,
        gateway::{Challenge, Gateway, Known},
    },
    shard::agent::Agent,
    wire::{
        api::{CoreStats, Error},
        id::AgentAddress,
        msgpack::{Reader, write},
        trunk::{Progress, Record, Unpacker},
    },
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// A connection that speaks as a node does.
pub(super) struct Said {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    pub msgid: u64,
}

impl Said {
    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(WAIT)).expect("a socket");
        Self { stream, buffer: Vec::new(), msgid: 0 }
    }

    pub(super) fn to(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).expect("it listens"))
    }

    /// The next MessagePack value; `None` when the other side has hung up.
    pub(super) fn value(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut reader = Reader::new(&self.buffer);
            if let Ok(value) = reader.raw() {
                let value = value.to_vec();
                self.buffer.drain(..value.len());
                return Some(value);
            }
            let mut part = [0; 4096];
            match self.stream.read(&mut part).expect("it says something in time") {
                0 => return None,
                len => self.buffer.extend_from_slice(&part[..len]),
            }
        }
    }

    /// Offers a trunk; what is answered, or the refusal.
    pub(super) fn offer(&mut self, params: Params) -> Result<Vec<u8>, String> {
        self.msgid += 1;
        let mut out = Vec::new();
        write::array(&mut out, 4);
        write::uint(&mut out, 0);
        write::uint(&mut out, self.msgid);
        write::str(&mut out, "here.trunk");
        write::array(&mut out, 1);
        params.write(&mut out);
        self.stream.write_all(&out).expect("it listens");
        let answer = self.value().expect("it answers");
        let parts: Vec<View<'_>> = View::new(&answer).items().collect();
        match parts[2].is_nil() {
            true => Ok(parts[3].bytes().to_vec()),
            false => Err(parts[2].get("message").and_then(View::str).expect("a reason").to_owned()),
        }
    }

    /// Answers what was asked last with the map of these numbers.
    pub(super) fn answer(&mut self, fields: &[(&str, u64)]) {
        self.answer_with(numbered(fields));
    }

    /// Answers what was asked last with a map.
    pub(super) fn answer_with(&mut self, params: Params) {
        let mut out = Vec::new();
        write::array(&mut out, 4);
        write::uint(&mut out, 1);
        write::uint(&mut out, self.msgid);
        write::nil(&mut out);
        params.write(&mut out);
        self.stream.write_all(&out).expect("it listens");
    }

    /// Refuses what was asked last.
    pub(super) fn refuse(&mut self, code: &str) {
        let mut out = Vec::new();
        write::array(&mut out, 4);
        write::uint(&mut out, 1);
        write::uint(&mut out, self.msgid);
        Params::new().str("code", code).str("message", "says a stranger").write(&mut out);
        write::nil(&mut out);
        self.stream.write_all(&out).expect("it listens");
    }

    /// The parameters of the next request; those before are answered.
    pub(super) fn asked(&mut self) -> Vec<u8> {
        let request = self.value().expect("it asks");
        let parts: Vec<View<'_>> = View::new(&request).items().collect();
        self.msgid = parts[1].uint().expect("a request");
        parts[3].items().next().expect("parameters").bytes().to_vec()
    }

    /// Whether the other side hangs up without another word.
    pub(super) fn is_told_nothing(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(said) => said == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Whether the other side hangs up, and does not only say nothing.
    pub(super) fn is_closed(&mut self) -> bool {
        let mut part = [0; 4096];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// The next records, as many as asked for: numbers of messages, correlations of calls.
    pub(super) fn records(&mut self, unpacker: &mut Unpacker, count: usize) -> Vec<(bool, u64)> {
        let mut all = Vec::new();
        while all.len() < count {
            while let Some(record) = unpacker.record().expect("frames of records") {
                let record = match record {
                    Record::Send { payload, .. } => {
                        (false, u64::from_le_bytes(payload.try_into().expect("a number")))
                    }
                    Record::Call { correlation, .. } => (true, correlation),
                    other => panic!("nobody sent {other:?}"),
                };
                all.push(record);
                unpacker.taken();
            }
            if all.len() < count {
                let read = self.stream.read(unpacker.space()).expect("it says something in time");
                assert!(read > 0, "it hung up after {all:?}");
                unpacker.filled(read);
            }
        }
        all
    }
}

/// A map of numbers.
pub(super) fn numbered(fields: &[(&str, u64)]) -> Params {
    fields.iter().fold(Params::new(), |params, (name, value)| params.uint_if(name, Some(*value)))
}

/// The fields of an offer that are numbers.
pub(super) fn numbers(params: Vec<u8>) -> impl Fn(&str) -> u64 {
    move |name| View::new(&params).get(name).and_then(View::uint).expect("an offer has it")
}

/// Stands where a node takes requests, and hands over the connections on which trunks are offered.
pub(super) struct Pretender {
    pub address: SocketAddr,
    pub offers: mpsc::Receiver<(Said, Vec<u8>)>,
}

impl Pretender {
    /// With what it knows of the cluster's secret, where there is one: then it is believed to be node 2, until
    /// it offers or answers what it cannot prove.
    pub(super) fn new(known: Option<Known>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let (tell, offers) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tell, known) = (tell.clone(), known.clone());
                thread::spawn(move || {
                    let mut said = Said::new(stream);
                    while let Some(request) = said.value() {
                        let parts: Vec<View<'_>> = View::new(&request).items().collect();
                        said.msgid = parts[1].uint().expect("a request");
                        let params = parts[3].items().next().expect("parameters").bytes().to_vec();
                        if parts[2].str() == Some("auth") {
                            said.answer_with(greeting(known.as_ref(), View::new(&params)));
                        }
                        if parts[2].str() != Some("here.trunk") {
                            continue;
                        }
                        // The test may have ended.
                        return drop(tell.send((said, params)));
                    }
                });
            }
        });
        Self { address, offers }
    }

    /// The next offer.
    pub(super) fn offer(&self) -> (Said, impl Fn(&str) -> u64 + use<>) {
        let (said, params) = receive(&self.offers);
        (said, numbers(params))
    }
}

/// The answer to what a node says first.
fn greeting(known: Option<&Known>, said: View<'_>) -> Params {
    let challenge = said.get("challenge").and_then(View::bin);
    let (Some(known), Some(challenge)) = (known, challenge) else { return Params::new() };
    let [theirs, own] = [challenge.try_into().expect("32 bytes"), [8; 32]].map(Challenge);
    let (_, proof) = known.answer((1, 2), theirs, own).expect("node 2 is meant");
    Params::new().bin("challenge", &own.0).bin("proof", &proof)
}

pub(super) fn unpacker() -> Unpacker {
    Unpacker::new(1 << 20, 1 << 20, Progress::default())
}

pub(super) fn sum(node: &Node, figure: fn(&CoreStats) -> u64) -> u64 {
    node.stats().cores.iter().map(figure).sum()
}

pub(super) fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(super) const ANSWER: [(&str, u64); 2] = [("record_bytes", 1 << 20), ("version", 2)];
pub(super) const HAS_NOTHING: [(&str, u64); 3] = [ANSWER[0], ANSWER[1], ("taken", 0)];

/// Is only there to have an address.
pub(super) struct Nobody;

impl Agent for Nobody {}

/// Two nodes that know each other; the first one finds the test where the second one takes requests.
pub(super) struct Pretended {
    pub places: Places,
    pub pretender: Pretender,
    pub near: Node,
    /// Of the core of the first node that asks; each handle has another one, which has its own session.
    pub handle: NodeHandle,
    pub far: Node,
    /// An agent of the second one.
    pub target: AgentAddress,
}

impl Pretended {
    pub(super) fn new(name: &str) -> Self {
        Self::at(Places::of(name, 2), None)
    }

    /// With what the test knows of the cluster's secret, where there is one.
    pub(super) fn at(mut places: Places, known: Option<Known>) -> Self {
        let pretender = Pretender::new(known);
        places.say_rpc_of(2, pretender.address);
        let far = places.start(2, |builder| builder.agent("late", some(1), || Nobody));
        let near = places.start(1, |builder| builder);
        let target = addresses(&far, 2, "late", 1)[0];
        let handle = near.handle();
        Self { places, pretender, near, handle, far, target }
    }

    /// Sends the agent a number, from the first node.
    pub(super) fn send(&self, number: u64) -> Result<(), Error> {
        let target = self.target;
        let payload = number.to_le_bytes().to_vec();
        self.handle.wait(move |gateway| gateway.send(target, payload))
    }

    pub(super) fn stop(self) {
        drop(self.pretender);
        stop(self.near);
        stop(self.far);
    }
}

/// An offer in the name of node 1, as that of its core.
pub(super) fn offer_of(core: u64) -> Params {
    offer_that(core, 0)
}

/// The same, which means to go on with a session or not.
pub(super) fn offer_that(core: u64, resumes: u64) -> Params {
    let fields = [("from", 1), ("core", core), ("life", 1234), ("to", 2), ("session", 1000)];
    let more = [("resumes", resumes), ("taken", 0), ("record_bytes", 1 << 20)];
    numbered(&[&fields[..], &more].concat())
}

pub(super) fn with_versions(offer: Params, first: u64, last: u64) -> Params {
    offer.uint_if("version_min", Some(first)).uint_if("version_max", Some(last))
}
