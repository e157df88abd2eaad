//! A core of a node among others that may lie, and this thread in the place of the log's and theirs.

use super::{super::tests::*, limit_ms};
use crate::{
    consensus::{Claimed, Compacted, Foreign, Place, Record},
    shard::{doors::Outcomes, types::LEARNED_MAX},
    wire::{
        api::{Error, Priority, TaskSpec, TaskStatus},
        id::TaskId,
        letter::{Request, Response},
        names::{Named, Names},
    },
};
use futures_channel::oneshot::{Receiver, channel};

fn spec(payload: u8, key: Option<&str>) -> TaskSpec {
    let (agent_type, key) = ("nobody".to_owned(), key.map(str::to_owned));
    TaskSpec { agent_type, key, payload: vec![payload], ..TaskSpec::default() }
}

/// A door that submits a task.
struct Door(Receiver<Outcomes>);

impl Door {
    fn submit(core: &mut Core, spec: TaskSpec) -> Self {
        let (answer, answered) = channel();
        core.shard.submit_each(&[spec], answer).expect("there is room");
        core.turn();
        Self(answered)
    }

    fn outcome(&mut self) -> Option<Result<TaskId, Error>> {
        let outcomes = self.0.try_recv().expect("it is answered some time")?;
        Some(outcomes.expect("each by itself").remove(0))
    }

    fn accepted(&mut self) -> TaskId {
        self.outcome().expect("it is answered").expect("it is accepted")
    }
}

fn hear(core: &mut Core, bytes: &[u8]) {
    core.hear(3, &records_of(bytes));
}

#[test]
fn a_submission_is_accepted_when_this_replica_has_committed_it_whoever_leads() {
    let mut core = Core::agreed(|_| {});
    let mut door = Door::submit(&mut core, spec(1, None));
    let asked = core.take_asked();
    let [Record::Submitted { id, is_asked: true, .. }] = records_of(&asked)[..] else {
        panic!("it was not asked for")
    };
    assert!(door.outcome().is_none(), "nobody has agreed to it");
    hear(&mut core, &asked);
    assert_eq!(door.accepted(), id);
    // It waits for its agent at whoever leads.
    core.lead(1);
    let mut seen = core.status(id.random);
    core.commit_all();
    core.confirm();
    let Some(Ok(Response::Task(view))) = seen.answer() else { panic!("it is there") };
    assert_eq!(view.status, TaskStatus::Queued);
}

#[test]
fn what_is_asked_for_while_a_partition_leads_is_taken_in_once_and_again_by_who_leads_next() {
    let mut core = Core::agreed(|_| {});
    core.lead(1);
    let mut door = Door::submit(&mut core, spec(1, Some("key")));
    core.commit_all();
    let asked = std::mem::take(&mut core.asked).concat();
    let id = records_of(&asked)[0].id();
    for reign in 1..4 {
        let counters = |core: &Core| core.shard.tasks.table(0).counters();
        if reign == 1 {
            hear(&mut core, &asked);
            assert_eq!(door.accepted(), id);
        } else {
            core.tell(Told::Follow { is_replaced: false });
            hear(&mut core, &asked);
            core.lead(reign);
        }
        assert_eq!((counters(&core).queued, counters(&core).keys), (1, 1), "reign {reign}");
        let mut seen = core.status(id.random);
        core.commit_all();
        core.confirm();
        assert!(matches!(seen.answer(), Some(Ok(Response::Task(_)))));
    }
}

#[test]
fn tasks_have_the_names_that_their_places_in_the_requests_of_this_node_have() {
    let mut core = Core::agreed(|_| {});
    // Blocks of several, each a request.
    let mut doors: Vec<_> = (0..40).map(|each| Door::submit(&mut core, spec(each, None))).collect();
    assert!(core.commit_all().is_empty(), "who follows proposes nothing");
    let blocks = std::mem::take(&mut core.asked);
    let mut expected = Vec::new();
    for (block, request) in blocks.iter().zip(1..) {
        for (record, place) in records_of(block).iter().zip(0..) {
            let named = Named { asker: 0, partition: 0, request, place };
            assert_eq!(record.id().random, Names::new(LIFE).name(named), "{named:?}");
            expected.push(record.id());
        }
    }
    assert!(blocks.len() > 1 && blocks.len() < 40);
    hear(&mut core, &blocks.concat());
    let told: Vec<_> = doors.iter_mut().map(Door::accepted).collect();
    assert_eq!(told, expected);
}

#[test]
fn a_key_is_decided_by_the_order_of_the_log() {
    let mut core = Core::agreed(|_| {});
    // Two doors of this node and one of another ask before anything is agreed on.
    let mut first = Door::submit(&mut core, spec(1, Some("key")));
    let mut second = Door::submit(&mut core, spec(1, Some("key")));
    let mut third = Door::submit(&mut core, spec(2, Some("key")));
    let asked = core.take_asked();
    let records = records_of(&asked);
    assert_eq!(records.len(), 3);
    core.hear(3, &records[1..2]);
    assert_eq!(second.accepted(), records[1].id());
    core.hear(3, &[records[2], records[0]]);
    assert_eq!(first.accepted(), records[1].id(), "it is the task that came before");
    assert!(matches!(third.outcome(), Some(Err(Error::Conflict(_)))));
    // Who follows may be told its log anew: it asks again.
    let mut again = Door::submit(&mut core, spec(1, Some("key")));
    let asked = core.take_asked();
    assert!(again.outcome().is_none(), "the log says what the key stands for");
    hear(&mut core, &asked);
    assert_eq!(again.accepted(), records[1].id());
    // Who leads knows.
    core.lead(1);
    let mut known = Door::submit(&mut core, spec(1, Some("key")));
    assert_eq!(known.accepted(), records[1].id());
    let mut conflict = Door::submit(&mut core, spec(3, Some("key")));
    assert!(matches!(conflict.outcome(), Some(Err(Error::Conflict(_)))));
    assert!(core.take_asked().is_empty());
    assert_eq!(core.shard.tasks.table(0).counters().queued, 1);
}

#[test]
fn what_is_not_agreed_on_in_time_is_uncertain_and_so_is_what_a_replaced_log_may_hold() {
    let mut core = Core::agreed(|_| {});
    let limit_us = 1000 * limit_ms(50);
    let mut first = Door::submit(&mut core, spec(1, None));
    core.shard.set_clock(limit_us / 2);
    let mut second = Door::submit(&mut core, spec(2, None));
    let asked = core.take_asked();
    core.shard.set_clock(limit_us - 2000);
    core.turn();
    assert!(first.outcome().is_none() && second.outcome().is_none());
    core.shard.set_clock(limit_us + 2000);
    core.turn();
    assert!(matches!(first.outcome(), Some(Err(Error::Uncertain(_)))));
    assert!(second.outcome().is_none(), "it has time left");
    // It was agreed on all the same.
    hear(&mut core, &asked);
    second.accepted();

    let mut third = Door::submit(&mut core, spec(3, None));
    core.take_asked();
    core.tell(Told::Follow { is_replaced: false });
    assert!(third.outcome().is_none(), "whoever leads next orders it");
    core.tell(Told::Follow { is_replaced: true });
    assert!(matches!(third.outcome(), Some(Err(Error::Uncertain(_)))));
}

#[test]
fn there_is_no_more_room_than_this_replica_knows_of() {
    let mut core = Core::agreed(|config| {
        (config.tasks.queue_primary, config.tasks.queue_overflow) = (3, 1);
    });
    let mut doors: Vec<_> = (0..5).map(|each| Door::submit(&mut core, spec(each, None))).collect();
    let is_full = |door: &mut Door| matches!(door.outcome(), Some(Err(Error::Backpressure(_))));
    assert!(is_full(&mut doors[4]), "four are under way");
    let asked = core.take_asked();
    hear(&mut core, &asked);
    doors[..4].iter_mut().for_each(|door| assert!(door.accepted().random > 0));
    assert!(is_full(&mut Door::submit(&mut core, spec(9, None))), "four wait");
    let first = records_of(&asked)[0].id();
    core.hear(3, &[done(first.random)]);
    let mut door = Door::submit(&mut core, spec(9, None));
    assert!(door.outcome().is_none(), "one has ended");
}

#[test]
fn what_was_not_agreed_on_in_time_takes_up_room_until_it_is() {
    let mut core = Core::agreed(|config| {
        (config.tasks.queue_primary, config.tasks.queue_overflow) = (3, 1);
    });
    let mut doors: Vec<_> = (0..4).map(|each| Door::submit(&mut core, spec(each, None))).collect();
    let asked = core.take_asked();
    core.shard.set_clock(1000 * limit_ms(50) + 2000);
    core.turn();
    let is_late = |door: &mut Door| matches!(door.outcome(), Some(Err(Error::Uncertain(_))));
    assert!(doors.iter_mut().all(is_late));
    let is_full = |door: &mut Door| matches!(door.outcome(), Some(Err(Error::Backpressure(_))));
    assert!(is_full(&mut Door::submit(&mut core, spec(9, None))), "four are asked for yet");
    assert_eq!(core.shard.tasks.partitions[0].unfinished(), 0, "and nobody waits for them");
    // They are agreed on late, and end.
    hear(&mut core, &asked);
    assert!(is_full(&mut Door::submit(&mut core, spec(9, None))), "four wait");
    let ends: Vec<_> = records_of(&asked).iter().map(|it| done(it.id().random)).collect();
    core.hear(3, &ends);
    assert!(Door::submit(&mut core, spec(9, None)).outcome().is_none(), "there is room");
}

#[test]
fn what_a_replaced_log_may_hold_takes_up_room_for_its_time() {
    let mut core = Core::agreed(|config| {
        (config.tasks.queue_primary, config.tasks.queue_overflow) = (3, 1);
    });
    let mut doors: Vec<_> = (0..4).map(|each| Door::submit(&mut core, spec(each, None))).collect();
    let asked = core.take_asked();
    core.tell(Told::Follow { is_replaced: true });
    let is_uncertain = |door: &mut Door| matches!(door.outcome(), Some(Err(Error::Uncertain(_))));
    assert!(doors.iter_mut().all(is_uncertain));
    let is_full = |door: &mut Door| matches!(door.outcome(), Some(Err(Error::Backpressure(_))));
    core.tell(Told::CaughtUp);
    assert!(is_full(&mut Door::submit(&mut core, spec(9, None))), "they may be agreed on yet");
    // One is, and ends; of the others nobody ever hears.
    let first = records_of(&asked)[0];
    core.hear(3, &[first, done(first.id().random)]);
    let mut fifth = Door::submit(&mut core, spec(9, None));
    assert!(fifth.outcome().is_none(), "there is room for one");
    assert!(is_full(&mut Door::submit(&mut core, spec(9, None))));
    core.shard.set_clock(1000 * limit_ms(50) + 2000);
    core.turn();
    assert!(is_uncertain(&mut fifth));
    let mut doors: Vec<_> = (0..4).map(|each| Door::submit(&mut core, spec(each, None))).collect();
    assert!(doors[..3].iter_mut().all(|door| door.outcome().is_none()), "their time is over");
    assert!(is_full(&mut doors[3]), "one is asked for yet");
}

#[test]
fn entries_are_forgotten_only_when_nothing_of_this_replicas_table_lives_in_them() {
    let mut core = Core::agreed(|_| {});
    let said = |core: &mut Core, upto| {
        // What lies behind that begins with the next segment.
        core.tell(Told::Compacted(Compacted { upto, generation: 4 }));
        core.take_asked();
        core.cleared
    };
    assert_eq!(said(&mut core, 3), 3, "nothing is there");
    core.hear(3, &[submitted(1, b"x"), submitted(2, b"x")]);
    core.hear(4, &[submitted(3, b"x")]);
    assert_eq!(said(&mut core, 5), 3, "two tasks live there");
    core.hear(4, &[done(1), dead(2)]);
    assert_eq!(said(&mut core, 6), 3, "a dead letter may be queued again");
    // It is written again with its end, as whoever leads does it.
    core.hear(5, &[submitted(2, b"x"), dead(2)]);
    assert_eq!(said(&mut core, 7), 7, "what has ended well is not needed");
    let mut door = Door::submit(&mut core, spec(1, Some("key")));
    let asked = core.take_asked();
    hear(&mut core, &asked);
    let id = door.accepted();
    core.hear(4, &[done(id.random)]);
    assert_eq!(said(&mut core, 8), 7, "its key stands for it");
}

/// A copy of a task, changed.
fn copy_with(random: u128, change: impl Fn(&mut Record<'_>)) -> Record<'static> {
    let mut record = submitted(random, b"x");
    change(&mut record);
    record
}

/// What somebody may say of a task that it is not.
fn lies(random: u128) -> Vec<(&'static str, Record<'static>)> {
    macro_rules! lie {
        ($what:literal, $($field:ident = $value:expr),+) => {
            ($what, copy_with(random, |record| {
                let Record::Submitted { $($field),+, .. } = record else { panic!() };
                $(*$field = $value;)+
            }))
        };
    }
    vec![
        lie!("another type", agent_type = "another"),
        lie!("another priority", priority = Priority::High),
        lie!("another payload", payload = b"y"),
        lie!("no payload", payload = b""),
        lie!("another limit of its time", timeout_ms = 7),
        lie!("another limit of its attempts", max_attempts = 7),
        lie!("it has to wait", due_unix_ms = UNIX_MS + 3_600_000),
        lie!("a pause without an end", due_unix_ms = u64::MAX, attempts = 1),
    ]
}

#[test]
fn what_a_primary_says_lives_is_true_when_this_replicas_table_says_the_same() {
    let mut core = Core::agreed(|_| {});
    let copy = |random| submitted(random, b"x");
    core.hear(3, &[copy(1), copy(2), copy(3)]);
    assert!(core.finds_true(&[copy(1), copy(3)]));
    assert!(!core.finds_true(&[copy(1), copy(4)]), "nobody knows of the second");
    for (what, lie) in lies(1) {
        assert!(!core.finds_true(&[copy(3), lie]), "{what}");
    }
    // Whoever leads knows of attempts, and of the pauses behind them.
    assert!(core.finds_true(&[copy_with(1, |record| {
        let Record::Submitted { due_unix_ms, attempts, .. } = record else { panic!() };
        (*due_unix_ms, *attempts) = (UNIX_MS + 1_000, 1);
    })]));
    // A task that waits for its time runs no earlier.
    let delayed = |due: u64| {
        copy_with(5, |record| {
            let Record::Submitted { due_unix_ms, .. } = record else { panic!() };
            *due_unix_ms = due;
        })
    };
    core.hear(3, &[delayed(UNIX_MS + 3_600_000)]);
    assert!(core.finds_true(&[delayed(UNIX_MS + 3_600_000)]));
    assert!(!core.finds_true(&[delayed(0)]) && !core.finds_true(&[delayed(UNIX_MS + 10)]));
    // A dead letter is what it was.
    core.hear(3, &[copy(6), dead(6)]);
    assert!(core.finds_true(&[copy(6), dead(6)]));
    for (what, lie) in lies(6) {
        assert!(!core.finds_true(&[lie, dead(6)]), "{what}");
        assert!(!core.finds_true(&[lie, done(6)]), "{what}: it has not ended so");
    }
    assert!(!core.finds_true(&[copy(6), done(6)]), "it would lie where that is");
    assert!(!core.finds_true(&[copy(3), done(3)]), "it has not ended");
    core.shard.set_clock(1_000 * 3_600_000);
    assert!(core.finds_true(&[delayed(0)]), "its time has come");
    core.hear(3, &[done(1), dead(2)]);
    assert!(!core.finds_true(&[copy(1)]), "it would come back to life");
    assert!(
        core.finds_true(&[copy(1), done(1)]),
        "it has ended, and is written again with its end"
    );
    assert!(core.finds_true(&[copy(9), done(9)]), "as one that is not remembered here");
    assert!(!core.finds_true(&[copy(9), done(8)]), "that is another's end");
    assert!(core.finds_true(&[copy(2), dead(2)]), "a dead letter");
    assert!(!core.finds_true(&[copy(9), dead(9)]), "one that could be queued again");
    assert!(core.finds_true(&[done(3)]), "whoever leads says how a task ends");
}

#[test]
fn a_former_leader_looks_at_what_others_say_lives_while_it_is_told_its_log_anew() {
    let mut core = Core::agreed(|_| {});
    let copy = |random| submitted(random, b"x");
    core.hear(3, &[copy(1), copy(2), copy(3)]);
    core.lead(1);
    // One that it takes in while it leads is in its memory.
    let mut door = Door::submit(&mut core, spec(b'x', Some("key")));
    core.commit_all();
    let asked = std::mem::take(&mut core.asked).concat();
    hear(&mut core, &asked);
    let hot = door.accepted().random;
    let [Record::Submitted { key: Some(key), .. }] = records_of(&asked)[..] else { panic!() };
    let known = core.shard.tasks.table(0).counters();
    assert_eq!((known.queued, known.keys), (4, 1));
    let stands = |id: u128, core: &Core| {
        let limits = core.shard.tasks.table(0).limits().key_ttl_ms;
        let crate::task::Recorded { key: Some(known), submitted_unix_ms, .. } =
            crate::shard::backlog::recorded(&records_of(&asked)[0], 0).unwrap()
        else {
            panic!()
        };
        let id = TaskId { partition: 0, random: id };
        let body_hash = known.body_hash;
        (id, body_hash, submitted_unix_ms + limits)
    };
    let (id, body_hash, expires_unix_ms) = stands(hot, &core);
    let key = Record::Key { key, id, body_hash, expires_unix_ms };
    core.tell(Told::Follow { is_replaced: false });
    assert_eq!(core.shard.tasks.table(0).counters().keys, 0, "its table is empty");
    assert!(core.finds_true(&[copy(1), copy(hot), key]));
    for (what, lie) in lies(hot).into_iter().chain(lies(2)) {
        assert!(!core.finds_true(&[lie]), "{what}");
    }
    assert!(!core.finds_true(&[copy(9)]));
    // What is committed meanwhile is told beside.
    let beside = |core: &mut Core, records: &[Record<'_>]| {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        let place = Place { generation: 9, offset: 0 };
        core.tell(Told::Beside(Foreign::new(bytes.into(), place)));
    };
    beside(&mut core, &[done(1), dead(hot), copy(4)]);
    assert!(!core.finds_true(&[copy(1)]), "it would come back to life");
    assert!(core.finds_true(&[copy(hot), dead(hot), copy(4), copy(2)]), "it is a dead letter");
    for (what, lie) in lies(hot) {
        assert!(!core.finds_true(&[lie, dead(hot)]), "{what}");
    }
    // A door's submission is accepted when it is committed, however much is to be read.
    let mut door = Door::submit(&mut core, spec(2, None));
    let later = core.take_asked();
    beside(&mut core, &records_of(&later));
    let late = door.accepted();
    assert_eq!(late, records_of(&later)[0].id());
    // All is told anew, and what was told beside.
    core.hear(3, &[copy(1), copy(2), copy(3)]);
    hear(&mut core, &asked);
    core.hear(3, &[done(1), dead(hot), copy(4)]);
    hear(&mut core, &later);
    core.tell(Told::CaughtUp);
    assert!(core.finds_true(&[copy(2), copy(4), copy(hot), dead(hot), key]));
    assert!(!core.finds_true(&[copy(1)]));
    assert!(door.0.try_recv().is_err(), "it was told once");
    // Of a log that was replaced nothing is known.
    core.tell(Told::Follow { is_replaced: true });
    assert!(!core.finds_true(&[copy(2)]));
}

#[test]
fn a_former_leaders_door_asks_for_no_more_than_the_table_that_it_had_has_room_for() {
    let mut core = Core::agreed(|config| {
        (config.tasks.queue_primary, config.tasks.queue_overflow) = (3, 1);
    });
    core.lead(1);
    let mut doors: Vec<_> = (0..4).map(|each| Door::submit(&mut core, spec(each, None))).collect();
    core.commit_all();
    let asked = std::mem::take(&mut core.asked).concat();
    hear(&mut core, &asked);
    doors.iter_mut().for_each(|door| assert!(door.accepted().random > 0));
    let is_full = |door: &mut Door| matches!(door.outcome(), Some(Err(Error::Backpressure(_))));
    let reserve = Request::Reserve(0, 1, Priority::Low, Vec::new());
    core.tell(Told::Follow { is_replaced: false });
    assert!(is_full(&mut Door::submit(&mut core, spec(9, None))), "four wait");
    assert!(matches!(core.ask(&reserve).answer(), Some(Err(Error::Backpressure(_)))));
    let beside = |core: &mut Core, record: Record<'_>| {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        core.tell(Told::Beside(Foreign::new(bytes.into(), Place { generation: 9, offset: 0 })));
    };
    beside(&mut core, done(records_of(&asked)[0].id().random));
    let mut door = Door::submit(&mut core, spec(9, None));
    assert!(door.outcome().is_none(), "one has ended");
    assert!(is_full(&mut Door::submit(&mut core, spec(9, None))), "and one is asked for");
    // Its new table has read it all.
    let later = core.take_asked();
    beside(&mut core, records_of(&later)[0]);
    hear(&mut core, &asked);
    core.hear(3, &[done(records_of(&asked)[0].id().random), records_of(&later)[0]]);
    core.tell(Told::CaughtUp);
    assert!(is_full(&mut Door::submit(&mut core, spec(9, None))), "four wait");
}

#[test]
fn a_door_asks_for_nothing_while_a_log_that_was_replaced_is_read() {
    let mut core = Core::agreed(|config| {
        (config.tasks.queue_primary, config.tasks.queue_overflow) = (3, 1);
    });
    core.tell(Told::Follow { is_replaced: true });
    let is_full = |door: &mut Door| matches!(door.outcome(), Some(Err(Error::Backpressure(_))));
    let reserve = Request::Reserve(0, 1, Priority::Low, Vec::new());
    assert!(is_full(&mut Door::submit(&mut core, spec(1, None))), "nobody knows what it takes up");
    assert!(matches!(core.ask(&reserve).answer(), Some(Err(Error::Backpressure(_)))));
    // It takes up three of four.
    let mine = |request: u64| {
        Names::new(LIFE).name(Named { asker: 0, partition: 0, request: 100 + request, place: 0 })
    };
    core.hear(3, &[1_u64, 2, 3].map(|request| submitted(mine(request), b"x")));
    assert!(is_full(&mut Door::submit(&mut core, spec(1, None))), "it has not read all");
    core.tell(Told::CaughtUp);
    let mut door = Door::submit(&mut core, spec(1, None));
    assert!(door.outcome().is_none(), "it is asked for");
    assert!(is_full(&mut Door::submit(&mut core, spec(2, None))), "four");
}

#[test]
fn copies_that_write_out_limits_which_nobody_asked_for_are_true_and_others_are_not() {
    // As primaries of earlier releases write what they have in memory.
    let mut core = Core::agreed(|config| {
        (config.tasks.timeout_ms, config.tasks.max_attempts) = (30_000, 3);
    });
    let copy = |random, timeout: u64, attempts: u32| {
        copy_with(random, move |record| {
            let Record::Submitted { timeout_ms, max_attempts, .. } = record else { panic!() };
            (*timeout_ms, *max_attempts) = (timeout, attempts);
        })
    };
    let forms = [(0, 0), (30_000, 0), (0, 3), (30_000, 3)];
    core.hear(3, &[copy(1, 0, 0), copy(2, 30_000, 3), copy(3, 5, 2)]);
    for (timeout, attempts) in forms {
        // It is written again in that form, and then in any other.
        for random in [1, 2] {
            let written = copy(random, timeout, attempts);
            assert!(core.finds_true(&[written]), "{random} as {timeout} {attempts}");
            core.hear(4, &[written]);
        }
        assert!(!core.finds_true(&[copy(3, timeout, attempts)]), "it asked for other limits");
    }
    for (timeout, attempts) in [(30_001, 3), (30_000, 4), (5, 0), (0, 2)] {
        assert!(!core.finds_true(&[copy(1, timeout, attempts)]), "{timeout} {attempts}");
    }
    assert!(core.finds_true(&[copy(3, 5, 2)]));
    // The same once it has led, and has them in memory.
    core.lead(1);
    core.tell(Told::Follow { is_replaced: false });
    for (timeout, attempts) in forms {
        assert!(core.finds_true(&[copy(1, timeout, attempts), copy(2, timeout, attempts)]));
    }
    assert!(!core.finds_true(&[copy(1, 30_001, 0)]) && core.finds_true(&[copy(3, 5, 2)]));
}

#[test]
fn a_former_leader_knows_what_became_of_a_dead_letter_that_it_was_about_to_queue_again() {
    let mut core = Core::agreed(|_| {});
    let copy = |random| submitted(random, b"x");
    for random in 1..=3 {
        core.hear(3, &[copy(random), dead(random)]);
    }
    core.lead(1);
    for random in 1..=3 {
        let id = TaskId { partition: 0, random };
        core.ask(&Request::Requeue(id));
    }
    core.turn();
    while let Some(block) = core.end.incoming.pop() {
        core.tell(Told::Lost(block));
    }
    core.tell(Told::Follow { is_replaced: false });
    assert!(core.finds_true(&[copy(1), dead(1), copy(2), dead(2)]), "they are dead letters");
    // Two of the records were committed all the same, and one of another leader.
    let (one, three) = (TaskId { partition: 0, random: 1 }, TaskId { partition: 0, random: 3 });
    let mut bytes = Vec::new();
    for record in [Record::Requeued { id: one }, done(1), Record::Forgotten { id: three }] {
        record.encode(&mut bytes);
    }
    core.tell(Told::Beside(Foreign::new(bytes.into(), Place { generation: 9, offset: 0 })));
    assert!(!core.finds_true(&[copy(1)]), "it would come back to life");
    assert!(core.finds_true(&[copy(1), done(1)]));
    assert!(!core.finds_true(&[copy(3), dead(3)]), "it was forgotten");
    assert!(core.finds_true(&[copy(2), dead(2)]));
}

#[test]
fn whoever_leads_uses_up_nobodys_places_for_types_with_tasks_that_are_over() {
    let mut core = Core::agreed(|_| {});
    let name = |request| Names::new(LIFE).name(Named { asker: 1, partition: 0, request, place: 0 });
    let types: Vec<_> = (0..LEARNED_MAX).map(|it| format!("type {it}")).collect();
    let of_type = |random, name| {
        let mut record = submitted(random, b"x");
        let Record::Submitted { agent_type, .. } = &mut record else { panic!() };
        *agent_type = name;
        record
    };
    for (old, agent_type) in (1..).zip(&types) {
        core.hear(3, &[of_type(name(old), agent_type), done(name(old))]);
    }
    core.hear(3, &[of_type(name(5_000), "wanted")]);
    assert!(core.shard.kernel.types.find("wanted").is_some(), "it is learned");
    assert_eq!(core.shard.kernel.types.len(), 2);
}

#[test]
fn what_somebody_says_lives_is_looked_at_in_steps() {
    let mut core = Core::agreed(|_| {});
    let names: Vec<u128> = (1..=300).collect();
    let copies: Vec<_> = names.iter().map(|random| submitted(*random, b"x")).collect();
    core.hear(3, &copies);
    let mut bytes = Vec::new();
    copies.iter().for_each(|record| record.encode(&mut bytes));
    core.end.tell(Told::Claimed(Claimed::new(7, vec![bytes.into()])));
    core.end.flush();
    let mut turns = 0;
    while core.end.answered().0 != 7 {
        core.shard.turn().expect("it reads nothing");
        turns += 1;
        assert!(core.shard.has_work() || core.end.answered().0 == 7, "it goes on by itself");
    }
    assert!((4..8).contains(&turns) && core.end.answered().1, "{turns}");
}
