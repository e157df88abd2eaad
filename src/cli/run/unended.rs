//! The lines that an interrupted run leaves without a result.

use std::collections::BTreeSet;

/// Ranges of lines that are listed; a run has at most a few thousand tasks in flight.
const RANGES_MAX: usize = 100;

/// Lines that were read and have no result yet, and how far the input was read.
#[derive(Debug, Default)]
pub(super) struct Unended {
    lines: BTreeSet<u64>,
    last: u64,
    ended: u64,
}

impl Unended {
    /// A line was read.
    pub(super) fn begin(&mut self, line: u64) {
        self.lines.insert(line);
        self.last = line;
    }

    /// It was blank.
    pub(super) fn skip(&mut self, line: u64) {
        self.lines.remove(&line);
    }

    /// It has its result.
    pub(super) fn end(&mut self, line: u64) {
        self.lines.remove(&line);
        self.ended += 1;
    }

    /// What an interrupted run tells; `count` is how many lines the input has, if that is known.
    pub(super) fn tell(&self, count: Option<u64>) -> String {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let unread = count.map_or(u64::MAX, |count| count.max(self.last));
        let all = self.lines.iter().map(|line| (*line, *line)).chain([(self.last + 1, unread)]);
        for (first, last) in all.filter(|(first, last)| first <= last) {
            match ranges.last_mut() {
                Some(before) if before.1 + 1 == first => before.1 = last,
                _ => ranges.push((first, last)),
            }
        }
        let mut text = format!("{} lines have their result", self.ended);
        if ranges.is_empty() {
            return text;
        }
        let words: Vec<_> =
            ranges.iter().take(RANGES_MAX).map(|range| range_text(*range)).collect();
        text.push_str(&format!("; not run to the end: {}", words.join(", ")));
        match ranges.len().saturating_sub(RANGES_MAX) {
            0 => {}
            more => text.push_str(&format!(" and {more} more places")),
        }
        text
    }
}

fn range_text((first, last): (u64, u64)) -> String {
    match last {
        u64::MAX => format!("line {first} and all that follow"),
        last if last == first => format!("line {first}"),
        last => format!("lines {first} to {last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_a_result_are_listed_as_ranges() {
        let mut unended = Unended::default();
        (1..=9).for_each(|line| unended.begin(line));
        unended.skip(2);
        [1, 3, 5, 8].into_iter().for_each(|line| unended.end(line));
        assert_eq!(
            unended.tell(Some(20)),
            "4 lines have their result; not run to the end: line 4, lines 6 to 7, lines 9 to 20"
        );
        assert!(unended.tell(None).ends_with("lines 6 to 7, line 9 and all that follow"));
        [4, 6, 7, 9].into_iter().for_each(|line| unended.end(line));
        assert_eq!(unended.tell(Some(9)), "8 lines have their result");
        assert!(unended.tell(Some(10)).ends_with("to the end: line 10"));
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let mut unended = Unended::default();
        (1..=300).for_each(|line| unended.begin(line));
        (1..=300).step_by(2).for_each(|line| unended.end(line));
        assert!(unended.tell(Some(300)).ends_with("line 200 and 50 more places"));
    }
}
