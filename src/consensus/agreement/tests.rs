//! Entries as blocks, and what is read back of them.

use super::{
    body::{batch_of, body_of, split},
    rules::{DELAY_MS_MAX, KEY_BYTES_MAX, Rules, TYPE_BYTES_MAX, asked_before, submitted_before},
};
use crate::{
    consensus::{
        pbft::{
            Batch, Company, Identity, Message, Request, Ring, Terms, body_bytes, keys::Signature,
            message::PrePrepare,
        },
        record::Record,
    },
    wire::{api::TaskStatus, id::TaskId, names::Named},
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
    assert!(rules().is_own(3, &right));
    assert!(!rules().is_own(4, &right), "they are another partition's");
    assert!(!rules().is_own(3, b""), "nothing is no record");
    assert!(!rules().is_own(3, &right[..right.len() - 1]), "one is cut off");
    for at in 0..right.len() {
        let mut wrong = right.to_vec();
        wrong[at] ^= 1;
        assert!(!rules().is_own(3, &wrong), "a flipped bit in byte {at}");
    }
    let heads = encoded(&[ended(3, 1), Record::Order { partition: 3, heads: b"me" }]);
    assert!(!rules().is_own(3, &heads), "who asked is written by replicas");
    let Record::Ended { id, attempts, ended_unix_ms, body, .. } = ended(3, 1) else { panic!() };
    for status in [TaskStatus::Queued, TaskStatus::Delayed, TaskStatus::Running] {
        let alive = Record::Ended { id, status, attempts, ended_unix_ms, body };
        assert!(!rules().is_own(3, &encoded(&[alive])), "{} is no end", status.name());
    }
    let compacted = Record::Compacted { partition: 3, index: 9 };
    assert!(rules().is_own(3, &encoded(&[compacted])));
    assert!(!rules().is_own(4, &encoded(&[compacted])));
    assert!(!rules().is_own(3, &encoded(&[compacted, ended(3, 1)])), "it stands alone");
    let tell = |batch| Message::BatchTell(1, batch);
    assert!(rules().is_fit(3, &tell(Batch::own(0, 1, right.clone()))));
    assert!(!rules().is_fit(4, &tell(Batch::own(0, 1, right))));
    assert!(rules().is_fit(3, &Message::HeadAsk(1)));
}

/// The first of four nodes.
fn company() -> Company {
    let identity = |node: u64| Identity::from_secret(&[node as u8; 32]);
    let keys = (1..=4).map(|node| (node, identity(node).public()));
    let ring = Ring::new(keys).expect("keys");
    Company {
        node: 1,
        identity: identity(1),
        ring,
        cluster: 7,
        generation: 1,
        nodes: vec![4, 2, 3, 1],
        terms: Terms { key_ttl_ms: 9, payload_bytes_max: 10 },
    }
}

fn rules() -> Rules {
    Rules::new(&company())
}

/// The name of a task in a request of a node.
fn name(node: u64, request: u64, place: u32) -> TaskId {
    let naming = rules().naming(node, request).expect("it is a node");
    let named = Named { asker: naming.asker, partition: 3, request, place };
    TaskId { partition: 3, random: naming.names.name(named) }
}

fn asked(id: TaskId) -> Record<'static> {
    Record::Submitted {
        id,
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
    }
}

/// Whether a node may make a request, its seventh; in a batch as by itself.
fn may_ask(partition: u16, node: u64, records: &[Record<'_>]) -> bool {
    let request = Request::new(&company().keys(partition), node, 7, encoded(records));
    let batch = Batch::of_requests(0, std::slice::from_ref(&request));
    let fits = rules().is_request(partition, &request);
    assert_eq!(rules().is_fit(partition, &Message::BatchTell(1, batch)), fits);
    assert_eq!(rules().is_fit(partition, &Message::Request(request)), fits);
    fits
}

#[test]
fn anybody_may_ask_for_submissions_alone_and_a_primary_orders_none_of_its_own() {
    let right = [asked(name(2, 7, 0)), asked(name(2, 7, 1))];
    assert!(may_ask(3, 2, &right) && !rules().is_own(3, &encoded(&right)));
    assert!(!may_ask(4, 2, &right), "it is another partition's");
    assert!(!may_ask(3, 2, &[asked(name(2, 7, 0)), ended(3, 1)]), "an end is its leader's to tell");
    let changed = |change: &dyn Fn(&mut Record<'_>)| {
        let mut record = asked(name(2, 7, 0));
        change(&mut record);
        record
    };
    let wrong = [
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
    for (what, record) in wrong {
        assert!(!may_ask(3, 2, &[record]), "{what}");
        assert!(!rules().is_own(3, &encoded(&[record])), "{what}: with a key");
    }
}

#[test]
fn other_nodes_take_what_doors_take() {
    let may = |change: &dyn Fn(&mut Record<'_>)| {
        let mut record = asked(name(2, 7, 0));
        change(&mut record);
        may_ask(3, 2, &[record])
    };
    let with_payload = |bytes: &[u8]| {
        may(&|it| {
            if let Record::Submitted { payload, .. } = it {
                // It lives as long as the test.
                *payload = Box::leak(bytes.into());
            }
        })
    };
    assert!(with_payload(b"x") && with_payload(b"\xa9as long a"));
    assert!(!with_payload(b"\xaaas long as"), "eleven bytes");
    assert!(!with_payload(b"") && !with_payload(b"xx"), "not one value");
    assert!(!with_payload(b"\xa9cut off"));
    let with_key = |bytes: usize| {
        may(&|it| {
            if let Record::Submitted { key, .. } = it {
                *key = Some(&[7; KEY_BYTES_MAX + 1][..bytes]);
            }
        })
    };
    assert!(with_key(1) && with_key(KEY_BYTES_MAX));
    assert!(!with_key(0) && !with_key(KEY_BYTES_MAX + 1));
    let with_type = |name: &'static str| {
        may(&|it| {
            if let Record::Submitted { agent_type, .. } = it {
                *agent_type = name;
            }
        })
    };
    const LONG: &str = "a type's name of sixty-five bytes, which is one more than there may be";
    assert!(with_type(&LONG[..TYPE_BYTES_MAX]) && !with_type(&LONG[..TYPE_BYTES_MAX + 1]));
    let with_due = |due: u64| {
        may(&|it| {
            if let Record::Submitted { due_unix_ms, .. } = it {
                *due_unix_ms = due;
            }
        })
    };
    assert!(with_due(0) && with_due(5) && with_due(5 + DELAY_MS_MAX));
    assert!(!with_due(4) && !with_due(6 + DELAY_MS_MAX));
}

#[test]
fn what_was_submitted_in_the_future_is_told_from_the_rest() {
    let block = encoded(&[asked(name(2, 7, 0)), asked(name(2, 7, 1))]);
    assert!(submitted_before(&block, 6) && !submitted_before(&block, 5));
    let order = |batch| {
        let (parent, signature) = ([0; 32], Signature::NONE);
        Message::PrePrepare(PrePrepare { view: 0, seq: 1, parent, signature, batch })
    };
    let request = Request::new(&company().keys(3), 2, 7, block.clone());
    let asked = order(Batch::of_requests(0, &[request]));
    assert!(asked_before(&asked, 6) && !asked_before(&asked, 5));
    // What was taken while clocks were ahead is written again whatever the time is now.
    let copied = order(Batch::own(0, 1, block));
    assert!(asked_before(&copied, 6) && asked_before(&copied, 0));
}

#[test]
fn nobody_asks_for_a_task_under_a_name_that_is_not_its_own() {
    assert!(may_ask(3, 2, &[asked(name(2, 7, 0))]));
    let wrong = [
        ("a name of another node", [name(1, 7, 0), name(2, 7, 1)]),
        ("a name of an earlier request", [name(2, 6, 0), name(2, 7, 1)]),
        ("a name of a later request", [name(2, 8, 0), name(2, 7, 1)]),
        ("one name twice", [name(2, 7, 0), name(2, 7, 0)]),
        ("names in another order", [name(2, 7, 1), name(2, 7, 0)]),
        ("no name at all", [TaskId { partition: 3, random: 1 }, name(2, 7, 1)]),
    ];
    for (what, [first, second]) in wrong {
        assert!(!may_ask(3, 2, &[asked(first), asked(second)]), "{what}");
    }
    assert!(!may_ask(3, 5, &[asked(name(2, 7, 0))]), "it is no node that asks");
}

#[test]
fn a_primary_copies_only_tasks_that_were_asked_for() {
    let copy = |id| {
        let mut record = asked(id);
        let Record::Submitted { is_asked, key, .. } = &mut record else { panic!() };
        (*is_asked, *key) = (false, None);
        record
    };
    let key = |id| Record::Key { key: b"key", id, body_hash: 1, expires_unix_ms: 9 };
    let is_done = |node, request| (node, request) == (2, 7);
    for record in [&copy, &key] as [&dyn Fn(TaskId) -> Record<'static>; 2] {
        let may = |id| {
            let bytes = encoded(&[record(id), ended(3, 1)]);
            rules().is_own(3, &bytes) && rules().are_asked_for(3, &bytes, is_done)
        };
        assert!(may(name(2, 7, 0)) && may(name(2, 7, 9)));
        assert!(!may(name(2, 8, 0)), "nobody has asked for that yet");
        assert!(!may(name(1, 7, 0)), "that node has not");
        assert!(!may(TaskId { partition: 3, random: 1 }), "that is no name");
        assert!(!may(TaskId { partition: 4, ..name(2, 7, 0) }), "that is another partition's");
    }
}

#[test]
fn a_primary_claims_what_it_copies_and_nothing_else() {
    let mut copy = asked(name(2, 7, 0));
    let Record::Submitted { is_asked, key, .. } = &mut copy else { panic!() };
    (*is_asked, *key) = (false, None);
    let key = Record::Key { key: b"key", id: name(2, 7, 0), body_hash: 1, expires_unix_ms: 9 };
    let order = |batch| {
        let (parent, signature) = ([0; 32], Signature::NONE);
        Message::PrePrepare(PrePrepare { view: 0, seq: 1, parent, signature, batch })
    };
    for (records, is_claim) in [
        (vec![ended(3, 1), ended(3, 2)], false),
        (vec![Record::Compacted { partition: 3, index: 9 }], false),
        (vec![ended(3, 1), copy], true),
        (vec![key], true),
    ] {
        let block = encoded(&records);
        let claims = if is_claim { vec![block.clone()] } else { Vec::new() };
        let batch = Batch::own(7, 1, block);
        assert_eq!(Rules::claims(&order(batch.clone())), claims);
        assert!(Rules::claims(&Message::BatchTell(1, batch)).is_empty(), "it is committed");
    }
    let request = Request::new(&company().keys(3), 2, 7, encoded(&[asked(name(2, 7, 0))]));
    let batch = Batch::of_requests(0, std::slice::from_ref(&request));
    assert!(Rules::claims(&order(batch)).is_empty(), "what is asked for is nobody's claim");
}
