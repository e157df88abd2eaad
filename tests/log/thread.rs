//! The log thread in this process: rooms that fill up, cleaning, stopping, reading back.

use super::{MIB, Node, Scratch, body, ended, next_committed, settings};
use coreflow::{
    consensus::{
        files::SegmentFolder,
        place::Position,
        reader::ReadError,
        record::Record,
        survey::survey,
        writer::{Geometry, Writer},
    },
    runtime::executor::{self, spawn_pinned},
};
use std::{fs, path::Path, process::Command};

#[test]
fn what_was_sent_before_a_stop_is_there_after_it() {
    let folder = Scratch::new("stop");
    for life in 0..5_u128 {
        let (mut node, replayed) = Node::open(settings(&folder.0, 1, 4)).expect("it opens");
        assert_eq!(replayed.len() as u128, life * 200);
        let mut known = [None; 2];
        for number in life * 200..(life + 1) * 200 {
            let lane = number as usize % 2;
            node.lane(lane).append(ended(lane, number, &body(number, 500)));
            node.lane(lane).flush();
            while let Some(committed) = next_committed(node.lane(lane)) {
                known[lane] = Some(committed.upto);
            }
        }
        node.wait("all blocks leave", |lane| {
            lane.flush();
            while next_committed(lane).is_some() {}
            !lane.has_departures()
        });
        let last = node.log.lanes[1].append_position();
        // What was told above is not told again.
        if known[1] < Some(last) {
            node.commit(1, last, &[]);
        }
        node.log.thread.stop();
    }
}

#[test]
fn a_full_disk_refuses_submissions_and_goes_on_when_there_is_room() {
    let folder = Scratch::new("full");
    let mounted = Mounted::new(&folder.0, 7 * MIB / 2);
    let Some(mounted) = mounted else {
        println!("skipped: only root mounts a file system");
        return;
    };
    let (mut node, _) = Node::open(settings(&folder.0, 1, 64)).expect("it opens");
    let mut number = 0;
    let mut append = |node: &mut Node| {
        let body = body(number, 20_000);
        let (position, _) = node.lane(0).append(ended(0, number, &body));
        number += 1;
        node.lane(0).flush();
        position
    };
    while node.lane(0).has_room() {
        let position = append(&mut node);
        node.commit(0, position, &[]);
    }
    // Ends are taken as long as there is room for them, and then wait.
    let mut last = append(&mut node);
    for _ in 0..200 {
        last = append(&mut node);
    }
    assert!(!node.lane(0).has_room());
    mounted.resize(64 * MIB);
    node.commit(0, last, &[]);
    node.wait("there is room again", |lane| lane.has_room());
    drop(node);
    let (_, replayed) = Node::open(settings(&folder.0, 1, 64)).expect("it opens");
    assert_eq!(replayed.len() as u128, number);
}

#[test]
fn a_log_without_work_is_sealed_and_one_over_the_page_cache_is_the_same() {
    let folder = Scratch::new("seal");
    let groups = |folder: &Path| {
        let mut disk = SegmentFolder::new(folder, false);
        let found = survey(&mut disk, &mut |_, _| {}).expect("it can be read");
        assert_eq!(found.findings, []);
        found.segments.iter().map(|segment| segment.groups).sum::<u64>()
    };
    let (mut node, _) = Node::open(settings(&folder.0, 1, 4)).expect("it opens");
    let (position, _) = node.lane(0).append(ended(0, 1, &body(1, 900)));
    node.commit(0, position, &[]);
    node.wait("the seal", |_| groups(&folder.0) == 4);
    node.log.thread.stop();
    assert_eq!(groups(&folder.0), 4, "it was sealed already");

    // The same log, written on by a folder that cannot be written past the page cache.
    let mut disk = SegmentFolder::new(&folder.0, false);
    let found = survey(&mut disk, &mut |_, _| {}).expect("it can be read");
    let geometry = Geometry { segment_bytes: MIB, keep_bytes: 4 * MIB, partitions: 1 };
    let mut writer = Writer::resume(disk, geometry, &found, 0).expect("it can be written");
    writer.seal().expect("it can be written");
    drop(writer);
    let (node, replayed) = Node::open(settings(&folder.0, 1, 4)).expect("it opens");
    assert_eq!((node.log.epoch, replayed.len(), groups(&folder.0)), (3, 1, 8));
}

/// A small file system in memory, until it is dropped.
struct Mounted(String);

impl Mounted {
    fn new(folder: &Path, bytes: u64) -> Option<Self> {
        let path = folder.to_str().expect("the path is UTF-8").to_owned();
        let size = format!("size={bytes}");
        let words = ["-t", "tmpfs", "-o", &size, "tmpfs", &path];
        let status = Command::new("mount").args(words).status().expect("mount is there");
        status.success().then_some(Self(path))
    }

    fn resize(&self, bytes: u64) {
        let size = format!("remount,size={bytes}");
        let status = Command::new("mount").args(["-o", &size, &self.0]).status();
        assert!(status.expect("mount is there").success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", &self.0]).status();
    }
}

#[test]
fn cleaning_keeps_the_folder_small_and_what_lives_alive() {
    const LIVING: u128 = 50;
    let folder = Scratch::new("clean");
    let (mut node, _) = Node::open(settings(&folder.0, 1, 4)).expect("it opens");
    let mut number = LIVING;
    let mut moves = 0;
    for lane in 0..2 {
        let last = append_living(&mut node, lane, LIVING);
        node.commit(lane, last, &[]);
    }
    while moves < 10 {
        for lane in 0..2 {
            let before = node.lane(lane).move_before();
            if before > 0 {
                append_living(&mut node, lane, LIVING);
                node.lane(lane).moved_before(before);
                moves += 1;
            }
            let body = vec![7; 10_000];
            let (position, _) = node.lane(lane).append(ended(lane, number, &body));
            number += 1;
            node.commit(lane, position, &[]);
        }
        assert!(number < 100_000, "the log is never cleaned");
    }
    drop(node);
    let files = fs::read_dir(&folder.0).expect("the folder is there").count();
    assert!(files <= 4 + 5, "{files} files for 4 MiB in segments of 1 MiB");
    let (_, replayed) = Node::open(settings(&folder.0, 1, 4)).expect("it opens");
    for lane in 0..2 {
        for living in 0..LIVING {
            let number = living | lane << 64;
            assert_eq!(replayed[&number].0, body(number, 400), "{number}");
        }
    }
    let fresh = replayed.keys().filter(|number| (LIVING..1 << 64).contains(*number));
    assert!((fresh.count() as u128) < number - LIVING, "something was freed");
}

fn append_living(node: &mut Node, lane: usize, living: u128) -> Position {
    let mut last = Position(0);
    for number in 0..living {
        let number = number | (lane as u128) << 64;
        last = node.lane(lane).append(ended(lane, number, &body(number, 400))).0;
    }
    last
}

#[test]
fn records_are_read_back_from_their_places_on_an_executor() {
    let folder = Scratch::new("read");
    let (mut node, _) = Node::open(settings(&folder.0, 4, 64)).expect("it opens");
    let mut offsets = Vec::new();
    let mut bodies = Vec::new();
    for number in 0..3000 {
        // A few are longer than what is read at a time.
        let body = body(number, if number % 500 == 0 { 300_000 } else { 900 });
        offsets.push(node.lane(0).append(ended(0, number, &body)));
        bodies.push(body);
    }
    let last = offsets.last().expect("there are records").0;
    let places = node.commit(0, last, &offsets);
    assert_eq!(places.len(), bodies.len());
    let reader = node.log.reader.clone();
    let settings = executor::Settings { cpu: 0, ring_depth: 32, io_memory: 1 << 16 };
    let core = spawn_pinned("reader", &settings, move || async move {
        let mut reader = reader.on_core();
        let mut random = fastrand::Rng::with_seed(3);
        let in_order = 0..bodies.len();
        let anywhere: Vec<_> = (0..500).map(|_| random.usize(..bodies.len())).collect();
        for index in in_order.chain(anywhere) {
            let hint = random.usize(..100_000);
            let record = reader.record(places[index], hint).await.expect("it is there");
            assert_eq!(record, ended(0, index as u128, &bodies[index]));
        }
        let mut wrong = places[0];
        wrong.offset += 1;
        let error = reader.record(wrong, 100).await.expect_err("no record begins there");
        assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
        wrong.generation = 99;
        let error = reader.record(wrong, 100).await.expect_err("there is no such generation");
        assert!(matches!(error, ReadError::Gone(99)), "{error}");
    });
    core.expect("the executor starts").join().expect("nothing failed on the core");
}

#[test]
fn a_record_that_is_written_after_its_window_was_read_is_read_again() {
    let folder = Scratch::new("window");
    let (mut node, _) = Node::open(settings(&folder.0, 4, 64)).expect("it opens");
    let mut places = Vec::new();
    let settings = executor::Settings { cpu: 0, ring_depth: 32, io_memory: 1 << 16 };
    let (ask, asked) = std::sync::mpsc::sync_channel(0);
    let (answer, answered) = std::sync::mpsc::channel();
    let reader = node.log.reader.clone();
    let core = spawn_pinned("reader", &settings, move || async move {
        let mut reader = reader.on_core();
        while let Ok(place) = asked.recv() {
            let record = reader.record(place, 100).await.map(|record| match record {
                Record::Ended { body, .. } => body.to_vec(),
                other => panic!("{other:?} was written"),
            });
            answer.send(record).expect("the test waits");
        }
    });
    for number in 0..20 {
        let body = body(number, 900);
        let (position, offset) = node.lane(0).append(ended(0, number, &body));
        places.extend(node.commit(0, position, &[(position, offset)]));
        for (number, place) in (0..).zip(&places) {
            ask.send(*place).expect("the reader runs");
            let found = answered.recv().expect("the reader runs").expect("it is there");
            assert_eq!(found, super::body(number, 900));
        }
    }
    drop(ask);
    core.expect("the executor starts").join().expect("nothing failed on the core");
}

#[test]
fn a_segment_that_is_used_again_gives_back_nothing_of_its_earlier_life() {
    let folder = Scratch::new("again");
    let (mut node, _) = Node::open(settings(&folder.0, 1, 4)).expect("it opens");
    let settings = executor::Settings { cpu: 0, ring_depth: 32, io_memory: 1 << 16 };
    let (ask, asked) = std::sync::mpsc::sync_channel::<coreflow::consensus::Place>(0);
    let (answer, answered) = std::sync::mpsc::channel();
    let reader = node.log.reader.clone();
    let core = spawn_pinned("reader", &settings, move || async move {
        let mut reader = reader.on_core();
        while let Ok(place) = asked.recv() {
            let record = reader.record(place, 100).await.map(|record| record.id().random);
            answer.send(record).expect("the test waits");
        }
    });
    let body = vec![5; 15_000];
    let (mut number, mut generations) = (0, Vec::new());
    // Until some files are in their third life: records of one size lie in the same places.
    while generations.len() < 14 {
        let (position, offset) = node.lane(0).append(ended(0, number, &body));
        let places = node.commit(0, position, &[(position, offset)]);
        ask.send(places[0]).expect("the reader runs");
        let found = answered.recv().expect("the reader runs").expect("it is there");
        assert_eq!(found, number, "at {:?}", places[0]);
        if generations.last() != Some(&places[0].generation) {
            generations.push(places[0].generation);
        }
        number += 1;
        // Nothing lives.
        for lane in 0..2 {
            let before = node.lane(lane).move_before();
            if before > 0 {
                node.lane(lane).moved_before(before);
                node.lane(lane).flush();
                while next_committed(node.lane(lane)).is_some() {}
            }
        }
        assert!(number < 20_000, "{generations:?}");
    }
    let files = fs::read_dir(&folder.0).expect("the folder is there").count();
    assert!(files < generations.len(), "{files} files for {} lives", generations.len());
    drop(ask);
    core.expect("the executor starts").join().expect("nothing failed on the core");
}
