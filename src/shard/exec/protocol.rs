//! The lines that are exchanged with a child.

use crate::{
    shard::handle::Failure,
    wire::{id::TaskId, json},
};
use std::io::Write;

/// What a child said.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which task it is about.
    pub id: TaskId,
    /// The result, one MessagePack value, or a failure.
    pub result: Result<Vec<u8>, Failure>,
}

/// The line for a task, with its line break.
///
/// # Errors
/// When the payload has no JSON form.
pub fn request(
    id: TaskId,
    attempt: u32,
    agent_type: &str,
    payload: &[u8],
    left_ms: u64,
) -> Result<Vec<u8>, String> {
    let mut line = Vec::with_capacity(payload.len() + 128);
    let written = write!(line, r#"{{"id":"{id}","attempt":{attempt},"type":"#);
    written.expect("writing to memory");
    json::string(&mut line, agent_type);
    line.extend_from_slice(br#","payload":"#);
    json::from_msgpack(payload, &mut line)
        .map_err(|error| format!("payload: {error}, and an exec agent is spoken to in JSON"))?;
    writeln!(line, r#","deadline_ms":{left_ms}}}"#).expect("writing to memory");
    Ok(line)
}

/// Reads a line of a child, without its line break.
///
/// # Errors
/// When it is not an answer; the text says what is wrong with it.
pub fn answer(line: &mut [u8], bytes_max: usize) -> Result<Answer, String> {
    let document = json::Document::parse(line, bytes_max).map_err(|error| error.to_string())?;
    let root = document.root();
    if !root.is_object() {
        return Err("not a JSON object".into());
    }
    let id = root.get("id").and_then(|id| id.as_str()).ok_or("no \"id\" that is a string")?;
    let id = super::parse_id(id).ok_or("an \"id\" that no task has")?;
    match (root.get("result"), root.get("error")) {
        (Some(result), None) => {
            let mut value = Vec::new();
            json::to_msgpack(result, &mut value);
            Ok(Answer { id, result: Ok(value) })
        }
        (None, Some(error)) => {
            let error = error.as_str().ok_or("an \"error\" that is not a string")?.to_owned();
            let retry = root.get("retry").is_none_or(|retry| retry.as_bool() != Some(false));
            Ok(Answer { id, result: Err(Failure { error, retry }) })
        }
        _ => Err("neither \"result\" nor \"error\", or both".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TaskId = TaskId { partition: 1, random: 2 };

    fn read(line: &str) -> Result<Answer, String> {
        answer(&mut line.as_bytes().to_vec(), 1000)
    }

    #[test]
    fn a_task_is_one_line_of_json() {
        let payload = [0x82, 0xa1, b'n', 7, 0xa1, b't', 0xa2, b'\n', b'"'];
        let line = request(ID, 3, "a \"type\"", &payload, 250).unwrap();
        let text = String::from_utf8(line).unwrap();
        let expected = format!(
            concat!(
                r#"{{"id":"{}","attempt":3,"type":"a \"type\"","payload":{{"n":7,"t":"\n\""}},"#,
                r#""deadline_ms":250}}"#,
                "\n"
            ),
            ID
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn results_and_errors_are_understood() {
        let answer = read(&format!(r#"{{"id":"{ID}","result":[1,null]}}"#)).unwrap();
        assert_eq!(answer, Answer { id: ID, result: Ok(vec![0x92, 1, 0xc0]) });
        let answer = read(&format!(r#"{{"id":"{ID}","error":"no"}}"#)).unwrap();
        assert_eq!(answer.result, Err(Failure { error: "no".into(), retry: true }));
        let answer = read(&format!(r#"{{"id":"{ID}","error":"no","retry":false}}"#)).unwrap();
        assert_eq!(answer.result, Err(Failure { error: "no".into(), retry: false }));
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for line in [
            "",
            "hello",
            "[]",
            "{}",
            r#"{"id":7,"result":1}"#,
            r#"{"id":"t1-","result":1}"#,
            &format!(r#"{{"id":"{ID}"}}"#),
            &format!(r#"{{"id":"{ID}","result":1,"error":"both"}}"#),
            &format!(r#"{{"id":"{ID}","error":5}}"#),
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
