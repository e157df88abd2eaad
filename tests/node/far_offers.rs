//! What nodes say before they send each other messages, and what is said that cannot be: a real node, and one
//! whose words are the test's.

use super::{
    WAIT,
    far::{Places, addresses, some, stop},
    receive,
};
use coreflow::{
    client::{Params, View},
    node::{
        Node,
        gateway::{Challenge, Gateway, Known},
    },
    shard::{
        agent::{Agent, Message, ReplyTo},
        context::Context,
    },
    wire::{
        api::{CoreStats, Error},
        id::AgentAddress,
        msgpack::{Reader, write},
        secret::Secret,
        trunk::{Packer, Progress, Record, Unpacker},
    },
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// A connection that speaks as a node does.
struct Said {
    stream: TcpStream,
    buffer: Vec<u8>,
    msgid: u64,
}

impl Said {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(WAIT)).expect("a socket");
        Self { stream, buffer: Vec::new(), msgid: 0 }
    }

    fn to(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).expect("it listens"))
    }

    /// The next MessagePack value; `None` when the other side has hung up.
    fn value(&mut self) -> Option<Vec<u8>> {
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
    fn offer(&mut self, params: Params) -> Result<Vec<u8>, String> {
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
    fn answer(&mut self, fields: &[(&str, u64)]) {
        self.answer_with(numbered(fields));
    }

    /// Answers what was asked last with a map.
    fn answer_with(&mut self, params: Params) {
        let mut out = Vec::new();
        write::array(&mut out, 4);
        write::uint(&mut out, 1);
        write::uint(&mut out, self.msgid);
        write::nil(&mut out);
        params.write(&mut out);
        self.stream.write_all(&out).expect("it listens");
    }

    /// Refuses what was asked last.
    fn refuse(&mut self, code: &str) {
        let mut out = Vec::new();
        write::array(&mut out, 4);
        write::uint(&mut out, 1);
        write::uint(&mut out, self.msgid);
        Params::new().str("code", code).str("message", "says a stranger").write(&mut out);
        write::nil(&mut out);
        self.stream.write_all(&out).expect("it listens");
    }

    /// The parameters of the next request; those before are answered.
    fn asked(&mut self) -> Vec<u8> {
        let request = self.value().expect("it asks");
        let parts: Vec<View<'_>> = View::new(&request).items().collect();
        self.msgid = parts[1].uint().expect("a request");
        parts[3].items().next().expect("parameters").bytes().to_vec()
    }

    /// Whether the other side hangs up without another word.
    fn is_told_nothing(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(said) => said == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Whether the other side hangs up, and does not only say nothing.
    fn is_closed(&mut self) -> bool {
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
    fn records(&mut self, unpacker: &mut Unpacker, count: usize) -> Vec<(bool, u64)> {
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
fn numbered(fields: &[(&str, u64)]) -> Params {
    fields.iter().fold(Params::new(), |params, (name, value)| params.uint_if(name, Some(*value)))
}

/// The fields of an offer that are numbers.
fn numbers(params: Vec<u8>) -> impl Fn(&str) -> u64 {
    move |name| View::new(&params).get(name).and_then(View::uint).expect("an offer has it")
}

/// Stands where a node takes requests, and hands over the connections on which trunks are offered.
struct Pretender {
    address: SocketAddr,
    offers: mpsc::Receiver<(Said, Vec<u8>)>,
}

impl Pretender {
    /// With what it knows of the cluster's secret, where there is one: then it is believed to be node 2, until
    /// it offers or answers what it cannot prove.
    fn new(known: Option<Known>) -> Self {
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
    fn offer(&self) -> (Said, impl Fn(&str) -> u64) {
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

fn unpacker() -> Unpacker {
    Unpacker::new(1 << 20, 1 << 20, Progress::default())
}

fn sum(node: &Node, figure: fn(&CoreStats) -> u64) -> u64 {
    node.stats().cores.iter().map(figure).sum()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

const ANSWER: [(&str, u64); 2] = [("record_bytes", 1 << 20), ("version", 2)];
const HAS_NOTHING: [(&str, u64); 3] = [ANSWER[0], ANSWER[1], ("taken", 0)];

/// Keeps a call, and answers it when a message comes.
struct Late {
    called: mpsc::Sender<()>,
    asked: Option<ReplyTo>,
}

impl Agent for Late {
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        match message.reply_to() {
            Some(asked) => {
                self.asked = Some(asked);
                self.called.send(()).expect("the test waits");
            }
            None => context.reply(self.asked.take().expect("it was called"), b"late"),
        }
    }
}

/// An offer in the name of node 1, as that of its core.
fn offer_of(core: u64) -> Params {
    offer_that(core, 0)
}

/// The same, which means to go on with a session or not.
fn offer_that(core: u64, resumes: u64) -> Params {
    let fields = [("from", 1), ("core", core), ("life", 1234), ("to", 2), ("session", 1000)];
    let more = [("resumes", resumes), ("taken", 0), ("record_bytes", 1 << 20)];
    numbered(&[&fields[..], &more].concat())
}

fn with_versions(offer: Params, first: u64, last: u64) -> Params {
    offer.uint_if("version_min", Some(first)).uint_if("version_max", Some(last))
}

#[test]
fn who_does_not_know_the_secret_ends_no_session_of_a_member() {
    let places = Places::of("secret", 2).with_secret("0123456789abcdef");
    let (called, calls) = mpsc::channel();
    let far = places.start(2, |builder| {
        builder.agent("late", some(1), move || Late { called: called.clone(), asked: None })
    });
    let late = addresses(&far, 2, "late", 1)[0];
    let near = places.start(1, |builder| builder);
    let handle = near.handle();
    let waits = handle.clone();
    let call = thread::spawn(move || {
        waits.wait(move |gateway| gateway.call(late, b"x".to_vec(), WAIT.as_millis() as u64))
    });
    receive(&calls);
    // In the name of each core that may have called, with no proof and with a wrong one.
    let mut answers = Vec::new();
    for core in 0..16 {
        let mut stranger = Said::to(places.rpc_of(2));
        answers.push(stranger.offer(offer_of(core)));
        let mut stranger = Said::to(places.rpc_of(2));
        answers.push(stranger.offer(with_versions(offer_of(core), 2, 2)));
        let proof = with_versions(offer_of(core), 2, 2).bin("proof", &[7; 32]);
        answers.push(stranger.offer(proof));
    }
    handle.wait(move |gateway| gateway.send(late, b"answer".to_vec())).expect("the way is free");
    assert_eq!(call.join().expect("it does not panic"), Ok(b"late".to_vec()));
    for answer in answers {
        match answer {
            Ok(answer) => assert!(View::new(&answer).get("taken").is_none(), "it was believed"),
            Err(refused) => {
                let why = ["secret_file", "version"].iter().any(|why| refused.contains(why));
                assert!(why, "{refused}");
            }
        }
    }
    until("refusals are counted", || sum(&far, |core| core.far_refused) == 32);
    assert_eq!(sum(&far, |core| core.far_broken) + sum(&near, |core| core.far_lost), 0);
    stop(near);
    stop(far);
}

#[test]
fn a_node_with_no_version_in_common_is_told_those_of_both_and_words_of_later_ones_are_passed_over()
{
    let places = Places::of("versions", 2);
    let far = places.start(2, |builder| builder);
    let near = places.start(1, |builder| builder);
    let mut later = Said::to(places.rpc_of(2));
    let refused = later.offer(with_versions(offer_of(900), 7, 9)).expect_err("none in common");
    for words in ["version 2", "versions 7 to 9", "node 1", "node 2"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    let words = with_versions(offer_of(900), 2, 9).str("later", "words");
    let answer = later.offer(words).expect("version 2 is common");
    let answer = numbers(answer);
    assert_eq!((answer("version"), answer("taken")), (2, 0));
    until("the refusal is counted", || sum(&far, |core| core.far_refused) == 1);
    stop(near);
    stop(far);
}

/// Two nodes that know each other; the first one finds the test where the second one takes requests.
fn pretended(name: &str) -> (Places, Pretender, Node, Node) {
    pretended_at(Places::of(name, 2), None)
}

fn pretended_at(mut places: Places, known: Option<Known>) -> (Places, Pretender, Node, Node) {
    let pretender = Pretender::new(known);
    places.say_rpc_of(2, pretender.address);
    let far = places.start(2, |builder| builder.agent("late", some(1), || Nobody));
    let near = places.start(1, |builder| builder);
    (places, pretender, near, far)
}

/// Is only there to have an address.
struct Nobody;

impl Agent for Nobody {}

#[test]
fn of_a_node_that_crashed_and_is_back_the_next_session_begins_with_what_it_cannot_have() {
    let (_places, pretender, near, far) = pretended("crash");
    let target: AgentAddress = addresses(&far, 2, "late", 1)[0];
    let handle = near.handle();
    let send = |number: u64| {
        handle.wait(move |gateway| gateway.send(target, number.to_le_bytes().to_vec()))
    };
    let call = || {
        let waits = handle.clone();
        thread::spawn(move || {
            waits.wait(move |gateway| gateway.call(target, b"x".to_vec(), WAIT.as_millis() as u64))
        })
    };
    let sent = || sum(&near, |core| core.far_sent);

    // The first life takes a connection, reads, and is gone before it says what it took.
    (0..10).for_each(|number| send(number).expect("the way is free"));
    let begun = call();
    until("the call is sent", || sent() == 11);
    let (mut first, offer) = pretender.offer();
    assert_eq!((offer("session"), offer("resumes")), (1, 0));
    first.answer(&HAS_NOTHING);
    let read = first.records(&mut unpacker(), 11);
    assert!(read.iter().filter(|(is_call, _)| !is_call).map(|(_, number)| *number).eq(0..10));
    drop(first);

    // Of what is said from here on no byte is written to it.
    let (mut second, offer) = pretender.offer();
    assert_eq!((offer("session"), offer("resumes")), (1, 1));
    (10..20).for_each(|number| send(number).expect("the way is free"));
    let rest = call();
    until("the call is kept", || sent() == 22);
    second.answer(&ANSWER);
    let lost = begun.join().expect("it does not panic").expect_err("nobody can answer");
    assert!(matches!(lost, Error::Uncertain(_)), "{lost}");

    let (mut next, offer) = pretender.offer();
    assert_eq!((offer("session"), offer("resumes"), offer("taken")), (2, 0, 0));
    next.answer(&HAS_NOTHING);
    let mut unpacker = unpacker();
    let read = next.records(&mut unpacker, 11);
    assert!(read.iter().filter(|(is_call, _)| !is_call).map(|(_, number)| *number).eq(10..20));
    let (_, correlation) = *read.iter().find(|(is_call, _)| *is_call).expect("the call");
    let mut packer = Packer::default();
    packer.took(unpacker.progress().frames, 0);
    packer.put(&Record::Reply { correlation, payload: b"y" });
    next.stream.write_all(packer.to_write()).expect("it listens");
    assert_eq!(rest.join().expect("it does not panic"), Ok(b"y".to_vec()));
    until("what was begun is counted", || sum(&near, |core| core.far_lost) == 10);
    drop(next);
    stop(near);
    stop(far);
}

#[test]
fn a_session_over_which_a_node_says_what_cannot_be_ends_at_once() {
    let (places, pretender, near, far) = pretended("broken");
    let target: AgentAddress = addresses(&far, 2, "late", 1)[0];
    let handle = near.handle();
    let send = |number: u64| {
        handle.wait(move |gateway| gateway.send(target, number.to_le_bytes().to_vec()))
    };

    // To a node that dialled: that a frame was taken which it never sent.
    send(0).expect("the way is free");
    let (mut first, offer) = pretender.offer();
    assert_eq!(offer("session"), 1);
    first.answer(&HAS_NOTHING);
    assert_eq!(first.records(&mut unpacker(), 1), [(false, 0)]);
    let mut packer = Packer::default();
    packer.took(99, 0);
    packer.greet();
    first.stream.write_all(packer.to_write()).expect("it listens");
    until("it is counted", || sum(&near, |core| core.far_broken) == 1);
    until("a new session takes messages", || send(1).is_ok());
    let (mut second, offer) = pretender.offer();
    assert_eq!((offer("session"), offer("resumes")), (2, 0), "the session goes on");
    second.answer(&HAS_NOTHING);
    let mut heard = unpacker();
    assert_eq!(second.records(&mut heard, 1), [(false, 1)]);

    // To one that was dialled: a frame before which one is missing.
    let mut dials = Said::to(places.rpc_of(2));
    let answer = dials.offer(with_versions(offer_of(901), 2, 2)).expect("it is believed");
    assert_eq!(numbers(answer)("taken"), 0);
    let mut packer = Packer::default();
    packer.put(&Record::Full(target.agent));
    let bytes = packer.to_write().len();
    packer.wrote(bytes);
    packer.put(&Record::Room(target.agent));
    dials.stream.write_all(packer.to_write()).expect("it listens");
    assert!(dials.is_closed(), "the connection goes on");
    until("it is counted", || sum(&far, |core| core.far_broken) == 1);
    let mut again = Said::to(places.rpc_of(2));
    let answer = again.offer(with_versions(offer_that(901, 1), 2, 2)).expect("it is believed");
    assert!(View::new(&answer).get("taken").is_none(), "the session goes on");
    drop((second, dials, again));
    stop(near);
    stop(far);
}

#[test]
fn who_answers_for_a_member_and_does_not_prove_the_secret_is_told_nothing() {
    let places = Places::of("stranger", 2).with_secret("0123456789abcdef");
    // Who passes on what the node proves gets as far as the offer.
    let secret = Secret::parse(b"0123456789abcdef").expect("sixteen bytes");
    let (_places, pretender, near, far) = pretended_at(places, Some(Known::new(2, secret)));
    let target: AgentAddress = addresses(&far, 2, "late", 1)[0];
    let handle = near.handle();
    let challenge = || Params::new().bin("challenge", &[9; 32]);
    let heard = || numbered(&HAS_NOTHING);
    // With no proof asked and none given, with one asked and none given, and with a wrong one.
    let strangers = [
        vec![heard()],
        vec![challenge(), heard()],
        vec![challenge(), heard().bin("proof", &[9; 32])],
    ];
    for (place, answers) in strangers.into_iter().enumerate() {
        let send = || handle.wait(move |gateway| gateway.send(target, b"for a member".to_vec()));
        until("the node is dialled", || send().is_ok());
        let (mut said, first) = receive(&pretender.offers);
        let words = answers.len();
        let mut challenges = vec![first];
        for (word, answer) in answers.into_iter().enumerate() {
            said.answer_with(answer);
            if word + 1 < words {
                challenges.push(said.asked());
            }
        }
        assert!(said.is_told_nothing(), "stranger {place} is believed");
        for offer in &challenges {
            let own = View::new(offer).get("challenge").and_then(View::bin);
            assert_eq!(own.expect("it asks for a proof").len(), 32);
        }
        let refused = place as u64 + 1;
        until("the refusal is counted", || sum(&near, |core| core.far_refused) == refused);
        until("it is counted as lost", || sum(&near, |core| core.far_lost) == refused);
    }
    stop(near);
    stop(far);
}

#[test]
fn a_node_that_knows_no_session_that_it_is_offered_is_given_up_in_bounded_time() {
    let (_places, pretender, near, far) = pretended("never");
    let target: AgentAddress = addresses(&far, 2, "late", 1)[0];
    let handle = near.handle();
    handle.wait(move |gateway| gateway.send(target, b"x".to_vec())).expect("the way is free");
    let deadline = Instant::now() + WAIT;
    let mut sessions = 0;
    while sum(&near, |core| core.far_lost) == 0 {
        assert!(Instant::now() < deadline, "it is dialled for ever: {sessions} sessions");
        let Ok((mut said, offer)) = pretender.offers.recv_timeout(Duration::from_millis(50)) else {
            continue;
        };
        sessions += 1;
        let offer = numbers(offer);
        assert_eq!((offer("session"), offer("resumes")), (sessions, 0));
        said.answer(&ANSWER);
    }
    assert!(sessions > 1, "it is given up at once");
    until("each is counted", || sum(&near, |core| core.far_broken) == sessions);
    stop(near);
    stop(far);
}

#[test]
fn a_session_goes_on_while_a_stranger_answers_for_its_node() {
    let (_places, pretender, near, far) = pretended("impostor");
    let target: AgentAddress = addresses(&far, 2, "late", 1)[0];
    let handle = near.handle();
    let send = |number: u64| {
        handle.wait(move |gateway| gateway.send(target, number.to_le_bytes().to_vec()))
    };
    let dialled = || {
        let (said, offer) = pretender.offer();
        (said, (offer("session"), offer("resumes")))
    };
    send(0).expect("the way is free");
    let (mut node, offered) = dialled();
    assert_eq!(offered, (1, 0));
    node.answer(&HAS_NOTHING);
    let mut unpacker = unpacker();
    assert_eq!(node.records(&mut unpacker, 1), [(false, 0)]);
    drop(node);
    send(1).expect("the way is free");

    for code in ["conflict", "invalid", "not_found", "unauthorized"] {
        let (mut stranger, offered) = dialled();
        assert_eq!(offered, (1, 1), "{code} ended the session");
        stranger.refuse(code);
        assert!(stranger.is_told_nothing());
    }
    let no_version = numbered(&[ANSWER[0], ("taken", 1)]);
    let no_length = numbered(&[ANSWER[1], ("taken", 1)]);
    let other_version = numbered(&[ANSWER[0], ("version", 7), ("taken", 1)]);
    let odd_challenge = Params::new().bin("challenge", &[9; 31]);
    for (place, answer) in [no_version, no_length, other_version, odd_challenge].iter().enumerate()
    {
        let (mut stranger, offered) = dialled();
        assert_eq!(offered, (1, 1), "answer {place} ended the session");
        stranger.answer_with(answer.clone());
        assert!(stranger.is_told_nothing(), "answer {place} is believed");
        until("it is counted", || sum(&near, |core| core.far_refused) == place as u64 + 1);
    }
    let (mut stranger, offered) = dialled();
    assert_eq!(offered, (1, 1));
    stranger.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("it listens");
    assert!(stranger.is_told_nothing());
    until("it is counted", || sum(&near, |core| core.far_refused) == 5);

    // The node is back.
    let (mut node, offered) = dialled();
    assert_eq!(offered, (1, 1));
    node.answer(&[ANSWER[0], ANSWER[1], ("taken", 1)]);
    assert_eq!(node.records(&mut unpacker, 1), [(false, 1)]);
    assert_eq!(sum(&near, |core| core.far_lost + core.far_broken), 0);
    drop(node);
    stop(near);
    stop(far);
}

const TOKEN: &str = "the-token-of-all-clients";

#[test]
fn who_takes_requests_at_the_address_of_a_member_is_not_told_the_token() {
    let mut places = Places::of("token", 2).with_token(TOKEN).with_secret("0123456789abcdef");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    places.say_rpc_of(2, listener.local_addr().expect("it listens"));
    let far = places.start(2, |builder| builder.agent("late", some(1), || Nobody));
    let near = places.start(1, |builder| builder);
    let target: AgentAddress = addresses(&far, 2, "late", 1)[0];
    let handle = near.handle();
    listener.set_nonblocking(true).expect("a socket");
    // Without an answer, and with every one that a stranger can make up.
    let made_up = || Params::new().bin("challenge", &[9; 32]).bin("proof", &[9; 32]);
    for answer in [None, Some(Params::new()), Some(made_up())] {
        let send = || handle.wait(move |gateway| gateway.send(target, b"x".to_vec()));
        until("the node is dialled", || send().is_ok());
        let deadline = Instant::now() + WAIT;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "it is not dialled");
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        };
        stream.set_nonblocking(false).expect("a socket");
        let mut stranger = Said::new(stream);
        let first = stranger.value().expect("it says something");
        let mut heard = first.clone();
        let parts: Vec<View<'_>> = View::new(&first).items().collect();
        stranger.msgid = parts[1].uint().expect("a request");
        if let Some(answer) = answer {
            stranger.answer_with(answer);
        }
        heard.extend(std::iter::from_fn(|| stranger.value()).flatten());
        let says = |word: &[u8]| heard.windows(word.len()).any(|part| part == word);
        assert!(!says(TOKEN.as_bytes()), "the token is said");
        assert!(!says(b"here."), "a request is said");
        assert!(says(b"auth") && says(b"challenge"), "it asks for a proof");
    }
    stop(near);
    stop(far);
}

#[test]
fn nodes_that_ask_for_a_token_prove_the_secret_to_each_other_and_talk() {
    let places = Places::of("proven", 2).with_token(TOKEN).with_secret("0123456789abcdef");
    let (called, calls) = mpsc::channel();
    let far = places.start(2, |builder| {
        builder.agent("late", some(1), move || Late { called: called.clone(), asked: None })
    });
    let late = addresses(&far, 2, "late", 1)[0];
    let near = places.start(1, |builder| builder);
    let handle = near.handle();
    let waits = handle.clone();
    let call = thread::spawn(move || {
        waits.wait(move |gateway| gateway.call(late, b"x".to_vec(), WAIT.as_millis() as u64))
    });
    receive(&calls);
    handle.wait(move |gateway| gateway.send(late, b"answer".to_vec())).expect("the way is free");
    assert_eq!(call.join().expect("it does not panic"), Ok(b"late".to_vec()));
    // A node's proof is of no use to a client, who says the token.
    let mut stranger = Said::to(places.rpc_of(2));
    let refused = stranger.offer(with_versions(offer_of(0), 2, 2)).expect_err("no token was said");
    assert!(refused.contains("asks for a token"), "{refused}");
    assert_eq!(sum(&near, |core| core.far_refused + core.far_lost), 0);
    stop(near);
    stop(far);
}
