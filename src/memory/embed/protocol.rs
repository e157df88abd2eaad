//! The lines that are exchanged with an embedder that is a child process.
//!
//! To it: `{"id","texts":[…]}`; from it: `{"id","vectors":[[…],…]}`, a vector for each text in order, or
//! `{"id","error"}`.

use crate::wire::json;
use std::io::Write;

/// What an embedder said.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The line that it answers.
    pub id: u64,
    /// A vector for each text, or why there is none. What is no number comes out as NaN.
    pub vectors: Result<Vec<Vec<f32>>, String>,
}

/// The line for texts, with its line break.
pub fn request(id: u64, texts: &[&str]) -> Vec<u8> {
    let mut line = Vec::new();
    write!(line, r#"{{"id":{id},"texts":["#).expect("memory takes every write");
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            line.push(b',');
        }
        json::string(&mut line, text);
    }
    line.extend_from_slice(b"]}\n");
    line
}

/// Reads a line of an embedder, without its line break.
///
/// # Errors
/// When it is no answer; the text says what is wrong with it.
pub fn answer(line: &mut [u8], bytes_max: usize) -> Result<Answer, String> {
    let document = json::Document::parse(line, bytes_max).map_err(|error| error.to_string())?;
    let root = document.root();
    let id = root.get("id").and_then(|id| id.as_u64()).ok_or("no \"id\" that is a number")?;
    match (root.get("vectors"), root.get("error")) {
        (Some(vectors), None) if vectors.is_array() => {
            let number = |number: json::Json<'_, '_>| number.as_f64().unwrap_or(f64::NAN) as f32;
            let vectors = vectors.items().map(|vector| vector.items().map(number).collect());
            Ok(Answer { id, vectors: Ok(vectors.collect()) })
        }
        (Some(_), None) => Err("\"vectors\" that are no array".into()),
        (None, Some(error)) => {
            let error = error.as_str().ok_or("an \"error\" that is not a string")?;
            Ok(Answer { id, vectors: Err(error.to_owned()) })
        }
        _ => Err("neither \"vectors\" nor \"error\", or both".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Answer, String> {
        answer(&mut line.as_bytes().to_vec(), 1000)
    }

    #[test]
    fn texts_are_one_line_of_json() {
        let line = request(7, &["a \"b\"\n", "é"]);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"id\":7,\"texts\":[\"a \\\"b\\\"\\n\",\"é\"]}\n"
        );
    }

    #[test]
    fn vectors_and_errors_are_understood() {
        let said = read(r#"{"id":3,"vectors":[[1,-0.5],[1e-3,2.5e1]]}"#).unwrap();
        assert_eq!(said, Answer { id: 3, vectors: Ok(vec![vec![1.0, -0.5], vec![0.001, 25.0]]) });
        let said = read(r#"{"id":3,"error":"too long"}"#).unwrap();
        assert_eq!(said.vectors, Err("too long".into()));
        let vectors = read(r#"{"id":3,"vectors":[[null,"1",1e99]]}"#).unwrap().vectors.unwrap();
        assert!(vectors[0][0].is_nan() && vectors[0][1].is_nan() && vectors[0][2].is_infinite());
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for line in [
            "",
            "loading the model",
            "[]",
            "{}",
            r#"{"id":"3","vectors":[]}"#,
            r#"{"id":3}"#,
            r#"{"id":3,"vectors":[],"error":"both"}"#,
            r#"{"id":3,"vectors":{}}"#,
            r#"{"id":3,"vectors":[[NaN]]}"#,
            r#"{"id":3,"error":5}"#,
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
