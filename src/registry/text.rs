//! A name that takes 24 bytes, and copies of which are made without an allocation.

use std::{fmt, ops::Deref, sync::Arc};

/// Longest text that lies within, bytes: nearly all names are shorter.
pub(super) const NEAR_BYTES: usize = 22;

/// A text: within when it is short, else shared by all copies.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Text {
    Near(u8, [u8; NEAR_BYTES]),
    Far(Arc<str>),
}

const _: () = assert!(size_of::<Option<Text>>() == 24, "a tag, a length and the short text");

impl Text {
    pub fn new(text: &str) -> Self {
        let mut near = [0; NEAR_BYTES];
        match near.get_mut(..text.len()) {
            Some(bytes) => {
                bytes.copy_from_slice(text.as_bytes());
                Self::Near(text.len() as u8, near)
            }
            None => Self::Far(text.into()),
        }
    }

    /// Its bytes, which are UTF-8.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Near(length, near) => &near[..usize::from(*length)],
            Self::Far(text) => text.as_bytes(),
        }
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("it was made of a text")
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_all_lengths_are_what_they_were_made_of() {
        for length in 0..=64 {
            let text = "é".repeat(length / 2) + &"n".repeat(length % 2);
            let (kept, copy) = (Text::new(&text), Text::new(&text).clone());
            assert_eq!((&*kept, &*copy, kept.as_bytes()), (&*text, &*text, text.as_bytes()));
            assert_eq!(matches!(kept, Text::Near(..)), length <= NEAR_BYTES);
            assert!(kept == copy && kept != Text::new(&format!("{text}n")));
        }
    }
}
