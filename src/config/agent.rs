//! `[[agent]]` entries: from the values of one entry to an [`AgentType`], and back.

use super::key::{Field, Key, Preset, Value};
use super::model::{AgentKind, AgentType};
use super::table::AGENT;

/// The agent types that are part of this program.
pub(super) const BUILTINS: [&str; 3] = ["echo", "sleep", "sha256"];

/// A trouble of an entry as a whole.
pub(super) struct Trouble {
    /// The keys that it is about; the first one that was written is blamed.
    pub keys: &'static [&'static str],
    /// What is wrong and what is allowed.
    pub problem: String,
}

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
    };
    BUILTINS.map(builtin).into()
}

/// The row of a key of `[[agent]]`.
pub(super) fn key(name: &str) -> Option<&'static Key> {
    AGENT.keys.iter().find(|key| key.name == name)
}

fn default<T: Field>(name: &str) -> T {
    let preset = key(name).map_or(Preset::Absent, |key| key.default);
    T::from_value(&preset.value().expect("the table has a default for this key"))
}

/// Joins the allowed values of an entry, or says what is wrong between them.
///
/// `value` answers what the entry holds for a key. `refused` are keys whose value was refused
/// before: nothing is said about them again.
pub(super) fn build<'a>(
    value: impl Fn(&str) -> Option<&'a Value>,
    refused: impl Fn(&str) -> bool,
) -> Result<AgentType, Vec<Trouble>> {
    fn read<T: Field>(value: Option<&Value>, key: &str) -> T {
        value.map_or_else(|| default(key), T::from_value)
    }
    let mut troubles = Vec::new();
    let mut trouble = |keys, problem| troubles.push(Trouble { keys, problem });
    let name: Option<String> = value("type").map(Field::from_value);
    let word: Option<String> = value("kind").map(Field::from_value);
    for key in AGENT.keys.iter().filter(|key| matches!(key.name, "type" | "kind")) {
        if value(key.name).is_none() && !refused(key.name) {
            let problem = format!("must be given; allowed: {}", key.rule.allowed());
            trouble(std::slice::from_ref(&key.name), problem);
        }
    }
    let has_command = value("command").is_some() || refused("command");
    let kind = match word.as_deref() {
        Some("exec") if !has_command => {
            let problem = "must be given for kind \"exec\"; allowed: a program and its arguments";
            trouble(&["command"], problem.to_owned());
            None
        }
        Some("exec") => value("command").map(|list| AgentKind::Exec { command: words(list) }),
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
    let min = if remote && value("min").is_none() { 0 } else { read(value("min"), "min") };
    let max = read(value("max"), "max");
    if remote && min > 0 {
        let problem = format!("kind \"remote\" cannot start {min} agents; allowed: 0");
        trouble(&["min"], problem);
    } else if min > max && !refused("min") && !refused("max") {
        let problem = format!("min is {min} and max is {max}; allowed: min up to max");
        trouble(&["min", "max"], problem);
    }
    match (name, kind) {
        (Some(name), Some(kind)) if troubles.is_empty() => Ok(AgentType {
            name,
            kind,
            min,
            max,
            max_tasks: read(value("max_tasks"), "max_tasks"),
            idle_timeout_ms: read(value("idle_timeout_ms"), "idle_timeout_ms"),
            warmup_delay_ms: read(value("warmup_delay_ms"), "warmup_delay_ms"),
        }),
        _ => Err(troubles),
    }
}

fn words(command: &Value) -> Vec<String> {
    match command {
        Value::List(words) => words.iter().map(Field::from_value).collect(),
        other => unreachable!("the rule let {other:?} through as a command"),
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
        command.map(|words| Value::List(words.iter().map(Field::to_value).collect())),
    ]
}
