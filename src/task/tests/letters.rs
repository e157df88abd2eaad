//! Dead letters and lists.

use super::*;

#[test]
fn a_dead_letter_can_be_queued_again_and_starts_anew() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    let key = new(table.submit(0, submission(1, b"payload")));
    table.accepted(key, 0, None);
    assert!(matches!(table.requeue(1, 5), Err(Error::Conflict(_))));
    assert!(matches!(table.requeue(2, 5), Err(Error::NotFound(_))));
    kill(&mut table, 5);
    assert_eq!(table.counters().dead_letters, 1);
    assert_eq!((table.unended(), status(&table, 1)), (0, Some(TaskStatus::Dead)));
    assert_eq!(table.cancel(1), Ok(None));
    let requeued = table.requeue(1, 6).unwrap();
    assert_eq!((requeued, status(&table, 1)), (key, Some(TaskStatus::Dead)));
    let (letters, _) = table.dead(0, 10, |_| String::new());
    assert_eq!((letters.len(), table.next(0)), (1, None), "the log does not have it");
    assert!(matches!(table.requeue(1, 6), Err(Error::Conflict(_))));
    // Whoever waits for its end has it, and is not forgotten when the task becomes cold.
    assert!(!table.watch(1, Watcher { target: 1, correlation: 1 }));
    assert_eq!((table.end_of(key).1, table.cancel(1)), (TaskStatus::Dead, Ok(None)));
    table.requeued(key, 6);
    assert!(table.watch(1, Watcher { target: 1, correlation: 1 }));
    assert_eq!((table.unended(), status(&table, 1)), (1, Some(TaskStatus::Queued)));
    let lease = table.start(key, 6);
    assert_eq!((table.attempts(key), table.payload(key)), (1, &b"payload"[..]));
    table.complete(lease, b"good").unwrap();
    table.ended(key);
    assert_eq!(view(&table, 1).unwrap().result.as_deref(), Some(&b"good"[..]));
    let counters = table.counters();
    assert_eq!((counters.dead_letters, counters.requeued, counters.done), (0, 1, 1));
}

#[test]
fn dead_letters_outlive_other_ends_and_the_oldest_is_purged_first() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    for random in 0..4 {
        accepted(&mut table, random);
        kill(&mut table, 0);
    }
    for random in 10..20 {
        let key = accepted(&mut table, random);
        let lease = table.start(key, 0);
        table.complete(lease, b"").unwrap();
        table.ended(key);
        table.retain_within_limits();
    }
    let known: Vec<u128> = (0..20).filter(|random| status(&table, *random).is_some()).collect();
    assert_eq!(known, [1, 2, 3, 15, 16, 17, 18, 19]);
    assert_eq!(table.counters().purged, 1);
    assert_eq!(table.next_purged(), None, "no log has it");
}

#[test]
fn requeueing_needs_room() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    accepted(&mut table, 1);
    kill(&mut table, 0);
    table.reserve(0, 8, Priority::Normal).unwrap();
    assert!(matches!(table.requeue(1, 0), Err(Error::Backpressure(_))));
    table.release(1);
    table.requeue(1, 0).unwrap();
}

#[test]
fn a_list_shows_every_task_once_a_page_at_a_time() {
    let mut table = TaskTable::new(ORIGIN, LIMITS);
    for random in 0..6 {
        let type_index = (random % 2) as u16;
        let key = new(table.submit(0, Submission { type_index, ..submission(random, b"") }));
        table.accepted(key, 0, None);
    }
    new(table.submit(0, submission(6, b"")));
    let dead = kill(&mut table, 0);
    let running = table.next(1).unwrap();
    table.start(running, 0);
    let (dead, running) = (table.id(dead).random, table.id(running).random);
    let all = |filter: ListFilter, max| {
        let (mut names, mut cursor) = (Vec::new(), Some(0));
        while let Some(at) = cursor {
            let (page, next) = table.list(filter, at, max, |_| String::new());
            assert!(page.len() <= max);
            names.extend(page.iter().map(|view| view.id.random));
            cursor = next;
        }
        names.sort_unstable();
        names
    };
    for max in [1, 2, 5, 100] {
        assert_eq!(all(ListFilter::default(), max), [0, 1, 2, 3, 4, 5]);
        let of_type = ListFilter { type_index: Some(1), ..ListFilter::default() };
        assert_eq!(all(of_type, max), [1, 3, 5]);
        let runs = ListFilter { status: Some(TaskStatus::Running), ..ListFilter::default() };
        assert_eq!(all(runs, max), [running]);
    }
    let (letters, cursor) = table.dead(0, 10, |_| String::new());
    assert_eq!((letters[0].id.random, letters.len(), cursor), (dead, 1, None));
    assert_eq!(letters[0].error.as_deref(), Some("broken"));
}
