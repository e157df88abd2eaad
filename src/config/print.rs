//! A configuration as text: canonical TOML with its documentation, JSON, and a hash.

use std::fmt::Write as _;

use serde::ser::{Serialize, SerializeMap, Serializer};
use sha2::{Digest, Sha256};

use super::key::{Key, Preset, Section, Value};
use super::model::Config;
use super::table::{AGENT, NODE, SECTIONS, values};
use super::{agent, node};

/// Comments are wrapped at this many columns.
const COLUMNS: usize = 100;

/// The values of one entry of a list in the order of the table; `None` where it has no such key.
type Entry = Vec<Option<Value>>;

/// The lists of entries.
fn lists(config: &Config) -> [(&'static Section, Vec<Entry>); 2] {
    [
        (&AGENT, config.agent.iter().map(agent::values).collect()),
        (&NODE, config.node.iter().map(node::values).collect()),
    ]
}

/// TOML that parses to the same configuration; every key has its comment.
pub(super) fn toml_text(config: &Config) -> String {
    let mut text = String::new();
    if config.agent.is_empty() {
        comment(&mut text, AGENT.heading);
        text.push_str("agent = []\n\n");
    }
    for (section, values) in SECTIONS.iter().zip(values(config)) {
        comment(&mut text, section.heading);
        let _ = writeln!(text, "[{}]", section.name);
        for (key, value) in section.keys.iter().zip(values) {
            document(&mut text, key);
            let _ = writeln!(text, "{} = {}\n", key.name, value.to_toml());
        }
    }
    let [(_, agents), (_, nodes)] = lists(config);
    for (index, entry) in agents.iter().enumerate() {
        entry_text(&mut text, &AGENT, entry, index == 0);
    }
    if nodes.is_empty() {
        example_text(&mut text, &NODE);
    }
    for (index, entry) in nodes.iter().enumerate() {
        entry_text(&mut text, &NODE, entry, index == 0);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// One entry of a list; only the first carries the documentation.
fn entry_text(text: &mut String, section: &Section, entry: &Entry, documented: bool) {
    if documented {
        comment(text, section.heading);
    }
    let _ = writeln!(text, "[[{}]]", section.name);
    for (key, value) in section.keys.iter().zip(entry) {
        if documented {
            document(text, key);
        }
        match (value, key.default) {
            (Some(value), _) => {
                let _ = writeln!(text, "{} = {}", key.name, value.to_toml());
            }
            (None, Preset::Example(example)) if documented => show(text, key, example),
            (None, _) => {}
        }
        if documented {
            text.push('\n');
        }
    }
    if !documented {
        text.push('\n');
    }
}

/// What an entry of a list looks like that has none.
fn example_text(text: &mut String, section: &Section) {
    comment(text, section.heading);
    let _ = writeln!(text, "# [[{}]]", section.name);
    for key in section.keys {
        document(text, key);
        if let Preset::Example(example) = key.default {
            show(text, key, example);
        }
        text.push('\n');
    }
}

/// A key with an example of its value, commented out.
fn show(text: &mut String, key: &Key, example: &str) {
    let _ = writeln!(text, "# {} = {example}", key.name);
}

/// The three sentences of a key: meaning, range with default, cost.
fn document(text: &mut String, key: &Key) {
    comment(text, key.meaning);
    let default = key.default.value().map(|value| format!(" Default: {}.", value.to_toml()));
    comment(text, &format!("Range: {}.{}", key.rule.allowed(), default.unwrap_or_default()));
    comment(text, &format!("Cost: {}", key.cost));
}

/// Appends a sentence as comment lines of at most [`COLUMNS`].
fn comment(text: &mut String, sentence: &str) {
    let mut column = 0;
    for word in sentence.split_whitespace() {
        if column == 0 || column + 1 + word.len() > COLUMNS {
            if column > 0 {
                text.push('\n');
            }
            text.push('#');
            column = 1;
        }
        text.push(' ');
        text.push_str(word);
        column += 1 + word.len();
    }
    text.push('\n');
}

/// The first 16 hexadecimal digits of the SHA-256 of every key and value.
///
/// Comments are left out: a better sentence must not make two equal runs look different.
pub(super) fn hash(config: &Config) -> String {
    let mut digest = Sha256::new();
    let mut line = |section: &str, key: &Key, value: &Value| {
        digest.update(format!("{section}.{} = {}\n", key.name, value.to_toml()));
    };
    for (section, values) in SECTIONS.iter().zip(values(config)) {
        for (key, value) in section.keys.iter().zip(&values) {
            line(section.name, key, value);
        }
    }
    for (section, entries) in lists(config) {
        for (index, entry) in entries.iter().enumerate() {
            for (key, value) in section.keys.iter().zip(entry) {
                if let Some(value) = value {
                    line(&format!("{}[{index}]", section.name), key, value);
                }
            }
        }
    }
    digest.finalize().iter().take(8).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A map of sections, and each list of entries as a list; the same keys and values as the file.
impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(SECTIONS.len() + 2))?;
        for (section, values) in SECTIONS.iter().zip(values(self)) {
            let pairs = section.keys.iter().map(|key| key.name).zip(values);
            map.serialize_entry(section.name, &Pairs(pairs.collect()))?;
        }
        for (section, entries) in lists(self) {
            let entries = entries.into_iter().map(|entry| entry_pairs(section, entry));
            map.serialize_entry(section.name, &entries.collect::<Vec<_>>())?;
        }
        map.end()
    }
}

fn entry_pairs(section: &Section, entry: Entry) -> Pairs {
    let pairs = section.keys.iter().map(|key| key.name).zip(entry);
    Pairs(pairs.filter_map(|(name, value)| Some((name, value?))).collect())
}

/// Keys and values that keep the order of the table.
struct Pairs(Vec<(&'static str, Value)>);

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
