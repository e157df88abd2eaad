//! From the text of a tuning file and its overrides to a [`Config`], or to all of its errors.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::agent;
use super::error::{ConfigError, ConfigErrors};
use super::key::{Key, Section, Value};
use super::model::{AgentType, Config};
use super::relations::RELATIONS;
use super::suggest::{nearest, unknown_key, unknown_section};
use super::table::{AGENT, SECTIONS, build};

/// Most agent types that one file may list.
const AGENT_TYPES_MAX: usize = 1024;

/// Where a value was written; the order is the order in which errors are reported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// A line of the file, from 1.
    Line(usize),
    /// The place of a `--set` among the overrides, and its key.
    Override(usize, String),
}

/// A value that was written, or the mark that one was written and refused.
struct Setting {
    place: Place,
    value: Option<Value>,
}

/// What one `[[agent]]` entry has said so far.
struct Draft {
    place: Place,
    settings: BTreeMap<&'static str, Setting>,
}

impl Draft {
    fn value(&self, key: &str) -> Option<&Value> {
        self.settings.get(key)?.value.as_ref()
    }

    fn refused(&self, key: &str) -> bool {
        self.settings.get(key).is_some_and(|setting| setting.value.is_none())
    }

    fn name(&self) -> Option<&str> {
        match self.value("type") {
            Some(Value::Text(name)) => Some(name),
            _ => None,
        }
    }

    /// Which of the keys is at fault: the one that an override set, else the first that was
    /// written, else the entry itself.
    fn blame(&self, keys: &[&'static str]) -> (&'static str, &Place) {
        let written = || keys.iter().filter_map(|key| Some((*key, &self.settings.get(key)?.place)));
        let newest = written().find(|(_, place)| matches!(place, Place::Override(..)));
        newest.or_else(|| written().next()).unwrap_or((keys[0], &self.place))
    }

    /// The entry in an error: its name where it has one, else its place in the file.
    fn path(&self, index: usize) -> String {
        self.name().map_or_else(|| format!("agent[{index}]"), |name| format!("agent.{name}"))
    }
}

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
    /// The agent types, `None` until a file lists some.
    agents: Option<Vec<Draft>>,
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
            agents: None,
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
            match SECTIONS.iter().find(|section| section.name == name.get_ref()) {
                Some(section) => self.read_section(section, name, value),
                None if name.get_ref() == AGENT.name => self.read_agents(name, value),
                None => {
                    let name_text = name.get_ref().as_ref();
                    self.report(self.place(name), name_text, unknown_section(name_text));
                }
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

    fn read_agents(&mut self, name: &Spanned<Text>, value: &Raw) {
        let DeValue::Array(entries) = value.get_ref() else {
            let problem = "must be a list of entries, each written [[agent]]";
            return self.report(self.place(name), AGENT.name, problem);
        };
        if entries.len() > AGENT_TYPES_MAX {
            let problem = format!("lists {} types; allowed: {AGENT_TYPES_MAX}", entries.len());
            return self.report(self.place(name), AGENT.name, problem);
        }
        let mut drafts = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let place = self.place(entry);
            let DeValue::Table(table) = entry.get_ref() else {
                let path = format!("agent[{index}]");
                self.report(place, path, "must be an entry, written [[agent]]");
                continue;
            };
            drafts.push(self.read_agent(place, index, table));
        }
        self.agents = Some(drafts);
    }

    fn read_agent(&mut self, place: Place, index: usize, table: &DeTable<'_>) -> Draft {
        let mut draft = Draft { place, settings: BTreeMap::new() };
        // The type comes first, so that the errors of the other keys can name it.
        let (named, others): (Vec<_>, Vec<_>) =
            table.iter().partition(|(name, _)| name.get_ref() == "type");
        for (name, value) in named.into_iter().chain(others) {
            let place = self.place(name);
            let path = format!("{}.{}", draft.path(index), name.get_ref());
            let Some(key) = agent::key(name.get_ref()) else {
                self.report(place, path, unknown_key(&AGENT, name.get_ref()));
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
        match parts[..] {
            ["agent", name, key] => self.override_agent(place, path, name, key, &raw),
            [section, key] if section != AGENT.name => {
                self.override_key(place, path, section, key, &raw);
            }
            _ => self.report(place, path, "must be section.key=value or agent.TYPE.key=value"),
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

    fn override_agent(&mut self, place: Place, path: &str, name: &str, key: &str, raw: &DeValue) {
        let Some(key) = agent::key(key) else {
            return self.report(place, path, unknown_key(&AGENT, key));
        };
        let value = self.check(key, raw, &place, path);
        let drafts = self.agents.get_or_insert_with(default_drafts);
        if let Some(draft) = drafts.iter_mut().find(|draft| draft.name() == Some(name)) {
            draft.settings.insert(key.name, Setting { place, value });
            return;
        }
        let known: Vec<_> = drafts.iter().filter_map(Draft::name).collect();
        let hint = nearest(name, known.iter().copied());
        let hint = hint.map(|word| format!(" (did you mean {word:?}?)")).unwrap_or_default();
        let problem =
            format!("no agent type is called {name:?}{hint}; types: {}", known.join(", "));
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
        config.agent = match self.agents.take() {
            Some(drafts) => self.join_agents(&drafts),
            None => agent::defaults(),
        };
        for relation in RELATIONS {
            let written: Vec<_> = relation
                .keys
                .iter()
                .filter_map(|key| Some((key, self.settings.get(key)?)))
                .collect();
            if written.iter().any(|(_, setting)| setting.value.is_none()) {
                continue;
            }
            let Some(problem) = (relation.broken)(&config) else { continue };
            // The override is the newest change; a file without one is blamed at its first key.
            let newest = written.iter().find(|(_, at)| matches!(at.place, Place::Override(..)));
            let ((section, name), setting) =
                newest.or(written.first()).expect("the defaults keep every relation");
            let place = setting.place.clone();
            self.report(place, format!("{section}.{name}"), problem);
        }
        config
    }

    fn join_agents(&mut self, drafts: &[Draft]) -> Vec<AgentType> {
        let mut agents = Vec::new();
        let mut names: BTreeMap<&str, &Place> = BTreeMap::new();
        for (index, draft) in drafts.iter().enumerate() {
            if let Some(name) = draft.name() {
                let (_, place) = draft.blame(&["type"]);
                if let Some(first) = names.insert(name, place) {
                    let problem = match first {
                        Place::Line(line) => format!("{name:?} was defined before in line {line}"),
                        Place::Override(..) => format!("{name:?} was defined before"),
                    };
                    let problem = format!("{problem}; allowed: one entry for each type");
                    self.report(place.clone(), draft.path(index) + ".type", problem);
                }
            }
            match agent::build(|key| draft.value(key), |key| draft.refused(key)) {
                Ok(agent) => agents.push(agent),
                Err(troubles) => {
                    for trouble in troubles {
                        let (key, place) = draft.blame(trouble.keys);
                        let path = format!("{}.{key}", draft.path(index));
                        self.report(place.clone(), path, trouble.problem);
                    }
                }
            }
        }
        agents
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

/// The default agent types as if the file had listed them, so that an override can change one.
fn default_drafts() -> Vec<Draft> {
    let setting =
        |text: &str| Setting { place: Place::Line(1), value: Some(Value::Text(text.into())) };
    let draft = |name: &str| Draft {
        place: Place::Line(1),
        settings: BTreeMap::from([("type", setting(name)), ("kind", setting("builtin"))]),
    };
    agent::BUILTINS.map(draft).into()
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
