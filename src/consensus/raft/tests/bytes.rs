//! Messages as bytes, and messages that no replica of this program would send.

use super::*;
use crate::consensus::{
    malformed::Malformed,
    raft::message::{self, decode, decode_apart, encode, encode_apart},
};
use proptest::prelude::*;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

const KINDS: [MessageType; 19] = [
    MessageType::MsgHup,
    MessageType::MsgBeat,
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgUnreachable,
    MessageType::MsgSnapStatus,
    MessageType::MsgCheckQuorum,
    MessageType::MsgTransferLeader,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

fn members() -> impl Strategy<Value = Members> {
    let ids = || prop::collection::btree_set(0_u64..6, 0..4);
    (ids(), ids(), ids(), ids(), any::<bool>()).prop_map(
        |(voters, learners, outgoing, next, leave)| Members {
            voters: voters.into_iter().collect(),
            learners: learners.into_iter().collect(),
            outgoing: outgoing.into_iter().collect(),
            learners_next: next.into_iter().collect(),
            auto_leave: leave,
        },
    )
}

/// A message with numbers below `max`, some of them beyond everything.
fn messages(max: u64) -> impl Strategy<Value = Message> {
    let number = move || prop_oneof![20 => 0..max, 1 => (u64::MAX - 2)..];
    let entry = (number(), number(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..30));
    let numbers = prop::collection::vec(number(), 7);
    let entries = prop::collection::vec(entry, 0..4);
    let point = prop::option::of((number(), number(), members()));
    let context = prop::collection::vec(any::<u8>(), 0..10);
    (0..KINDS.len(), numbers, entries, point, context, any::<bool>(), 1_u64..4, any::<bool>())
        .prop_map(|(kind, numbers, entries, point, context, reject, from, in_row)| {
            let mut message = Message::default();
            message.set_msg_type(KINDS[kind]);
            (message.to, message.from, message.reject) = (1, from, reject);
            (message.term, message.log_term) = (numbers[0], numbers[1]);
            (message.index, message.commit) = (numbers[2], numbers[3]);
            (message.commit_term, message.reject_hint) = (numbers[4], numbers[5]);
            message.request_snapshot = if numbers[6] < 2 { numbers[6] } else { 0 };
            message.context = context.into();
            let (first, last_term) = (message.index.wrapping_add(1), message.log_term);
            let entries = (0..).zip(entries).map(|(at, (term, index, change, data))| {
                let mut entry = Entry { term, index, data: data.into(), ..Entry::default() };
                if in_row {
                    (entry.index, entry.term) = (first.wrapping_add(at), last_term.max(1));
                }
                if change {
                    entry.set_entry_type(EntryType::EntryConfChangeV2);
                }
                entry
            });
            message.set_entries(entries.collect::<Vec<_>>().into());
            if let Some((index, term, members)) = point {
                let metadata = message.mut_snapshot().mut_metadata();
                (metadata.index, metadata.term) = (index, term);
                metadata.set_conf_state(members.to_conf_state());
            }
            message
        })
}

fn encoded(partition: u16, message: &Message) -> Bytes {
    let mut bytes = Vec::new();
    encode(partition, message, &mut bytes);
    assert_eq!(bytes.len(), message::encoded_bytes(message));
    bytes.into()
}

fn is_local(kind: MessageType) -> bool {
    raft::raw_node::is_local_msg(kind)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_message_comes_back_as_it_was(partition: u16, message in messages(1 << 40)) {
        let decoded = decode(&encoded(partition, &message));
        let point = message::point_of(message.get_snapshot());
        let is_possible = !message.has_snapshot() || point.members.is_valid();
        if is_local(message.get_msg_type()) {
            prop_assert_eq!(decoded, Err(Malformed::Kind(message.get_msg_type() as u8)));
        } else if is_possible {
            prop_assert_eq!(decoded, Ok((partition, message)));
        } else if point != Point::default() {
            prop_assert!(decoded.is_err() || point.index == 0);
        }
    }

    #[test]
    fn long_data_travel_apart_without_a_copy(
        partition: u16, message in messages(1 << 40), long in prop::collection::vec(500_usize..600, 4),
        lacking: bool,
    ) {
        let mut message = message;
        message.set_msg_type(MessageType::MsgAppend);
        message.clear_snapshot();
        for (entry, bytes) in message.mut_entries().iter_mut().zip(&long) {
            entry.data = vec![entry.index as u8; *bytes].into();
        }
        let (mut head, mut parts) = (Vec::new(), Vec::new());
        encode_apart(partition, &message, &mut head, &mut parts);
        let head = Bytes::from(head);
        let apart = message.entries.iter().filter(|entry| entry.data.len() >= 512);
        let apart: Vec<_> = apart.map(|entry| entry.data.as_ptr()).collect();
        prop_assert_eq!(parts.iter().map(|part| part.as_ptr()).collect::<Vec<_>>(), apart);
        let decoded = decode_apart(&head, parts.clone().into_iter());
        prop_assert_eq!(decoded, Ok((partition, message)));
        // Other parts than the entries name.
        if lacking && parts.pop().is_some() {
            prop_assert_eq!(decode_apart(&head, parts.into_iter()), Err(Malformed::Parts));
        } else {
            parts.push(vec![0; 700].into());
            prop_assert_eq!(decode_apart(&head, parts.into_iter()), Err(Malformed::Parts));
        }
    }

    #[test]
    fn any_bytes_end_in_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes.into());
    }

    #[test]
    fn a_message_that_is_cut_or_bent_ends_in_a_message_or_an_error(
        message in messages(1 << 40), cut: prop::sample::Index, at: prop::sample::Index, with: u8,
    ) {
        let bytes = encoded(3, &message);
        let end = cut.index(bytes.len());
        prop_assert!(decode(&bytes.slice(..end)).is_err());
        let mut bent = bytes.to_vec();
        let at = at.index(bent.len());
        bent[at] ^= with;
        let _ = decode(&bent.into());
    }

    #[test]
    fn no_message_of_a_peer_ends_the_process(
        role in 0_u8..3, stepped in prop::collection::vec(messages(8), 1..6),
    ) {
        // Whatever two peers say: this node is a follower, a candidate or a leader with a log.
        let mut cluster = Cluster::new(1, 3, 3, 1, Faults::default());
        cluster.until_leader(0);
        if role == 2 {
            cluster.until("node 1 leads", |cluster| {
                if let Some(leader) = cluster.leader(0).filter(|leader| *leader != 1) {
                    // Refused while one is under way.
                    let _ = cluster.driver(leader).transfer(0, 1);
                }
                cluster.leader(0) == Some(1)
            });
        } else if let Some(leader) = cluster.leader(0).filter(|leader| *leader == 1) {
            cluster.driver(leader).transfer(0, 2).unwrap();
            cluster.until("another leads", |cluster| cluster.leader(0) == Some(2));
        }
        cluster.commit(0, 2, 20);
        cluster.run(50);
        if role == 1 {
            cluster.isolate(1);
            cluster.run(TICK_MS * 25);
        }
        let mut outputs = Outputs::default();
        for message in stepped {
            let Ok((partition, message)) = decode(&encoded(0, &message)) else { continue };
            // Refused when it cannot be.
            let _ = cluster.driver(1).step(partition, message);
            cluster.driver(1).take_ready(&mut outputs);
            let batch = outputs.batch;
            cluster.driver(1).persisted(batch);
            cluster.driver(1).take_ready(&mut outputs);
        }
    }
}

#[test]
fn entries_are_not_copied_when_they_are_read() {
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgAppend);
    message.set_entries(vec![Entry { data: block(1, 500), ..Entry::default() }].into());
    let bytes = encoded(0, &message);
    let (_, message) = decode(&bytes).expect("it was encoded here");
    assert!(bytes.as_ptr_range().contains(&message.entries[0].data.as_ptr()));
}

#[test]
fn a_point_comes_back_as_it_was() {
    let point = Point { index: 9, term: 2, members: Members::of_voters(&[3, 1, 2]) };
    let mut bytes = Vec::new();
    message::encode_point(&point, &mut bytes);
    assert_eq!(message::decode_point(&bytes), Ok(point));
    bytes[17] = 200;
    assert_eq!(message::decode_point(&bytes), Err(Malformed::Members));
}
