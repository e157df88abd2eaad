//! Records, blocks and groups come back as they were written, or not at all.

use super::*;
use crate::{
    consensus::{
        format::{
            BlockHead, BlockKind, GroupHead, PAGE_BYTES, SegmentHead, segment_name, segment_number,
        },
        simulated::SimulatedDisk,
    },
    wire::api::Priority,
};
use proptest::prelude::*;

/// A record that owns what it borrows.
#[derive(Clone, Debug)]
struct Owned {
    kind: u8,
    id: TaskId,
    text: String,
    bytes: Vec<u8>,
    key: Option<Vec<u8>>,
    numbers: [u64; 3],
    counts: [u32; 2],
    choice: usize,
}

impl Owned {
    fn record(&self) -> Record<'_> {
        let (id, [first, second, third]) = (self.id, self.numbers);
        match self.kind {
            0 => Record::Submitted {
                id,
                is_asked: self.choice % 2 == 1,
                agent_type: &self.text,
                priority: Priority::ALL[self.choice % 4],
                submitted_unix_ms: first,
                due_unix_ms: second,
                timeout_ms: third,
                max_attempts: self.counts[0],
                attempts: self.counts[1],
                key: self.key.as_deref(),
                payload: &self.bytes,
            },
            1 => Record::Ended {
                id,
                status: TaskStatus::ALL[self.choice % 6],
                attempts: self.counts[0],
                ended_unix_ms: first,
                body: &self.bytes,
            },
            2 => Record::Requeued { id },
            3 => Record::Key { key: &self.bytes, id, body_hash: first, expires_unix_ms: second },
            4 => Record::Expired { partition: id.partition, upto_unix_ms: first },
            _ => Record::Forgotten { id },
        }
    }
}

fn owned() -> impl Strategy<Value = Owned> {
    let key = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    let bytes = proptest::collection::vec(any::<u8>(), 0..300);
    let id = (any::<u16>(), any::<u128>());
    (0..5_u8, id, "[a-zé-]{0,12}", bytes, key, any::<[u64; 3]>(), any::<[u32; 2]>(), 0..24_usize)
        .prop_map(|(kind, (partition, random), text, bytes, key, numbers, counts, choice)| Owned {
            kind,
            id: TaskId { partition, random },
            text,
            bytes,
            key,
            numbers,
            counts,
            choice,
        })
}

proptest! {
    #[test]
    fn a_record_survives_its_bytes(owned in owned(), rest in proptest::collection::vec(any::<u8>(), 0..9)) {
        let record = owned.record();
        let mut bytes = encoded(record);
        let length = bytes.len();
        prop_assert_eq!(length, record.encoded_bytes());
        bytes.extend_from_slice(&rest);
        prop_assert_eq!(Record::decode(&bytes), Ok((record, length)));
    }

    #[test]
    fn a_record_that_is_cut_or_changed_is_refused(
        owned in owned(), place in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let mut bytes = encoded(owned.record());
        let place = place.index(bytes.len());
        prop_assert!(Record::decode(&bytes[..place]).is_err());
        bytes[place] ^= 1 << bit;
        prop_assert!(Record::decode(&bytes).is_err());
    }

    #[test]
    fn junk_is_no_record_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(Record::decode(&bytes).is_err());
        // Behind a checksum that a stranger made right, fields may still say anything.
        let _ = Record::decode_checked(&bytes);
    }

    #[test]
    fn heads_survive_their_bytes_and_a_changed_bit_does_not(
        numbers in any::<[u64; 5]>(), node in any::<u128>(), counts in any::<[u32; 2]>(),
        place in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let [generation, first_sequence, first_generation, epoch, bytes] = numbers;
        let partitions = counts[0] as u16;
        let head = SegmentHead {
            node,
            generation,
            first_sequence,
            first_generation,
            epoch,
            bytes,
            partitions,
        };
        let mut page = vec![1; PAGE_BYTES];
        head.encode(&mut page);
        prop_assert_eq!(SegmentHead::decode(&page), Ok(Some(head)));
        page[place.index(PAGE_BYTES)] ^= 1 << bit;
        prop_assert!(SegmentHead::decode(&page).is_err());

        let [payload_bytes, blocks] = counts;
        let group = GroupHead {
            generation, sequence: first_sequence, first_generation, epoch, payload_bytes, blocks,
        };
        let mut page = vec![1; 64];
        group.encode(node, &mut page);
        prop_assert_eq!(GroupHead::decode(node, &page), Ok(group));
        prop_assert!(GroupHead::decode(node ^ 1, &page).is_err());
        page[place.index(64)] ^= 1 << bit;
        prop_assert!(GroupHead::decode(node, &page).is_err());

        let length = 32 + counts[0] % 100;
        let block = BlockHead {
            bytes: length,
            kind: BlockKind::Change,
            partition: 3,
            term: epoch,
            index: generation,
            checksum: blocks,
        };
        let mut page = vec![1; length as usize];
        block.encode(&mut page);
        prop_assert_eq!(BlockHead::decode(&page), Ok(block));
        page[place.index(32)] ^= 1 << bit;
        prop_assert!(BlockHead::decode(&page).is_err());
    }

    #[test]
    fn what_is_committed_is_read_back_from_where_it_lies(
        groups in proptest::collection::vec(
            proptest::collection::vec((0..2_usize, proptest::collection::vec(owned(), 0..6)), 1..5),
            1..12,
        ),
    ) {
        let disk = SimulatedDisk::default();
        let (mut log, _) = Log::open(&disk);
        log.help();
        let mut expected = Vec::new();
        for group in &groups {
            let mut blocks = Vec::new();
            for (lane, records) in group {
                let records: Vec<_> = records.iter().map(Owned::record).collect();
                blocks.push((*lane, log.block(*lane, &records)));
            }
            for (lane, block) in log.write(blocks).expect("the disk works") {
                let mut at = 0;
                while at < block.bytes().len() {
                    let (record, bytes) = Record::decode(&block.bytes()[at..]).expect("intact");
                    let offset = block.offset + (BLOCK_HEAD_BYTES + at) as u32;
                    let place = Place { generation: block.generation, offset };
                    expected.push(Replayed { place, shard: lane as u16, bytes: encoded(record) });
                    at += bytes;
                }
            }
        }
        let (survey, replayed) = read(&disk);
        prop_assert_eq!(survey.findings, []);
        prop_assert_eq!(&replayed, &expected);
        for entry in replayed {
            let segment = log.writer.directory().segment(entry.place.generation);
            let content = disk.content(segment.expect("it is in use"));
            prop_assert!(content[entry.place.offset as usize..].starts_with(&entry.bytes));
        }
    }
}

#[test]
fn the_name_of_a_segment_tells_its_number_and_other_names_tell_none() {
    assert_eq!(segment_name(42), "segment-000042.log");
    for number in [1, 999_999, 1_000_000] {
        assert_eq!(segment_number(&segment_name(number)), Some(number));
    }
    for name in ["segment-1.log", "segment-000001.log.bak", "segment-+00001.log", "lock"] {
        assert_eq!(segment_number(name), None, "{name}");
    }
}
