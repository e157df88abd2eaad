//! The list of a partition's record files: which are there, so that one that is gone is missed.
//!
//! It says the numbers of the first file and of the one after the last, and repeats the folder's head,
//! which can be made again from it.
//!
//! Invariants:
//! - A file is on the disk before the list has it, and the list has it before a record goes there.
//! - A file leaves the list before it leaves the disk.
//! - So what the list has and the disk has not was taken away by somebody else; what the disk has and the
//!   list has not was made or removed in part, and holds nothing that counts.

use super::head::StoreHead;
use crate::runtime::disk::replace_file;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Mutex, PoisonError},
};

/// What the list's own lines begin with.
const TITLE: &str = "record files of partition";

/// Numbers of the files that are there: from the first to before the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first file.
    pub first: u32,
    /// The one that would be made next.
    pub next: u32,
}

/// What a list's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The head of the folder, without the embedder.
    pub head: StoreHead,
    /// The partition.
    pub partition: u16,
    /// Its files.
    pub span: Span,
}

/// The list's file is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no list of record files, or damaged")]
pub struct ListingError;

/// The list of a partition, on the disk and here.
#[derive(Debug)]
pub struct FileList {
    path: PathBuf,
    listing: Mutex<Listing>,
}

/// The file of a partition's list.
pub fn list_name(partition: u16) -> String {
    // Its unfinished form must not have the name of an unfinished checkpoint.
    format!("{partition:04}-files.list")
}

impl Span {
    /// Whether a file is among them.
    pub fn has(&self, number: u32) -> bool {
        (self.first..self.next).contains(&number)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.first >= self.next
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { head, partition, span: Span { first, next } } = self;
        let text = format!("{head}{TITLE} {partition}\nfirst {first}\nnext {next}\n");
        let sum = crc32fast::hash(text.as_bytes());
        writeln!(formatter, "{text}sum {sum}")
    }
}

impl FromStr for Listing {
    type Err = ListingError;

    fn from_str(text: &str) -> Result<Self, ListingError> {
        let at = text.find(TITLE).ok_or(ListingError)?;
        let (head, own) = text.split_at(at);
        let number = |name: &str| {
            let mut lines = own.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|value| value.parse::<u32>().ok()).ok_or(ListingError)
        };
        let listing = Self {
            head: head.parse().map_err(|_| ListingError)?,
            partition: number(TITLE)?.try_into().map_err(|_| ListingError)?,
            span: Span { first: number("first")?, next: number("next")? },
        };
        (listing.to_string() == text).then_some(listing).ok_or(ListingError)
    }
}

impl FileList {
    /// A list that is on the disk as it is here.
    pub fn known(folder: &Path, listing: Listing) -> Self {
        let path = folder.join(list_name(listing.partition));
        Self { path, listing: Mutex::new(listing) }
    }

    /// Writes a list, instead of the one that was there.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(folder: &Path, listing: Listing) -> io::Result<Self> {
        let list = Self::known(folder, listing);
        list.change(|_| {})?;
        Ok(list)
    }

    /// The files that are there.
    pub fn span(&self) -> Span {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner).span
    }

    /// The next file was made.
    ///
    /// # Errors
    /// The list cannot be written: it does not have the file.
    pub fn made(&self, number: u32) -> io::Result<()> {
        self.change(|span| {
            let first = if span.is_empty() { number } else { span.first };
            *span = Span { first, next: number + 1 };
        })
    }

    /// All files up to one are to be removed.
    ///
    /// # Errors
    /// The list cannot be written: it still has them.
    pub fn freed(&self, number: u32) -> io::Result<()> {
        self.change(|span| span.first = span.first.max(number + 1))
    }

    /// All files from one on are to be removed.
    ///
    /// # Errors
    /// The list cannot be written: it still has them.
    pub fn cut(&self, next: u32) -> io::Result<()> {
        self.change(|span| span.next = span.next.min(next))
    }

    fn change(&self, change: impl FnOnce(&mut Span)) -> io::Result<()> {
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = listing.clone();
        change(&mut changed.span);
        replace_file(&self.path, changed.to_string().as_bytes())?;
        *listing = changed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::memory::Metric;

    fn listing(first: u32, next: u32) -> Listing {
        let head = StoreHead {
            dimension: 4,
            metric: Metric::Cosine,
            partitions: 2,
            salt: 7,
            segment_bytes: Some(4096),
            embedder: String::new(),
        };
        Listing { head, partition: 1, span: Span { first, next } }
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_no_other_way() {
        let text = listing(3, 9).to_string();
        assert_eq!(text.parse(), Ok(listing(3, 9)));
        for (at, byte) in text.bytes().enumerate() {
            let mut other = text.clone().into_bytes();
            other[at] = byte ^ 1;
            let other = String::from_utf8(other).unwrap();
            assert_eq!(other.parse::<Listing>(), Err(ListingError), "{other}");
        }
    }

    #[test]
    fn a_list_grows_at_its_end_and_shrinks_at_its_begin() {
        let folder = std::env::temp_dir().join(format!("coreflow-list-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let list = FileList::write(&folder, listing(0, 0)).unwrap();
        for number in 0..3 {
            list.made(number).unwrap();
        }
        list.freed(0).unwrap();
        list.cut(2).unwrap();
        let text = std::fs::read_to_string(folder.join(list_name(1))).unwrap();
        assert_eq!((text.parse(), list.span()), (Ok(listing(1, 2)), Span { first: 1, next: 2 }));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
