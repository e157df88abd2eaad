//! The requests of one connection to another node: many under way, each answered once.
//!
//! Pure: bytes go in and out, the time comes from outside.
//!
//! Invariants worth naming:
//! - Every request ends: with its answer, at its deadline, or when the connection is lost.
//! - A request of which no byte was written when the connection was lost was surely not done, and
//!   its error says so ([`Error::Unavailable`]); of any other nobody knows ([`Error::Uncertain`]).
//! - How many requests are under way, and how many bytes of them wait, is bounded.
//! - Where the other side has to prove itself first (`node/greeting.rs`), nothing else is said before.

use crate::{
    client::{Answer, Params, View, request},
    consensus::peers::proof::{Challenge, PROOF_BYTES, Proof},
    node::greeting::Credentials,
    wire::{
        api::Error,
        id::PartitionIndex,
        msgpack::{Scan, Scanner},
    },
};
use futures_channel::oneshot::{self, Receiver, Sender};
use std::{collections::HashMap, time::Instant};

/// The number of the requests that say the token, or prove the secret; others count from 1.
const GREETING: u32 = 0;
/// What is said of who does not prove that it knows the secret.
const NOT_PROVEN: &str = "it does not prove that it knows the cluster's secret: give all nodes the same \
     cluster.secret_file and the same release, and see who takes requests at that address";
/// The largest answer that is taken, bytes: far above what a node keeps for one connection.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// When to come back while too much is under way, milliseconds.
const RETRY_MS: u64 = 10;
/// The largest answer of a side that has to prove itself and has not, bytes.
const GREETING_BYTES_MAX: usize = 8 << 10;
/// What an empty buffer may keep for the next burst, bytes.
const KEPT_MAX: usize = 256 << 10;

/// What may be under way.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests without an answer.
    pub in_flight: usize,
    /// Bytes of requests that wait to be written.
    pub waiting_bytes: usize,
    /// The longest request, bytes.
    pub frame_bytes: usize,
}

/// What a request is answered: one MessagePack value.
pub type Answered = Result<Vec<u8>, Error>;

/// A request that is to be sent.
#[derive(Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// Its one map.
    pub params: &'a Params,
    /// When it counts as unanswered.
    pub deadline: Instant,
    /// A partition: when another node leads it, the request is given up, because it may be repeated
    /// there.
    pub as_long_as_led: Option<PartitionIndex>,
}

struct Waiting {
    answer: Sender<Answered>,
    /// Where its first byte lies in the stream of all bytes.
    begins: u64,
    asked: Instant,
    deadline: Instant,
    as_long_as_led: Option<PartitionIndex>,
}

/// How far the other side is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is to prove itself, and there is no connection yet.
    Unasked,
    /// It is to prove itself over this.
    Asked(Challenge),
    /// Requests go to it.
    Open,
}

/// One connection's requests.
pub struct Channel {
    bounds: Bounds,
    credentials: Credentials,
    /// What is said before everything else, and how many bytes of it were written.
    greeting: (Vec<u8>, usize),
    stage: Stage,
    waiting: HashMap<u32, Waiting>,
    last_msgid: u32,
    output: Vec<u8>,
    /// Bytes of `output` that were written.
    written: usize,
    /// Bytes that were written and left `output`.
    gone: u64,
    input: Vec<u8>,
    scanner: Scanner,
    heard: Option<Instant>,
    /// The other side refuses the token or is not believed, and so did nothing of what was sent.
    is_refused: bool,
}

impl Channel {
    /// A channel with nothing under way; see [`Self::greet`].
    pub fn new(bounds: Bounds, credentials: Credentials) -> Self {
        let mut greeting = Vec::new();
        let stage = match &credentials {
            Credentials::Nothing => Stage::Open,
            Credentials::Token(token) => {
                greet_with(&mut greeting, &Params::new().str("token", token.expose()));
                Stage::Open
            }
            Credentials::Knows(_) => Stage::Unasked,
        };
        let most = if stage == Stage::Open { ANSWER_BYTES_MAX } else { GREETING_BYTES_MAX };
        Self {
            bounds,
            credentials,
            greeting: (greeting, 0),
            stage,
            waiting: HashMap::new(),
            last_msgid: 0,
            output: Vec::new(),
            written: 0,
            gone: 0,
            input: Vec::new(),
            scanner: Scanner::new(most),
            heard: None,
            is_refused: false,
        }
    }

    /// A connection is there. Where the other side is to prove itself it has to do so over that challenge,
    /// which nobody was given before.
    pub fn greet(&mut self, own: Challenge) {
        let Credentials::Knows(knowing) = &self.credentials else { return };
        let nodes =
            Params::new().uint_if("from", Some(knowing.from)).uint_if("to", Some(knowing.to));
        self.greeting = (Vec::new(), 0);
        greet_with(&mut self.greeting.0, &nodes.bin("challenge", &own.0));
        self.stage = Stage::Asked(own);
    }

    /// What was said first is answered: what is to be said to that, if anything.
    fn greeted(&self, outcome: Result<View<'_>, View<'_>>) -> Result<Option<Proof>, &'static str> {
        let (knowing, own) = match (&self.credentials, self.stage) {
            (Credentials::Knows(knowing), Stage::Asked(own)) => (knowing, own),
            (Credentials::Knows(_), _) => return outcome.map(|_| None).map_err(|_| NOT_PROVEN),
            _ => return outcome.map(|_| None).map_err(|_| "it has another server.token_file"),
        };
        let bytes = |name| -> Option<[u8; PROOF_BYTES]> {
            outcome.ok()?.get(name).and_then(View::bin)?.try_into().ok()
        };
        let (given, proof) = bytes("challenge").zip(bytes("proof")).ok_or(NOT_PROVEN)?;
        knowing.prove(&own, &Challenge(given), &proof).map(Some).ok_or(NOT_PROVEN)
    }

    /// Puts a request behind those that wait to be written.
    ///
    /// # Errors
    /// [`Error::Backpressure`] when too much is under way, [`Error::TooLarge`]; nothing was done.
    pub fn push(&mut self, now: Instant, what: &Request<'_>) -> Result<Receiver<Answered>, Error> {
        let Bounds { in_flight, waiting_bytes, frame_bytes } = self.bounds;
        let waits = self.output.len() - self.written;
        if self.waiting.len() >= in_flight || waits >= waiting_bytes {
            return Err(Error::Backpressure(RETRY_MS));
        }
        let begins = self.gone + self.output.len() as u64;
        let start = self.output.len();
        // Numbers come round long after their first use has ended; one that lasts is passed over.
        loop {
            self.last_msgid = self.last_msgid.wrapping_add(1);
            if self.last_msgid != GREETING && !self.waiting.contains_key(&self.last_msgid) {
                break;
            }
        }
        request(&mut self.output, self.last_msgid, what.method, |out| what.params.write(out));
        let len = self.output.len() - start;
        if len > frame_bytes {
            self.output.truncate(start);
            return Err(Error::TooLarge(format!(
                "on its way to the node that leads its partition the request has {len} bytes, the \
                 limit is {frame_bytes} (server.max_frame_bytes)"
            )));
        }
        let (answer, answered) = oneshot::channel();
        let Request { deadline, as_long_as_led, .. } = *what;
        let waiting = Waiting { answer, begins, asked: now, deadline, as_long_as_led };
        self.waiting.insert(self.last_msgid, waiting);
        Ok(answered)
    }

    /// Whether requests go to the other side: it has proven itself where it has to, and has not refused
    /// what was said first.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open && !self.is_refused
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What is to be written next.
    pub fn to_write(&self) -> &[u8] {
        let (greeting, said) = &self.greeting;
        match &greeting[*said..] {
            [] if self.stage != Stage::Open => &[],
            [] => &self.output[self.written..],
            rest => rest,
        }
    }

    /// So many bytes of that were written.
    pub fn wrote(&mut self, len: usize) {
        let (greeting, said) = &mut self.greeting;
        if *said < greeting.len() {
            *said += len;
            return assert!(*said <= greeting.len(), "no more is written than there is");
        }
        self.written += len;
        assert!(self.written <= self.output.len(), "no more is written than there is");
        if self.written * 2 >= self.output.len() {
            self.output.drain(..self.written);
            self.gone += self.written as u64;
            self.written = 0;
            if self.output.is_empty() {
                self.output.shrink_to(KEPT_MAX);
            }
        }
    }

    /// Bytes came; ends the requests that they answer.
    ///
    /// # Errors
    /// They are no answers: the connection is of no use any more.
    pub fn received(&mut self, now: Instant, bytes: &[u8]) -> Result<(), &'static str> {
        self.heard = Some(now);
        self.input.extend_from_slice(bytes);
        let mut read = 0;
        let outcome = loop {
            let len = match self.scanner.scan(&self.input[read..]) {
                Scan::Complete(len) => len,
                Scan::Incomplete => break Ok(()),
                Scan::Invalid(why) => break Err(why),
                Scan::TooLarge => break Err("it is larger than any answer"),
            };
            let Some(answer) = Answer::parse(&self.input[read..read + len]) else {
                break Err("it is another MessagePack value");
            };
            read += len;
            let Some(msgid) = answer.msgid else { break Err("it refused what was sent") };
            if msgid == GREETING {
                match self.greeted(answer.outcome) {
                    Ok(Some(proof)) => {
                        greet_with(&mut self.greeting.0, &Params::new().bin("proof", &proof));
                        self.stage = Stage::Open;
                        self.scanner = Scanner::new(ANSWER_BYTES_MAX);
                    }
                    Ok(None) => {}
                    Err(why) => {
                        self.is_refused = true;
                        break Err(why);
                    }
                }
                continue;
            }
            if self.stage != Stage::Open {
                // Nothing was asked of it yet.
                self.is_refused = true;
                break Err(NOT_PROVEN);
            }
            // One that was given up has nobody who waits.
            if let Some(waiting) = self.waiting.remove(&msgid) {
                let answered = match answer.outcome {
                    Ok(result) => Ok(result.bytes().to_vec()),
                    Err(error) => Err(error_of(error)),
                };
                drop(waiting.answer.send(answered));
            }
        };
        self.input.drain(..read);
        if self.input.is_empty() {
            self.input.shrink_to(KEPT_MAX);
        }
        outcome
    }

    /// Ends the requests whose time is up, whose partition is led elsewhere now, or that nobody
    /// waits for; tells whether the other side has said nothing for as long as one of them waited.
    pub fn expire(&mut self, now: Instant, is_led: impl Fn(PartitionIndex) -> bool) -> bool {
        let mut is_silent = false;
        let heard = self.heard;
        let over = self.waiting.extract_if(|_, waiting| {
            let is_late = now >= waiting.deadline;
            is_silent |= is_late && heard.is_none_or(|heard| heard < waiting.asked);
            is_late
                || waiting.answer.is_canceled()
                || waiting.as_long_as_led.is_some_and(|partition| !is_led(partition))
        });
        for (_, waiting) in over {
            let late = Error::Uncertain("the node that was asked did not answer in time".into());
            drop(waiting.answer.send(Err(late)));
        }
        is_silent
    }

    /// The connection is lost, or was never there, and why; the channel begins again.
    pub fn lost(&mut self, why: &str) {
        let written = if self.is_refused { 0 } else { self.gone + self.written as u64 };
        for (_, waiting) in self.waiting.drain() {
            let error = match waiting.begins < written {
                true => Error::Uncertain(format!("{why}; it was done or not")),
                false => Error::Unavailable(format!("{why}; nothing was done")),
            };
            drop(waiting.answer.send(Err(error)));
        }
        let credentials = std::mem::replace(&mut self.credentials, Credentials::Nothing);
        *self = Self { last_msgid: self.last_msgid, ..Self::new(self.bounds, credentials) };
    }
}

/// Appends the request that says who is at this end.
fn greet_with(out: &mut Vec<u8>, said: &Params) {
    request(out, GREETING, "auth", |out| said.write(out));
}

/// What a node said when it did not do what was asked.
fn error_of(error: View<'_>) -> Error {
    let text = |name| error.get(name).and_then(View::str).unwrap_or_default().to_owned();
    let message = text("message");
    match error.get("code").and_then(View::str).unwrap_or_default() {
        "invalid" => Error::Invalid(message),
        "not_found" => Error::NotFound(message),
        "conflict" => Error::Conflict(message),
        "backpressure" => {
            let retry_after_ms = error.get("retry_after_ms").and_then(View::uint);
            retry_after_ms.map_or(Error::Full(message), Error::Backpressure)
        }
        "stale_lease" => Error::StaleLease(message),
        "too_large" => Error::TooLarge(message),
        "not_leader" => {
            Error::NotLeader(error.get("leader").and_then(View::str).map(str::to_owned))
        }
        "unavailable" if error.get("uncertain").and_then(View::bool) == Some(true) => {
            Error::Uncertain(message)
        }
        // Whatever else it says: the node did not do it.
        _ => Error::Unavailable(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        node::greeting::Known,
        wire::{msgpack::write, secret::Secret},
    };
    use std::time::Duration;

    const BOUNDS: Bounds = Bounds { in_flight: 3, waiting_bytes: 200, frame_bytes: 100 };
    const LIMIT: Duration = Duration::from_secs(5);

    fn push(
        channel: &mut Channel,
        now: Instant,
        params: &Params,
    ) -> Result<Receiver<Answered>, Error> {
        let deadline = now + LIMIT;
        channel.push(now, &Request { method: "m", params, deadline, as_long_as_led: None })
    }

    fn answer(msgid: u32, outcome: Result<u64, &str>) -> Vec<u8> {
        let mut out = Vec::new();
        write::array(&mut out, 4);
        write::uint(&mut out, 1);
        write::uint(&mut out, msgid.into());
        match outcome {
            Ok(result) => {
                write::nil(&mut out);
                write::uint(&mut out, result);
            }
            Err(code) => {
                Params::new().str("code", code).str("message", "no").write(&mut out);
                write::nil(&mut out);
            }
        }
        out
    }

    fn now(receiver: &mut Receiver<Answered>) -> Option<Answered> {
        receiver.try_recv().expect("a request ends with an answer or an error")
    }

    #[test]
    fn answers_find_their_requests_in_any_order_and_in_pieces() {
        let (mut channel, start) = (Channel::new(BOUNDS, Credentials::Nothing), Instant::now());
        let mut first = push(&mut channel, start, &Params::new()).unwrap();
        let mut second = push(&mut channel, start, &Params::new()).unwrap();
        assert_eq!(
            channel.to_write(),
            [0x94, 0, 1, 0xa1, b'm', 0x91, 0x80, 0x94, 0, 2, 0xa1, b'm', 0x91, 0x80]
        );
        channel.wrote(9);
        assert_eq!(channel.to_write(), [2, 0xa1, b'm', 0x91, 0x80]);
        let bytes = [answer(2, Ok(7)), answer(9, Ok(1)), answer(1, Err("not_leader"))].concat();
        for byte in &bytes {
            channel.received(start, &[*byte]).unwrap();
        }
        assert_eq!(now(&mut second), Some(Ok(vec![7])));
        assert_eq!(now(&mut first), Some(Err(Error::NotLeader(None))));
        assert!(channel.is_idle());
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let (mut channel, start) = (Channel::new(BOUNDS, Credentials::Nothing), Instant::now());
        let large = Params::new().str("x", &"x".repeat(100));
        assert!(matches!(push(&mut channel, start, &large), Err(Error::TooLarge(_))));
        assert!(channel.to_write().is_empty() && channel.is_idle());
        let kept: Vec<_> =
            (0..3).map(|_| push(&mut channel, start, &Params::new()).unwrap()).collect();
        let full = push(&mut channel, start, &Params::new());
        assert!(matches!(full, Err(Error::Backpressure(_))));
        drop(kept);
        // Whoever went away makes room.
        assert!(!channel.expire(start, |_| true));
        let some = Params::new().str("x", &"x".repeat(80));
        let kept: Vec<_> = (0..2).map(|_| push(&mut channel, start, &some).unwrap()).collect();
        let full = push(&mut channel, start, &Params::new());
        assert!(matches!(full, Err(Error::Backpressure(_))), "so many bytes wait");
        channel.wrote(channel.to_write().len());
        assert!(push(&mut channel, start, &Params::new()).is_ok());
        drop(kept);
    }

    #[test]
    fn only_what_was_not_begun_is_surely_not_done_when_the_connection_is_lost() {
        let (mut channel, start) = (Channel::new(BOUNDS, Credentials::Nothing), Instant::now());
        let mut requests: Vec<_> =
            (0..3).map(|_| push(&mut channel, start, &Params::new()).unwrap()).collect();
        // The first whole, one byte of the second.
        channel.wrote(channel.to_write().len() / 3 + 1);
        channel.received(start, &answer(1, Ok(1))[..3]).unwrap();
        channel.lost("it hung up");
        let ends: Vec<_> =
            requests.iter_mut().map(|each| now(each).unwrap().unwrap_err()).collect();
        assert!(matches!(ends[0], Error::Uncertain(_)), "{ends:?}");
        assert!(matches!(ends[1], Error::Uncertain(_)), "{ends:?}");
        assert!(matches!(ends[2], Error::Unavailable(_)), "{ends:?}");
        // It begins again, and what was read in part is forgotten.
        let mut fourth = push(&mut channel, start, &Params::new()).unwrap();
        channel.received(start, &answer(4, Ok(4))).unwrap();
        assert_eq!(now(&mut fourth), Some(Ok(vec![4])));
    }

    #[test]
    fn requests_end_at_their_deadline_or_when_another_node_leads() {
        let (mut channel, start) = (Channel::new(BOUNDS, Credentials::Nothing), Instant::now());
        let mut lasting = push(&mut channel, start, &Params::new()).unwrap();
        let params = Params::new();
        let led = Request {
            method: "m",
            params: &params,
            deadline: start + LIMIT,
            as_long_as_led: Some(3),
        };
        let mut led = channel.push(start, &led).unwrap();
        assert!(!channel.expire(start, |_| true));
        assert_eq!(now(&mut led), None);
        assert!(!channel.expire(start, |partition| partition != 3));
        assert!(matches!(now(&mut led), Some(Err(Error::Uncertain(_)))));
        assert_eq!(now(&mut lasting), None);
        assert!(channel.expire(start + LIMIT, |_| true), "nothing was heard all the time");
        assert!(matches!(now(&mut lasting), Some(Err(Error::Uncertain(_)))));
        let mut late = push(&mut channel, start, &Params::new()).unwrap();
        channel.received(start + LIMIT / 2, &answer(1, Ok(1))).unwrap();
        assert!(!channel.expire(start + LIMIT, |_| true), "it speaks, and is slow");
        assert!(matches!(now(&mut late), Some(Err(Error::Uncertain(_)))));
    }

    #[test]
    fn the_token_is_said_first_on_every_connection() {
        let token = Credentials::Token(secret());
        let (mut channel, start) = (Channel::new(BOUNDS, token), Instant::now());
        for _ in 0..2 {
            let mut asked = push(&mut channel, start, &Params::new()).unwrap();
            let begins = [&[0x94, 0, 0, 0xa4][..], b"auth"].concat();
            assert!(channel.to_write().starts_with(&begins));
            channel.received(start, &answer(GREETING, Ok(0))).unwrap();
            assert_eq!(now(&mut asked), None);
            channel.lost("it hung up");
            assert!(matches!(now(&mut asked), Some(Err(Error::Unavailable(_)))));
        }
        assert!(channel.received(start, &answer(GREETING, Err("unauthorized"))).is_err());
    }

    fn secret() -> Secret {
        Secret::parse(b"0123456789abcdef").expect("sixteen bytes")
    }

    /// What is to be written next: a request, as its number, its method and its parameters.
    fn written(channel: &mut Channel) -> Option<(u64, String, Vec<u8>)> {
        let bytes = channel.to_write().to_vec();
        let Scan::Complete(len) = Scanner::new(1000).scan(&bytes) else { return None };
        channel.wrote(len);
        let parts: Vec<View<'_>> = View::new(&bytes[..len]).items().collect();
        let params = parts[3].items().next()?.bytes().to_vec();
        Some((parts[1].uint()?, parts[2].str()?.to_owned(), params))
    }

    fn challenged(challenge: &Challenge, proof: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write::array(&mut out, 4);
        write::uint(&mut out, 1);
        write::uint(&mut out, GREETING.into());
        write::nil(&mut out);
        Params::new().bin("challenge", &challenge.0).bin("proof", proof).write(&mut out);
        out
    }

    #[test]
    fn nothing_is_said_to_who_does_not_prove_the_secret_and_the_token_to_nobody() {
        let token = Secret::parse(b"a-token-of-nodes").expect("sixteen bytes");
        let credentials = || Credentials::of(1, 2, Some(&token), Some(&secret()));
        let (start, known) = (Instant::now(), Known::new(2, secret()));
        let (own, given) = (Challenge([1; PROOF_BYTES]), Challenge([2; PROOF_BYTES]));
        let (awaited, proof) = known.answer((1, 2), own, given).expect("node 2 is meant");
        let mut channel = Channel::new(BOUNDS, credentials());
        let mut asked = push(&mut channel, start, &Params::new()).unwrap();
        assert!(channel.to_write().is_empty(), "there is no connection yet");
        let attempts = 6;
        for wrong in [
            answer(GREETING, Ok(0)),
            answer(GREETING, Err("unauthorized")),
            challenged(&given, &[9; PROOF_BYTES]),
            challenged(&own, &proof),
            challenged(&given, &proof[1..]),
            // Made up, for a request that was not asked of it.
            answer(attempts, Ok(7)),
        ] {
            channel.greet(own);
            let (msgid, method, params) = written(&mut channel).expect("it greets");
            assert_eq!((msgid, &*method), (GREETING.into(), "auth"));
            let said = View::new(&params);
            assert_eq!(said.get("challenge").and_then(View::bin), Some(&own.0[..]));
            assert_eq!(written(&mut channel), None, "nothing else is said");
            assert_eq!(channel.received(start, &wrong), Err(NOT_PROVEN), "{wrong:?}");
            assert_eq!(written(&mut channel), None, "it is told something");
            assert_eq!(now(&mut asked), None, "a made-up answer is believed");
            assert!(!channel.is_open());
            channel.lost("it is not believed");
            assert!(matches!(now(&mut asked), Some(Err(Error::Unavailable(_)))), "not done");
            asked = push(&mut channel, start, &Params::new()).unwrap();
        }
        channel.greet(own);
        written(&mut channel).expect("it greets");
        channel.received(start, &challenged(&given, &proof)).expect("it is proven");
        let (_, _, params) = written(&mut channel).expect("it proves itself");
        let own = View::new(&params).get("proof").and_then(View::bin).expect("a proof");
        assert!(known.is_proven(&awaited, own.try_into().expect("32 bytes")));
        let (msgid, method, _) = written(&mut channel).expect("then its requests");
        assert_eq!((msgid, &*method), (7, "m"));
        channel.received(start, &answer(GREETING, Ok(0))).expect("it is believed");
        assert!(channel.is_open());
        channel.received(start, &answer(7, Ok(7))).expect("an answer");
        assert_eq!(now(&mut asked), Some(Ok(vec![7])));
        assert_eq!(channel.received(start, &answer(GREETING, Err("x"))), Err(NOT_PROVEN));
    }

    #[test]
    fn of_who_has_not_proven_itself_only_a_short_answer_is_taken() {
        let credentials = Credentials::of(1, 2, None, Some(&secret()));
        let mut channel = Channel::new(BOUNDS, credentials);
        channel.greet(Challenge([1; PROOF_BYTES]));
        // An array of four whose last is text of 64 KiB.
        let mut begun = vec![0x94, 1, 0, 0xc0, 0xda, 0xff, 0xff];
        begun.resize(9 << 10, b'x');
        assert!(channel.received(Instant::now(), &begun).is_err());
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [&[0xc1][..], &[0x01], &[0x94, 1, 0xc0, 0x80, 0xc0]] {
            assert!(
                Channel::new(BOUNDS, Credentials::Nothing).received(Instant::now(), bytes).is_err(),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn errors_keep_their_meaning_on_the_way() {
        for (code, expected) in [
            ("invalid", Error::Invalid("no".into())),
            ("conflict", Error::Conflict("no".into())),
            ("not_found", Error::NotFound("no".into())),
            ("stale_lease", Error::StaleLease("no".into())),
            ("too_large", Error::TooLarge("no".into())),
            ("unavailable", Error::Unavailable("no".into())),
            ("unauthorized", Error::Unavailable("no".into())),
        ] {
            let mut bytes = Vec::new();
            Params::new().str("code", code).str("message", "no").write(&mut bytes);
            assert_eq!(error_of(View::new(&bytes)), expected);
        }
        let mut bytes = Vec::new();
        let params = Params::new().str("code", "unavailable").str("message", "no");
        params.bool("uncertain", true).write(&mut bytes);
        assert_eq!(error_of(View::new(&bytes)), Error::Uncertain("no".into()));
        let mut bytes = Vec::new();
        let params = Params::new().str("code", "backpressure").uint_if("retry_after_ms", Some(7));
        params.write(&mut bytes);
        assert_eq!(error_of(View::new(&bytes)), Error::Backpressure(7));
    }
}
