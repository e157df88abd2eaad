//! Segments are made ahead, freed and used again; a full disk refuses and recovers.

use super::*;
use crate::consensus::writer::Job;

/// Writes until `done` says so.
fn fill(log: &mut Log, mut done: impl FnMut(&Log) -> bool) {
    for number in 0..10_000 {
        if done(log) {
            return;
        }
        log.write_one(number, 9000);
    }
    panic!("it never happened");
}

#[test]
fn a_full_disk_refuses_submissions_takes_ends_as_long_as_it_can_and_recovers() {
    let disk = SimulatedDisk::default();
    disk.set_capacity(Some(2 * SEGMENT_BYTES as usize));
    let (mut log, _) = Log::open(&disk);
    log.help();
    assert!(log.writer.has_room(), "one more segment was made ahead");
    fill(&mut log, |log| log.writer.directory().segment(2).is_some());
    assert!(!log.writer.has_room(), "no segment is ahead, and none can be made");
    let body = [3; 9000];
    let mut taken = 0;
    let waiting = loop {
        let block = log.block(0, &[ended(1000, &body)]);
        match log.offer(0, block).expect("the disk works") {
            Some(block) => break block,
            None => log.writer.write().expect("the disk works"),
        }
        taken += 1;
    };
    assert!(taken >= 2, "{taken} ends found room after submissions were refused");
    assert!(!log.writer.has_gathered());
    log.help();
    assert!(!log.writer.has_room(), "the disk is still full");

    disk.set_capacity(None);
    log.help();
    assert!(log.writer.has_room());
    assert!(log.offer(0, waiting).expect("the disk works").is_none());
    log.writer.write().expect("the disk works");
    let (_, replayed) = Log::open(&disk.restarted());
    assert_eq!(replayed.last().map(|entry| entry.bytes.clone()), Some(encoded(ended(1000, &body))));
}

#[test]
fn a_log_without_room_for_its_first_segment_is_not_opened() {
    let disk = SimulatedDisk::default();
    disk.set_capacity(Some(SEGMENT_BYTES as usize - 1));
    let survey = read(&disk).0;
    let error = Writer::resume(disk, GEOMETRY, &survey, 7).map(drop).expect_err("there is no room");
    assert!(error.to_string().starts_with("a first segment of the log cannot be made"), "{error}");
}

#[test]
fn a_failed_write_acknowledges_nothing_and_nothing_is_written_after_it() {
    for fails in 0..6 {
        let disk = SimulatedDisk::default();
        let (mut log, _) = Log::open(&disk);
        log.help();
        disk.fail_write_after(fails);
        let mut acknowledged = Vec::new();
        for number in 0.. {
            let block = log.block(0, &[ended(number, b"x")]);
            match log.write(vec![(0, block)]) {
                Ok(committed) => acknowledged.extend(committed.iter().map(|_| number)),
                Err(_) => break,
            }
        }
        assert_eq!(log.written.len(), 0);
        let writes = disk.writes();
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| log.writer.seal()));
        assert!(refused.is_err() && disk.writes() == writes, "a log that failed is not written");
        assert_eq!(acknowledged.len() as u64, fails);
        assert_eq!(numbers(&read(&disk.restarted()).1), acknowledged);
    }
}

#[test]
fn a_disk_that_cannot_sync_what_was_read_is_not_used() {
    let disk = SimulatedDisk::default();
    drop(Log::open(&disk));
    disk.fail_syncs();
    let survey = read(&disk).0;
    let error = Writer::resume(disk, GEOMETRY, &survey, 7).map(drop).expect_err("no sync");
    assert!(error.to_string().contains("cannot be synced"), "{error}");
}

#[test]
fn cleaning_frees_the_oldest_segments_and_their_stale_groups_are_never_read_again() {
    let disk = SimulatedDisk::default();
    let (mut log, _) = Log::open(&disk);
    log.help();
    let mut number = 0;
    let mut reused = 0;
    while reused < 12 {
        log.write_one(number, 9000);
        number += 1;
        let target = log.writer.move_before();
        if target == 0 {
            continue;
        }
        // One record lives in what is freed: it is moved.
        let copy = log.block(0, &[ended(u128::MAX, b"moved")]);
        log.write(vec![(0, copy)]).expect("the disk works");
        for lane in 0..2 {
            assert_eq!(log.writer.move_before(), target, "both shards must have moved");
            let mut moved = Block::new(0);
            moved.moved_before = target;
            log.write(vec![(lane, moved)]).expect("the disk works");
        }
        if log.writer.needs_announcement() {
            log.writer.announce().expect("the disk works");
        }
        assert_eq!(log.writer.move_before(), 0);
        assert_eq!(log.writer.directory().segment(target - 1), None);
        log.help();
        reused += 1;

        let (survey, replayed) = read(&disk);
        assert_eq!(survey.findings, []);
        let found = numbers(&replayed);
        assert!(found.contains(&u128::MAX), "what was moved is kept");
        assert!(replayed.iter().all(|entry| entry.place.generation >= target), "and only that");
        let fresh: Vec<_> = found.into_iter().filter(|number| *number != u128::MAX).collect();
        let expected: Vec<_> = (number - fresh.len() as u128..number).collect();
        assert_eq!(fresh, expected, "the rest is the newest part, once and in order");
    }
    let segments = read(&disk).0.segments.len() as u64;
    assert!(segments * SEGMENT_BYTES <= GEOMETRY.keep_bytes + 4 * SEGMENT_BYTES, "{segments}");
}

#[test]
fn a_log_that_nobody_cleans_refuses_submissions_at_twice_its_limit() {
    let disk = SimulatedDisk::default();
    let (mut log, _) = Log::open(&disk);
    log.help();
    fill(&mut log, |log| !log.writer.has_room());
    let in_use = read(&disk).0.segments.iter().filter(|found| found.groups > 0).count() as u64;
    assert_eq!(in_use * SEGMENT_BYTES, 2 * GEOMETRY.keep_bytes + SEGMENT_BYTES);
}

#[test]
fn segments_of_another_size_are_read_and_then_replaced() {
    let disk = SimulatedDisk::default();
    let (mut log, _) = Log::open(&disk);
    log.help();
    log.write_one(1, 9000);
    let survey = read(&disk).0;
    let larger = Geometry { segment_bytes: 2 * SEGMENT_BYTES, ..GEOMETRY };
    let mut writer = Writer::resume(disk.clone(), larger, &survey, 7).expect("the disk works");
    let mut jobs = Vec::new();
    while let Some(job) = writer.next_job() {
        let result = job.run(&mut disk.clone(), larger.segment_bytes);
        result.as_ref().expect("the disk works");
        writer.job_done(&result);
        jobs.push(job);
    }
    let removed = jobs.iter().filter(|job| matches!(job, Job::Remove(_))).count();
    assert_eq!((jobs.len(), removed), (4, 2), "{jobs:?}");
    assert_eq!(numbers(&read(&disk).1), [1]);
}
