//! Reading segments from their begin: which records are there, what is damaged, what was cut off.
//!
//! Sequences have no gaps, so what is missing is known by its sequence. Whether it is missing because a
//! write was cut off, or because the disk lost what it had, is known from the partition's watermark and
//! from the records behind: each says up to which sequence everything was on the disk when it was made.

use super::{
    damage::{Damage, Harm},
    record::{Guess, HEAD_BYTES, Head, Kind, UNIT_BYTES},
    segment::FIRST_OFFSET,
};
use std::ops::Range;

/// A record that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its segment, by its place among those that were scanned.
    pub segment: u32,
    /// Where it lies in it.
    pub offset: u32,
    /// Its bytes.
    pub length: u32,
    /// Its sequence.
    pub sequence: u64,
    /// The hash of its item's name.
    pub hash: u64,
    /// What it says.
    pub kind: Kind,
    /// Whether all of it is as it was written; if not, it is known of which item it was.
    pub is_whole: bool,
}

/// Records that are gone and of which nobody knows which they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where they were, and how many.
    pub damage: Damage,
    /// The place of the damage: its segment among those that were scanned.
    pub segment: u32,
    /// The record behind them: segment and offset; none at the end.
    pub next: Option<(u32, u32)>,
    /// Sequences that are missing, those of records that were named among them.
    pub sequences: Range<u64>,
    /// Those of them whose records were named.
    pub named: Vec<u64>,
}

impl Gap {
    /// How many of the records that cannot be named are behind this one.
    pub fn gone_behind(&self, sequence: u64) -> u64 {
        let Range { start, end } = self.sequences;
        let named = self.named.iter().filter(|named| **named > sequence).count() as u64;
        end.saturating_sub(start.max(sequence + 1)) - named
    }
}

/// What segments have, from a record on.
#[derive(Debug, Default)]
pub struct Scan {
    seen: Vec<Seen>,
    /// The highest sequence that a record says to be on the disk.
    synced: u64,
    segments: u32,
    /// The file of each segment.
    files: Vec<String>,
    /// Records that are not whole, by segment and offset.
    broken: Vec<(u32, u32, String)>,
    /// Where the first record should be.
    begin: Option<(u32, u32)>,
    /// Records whose head is damaged, which still says whose they are.
    guessed: Vec<(u32, u32, Guess)>,
    /// Where the last bytes that are no zeros end.
    used: (u32, u32),
    /// The bytes of each segment.
    lengths: Vec<usize>,
}

/// What was found, in order.
#[derive(Debug, Default)]
pub struct Found {
    /// Records that count; those that are not whole are damaged.
    pub records: Vec<Seen>,
    /// Records that are gone and cannot be named.
    pub gaps: Vec<Gap>,
    /// The records that count and are not whole.
    pub broken: Vec<(Damage, Seen)>,
    /// Where the last segment with a record goes on: its place among the scanned, and the offset.
    pub end: Option<(u32, u32)>,
    /// Where what was cut off behind the end ends; nothing when nothing was.
    pub torn: Option<(u32, u32)>,
    /// The last sequence, lost ones included.
    pub last: u64,
}

impl Scan {
    /// A scan of files of which it is known that they had everything up to a sequence.
    pub fn knowing(synced: u64) -> Self {
        Self { synced, ..Self::default() }
    }

    /// Looks at the next segment, from an offset on.
    pub fn segment(&mut self, file: String, bytes: &[u8], salt: u32, from: usize) {
        let segment = self.segments;
        self.segments += 1;
        self.files.push(file);
        self.lengths.push(bytes.len());
        let mut at = from.max(FIRST_OFFSET);
        self.begin.get_or_insert((segment, at as u32));
        // Where the next record should begin.
        let mut next = at;
        while at + HEAD_BYTES <= bytes.len() {
            let Some(head) = read_head(bytes, at, salt) else {
                if at == next
                    && let Some(guess) = Guess::of(&bytes[at..])
                {
                    next = at.saturating_add(guess.length);
                    self.guessed.push((segment, at as u32, guess));
                }
                if bytes[at..at + UNIT_BYTES] != [0; UNIT_BYTES] {
                    self.used = (segment, (at + UNIT_BYTES) as u32);
                }
                at += UNIT_BYTES;
                continue;
            };
            let is_whole = head.record(&bytes[at..], salt).is_some();
            if !is_whole {
                self.broken.push((segment, at as u32, head.guess_name(&bytes[at..])));
            }
            self.synced = self.synced.max(head.synced);
            self.seen.push(Seen {
                segment,
                offset: at as u32,
                length: head.length as u32,
                sequence: head.sequence,
                hash: head.hash,
                kind: head.kind,
                is_whole,
            });
            // The length is under the head's checksum.
            at += head.length;
            self.used = (segment, at as u32);
            next = at;
        }
    }

    /// What it comes to, when everything up to `last` was known before; `None` when segments before
    /// were freed, so that any record may be the first.
    pub fn finish(mut self, last: Option<u64>) -> Found {
        let seen = std::mem::take(&mut self.seen);
        let mut found = Found::default();
        let mut expected = match (last, seen.first()) {
            (Some(last), _) => last + 1,
            (None, None) => 1,
            (None, Some(first)) => {
                if (first.segment, first.offset) != (0, FIRST_OFFSET as u32) {
                    // How many is not known: one at least.
                    found.gaps.push(Gap {
                        damage: Damage {
                            harm: Harm::Gone(1),
                            ..self.damage(0, FIRST_OFFSET as u32)
                        },
                        segment: 0,
                        next: Some((first.segment, first.offset)),
                        sequences: first.sequence.saturating_sub(1)..first.sequence,
                        named: Vec::new(),
                    });
                }
                first.sequence
            }
        };
        found.last = expected - 1;
        for seen in seen {
            if seen.sequence < expected {
                // No writer leaves such a one; it is not what anybody asked to be kept.
                continue;
            }
            let is_cut_off = !seen.is_whole && seen.sequence > self.synced;
            if seen.sequence > expected {
                if expected > self.synced {
                    break;
                }
                // Of those before a record that was cut off, only what was synced is missed.
                let end = if is_cut_off { self.synced + 1 } else { seen.sequence };
                self.note_lost(&mut found, expected..end, Some(seen));
                found.last = end - 1;
            }
            if is_cut_off {
                break;
            }
            found.last = seen.sequence;
            found.end = Some((seen.segment, seen.offset + seen.length));
            if !seen.is_whole {
                found.broken.push((self.broken_at(seen), seen));
            }
            found.records.push(seen);
            expected = seen.sequence + 1;
        }
        if found.last < self.synced {
            // Records that were on the disk are gone, and those behind them as well.
            if self.segments > 0 {
                let sequences = found.last + 1..self.synced + 1;
                self.note_lost(&mut found, sequences, None);
            }
            found.last = self.synced;
        }
        let end = found.end.or(self.begin).unwrap_or_default();
        found.torn = (self.used > end).then_some(self.used);
        found
    }

    fn broken_at(&self, seen: Seen) -> Damage {
        let mut broken = self.broken.iter();
        let it = broken.find(|(segment, at, _)| (*segment, *at) == (seen.segment, seen.offset));
        Damage { key: it.map(|(.., key)| key.clone()), ..self.damage(seen.segment, seen.offset) }
    }

    /// Records of these sequences were there before `next`, or at the end, and cannot be read: those whose
    /// head says whose they are count as records that are not whole, the others are gone.
    fn note_lost(&self, found: &mut Found, sequences: Range<u64>, next: Option<Seen>) {
        let begin = found.end.or(self.begin).unwrap_or((0, FIRST_OFFSET as u32));
        let next = next.map(|next| (next.segment, next.offset));
        let behind = next.unwrap_or((u32::MAX, u32::MAX));
        let (mut at, mut free, mut named) = (begin, sequences.start, Vec::new());
        for (segment, offset, guess) in &self.guessed {
            let (place, sequence) = ((*segment, *offset), guess.sequence);
            if place < begin || place >= behind || !(free..sequences.end).contains(&sequence) {
                continue;
            }
            // The lengths that a damaged head says may be wrong; its names were there.
            let limit = match behind {
                (of, behind) if of == *segment => behind as usize,
                _ => self.lengths[*segment as usize],
            };
            let length = guess.length.min(limit - *offset as usize) as u32;
            let (kind, hash) = (guess.kind, guess.hash);
            let (segment, offset) = place;
            let seen = Seen { segment, offset, length, sequence, hash, kind, is_whole: false };
            let key = Some(guess.name.clone());
            found.broken.push((Damage { key, ..self.damage(segment, offset) }, seen));
            found.records.push(seen);
            if at == place {
                at.1 = offset + length;
            }
            if next.is_none() {
                found.end = Some((segment, offset + length));
            }
            free = sequence + 1;
            named.push(sequence);
        }
        let gone = sequences.end - sequences.start - named.len() as u64;
        if gone > 0 {
            let (segment, offset) = at;
            let damage = Damage { harm: Harm::Gone(gone), ..self.damage(segment, offset) };
            found.gaps.push(Gap { damage, segment, next, sequences, named });
        }
    }

    fn damage(&self, segment: u32, offset: u32) -> Damage {
        let file = self.files.get(segment as usize).cloned().unwrap_or_default();
        Damage { file, offset: offset as usize, harm: Harm::Record, key: None }
    }
}

#[inline]
fn read_head(bytes: &[u8], at: usize, salt: u32) -> Option<Head> {
    // Most of what is no record is zeros.
    let head = &bytes[at..at + HEAD_BYTES];
    if head[8..16] == [0; 8] {
        return None;
    }
    let head = Head::read(head, salt)?;
    (at + head.length <= bytes.len()).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::super::record::{Content, Kind, Stamp, encode};
    use super::*;

    /// A segment with records of sequences 1 to `count`, all but the last two synced.
    fn segment(count: u64) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = vec![0; FIRST_OFFSET];
        let mut offsets = Vec::new();
        for sequence in 1..=count {
            offsets.push(bytes.len());
            let key = format!("key-{sequence}");
            let content = Content {
                kind: Kind::Put,
                namespace: "n",
                key: &key,
                vector: &[sequence as f32; 40],
                text: None,
                metadata: &[],
            };
            let synced = sequence.saturating_sub(2);
            let stamp = Stamp { sequence, synced, moved_from: None, salt: 3 };
            encode(&mut bytes, &content, stamp);
        }
        offsets.push(bytes.len());
        bytes.resize(bytes.len() + 4096, 0);
        (bytes, offsets)
    }

    fn scan(bytes: &[u8]) -> Found {
        let mut scan = Scan::default();
        scan.segment("file".into(), bytes, 3, 0);
        scan.finish(Some(0))
    }

    fn sequences(found: &Found) -> Vec<u64> {
        found.records.iter().map(|seen| seen.sequence).collect()
    }

    #[test]
    fn what_is_there_is_found() {
        let (bytes, offsets) = segment(5);
        let found = scan(&bytes);
        assert_eq!(sequences(&found), [1, 2, 3, 4, 5]);
        assert_eq!(found.end, Some((0, offsets[5] as u32)));
        assert!(found.gaps.is_empty() && found.torn.is_none());
    }

    #[test]
    fn what_nobody_said_to_be_synced_was_cut_off() {
        let (mut bytes, offsets) = segment(5);
        bytes[offsets[3] + 70] ^= 1;
        let found = scan(&bytes);
        assert_eq!(sequences(&found), [1, 2, 3]);
        assert!(found.gaps.is_empty() && found.torn.is_some());
        assert_eq!(found.end, Some((0, offsets[3] as u32)));
    }

    #[test]
    fn a_damaged_body_is_told_with_its_head() {
        let (mut bytes, offsets) = segment(5);
        bytes[offsets[1] + 70] ^= 1;
        let found = scan(&bytes);
        assert_eq!(sequences(&found), [1, 2, 3, 4, 5]);
        assert!(!found.records[1].is_whole && found.torn.is_none());
    }

    #[test]
    fn a_damaged_head_that_still_says_whose_it_is_is_a_record_that_is_not_whole() {
        let (mut bytes, offsets) = segment(5);
        bytes[offsets[1]] ^= 1;
        bytes[offsets[2] + 60] ^= 1;
        let found = scan(&bytes);
        assert_eq!(sequences(&found), [1, 2, 3, 4, 5]);
        let broken: Vec<_> = found.broken.iter().map(|(damage, seen)| (damage, *seen)).collect();
        assert_eq!(broken.len(), 2);
        assert_eq!((broken[0].0.key.as_deref(), broken[0].0.offset), (Some("n/key-2"), offsets[1]));
        assert_eq!((broken[1].0.key.as_deref(), broken[1].1.sequence), (Some("n/key-3"), 3));
        assert!(found.gaps.is_empty() && found.torn.is_none());
    }

    #[test]
    fn a_damaged_head_that_leads_to_no_name_is_told_and_passed_over() {
        // The hash of the name, and a sequence that is another record's.
        for (byte, named) in [(34, false), (16, false)] {
            let (mut bytes, offsets) = segment(5);
            bytes[offsets[1] + byte] ^= 1;
            let found = scan(&bytes);
            assert_eq!(sequences(&found), [1, 3, 4, 5]);
            assert_eq!((found.gaps.len(), !found.broken.is_empty()), (1, named));
            let Gap { damage, sequences, next, .. } = &found.gaps[0];
            assert_eq!((&*damage.file, damage.offset), ("file", offsets[1]));
            assert_eq!((damage.harm, sequences), (Harm::Gone(1), &(2..3)));
            assert_eq!(*next, Some((0, offsets[2] as u32)));
        }
    }

    #[test]
    fn of_several_that_are_gone_those_with_a_name_are_told_by_it() {
        let (mut bytes, offsets) = segment(6);
        bytes[offsets[1]] ^= 1;
        bytes[offsets[2] + 34] ^= 1;
        let found = scan(&bytes);
        assert_eq!(sequences(&found), [1, 2, 4, 5, 6]);
        assert_eq!(found.broken[0].0.key.as_deref(), Some("n/key-2"));
        let gap = &found.gaps[0];
        assert_eq!((gap.damage.offset, gap.damage.harm), (offsets[2], Harm::Gone(1)));
        assert_eq!(found.gaps.len(), 1);
    }

    #[test]
    fn what_was_freed_is_not_missed_and_the_first_that_remains_is() {
        let (bytes, offsets) = segment(5);
        let rest = |from: usize| [&bytes[..FIRST_OFFSET], &bytes[offsets[from]..]].concat();
        let finish = |bytes: &[u8]| {
            let mut scan = Scan::default();
            scan.segment("file".into(), bytes, 3, 0);
            scan.finish(None)
        };
        let found = finish(&rest(1));
        assert_eq!((sequences(&found), found.gaps.len()), (vec![2, 3, 4, 5], 0));
        let mut damaged = rest(1);
        damaged[FIRST_OFFSET + 20] ^= 1;
        let found = finish(&damaged);
        assert_eq!((sequences(&found), found.gaps.len()), (vec![3, 4, 5], 1));
    }

    #[test]
    fn what_is_gone_before_a_record_that_was_cut_off_is_counted_once() {
        // Of six records four were synced; the fourth is damaged beyond its name, the fifth gone
        // altogether, the sixth cut off.
        let (mut bytes, offsets) = segment(6);
        bytes[offsets[3] + 34] ^= 1;
        bytes[offsets[4]..offsets[5]].fill(0);
        bytes[offsets[5] + 70] ^= 1;
        let found = scan(&bytes);
        assert_eq!(sequences(&found), [1, 2, 3]);
        let gone: Vec<_> = found.gaps.iter().map(|gap| (gap.damage.harm, &gap.sequences)).collect();
        assert_eq!(gone, [(Harm::Gone(1), &(4..5))]);
        assert_eq!((found.last, found.torn.is_some()), (4, true));
        assert_eq!(found.end, Some((0, offsets[3] as u32)));
    }

    #[test]
    fn nothing_counts_that_was_known_before() {
        let (bytes, _) = segment(5);
        let mut scan = Scan::default();
        scan.segment("file".into(), &bytes, 3, 0);
        assert_eq!(sequences(&scan.finish(Some(4))), [5]);
    }
}
