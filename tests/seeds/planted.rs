//! Looks for seeds that find a bug which the code was given.

use coreflow::planted::{Bug, plant};

/// Characters of what is said of a bug that was found.
const SAID_MAX: usize = 240;

/// Whether a bug is looked for: all are, unless one is named.
pub fn is_asked(bug: Bug, name: Option<&String>) -> bool {
    name.is_none_or(|name| *name == format!("{bug:?}"))
}

/// What the first seed that finds a bug says of it; one that fails without the bug as well does not
/// count.
///
/// # Errors
/// When none of so many seeds finds it.
pub fn find<S>(
    bug: Bug,
    seeds: u64,
    run: impl Fn(u64) -> Result<S, String>,
) -> Result<String, String> {
    let find = |seed| {
        plant(Some(bug));
        let with = run(seed).err();
        plant(None);
        with.filter(|_| run(seed).is_ok())
    };
    let found = (0..seeds).find_map(find);
    let found = found.map(|text| format!("found {bug:?}: {}", first_lines(&text)));
    found.ok_or_else(|| format!("MISSED {bug:?} in {seeds} seeds"))
}

/// Which seed and why, as far as a line goes.
fn first_lines(text: &str) -> String {
    let line: String = text.lines().take(2).collect::<Vec<_>>().join(" ");
    line.chars().take(SAID_MAX).collect()
}
