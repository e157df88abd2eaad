//! Order and speed under load, both ways at once, each node in a thread of its own.

use super::{
    real::{Node, config, pair},
    *,
};
use crate::consensus::peers::{Event, Lost, NodeId};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Sends `total` messages with `body`, and receives as many, which must come in order.
fn run(node: &mut Node, peer: NodeId, total: u64, body: &Bytes, done: &AtomicUsize) {
    let late = Instant::now() + Duration::from_secs(100);
    let (mut sent, mut received, mut is_done) = (0, 0, false);
    while done.load(Ordering::Relaxed) < 2 {
        let now = Instant::now();
        assert!(now < late, "sent {sent}, received {received} of {total}");
        let before = (sent, received);
        node.sockets.receive(now, |event| match event {
            Event::Message(from, message) => {
                let (number, rest) = message.head.split_first_chunk().expect("eight bytes");
                assert_eq!((from, u64::from_le_bytes(*number)), (peer, received));
                let mut parts = message.parts();
                let part = parts.next().unwrap_or(rest);
                assert!(part == body, "message {received} was changed");
                received += 1;
            }
            // The one that is ready first goes away first.
            Event::Lost(_, Lost::Closed | Lost::Failed(_)) if received == total => {}
            other => panic!("{other:?}"),
        });
        while sent < total && node.sockets.queued(peer).1 < 1 << 20 {
            let mut head = Vec::with_capacity(8 + body.len());
            head.extend_from_slice(&sent.to_le_bytes());
            let mut message = Message::new(1, Bytes::new());
            if body.len() < 1024 {
                head.extend_from_slice(body);
            } else {
                message.parts.push(Shared::new(body.clone()));
            }
            message.head = head.into();
            node.sockets.send(peer, message).expect("it is small");
            sent += 1;
        }
        node.sockets.flush(now);
        if !is_done && sent == total && received == total && node.sockets.queued(peer).0 == 0 {
            is_done = true;
            done.fetch_add(1, Ordering::Relaxed);
        } else if before == (sent, received) {
            let Node { sockets, bell, .. } = node;
            sockets.wait(Instant::now(), Some(Duration::from_millis(1)), bell).expect("memory");
        }
    }
}

fn measure(what: &str, total: u64, body: Bytes) {
    let (mut low, mut high) = pair();
    let done = AtomicUsize::new(0);
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| run(&mut low, 2, total, &body, &done));
        scope.spawn(|| run(&mut high, 1, total, &body, &done));
    });
    let seconds = began.elapsed().as_secs_f64();
    let (low, high) = (low.counters(2), high.counters(1));
    assert_eq!((low.messages_in, high.messages_in), (total, total));
    assert_eq!((low.dropped_messages, high.dropped_messages), (0, 0));
    let messages = 2.0 * total as f64 / seconds;
    let megabytes = messages * (8 + body.len()) as f64 / 1e6;
    println!(
        "{what}: {messages:.0} messages/s and {megabytes:.0} MB/s, both ways together; {:.0} \
         messages a frame, {:.0} % of the bytes written",
        low.messages_out as f64 / low.frames_out as f64,
        100.0 * low.bytes_out as f64 / (total as f64 * (16 + body.len()) as f64),
    );
}

fn body(bytes: usize, is_noise: bool) -> Bytes {
    let mut random = fastrand::Rng::with_seed(3);
    // Words of a small vocabulary, as JSON has them, or noise.
    let words: Vec<[u8; 12]> = (0..64).map(|_| std::array::from_fn(|_| random.u8(..))).collect();
    let mut body = Vec::with_capacity(bytes + 12);
    while body.len() < bytes {
        if is_noise {
            body.push(random.u8(..));
        } else {
            body.extend_from_slice(&words[random.usize(..words.len())]);
        }
    }
    body.truncate(bytes);
    body.into()
}

#[test]
fn a_million_small_messages_stay_in_order_both_ways() {
    measure("64 bytes", 1_000_000, body(64, true));
}

#[test]
fn large_messages_stay_in_order_both_ways() {
    measure("64 KiB of noise", 4000, body(64 << 10, true));
    measure("64 KiB of words", 4000, body(64 << 10, false));
}

#[test]
fn a_message_as_large_as_a_frame_arrives_and_one_larger_is_refused() {
    let (mut low, mut high) = pair();
    let limit = config(1).limits.frame_bytes;
    let noise = body(limit - 8, true);
    low.sockets.send(2, Message::new(1, noise.clone())).unwrap();
    assert!(low.sockets.send(2, Message::new(1, body(limit - 7, true))).is_err());
    super::real::until([&mut low, &mut high], "the message", |[_, high]| high.told.len() == 2);
    let super::real::Told::Message(1, message) = &high.told[1] else { panic!("no message") };
    assert!(message.head == noise);
}
