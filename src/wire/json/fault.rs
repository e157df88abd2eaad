//! Where a text ceases to be JSON (RFC 8259), and what is wanted there: for the one who wrote it.
//!
//! The parser says that a text is wrong; this walks over it again, by a stack of its own instead of
//! recursion, and finds the first place that no JSON text has.

use std::fmt;

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The letter of the line, from 1.
    pub column: usize,
    /// Whether the text has other lines.
    pub has_lines: bool,
    /// What is wanted there, or wrong with what is there.
    pub problem: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, has_lines, problem } = self;
        if *has_lines {
            write!(f, "line {line}, ")?;
        }
        write!(f, "column {column}: {problem}")
    }
}

/// What is wrong with a string at whose end there is no quote.
const NO_END: &str = "a string without its end";

/// A place in a text, and what is wrong there.
type Stop = (usize, &'static str);

/// Finds the fault of a text that the parser refused.
pub(super) fn find(text: &[u8]) -> Fault {
    let broken = std::str::from_utf8(text).err().map(|error| error.valid_up_to());
    let known = &text[..broken.unwrap_or(text.len())];
    let (at, problem) = match (Walk { text: known, at: 0 }.text(), broken) {
        // What comes before the broken byte is only cut off there.
        (Err((at, problem)), None) => (at, problem),
        (Err((at, problem)), Some(end)) if at < end && problem != NO_END => (at, problem),
        (_, Some(end)) => (end, "a byte that is not UTF-8"),
        (Ok(()), None) => (0, "a value that cannot be read"),
    };
    // Blanks at the end are no part of what was written.
    let before = &text[..at.min(text.trim_ascii_end().len())];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let letters = String::from_utf8_lossy(&before[line_start..]).chars().count();
    Fault {
        line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
        column: letters + 1,
        has_lines: text.trim_ascii().contains(&b'\n'),
        problem,
    }
}

/// What may come next.
#[derive(Clone, Copy)]
enum Next {
    Value,
    /// A value, or the end of an array that has none.
    ValueOrEnd,
    Name,
    /// A name, or the end of an object that has none.
    NameOrEnd,
    /// Behind a value.
    After,
}

struct Walk<'a> {
    text: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn text(mut self) -> Result<(), Stop> {
        // Of each array and object around the place, how it ends.
        let mut around: Vec<u8> = Vec::new();
        let mut next = Next::Value;
        loop {
            self.blanks();
            next = match (next, self.peek()) {
                (Next::ValueOrEnd, Some(b']')) | (Next::NameOrEnd, Some(b'}')) => {
                    self.at += 1;
                    around.pop();
                    Next::After
                }
                (Next::Value | Next::ValueOrEnd, Some(open @ (b'[' | b'{'))) => {
                    self.at += 1;
                    around.push(open);
                    if open == b'[' { Next::ValueOrEnd } else { Next::NameOrEnd }
                }
                (Next::Value | Next::ValueOrEnd, _) => {
                    self.scalar()?;
                    Next::After
                }
                (Next::Name | Next::NameOrEnd, Some(b'"')) => {
                    self.string()?;
                    self.blanks();
                    if self.peek() != Some(b':') {
                        return Err((self.at, "expected a colon"));
                    }
                    self.at += 1;
                    Next::Value
                }
                (Next::Name | Next::NameOrEnd, _) => {
                    return Err((self.at, "expected a name in double quotes"));
                }
                (Next::After, byte) => match (around.last(), byte) {
                    (None, None) => return Ok(()),
                    (None, Some(_)) => return Err((self.at, "expected the end of the text")),
                    (Some(b'['), Some(b',')) => {
                        self.at += 1;
                        Next::Value
                    }
                    (Some(_), Some(b',')) => {
                        self.at += 1;
                        Next::Name
                    }
                    (Some(b'['), Some(b']')) | (Some(b'{'), Some(b'}')) => {
                        self.at += 1;
                        around.pop();
                        Next::After
                    }
                    (Some(b'['), _) => return Err((self.at, "expected a comma or ]")),
                    (Some(_), _) => return Err((self.at, "expected a comma or }")),
                },
            };
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// A value that has no others in it.
    fn scalar(&mut self) -> Result<(), Stop> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => {
                let rest = &self.text[self.at..];
                for word in [&b"true"[..], b"false", b"null"] {
                    if rest.starts_with(word) {
                        self.at += word.len();
                        return Ok(());
                    }
                }
                let problem = match rest.starts_with(b"NaN") || rest.starts_with(b"Inf") {
                    true => "expected a number: JSON has no NaN and no Infinity",
                    false => "expected a value",
                };
                Err((self.at, problem))
            }
            None => Err((self.at, "expected a value, and the text ends")),
        }
    }

    fn string(&mut self) -> Result<(), Stop> {
        let start = self.at;
        self.at += 1;
        loop {
            let Some(byte) = self.peek() else { return Err((start, NO_END)) };
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                0..0x20 => return Err((self.at, "a control character in a string")),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Stop> {
        let wrong = Err((self.at, "an escape that JSON does not have"));
        let digits = |text: &[u8]| {
            let digits = text.get(..4).filter(|four| four.iter().all(u8::is_ascii_hexdigit))?;
            u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        };
        match self.text.get(self.at + 1) {
            Some(b'u') => match digits(&self.text[self.at + 2..]) {
                Some(0xd800..0xdc00) => {
                    let rest = self.text[self.at + 6..].strip_prefix(b"\\u");
                    match rest.and_then(digits) {
                        Some(0xdc00..0xe000) => self.at += 12,
                        _ => return Err((self.at, "half of a surrogate pair")),
                    }
                }
                Some(0xdc00..0xe000) => return Err((self.at, "half of a surrogate pair")),
                Some(_) => self.at += 6,
                None => return wrong,
            },
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            _ => return wrong,
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Stop> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        match self.peek() {
            Some(b'0') => {
                self.at += 1;
                if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                    return Err((start, "a number that begins with 0"));
                }
            }
            Some(b'1'..=b'9') => _ = self.digits(),
            _ => {
                let is_infinite = self.text[self.at..].starts_with(b"Inf");
                let problem = match is_infinite {
                    true => "expected a number: JSON has no NaN and no Infinity",
                    false => "expected a digit",
                };
                return Err((self.at, problem));
            }
        }
        let mut is_whole = true;
        if self.peek() == Some(b'.') {
            is_whole = false;
            self.at += 1;
            if self.digits() == 0 {
                return Err((self.at, "expected a digit"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            is_whole = false;
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return Err((self.at, "expected a digit"));
            }
        }
        let number = str::from_utf8(&self.text[start..self.at]).unwrap_or_default();
        let fits = match is_whole {
            true => number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok(),
            false => number.parse::<f64>().is_ok_and(f64::is_finite),
        };
        if fits { Ok(()) } else { Err((start, "a number that 64 bits do not hold")) }
    }

    /// Passes over digits; how many there were.
    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::{Document, Error};
    use proptest::prelude::*;

    fn said(text: &[u8]) -> String {
        match Document::parse(&mut text.to_vec(), 1000) {
            Err(Error::Syntax(fault)) => fault.to_string(),
            other => panic!("{other:?}: {}", String::from_utf8_lossy(text)),
        }
    }

    #[test]
    fn the_first_place_that_is_wrong_is_told() {
        for (text, told) in [
            (&b""[..], "column 1: expected a value, and the text ends"),
            (b"loading", "column 1: expected a value"),
            (b"[1, NaN]", "column 5: expected a number: JSON has no NaN and no Infinity"),
            (b"[1,-Infinity]", "column 5: expected a number: JSON has no NaN and no Infinity"),
            (b"[1,]", "column 4: expected a value"),
            (b"[1 2]", "column 4: expected a comma or ]"),
            (b"{\"a\":1", "column 7: expected a comma or }"),
            (b"{\"a\":\n", "column 6: expected a value, and the text ends"),
            (b"{a:1}", "column 2: expected a name in double quotes"),
            (b"{\"a\" 1}", "column 6: expected a colon"),
            (b"{}x", "column 3: expected the end of the text"),
            (b"[01]", "column 2: a number that begins with 0"),
            (b"[1.]", "column 4: expected a digit"),
            (b"[1e]", "column 4: expected a digit"),
            (b"[123456789012345678901]", "column 2: a number that 64 bits do not hold"),
            (b"\"a\nb\"", "line 1, column 3: a control character in a string"),
            (b"[\"a", "column 2: a string without its end"),
            (b"\"\\x\"", "column 2: an escape that JSON does not have"),
            (b"\"\xc3\xa9\xff\"", "column 3: a byte that is not UTF-8"),
            (b"[1,\n  2,\n  \xc3\xa9]\n", "line 3, column 3: expected a value"),
            (b"[\"\\n\", \"\\u00e9\", x]", "column 18: expected a value"),
        ] {
            assert_eq!(said(text), told, "{}", String::from_utf8_lossy(text));
        }
    }

    proptest! {
        #[test]
        fn what_the_parser_refuses_has_a_place_in_the_text(
            text in "[\\[\\]{}\",:0-9a\\\\ \n.eEtruN+-]{0,40}",
        ) {
            if let Err(Error::Syntax(fault)) = Document::parse(&mut text.clone().into_bytes(), 1000) {
                prop_assert!(fault.problem != "a value that cannot be read", "{text:?}: {fault}");
                let line = text.split('\n').nth(fault.line - 1).unwrap_or_default();
                prop_assert!(fault.column <= line.chars().count() + 1, "{text:?}: {fault}");
            }
        }

        #[test]
        fn what_the_parser_takes_has_no_fault(
            text in "[\\[\\]{}\",:0-9a\\\\ \n.eEtruN+-]{0,40}",
        ) {
            let bytes = text.into_bytes();
            if Document::parse(&mut bytes.clone(), 1000).is_ok() {
                prop_assert_eq!(Walk { text: &bytes, at: 0 }.text(), Ok(()));
            }
        }

        #[test]
        fn bytes_of_any_kind_have_one_fault_at_most(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            if let Err(Error::Syntax(fault)) = Document::parse(&mut bytes.clone(), 1000) {
                prop_assert!(fault.line >= 1 && fault.column >= 1);
            }
        }
    }
}
