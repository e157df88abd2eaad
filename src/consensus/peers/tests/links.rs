//! The life of a link without sockets: two of them, whose bytes and time this moves.

use super::*;
use crate::consensus::peers::{
    Limits, Lost, Timing, frame,
    hello::{HELLO_BYTES, Hello, Identity, Nonce, Refusal},
    link::{Link, SendError, Taken},
    proof::{Challenge, Side},
};
use crate::wire::secret::Secret;

const TIMING: Timing = Timing {
    handshake_ms: 1000,
    keepalive_ms: 500,
    silence_ms: 3000,
    backoff_first_ms: 50,
    backoff_max_ms: 2000,
};
const LIMITS: Limits = Limits {
    frame_bytes: FRAME_BYTES,
    queue_bytes: 100_000,
    queue_messages: 100,
    compresses: true,
};

const CHALLENGE: Challenge = Challenge([7; 32]);

fn identity(node: u64) -> Identity {
    Identity { cluster: 77, node, instance: 1000 + node, secret: None, signing: None }
}

fn link(node: u64, peer: u64) -> Link {
    Link::new(identity(node), peer, TIMING, LIMITS, node, 0)
}

/// What a link writes.
fn written(link: &mut Link, now_ms: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let mut slices = [IoSlice::new(&[]); 4];
        let filled = link.unwritten(&mut slices);
        let start = bytes.len();
        slices[..filled].iter().for_each(|slice| bytes.extend_from_slice(slice));
        if bytes.len() == start {
            return bytes;
        }
        link.written(now_ms, bytes.len() - start);
    }
}

/// A link takes what came; the messages.
fn told(link: &mut Link, now_ms: u64, bytes: &[u8]) -> Result<Vec<Owned>, Lost> {
    let mut decoder = Decoder::new(FRAME_BYTES);
    let mut messages = Vec::new();
    decoder.space()[..bytes.len()].copy_from_slice(bytes);
    decoder.filled(bytes.len());
    link.read(now_ms, bytes.len());
    while let Some(frame) = decoder.next_frame()? {
        if let Taken::Messages(mut frame) = link.take(now_ms, frame)? {
            while let Some(message) = frame.next_message()? {
                messages.push(Owned::new(&message));
            }
        }
    }
    Ok(messages)
}

fn hello(bytes: &[u8]) -> Hello {
    let mut decoder = Decoder::of_hello();
    decoder.space()[..bytes.len()].copy_from_slice(bytes);
    decoder.filled(bytes.len());
    match decoder.next_frame() {
        Ok(Some(Frame::Hello(hello))) => hello,
        other => panic!("{other:?} is no hello"),
    }
}

/// The challenge of a listener.
fn challenge() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_small(&mut bytes, frame::Kind::Challenge, &CHALLENGE.0);
    bytes
}

/// TCP connects, and the listener gave its challenge.
fn open(low: &mut Link, now_ms: u64) {
    assert!(low.dial(now_ms), "it is time");
    low.opened();
    assert!(written(low, now_ms).is_empty(), "it waits for the challenge");
    assert_eq!(told(low, now_ms, &challenge()), Ok(vec![]));
}

/// Two links that are in use, at time 0.
fn pair() -> (Link, Link) {
    let (mut low, mut high) = (link(1, 2), link(2, 1));
    assert_eq!(connect(&mut low, &mut high, 0), []);
    (low, high)
}

/// Tells what came behind the answer.
fn connect(low: &mut Link, high: &mut Link, now_ms: u64) -> Vec<Owned> {
    open(low, now_ms);
    let hello = hello(&written(low, now_ms));
    assert_eq!(hello.judge(&identity(2), &CHALLENGE, true), Ok(()));
    assert!(!high.is_stale(hello.nonce));
    high.accepted(now_ms, &CHALLENGE, hello.nonce);
    let messages = told(low, now_ms, &written(high, now_ms)).unwrap();
    assert!(low.is_in_use() && high.is_in_use());
    messages
}

fn numbers(messages: &[Owned]) -> Vec<u64> {
    messages.iter().map(number).collect()
}

#[test]
fn the_lower_id_dials_and_messages_flow_both_ways() {
    let (mut low, mut high) = (link(1, 2), link(2, 1));
    assert_eq!((high.next_ms(), high.dial(100_000)), (None, false));
    for number in 0..3 {
        low.send(numbered(number)).unwrap();
        high.send(numbered(10 + number)).unwrap();
    }
    assert_eq!(numbers(&connect(&mut low, &mut high, 0)), [10, 11, 12]);
    assert_eq!(numbers(&told(&mut high, 0, &written(&mut low, 0)).unwrap()), [0, 1, 2]);
    assert_eq!(low.counters().frames_in, 3);
    assert_eq!((high.queued(), high.counters().messages_out), ((0, 0), 3));
}

#[test]
fn each_mistake_of_one_who_dials_has_its_reason() {
    let right = Hello {
        cluster: 77,
        from: 1,
        to: 2,
        nonce: Nonce { instance: 5, attempt: 1 },
        answers: Nonce::default(),
        proof: [9; 32],
        signature: None,
    };
    assert_eq!(Hello::decode(&right.encode()), Ok(right));
    let judged = |hello: Hello, is_peer| hello.judge(&identity(2), &CHALLENGE, is_peer);
    assert_eq!(judged(right, true), Ok(()));
    assert_eq!(judged(Hello { cluster: 78, ..right }, true), Err(Refusal::Cluster));
    assert_eq!(judged(Hello { to: 3, ..right }, true), Err(Refusal::Node));
    assert_eq!(judged(Hello { from: 2, ..right }, true), Err(Refusal::Itself));
    assert_eq!(judged(Hello { from: 3, ..right }, true), Err(Refusal::Direction));
    assert_eq!(judged(right, false), Err(Refusal::Unknown));
    let mut body = right.encode();
    body[0] ^= 1;
    assert_eq!(Hello::decode(&body), Err(FrameError::Hello));
    assert_eq!(Hello::decode(&[0; HELLO_BYTES - 1]), Err(FrameError::Hello));
    for why in Refusal::ALL {
        assert_eq!(Refusal::decode(&[why as u8]), Ok(why));
        assert_eq!(Refusal::ALL[why.index()], why);
    }
}

fn knowing(node: u64, secret: &str) -> Identity {
    let secret = Some(Secret::parse(secret.as_bytes()).expect("a secret"));
    Identity { secret, ..identity(node) }
}

#[test]
fn who_does_not_know_the_secret_is_refused_on_both_sides() {
    const SECRET: &str = "0123456789abcdef";
    let right = Hello {
        cluster: 77,
        from: 1,
        to: 2,
        nonce: Nonce { instance: 5, attempt: 1 },
        answers: Nonce::default(),
        proof: [0; 32],
        signature: None,
    };
    let high = knowing(2, SECRET);
    let judged = |hello: Hello| hello.judge(&high, &CHALLENGE, true);
    let proven = |me: &Identity, side, challenge| right.proven(me, side, challenge);
    let low = knowing(1, SECRET);
    assert_eq!(judged(proven(&low, Side::Dials, &CHALLENGE)), Ok(()));
    let other = Challenge([8; 32]);
    for wrong in [
        right,
        proven(&knowing(1, "0123456789abcdeF"), Side::Dials, &CHALLENGE),
        // Seen on another connection, or from the other side of one.
        proven(&low, Side::Dials, &other),
        proven(&low, Side::Listens, &CHALLENGE),
        Hello { to: 3, ..proven(&low, Side::Dials, &CHALLENGE) },
        Hello { nonce: Nonce { instance: 5, attempt: 2 }, ..proven(&low, Side::Dials, &CHALLENGE) },
    ] {
        assert_eq!(judged(wrong), Err(Refusal::Proof), "{wrong:?}");
    }

    // The answer is proven as well.
    let answered = |me: &Identity, side| {
        let mut link = Link::new(knowing(1, SECRET), 2, TIMING, LIMITS, 1, 0);
        open(&mut link, 0);
        let Hello { nonce: answers, .. } = hello(&written(&mut link, 0));
        let (nonce, proof) = (Nonce { instance: 9, attempt: 9 }, [0; 32]);
        let signature = None;
        let answer = Hello { cluster: 77, from: 2, to: 1, nonce, answers, proof, signature };
        let answer = answer.proven(me, side, &CHALLENGE);
        let mut frame = Vec::new();
        frame::write_small(&mut frame, frame::Kind::Hello, &answer.encode());
        told(&mut link, 0, &frame).map(|_| link.is_in_use())
    };
    assert_eq!(answered(&high, Side::Listens), Ok(true));
    let refused = Err(Lost::Refused(Refusal::Proof));
    assert_eq!(answered(&high, Side::Dials), refused);
    assert_eq!(answered(&identity(2), Side::Listens), refused);
}

#[test]
fn an_answer_from_somebody_else_or_to_another_connection_is_refused() {
    let answer = |change: fn(&mut Hello)| {
        let mut low = link(1, 2);
        open(&mut low, 0);
        let Hello { nonce: answers, .. } = hello(&written(&mut low, 0));
        let nonce = Nonce { instance: 9, attempt: 9 };
        let (proof, signature) = ([0; 32], None);
        let mut answer = Hello { cluster: 77, from: 2, to: 1, nonce, answers, proof, signature };
        change(&mut answer);
        let mut frame = Vec::new();
        frame::write_small(&mut frame, frame::Kind::Hello, &answer.encode());
        told(&mut low, 0, &frame).map(|_| low.is_in_use())
    };
    assert_eq!(answer(|_| {}), Ok(true));
    assert_eq!(answer(|hello| hello.cluster = 1), Err(Lost::Refused(Refusal::Cluster)));
    assert_eq!(answer(|hello| hello.from = 3), Err(Lost::Refused(Refusal::Node)));
    assert_eq!(answer(|hello| hello.from = 1), Err(Lost::Refused(Refusal::Itself)));
    assert_eq!(answer(|hello| hello.to = 3), Err(Lost::Refused(Refusal::Node)));
    assert_eq!(answer(|hello| hello.answers.attempt += 1), Err(Lost::Refused(Refusal::Stale)));
}

#[test]
fn messages_before_the_handshake_and_a_second_hello_are_refused() {
    let (mut low, mut high) = pair();
    low.send(numbered(1)).unwrap();
    let frame = written(&mut low, 0);
    let mut fresh = link(1, 2);
    open(&mut fresh, 0);
    let hello = written(&mut fresh, 0);
    assert_eq!(told(&mut fresh, 0, &frame), Err(Lost::Unexpected));
    assert_eq!(told(&mut high, 0, &hello), Err(Lost::Unexpected));
}

#[test]
fn an_older_connection_does_not_replace_the_one_in_use() {
    let (mut low, mut high) = (link(1, 2), link(2, 1));
    open(&mut low, 0);
    let first = hello(&written(&mut low, 0)).nonce;
    assert!(!low.lost(0, Lost::Late));
    open(&mut low, 50);
    let second = hello(&written(&mut low, 50)).nonce;
    high.accepted(60, &CHALLENGE, second);
    assert!(high.is_stale(first) && high.is_stale(second));
    assert!(!high.is_stale(Nonce { instance: 1234, attempt: 1 }), "another process is not older");
    // After a loss nothing is in use that would be replaced.
    assert!(high.lost(70, Lost::Closed));
    assert!(!high.is_stale(first));
}

#[test]
fn pauses_double_up_to_a_limit_and_differ_between_nodes() {
    let pauses = |seed| {
        let mut link = Link::new(identity(1), 2, TIMING, LIMITS, seed, 0);
        let mut now_ms = 0;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert!(link.dial(now_ms));
            assert!(!link.lost(now_ms, Lost::Failed(std::io::ErrorKind::ConnectionRefused)));
            let pause = link.next_ms().unwrap() - now_ms;
            assert!(!link.dial(now_ms + pause - 1), "it waits");
            now_ms += pause;
            pauses.push(pause);
        }
        assert_eq!(link.counters().failed_dials, 12);
        pauses
    };
    let first = pauses(1);
    for (tries, pause) in first.iter().enumerate() {
        let longest = (50 << tries).min(2000);
        assert!((longest / 2..=longest).contains(pause), "{pause} ms after {tries} failures");
    }
    assert_eq!(first, pauses(1));
    assert_ne!(first, pauses(2));
}

#[test]
fn a_connection_that_breaks_again_and_again_is_made_less_and_less_often() {
    let (mut low, mut high) = pair();
    let mut now_ms = 0;
    for _ in 0..10 {
        now_ms += 10;
        assert!(low.lost(now_ms, Lost::Closed) && high.lost(now_ms, Lost::Closed));
        now_ms = low.next_ms().unwrap();
        connect(&mut low, &mut high, now_ms);
    }
    assert!(low.lost(now_ms, Lost::Closed) && high.lost(now_ms, Lost::Closed));
    assert!(low.next_ms().unwrap() - now_ms >= 1000);
    now_ms = low.next_ms().unwrap();
    connect(&mut low, &mut high, now_ms);
    now_ms += TIMING.backoff_max_ms;
    assert!(low.lost(now_ms, Lost::Closed));
    assert!(low.next_ms().unwrap() - now_ms <= 50, "it had lived long");
}

#[test]
fn a_connection_that_takes_too_long_is_given_up() {
    let mut low = link(1, 2);
    assert!(low.dial(0));
    assert_eq!((low.next_ms(), low.turn(999)), (Some(1000), Ok(())));
    assert_eq!(low.turn(1000), Err(Lost::Late));
    low.opened();
    assert_eq!((low.turn(999), low.turn(1000)), (Ok(()), Err(Lost::Late)));
}

#[test]
fn keepalives_are_heard_and_silence_is_a_loss() {
    let (mut low, mut high) = pair();
    assert_eq!((low.next_ms(), low.turn(499), low.has_unwritten()), (Some(500), Ok(()), false));
    assert_eq!((low.turn(500), low.has_unwritten()), (Ok(()), true));
    let keepalive = written(&mut low, 500);
    assert_eq!(told(&mut high, 2000, &keepalive), Ok(vec![]));
    assert_eq!(high.turn(3000), Ok(()), "it heard something");
    assert_eq!((low.turn(2999), low.turn(3000)), (Ok(()), Err(Lost::Silent)));
    assert_eq!((high.turn(4999), high.turn(5000)), (Ok(()), Err(Lost::Silent)));
    assert!(low.next_ms() <= Some(3000) && low.lost(3000, Lost::Silent));
    assert_eq!(low.counters().losses, 1);
}

#[test]
fn a_full_queue_drops_its_oldest_and_keeps_the_order() {
    let (mut low, mut high) = pair();
    for number in 0..250 {
        low.send(Message::new(number as u16, vec![0; 92])).unwrap();
        let (messages, bytes) = low.queued();
        assert!(messages <= 100 && bytes <= 100_000);
    }
    assert_eq!(low.counters().dropped_messages, 150);
    assert_eq!(low.counters().dropped_bytes, 150 * 100);
    let messages = told(&mut high, 0, &written(&mut low, 0)).unwrap();
    let partitions: Vec<_> = messages.iter().map(|message| message.partition).collect();
    assert_eq!(partitions, (150..250).collect::<Vec<_>>());

    for number in 0..30 {
        low.send(Message::new(number, vec![0; 9992])).unwrap();
        assert!(low.queued().1 <= 100_000);
    }
    let bytes = written(&mut low, 0);
    let (messages, _) = feed(&mut Decoder::new(FRAME_BYTES), &bytes);
    let partitions: Vec<_> = messages.iter().map(|message| message.partition).collect();
    assert_eq!(partitions, (20..30).collect::<Vec<_>>());
}

#[test]
fn a_message_that_no_frame_can_hold_is_refused() {
    let (mut low, _) = pair();
    let bytes = FRAME_BYTES + 8;
    let refused = low.send(Message::new(0, vec![0; FRAME_BYTES]));
    assert_eq!(refused, Err(SendError::TooLarge { bytes, limit: FRAME_BYTES }));
    let mut message = Message::new(0, vec![]);
    message.parts = vec![Shared::new(Bytes::new()); 65_536];
    assert_eq!(low.send(message), Err(SendError::TooManyParts(65_536)));
    assert_eq!((low.counters().refused_messages, low.queued()), (2, (0, 0)));
}

#[test]
fn a_frame_that_was_cut_is_not_repeated_and_what_waits_follows_in_order() {
    let (mut low, mut high) = pair();
    for number in 0..3 {
        low.send(numbered(number)).unwrap();
    }
    // Some bytes of the frame leave; what is sent meanwhile is the next one.
    let mut slices = [IoSlice::new(&[]); 1];
    assert_eq!(low.unwritten(&mut slices), 1);
    low.written(0, 20);
    for number in 3..6 {
        low.send(numbered(number)).unwrap();
    }
    assert!(low.lost(10, Lost::Closed) && high.lost(10, Lost::Closed));
    assert_eq!((low.counters().cut_messages, low.queued().0), (3, 3));
    let now_ms = low.next_ms().unwrap();
    connect(&mut low, &mut high, now_ms);
    let messages = told(&mut high, now_ms, &written(&mut low, now_ms)).unwrap();
    assert_eq!(numbers(&messages), [3, 4, 5]);
    assert_eq!(low.counters().messages_out, 3);
}

#[test]
fn a_peer_with_another_address_is_dialled_at_once() {
    let mut low = link(1, 2);
    for _ in 0..8 {
        let now_ms = low.next_ms().unwrap();
        assert!(low.dial(now_ms));
        low.lost(now_ms, Lost::Late);
    }
    let now_ms = low.next_ms().unwrap() - 500;
    assert!(!low.dial(now_ms));
    low.hurry(now_ms);
    assert!(low.dial(now_ms));
}
