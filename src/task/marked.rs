//! Which of very many keys have a property: a bit each, so that the few that have it are found without a look at
//! every entry.

/// The marked keys.
#[derive(Default)]
pub(super) struct Marked {
    words: Vec<u64>,
}

impl Marked {
    /// Marks a key.
    #[inline]
    pub(super) fn set(&mut self, key: u32) {
        let word = key as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (key % 64);
    }

    /// Takes its mark away, if it has one.
    #[inline]
    pub(super) fn unset(&mut self, key: u32) {
        if let Some(word) = self.words.get_mut(key as usize / 64) {
            *word &= !(1 << (key % 64));
        }
    }

    /// Takes all marks away: the keys that had one, the lowest first.
    pub(super) fn take(&mut self) -> impl Iterator<Item = u32> + use<> {
        let words = std::mem::take(&mut self.words);
        words.into_iter().enumerate().flat_map(|(at, mut word)| {
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(at as u32 * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_are_marked_are_told_once() {
        let mut marked = Marked::default();
        let keys = [0, 1, 63, 64, 65, 1_000_000];
        keys.iter().rev().for_each(|key| marked.set(*key));
        marked.set(7);
        marked.unset(7);
        marked.unset(2_000_000);
        assert!(marked.take().eq(keys));
        assert_eq!(marked.take().count(), 0);
    }
}
