//! Two cores' ends of a mesh, driven by one thread, one step after the other.

use super::*;
use crate::{
    runtime::mesh::mesh,
    wire::batch::{Attachment, Kind},
};
use proptest::prelude::*;
use std::sync::Arc;

const RING: usize = 4;
const TIMEOUT_US: u64 = 10_000;
const LIMITS: Limits = Limits { messages: 3, bytes: 256, shared_payload_bytes: 128 };

fn pair() -> [Links; 2] {
    let ports = mesh(2, RING).unwrap();
    let links = ports.into_iter().map(|port| Links::new(port, LIMITS, RING, TIMEOUT_US));
    links.collect::<Vec<_>>().try_into().ok().expect("two cores")
}

fn numbered(number: u64) -> Header {
    Header { target: 0, source: 0, correlation: number, kind: Kind::Send }
}

/// Takes every batch that is there and hands it back; the numbers in it, checked to come on from
/// `next`.
fn take_all(links: &mut Links, source: usize, mut next: u64) -> u64 {
    while let Some(batch) = links.take(source) {
        for place in 0..batch.len() {
            let parcel = batch.parcel(place);
            assert_eq!(parcel.header.correlation, next, "lost, repeated or out of order");
            assert!(parcel.payload.iter().all(|byte| *byte == next as u8));
            next += 1;
        }
        links.give_back(source, batch);
    }
    next
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Put in a message of that many bytes, which may be refused.
    Push(usize),
    /// Put in an answer, which may not.
    Owe(usize),
    Flush,
    FlushDue(u64),
    TakeOne,
    TakeAll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..200_usize).prop_map(Step::Push),
        2 => (0..200_usize).prop_map(Step::Owe),
        1 => Just(Step::Flush),
        1 => (0..2 * TIMEOUT_US).prop_map(Step::FlushDue),
        2 => Just(Step::TakeOne),
        1 => Just(Step::TakeAll),
    ]
}

proptest! {
    #[test]
    fn whatever_the_rings_do_everything_arrives_once_and_in_order(
        // To the other core and to the core itself.
        target in 0..2_usize,
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let [mut source, mut other] = pair();
        let (mut sent, mut arrived) = (0_u64, 0_u64);
        for step in steps {
            match step {
                Step::Push(len) => {
                    let payload = vec![sent as u8; len];
                    let pushed = source.push(0, target as CoreIndex, numbered(sent), &payload[..]);
                    sent += u64::from(pushed.is_ok());
                    let room = RING as u64 * LIMITS.messages as u64;
                    prop_assert!(pushed.is_ok() || sent - arrived >= RING as u64,
                        "refused with {} of at most {room} on their way", sent - arrived);
                }
                Step::Owe(len) => {
                    let payload = vec![sent as u8; len];
                    source.push_owed(0, target as CoreIndex, numbered(sent), &payload[..]);
                    sent += 1;
                }
                Step::Flush => source.flush(),
                Step::FlushDue(now_us) => source.flush_due(now_us),
                Step::TakeOne => {
                    let receiver = if target == 0 { &mut source } else { &mut other };
                    if let Some(batch) = receiver.take(0) {
                        for place in 0..batch.len() {
                            prop_assert_eq!(batch.parcel(place).header.correlation, arrived);
                            arrived += 1;
                        }
                        receiver.give_back(0, batch);
                    }
                }
                Step::TakeAll => {
                    let receiver = if target == 0 { &mut source } else { &mut other };
                    arrived = take_all(receiver, 0, arrived);
                }
            }
        }
        while source.has_departures() {
            source.flush();
            arrived = take_all(&mut other, 0, arrived);
        }
        arrived = match target {
            0 => take_all(&mut source, 0, arrived),
            _ => take_all(&mut other, 0, arrived),
        };
        prop_assert_eq!(arrived, sent);
        prop_assert!(!source.has_departures());
    }
}

#[test]
fn a_full_way_refuses_and_takes_again_when_there_is_room() {
    let [mut source, mut other] = pair();
    let mut sent = 0;
    while source.push(0, 1, numbered(sent), &[sent as u8][..]).is_ok() {
        sent += 1;
    }
    // The ring, and the batch that waits to leave.
    assert_eq!(sent, (RING as u64 + 1) * LIMITS.messages as u64);
    assert!(source.is_full(1));
    let batch = other.take(0).unwrap();
    other.give_back(0, batch);
    assert!(!source.is_full(1));
    assert!(source.push(0, 1, numbered(sent), &[sent as u8][..]).is_ok());
}

#[test]
fn a_batch_leaves_when_it_is_full_or_old_or_its_receiver_has_nothing_left() {
    let [mut source, mut other] = pair();
    let arrives = |source: &mut Links, other: &mut Links, now_us| {
        source.flush_due(now_us);
        let batch = other.take(0);
        let count = batch.as_ref().map(Batch::len);
        batch.into_iter().for_each(|batch| other.give_back(0, batch));
        count
    };
    source.push(0, 1, numbered(0), &[][..]).unwrap();
    assert_eq!(arrives(&mut source, &mut other, 0), Some(1), "the receiver had nothing left");
    // From here on a batch lies in the ring, so that the receiver has something to do.
    source.push(0, 1, numbered(1), &[][..]).unwrap();
    source.flush_due(0);
    source.push(5, 1, numbered(2), &[][..]).unwrap();
    source.flush_due(TIMEOUT_US + 4);
    assert!(source.has_departures(), "not full, not old, and the receiver is busy");
    source.flush_due(TIMEOUT_US + 5);
    assert!(!source.has_departures(), "it is old");
    for number in 3..6 {
        source.push(TIMEOUT_US, 1, numbered(number), &[][..]).unwrap();
    }
    source.flush_due(TIMEOUT_US);
    assert!(!source.has_departures(), "it is full");
}

#[test]
fn buffers_come_back_and_are_used_again() {
    let [mut source, mut other] = pair();
    let (mut sent, mut arrived) = (0_u64, 0);
    for round in 0..10_000 {
        // Up to as many as the ring holds, with what travels beside the batch among them.
        for _ in 0..1 + round % (RING * LIMITS.messages) {
            let payload = vec![sent as u8; if sent.is_multiple_of(7) { 500 } else { 20 }];
            source.push(0, 1, numbered(sent), &payload[..]).unwrap();
            let own = source.push(0, 0, numbered(sent), &payload[..]);
            own.unwrap();
            sent += 1;
        }
        source.flush();
        arrived = take_all(&mut other, 0, arrived);
        while let Some(batch) = source.take(0) {
            source.give_back(0, batch);
        }
    }
    assert_eq!(arrived, sent);
    // One that is open and one for each place in the ring, both to the other and to itself.
    let bound = 2 * (RING as u64 + 1);
    assert!(source.buffers_made() <= bound, "{} buffers", source.buffers_made());
}

#[test]
fn a_large_payload_is_passed_on_and_not_copied() {
    let [mut source, mut other] = pair();
    let payload: Arc<[u8]> = vec![7; 1 << 20].into();
    source.push(0, 1, numbered(0), Attachment::Payload(payload.clone())).unwrap();
    source.flush();
    let batch = other.take(0).unwrap();
    assert_eq!(batch.parcel(0).payload.as_ptr(), payload.as_ptr());
    assert_eq!(Arc::strong_count(&payload), 2);
    other.give_back(0, batch);
    assert_eq!(Arc::strong_count(&payload), 1, "it does not travel back with the buffer");
}
