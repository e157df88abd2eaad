//! What a partition hears from its log.

use super::{
    damage::Damage,
    format::BLOCK_HEAD_BYTES,
    place::{Place, Position},
    record::Record,
};
use bytes::Bytes;

/// A block of records that will not be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The last of the records; the first is the one after the block before.
    pub upto: Position,
    pub(super) block: Place,
}

impl Committed {
    /// Where a record of this block lies, from the offset that [`super::TaskLog::append`] told.
    pub fn place(&self, offset_in_block: u32) -> Place {
        let Place { generation, offset } = self.block;
        Place { generation, offset: offset + offset_in_block }
    }
}

/// A block that another node proposed, or this one in an earlier reign, or that any node asked for; it is
/// committed.
#[derive(Clone, Debug)]
pub struct Foreign {
    records: Bytes,
    block: Place,
}

impl Foreign {
    /// The records of a block that lies at a place of this node's disk.
    pub fn new(records: Bytes, block: Place) -> Self {
        Self { records, block }
    }

    /// Where the block lies.
    pub fn block(&self) -> Place {
        self.block
    }

    /// Calls `visit` with each record and where it lies; the bytes were checked when they arrived.
    ///
    /// # Errors
    /// What is wrong with the bytes, when they were not.
    pub fn records(&self, mut visit: impl FnMut(Place, Record<'_>)) -> Result<(), Damage> {
        self.records_and_next(|place, record, _| visit(place, record))
    }

    /// As [`Foreign::records`], with the record behind each.
    ///
    /// # Errors
    /// As that.
    pub fn records_and_next(
        &self,
        mut visit: impl FnMut(Place, Record<'_>, Option<&Record<'_>>),
    ) -> Result<(), Damage> {
        let Place { generation, offset } = self.block;
        each_and_next(&self.records, |at, record, next| {
            let offset = offset + (BLOCK_HEAD_BYTES + at) as u32;
            visit(Place { generation, offset }, record, next);
        })
    }
}

/// Calls `visit` with each record of a block, where in that it begins, and the record behind it.
///
/// # Errors
/// They cannot be read.
pub(super) fn each_and_next(
    records: &[u8],
    mut visit: impl FnMut(usize, Record<'_>, Option<&Record<'_>>),
) -> Result<(), Damage> {
    let decode = |at: usize| match &records[at..] {
        [] => Ok(None),
        rest => Record::decode_checked(rest).map(Some),
    };
    let (mut at, mut decoded) = (0, decode(0)?);
    while let Some((record, bytes)) = decoded {
        let next_at = at + bytes;
        decoded = decode(next_at)?;
        visit(at, record, decoded.as_ref().map(|(next, _)| next));
        at = next_at;
    }
    Ok(())
}

/// Whoever leads says that entries are not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Up to this one.
    pub upto: u64,
    /// All of them lie below this generation on this node's disk: what lives there is still needed.
    pub generation: u64,
}

/// Whoever leads writes down again what lives, as it says.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// What is answered with.
    pub number: u64,
    blocks: Vec<Bytes>,
}

impl Claimed {
    /// What whole blocks of records say, under a number.
    pub fn new(number: u64, blocks: Vec<Bytes>) -> Self {
        Self { number, blocks }
    }

    /// Calls `is_true` with each record and the one behind it until one is not, or until so many records or
    /// bytes were looked at; whether all are, when that is known.
    pub fn look(
        &self,
        looked: &mut Looked,
        (records, bytes): (usize, usize),
        mut is_true: impl FnMut(&Record<'_>, Option<&Record<'_>>) -> bool,
    ) -> Option<bool> {
        let mut seen_bytes = 0;
        for _ in 0..records {
            let Some(block) = self.blocks.get(looked.block) else { return Some(true) };
            // All were decoded when the block came.
            let Ok((record, length)) = Record::decode_checked(&block[looked.at..]) else {
                (looked.block, looked.at) = (looked.block + 1, 0);
                continue;
            };
            looked.at += length;
            let behind = Record::decode_checked(&block[looked.at..]).ok();
            if !is_true(&record, behind.as_ref().map(|(record, _)| record)) {
                return Some(false);
            }
            seen_bytes += length;
            if seen_bytes >= bytes {
                break;
            }
        }
        None
    }
}

/// How far a look at what somebody says has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looked {
    block: usize,
    at: usize,
}

/// What a partition hears from its log, in this order.
#[derive(Clone, Debug)]
pub enum News {
    /// Records that it appended are committed.
    Committed(Committed),
    /// Records that somebody else appended are committed: while it leads, only such as any node may ask
    /// for.
    Foreign(Foreign),
    /// Where nodes may lie: the same, while what is older is told anew and these are not yet. The table that
    /// the partition had before it follows them, and is what others' claims are looked at by until then.
    Beside(Foreign),
    /// Where nodes may lie: all that was told anew, or beside, was told.
    CaughtUp,
    /// Where nodes may lie: entries are said to be not needed. They are forgotten when the partition finds
    /// the same, and says so.
    Compacted(Compacted),
    /// Where nodes may lie: a node that leads says that things live, and orders that. This node takes part
    /// in it when the partition answers that they do.
    Claimed(Claimed),
    /// It leads: everything that was committed before was told, and it may append.
    Lead,
    /// Everything that was committed when this read was asked for was told, and this partition led
    /// at a moment after that. A read whose reign ends is not answered: [`News::Follow`] is told.
    Read(u64),
    /// It follows: what it appended and was not told of may be committed or not. It begins again
    /// with an empty table, and everything that was ever committed and lives is told once more.
    Follow {
        /// Its log was replaced: entries between may never be told.
        is_replaced: bool,
    },
}
