//! The requests of one connection to another node: many under way, each answered once.
//!
//! Pure: bytes go in and out, the time comes from outside.
//!
//! Invariants worth naming:
//! - Every request ends: with its answer, at its deadline, or when the connection is lost.
//! - A request of which no byte was written when the connection was lost was surely not done, and
//!   its error says so ([`Error::Unavailable`]); of any other nobody knows ([`Error::Uncertain`]).
//! - How many requests are under way, and how many bytes of them wait, is bounded.

use crate::{
    client::{Answer, Params, View, request},
    wire::{
        api::Error,
        id::PartitionIndex,
        msgpack::{Scan, Scanner},
        secret::Secret,
    },
};
use futures_channel::oneshot::{self, Receiver, Sender};
use std::{collections::HashMap, time::Instant};

/// The number of the request that says the token; others count from 1.
const GREETING: u32 = 0;
/// The largest answer that is taken, bytes: far above what a node keeps for one connection.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// When to come back while too much is under way, milliseconds.
const RETRY_MS: u64 = 10;
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

/// One connection's requests.
pub struct Channel {
    bounds: Bounds,
    /// What is said before everything else.
    token: Option<Secret>,
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
    /// The other side refuses the token, and so did nothing of what was sent.
    is_refused: bool,
}

impl Channel {
    /// A channel with nothing under way.
    pub fn new(bounds: Bounds, token: Option<Secret>) -> Self {
        let mut output = Vec::new();
        if let Some(token) = &token {
            let said = Params::new().str("token", token.expose());
            request(&mut output, GREETING, "auth", |out| said.write(out));
        }
        Self {
            bounds,
            token,
            waiting: HashMap::new(),
            last_msgid: 0,
            output,
            written: 0,
            gone: 0,
            input: Vec::new(),
            scanner: Scanner::new(ANSWER_BYTES_MAX),
            heard: None,
            is_refused: false,
        }
    }

    /// Puts a request behind those that wait to be written.
    ///
    /// # Errors
    /// [`Error::Backpressure`] when too much is under way, [`Error::TooLarge`]; nothing was done.
    pub fn push(&mut self, now: Instant, what: &Request<'_>) -> Result<Receiver<Answered>, Error> {
        let Bounds { in_flight, waiting_bytes, frame_bytes } = self.bounds;
        if self.waiting.len() >= in_flight || self.to_write().len() >= waiting_bytes {
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

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What is to be written next.
    pub fn to_write(&self) -> &[u8] {
        &self.output[self.written..]
    }

    /// So many bytes of that were written.
    pub fn wrote(&mut self, len: usize) {
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
            if msgid == GREETING && answer.outcome.is_err() {
                self.is_refused = true;
                break Err("it has another server.token_file");
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
        let token = self.token.take();
        *self = Self { last_msgid: self.last_msgid, ..Self::new(self.bounds, token) };
    }
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
    use crate::wire::msgpack::write;
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
        let (mut channel, start) = (Channel::new(BOUNDS, None), Instant::now());
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
        let (mut channel, start) = (Channel::new(BOUNDS, None), Instant::now());
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
        let (mut channel, start) = (Channel::new(BOUNDS, None), Instant::now());
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
        let (mut channel, start) = (Channel::new(BOUNDS, None), Instant::now());
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
        let token = Secret::parse(b"0123456789abcdef").ok();
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

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [&[0xc1][..], &[0x01], &[0x94, 1, 0xc0, 0x80, 0xc0]] {
            assert!(
                Channel::new(BOUNDS, None).received(Instant::now(), bytes).is_err(),
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
