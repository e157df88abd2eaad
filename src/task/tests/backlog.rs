//! Tasks beyond what memory should hold.

use super::*;

const DURABLE: Origin = Origin { durable: true, ..ORIGIN };

fn table() -> TaskTable {
    TaskTable::new(DURABLE, TableLimits { queue_overflow: 1_000, ..LIMITS })
}

fn push(table: &mut TaskTable, random: u128, change: impl Fn(Submission<'_>) -> Submission<'_>) {
    let one = change(submission(random, b"payload"));
    let transient = one.transient;
    let key = new(table.submit(0, one));
    let place = Place { generation: 1, offset: random as u32 };
    table.accepted(key, 0, (!transient).then_some(place));
}

fn warm(table: &mut TaskTable, cold: ColdKey, place: Place) -> bool {
    let task = Recorded {
        random: place.offset.into(),
        type_index: 0,
        priority: Priority::Normal,
        submitted_unix_ms: ORIGIN.zero_unix_ms,
        due_unix_ms: 0,
        timeout_ms: 77,
        max_attempts: 9,
        attempts: 0,
        key: None,
        payload: b"from the log",
    };
    table.warm(cold, &task)
}

#[test]
fn a_long_queue_is_cold_behind_its_first_and_comes_back_in_order() {
    let mut table = table();
    for random in 0..100 {
        push(&mut table, random, |one| one);
    }
    let counters = table.counters();
    assert_eq!((counters.queued, counters.cold), (100, 94));
    assert_eq!(table.cold_wanted(10), [], "there is enough in memory");
    let mut order = Vec::new();
    while let Some(key) = table.next(0) {
        let name = table.id(key).random;
        let payload = if name < 6 { &b"payload"[..] } else { b"from the log" };
        assert_eq!(table.payload(key), payload);
        order.push(name);
        let lease = table.start(key, 0);
        assert_eq!(table.deadline_ms(key), if name < 6 { 1_000 } else { 77 });
        table.complete(lease, b"").unwrap();
        table.ended(key);
        table.retain_within_limits();
        // The log's answers come in any order.
        for (cold, place) in table.cold_wanted(10).into_iter().rev() {
            assert!(warm(&mut table, cold, place));
        }
    }
    assert_eq!(order, (0..100).collect::<Vec<_>>());
    assert_eq!((table.counters().cold, table.unended()), (0, 0));
}

#[test]
fn who_must_stay_in_memory_keeps_its_turn_behind_cold_ones() {
    let mut table = table();
    let watcher = Some(Watcher { target: 5, correlation: 6 });
    for random in 0..20 {
        push(&mut table, random, |one| match random {
            10 => Submission { transient: true, ..one },
            11 => Submission { watcher, ..one },
            _ => one,
        });
    }
    assert_eq!(table.counters().cold, 12, "of twenty six are first, and two must stay");
    let watchers: Vec<Watcher> = table.take_watchers(table.key(11).unwrap()).collect();
    assert_eq!(watchers, watcher.into_iter().collect::<Vec<_>>());
    let mut order = Vec::new();
    while let Some(key) = table.next(0) {
        order.push(table.id(key).random);
        table.start(key, 0);
        for (cold, place) in table.cold_wanted(3) {
            assert!(warm(&mut table, cold, place));
        }
    }
    assert_eq!(order, (0..20).collect::<Vec<_>>());
}

#[test]
fn whoever_watches_a_cold_task_is_told_of_its_end() {
    let mut table = table();
    for random in 0..20 {
        push(&mut table, random, |one| one);
    }
    let watchers = [1, 2, 3].map(|target| Watcher { target, correlation: 0 });
    for watcher in watchers {
        assert!(table.watch(15, watcher));
    }
    assert!(table.unwatch(15, watchers[1]) && !table.unwatch(15, watchers[1]));
    assert_eq!(status(&table, 15), Some(TaskStatus::Queued));
    let key = table.cancel(15).unwrap().expect("it had not ended");
    table.ended(key);
    let told: Vec<Watcher> = table.take_watchers(key).collect();
    assert_eq!(told, [watchers[0], watchers[2]]);
    assert_eq!(status(&table, 15), Some(TaskStatus::Cancelled));
    assert_eq!(table.counters().queued, 19);
    assert!(table.watch(16, watchers[0]) && table.unwatch(16, watchers[0]));
    assert!(table.cold.watchers.is_empty());
}

#[test]
fn a_task_that_was_cancelled_while_the_log_was_asked_does_not_come_back() {
    let mut table = table();
    for random in 0..20 {
        push(&mut table, random, |one| one);
    }
    for _ in 0..5 {
        let key = table.next(0).unwrap();
        table.start(key, 0);
    }
    let wanted = table.cold_wanted(2);
    assert_eq!(wanted.len(), 2);
    let (cold, place) = wanted[0];
    assert!(table.cancel(place.offset.into()).unwrap().is_some());
    assert_eq!(table.wanted_place(cold), None);
    assert!(!warm(&mut table, cold, place));
    assert!(warm(&mut table, wanted[1].0, wanted[1].1));
}

#[test]
fn a_failing_backlog_does_not_fill_the_memory() {
    let mut table = table();
    for random in 0..100 {
        push(&mut table, random, |one| one);
    }
    let mut most = 0;
    for _ in 0..250 {
        let Some(key) = table.next(0) else { break };
        let lease = table.start(key, 0);
        if table.fail(lease, 0, "broken", true) == Ok(Failed::Last) {
            table.ended(lease.key);
            table.retain_within_limits();
        }
        for (cold, place) in table.cold_wanted(10) {
            let _ = warm(&mut table, cold, place);
        }
        most = most.max(table.counters().queued - table.counters().cold);
    }
    assert!(most <= 12, "{most} were in memory");
    assert!(table.counters().attempts_failed >= 250, "attempts go round");
}
