//! From the text of a tuning file and its overrides to a [`Config`], or to all of its errors.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::agent;
use super::entry::{Draft, List, Place, Setting, Trouble};
use super::error::{ConfigError, ConfigErrors};
use super::key::{Key, Section, Value};
use super::model::Config;
use super::node::{self, Asked};
use super::relations::{AGREEMENT_RELATIONS, CLUSTER_RELATIONS, RELATIONS, Relation};
use super::suggest::{nearest, unknown_key, unknown_section};
use super::table::{SECTIONS, build};

/// The lists of entries that a file may hold.
static LISTS: [&List; 2] = [&agent::LIST, &node::LIST];

/// Parses a file and its overrides; `file_name` is only for the errors.
pub(super) fn parse(
    text: &str,
    file_name: &str,
    overrides: &[String],
) -> Result<Config, ConfigErrors> {
    let mut reader = Reader::new(text);
    reader.read_file(text);
    for (index, assignment) in overrides.iter().enumerate() {
        reader.read_override(index, assignment);
    }
    let config = reader.join();
    if reader.findings.is_empty() { Ok(config) } else { Err(reader.errors(file_name)) }
}

struct Finding {
    place: Place,
    key: String,
    problem: String,
}

struct Reader {
    /// The offset of the first byte of each line.
    line_starts: Vec<usize>,
    settings: BTreeMap<(&'static str, &'static str), Setting>,
    /// The entries of each list that was written, by its name.
    lists: BTreeMap<&'static str, Vec<Draft>>,
    findings: Vec<Finding>,
    /// Lines that are not TOML: what was read from them is a guess and not judged.
    broken_lines: BTreeSet<usize>,
}

impl Reader {
    fn new(text: &str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(offset, _)| offset + 1);
        Self {
            line_starts: std::iter::once(0).chain(after_newlines).collect(),
            settings: BTreeMap::new(),
            lists: BTreeMap::new(),
            findings: Vec::new(),
            broken_lines: BTreeSet::new(),
        }
    }

    fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    fn place<T>(&self, spanned: &Spanned<T>) -> Place {
        Place::Line(self.line(spanned.span().start))
    }

    fn report(&mut self, place: Place, key: impl Into<String>, problem: impl Into<String>) {
        if let Place::Line(line) = &place
            && self.broken_lines.contains(line)
        {
            return;
        }
        self.findings.push(Finding { place, key: key.into(), problem: problem.into() });
    }

    fn read_file(&mut self, text: &str) {
        let (table, syntax) = DeTable::parse_recoverable(text);
        let mut broken_lines = BTreeSet::new();
        for error in syntax {
            let line = error.span().map_or(1, |span| self.line(span.start));
            // One slip often breaks the rest of its line too; the first sentence is the useful one.
            if broken_lines.insert(line) {
                self.report(Place::Line(line), "", error.message());
            }
        }
        self.broken_lines = broken_lines;
        for (name, value) in table.get_ref() {
            let word = name.get_ref().as_ref();
            if let Some(section) = SECTIONS.iter().find(|section| section.name == word) {
                self.read_section(section, name, value);
            } else if let Some(list) = list_of(word) {
                self.read_list(list, name, value);
            } else {
                self.report(self.place(name), word, unknown_section(word));
            }
        }
    }

    fn read_section(&mut self, section: &'static Section, name: &Spanned<Text>, value: &Raw) {
        let DeValue::Table(table) = value.get_ref() else {
            let problem = format!("must be a section, written [{}]", section.name);
            return self.report(self.place(name), section.name, problem);
        };
        for (name, value) in table {
            let place = self.place(name);
            let path = format!("{}.{}", section.name, name.get_ref());
            let Some(key) = section.keys.iter().find(|key| key.name == name.get_ref()) else {
                self.report(place, path, unknown_key(section, name.get_ref()));
                continue;
            };
            let value = self.check(key, value.get_ref(), &place, &path);
            self.settings.insert((section.name, key.name), Setting { place, value });
        }
    }

    fn read_list(&mut self, list: &'static List, name: &Spanned<Text>, value: &Raw) {
        let word = list.section.name;
        let DeValue::Array(entries) = value.get_ref() else {
            let problem = format!("must be a list of entries, each written [[{word}]]");
            return self.report(self.place(name), word, problem);
        };
        let (count, most, noun) = (entries.len(), list.entries_max, list.noun);
        if count > most {
            let problem = format!("lists {count} {noun}; allowed: {most}");
            return self.report(self.place(name), word, problem);
        }
        let mut drafts = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let place = self.place(entry);
            let DeValue::Table(table) = entry.get_ref() else {
                let problem = format!("must be an entry, written [[{word}]]");
                self.report(place, format!("{word}[{index}]"), problem);
                continue;
            };
            drafts.push(self.read_entry(list, place, index, table));
        }
        self.lists.insert(word, drafts);
    }

    fn read_entry(
        &mut self,
        list: &'static List,
        place: Place,
        index: usize,
        table: &DeTable<'_>,
    ) -> Draft {
        let mut draft = Draft { place, settings: BTreeMap::new() };
        // The id comes first, so that the errors of the other keys can name it.
        let (named, others): (Vec<_>, Vec<_>) =
            table.iter().partition(|(name, _)| name.get_ref() == list.id);
        for (name, value) in named.into_iter().chain(others) {
            let place = self.place(name);
            let path = format!("{}.{}", draft.path(list, index), name.get_ref());
            let Some(key) = list.key(name.get_ref()) else {
                self.report(place, path, unknown_key(list.section, name.get_ref()));
                continue;
            };
            let value = self.check(key, value.get_ref(), &place, &path);
            draft.settings.insert(key.name, Setting { place, value });
        }
        draft
    }

    /// The value if the key's rule allows it; else reports why not.
    fn check(&mut self, key: &Key, raw: &DeValue<'_>, place: &Place, path: &str) -> Option<Value> {
        let checked = match value_of(raw) {
            Ok(value) => key.rule.check(&value).map(|()| value),
            Err(kind) => Err(key.rule.wrong_type(kind)),
        };
        checked
            .map_err(|problem| {
                let problem = format!("{problem}; allowed: {}", key.rule.allowed());
                self.report(place.clone(), path, problem);
            })
            .ok()
    }

    fn read_override(&mut self, index: usize, assignment: &str) {
        let (path, text) = match assignment.split_once('=') {
            Some((path, text)) => (path.trim(), text.trim()),
            None => {
                let place = Place::Override(index, assignment.trim().to_owned());
                return self.report(place, assignment.trim(), "must be section.key=value");
            }
        };
        let place = Place::Override(index, path.to_owned());
        // A word that is not TOML is a string whose quotes the shell has eaten.
        let raw = DeValue::parse(text).map(Spanned::into_inner);
        let raw = raw.unwrap_or_else(|_| DeValue::String(text.into()));
        let parts: Vec<_> = path.split('.').collect();
        match (parts.first().and_then(|word| list_of(word)), &parts[..]) {
            (Some(list), [_, id, key]) => self.override_entry(list, place, path, (id, key), &raw),
            (None, [section, key]) => self.override_key(place, path, section, key, &raw),
            _ => {
                let entry = |list: &&List| format!("{}.{}.key", list.section.name, list.id_word);
                let [agent, node] = LISTS.each_ref().map(entry);
                let problem = format!("must be section.key=value, {agent}=value or {node}=value");
                self.report(place, path, problem);
            }
        }
    }

    fn override_key(&mut self, place: Place, path: &str, section: &str, key: &str, raw: &DeValue) {
        let Some(section) = SECTIONS.iter().find(|known| known.name == section) else {
            return self.report(place, path, unknown_section(section));
        };
        let Some(key) = section.keys.iter().find(|known| known.name == key) else {
            return self.report(place, path, unknown_key(section, key));
        };
        let value = self.check(key, raw, &place, path);
        self.settings.insert((section.name, key.name), Setting { place, value });
    }

    fn override_entry(
        &mut self,
        list: &'static List,
        place: Place,
        path: &str,
        (id, key): (&str, &str),
        raw: &DeValue,
    ) {
        let Some(key) = list.key(key) else {
            return self.report(place, path, unknown_key(list.section, key));
        };
        let value = self.check(key, raw, &place, path);
        let drafts = self.lists.entry(list.section.name).or_insert_with(list.defaults);
        if let Some(draft) = drafts.iter_mut().find(|draft| draft.id(list).as_deref() == Some(id)) {
            draft.settings.insert(key.name, Setting { place, value });
            return;
        }
        let known: Vec<_> = drafts.iter().filter_map(|draft| draft.id(list)).collect();
        let hint = nearest(id, known.iter().map(String::as_str));
        let hint = hint.map(|word| format!(" (did you mean {word:?}?)")).unwrap_or_default();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let problem = format!("{} {id:?}{hint}; {}: {known}", list.unknown, list.noun);
        self.report(place, path, problem);
    }

    /// Joins what was read. Keys that were refused take their default, and no relation that
    /// names one of them is judged.
    fn join(&mut self) -> Config {
        let mut config = build(|section, name| {
            let written = self.settings.get(&(section, name));
            let written = written.and_then(|setting| setting.value.clone());
            written.unwrap_or_else(|| preset(section, name))
        });
        // A path that was refused was meant to be one.
        let names = |section, key| {
            let written = self.settings.get(&(section, key)).map(|setting| &setting.value);
            written.is_some_and(|value| *value != Some(Value::Text(String::new())))
        };
        let asked =
            Asked { token: names("server", "token_file"), secret: names("cluster", "secret_file") };
        config.agent = self.join_list(&agent::LIST, agent::build).unwrap_or_else(agent::defaults);
        config.node =
            self.join_list(&node::LIST, |draft| node::build(draft, asked)).unwrap_or_default();
        RELATIONS.iter().for_each(|relation| self.judge(relation, &config));
        // Of a list that was refused in part nobody knows what it was meant to be.
        if !self.findings.iter().any(|finding| finding.key.starts_with(node::LIST.section.name)) {
            let relations = CLUSTER_RELATIONS.iter().chain(AGREEMENT_RELATIONS);
            relations.for_each(|relation| self.judge(relation, &config));
        }
        config
    }

    fn judge(&mut self, relation: &Relation, config: &Config) {
        let keys = relation.keys.iter();
        let written: Vec<_> = keys.filter_map(|key| Some((key, self.settings.get(key)?))).collect();
        if written.iter().any(|(_, setting)| setting.value.is_none()) {
            return;
        }
        let Some(problem) = (relation.broken)(config) else { return };
        // The override is the newest change; a file without one is blamed at its first key.
        let newest = written.iter().find(|(_, at)| matches!(at.place, Place::Override(..)));
        let ((section, name), setting) =
            newest.or(written.first()).expect("the defaults keep every relation");
        let place = setting.place.clone();
        self.report(place, format!("{section}.{name}"), problem);
    }

    /// The entries of a list as the model has them; `None` when neither the file nor an override
    /// has one.
    fn join_list<T>(
        &mut self,
        list: &'static List,
        build: impl Fn(&Draft) -> Result<T, Vec<Trouble>>,
    ) -> Option<Vec<T>> {
        let drafts = self.lists.remove(list.section.name)?;
        self.find_twins(list, &drafts);
        let mut entries = Vec::new();
        for (index, draft) in drafts.iter().enumerate() {
            match build(draft) {
                Ok(entry) => entries.push(entry),
                Err(troubles) => {
                    for trouble in troubles {
                        let (key, place) = draft.blame(trouble.keys);
                        let path = format!("{}.{key}", draft.path(list, index));
                        self.report(place.clone(), path, trouble.problem);
                    }
                }
            }
        }
        Some(entries)
    }

    /// Reports values that only one entry of a list may have, at the place that came last.
    fn find_twins(&mut self, list: &'static List, drafts: &[Draft]) {
        let mut first: BTreeMap<Value, (Place, String)> = BTreeMap::new();
        for (index, draft) in drafts.iter().enumerate() {
            for key in list.unique.iter().filter_map(|key| list.key(key)) {
                let Some(value) = draft.value(key.name) else { continue };
                let (_, place) = draft.blame(std::slice::from_ref(&key.name));
                let path = format!("{}.{}", draft.path(list, index), key.name);
                let this = (place.clone(), path);
                let Some(twin) = first.insert(key.rule.canonical(value), this.clone()) else {
                    continue;
                };
                let (earlier, (place, path)) =
                    if twin < this { (twin, this) } else { (this, twin) };
                let value = value.to_toml();
                let problem = match earlier.0 {
                    Place::Line(line) => format!("{value} was defined before in line {line}"),
                    Place::Override(..) => format!("{value} was defined before"),
                };
                self.report(place, path, format!("{problem}; allowed: {}", list.once));
            }
        }
    }

    fn errors(self, file_name: &str) -> ConfigErrors {
        let mut findings = self.findings;
        findings.sort_by(|left, right| left.place.cmp(&right.place));
        let place = |place| match place {
            Place::Line(line) => format!("{file_name}:{line}"),
            Place::Override(_, key) => format!("--set {key}"),
        };
        let error = |finding: Finding| ConfigError {
            place: place(finding.place),
            key: finding.key,
            problem: finding.problem,
        };
        ConfigErrors(findings.into_iter().map(error).collect())
    }
}

type Text<'a> = std::borrow::Cow<'a, str>;
type Raw<'a> = Spanned<DeValue<'a>>;

fn list_of(name: &str) -> Option<&'static List> {
    LISTS.into_iter().find(|list| list.section.name == name)
}

fn preset(section: &str, name: &str) -> Value {
    let section = SECTIONS.iter().find(|known| known.name == section);
    let key = section.and_then(|section| section.keys.iter().find(|key| key.name == name));
    key.and_then(|key| key.default.value()).expect("the table has a default for every section key")
}

/// The value in the terms of the rules, or the name of its type when no rule knows the type.
fn value_of(raw: &DeValue<'_>) -> Result<Value, &'static str> {
    match raw {
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map(Value::Integer)
            .map_err(|_| "an integer of more than 38 digits"),
        DeValue::String(text) => Ok(Value::Text(text.clone().into_owned())),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| value_of(item.get_ref()));
            Ok(Value::List(items.collect::<Result<_, _>>().map_err(|_| "a list of other values")?))
        }
        DeValue::Float(_) => Err("a number with a fraction"),
        DeValue::Boolean(_) => Err("true or false"),
        DeValue::Datetime(_) => Err("a date"),
        DeValue::Table(_) => Err("a section"),
    }
}
