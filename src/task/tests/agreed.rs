//! What any node may ask for: all replicas decide alike, however much of the log they have read.

use super::*;
use crate::{
    registry::TypeIndex,
    task::Among,
    wire::names::{Named, Names},
};
use fastrand::Rng;

const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
/// Far more than the limits of other tests, so that ended tasks are remembered.
const MANY: TableLimits = TableLimits { keys_max: 1000, retained: 1000, ..LIMITS };

/// One of four nodes.
fn among() -> Among {
    Among { names: Names::new(7), me: 0, nodes: 4 }
}

/// A record of the log.
#[derive(Clone, Copy, Debug)]
enum Said {
    Asked {
        random: u128,
        key: Option<(&'static [u8], u64)>,
        at_ms: u64,
    },
    /// A task that lives is written again.
    Task {
        random: u128,
        at_ms: u64,
    },
    Key {
        key: &'static [u8],
        body_hash: u64,
        random: u128,
        expires_unix_ms: u64,
    },
    Ended {
        random: u128,
    },
    Expired {
        upto_ms: u64,
    },
}

fn table() -> TaskTable {
    TaskTable::new(Origin { durable: true, among: Some(among()), ..ORIGIN }, MANY)
}

fn recorded(random: u128, key: Option<(&'static [u8], u64)>, at_ms: u64) -> Recorded<'static> {
    Recorded {
        random,
        type_index: 0,
        priority: Priority::Normal,
        submitted_unix_ms: ORIGIN.zero_unix_ms + at_ms,
        due_unix_ms: 0,
        timeout_ms: 0,
        max_attempts: 0,
        attempts: 0,
        key: key.map(|(bytes, body_hash)| Key { bytes, body_hash }),
        payload: b"payload",
    }
}

/// The place of a record: each has a generation of its own, so that the log may begin behind any.
fn at(index: usize) -> Place {
    Place { generation: index as u64, offset: 0 }
}

/// A replica whose clock is somewhere hears a record.
fn hear(table: &mut TaskTable, index: usize, said: Said, now_ms: u64) -> Option<Settled> {
    match said {
        Said::Asked { random, key, at_ms } => {
            let task = recorded(random, key, at_ms);
            return Some(table.settle(at(index), &task, now_ms, false, None));
        }
        Said::Task { random, at_ms } => {
            table.replay_submitted(at(index), &recorded(random, None, at_ms), now_ms);
        }
        Said::Key { key, body_hash, random, expires_unix_ms } => {
            let key = Key { bytes: key, body_hash };
            table.replay_key(at(index), key, random, expires_unix_ms, now_ms);
        }
        Said::Ended { random } => {
            table.replay_ended(random, TaskStatus::Done, 1, ORIGIN.zero_unix_ms, b"result");
        }
        Said::Expired { upto_ms } => table.forget_expired(ORIGIN.zero_unix_ms + upto_ms),
    }
    None
}

/// What a leader writes again so that nothing is needed before an index.
fn copies(table: &TaskTable, index: usize) -> Vec<Said> {
    let (mut copies, mut cursor) = (Vec::new(), Some(Cursor::default()));
    while let Some(from) = cursor {
        cursor = table.live_before(index as u64, from, 100, |moving, live| {
            copies.push(match (moving, live) {
                (_, live @ Live::Key { .. }) => key_of(&live),
                // Ended ones are left behind: they are forgotten here.
                (Moving::Task(random), Live::Record { end: None, .. }) => {
                    Said::Task { random, at_ms: 0 }
                }
                _ => return,
            });
        });
    }
    copies
}

fn key_of(live: &Live<'_>) -> Said {
    let Live::Key { key, random, expires_unix_ms } = live else { panic!("{live:?}") };
    let bytes = KEYS.into_iter().find(|known| *known == key.bytes).unwrap();
    let (random, expires_unix_ms, body_hash) = (*random, *expires_unix_ms, key.body_hash);
    Said::Key { key: bytes, body_hash, random, expires_unix_ms }
}

#[test]
fn an_end_that_is_none_ends_no_task() {
    let mut table = table();
    hear(&mut table, 1, Said::Task { random: 7, at_ms: 0 }, 0);
    for status in [TaskStatus::Queued, TaskStatus::Delayed, TaskStatus::Running] {
        table.replay_ended(7, status, 1, ORIGIN.zero_unix_ms, b"");
    }
    assert!(table.lives_before(2), "it lives");
    hear(&mut table, 2, Said::Ended { random: 7 }, 0);
    assert!(!table.lives_before(3), "it ended");
}

#[test]
fn a_replica_that_has_read_a_compacted_log_decides_as_one_that_has_read_all_of_it() {
    for seed in 0..400 {
        let mut random = Rng::with_seed(seed);
        let mut log: Vec<Said> = Vec::new();
        let (mut full, mut living) = (table(), Vec::new());
        // Keys that whoever leads has to write again; it takes a moment.
        let mut again: Vec<Said> = Vec::new();
        let (mut begins, mut now_ms, mut truncated) = (0, 0, 0);
        for step in 0..300_u128 {
            now_ms += random.u64(0..200);
            let index = log.len();
            let moves = random.u32(0..20) == 0;
            let kind = if moves { 10 } else { random.u32(0..10) };
            if moves || kind == 8 || random.u32(0..3) == 0 {
                for said in again.drain(..) {
                    hear(&mut full, log.len(), said, now_ms);
                    log.push(said);
                }
            }
            let mut said = vec![match kind {
                0..6 => {
                    let key =
                        random.bool().then(|| (random.choice(KEYS).unwrap(), random.u64(0..2)));
                    // Clocks differ, and somebody lies about the time.
                    let at_ms = (now_ms + random.u64(0..3_000)).saturating_sub(1_500);
                    Said::Asked { random: step + 1, key, at_ms }
                }
                6..8 if !living.is_empty() => {
                    Said::Ended { random: living.swap_remove(random.usize(0..living.len())) }
                }
                8 => Said::Expired { upto_ms: now_ms.saturating_sub(random.u64(0..2_000)) },
                _ => {
                    // Something of another door comes between a copy and where the log begins.
                    let key = Some((random.choice(KEYS).unwrap(), 1));
                    Said::Asked { random: 1_000 + step, key, at_ms: now_ms }
                }
            }];
            if moves {
                // What lies before that is written again; what lies between is read by who is late.
                begins = random.usize(begins..=index);
                said = copies(&full, begins);
                assert_eq!(full.lives_before(begins as u64), !said.is_empty(), "seed {seed}");
            }
            for said in said {
                let settled = hear(&mut full, log.len(), said, now_ms);
                if let (Said::Asked { random, .. }, Some(Settled::New)) = (said, settled) {
                    living.push(random);
                }
                while let Some((_, live)) = full.next_asked_again() {
                    again.push(key_of(&live));
                }
                log.push(said);
            }
            if !moves || begins == 0 {
                continue;
            }
            assert!(!full.lives_before(begins as u64), "seed {seed}: all of it was written again");
            // From here on the log may begin there. A replica that is started much later reads it.
            truncated += 1;
            let mut late = table();
            for (index, said) in log.iter().enumerate().skip(begins) {
                hear(&mut late, index, *said, 10_000_000);
            }
            // Whatever a leader writes again lives for it as well.
            for said in copies(&full, usize::MAX) {
                assert!(lives(&late, said), "seed {seed}: {said:?}");
            }
            assert_alike(&mut full, &mut late, &living, now_ms, seed);
        }
        assert!(truncated > 3, "seed {seed}");
    }
}

#[test]
fn replicas_that_have_places_for_other_types_decide_alike() {
    // One has a place for each of the types that tasks are of, one for none.
    const UNKNOWN: TypeIndex = 7;
    let is_type = |of: TypeIndex| move |known| known == UNKNOWN || of == UNKNOWN || known == of;
    let limits = TableLimits { queue_primary: 20, queue_overflow: 4, keys_max: 20, ..MANY };
    let names = Names::new(7);
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let table =
            || TaskTable::new(Origin { durable: true, among: Some(among()), ..ORIGIN }, limits);
        let mut tables = [table(), table()];
        let mut known: Vec<Recorded<'_>> = Vec::new();
        for index in 1..200 {
            let (place, now_ms) = (at(index), rng.u64(0..10_000));
            let kind = rng.u32(0..10);
            let one = (kind >= 6 && !known.is_empty()).then(|| known[rng.usize(0..known.len())]);
            let asker = rng.u8(0..4);
            let named =
                Named { asker, partition: ORIGIN.partition, request: index as u64, place: 0 };
            let key = rng.bool().then(|| (rng.choice(KEYS).unwrap(), rng.u64(0..2)));
            let mut task = recorded(names.name(named), key, rng.u64(0..5_000));
            task.type_index = rng.u16(0..5);
            let mut settled = Vec::new();
            let upto_unix_ms = ORIGIN.zero_unix_ms + rng.u64(0..6_000);
            for (table, has_places) in tables.iter_mut().zip([true, false]) {
                let place_of = |type_index| if has_places { type_index } else { UNKNOWN };
                match (one, kind) {
                    (Some(one), 6 | 7) => {
                        table.replay_ended(one.random, TaskStatus::Done, 1, upto_unix_ms, b"");
                    }
                    (Some(one), 8) if table.lives(one.random) => {
                        let type_index = place_of(one.type_index);
                        let copy = Recorded { type_index, key: None, ..one };
                        table.replay_submitted(place, &copy, now_ms);
                    }
                    (_, 9) => table.forget_expired(upto_unix_ms),
                    _ => {
                        let type_index = place_of(task.type_index);
                        let task = Recorded { type_index, ..task };
                        settled.push(table.settle(place, &task, now_ms, false, None));
                    }
                }
            }
            if let [first, second] = settled[..] {
                assert_eq!(first, second, "seed {seed}, {index}");
                known.push(task);
            }
            let [one, other] = &tables;
            assert_eq!(one.crowd(), other.crowd(), "seed {seed}, {index}");
            assert_eq!(one.taken_as_asked(), other.taken_as_asked(), "seed {seed}, {index}");
            let before = rng.u64(0..200);
            assert_eq!(one.lives_before(before), other.lives_before(before));
            // What one of them writes again is true for the other.
            for task in &known {
                let copy = Recorded { key: None, ..*task };
                let is_true =
                    |table: &TaskTable| table.lives_as(&copy, now_ms, is_type(copy.type_index));
                assert_eq!(is_true(one), is_true(other), "seed {seed}, {index}");
            }
        }
    }
}

/// Whether a replica knows the same of what is written again.
fn lives(table: &TaskTable, said: Said) -> bool {
    match said {
        Said::Task { random, .. } => {
            table.lives_as(&recorded(random, None, 0), 0, |type_index| type_index == 0)
        }
        Said::Key { key, body_hash, random, expires_unix_ms } => {
            table.stands_for(Key { bytes: key, body_hash }, random, expires_unix_ms)
        }
        said => panic!("{said:?} is no copy"),
    }
}

#[test]
fn only_what_lives_may_be_written_again() {
    let mut table = table();
    let key = Some((KEYS[0], 5));
    hear(&mut table, 1, Said::Asked { random: 1, key, at_ms: 0 }, 0);
    hear(&mut table, 2, Said::Asked { random: 2, key: None, at_ms: 0 }, 0);
    let task = |random| Said::Task { random, at_ms: 0 };
    assert!(lives(&table, task(1)) && lives(&table, task(2)));
    assert!(!lives(&table, task(3)), "nobody has asked for it");
    hear(&mut table, 3, Said::Ended { random: 1 }, 0);
    assert!(!lives(&table, task(1)), "it has ended");
    table.replay_ended(2, TaskStatus::Dead, 1, ORIGIN.zero_unix_ms, b"");
    assert!(lives(&table, task(2)), "it may be queued again");
    table.replay_forgotten(2);
    assert!(!lives(&table, task(2)), "it is purged");
    // A key lives on when its task has ended.
    let mut known = copies(&table, usize::MAX).into_iter();
    let said = known.find(|said| matches!(said, Said::Key { .. })).expect("it is there");
    let Said::Key { key, body_hash, random, expires_unix_ms } = said else { panic!("{said:?}") };
    assert!(lives(&table, said) && (body_hash, random) == (5, 1));
    for (what, wrong) in [
        ("another key", Said::Key { key: KEYS[1], body_hash, random, expires_unix_ms }),
        ("another task", Said::Key { key, body_hash, random: 2, expires_unix_ms }),
        ("another submission", Said::Key { key, body_hash: 6, random, expires_unix_ms }),
        ("a later end", Said::Key { key, body_hash, random, expires_unix_ms: expires_unix_ms + 1 }),
        (
            "an earlier end",
            Said::Key { key, body_hash, random, expires_unix_ms: expires_unix_ms - 1000 },
        ),
    ] {
        assert!(!lives(&table, wrong), "{what}");
    }
    table.forget_expired(expires_unix_ms);
    assert!(!lives(&table, said), "it has expired");
}

#[test]
fn a_dead_letter_that_is_queued_again_while_it_is_written_again_lives() {
    let mut table = table();
    hear(&mut table, 1, Said::Asked { random: 1, key: None, at_ms: 0 }, 0);
    table.replay_ended(1, TaskStatus::Dead, 1, ORIGIN.zero_unix_ms, b"");
    table.replay_over(0);
    // Its copy is on its way.
    assert!(table.live(Moving::Task(1)).is_some());
    let key = table.requeue(1, 0).expect("it is a dead letter");
    assert!(lives(&table, Said::Task { random: 1, at_ms: 0 }));
    table.moved(Moving::Task(1), at(2));
    assert!(table.is_clear_before(2) && table.lives_before(3));
    table.requeued(key, 0);
    assert_eq!(table.counters().queued, 1);
}

#[test]
fn a_dead_letter_of_which_somebody_says_that_it_ended_otherwise_is_one_no_more() {
    let mut table = table();
    hear(&mut table, 1, Said::Asked { random: 1, key: None, at_ms: 0 }, 0);
    table.replay_ended(1, TaskStatus::Dead, 1, ORIGIN.zero_unix_ms, b"");
    assert!(table.lives(1) && table.lives_before(2));
    // It is written again as what it is not, with an end in the same block.
    hear(&mut table, 2, Said::Task { random: 1, at_ms: 0 }, 0);
    hear(&mut table, 2, Said::Ended { random: 1 }, 0);
    assert!(!table.lives(1) && !table.lives_before(3), "nothing of it is to be queued again");
    assert_eq!((table.counters().dead_letters, table.unended()), (0, 0));
    assert_eq!(status(&table, 1), Some(TaskStatus::Done));
}

#[test]
fn a_task_whose_end_was_decided_and_lost_is_what_it_was() {
    let mut table = table();
    for random in 1..=3 {
        // The last one is in the log alone.
        let task = recorded(random, None, 0);
        table.settle(at(random as usize), &task, 0, random < 3, None);
    }
    table.replay_over(0);
    let key = table.key(1).expect("it is in memory");
    let lease = table.start(key, 0);
    table.complete(lease, b"result").expect("it runs");
    table.cancel(2).expect("it is there").expect("it waits");
    table.cancel(3).expect("it is there").expect("it waits");
    let is_it = |table: &TaskTable, random, payload| {
        let copy = Recorded { payload, ..recorded(random, None, 0) };
        table.lives_as(&copy, 0, |type_index| type_index == 0)
    };
    for random in 1..=3 {
        assert!(is_it(&table, random, b"payload"), "{random}");
        for other in [&b"result"[..], b"", b"another"] {
            assert!(!is_it(&table, random, other), "{random}");
        }
        // Another leader says what becomes of it.
        table.replay_ended(random, TaskStatus::Dead, 1, ORIGIN.zero_unix_ms, b"why");
        assert!(is_it(&table, random, b"payload") && !is_it(&table, random, b"result"));
        table.replay_requeued(random);
        assert!(is_it(&table, random, b"payload") && !is_it(&table, random, b"result"));
        hear(&mut table, 9, Said::Ended { random }, 0);
        assert!(!is_it(&table, random, b"payload"), "it has ended");
    }
}

/// Two replicas have the same unended tasks and keys, and go on to decide alike.
fn assert_alike(
    one: &mut TaskTable,
    other: &mut TaskTable,
    living: &[u128],
    now_ms: u64,
    seed: u64,
) {
    let is_living =
        |table: &TaskTable, random| status(table, random).is_some_and(|status| !status.is_ended());
    for random in living {
        assert!(is_living(one, *random) && is_living(other, *random), "seed {seed}: {random}");
    }
    assert_eq!(one.unended(), living.len(), "seed {seed}");
    assert_eq!(other.unended(), living.len(), "seed {seed}");
    for key in KEYS {
        let key = Some(Key { bytes: key, body_hash: 1 });
        let submission = Submission { key, reserved: true, ..submission(1 << 100, b"payload") };
        let ask = |table: &mut TaskTable| {
            let taken = table.taken();
            table.may_ask(now_ms, &submission, taken, 0, true)
        };
        assert_eq!(ask(one), ask(other), "seed {seed}, key {key:?}");
    }
    assert_eq!(one.counters().keys, other.counters().keys, "seed {seed}");
}

#[test]
fn all_replicas_forget_a_key_where_the_log_says_so_whatever_their_clocks_say() {
    for now_ms in [0, 4_000, 1_000_000] {
        let mut table = table();
        let key = Some((KEYS[0], 1));
        let ask = |table: &mut TaskTable, random, at_ms| {
            let said = Said::Asked { random, key, at_ms };
            hear(table, random as usize, said, now_ms).unwrap()
        };
        let end_unix_ms = ORIGIN.zero_unix_ms + 6_000;
        assert_eq!(ask(&mut table, 1, 100), Settled::New);
        table.forget_expired(end_unix_ms - 1);
        assert_eq!(ask(&mut table, 2, 9_000), Settled::Existing(1), "it is not forgotten");
        table.forget_expired(end_unix_ms);
        assert_eq!(ask(&mut table, 3, 9_000), Settled::Existing(1), "it was asked for again");
        let (_, live) = table.next_asked_again().expect("it is to be written again");
        let said = key_of(&live);
        hear(&mut table, 4, said, now_ms);
        table.forget_expired(end_unix_ms);
        assert_eq!(ask(&mut table, 5, 50), Settled::New, "whatever it says of the time");
    }
}

#[test]
fn a_key_that_is_written_again_under_changing_names_expires_once() {
    let mut table = table();
    let said =
        |random, expires_unix_ms| Said::Key { key: KEYS[0], body_hash: 1, random, expires_unix_ms };
    let step = |number| ORIGIN.zero_unix_ms.next_multiple_of(1_000) + 1_000 * number;
    for index in 0..1_000 {
        let number = index as u64 % 7 + 1;
        hear(&mut table, index, said(index as u128 % 2 + 1, step(number)), 0);
        assert_eq!(table.agreed_expiries(), 1);
    }
    hear(&mut table, 1_000, said(7, u64::MAX), 0);
    assert_eq!(table.agreed_expiries(), 1);
    hear(&mut table, 1_001, said(8, step(3)), 0);
    assert_eq!((table.agreed_expiries(), table.first_expiry_unix_ms()), (1, Some(step(3))));
    table.forget_expired(step(3) - 1);
    assert_eq!(table.counters().keys, 1);
    table.forget_expired(step(3));
    assert_eq!((table.counters().keys, table.agreed_expiries()), (0, 0));
}

#[test]
fn one_that_says_it_was_submitted_far_ahead_goes_before_nobody_and_moves_nobody() {
    let mut table = table();
    let day_ms = 24 * 60 * 60 * 1_000;
    let now = 400 * day_ms;
    let mut since_of = |random: u128, submitted_unix_ms: u64| {
        let asked = Recorded { submitted_unix_ms, ..recorded(random, None, 0) };
        table.settle(at(random as usize), &asked, 0, false, None);
        table.since_of_cold(random)
    };
    assert_eq!(since_of(1, now), now);
    assert_eq!(since_of(2, u64::MAX), u64::MAX);
    assert_eq!(since_of(3, now + 5), now + 5, "it goes on as before");
    assert_eq!(since_of(4, 1), now, "an hour before what may be the latest");
    // Nobody asked for anything for long.
    assert_eq!(since_of(5, now + 9 * day_ms), now + 9 * day_ms);
}

#[test]
fn what_copies_say_of_when_tasks_were_submitted_moves_no_other_task() {
    let day_ms = 24 * 60 * 60 * 1_000;
    let (mut table, zero) = (table(), ORIGIN.zero_unix_ms);
    hear(&mut table, 1, Said::Asked { random: 1, key: None, at_ms: 0 }, 0);
    // Of tasks that this log does not know any more, and of the one that it does.
    for random in 2..100 {
        hear(&mut table, random as usize, Said::Task { random, at_ms: 9 * day_ms }, 0);
    }
    for at_ms in [9 * day_ms, 0] {
        hear(&mut table, 100, Said::Task { random: 1, at_ms }, 0);
        assert_eq!(table.since_of_cold(1), zero);
    }
    hear(&mut table, 101, Said::Asked { random: 101, key: None, at_ms: 7 }, 0);
    assert_eq!(table.since_of_cold(101), zero + 7, "it waits since then");
}
