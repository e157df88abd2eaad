//! One line in, one line out: JSON objects as the user sees them.

use crate::wire::{
    api::{Error, Priority, TaskSpec, TaskStatus, TaskView},
    json::{self, Document, Json},
};
use std::io::{self, Write};

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub spec: TaskSpec,
    /// Lines of one type with the same key are one task.
    pub key: Option<String>,
}

/// Why a line is no task.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid(pub String);

/// Reads a line; `None` for a blank one.
pub(super) fn parse(mut text: Vec<u8>) -> Result<Option<Job>, Invalid> {
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    let bytes = text.len();
    let document = Document::parse(&mut text, bytes).map_err(|error| Invalid(error.to_string()))?;
    let root = document.root();
    if !root.is_object() {
        return Err(Invalid("not a JSON object".into()));
    }
    let mut job = Job { spec: TaskSpec::default(), key: None };
    let mut has_type = false;
    json_nil(&mut job.spec.payload);
    for (name, value) in root.fields() {
        match name {
            "type" => {
                job.spec.agent_type = string(name, value)?;
                has_type = true;
            }
            "payload" => {
                job.spec.payload.clear();
                json::to_msgpack(value, &mut job.spec.payload);
            }
            "priority" => {
                let name = string(name, value)?;
                job.spec.priority = Priority::from_name(&name).ok_or_else(|| {
                    Invalid(format!(
                        "\"priority\": {name:?} is none of low, normal, high, critical"
                    ))
                })?;
            }
            "key" => job.key = Some(string(name, value)?),
            "timeout_ms" => job.spec.timeout_ms = Some(positive(name, value)?),
            "max_attempts" => {
                let attempts = positive(name, value)?.try_into();
                let too_many = |_| Invalid("\"max_attempts\" is too large".into());
                job.spec.max_attempts = Some(attempts.map_err(too_many)?);
            }
            other => {
                return Err(Invalid(format!(
                    "unknown field {other:?}; there are type, payload, priority, key, timeout_ms, \
                     max_attempts"
                )));
            }
        }
    }
    match has_type {
        true => Ok(Some(job)),
        false => Err(Invalid("\"type\" is missing: it names the agent type".into())),
    }
}

fn json_nil(out: &mut Vec<u8>) {
    crate::wire::msgpack::write::nil(out);
}

fn string(name: &str, value: Json<'_, '_>) -> Result<String, Invalid> {
    let text = value.as_str().ok_or_else(|| Invalid(format!("{name:?} is not a string")))?;
    Ok(text.to_owned())
}

fn positive(name: &str, value: Json<'_, '_>) -> Result<u64, Invalid> {
    let number = value.as_u64().filter(|number| *number > 0);
    number.ok_or_else(|| Invalid(format!("{name:?} is not an integer of 1 or more")))
}

/// What a result line says.
pub(super) struct Record<'a> {
    line: u64,
    outcome: Outcome<'a>,
}

enum Outcome<'a> {
    Task(&'a TaskView),
    /// Never a task: a status and why.
    Refused(&'static str, String),
}

impl<'a> Record<'a> {
    /// Of a line that is no task.
    pub(super) fn invalid(line: u64, error: &str) -> Self {
        Self { line, outcome: Outcome::Refused("invalid", error.to_owned()) }
    }

    /// Of a line whose task ended or was refused.
    pub(super) fn ended(line: u64, ended: &'a Result<TaskView, Error>) -> Self {
        let outcome = match ended {
            Ok(view) => Outcome::Task(view),
            Err(error @ (Error::Invalid(_) | Error::NotFound(_) | Error::TooLarge(_))) => {
                Outcome::Refused("invalid", error.to_string())
            }
            Err(error @ Error::Conflict(_)) => Outcome::Refused("conflict", error.to_string()),
            Err(error) => Outcome::Refused("refused", error.to_string()),
        };
        Self { line, outcome }
    }

    /// The input line that it belongs to.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Whether the line's task ended well.
    pub(super) fn is_done(&self) -> bool {
        matches!(&self.outcome, Outcome::Task(view) if view.status == TaskStatus::Done)
    }

    /// Writes the line.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut text = Vec::with_capacity(256);
        write!(text, "{{\"line\":{},", self.line)?;
        match &self.outcome {
            Outcome::Task(view) => {
                let status = view.status.name();
                write!(text, "\"id\":\"{}\",\"status\":\"{status}\",", view.id)?;
                write_end(view, &mut text);
                write!(text, ",\"attempts\":{}}}", view.attempts)?;
            }
            Outcome::Refused(status, error) => {
                write!(text, "\"id\":null,\"status\":\"{status}\",\"error\":")?;
                json::string(&mut text, error);
                text.extend_from_slice(b",\"attempts\":0}");
            }
        }
        text.push(b'\n');
        out.write_all(&text)
    }
}

fn write_end(view: &TaskView, text: &mut Vec<u8>) {
    let begin = text.len();
    if let Some(result) = &view.result {
        text.extend_from_slice(b"\"result\":");
        if json::from_msgpack(result, text).is_ok() {
            return;
        }
        text.truncate(begin);
    }
    let error = match (&view.error, view.status) {
        (Some(error), _) => error,
        (None, TaskStatus::Done) => "its result cannot be written as JSON",
        (None, _) => "it was cancelled",
    };
    text.extend_from_slice(b"\"error\":");
    json::string(text, error);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::id::TaskId;

    fn parsed(text: &str) -> Result<Option<Job>, Invalid> {
        parse(text.as_bytes().to_vec())
    }

    #[test]
    fn a_line_becomes_a_task() {
        let text = r#"{"type":"echo","payload":[1],"priority":"high","key":"k","timeout_ms":9,
                       "max_attempts":2}"#;
        let spec = TaskSpec {
            agent_type: "echo".into(),
            payload: vec![0x91, 1],
            priority: Priority::High,
            timeout_ms: Some(9),
            max_attempts: Some(2),
            ..TaskSpec::default()
        };
        assert_eq!(parsed(text), Ok(Some(Job { spec, key: Some("k".into()) })));
        assert_eq!(parsed("  "), Ok(None));
        assert_eq!(parsed(r#"{"type":"echo"}"#).unwrap().unwrap().spec.payload, [0xc0]);
    }

    #[test]
    fn a_line_that_is_no_task_says_why() {
        for (text, why) in [
            ("{", "not JSON"),
            ("[]", "not a JSON object"),
            ("{}", "\"type\" is missing"),
            (r#"{"type":1}"#, "\"type\" is not a string"),
            (r#"{"type":"a","priority":"soon"}"#, "none of low"),
            (r#"{"type":"a","timeout_ms":0}"#, "1 or more"),
            (r#"{"type":"a","paylod":0}"#, "unknown field \"paylod\""),
        ] {
            let Err(Invalid(error)) = parsed(text) else { panic!("{text} was read") };
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn result_lines_are_json() {
        let view = |status, result: Option<&[u8]>, error: Option<&str>| TaskView {
            id: TaskId { partition: 1, random: 2 },
            agent_type: "a".into(),
            status,
            priority: Priority::Normal,
            attempts: 3,
            node: None,
            result: result.map(<[u8]>::to_vec),
            error: error.map(str::to_owned),
        };
        let written = |record: Record<'_>| {
            let mut out = Vec::new();
            record.write(&mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let id = r#""id":"t1-00000000000000000000000000000002""#;
        let done = Ok(view(TaskStatus::Done, Some(&[0x91, 5]), Some("once")));
        let expected =
            format!("{{\"line\":4,{id},\"status\":\"done\",\"result\":[5],\"attempts\":3}}\n");
        assert_eq!(written(Record::ended(4, &done)), expected);
        assert!(Record::ended(4, &done).is_done());
        let dead = Ok(view(TaskStatus::Dead, None, Some("a \"b\"")));
        let expected = format!(
            "{{\"line\":4,{id},\"status\":\"dead\",\"error\":\"a \\\"b\\\"\",\"attempts\":3}}\n"
        );
        assert_eq!(written(Record::ended(4, &dead)), expected);
        let expected =
            "{\"line\":9,\"id\":null,\"status\":\"invalid\",\"error\":\"no\",\"attempts\":0}\n";
        assert_eq!(written(Record::invalid(9, "no")), expected);
    }
}
