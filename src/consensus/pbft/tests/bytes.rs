//! Messages and notes as bytes, whatever the bytes are.

use super::{
    super::{
        Batch, Message, Request,
        certificate::Stable,
        codec::APART_BYTES,
        keys::Signature,
        message::{Digests, Reply, StatusReport, Vote},
        notes::Note,
        table::Table,
    },
    world::keys,
};
use bytes::Bytes;
use proptest::prelude::*;

fn examples() -> Vec<Message> {
    let keys = keys(100, 4);
    let large = Bytes::from(vec![7; APART_BYTES]);
    let request = Request::new(&keys, 100, 3, Bytes::from_static(b"operation"));
    let second = Request::new(&keys, 100, 4, large.clone());
    let batch = Batch::of_requests(2, &[request.clone(), second]);
    let vote = Vote { view: 1, seq: 2, chain: [3; 32], signature: Signature([4; 64]) };
    let reply = Reply {
        view: 1,
        client: 100,
        timestamps: vec![3, 4],
        seq: 9,
        chain: [1; 32],
        is_tentative: true,
        signature: Signature([5; 64]),
    };
    let stable =
        Stable { seq: 8, chain: [1; 32], table: [2; 32], votes: vec![(1, Signature([6; 64]))] };
    vec![
        Message::Request(request),
        Message::Prepare(vote),
        Message::Commit(vote, 7),
        Message::Reply(reply),
        Message::Stable(stable.into()),
        Message::Status(StatusReport { view: 3, committed: 9, ..StatusReport::default() }),
        Message::BatchAsk(4, [1; 32]),
        Message::BatchTell(4, batch),
        Message::BatchTell(5, Batch::own(1, 2, large)),
        Message::EntriesAsk(1, 2, 3),
        Message::DigestsAsk(1, 2, 3),
        Message::Digests(Digests {
            id: 7,
            point: Some((3, [4; 32])),
            first: 4,
            digests: vec![[5; 32], [6; 32]],
        }),
        Message::HeadTell(1, 2, [3; 32]),
        Message::Owed(7),
    ]
}

fn encode(message: &Message) -> (Vec<u8>, Vec<Bytes>) {
    let (mut head, mut parts) = (Vec::new(), Vec::new());
    message.encode(&mut head, &mut parts);
    (head, parts)
}

#[test]
fn messages_are_read_as_they_were_written_and_not_when_cut_or_longer() {
    for message in examples() {
        let (head, parts) = encode(&message);
        assert_eq!(Message::decode(&head.clone().into(), &parts), Ok(message));
        for length in 0..head.len() {
            assert!(Message::decode(&Bytes::copy_from_slice(&head[..length]), &parts).is_err());
        }
        let longer: Vec<_> = head.iter().copied().chain([0]).collect();
        assert!(Message::decode(&longer.into(), &parts).is_err());
        let more: Vec<_> = parts.iter().cloned().chain([Bytes::from_static(b"more")]).collect();
        assert!(Message::decode(&head.into(), &more).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_reading_fail_otherwise_than_by_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        kind in 1u8..20,
    ) {
        let bytes: Bytes = [kind].into_iter().chain(bytes).collect();
        let parts = [Bytes::from(vec![1; APART_BYTES])];
        for parts in [&parts[..0], &parts[..]] {
            if let Ok(message) = Message::decode(&bytes, parts) {
                let (head, again) = encode(&message);
                prop_assert_eq!(Message::decode(&head.into(), &again), Ok(message));
            }
        }
        if let Ok(note) = Note::decode(&bytes) {
            prop_assert_eq!(Note::decode(&note.encode()), Ok(note));
        }
    }

    #[test]
    fn a_changed_byte_makes_another_message_or_none(
        which in 0usize..11,
        at in any::<proptest::sample::Index>(),
        flip in 1u8..,
    ) {
        let message = examples().swap_remove(which);
        let (mut head, parts) = encode(&message);
        let at = at.index(head.len());
        head[at] ^= flip;
        if let Ok(other) = Message::decode(&head.into(), &parts) {
            prop_assert_ne!(other, message);
        }
    }

    #[test]
    fn each_number_of_a_client_is_fresh_once(
        numbers in proptest::collection::vec(1u64..300, 1..600),
    ) {
        let mut table = Table::default();
        let mut executed = std::collections::BTreeSet::new();
        for (seq, number) in (1..).zip(numbers) {
            let is_fresh = table.is_fresh(7, number);
            prop_assert!(!(is_fresh && executed.contains(&number)));
            // Near the highest number nothing is taken for executed that was not.
            let last = executed.last().copied().unwrap_or(0);
            if !executed.contains(&number) && number + 128 > last {
                prop_assert!(is_fresh);
            }
            if is_fresh {
                table.execute(7, number, seq);
                executed.insert(number);
                prop_assert!(!table.is_fresh(7, number));
                prop_assert_eq!(table.last(7), *executed.last().unwrap());
            }
        }
    }
}
