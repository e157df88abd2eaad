//! `[[agent]]` entries: from the values of one entry to an [`AgentType`], and back.

use std::collections::BTreeMap;

use super::entry::{Draft, List, Place, Setting, Trouble};
use super::key::{Field, Preset, Value};
use super::model::{AgentKind, AgentType};
use super::table::AGENT;

/// The agent types that are part of this program.
pub(super) const BUILTINS: [&str; 3] = ["echo", "sleep", "sha256"];

/// The list of agent types.
pub(super) static LIST: List = List {
    section: &AGENT,
    id: "type",
    id_word: "TYPE",
    noun: "types",
    unknown: "no agent type is called",
    unique: &["type"],
    once: "one entry for each type",
    entries_max: 1024,
    defaults: default_drafts,
};

/// The agent types of a file that lists none.
pub(super) fn defaults() -> Vec<AgentType> {
    let builtin = |name: &str| AgentType {
        name: name.to_owned(),
        kind: AgentKind::Builtin,
        min: default("min"),
        max: default("max"),
        max_tasks: default("max_tasks"),
        idle_timeout_ms: default("idle_timeout_ms"),
        warmup_delay_ms: default("warmup_delay_ms"),
        capabilities: default("capabilities"),
    };
    BUILTINS.map(builtin).into()
}

/// The default agent types as if the file had listed them, so that an override can change one.
fn default_drafts() -> Vec<Draft> {
    let setting =
        |text: &str| Setting { place: Place::Line(1), value: Some(Value::Text(text.into())) };
    let draft = |name: &str| Draft {
        place: Place::Line(1),
        settings: BTreeMap::from([("type", setting(name)), ("kind", setting("builtin"))]),
    };
    BUILTINS.map(draft).into()
}

fn default<T: Field>(name: &str) -> T {
    let preset = LIST.key(name).map_or(Preset::Absent, |key| key.default);
    T::from_value(&preset.value().expect("the table has a default for this key"))
}

/// Joins the allowed values of an entry, or says what is wrong between them.
pub(super) fn build(draft: &Draft) -> Result<AgentType, Vec<Trouble>> {
    fn read<T: Field>(draft: &Draft, key: &str) -> T {
        draft.field(key).unwrap_or_else(|| default(key))
    }
    let given = AGENT.keys.iter().filter(|key| matches!(key.name, "type" | "kind"));
    let mut troubles = draft.missing(given);
    let mut trouble = |keys, problem| troubles.push(Trouble { keys, problem });
    let name: Option<String> = draft.field("type");
    let word: Option<String> = draft.field("kind");
    let has_command = draft.settings.contains_key("command");
    let kind = match word.as_deref() {
        Some("exec") if !has_command => {
            let problem = "must be given for kind \"exec\"; allowed: a program and its arguments";
            trouble(&["command"], problem.to_owned());
            None
        }
        Some("exec") => draft.field("command").map(|command| AgentKind::Exec { command }),
        Some(other) => {
            if has_command {
                let problem =
                    format!("kind \"{other}\" has no command; allowed: only for \"exec\"");
                trouble(&["command"], problem);
            }
            Some(if other == "remote" { AgentKind::Remote } else { AgentKind::Builtin })
        }
        None => None,
    };
    if let (Some(AgentKind::Builtin), Some(name)) = (&kind, &name)
        && !BUILTINS.contains(&name.as_str())
    {
        let known = BUILTINS.join(", ");
        let problem = format!("{name:?} is not part of this program; allowed builtins: {known}");
        trouble(&["type"], problem);
    }
    let remote = kind == Some(AgentKind::Remote);
    let min = if remote && draft.value("min").is_none() { 0 } else { read(draft, "min") };
    let max = read(draft, "max");
    if remote && min > 0 {
        let problem = format!("kind \"remote\" cannot start {min} agents; allowed: 0");
        trouble(&["min"], problem);
    } else if min > max && !draft.refused("min") && !draft.refused("max") {
        let problem = format!("min is {min} and max is {max}; allowed: min up to max");
        trouble(&["min", "max"], problem);
    }
    match (name, kind) {
        (Some(name), Some(kind)) if troubles.is_empty() => Ok(AgentType {
            name,
            kind,
            min,
            max,
            max_tasks: read(draft, "max_tasks"),
            idle_timeout_ms: read(draft, "idle_timeout_ms"),
            warmup_delay_ms: read(draft, "warmup_delay_ms"),
            capabilities: read(draft, "capabilities"),
        }),
        _ => Err(troubles),
    }
}

/// The values of an agent type in the order of the table; `None` where the kind has no such key.
pub(super) fn values(agent: &AgentType) -> Vec<Option<Value>> {
    let (kind, command) = match &agent.kind {
        AgentKind::Builtin => ("builtin", None),
        AgentKind::Exec { command } => ("exec", Some(command)),
        AgentKind::Remote => ("remote", None),
    };
    vec![
        Some(agent.name.to_value()),
        Some(Value::Text(kind.to_owned())),
        Some(agent.min.to_value()),
        Some(agent.max.to_value()),
        Some(agent.max_tasks.to_value()),
        Some(agent.idle_timeout_ms.to_value()),
        Some(agent.warmup_delay_ms.to_value()),
        command.map(Field::to_value),
        Some(agent.capabilities.to_value()),
    ]
}
