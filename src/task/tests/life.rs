//! The life of tasks that stay in memory, one step at a time.

use super::*;

#[test]
fn a_task_goes_through_its_life() {
    let mut table = TaskTable::new(Origin { partition: 3, ..ORIGIN }, LIMITS);
    let key = new(table.submit(0, submission(7, b"payload")));
    assert_eq!((view(&table, 7), table.next(0)), (None, None), "not accepted yet");
    table.accepted(key, 0, None);
    assert_eq!(view(&table, 7).unwrap().status, TaskStatus::Queued);
    assert_eq!(
        (table.next(0), table.next(1), table.payload(key)),
        (Some(key), None, &b"payload"[..])
    );
    let lease = table.start(key, 500);
    assert_eq!((table.next(0), table.attempts(key), table.deadline_ms(key)), (None, 1, 1_500));
    table.complete(lease, b"result").unwrap();
    assert_eq!(view(&table, 7).unwrap().status, TaskStatus::Running, "its end is not committed");
    assert_eq!(
        table.end_of(key),
        (TaskId { partition: 3, random: 7 }, TaskStatus::Done, &b"result"[..])
    );
    table.ended(key);
    let seen = view(&table, 7).unwrap();
    assert_eq!((seen.status, seen.result), (TaskStatus::Done, Some(b"result".to_vec())));
    assert_eq!((seen.agent_type.as_str(), seen.attempts), ("type 0", 1));
    assert_eq!(table.counters(), Counters { accepted: 1, done: 1, ..Counters::default() });
}

#[test]
fn a_late_attempt_changes_nothing() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    let key = accepted(&mut table, 1);
    let first = table.start(key, 0);
    assert_eq!(table.fail(first, 0, "lost", true), Ok(Failed::Again { due_ms: 0 }));
    assert_eq!(table.complete(first, b"late"), Err(Stale), "it waits for another attempt");
    let second = table.start(key, 0);
    assert_eq!(table.complete(first, b"late"), Err(Stale));
    assert_eq!(table.fail(first, 0, "late", false), Err(Stale));
    assert_eq!(table.complete(second, b"good"), Ok(()));
    assert_eq!(table.complete(second, b"again"), Err(Stale));
    table.ended(key);
    assert_eq!(table.end_of(key).2, b"good");
    let nowhere = Lease { partition: 0, key: 99, token: 1 };
    assert_eq!(table.complete(nowhere, b""), Err(Stale));
}

#[test]
fn the_last_attempt_or_a_hopeless_one_is_the_end() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    let key = accepted(&mut table, 1);
    for attempt in 1..=3 {
        let lease = table.start(key, 0);
        let failed = table.fail(lease, 0, &format!("error {attempt}"), true);
        assert_eq!(
            failed,
            Ok(if attempt < 3 { Failed::Again { due_ms: 0 } } else { Failed::Last })
        );
    }
    table.ended(key);
    let seen = view(&table, 1).unwrap();
    assert_eq!((seen.status, seen.error.as_deref()), (TaskStatus::Dead, Some("error 3")));
    assert_eq!(table.end_of(key).2, b"error 3");

    let key = accepted(&mut table, 2);
    let lease = table.start(key, 0);
    assert_eq!(table.fail(lease, 0, "never", false), Ok(Failed::Last));
}

#[test]
fn the_urgent_first_and_a_retry_last() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    let orders = [Priority::Low, Priority::Normal, Priority::Critical, Priority::Normal];
    let keys = orders.map(|priority| {
        let random = table.unended() as u128;
        let key = new(table.submit(0, Submission { priority, ..submission(random, b"") }));
        table.accepted(key, 0, None);
        key
    });
    let critical = table.next(0).unwrap();
    assert_eq!(critical, keys[2]);
    table.start(critical, 0);
    let normal = table.next(0).unwrap();
    assert_eq!(normal, keys[1]);
    let lease = table.start(normal, 0);
    table.fail(lease, 0, "", true).unwrap();
    let rest = [(); 3].map(|()| {
        let key = table.next(0).unwrap();
        table.start(key, 0);
        key
    });
    assert_eq!(rest, [keys[3], keys[1], keys[0]]);
}

#[test]
fn a_cancelled_task_ends_wherever_it_is() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    assert!(matches!(table.cancel(5), Err(Error::NotFound(_))));
    let early = new(table.submit(0, submission(1, b"")));
    assert_eq!(table.cancel(1), Ok(Some(early)));
    table.accepted(early, 0, None);
    assert_eq!(table.next(0), None, "cancelled before it was accepted");
    let queued = accepted(&mut table, 2);
    assert_eq!(table.cancel(2), Ok(Some(queued)));
    assert_eq!(table.next(0), None);
    let running = accepted(&mut table, 3);
    let lease = table.start(running, 0);
    assert_eq!(table.cancel(3), Ok(Some(running)));
    assert_eq!(table.complete(lease, b""), Err(Stale));
    assert_eq!(table.cancel(3), Ok(None), "its end is decided");
    for key in [early, queued, running] {
        table.ended(key);
    }
    let expected = Counters { accepted: 3, cancelled: 3, ..Counters::default() };
    assert_eq!((table.counters(), table.unended()), (expected, 0));
}

#[test]
fn a_full_table_refuses_and_reserved_room_is_kept() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    table.reserve(0, 3, Priority::Normal).unwrap();
    for random in 0..5 {
        new(table.submit(0, submission(random, b"")));
    }
    assert_eq!(table.submit(0, submission(5, b"")), Err(Error::Backpressure(100)));
    assert_eq!(table.reserve(0, 1, Priority::Normal), Err(Error::Backpressure(100)));
    assert!(
        matches!(table.reserve(0, 9, Priority::Normal), Err(Error::TooLarge(_))),
        "it will never fit"
    );
    assert_eq!(table.counters().refused, 2);
    let reserved = |random, payload| Submission { reserved: true, ..submission(random, payload) };
    new(table.submit(0, reserved(6, b"")));
    assert!(matches!(table.submit(0, reserved(7, &[0; 401])), Err(Error::TooLarge(_))));
    assert_eq!(table.free_room(), 1, "the refused one used its room up");
    table.release(1);
    assert_eq!(table.free_room(), 2);
    let long = [0; 401];
    assert!(matches!(table.submit(0, submission(9, &long)), Err(Error::TooLarge(_))));
}

#[test]
fn what_ended_first_is_forgotten_first() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    for random in 0..7 {
        let key = accepted(&mut table, random);
        let lease = table.start(key, 0);
        table.complete(lease, b"short").unwrap();
        table.ended(key);
        table.retain_within_limits();
    }
    let known: Vec<_> = (0..7).filter(|random| view(&table, *random).is_some()).collect();
    assert_eq!(known, [2, 3, 4, 5, 6]);
    let key = accepted(&mut table, 10);
    let lease = table.start(key, 0);
    table.complete(lease, &[0; 1_001]).unwrap();
    table.ended(key);
    table.retain_within_limits();
    assert_eq!(table.ended.len(), 0, "its result alone is beyond the limit of bytes");
}

#[test]
fn everybody_who_watches_is_told_once() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    let watchers = [1, 2, 3].map(|target| Watcher { target, correlation: 9 });
    let first = Submission { watcher: Some(watchers[0]), ..submission(1, b"") };
    let key = new(table.submit(0, first));
    table.accepted(key, 0, None);
    assert!(table.watch(1, watchers[1]) && table.watch(1, watchers[2]));
    assert!(!table.watch(2, watchers[0]), "no such task");
    assert!(table.unwatch(1, watchers[1]));
    assert!(!table.unwatch(1, watchers[1]));
    let lease = table.start(key, 0);
    table.complete(lease, b"").unwrap();
    table.ended(key);
    let told: Vec<_> = table.take_watchers(key).collect();
    assert_eq!(told, [watchers[0], watchers[2]]);
    assert_eq!(table.take_watchers(key).count(), 0);
    assert!(!table.watch(1, watchers[0]), "it has ended");
}
