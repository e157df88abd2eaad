//! What is read after a crash, and after bits have changed.

use super::*;
use crate::consensus::{
    damage::Damage,
    format::{GroupHead, PAGE_BYTES},
    group::Group,
    simulated::{SECTOR_BYTES, Tear},
};

const PAGE: u64 = PAGE_BYTES as u64;

/// A log of two segments, with the begin of each of its groups.
fn two_segments(sealed: bool) -> (SimulatedDisk, Vec<(u32, u64)>) {
    let disk = SimulatedDisk::default();
    let (mut log, _) = Log::open(&disk);
    log.help();
    for number in 0..20 {
        log.write_one(number, 4000 + 150 * number as usize);
    }
    if sealed {
        log.writer.seal().expect("the disk works");
    }
    let (survey, replayed) = read(&disk);
    assert_eq!((survey.findings.len(), replayed.len()), (0, 20));
    let mut groups = Vec::new();
    for found in survey.segments.iter().filter(|found| found.groups > 0) {
        let content = disk.content(found.number);
        let mut offset = PAGE;
        for _ in 0..found.groups {
            groups.push((found.number, offset));
            let head = GroupHead::decode(7, &content[offset as usize..]).expect("intact");
            offset += head.padded_bytes();
        }
        assert_eq!(offset, found.end);
    }
    assert!(survey.segments.iter().filter(|found| found.groups > 2).count() >= 2);
    (disk, groups)
}

#[test]
fn a_write_that_was_cut_off_at_any_sector_takes_only_itself_away() {
    let body = vec![5; 9000];
    let sectors = (9000_usize + 200).next_multiple_of(PAGE_BYTES) / SECTOR_BYTES;
    let scattered = (0..200).map(Tear::Scattered);
    for tear in (0..=sectors).map(Tear::Prefix).chain(scattered) {
        let disk = SimulatedDisk::default();
        let (mut log, _) = Log::open(&disk);
        log.help();
        for number in 0..3 {
            log.write_one(number, 3000);
        }
        disk.tear_next_write(tear);
        let block = log.block(0, &[ended(3, &body)]);
        log.write(vec![(0, block)]).expect_err("the power is lost");
        assert_eq!(log.written.len(), 0, "{tear:?}: nothing is acknowledged");

        let disk = disk.restarted();
        let (mut log, replayed) = Log::open(&disk);
        let found = numbers(&replayed);
        assert!(found == [0, 1, 2] || found == [0, 1, 2, 3], "{tear:?}: {found:?}");
        if tear == Tear::Prefix(sectors) {
            assert_eq!(found.len(), 4, "what was written whole is kept");
        }
        // The log goes on over the rest of what was torn.
        log.help();
        log.write_one(9, 100);
        let (_, replayed) = Log::open(&disk.restarted());
        assert_eq!(numbers(&replayed), [&found[..], &[9]].concat(), "{tear:?}");
    }
}

#[test]
fn a_changed_bit_in_what_was_acknowledged_is_named_wherever_it_is() {
    let (disk, groups) = two_segments(true);
    let (_, intact) = read(&disk);
    let mut random = fastrand::Rng::with_seed(1);
    let last = *groups.last().expect("there are groups");
    for (index, &(segment, begin)) in groups.iter().enumerate() {
        let end = groups.get(index + 1).filter(|(of, _)| *of == segment).map(|(_, begin)| *begin);
        // The last group is the seal, which protects all before it and is not protected itself;
        // the last one of a segment is protected by the next segment.
        if (segment, begin) == last {
            continue;
        }
        let end = end.unwrap_or_else(|| {
            let head = GroupHead::decode(7, &disk.content(segment)[begin as usize..]);
            begin + head.expect("intact").padded_bytes()
        });
        let head_and_first_record = (begin..begin + 160).chain(end - 64..end);
        let others = (begin + 160..end - 64).step_by(97);
        for offset in head_and_first_record.chain(others) {
            let bit = random.u8(..8);
            disk.flip(segment, offset as usize, bit);
            let (survey, replayed) = read(&disk);
            disk.flip(segment, offset as usize, bit);
            let place = format!("bit {bit} of byte {offset} of segment {segment}");
            let named =
                survey.findings.iter().map(|finding| (finding.file.clone(), finding.offset));
            let expected = (super::super::format::segment_name(segment), begin);
            assert_eq!(named.collect::<Vec<_>>(), [expected], "{place}");
            assert!(replayed.iter().all(|entry| intact.contains(entry)), "{place}");
            assert_eq!(replayed.len(), intact.len() - usize::from(begin > PAGE || segment > 1));
        }
    }
}

#[test]
fn a_changed_bit_in_the_head_of_a_segment_is_named() {
    let (disk, groups) = two_segments(true);
    let segments: std::collections::BTreeSet<u32> =
        groups.iter().map(|(segment, _)| *segment).collect();
    for segment in segments {
        for offset in (0..80).chain((80..PAGE_BYTES).step_by(101)) {
            disk.flip(segment, offset, 3);
            let (survey, _) = read(&disk);
            disk.flip(segment, offset, 3);
            let finding = &survey.findings[0];
            assert!(
                finding.file.contains(&format!("{segment:06}")),
                "{segment} {offset}: {finding}"
            );
        }
    }
}

#[test]
fn the_one_ambiguity_is_the_very_last_group_without_a_seal() {
    let (disk, groups) = two_segments(false);
    let &(segment, begin) = groups.last().expect("there are groups");
    for offset in [0, 9, 17, 30, 70, 100, 2000] {
        disk.flip(segment, begin as usize + offset, 0);
        let (survey, replayed) = read(&disk);
        disk.flip(segment, begin as usize + offset, 0);
        assert_eq!(survey.findings, [], "it looks like a write that was cut off");
        let torn = survey.torn.expect("and leaves a trace");
        assert_eq!((torn.segment, torn.offset), (segment, begin), "byte {offset}");
        assert_eq!(numbers(&replayed), (0..19).collect::<Vec<_>>());
    }
}

#[test]
fn a_file_that_was_cut_off_is_named() {
    let (disk, groups) = two_segments(true);
    let first = groups[0].0;
    let newest = groups.last().expect("there are groups").0;
    for segment in [first, newest] {
        for bytes in [0, 100, 4096, 5000, 8192, 30_000, 65_024] {
            let disk = disk.restarted();
            disk.truncate(segment, bytes);
            let (survey, _) = read(&disk);
            let cut = |finding: &super::super::damage::Finding| {
                finding.file.contains(&format!("{segment:06}"))
                    && matches!(finding.damage, Damage::SegmentCut { .. })
            };
            assert!(survey.findings.iter().any(cut), "{segment} {bytes}: {:?}", survey.findings);
        }
    }
}

#[test]
fn a_file_that_is_missing_or_copied_or_strange_is_named() {
    let (disk, groups) = two_segments(true);
    let damage = |disk: &SimulatedDisk| {
        read(disk).0.findings.into_iter().map(|finding| finding.damage).collect::<Vec<_>>()
    };
    let first = groups[0].0;
    let content = disk.content(first);

    let missing = disk.restarted();
    missing.clone().remove(first).expect("it is there");
    assert_eq!(damage(&missing), [Damage::GenerationMissing(1)]);

    let copied = disk.restarted();
    copied.clone().make(90, content.len() as u64).expect("there is room");
    copied.replace(90, 0, &content);
    assert_eq!(damage(&copied), [Damage::GenerationTwice(1)]);

    let strange = SimulatedDisk::default();
    let survey = read(&strange).0;
    Writer::resume(strange.clone(), GEOMETRY, &survey, 8).map(drop).expect("the disk works");
    copied.replace(90, 0, &strange.content(1));
    assert_eq!(damage(&copied), [Damage::OtherNode]);
}

#[test]
fn a_group_of_another_generation_or_node_is_no_part_of_the_log() {
    let (disk, groups) = two_segments(true);
    let (survey, intact) = read(&disk);
    let end = survey.end.expect("the log was used");
    let newest = groups.last().expect("there are groups").0;
    let at = survey.segments.iter().find(|found| found.number == newest).expect("found").end;
    for (node, generation) in [(7, end.generation - 1), (8, end.generation)] {
        let mut group = Group::default();
        let mut block = Block::new(0);
        block.push(Position(21), ended(99, b"stale"));
        let head = BlockHead::new(BlockKind::Records, 0, 1, 1, block.bytes());
        group.add(&head, block.bytes());
        let sequence = end.sequence;
        let head = GroupHead {
            generation,
            sequence,
            first_generation: 1,
            epoch: end.epoch,
            payload_bytes: 0,
            blocks: 0,
        };
        let disk = disk.restarted();
        disk.replace(newest, at as usize, group.finish(node, head));
        let (survey, replayed) = read(&disk);
        assert_eq!(survey.findings, []);
        assert_eq!(replayed, intact);
    }
}

#[test]
fn a_segment_whose_head_was_torn_when_it_was_begun_is_used_again() {
    for sectors in 0..=8 {
        let disk = SimulatedDisk::default();
        let (mut log, _) = Log::open(&disk);
        log.help();
        while log.writer.directory().segment(2).is_none() {
            // The write that begins the second segment is the first that the tear can meet.
            let is_next_begun = read(&disk).0.segments[0].end + 3 * PAGE > SEGMENT_BYTES;
            if is_next_begun {
                break;
            }
            log.write_one(1, 3000);
        }
        let before = read(&disk).1.len();
        disk.tear_next_write(Tear::Prefix(sectors));
        let body = [1; 9000];
        let block = log.block(0, &[ended(2, &body)]);
        log.write(vec![(0, block)]).expect_err("the power is lost");
        let disk = disk.restarted();
        let (mut log, replayed) = Log::open(&disk);
        assert_eq!(replayed.len(), before);
        log.help();
        log.write_one(3, 9000);
        assert_eq!(read(&disk).1.len(), before + 1);
    }
}

#[test]
fn each_open_has_a_higher_epoch() {
    let disk = SimulatedDisk::default();
    for epoch in 1..40 {
        let (log, _) = Log::open(&disk);
        assert_eq!(log.writer.epoch(), epoch);
    }
}
