//! A JSON text, parsed in place.

use super::{
    DEPTH_MAX,
    fault::{self, Fault},
};
use simd_json::{Node, StaticNode, Tape};

/// Why a text was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than the limit, bytes.
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    /// Arrays and objects nested deeper than [`DEPTH_MAX`].
    #[error("arrays and objects are nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// Not JSON.
    #[error("not JSON: {0}")]
    Syntax(Fault),
}

/// A parsed text: it owns the tape, the strings stay in the caller's buffer.
#[derive(Debug)]
pub struct Document<'input> {
    tape: Tape<'input>,
}

impl<'input> Document<'input> {
    /// Parses `text`, which the parser overwrites as it unescapes strings.
    pub fn parse(text: &'input mut [u8], bytes_max: usize) -> Result<Self, Error> {
        if text.len() > bytes_max {
            return Err(Error::TooLarge(bytes_max));
        }
        check_depth(text)?;
        // The parser overwrites strings, and its own words tell nobody where the fault is.
        let before = text.to_vec();
        match simd_json::to_tape(text) {
            Ok(tape) => Ok(Self { tape }),
            Err(_) => Err(Error::Syntax(fault::find(&before))),
        }
    }

    /// The whole value.
    pub fn root(&self) -> Json<'_, 'input> {
        Json { nodes: &self.tape.0 }
    }
}

/// Refuses what nests too deeply, by looking at brackets outside strings alone; whether they
/// match is left to the parser.
fn check_depth(text: &[u8]) -> Result<(), Error> {
    let mut depth = 0usize;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(Error::TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    Ok(())
}

/// Moves past the end of the string whose opening quote was just read.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

/// One value of a [`Document`].
#[derive(Clone, Copy, Debug)]
pub struct Json<'tape, 'input> {
    /// The value's node, then the nodes of what it contains; never empty.
    nodes: &'tape [Node<'input>],
}

impl<'tape, 'input> Json<'tape, 'input> {
    /// The nodes of the value and of what it contains, in the order of the text.
    pub(super) fn nodes(self) -> &'tape [Node<'input>] {
        self.nodes
    }

    /// The text of a string.
    pub fn as_str(self) -> Option<&'input str> {
        match self.nodes.first()? {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    /// An integer of 0 or more.
    pub fn as_u64(self) -> Option<u64> {
        match *self.nodes.first()? {
            Node::Static(StaticNode::U64(number)) => Some(number),
            Node::Static(StaticNode::I64(number)) => number.try_into().ok(),
            _ => None,
        }
    }

    /// An integer that fits 64 bits with its sign.
    pub fn as_i64(self) -> Option<i64> {
        match *self.nodes.first()? {
            Node::Static(StaticNode::U64(number)) => number.try_into().ok(),
            Node::Static(StaticNode::I64(number)) => Some(number),
            _ => None,
        }
    }

    /// Any number, as the nearest that 64 bits hold.
    pub fn as_f64(self) -> Option<f64> {
        match *self.nodes.first()? {
            Node::Static(StaticNode::U64(number)) => Some(number as f64),
            Node::Static(StaticNode::I64(number)) => Some(number as f64),
            Node::Static(StaticNode::F64(number)) => Some(number),
            _ => None,
        }
    }

    /// `true` or `false`.
    pub fn as_bool(self) -> Option<bool> {
        match *self.nodes.first()? {
            Node::Static(StaticNode::Bool(value)) => Some(value),
            _ => None,
        }
    }

    /// Whether the value is `null`.
    pub fn is_null(self) -> bool {
        matches!(self.nodes.first(), Some(Node::Static(StaticNode::Null)))
    }

    /// Whether the value is an array.
    pub fn is_array(self) -> bool {
        matches!(self.nodes.first(), Some(Node::Array { .. }))
    }

    /// Whether the value is an object.
    pub fn is_object(self) -> bool {
        matches!(self.nodes.first(), Some(Node::Object { .. }))
    }

    /// The values of an array; none for anything else.
    pub fn items(self) -> Items<'tape, 'input> {
        Items { nodes: if self.is_array() { &self.nodes[1..] } else { &[] } }
    }

    /// The pairs of an object, in the order of the text; none for anything else.
    pub fn fields(self) -> Fields<'tape, 'input> {
        Fields { items: Items { nodes: if self.is_object() { &self.nodes[1..] } else { &[] } } }
    }

    /// The first field of that name.
    pub fn get(self, name: &str) -> Option<Self> {
        self.fields().find(|(field, _)| *field == name).map(|(_, value)| value)
    }
}

/// The values of an array.
#[derive(Clone, Debug)]
pub struct Items<'tape, 'input> {
    nodes: &'tape [Node<'input>],
}

impl<'tape, 'input> Iterator for Items<'tape, 'input> {
    type Item = Json<'tape, 'input>;

    fn next(&mut self) -> Option<Self::Item> {
        let inside = match *self.nodes.first()? {
            Node::Array { count, .. } | Node::Object { count, .. } => count,
            Node::String(_) | Node::Static(_) => 0,
        };
        let (nodes, rest) = self.nodes.split_at(1 + inside);
        self.nodes = rest;
        Some(Json { nodes })
    }
}

/// The pairs of an object.
#[derive(Clone, Debug)]
pub struct Fields<'tape, 'input> {
    items: Items<'tape, 'input>,
}

impl<'tape, 'input> Iterator for Fields<'tape, 'input> {
    type Item = (&'input str, Json<'tape, 'input>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.items.next()?.as_str()?;
        Some((name, self.items.next()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_found_by_name_and_in_order() {
        let mut text = br#"{"a":[1,[2,3],{"b":null}],"c":"\u00e9","d":-7}"#.to_vec();
        let document = Document::parse(&mut text, 1000).unwrap();
        let root = document.root();
        let names: Vec<&str> = root.fields().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "c", "d"]);
        let items: Vec<_> = root.get("a").unwrap().items().collect();
        assert_eq!(items.len(), 3);
        assert_eq!(items[1].items().nth(1).unwrap().as_u64(), Some(3));
        assert!(items[2].get("b").unwrap().is_null());
        assert_eq!(root.get("c").unwrap().as_str(), Some("é"));
        assert_eq!(root.get("d").unwrap().as_i64(), Some(-7));
        assert_eq!(root.get("d").unwrap().as_u64(), None);
        assert_eq!(root.get("d").unwrap().as_f64(), Some(-7.0));
        assert_eq!(root.get("c").unwrap().as_f64(), None);
        assert!(root.get("e").is_none());
    }

    #[test]
    fn deep_texts_are_refused_before_the_parser_sees_them() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(Document::parse(&mut nested(DEPTH_MAX), 1000).is_ok());
        assert_eq!(Document::parse(&mut nested(DEPTH_MAX + 1), 1000).unwrap_err(), Error::TooDeep);
        let mut quoted = format!(r#"["{}\"{}"]"#, "[".repeat(100), "{".repeat(100)).into_bytes();
        assert!(Document::parse(&mut quoted, 1000).is_ok(), "brackets in a string do not nest");
    }

    #[test]
    fn large_and_broken_texts_are_refused() {
        assert_eq!(Document::parse(&mut b"[1,2]".to_vec(), 4).unwrap_err(), Error::TooLarge(4));
        for text in [&b""[..], b"{", b"[1,]", b"{}x", b"\"\xff\"", b"nul", b"\"a\nb\"", b"01"] {
            let mut bytes = text.to_vec();
            let error = Document::parse(&mut bytes, 1000).unwrap_err();
            assert!(matches!(error, Error::Syntax(_)), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::parse(&mut bytes, 1000);
        }

        #[test]
        fn random_brackets_never_panic(text in "[\\[\\]{}\",:0-9a\\\\ ]{0,100}") {
            let mut bytes = text.into_bytes();
            if let Ok(document) = Document::parse(&mut bytes, 1000) {
                document.root().items().for_each(|item| assert!(item.fields().count() <= 100));
            }
        }
    }
}
