//! Freeing the oldest segment: what lives in it is appended again.
//!
//! Only the first segment is ever freed, so a delete that it holds has nothing older left to hide. It is
//! moved when fewer than half of all records live, so that moving costs at most as many writes as
//! changes did.

use super::{
    job::Piece,
    partition::{Partition, Step, item_of},
    portion::Portion,
    record::{Content, HEAD_BYTES, Head, Kind, UNIT_BYTES},
    segment::FIRST_OFFSET,
    table::Place,
};
use crate::{
    memory::index::DIMENSIONS_MAX,
    wire::memory::{METADATA_BYTES_MAX, TEXT_BYTES_MAX},
};
use std::ops::ControlFlow;

/// Segments below which nothing is moved.
const SEGMENTS_LEAST: usize = 3;
/// Bytes of a segment that one step looks at, and moves if they live; the last record may go beyond.
const LOOK_BYTES: usize = 16 << 10;
/// No record is longer.
pub(super) const RECORD_BYTES_MAX: usize =
    DIMENSIONS_MAX * size_of::<f32>() + TEXT_BYTES_MAX + METADATA_BYTES_MAX + 1024;
/// Bytes that are brought into memory at a time.
const AHEAD_BYTES: usize = 1 << 20;

impl Partition {
    /// Whether the first segment should be freed.
    pub fn should_move(&self) -> bool {
        let (records, live) = self.log.counts();
        let segments = &self.log.segments;
        segments.len() >= SEGMENTS_LEAST && live * 2 < records && self.log.failure().is_none()
    }

    /// Moves a part of what lives in the first segment, and frees it when nothing does. False when
    /// there is nothing to do now.
    pub fn move_some(&mut self) -> Step<bool> {
        if self.log.release_some() {
            return Step::Done(true);
        }
        if self.free_first() {
            self.moving = None;
            return Step::Done(true);
        }
        if !self.should_move() {
            return Step::Done(false);
        }
        let first = &self.log.segments[0];
        let (region, salt, number) = (first.region.clone(), first.salt, first.number);
        let begun = self.moving.filter(|(of, _)| *of == number).map(|(_, offset)| offset);
        let (start, bytes) = (begun.unwrap_or(FIRST_OFFSET), region.readable());
        if start >= bytes {
            // What still lives here waits to be applied, or cannot be read: such rows are found when
            // all are looked at, once for each segment.
            if self.looked_for != Some(number) {
                self.looked_for = Some(number);
                self.begin_to_look();
            }
            return Step::Done(false);
        }
        let ahead = AHEAD_BYTES.min(bytes - start);
        if !region.is_resident(start, ahead.min(LOOK_BYTES + RECORD_BYTES_MAX)) {
            let piece: Piece = (region, start, ahead);
            return Step::Wait(vec![piece]);
        }
        let (mut offset, end) = (start, (start + LOOK_BYTES).min(bytes));
        let mut portion = Portion::new();
        while offset < end && (offset == start || !portion.is_over()) {
            let at = self.log.settings().place(number, offset);
            let head = (offset + HEAD_BYTES <= bytes)
                .then(|| Head::read(region.bytes(offset, HEAD_BYTES), salt))
                .flatten();
            let Some(head) = head else {
                offset += UNIT_BYTES;
                continue;
            };
            let lives = head.kind == Kind::Put && self.lives_at(at, &head);
            if lives && self.move_one(at, head.hash).is_break() {
                break;
            }
            offset += head.length;
        }
        self.moving = Some((number, offset));
        Step::Done(offset > start)
    }

    /// Frees the first segments in which nothing lives and no record waits to be applied.
    pub(super) fn free_first(&mut self) -> bool {
        let needed = self.oldest_pending();
        self.log.free_first(needed)
    }

    fn lives_at(&self, place: Place, head: &Head) -> bool {
        let mut rows = self.table.with_hash(head.hash as u32);
        rows.any(|row| self.table.get(row).is_some_and(|entry| entry.place == place))
    }

    /// Appends a record again, or takes its item for lost when it is damaged; a break when that must
    /// wait.
    fn move_one(&mut self, place: Place, hash: u64) -> ControlFlow<()> {
        // A change of this item that waits must stay behind what is moved.
        if self.is_changing(hash) {
            return ControlFlow::Break(());
        }
        let record = match self.log.read(place) {
            Ok(record) => record,
            Err(damage) => {
                self.lose(Kind::Put, hash, damage);
                return ControlFlow::Continue(());
            }
        };
        let (item, vector) = (item_of(&record), record.vector());
        let content = Content {
            kind: Kind::Put,
            namespace: &item.namespace,
            key: &item.key,
            vector: &vector,
            text: item.text.as_deref(),
            metadata: &item.metadata,
        };
        match self.append(&content, Some(place), None) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}
