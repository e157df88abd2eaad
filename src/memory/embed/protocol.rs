//! The lines that are exchanged with an embedder that is a child process.
//!
//! To it: `{"id","texts":[…]}`; from it: `{"id","vectors":[[…],…]}`, a vector for each text in order, or
//! `{"id","error"}`.
//!
//! An answer that can be told apart is of use whatever is wrong with it: one text fails, and the
//! embedder lives on. So what is no number in a vector is read as NaN, also the `NaN` and `Infinity`
//! that JSON does not have and Python writes.

use crate::wire::json;
use std::io::Write;

/// What an embedder said.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The line that it answers.
    pub id: u64,
    /// A vector for each text, or why there is none. What is no number comes out as NaN.
    pub vectors: Result<Vec<Vec<f32>>, NoVectors>,
}

/// Why an answer has no vectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoVectors {
    /// The embedder's own words.
    Said(String),
    /// What is wrong with the answer.
    Wrong(&'static str),
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
/// When it answers no line; the text says what is wrong with it.
pub fn answer(line: &mut [u8], bytes_max: usize) -> Result<Answer, String> {
    replace_no_numbers(line);
    let document = json::Document::parse(line, bytes_max).map_err(|error| error.to_string())?;
    let root = document.root();
    let id = root.get("id").and_then(|id| id.as_u64()).ok_or("no \"id\" that is a number")?;
    let vectors = match (root.get("vectors"), root.get("error")) {
        (Some(vectors), None)
            if vectors.items().all(json::Json::is_array) && vectors.is_array() =>
        {
            let number = |number: json::Json<'_, '_>| number.as_f64().unwrap_or(f64::NAN) as f32;
            let vectors = vectors.items().map(|vector| vector.items().map(number).collect());
            Ok(vectors.collect())
        }
        (Some(_), None) => Err(NoVectors::Wrong("\"vectors\" that are no array of arrays")),
        (None, Some(error)) => Err(match error.as_str() {
            Some(error) => NoVectors::Said(error.to_owned()),
            None => NoVectors::Wrong("an \"error\" that is not a string"),
        }),
        _ => Err(NoVectors::Wrong("neither \"vectors\" nor \"error\", or both")),
    };
    Ok(Answer { id, vectors })
}

/// Puts an empty string, which is no number either, in the place of each `NaN` and `Infinity` that is
/// not part of a string.
fn replace_no_numbers(line: &mut [u8]) {
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b'"' => {
                at += 1;
                while at < line.len() && line[at] != b'"' {
                    at += if line[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'N' | b'I' | b'-' => {
                let word = [&b"NaN"[..], b"Infinity", b"-Infinity"];
                if let Some(word) = word.into_iter().find(|word| line[at..].starts_with(word)) {
                    line[at..at + word.len()].fill(b' ');
                    line[at..at + 2].fill(b'"');
                    at += word.len() - 1;
                }
            }
            _ => {}
        }
        at += 1;
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
        assert_eq!(said.vectors, Err(NoVectors::Said("too long".into())));
        let vectors = read(r#"{"id":3,"vectors":[[null,"1",1e99]]}"#).unwrap().vectors.unwrap();
        assert!(vectors[0][0].is_nan() && vectors[0][1].is_nan() && vectors[0][2].is_infinite());
    }

    #[test]
    fn what_python_writes_for_no_number_is_read_as_none() {
        let line = r#"{"id":3,"vectors":[[NaN,1,Infinity],[-Infinity,2,-2.5]]}"#;
        let vectors = read(line).unwrap().vectors.unwrap();
        assert!(vectors[0][0].is_nan() && vectors[0][2].is_nan() && vectors[1][0].is_nan());
        assert_eq!((vectors[0][1], &vectors[1][1..]), (1.0, &[2.0, -2.5][..]));
        let said = read(r#"{"id":3,"error":"a \"NaN\" of NaN, \\"}"#).unwrap();
        assert_eq!(said.vectors, Err(NoVectors::Said(r#"a "NaN" of NaN, \"#.into())));
        assert!(read(r#"{"id":3,"vectors":[[NaNa]]}"#).is_err());
        assert!(read(r#"{"id":3,"vectors":[["NaN\"#).is_err(), "it ends within an escape");
    }

    #[test]
    fn an_answer_that_is_wrong_is_still_the_answer_to_its_line() {
        for line in [
            r#"{"id":3}"#,
            r#"{"id":3,"vectors":[],"error":"both"}"#,
            r#"{"id":3,"vectors":{}}"#,
            r#"{"id":3,"vectors":[1,2]}"#,
            r#"{"id":3,"error":5}"#,
        ] {
            let said = read(line).unwrap();
            assert!(said.id == 3 && matches!(said.vectors, Err(NoVectors::Wrong(_))), "{line}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for line in [
            "",
            "loading the model",
            "[]",
            "{}",
            r#"{"id":"3","vectors":[]}"#,
            r#"{"vectors":[[1]]}"#,
            r#"{"id":3,"vectors":[[1,nan]]}"#,
        ] {
            let said = read(line).unwrap_err();
            assert!(!said.contains("Error"), "the parser's own words: {said}");
        }
    }
}
