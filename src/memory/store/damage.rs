//! What is not as it was written, in a sentence that names the file and the place.

use std::fmt;

/// What is wrong with a file of pattern memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// A record cannot be read.
    Record,
    /// So many records are gone, and cannot be named.
    Gone(u64),
    /// The begin of a record file, which holds no record.
    Begin,
    /// A file has so many bytes and not as many as it was made with.
    Length(u64, u64),
    /// A file is not there.
    Missing,
    /// A checkpoint, or a part of it.
    Checkpoint,
    /// The head of a folder, or the list of a partition's files.
    Structure,
    /// What says how far records were on the disk.
    Watermark,
    /// What lay behind the last record was cut off, and nothing says how far records were on the disk.
    Cut,
}

/// Something that cannot be read as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: usize,
    /// What is wrong there.
    pub harm: Harm,
    /// Namespace and key of the item that it concerns, where they can be read.
    pub key: Option<String>,
}

/// What is lost by damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Items of which that is known. If a record that is gone had deleted one of them, nobody knows that, and it counts.
    pub items: u64,
    /// Records that are gone and of which nobody knows whose they were: each may be one more item, or one
    /// that was replaced or deleted since.
    pub unnamed: u64,
    /// More may be lost: nobody knows all that was in a file that is gone, behind the end of one that was
    /// shortened, or at the end of records where nothing says how far they were on the disk.
    pub is_least: bool,
}

impl Lost {
    /// Whether nothing is lost.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Adds what is lost by one damage; an item has one damaged record.
    pub fn add(&mut self, harm: Harm) {
        self.items += u64::from(harm == Harm::Record);
        self.unnamed += harm.gone();
        self.is_least |= match harm {
            Harm::Missing | Harm::Cut => true,
            Harm::Length(bytes, whole) => bytes < whole,
            _ => false,
        };
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { items, unnamed, is_least } = *self;
        let at_least = if is_least { "at least " } else { "" };
        match items {
            0 if self.is_nothing() => write!(out, "nothing is lost")?,
            0 if unnamed == 0 => write!(out, "how many items are lost is not known")?,
            0 => write!(out, "up to {unnamed} items that cannot be named are lost")?,
            1 => write!(out, "{at_least}1 item is lost")?,
            _ => write!(out, "{at_least}{items} items are lost")?,
        }
        if items > 0 && unnamed > 0 {
            write!(out, ", and up to {unnamed} more that cannot be named")?;
        }
        if unnamed > 0 && is_least { write!(out, ", or even more") } else { Ok(()) }
    }
}

impl Damage {
    /// Damage of a file as a whole.
    pub fn of_file(file: impl Into<String>, harm: Harm) -> Self {
        Self { file: file.into(), offset: 0, harm, key: None }
    }

    /// Whether it is the same record, or the same of a file, that both tell of.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_record = |harm| matches!(harm, Harm::Record | Harm::Gone(1));
        let is_alike = self.harm == other.harm || is_record(self.harm) && is_record(other.harm);
        is_alike && self.offset == other.offset && self.file == other.file
    }

    /// What a checkpoint keeps of it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (code, one, other) = self.harm.numbers();
        let number = |out: &mut Vec<u8>, number: u64| out.extend_from_slice(&number.to_le_bytes());
        let text = |out: &mut Vec<u8>, text: &str| {
            number(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        };
        [code, one, other, self.offset as u64].iter().for_each(|it| number(out, *it));
        text(out, &self.file);
        number(out, self.key.is_some().into());
        text(out, self.key.as_deref().unwrap_or_default());
    }

    /// Reads it off the front of bytes.
    pub(super) fn read(bytes: &mut &[u8]) -> Option<Self> {
        fn number(bytes: &mut &[u8]) -> Option<u64> {
            let (first, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(u64::from_le_bytes(*first))
        }
        fn text(bytes: &mut &[u8]) -> Option<String> {
            let length = number(bytes)?.try_into().ok()?;
            let (text, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            String::from_utf8(text.to_vec()).ok()
        }
        let (code, one, other) = (number(bytes)?, number(bytes)?, number(bytes)?);
        let harm = Harm::of(code, one, other)?;
        let offset = number(bytes)?.try_into().ok()?;
        let file = text(bytes)?;
        let has_key = number(bytes)? != 0;
        let key = text(bytes)?;
        Some(Self { file, offset, harm, key: has_key.then_some(key) })
    }
}

impl Harm {
    /// Whether nothing is lost by it: records are read without it, or it can be made again.
    pub fn is_harmless(self) -> bool {
        match self {
            Self::Begin | Self::Checkpoint | Self::Structure | Self::Watermark => true,
            // What lies behind the end that a file was made with is no record.
            Self::Length(bytes, whole) => bytes > whole,
            Self::Record | Self::Gone(_) | Self::Missing | Self::Cut => false,
        }
    }

    /// Records that are gone and cannot be named.
    pub fn gone(self) -> u64 {
        match self {
            Self::Gone(count) => count,
            _ => 0,
        }
    }

    fn numbers(self) -> (u64, u64, u64) {
        match self {
            Self::Record => (1, 0, 0),
            Self::Gone(count) => (2, count, 0),
            Self::Begin => (3, 0, 0),
            Self::Length(bytes, whole) => (4, bytes, whole),
            Self::Missing => (5, 0, 0),
            Self::Checkpoint => (6, 0, 0),
            Self::Structure => (7, 0, 0),
            Self::Watermark => (8, 0, 0),
            Self::Cut => (9, 0, 0),
        }
    }

    fn of(code: u64, one: u64, other: u64) -> Option<Self> {
        Some(match code {
            1 => Self::Record,
            2 => Self::Gone(one),
            3 => Self::Begin,
            4 => Self::Length(one, other),
            5 => Self::Missing,
            6 => Self::Checkpoint,
            7 => Self::Structure,
            8 => Self::Watermark,
            9 => Self::Cut,
            _ => return None,
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, harm, key } = self;
        match harm {
            Harm::Record => write!(out, "{file}, byte {offset}: a record is damaged")?,
            Harm::Gone(1) => {
                write!(out, "{file}, byte {offset}: a record that cannot be named is gone")?;
            }
            Harm::Gone(count) => {
                write!(
                    out,
                    "{file}, byte {offset}: {count} records that cannot be named are gone"
                )?;
            }
            Harm::Begin => write!(out, "{file}: its begin is damaged")?,
            Harm::Length(bytes, whole) => {
                write!(out, "{file}: it has {bytes} bytes and was made with {whole}")?;
            }
            Harm::Missing => write!(out, "{file}: it is missing")?,
            Harm::Checkpoint => {
                write!(out, "{file}: it is damaged; the next start takes longer, and that is all")?;
            }
            Harm::Structure => write!(out, "{file}: it is damaged")?,
            Harm::Watermark => {
                write!(out, "{file}: it is damaged; the next start makes it again")?;
            }
            Harm::Cut => {
                write!(
                    out,
                    "{file}, byte {offset}: what was before it was cut off, and nothing says whether it \
                     had been acknowledged"
                )?;
            }
        }
        key.as_ref().map_or(Ok(()), |key| write!(out, "; it is that of {key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_damage_is_known_as_one_however_it_was_met() {
        let record = Damage { file: "a".into(), offset: 64, harm: Harm::Record, key: None };
        let named = Damage { key: Some("n/k".into()), ..record.clone() };
        let gone = |count| Damage { harm: Harm::Gone(count), ..record.clone() };
        assert!(record.is_same(&named) && named.is_same(&gone(1)));
        assert!(!record.is_same(&gone(2)) && gone(2).is_same(&gone(2)));
        assert!(!record.is_same(&Damage { offset: 128, ..record.clone() }));
        assert!(!record.is_same(&Damage { file: "b".into(), ..record.clone() }));
    }

    #[test]
    fn what_is_lost_is_counted_in_items_where_it_can_be() {
        let say = |items, unnamed| Lost { items, unnamed, is_least: false }.to_string();
        let least = |items, unnamed| Lost { items, unnamed, is_least: true }.to_string();
        assert_eq!(say(0, 0), "nothing is lost");
        assert_eq!(say(1, 0), "1 item is lost");
        assert_eq!(say(2, 3), "2 items are lost, and up to 3 more that cannot be named");
        assert_eq!(say(0, 3), "up to 3 items that cannot be named are lost");
        assert_eq!(least(0, 0), "how many items are lost is not known");
        assert_eq!(least(2, 0), "at least 2 items are lost");
        assert_eq!(least(0, 3), "up to 3 items that cannot be named are lost, or even more");
        let mut lost = Lost::default();
        for harm in [Harm::Record, Harm::Gone(4), Harm::Length(9, 7), Harm::Begin] {
            lost.add(harm);
        }
        assert_eq!(lost, Lost { items: 1, unnamed: 4, is_least: false });
        for harm in [Harm::Missing, Harm::Length(7, 9)] {
            let mut lost = Lost::default();
            lost.add(harm);
            assert_eq!(lost, Lost { is_least: true, ..Lost::default() });
        }
    }

    #[test]
    fn a_file_that_grew_loses_nothing_and_one_that_shrank_may() {
        assert!(Harm::Length(9, 7).is_harmless() && !Harm::Length(7, 9).is_harmless());
    }

    #[test]
    fn what_a_checkpoint_keeps_of_damage_is_read_as_it_was() {
        let all = [
            Damage::of_file("one", Harm::Length(7, 9)),
            Damage { file: "two".into(), offset: 64, harm: Harm::Gone(3), key: None },
            Damage { file: "three".into(), offset: 0, harm: Harm::Record, key: Some("n/k".into()) },
        ];
        let mut bytes = Vec::new();
        all.iter().for_each(|damage| damage.write(&mut bytes));
        let mut rest = &bytes[..];
        for damage in all {
            assert_eq!(Damage::read(&mut rest), Some(damage));
        }
        assert!(rest.is_empty() && Damage::read(&mut rest).is_none());
        assert!(Damage::read(&mut &bytes[..20]).is_none());
    }
}
