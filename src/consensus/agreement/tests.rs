//! Entries as blocks, and what is read back of them.

use super::body::{batch_of, body_of, has_requests, is_fit, is_operation, split};
use crate::{
    consensus::{
        pbft::{Batch, Identity, Keys, Message, Request, Ring, body_bytes},
        record::Record,
    },
    wire::{api::TaskStatus, id::TaskId},
};
use bytes::Bytes;

fn ended(partition: u16, random: u128) -> Record<'static> {
    let id = TaskId { partition, random };
    Record::Ended { id, status: TaskStatus::Done, attempts: 1, ended_unix_ms: 9, body: b"x" }
}

fn encoded(records: &[Record<'_>]) -> Bytes {
    let mut bytes = Vec::new();
    records.iter().for_each(|record| record.encode(&mut bytes));
    bytes.into()
}

#[test]
fn an_entry_comes_back_out_of_its_block_as_it_was() {
    for records in [&[ended(3, 1)][..], &[ended(3, 1), ended(3, 2)]] {
        let data = encoded(records);
        let batch = Batch::own(7, 2, data.clone());
        let body = Bytes::from(body_of(3, batch.heads(), batch.data()));
        assert_eq!(body.len(), body_bytes(&batch) as usize, "what the log believes that it takes");
        assert_eq!(split(&body), Some((batch.heads().clone(), data)));
        assert_eq!(batch_of(&body), Some(batch));
    }
    // A body of another engine says nothing of who asked.
    assert_eq!(split(&encoded(&[ended(3, 1)])), None);
    assert_eq!(split(&Bytes::new()), None);
}

#[test]
fn only_whole_records_of_the_partition_are_ordered() {
    let right = encoded(&[ended(3, 1), ended(3, 2)]);
    assert!(is_operation(3, &right));
    assert!(!is_operation(4, &right), "they are another partition's");
    assert!(!is_operation(3, b""), "nothing is no record");
    assert!(!is_operation(3, &right[..right.len() - 1]), "one is cut off");
    for at in 0..right.len() {
        let mut wrong = right.to_vec();
        wrong[at] ^= 1;
        assert!(!is_operation(3, &wrong), "a flipped bit in byte {at}");
    }
    let heads = encoded(&[ended(3, 1), Record::Order { partition: 3, heads: b"me" }]);
    assert!(!is_operation(3, &heads), "who asked is written by replicas");
    let compacted = Record::Compacted { partition: 3, index: 9 };
    assert!(is_operation(3, &encoded(&[compacted])));
    assert!(!is_operation(4, &encoded(&[compacted])));
    assert!(!is_operation(3, &encoded(&[compacted, ended(3, 1)])), "it stands alone");
    let tell = |batch| Message::BatchTell(1, batch);
    assert!(is_fit(3, &tell(Batch::own(0, 1, right.clone()))));
    assert!(!is_fit(4, &tell(Batch::own(0, 1, right))));
    assert!(is_fit(3, &Message::HeadAsk(1)));
}

#[test]
fn what_others_than_the_primary_ask_for_is_told_apart() {
    let (identity, ring) = (Identity::from_secret(&[1; 32]), Ring::default());
    let keys = Keys::new(identity, ring, 7, 3);
    let request = Request::new(&keys, 2, 1, encoded(&[ended(3, 1)]));
    let asked = Batch::of_requests(0, std::slice::from_ref(&request));
    assert!(has_requests(&Message::BatchTell(1, asked)));
    assert!(has_requests(&Message::Request(request)));
    assert!(!has_requests(&Message::BatchTell(1, Batch::own(0, 1, encoded(&[ended(3, 1)])))));
    assert!(!has_requests(&Message::HeadAsk(1)));
}
