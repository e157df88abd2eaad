//! What to say about a word that is not known: the nearest one that is.

use super::key::Section;
use super::table::{AGENT, NODE, SECTIONS};

/// Longer words are not compared: nobody misspells so much, and the comparison is quadratic.
const WORD_BYTES_MAX: usize = 64;

/// The candidate that `word` most likely meant, if one is near enough.
///
/// Near enough is one change for every three letters, and never fewer than one.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The number of letters to insert, delete or replace between two words (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

/// The sentence for a section that does not exist.
pub fn unknown_section(name: &str) -> String {
    let sections = || SECTIONS.iter().chain([&AGENT, &NODE]);
    if let Some(home) = sections().find(|section| section.keys.iter().any(|key| key.name == name)) {
        return format!("no section is called {name:?}; the key belongs to [{}]", home.name);
    }
    let known: Vec<_> = sections().map(|section| section.name).collect();
    match nearest(name, known.iter().copied()) {
        Some(word) => format!("no section is called {name:?}; did you mean \"{word}\"?"),
        None => format!("no section is called {name:?}; allowed: {}", known.join(", ")),
    }
}

/// The sentence for a key that its section has not.
pub fn unknown_key(section: &Section, name: &str) -> String {
    let known: Vec<_> = section.keys.iter().map(|key| key.name).collect();
    if let Some(word) = nearest(name, known.iter().copied()) {
        return format!("no such key; did you mean \"{word}\"?");
    }
    let home = SECTIONS.iter().find(|other| other.keys.iter().any(|key| key.name == name));
    match home {
        Some(home) => format!("no such key; did you mean {}.{name}?", home.name),
        None => format!("no such key; allowed: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_letter_changes() {
        assert_eq!(distance("mesh", "mesh"), 0);
        assert_eq!(distance("mehs", "mesh"), 2);
        assert_eq!(distance("", "mesh"), 4);
        assert_eq!(distance("meshes", "mesh"), 2);
    }

    #[test]
    fn a_misspelt_word_finds_its_neighbour_and_a_strange_one_finds_none() {
        let words = ["spin_us", "poll_io_us", "ring_depth"];
        assert_eq!(nearest("spinus", words.into_iter()), Some("spin_us"));
        assert_eq!(nearest("ring_dept", words.into_iter()), Some("ring_depth"));
        assert_eq!(nearest("colour", words.into_iter()), None);
        assert_eq!(nearest(&"spin_us".repeat(20), words.into_iter()), None);
    }
}
