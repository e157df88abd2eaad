//! What bounds a table, and what it does at its bounds: ageing, pauses, keys, eviction.

use super::*;

#[test]
fn a_task_that_waits_becomes_as_urgent_as_one_of_the_next_priority() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    let submit = |table: &mut TaskTable, now_ms, random, priority| {
        let key = new(table.submit(now_ms, Submission { priority, ..submission(random, b"") }));
        table.accepted(key, now_ms, None);
        key
    };
    let low = submit(&mut table, 0, 1, Priority::Low);
    let normal = submit(&mut table, 1_000, 2, Priority::Normal);
    assert_eq!(table.next(0), Some(normal), "as urgent, and of the higher priority");
    let later = submit(&mut table, 1_001, 3, Priority::Normal);
    table.start(normal, 1_001);
    assert_eq!(table.next(0), Some(low), "it has waited for more than a step");
    table.start(low, 1_001);
    assert_eq!(table.next(0), Some(later));
}

#[test]
fn a_low_task_ends_though_critical_ones_keep_coming() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    let low = new(table.submit(0, Submission { priority: Priority::Low, ..submission(0, b"") }));
    table.accepted(low, 0, None);
    let steps = 3 * LIMITS.ageing_ms + 1;
    let begun = (0..=steps).find(|now_ms| {
        let random = u128::from(*now_ms) + 1;
        let critical = Submission { priority: Priority::Critical, ..submission(random, b"") };
        let key = new(table.submit(*now_ms, critical));
        table.accepted(key, *now_ms, None);
        let key = table.next(0).unwrap();
        let lease = table.start(key, *now_ms);
        table.complete(lease, b"").unwrap();
        table.ended(key);
        table.retain_within_limits();
        key == low
    });
    assert_eq!(begun, Some(steps), "its age outweighs three steps of priority, and no sooner");
}

#[test]
fn a_failed_task_pauses_before_it_is_tried_again() {
    let retry = RetryPolicy { base_ms: 100, max_ms: 150 };
    let mut table = TaskTable::new(ORIGIN, TableLimits { retry, ..LIMITS });
    let key = accepted(&mut table, 1);
    for (now_ms, whole) in [(0, 100), (1_000, 150)] {
        let lease = table.start(key, now_ms);
        let Ok(Failed::Again { due_ms }) = table.fail(lease, now_ms, "e", true) else { panic!() };
        assert!((now_ms + whole / 2..=now_ms + whole).contains(&due_ms), "{due_ms}");
        assert_eq!((table.next(0), table.next_due_ms()), (None, Some(due_ms)));
        assert_eq!(status(&table, 1), Some(TaskStatus::Delayed));
        assert!(!table.wake(due_ms - 1) && table.next(0).is_none());
        assert!(table.wake(due_ms));
        assert_eq!((table.next(0), table.next_due_ms()), (Some(key), None));
        assert_eq!(view(&table, 1).unwrap().error.as_deref(), Some("e"));
    }
    assert_eq!(table.counters().delayed, 0);
}

#[test]
fn a_delayed_task_waits_for_its_time_takes_room_and_can_be_cancelled() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    for random in 0..3 {
        let delay_ms = 100 * (3 - random as u64);
        let key = new(table.submit(50, Submission { delay_ms, ..submission(random, b"") }));
        table.accepted(key, 60, None);
    }
    assert_eq!((table.free_room(), table.next(0), table.next_due_ms()), (5, None, Some(150)));
    assert!(table.cancel(1).unwrap().is_some());
    assert!(table.wake(1_000));
    let order = [(); 2].map(|()| {
        let key = table.next(0).unwrap();
        table.start(key, 1_000);
        table.id(key).random
    });
    assert_eq!((order, table.next(0), table.free_room()), ([2, 0], None, 8));
}

#[test]
fn a_lease_can_be_extended_and_given_back() {
    let mut table = TaskTable::new(Origin { first_token: 77, ..ORIGIN }, LIMITS);
    let keys = [1, 2].map(|random| accepted(&mut table, random));
    let lease = table.start(keys[0], 10);
    assert_eq!(lease.token, 77);
    assert_eq!((table.last_lease(keys[0]), table.last_lease(keys[1])), (Some(lease), None));
    assert_eq!(table.extend(lease, 500, 2_000), Ok(2_500));
    assert_eq!(table.deadline_ms(keys[0]), 2_500);
    assert_eq!(table.give_back(lease), Ok(()));
    assert_eq!((table.next(0), table.attempts(keys[0])), (Some(keys[0]), 0));
    assert_eq!(table.give_back(lease), Err(Stale));
    assert_eq!(table.extend(lease, 500, 1), Err(Stale));
    let again = table.start(keys[0], 600);
    assert_eq!((again.token, table.attempts(keys[0])), (78, 1));
    assert_eq!(table.complete(lease, b""), Err(Stale));
}

fn key(bytes: &[u8], body_hash: u64) -> Option<Key<'_>> {
    Some(Key { bytes, body_hash })
}

#[test]
fn a_second_submission_with_a_key_is_the_first_until_the_key_expires() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    let with = |random, key| Submission { key, ..submission(random, b"") };
    let first = new(table.submit(100, with(1, key(b"k", 7))));
    let same = Ok(Submitted::Existing(TaskId { partition: 0, random: 1 }));
    assert_eq!(table.submit(100, with(2, key(b"k", 7))), same, "not yet accepted");
    table.accepted(first, 100, None);
    let lease = table.start(first, 100);
    table.complete(lease, b"").unwrap();
    table.ended(first);
    assert_eq!(table.submit(5_999, with(3, key(b"k", 7))), same, "it has ended");
    let other = table.submit(5_999, with(3, key(b"k", 8)));
    assert!(matches!(other, Err(Error::Conflict(_))), "{other:?}");
    new(table.submit(6_000, with(4, key(b"k", 8))));
    assert_eq!(table.counters().repeated, 2);
    for bytes in [&b""[..], &[0; KEY_BYTES_MAX + 1]] {
        let wrong = table.submit(6_000, with(5, key(bytes, 8)));
        assert!(matches!(wrong, Err(Error::Invalid(_))), "{wrong:?}");
    }
}

#[test]
fn a_shard_remembers_no_more_keys_than_it_may() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    for (random, name) in (1..).zip([b"a", b"b", b"c"]) {
        new(table.submit(0, Submission { key: key(name, 0), ..submission(random, b"") }));
    }
    let one_more = Submission { key: key(b"d", 0), ..submission(9, b"") };
    assert_eq!(table.submit(4_900, one_more), Err(Error::Backpressure(100)));
    let known = Submission { key: key(b"a", 0), ..submission(9, b"") };
    assert!(matches!(table.submit(0, known), Ok(Submitted::Existing(_))));
    new(table.submit(0, submission(8, b"")));
    assert_eq!(table.next_due_ms(), Some(5_000), "keys expire by themselves");
    assert!(!table.wake(5_000));
    assert_eq!((table.counters().keys, table.next_due_ms()), (0, None));
    new(table.submit(5_000, one_more));
}

/// A table that is full: per priority, from low to critical, a transient task and a durable one.
fn full(drop_policy: DropPolicy) -> TaskTable {
    let mut table = TaskTable::new(ORIGIN, TableLimits { drop_policy, ..LIMITS });
    for (random, priority) in (0..).step_by(2).zip(Priority::ALL.into_iter().rev()) {
        for transient in [true, false] {
            let random = random + u128::from(!transient);
            let one = Submission { transient, priority, ..submission(random, b"pay") };
            let now_ms = random as u64;
            let key = new(table.submit(now_ms, one));
            table.accepted(key, now_ms, None);
        }
    }
    assert_eq!(table.free_room(), 0);
    table
}

fn evicted(table: &mut TaskTable) -> Vec<u128> {
    let mut names = Vec::new();
    while let Some(key) = table.next_evicted() {
        assert!(table.is_transient(key));
        let (id, status, error) = table.end_of(key);
        assert_eq!(status, TaskStatus::Dead);
        assert!(error.starts_with(b"evicted"));
        names.push(id.random);
        table.ended(key);
    }
    names
}

#[test]
fn a_full_queue_evicts_what_its_policy_allows_and_nothing_durable() {
    let one = |random, priority| Submission { priority, ..submission(random, b"") };
    let mut table = full(DropPolicy::Reject);
    assert!(table.submit(9, one(9, Priority::Critical)).is_err());
    assert!(evicted(&mut table).is_empty());

    let mut table = full(DropPolicy::Oldest);
    new(table.submit(9, one(9, Priority::Low)));
    assert_eq!(evicted(&mut table), [0]);
    assert_eq!(table.reserve(9, 4, Priority::Low).ok(), None, "there are but three");
    assert!(evicted(&mut table).is_empty(), "all or none");
    table.reserve(9, 3, Priority::Low).unwrap();
    assert_eq!((evicted(&mut table), table.counters().evicted), (vec![2, 4, 6], 4));

    let mut table = full(DropPolicy::LowPriority);
    assert!(table.submit(9, one(9, Priority::Low)).is_err(), "nothing is lower");
    new(table.submit(9, one(9, Priority::High)));
    new(table.submit(9, one(10, Priority::High)));
    assert_eq!(evicted(&mut table), [6, 4], "the lowest first");
    assert!(table.submit(9, one(11, Priority::High)).is_err(), "only its equals are left");
    let seen = view(&table, 6).unwrap();
    assert_eq!((seen.status, table.counters().dead_letters), (TaskStatus::Dead, 0));
    assert!(matches!(table.requeue(6, 9), Err(Error::Conflict(_))));
}
