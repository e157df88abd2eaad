//! Lists of entries, `[[agent]]` and `[[node]]`: what an entry has said, before it is judged as a
//! whole.

use std::collections::BTreeMap;

use super::key::{Field, Key, Section, Value};

/// A list of entries that a file may hold.
pub(super) struct List {
    /// The entries' keys.
    pub section: &'static Section,
    /// The key by whose value an entry is known; no two entries have the same.
    pub id: &'static str,
    /// What an override writes for the entry's id.
    pub id_word: &'static str,
    /// What the entries are, plural.
    pub noun: &'static str,
    /// How somebody is told that there is no such entry: before the id.
    pub unknown: &'static str,
    /// Keys whose values differ from each other and from those of all other entries.
    pub unique: &'static [&'static str],
    /// What is allowed instead of a value that is there twice.
    pub once: &'static str,
    /// Most entries in one file.
    pub entries_max: usize,
    /// The entries of a file that lists none, as far as an override may change them.
    pub defaults: fn() -> Vec<Draft>,
}

impl List {
    /// The row of a key.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.section.keys.iter().find(|key| key.name == name)
    }
}

/// Where a value was written; the order is the order in which errors are reported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A line of the file, from 1.
    Line(usize),
    /// The place of a `--set` among the overrides, and its key.
    Override(usize, String),
}

/// A value that was written, or the mark that one was written and refused.
pub(super) struct Setting {
    pub place: Place,
    pub value: Option<Value>,
}

/// What one entry has said so far.
pub(super) struct Draft {
    pub place: Place,
    pub settings: BTreeMap<&'static str, Setting>,
}

/// A trouble of an entry as a whole.
pub(super) struct Trouble {
    /// The keys that it is about; the first one that was written is blamed.
    pub keys: &'static [&'static str],
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl Draft {
    /// The allowed value of a key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.settings.get(key)?.value.as_ref()
    }

    /// The allowed value of a key as the model has it.
    pub fn field<T: Field>(&self, key: &str) -> Option<T> {
        self.value(key).map(T::from_value)
    }

    /// Whether the key's value was refused before: nothing is said about it again.
    pub fn refused(&self, key: &str) -> bool {
        self.settings.get(key).is_some_and(|setting| setting.value.is_none())
    }

    /// What the entry is known by.
    pub fn id(&self, list: &List) -> Option<String> {
        match self.value(list.id)? {
            Value::Text(text) => Some(text.clone()),
            other => Some(other.to_toml()),
        }
    }

    /// Keys that must be given and are not.
    pub fn missing(&self, keys: impl Iterator<Item = &'static Key>) -> Vec<Trouble> {
        let trouble = |key: &'static Key| Trouble {
            keys: std::slice::from_ref(&key.name),
            problem: format!("must be given; allowed: {}", key.rule.allowed()),
        };
        keys.filter(|key| !self.settings.contains_key(key.name)).map(trouble).collect()
    }

    /// Which of the keys is at fault: the one that an override set, else the first that was
    /// written, else the entry itself.
    pub fn blame(&self, keys: &[&'static str]) -> (&'static str, &Place) {
        let written = || keys.iter().filter_map(|key| Some((*key, &self.settings.get(key)?.place)));
        let newest = written().find(|(_, place)| matches!(place, Place::Override(..)));
        newest.or_else(|| written().next()).unwrap_or((keys[0], &self.place))
    }

    /// The entry in an error: what it is known by, else its place in the file.
    pub fn path(&self, list: &List, index: usize) -> String {
        let name = list.section.name;
        self.id(list).map_or_else(|| format!("{name}[{index}]"), |id| format!("{name}.{id}"))
    }
}
