//! The bytes: round trips, damage, cuts, nonsense, and what they cost.

use super::*;
use crate::consensus::peers::frame::{self, HEAD_BYTES, Kind};
use proptest::{collection::vec, prelude::*};

fn part() -> impl Strategy<Value = Vec<u8>> {
    let repeated = (any::<u8>(), 0..5000_usize).prop_map(|(byte, bytes)| vec![byte; bytes]);
    prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..5000), repeated]
}

fn owned() -> impl Strategy<Value = Owned> {
    let head = vec(any::<u8>(), 0..60);
    (any::<u16>(), head, vec(part(), 0..4)).prop_map(|(partition, head, parts)| Owned {
        partition,
        head,
        parts,
    })
}

fn small() -> impl Strategy<Value = Owned> {
    let parts = prop_oneof![vec(vec(any::<u8>(), 0..9), 0..3), Just(vec![vec![7; 1100]])];
    (any::<u16>(), vec(any::<u8>(), 0..9), parts).prop_map(|(partition, head, parts)| Owned {
        partition,
        head,
        parts,
    })
}

/// A frame with right checksums, whatever is in it.
fn sealed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_small(&mut bytes, Kind::Messages, body);
    bytes[5] = kind;
    let checksum = crc32fast::hash(&bytes[..12]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The body of a frame with one message of one part.
fn body_with(travelling: u32, plain: u32, bytes: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0, 3, 0, 1, 0];
    body.extend_from_slice(&travelling.to_le_bytes());
    body.extend_from_slice(&plain.to_le_bytes());
    body.extend_from_slice(bytes);
    body
}

proptest! {
    #[test]
    fn messages_survive_their_bytes_however_they_are_cut(
        messages in vec(owned(), 0..12),
        cuts in vec(1..9000_usize, 1..20),
    ) {
        let bytes = frame_of(&messages);
        let mut decoder = Decoder::new(FRAME_BYTES);
        let (mut decoded, mut rest) = (Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            let (told, result) = feed(&mut decoder, piece);
            prop_assert_eq!(result, Ok(()));
            decoded.extend(told);
            rest = after;
        }
        prop_assert!(decoded == messages);
        prop_assert!(decoder.is_empty());
    }

    #[test]
    fn every_flipped_bit_is_noticed_at_once(messages in vec(small(), 1..3)) {
        let frame = frame_of(&messages);
        for bit in 0..8 * frame.len() {
            let mut bytes = frame.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // Enough follows for a reader that would believe a changed length.
            let (told, result) = feed(&mut Decoder::new(FRAME_BYTES), &bytes);
            prop_assert!(told.is_empty());
            prop_assert!(result.is_err(), "bit {} of {} was not noticed", bit, 8 * frame.len());
        }
    }

    #[test]
    fn a_frame_that_is_cut_anywhere_waits_for_more(messages in vec(small(), 1..3)) {
        let frame = frame_of(&messages);
        for cut in 0..frame.len() {
            let (told, result) = feed(&mut Decoder::new(FRAME_BYTES), &frame[..cut]);
            prop_assert_eq!((told, result), (vec![], Ok(())));
        }
    }

    #[test]
    fn random_bytes_are_no_frame_and_no_panic(bytes in vec(any::<u8>(), HEAD_BYTES..400)) {
        prop_assert_eq!(feed(&mut Decoder::new(FRAME_BYTES), &bytes).1, Err(FrameError::Head));
    }

    #[test]
    fn random_bodies_under_a_right_checksum_are_no_panic(
        kind in 0..7_u8,
        body in vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..200),
    ) {
        let mut decoder = Decoder::new(FRAME_BYTES);
        let (told, result) = feed(&mut decoder, &sealed(kind, &body));
        if !(1..=5).contains(&kind) {
            prop_assert_eq!(result, Err(FrameError::Kind));
        }
        let told_bytes: usize = told.iter().map(|message| message.message().plain_bytes()).sum();
        prop_assert!(told_bytes <= FRAME_BYTES);
        prop_assert!(decoder.memory_bytes() <= 300 << 10, "{}", decoder.memory_bytes());
    }

    #[test]
    fn random_blocks_are_no_panic_and_no_part_of_another_length(
        compressed in vec(any::<u8>(), 1..60),
        plain in 0..20_000_u32,
    ) {
        let body = body_with(compressed.len() as u32, plain, &compressed);
        let (told, _) = feed(&mut Decoder::new(FRAME_BYTES), &sealed(3, &body));
        for message in told {
            prop_assert_eq!(message.parts[0].len(), plain as usize);
        }
    }
}

#[test]
fn a_declared_length_costs_no_memory() {
    let limit = 8 << 20;
    let mut decoder = Decoder::new(limit);
    let mut head = [0; HEAD_BYTES];
    frame::write_head(&mut head, Kind::Messages, limit, 0);
    assert_eq!(feed(&mut decoder, &head), (vec![], Ok(())));
    assert!(decoder.memory_bytes() <= 64 << 10, "{}", decoder.memory_bytes());

    for plain in [4000, limit as u32, u32::MAX] {
        let mut decoder = Decoder::new(limit);
        let (_, result) = feed(&mut decoder, &sealed(3, &body_with(10, plain, &[0x1f; 10])));
        assert!(matches!(result, Err(FrameError::Compressed | FrameError::Message)));
        assert!(decoder.memory_bytes() <= 64 << 10, "{}", decoder.memory_bytes());
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_by_its_head_alone() {
    let mut head = [0; HEAD_BYTES];
    frame::write_head(&mut head, Kind::Messages, 101, 0);
    let error = FrameError::TooLong { bytes: 101, limit: 100 };
    assert_eq!(feed(&mut Decoder::new(100), &head).1, Err(error));
}

#[test]
fn compressed_parts_may_not_make_a_frame_longer_than_the_limit() {
    let parts = vec![vec![0; 60_000], vec![0; 60_000]];
    let frame = frame_of(&[Owned { partition: 0, head: vec![], parts }]);
    assert!(frame.len() < 1000, "{} bytes", frame.len());
    assert_eq!(feed(&mut Decoder::new(121_000), &frame).1, Ok(()));
    assert_eq!(feed(&mut Decoder::new(119_000), &frame).1, Err(FrameError::Message));
}

#[test]
fn a_frame_of_another_version_is_told_apart_from_damage() {
    let mut frame = sealed(3, &[]);
    frame[4] = 9;
    let checksum = crc32fast::hash(&frame[..12]);
    frame[12..16].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(feed(&mut Decoder::new(100), &frame).1, Err(FrameError::Version(9)));
}

#[test]
fn a_large_frame_gives_its_memory_back() {
    let mut random = fastrand::Rng::with_seed(1);
    let part: Vec<u8> = (0..900_000).map(|_| random.u8(..)).collect();
    let large = frame_of(&[Owned { partition: 0, head: vec![], parts: vec![part] }]);
    let flat = frame_of(&[Owned { partition: 0, head: vec![], parts: vec![vec![0; 900_000]] }]);
    let little = frame_of(&[Owned { partition: 0, head: vec![], parts: vec![] }]);
    let mut decoder = Decoder::new(FRAME_BYTES);
    assert_eq!(feed(&mut decoder, &large).0.len(), 1);
    assert!(decoder.memory_bytes() > 900_000);
    assert_eq!(feed(&mut decoder, &flat).0.len(), 1);
    assert!(decoder.memory_bytes() > 900_000);
    assert_eq!(feed(&mut decoder, &little).0.len(), 1);
    assert!(decoder.memory_bytes() < 200_000, "{}", decoder.memory_bytes());
}

#[test]
fn shared_bytes_are_compressed_once_and_only_when_it_saves_a_fifth() {
    let flat = Shared::new(vec![5; 10_000].into());
    let other = flat.clone();
    assert!(flat.travelling(true).len() < 200);
    assert_eq!(flat.travelling(true).as_ptr(), other.travelling(true).as_ptr());
    assert_eq!(flat.travelling(false), flat.plain());

    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = (0..10_000).map(|_| random.u8(..)).collect();
    // A seventh of it can be saved, then a third.
    for (zeros, is_shorter) in [(1700, false), (5000, true)] {
        let mut bytes = noise.clone();
        bytes.resize(noise.len() + zeros, 0);
        let shared = Shared::new(bytes.into());
        assert_eq!(shared.travelling(true).len() < shared.plain().len(), is_shorter);
    }
    let short = Shared::new(vec![5; 1023].into());
    assert_eq!(short.travelling(true), short.plain());
}

#[test]
fn what_gathered_is_one_frame_and_large_parts_are_not_copied() {
    let (mut outgoing, mut counters) = (Outgoing::default(), LinkCounters::default());
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = (0..100_000).map(|_| random.u8(..)).collect();
    let shared = Shared::new(noise.into());
    for number in 0..10 {
        let mut message = numbered(number);
        message.parts.push(shared.clone());
        outgoing.push(message, 8 << 20, 1000, &mut counters);
    }
    outgoing.begin_messages(true, FRAME_BYTES, &mut counters);
    let mut slices = [IoSlice::new(&[]); 64];
    let filled = outgoing.unwritten(&mut slices);
    let is_shared = |slice: &&IoSlice<'_>| slice.as_ptr() == shared.plain().as_ptr();
    // Two of them are a frame, and a third would make it longer than what is gathered.
    assert_eq!(slices[..filled].iter().filter(is_shared).count(), 2);
    let (_, counters) = write(&mut outgoing, usize::MAX);
    assert_eq!((counters.frames_out, counters.messages_out), (5, 10));
}
