//! JSON to MessagePack and back, in the order of the source.
//!
//! What JSON cannot say becomes: bytes a base64 string; an extension the object
//! `{"ext": type, "data": base64}`; NaN and the infinities `null`; a map key that is no string its
//! text, or, when it is an array or a map, the base64 of its MessagePack.

use super::{
    document::Json,
    text::{base64, string},
};
use crate::wire::msgpack::{DEPTH_MAX, Malformed, Reader, Value, write};
use simd_json::{Node, StaticNode};
use std::io::Write;

/// The bytes are no MessagePack value, or one nested deeper than
/// [`DEPTH_MAX`](crate::wire::msgpack::DEPTH_MAX).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value has no JSON form: it is malformed or nested too deeply")]
pub struct Unrepresentable;

impl From<Malformed> for Unrepresentable {
    fn from(_: Malformed) -> Self {
        Self
    }
}

/// Appends a JSON value as MessagePack; integers stay exact.
pub fn to_msgpack(value: Json<'_, '_>, out: &mut Vec<u8>) {
    // The tape lists values in the order that MessagePack writes them: one pass, no stack.
    for node in value.nodes() {
        match *node {
            Node::String(text) => write::str(out, text),
            Node::Object { len, .. } => write::map(out, len),
            Node::Array { len, .. } => write::array(out, len),
            Node::Static(StaticNode::Null) => write::nil(out),
            Node::Static(StaticNode::Bool(value)) => write::bool(out, value),
            Node::Static(StaticNode::U64(number)) => write::uint(out, number),
            Node::Static(StaticNode::I64(number)) => write::int(out, number),
            Node::Static(StaticNode::F64(number)) => write::float(out, number),
        }
    }
}

/// An array or a map that is being written.
struct Open {
    is_map: bool,
    /// Values still to write; in a map, keys count too.
    remaining: u64,
    /// Whether something stands in it.
    is_begun: bool,
}

/// Appends the JSON text of the one MessagePack value that `bytes` are.
///
/// After an error `out` holds a part of the text: the caller cuts it off.
pub fn from_msgpack(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Unrepresentable> {
    let (mut transcoder, mut reader) = (Transcoder::default(), Reader::new(bytes));
    while !transcoder.step(&mut reader, usize::MAX, out)? {}
    if reader.is_empty() { Ok(()) } else { Err(Unrepresentable) }
}

/// One MessagePack value on its way to JSON, in steps: it may be long, and come in pieces that end between
/// two values.
#[derive(Default)]
pub struct Transcoder {
    /// What is open around the next value.
    open: Vec<Open>,
}

impl Transcoder {
    /// Writes `bytes` of text, or a value more; true when the value has come to its end.
    ///
    /// # Errors
    /// As [`from_msgpack`]; so it is when the piece ends too soon.
    pub fn step(
        &mut self,
        reader: &mut Reader<'_>,
        bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Unrepresentable> {
        let end = out.len().saturating_add(bytes);
        loop {
            let open = &mut self.open;
            let is_key = open.last().is_some_and(|open| open.is_map && open.remaining % 2 == 0);
            if is_key {
                key(reader, out)?;
            } else {
                let value = reader.head()?;
                scalar(value, reader, out)?;
                if let Value::Array(_) | Value::Map(_) = value {
                    if open.len() == DEPTH_MAX {
                        return Err(Unrepresentable);
                    }
                    let is_map = matches!(value, Value::Map(_));
                    // One more than the values inside: this one is counted off like a scalar below.
                    let remaining = value.children() + 1;
                    open.push(Open { is_map, remaining, is_begun: false });
                }
            }
            if !next(open, is_key, out) {
                return Ok(true);
            }
            if out.len() >= end || reader.is_empty() && bytes < usize::MAX {
                return Ok(false);
            }
        }
    }
}

/// Writes what stands between the value just written and the next; false when there is none.
fn next(open: &mut Vec<Open>, after_key: bool, out: &mut Vec<u8>) -> bool {
    while let Some(innermost) = open.last_mut() {
        innermost.remaining -= 1;
        if innermost.remaining > 0 {
            let is_first = !std::mem::replace(&mut innermost.is_begun, true);
            match (after_key, is_first) {
                (true, _) => out.push(b':'),
                (false, true) => {}
                (false, false) => out.push(b','),
            }
            return true;
        }
        out.push(if innermost.is_map { b'}' } else { b']' });
        open.pop();
    }
    false
}

/// Writes a value that contains no other, or the bracket that opens one that does.
fn scalar(value: Value, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Unrepresentable> {
    match value {
        Value::Nil => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Value::Uint(number) => print(out, format_args!("{number}")),
        Value::Int(number) => print(out, format_args!("{number}")),
        // The debug form keeps the point of 1.0 and uses an exponent where that is shorter.
        Value::Float(number) if number.is_finite() => print(out, format_args!("{number:?}")),
        Value::Float(_) => out.extend_from_slice(b"null"),
        Value::Str(len) => {
            let text = std::str::from_utf8(reader.body(len)?).map_err(|_| Unrepresentable)?;
            string(out, text);
        }
        Value::Bin(len) => {
            out.push(b'"');
            base64(out, reader.body(len)?);
            out.push(b'"');
        }
        Value::Ext(kind, len) => {
            print(out, format_args!("{{\"ext\":{kind},\"data\":\""));
            base64(out, reader.body(len)?);
            out.extend_from_slice(b"\"}");
        }
        Value::Array(_) => out.push(b'['),
        Value::Map(_) => out.push(b'{'),
    }
    Ok(())
}

/// Writes a map's key: always a string in JSON.
fn key(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Unrepresentable> {
    let raw = reader.raw()?;
    let mut inside = Reader::new(raw);
    match inside.head()? {
        value @ (Value::Str(_) | Value::Bin(_)) => scalar(value, &mut inside, out)?,
        value
        @ (Value::Nil | Value::Bool(_) | Value::Uint(_) | Value::Int(_) | Value::Float(_)) => {
            out.push(b'"');
            scalar(value, &mut inside, out)?;
            out.push(b'"');
        }
        Value::Array(_) | Value::Map(_) | Value::Ext(..) => {
            out.push(b'"');
            base64(out, raw);
            out.push(b'"');
        }
    }
    Ok(())
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a buffer in memory takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        json::Document,
        msgpack::{Scan, Scanner},
    };
    use proptest::prelude::*;

    fn encode(text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        let document = Document::parse(&mut bytes, 1 << 20).unwrap();
        let mut out = Vec::new();
        to_msgpack(document.root(), &mut out);
        out
    }

    fn decode(bytes: &[u8]) -> Result<String, Unrepresentable> {
        let mut out = Vec::new();
        from_msgpack(bytes, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn json_comes_back_as_it_was_sent() {
        for text in [
            "null",
            "[]",
            "{}",
            r#""""#,
            r#"{"z":1,"a":[true,false,null,{"k":[]},{}],"m":{"n":"é\n"}}"#,
            "[0,-1,18446744073709551615,-9223372036854775808,1.5,1.0,1e300]",
            "[[],[[]],[[],[]]]",
        ] {
            assert_eq!(decode(&encode(text)).unwrap(), text);
        }
    }

    #[test]
    fn what_json_lacks_has_a_documented_form() {
        assert_eq!(decode(&[0xc4, 2, 1, 2]).unwrap(), r#""AQI=""#);
        assert_eq!(decode(&[0xd4, 5, 1]).unwrap(), r#"{"ext":5,"data":"AQ=="}"#);
        let mut nan = vec![0x92];
        write::float(&mut nan, f64::NAN);
        write::float(&mut nan, f64::INFINITY);
        assert_eq!(decode(&nan).unwrap(), "[null,null]");
        let keys = [0x84, 1, 0xc0, 0xc3, 0xc0, 0xc0, 0xc0, 0x91, 1, 2];
        assert_eq!(decode(&keys).unwrap(), r#"{"1":null,"true":null,"null":null,"kQE=":2}"#);
    }

    #[test]
    fn a_value_that_ends_in_an_open_bracket_is_no_container() {
        assert_eq!(decode(&[0x92, 0xa1, b'[', 0xa1, b'{']).unwrap(), r#"["[","{"]"#);
        assert_eq!(decode(&[0x81, 0xa1, b'{', 0x80]).unwrap(), r#"{"{":{}}"#);
    }

    #[test]
    fn a_value_in_steps_and_pieces_is_the_same() {
        let mut bytes = Vec::new();
        write::map(&mut bytes, 2);
        write::str(&mut bytes, "items");
        write::array(&mut bytes, 9);
        let mut cuts = vec![bytes.len()];
        for at in 0..9 {
            write::map(&mut bytes, 2);
            write::str(&mut bytes, "said");
            write::str(&mut bytes, &"\"x\n".repeat(at));
            write::int(&mut bytes, 5);
            write::array(&mut bytes, 0);
            cuts.push(bytes.len());
        }
        write::str(&mut bytes, "end");
        write::nil(&mut bytes);
        let mut whole = Vec::new();
        from_msgpack(&bytes, &mut whole).unwrap();
        for step in [1, 10, 1000] {
            let (mut transcoder, mut out, mut is_end) = (Transcoder::default(), Vec::new(), false);
            for (at, from) in [0].iter().chain(&cuts).enumerate() {
                let to = cuts.get(at).copied().unwrap_or(bytes.len());
                let mut reader = Reader::new(&bytes[*from..to]);
                while !reader.is_empty() {
                    assert!(!is_end);
                    is_end = transcoder.step(&mut reader, step, &mut out).unwrap();
                }
            }
            assert!(is_end);
            assert_eq!(String::from_utf8(out), String::from_utf8(whole.clone()));
        }
        let part = &bytes[..bytes.len() - 1];
        let mut transcoder = Transcoder::default();
        let mut reader = Reader::new(part);
        let stepped =
            (0..1000).find_map(|_| transcoder.step(&mut reader, 64, &mut Vec::new()).err());
        assert_eq!(stepped, Some(Unrepresentable), "what ends too soon is no value");
    }

    #[test]
    fn malformed_and_deep_values_are_errors() {
        for bytes in [&[][..], &[0x91], &[0xc1], &[0xa1, 0xff], &[1, 1], &[0x81, 1]] {
            assert_eq!(decode(bytes), Err(Unrepresentable), "{bytes:?}");
        }
        let mut deep = vec![0x91; DEPTH_MAX + 1];
        deep.push(1);
        assert_eq!(decode(&deep), Err(Unrepresentable));
        assert!(decode(&deep[1..]).is_ok());
    }

    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|value| value.to_string()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<u64>().prop_map(|number| number.to_string()),
            any::<f64>()
                .prop_filter("JSON has finite numbers only", |number| number.is_finite())
                .prop_map(|number| format!("{number:?}")),
            any::<String>().prop_map(|text| quoted(&text)),
        ];
        leaf.prop_recursive(6, 60, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6)
                    .prop_map(|items| format!("[{}]", items.join(","))),
                proptest::collection::vec((any::<String>(), inner), 0..6).prop_map(|pairs| {
                    let pairs: Vec<String> = pairs
                        .iter()
                        .map(|(key, value)| format!("{}:{value}", quoted(key)))
                        .collect();
                    format!("{{{}}}", pairs.join(","))
                }),
            ]
        })
    }

    fn quoted(text: &str) -> String {
        let mut out = Vec::new();
        string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn every_json_text_survives_the_round_trip(text in any_json()) {
            let bytes = encode(&text);
            prop_assert_eq!(Scanner::new(1 << 20).scan(&bytes), Scan::Complete(bytes.len()));
            prop_assert_eq!(decode(&bytes).unwrap(), text);
        }

        #[test]
        fn a_truncated_value_is_incomplete_and_never_invalid(text in any_json()) {
            let bytes = encode(&text);
            for end in 0..bytes.len() {
                prop_assert_eq!(Scanner::new(1 << 20).scan(&bytes[..end]), Scan::Incomplete);
                prop_assert_eq!(decode(&bytes[..end]), Err(Unrepresentable));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn whatever_is_written_is_json(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Scan::Complete(len) = Scanner::new(1 << 20).scan(&bytes) {
                let mut text = decode(&bytes[..len]).unwrap().into_bytes();
                // JSON numbers and strings need no more depth than the value had.
                prop_assert!(Document::parse(&mut text, 1 << 20).is_ok());
            }
        }
    }
}
