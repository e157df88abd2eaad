//! A configuration as text: canonical TOML with its documentation, JSON, and a hash.

use std::fmt::Write as _;

use serde::ser::{Serialize, SerializeMap, Serializer};
use sha2::{Digest, Sha256};

use super::agent;
use super::key::{Key, Value};
use super::model::{AgentType, Config};
use super::table::{AGENT, SECTIONS, values};

/// Comments are wrapped at this many columns.
const COLUMNS: usize = 100;
/// What stands in place of a value that this entry has not: shown commented out.
const COMMAND_EXAMPLE: &str = "[\"python3\", \"agents/coder.py\"]";

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
    for (index, entry) in config.agent.iter().enumerate() {
        agent_text(&mut text, entry, index == 0);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// One `[[agent]]` entry; only the first carries the documentation.
fn agent_text(text: &mut String, entry: &AgentType, documented: bool) {
    if documented {
        comment(text, AGENT.heading);
    }
    text.push_str("[[agent]]\n");
    for (key, value) in AGENT.keys.iter().zip(agent::values(entry)) {
        if documented {
            document(text, key);
        }
        let _ = match value {
            Some(value) => writeln!(text, "{} = {}", key.name, value.to_toml()),
            None if documented => writeln!(text, "# {} = {COMMAND_EXAMPLE}", key.name),
            None => Ok(()),
        };
        if documented {
            text.push('\n');
        }
    }
    if !documented {
        text.push('\n');
    }
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
    for (index, entry) in config.agent.iter().enumerate() {
        for (key, value) in AGENT.keys.iter().zip(agent::values(entry)) {
            if let Some(value) = value {
                line(&format!("agent[{index}]"), key, &value);
            }
        }
    }
    digest.finalize().iter().take(8).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A map of sections, and `agent` as a list; the same keys and values as the file.
impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(SECTIONS.len() + 1))?;
        for (section, values) in SECTIONS.iter().zip(values(self)) {
            let pairs = section.keys.iter().map(|key| key.name).zip(values);
            map.serialize_entry(section.name, &Pairs(pairs.collect()))?;
        }
        let entries: Vec<_> = self.agent.iter().map(agent_pairs).collect();
        map.serialize_entry(AGENT.name, &entries)?;
        map.end()
    }
}

fn agent_pairs(entry: &AgentType) -> Pairs {
    let names = AGENT.keys.iter().map(|key| key.name);
    let pairs = names.zip(agent::values(entry));
    Pairs(pairs.filter_map(|(name, value)| Some((name, value?))).collect())
}

/// Keys and values that keep the order of the table.
struct Pairs(Vec<(&'static str, Value)>);

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
