//! Entries as blocks, and what is read back of them.

use super::body::{batch_of, body_of, is_fit, is_own, is_request, split};
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
    assert!(is_own(3, &right));
    assert!(!is_own(4, &right), "they are another partition's");
    assert!(!is_own(3, b""), "nothing is no record");
    assert!(!is_own(3, &right[..right.len() - 1]), "one is cut off");
    for at in 0..right.len() {
        let mut wrong = right.to_vec();
        wrong[at] ^= 1;
        assert!(!is_own(3, &wrong), "a flipped bit in byte {at}");
    }
    let heads = encoded(&[ended(3, 1), Record::Order { partition: 3, heads: b"me" }]);
    assert!(!is_own(3, &heads), "who asked is written by replicas");
    let Record::Ended { id, attempts, ended_unix_ms, body, .. } = ended(3, 1) else { panic!() };
    for status in [TaskStatus::Queued, TaskStatus::Delayed, TaskStatus::Running] {
        let alive = Record::Ended { id, status, attempts, ended_unix_ms, body };
        assert!(!is_own(3, &encoded(&[alive])), "{} is no end", status.name());
    }
    let compacted = Record::Compacted { partition: 3, index: 9 };
    assert!(is_own(3, &encoded(&[compacted])));
    assert!(!is_own(4, &encoded(&[compacted])));
    assert!(!is_own(3, &encoded(&[compacted, ended(3, 1)])), "it stands alone");
    let tell = |batch| Message::BatchTell(1, batch);
    assert!(is_fit(3, &tell(Batch::own(0, 1, right.clone()))));
    assert!(!is_fit(4, &tell(Batch::own(0, 1, right))));
    assert!(is_fit(3, &Message::HeadAsk(1)));
}

#[test]
fn anybody_may_ask_for_submissions_alone_and_a_primary_orders_none_of_its_own() {
    let asked = Record::Submitted {
        id: TaskId { partition: 3, random: 1 },
        is_asked: true,
        agent_type: "echo",
        priority: Default::default(),
        submitted_unix_ms: 5,
        due_unix_ms: 0,
        timeout_ms: 0,
        max_attempts: 0,
        attempts: 0,
        key: Some(b"key"),
        payload: b"x",
    };
    let changed = |change: &dyn Fn(&mut Record<'_>)| {
        let mut record = asked;
        change(&mut record);
        encoded(&[record])
    };
    let right = encoded(&[asked, asked]);
    assert!(is_request(3, &right) && !is_own(3, &right));
    assert!(!is_request(4, &right), "it is another partition's");
    assert!(!is_request(3, &encoded(&[asked, ended(3, 1)])), "an end is its leader's to tell");
    let wrong: [(&str, Bytes); 4] = [
        (
            "due before it was submitted",
            changed(&|it| {
                if let Record::Submitted { due_unix_ms, .. } = it {
                    *due_unix_ms = 4;
                }
            }),
        ),
        (
            "begun before it was asked for",
            changed(&|it| {
                if let Record::Submitted { attempts, .. } = it {
                    *attempts = 1;
                }
            }),
        ),
        (
            "an empty key",
            changed(&|it| {
                if let Record::Submitted { key, .. } = it {
                    *key = Some(b"");
                }
            }),
        ),
        (
            "a copy",
            changed(&|it| {
                if let Record::Submitted { is_asked, .. } = it {
                    *is_asked = false;
                }
            }),
        ),
    ];
    for (what, bytes) in &wrong {
        assert!(!is_request(3, bytes), "{what}");
        assert!(!is_own(3, bytes), "{what}: with a key");
    }
    let (identity, ring) = (Identity::from_secret(&[1; 32]), Ring::default());
    let keys = Keys::new(identity, ring, 7, 3);
    let fits = |operation: Bytes| {
        let request = Request::new(&keys, 2, 1, operation.clone());
        let batch = Batch::of_requests(0, std::slice::from_ref(&request));
        let fits = is_fit(3, &Message::BatchTell(1, batch));
        assert_eq!(is_fit(3, &Message::Request(request)), fits);
        assert_ne!(is_fit(3, &Message::BatchTell(1, Batch::own(0, 1, operation))), fits);
        fits
    };
    assert!(fits(right) && !fits(encoded(&[ended(3, 1)])));
}
