//! A table from a log that is older than its node.

use super::*;

/// The node begins an hour after the records were written.
const HOUR_MS: u64 = 3_600_000;

fn table(limits: TableLimits) -> TaskTable {
    let zero_unix_ms = ORIGIN.zero_unix_ms + HOUR_MS;
    TaskTable::new(Origin { durable: true, first_token: 1 << 40, zero_unix_ms, ..ORIGIN }, limits)
}

fn at(offset: u32) -> Place {
    Place { generation: 3, offset }
}

fn recorded(random: u128, submitted_ms: u64) -> Recorded<'static> {
    Recorded {
        random,
        type_index: 0,
        priority: Priority::Normal,
        submitted_unix_ms: ORIGIN.zero_unix_ms + submitted_ms,
        due_unix_ms: 0,
        timeout_ms: 0,
        max_attempts: 0,
        attempts: 0,
        key: None,
        payload: b"payload",
    }
}

/// Brings everything that is wanted into memory; the names in the order in which it is asked for.
fn warm_all(table: &mut TaskTable) -> Vec<u128> {
    let mut names = Vec::new();
    loop {
        let wanted = table.cold_wanted(100);
        if wanted.is_empty() {
            return names;
        }
        for (cold, place) in wanted {
            let random = place.offset.into();
            assert!(table.warm(cold, &recorded(random, random as u64 * 10)));
            names.push(random);
        }
    }
}

#[test]
fn unended_tasks_run_again_in_their_order_and_their_age_counts() {
    let mut table = table(LIMITS);
    for random in [3_u128, 1, 2] {
        let task = recorded(random, random as u64 * 10);
        table.replay_submitted(at(random as u32), &task, 0);
    }
    let low = Recorded { priority: Priority::Low, ..recorded(4, 5) };
    table.replay_submitted(at(4), &low, 0);
    table.replay_over(0);
    assert_eq!(table.next(0), None, "their payloads are in the log");
    let counters = table.counters();
    assert_eq!((counters.recovered, counters.queued, counters.cold), (4, 4, 4));
    assert_eq!(warm_all(&mut table), [4, 1, 2, 3]);
    let critical = Submission { priority: Priority::Critical, ..submission(9, b"") };
    let critical = new(table.submit(0, critical));
    table.accepted(critical, 0, Some(at(9)));
    let order = [(); 5].map(|()| {
        let key = table.next(0).unwrap();
        let lease = table.start(key, 0);
        assert!(lease.token >= 1 << 40);
        table.id(key).random
    });
    assert_eq!(order, [1, 2, 3, 4, 9], "an hour outweighs every priority");
}

#[test]
fn ended_tasks_and_dead_letters_are_known_again() {
    let mut table = table(LIMITS);
    for random in 0..8 {
        table.replay_submitted(at(random as u32), &recorded(random, 0), 0);
        let unix_ms = ORIGIN.zero_unix_ms + random as u64;
        table.replay_ended(random, TaskStatus::Done, 1, unix_ms, b"result");
    }
    for random in 10..13 {
        table.replay_submitted(at(random as u32), &recorded(random, 0), 0);
        table.replay_ended(random, TaskStatus::Dead, 2, ORIGIN.zero_unix_ms + 7, b"why");
    }
    table.replay_requeued(11);
    table.replay_forgotten(12);
    table.replay_ended(99, TaskStatus::Done, 1, 0, b"its submission was freed");
    table.replay_over(0);
    let known: Vec<u128> = (0..100).filter(|random| status(&table, *random).is_some()).collect();
    assert_eq!(known, [3, 4, 5, 6, 7, 10, 11]);
    let done = view(&table, 5).unwrap();
    assert_eq!(done.result.as_deref(), Some(&b"result"[..]));
    let dead = view(&table, 10).unwrap();
    assert_eq!((dead.attempts, dead.error.as_deref()), (2, Some("why")));
    let mut deaths = Vec::new();
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        cursor = table.live_before(9, from, 9, |moving, live| {
            if let Live::Record { place, end: Some(end), .. } = live {
                deaths.push((moving, place, end.ended_unix_ms, end.attempts));
            }
        });
    }
    assert_eq!(deaths, [(Moving::Task(10), at(10), ORIGIN.zero_unix_ms + 7, 2)]);
    let key = table.requeue(10, 0).unwrap();
    table.requeued(key, 0);
    assert_eq!(status(&table, 10), Some(TaskStatus::Queued));
    assert_eq!(warm_all(&mut table), [11, 10]);
    assert_eq!(table.payload(table.key(10).unwrap()), b"payload");
}

#[test]
fn a_delay_goes_on_and_one_that_is_over_is_over() {
    let mut table = table(LIMITS);
    let zero = ORIGIN.zero_unix_ms + HOUR_MS;
    for (random, due_unix_ms) in [(1, zero + 500), (2, zero - 500), (3, zero + 200)] {
        let task = Recorded { due_unix_ms, ..recorded(random, 0) };
        table.replay_submitted(at(random as u32), &task, 0);
    }
    table.replay_over(10);
    let counters = table.counters();
    assert_eq!((counters.queued, counters.delayed, table.next_due_ms()), (1, 2, Some(200)));
    assert!(table.wake(300));
    assert_eq!(table.counters().queued, 2);
    assert!(table.cancel(1).unwrap().is_some(), "a delayed task of which memory knows little");
    assert_eq!((table.next_due_ms(), status(&table, 1)), (None, Some(TaskStatus::Running)));
}

#[test]
fn keys_stand_for_their_tasks_again_until_they_expire() {
    let limits = TableLimits { key_ttl_ms: HOUR_MS, ..LIMITS };
    let mut table = table(limits);
    let with = |name, random, submitted_ms| {
        let key = Some(Key { bytes: name, body_hash: 7 });
        Recorded { key, ..recorded(random, submitted_ms) }
    };
    table.replay_submitted(at(1), &with(b"old", 1, 0), 100);
    table.replay_submitted(at(2), &with(b"new", 2, 5_000), 100);
    let moved = Key { bytes: b"moved", body_hash: 7 };
    table.replay_key(at(3), moved, 3, ORIGIN.zero_unix_ms + HOUR_MS + 2_000, 100);
    table.replay_over(100);
    let mut submit = |now_ms, bytes, random| {
        let key = Some(Key { bytes, body_hash: 7 });
        table.submit(now_ms, Submission { key, ..submission(random, b"") })
    };
    let existing = |random| Ok(Submitted::Existing(TaskId { partition: 0, random }));
    new(submit(100, b"old", 12));
    assert_eq!(submit(1_999, b"moved", 11), existing(3));
    new(submit(2_000, b"moved", 13));
    assert_eq!(submit(4_999, b"new", 10), existing(2));
}

#[test]
fn a_key_that_had_expired_stands_for_the_later_task_whenever_the_log_is_read() {
    let limits = TableLimits { key_ttl_ms: HOUR_MS / 2, ..LIMITS };
    let with = |random, submitted_ms| {
        let key = Some(Key { bytes: b"key", body_hash: random as u64 });
        Recorded { key, ..recorded(random, submitted_ms) }
    };
    // Before the first one expires by this clock, between both, and after both: a clock may have
    // gone back, and a replica reads at any time.
    for zero_ms in [HOUR_MS / 4, HOUR_MS, 2 * HOUR_MS] {
        let zero_unix_ms = ORIGIN.zero_unix_ms + zero_ms;
        let origin = Origin { durable: true, zero_unix_ms, ..ORIGIN };
        let mut table = TaskTable::new(origin, limits);
        table.replay_submitted(at(1), &with(1, 0), 0);
        let first = Key { bytes: b"key", body_hash: 1 };
        let first_until = ORIGIN.zero_unix_ms + HOUR_MS / 2;
        table.replay_key(at(2), first, 1, first_until, 0);
        table.replay_submitted(at(3), &with(2, HOUR_MS / 2 + 1_000), 0);
        table.replay_over(0);
        assert_eq!(table.counters().recovered, 2, "both were accepted");
        let key = Some(Key { bytes: b"key", body_hash: 2 });
        let submitted = table.submit(0, Submission { key, ..submission(3, b"") });
        match zero_ms > HOUR_MS {
            true => drop(new(submitted)),
            false => {
                let id = TaskId { partition: 0, random: 2 };
                assert_eq!(submitted, Ok(Submitted::Existing(id)));
            }
        }
    }
}

#[test]
fn ended_tasks_move_forward_as_long_as_they_are_remembered() {
    let mut old = table(LIMITS);
    let ends =
        [(1, TaskStatus::Done, 40), (2, TaskStatus::Cancelled, 20), (3, TaskStatus::Done, 30)];
    for (random, status, ended_ms) in ends {
        old.replay_submitted(at(random as u32), &recorded(random, 10), 0);
        old.replay_ended(random, status, 2, ORIGIN.zero_unix_ms + ended_ms, b"result");
    }
    old.replay_over(0);
    assert!(!old.is_clear_before(9), "their segment is needed");
    // What a walk writes again is all that there is for the next one.
    let (mut next, mut cursor, mut bytes) = (table(LIMITS), Some(Cursor::default()), 0);
    let mut moved = Vec::new();
    while let Some(from) = cursor {
        cursor = old.live_before(9, from, 9, |moving, live| {
            let Live::Task { task, end: Some(end), .. } = live else { panic!("{live:?}") };
            assert_eq!(task.payload, b"", "it will not run again");
            let End { status, attempts, ended_unix_ms, body } = end;
            let place = Place { generation: 9, offset: task.random as u32 };
            next.replay_submitted(place, &task, 0);
            next.replay_ended(task.random, status, attempts, ended_unix_ms, body);
            moved.push((moving, place));
            bytes += body.len();
        });
    }
    assert_eq!(bytes, 12, "of a cancelled one nothing came");
    next.replay_over(0);
    for (moving, place) in moved {
        old.moved(moving, place);
    }
    assert!(old.is_clear_before(9) && !old.is_clear_before(10));
    for table in [&mut old, &mut next] {
        assert_eq!(table.unended(), 0);
        let done = view(table, 1).unwrap();
        assert_eq!((done.status, done.attempts), (TaskStatus::Done, 2));
        assert_eq!(done.result.as_deref(), Some(&b"result"[..]));
        assert_eq!(status(table, 2), Some(TaskStatus::Cancelled));
        // Others push them out in the order in which they ended.
        let mut pushed_out = Vec::new();
        for random in 10..18 {
            table.replay_submitted(at(1), &recorded(random, 10), 0);
            table.replay_ended(random, TaskStatus::Done, 1, ORIGIN.zero_unix_ms + 90, b"");
            let gone = [1, 2, 3].into_iter().filter(|random| status(table, *random).is_none());
            let new: Vec<u128> = gone.filter(|random| !pushed_out.contains(random)).collect();
            pushed_out.extend(new);
        }
        assert_eq!(pushed_out, [2, 3, 1]);
    }
}
