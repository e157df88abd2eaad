//! What a node tells all others about itself: facts, and their bytes as the entries of gossip.
//!
//! An entry is a key and a value. A key is a letter and a number: `n` (the node), `t` and `l` (a
//! type and its load, by the type's place in the node's list, two bytes), `a` (an agent, by the
//! eight bytes of its id), big endian. A value begins with [`VERSION`]; numbers are little endian,
//! a text is a byte with its length and as many bytes of UTF-8.
//!
//! Invariants worth naming:
//! - A fact has one encoding, and bytes that are not exactly that encoding are refused: nothing is
//!   guessed and nothing may follow.
//! - A value that is accepted here has at most [`VALUE_BYTES_MAX`] bytes, whatever it says.

use super::{TypeIndex, bytes::Reader};
use crate::wire::{
    api::AgentKind,
    id::{AgentId, CoreIndex},
};
use std::net::SocketAddr;

/// The version of all values; a change of any of them raises it.
pub const VERSION: u8 = 2;
/// Longest key, bytes.
pub const KEY_BYTES_MAX: usize = 9;
/// Longest value, bytes.
pub const VALUE_BYTES_MAX: usize = 1024;
/// Longest name of a node, a type or an agent, bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Most capabilities of a type, or of an agent beside those of its type, and bytes of the longest one:
/// what a tuning file allows.
pub use crate::config::{CAPABILITIES_MAX, CAPABILITY_BYTES_MAX};

/// The longest values are those of agents and types: everything else about them takes few bytes.
const _: () = assert!(
    VALUE_BYTES_MAX >= 16 + NAME_BYTES_MAX + 1 + CAPABILITIES_MAX * (CAPABILITY_BYTES_MAX + 1)
);

/// Why bytes are no fact, or a fact cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A key of no kind that this version knows.
    #[error("an entry with a key of an unknown kind")]
    Key,
    /// A value of another version.
    #[error("an entry of another version")]
    Version,
    /// A value that ends too early, has bytes that follow, or says what cannot be.
    #[error("an entry whose value cannot be read")]
    Value,
    /// A name or a capability that is empty, too long or has control characters.
    #[error("a name has 1 to 64 bytes and a capability 1 to 32, without control characters")]
    Text,
    /// Too many capabilities, or the same one twice.
    #[error("at most 16 capabilities, in order, each once")]
    Capabilities,
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The node itself.
    Node,
    /// One of its types.
    Type(TypeIndex),
    /// How much its agents of a type have to do.
    Load(TypeIndex),
    /// One of its agents.
    Agent(AgentId),
}

impl Key {
    /// Appends the bytes.
    pub fn encode(self, bytes: &mut Vec<u8>) {
        let mut write = |letter: u8, number: &[u8]| {
            bytes.push(letter);
            bytes.extend_from_slice(number);
        };
        match self {
            Self::Node => write(b'n', &[]),
            Self::Type(index) => write(b't', &index.to_be_bytes()),
            Self::Load(index) => write(b'l', &index.to_be_bytes()),
            Self::Agent(id) => write(b'a', &id.to_bits().to_be_bytes()),
        }
    }

    /// The key that [`Key::encode`] wrote.
    ///
    /// # Errors
    /// [`Malformed::Key`] for all other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        match *bytes {
            [b'n'] => Ok(Self::Node),
            [b't', high, low] => Ok(Self::Type(TypeIndex::from_be_bytes([high, low]))),
            [b'l', high, low] => Ok(Self::Load(TypeIndex::from_be_bytes([high, low]))),
            [b'a', ref id @ ..] => {
                let id = id.try_into().map_err(|_| Malformed::Key)?;
                Ok(Self::Agent(AgentId::from_bits(u64::from_be_bytes(id))))
            }
            _ => Err(Malformed::Key),
        }
    }
}

/// What agents can do, in words that their users chose: in order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(Box<[Box<str>]>);

impl Capabilities {
    /// These, in any order.
    ///
    /// # Errors
    /// [`Malformed::Text`] and [`Malformed::Capabilities`].
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, Malformed> {
        let mut list: Vec<Box<str>> = words.into_iter().map(Box::from).collect();
        list.sort_unstable();
        list.dedup();
        if list.len() > CAPABILITIES_MAX {
            return Err(Malformed::Capabilities);
        }
        match list.iter().all(|word| is_text(word, CAPABILITY_BYTES_MAX)) {
            true => Ok(Self(list.into())),
            false => Err(Malformed::Text),
        }
    }

    /// Whether it is one of them.
    pub fn has(&self, word: &str) -> bool {
        self.0.binary_search_by(|known| (**known).cmp(word)).is_ok()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|word| &**word)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.0.len() as u8);
        self.iter().for_each(|word| encode_text(word, bytes));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let words = usize::from(reader.u8()?);
        if words > CAPABILITIES_MAX {
            return Err(Malformed::Capabilities);
        }
        let mut list: Vec<Box<str>> = Vec::with_capacity(words);
        for _ in 0..words {
            let word = decode_text(reader, CAPABILITY_BYTES_MAX)?;
            if list.last().is_some_and(|last| **last >= *word) {
                return Err(Malformed::Capabilities);
            }
            list.push(word.into());
        }
        Ok(Self(list.into()))
    }
}

/// A node, as it tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFact {
    /// What people call it.
    pub name: Box<str>,
    /// Where clients, and nodes that forward what clients ask for, reach it.
    pub rpc: SocketAddr,
    /// Its worker cores.
    pub cores: CoreIndex,
}

/// A type of agents on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeFact {
    /// The name that tasks and messages use.
    pub name: Box<str>,
    /// What its agents are.
    pub kind: AgentKind,
    /// The most agents that the node may have of it by its configuration; 0 when that allows none or does
    /// not have the type, and workers of it came all the same.
    pub max: u32,
    /// What each of its agents can do.
    pub capabilities: Capabilities,
}

impl TypeFact {
    /// Whether the node starts agents of the type when tasks wait.
    pub fn starts_agents(&self) -> bool {
        self.kind != AgentKind::Remote && self.max > 0
    }
}

/// How much the agents of a type on a node have to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Its agents.
    pub agents: u32,
    /// Tasks that they may work on at the same time, all together.
    pub capacity: u32,
    /// Tasks that they work on.
    pub running: u32,
    /// Tasks that wait for them.
    pub queued: u32,
}

impl Load {
    /// Tasks that run or wait.
    pub const fn tasks(self) -> u64 {
        self.running as u64 + self.queued as u64
    }
}

/// An agent on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFact {
    /// Its type, by its place in the node's list of types.
    pub type_index: TypeIndex,
    /// Its name, when it has one.
    pub name: Option<Box<str>>,
    /// What it can do beside what its type says.
    pub capabilities: Capabilities,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Of the node.
    Node(NodeFact),
    /// Of a type.
    Type(TypeIndex, TypeFact),
    /// Of a type's load.
    Load(TypeIndex, Load),
    /// Of an agent.
    Agent(AgentId, AgentFact),
}

impl Fact {
    /// What the fact is about.
    pub fn key(&self) -> Key {
        match self {
            Self::Node(_) => Key::Node,
            Self::Type(index, _) => Key::Type(*index),
            Self::Load(index, _) => Key::Load(*index),
            Self::Agent(id, _) => Key::Agent(*id),
        }
    }

    /// Appends the value's bytes, without the key's.
    ///
    /// # Errors
    /// [`Malformed::Text`] when a name could not be read again; nothing was appended then.
    pub fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), Malformed> {
        let name = match self {
            Self::Node(node) => Some(&node.name),
            Self::Type(_, of_type) => Some(&of_type.name),
            Self::Load(..) => None,
            Self::Agent(_, agent) => agent.name.as_ref(),
        };
        if name.is_some_and(|name| !is_text(name, NAME_BYTES_MAX)) {
            return Err(Malformed::Text);
        }
        bytes.push(VERSION);
        match self {
            Self::Node(node) => {
                encode_text(&node.name, bytes);
                super::bytes::encode_address(node.rpc, bytes);
                bytes.extend_from_slice(&node.cores.to_le_bytes());
            }
            Self::Type(_, of_type) => {
                encode_text(&of_type.name, bytes);
                bytes.push(kind_number(of_type.kind));
                bytes.extend_from_slice(&of_type.max.to_le_bytes());
                of_type.capabilities.encode(bytes);
            }
            Self::Load(_, load) => {
                for number in [load.agents, load.capacity, load.running, load.queued] {
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
            }
            Self::Agent(_, agent) => {
                bytes.extend_from_slice(&agent.type_index.to_le_bytes());
                encode_text(agent.name.as_deref().unwrap_or_default(), bytes);
                agent.capabilities.encode(bytes);
            }
        }
        Ok(())
    }

    /// The fact of an entry.
    ///
    /// # Errors
    /// Why the bytes are none.
    pub fn decode(key: Key, value: &[u8]) -> Result<Self, Malformed> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(Malformed::Value);
        }
        let mut reader = Reader::new(value);
        if reader.u8()? != VERSION {
            return Err(Malformed::Version);
        }
        let fact = match key {
            Key::Node => Self::Node(NodeFact {
                name: decode_text(&mut reader, NAME_BYTES_MAX)?.into(),
                rpc: reader.address()?,
                cores: reader.u16()?,
            }),
            Key::Type(index) => {
                let name = decode_text(&mut reader, NAME_BYTES_MAX)?.into();
                let kind = kind_of(reader.u8()?)?;
                let max = reader.u32()?;
                let capabilities = Capabilities::decode(&mut reader)?;
                Self::Type(index, TypeFact { name, kind, max, capabilities })
            }
            Key::Load(index) => {
                let [agents, capacity] = [reader.u32()?, reader.u32()?];
                let [running, queued] = [reader.u32()?, reader.u32()?];
                Self::Load(index, Load { agents, capacity, running, queued })
            }
            Key::Agent(id) => {
                let type_index = reader.u16()?;
                let name = match reader.peek() {
                    Some(0) => reader.u8().map(|_| None)?,
                    _ => Some(decode_text(&mut reader, NAME_BYTES_MAX)?.into()),
                };
                let capabilities = Capabilities::decode(&mut reader)?;
                Self::Agent(id, AgentFact { type_index, name, capabilities })
            }
        };
        match reader.is_empty() {
            true => Ok(fact),
            false => Err(Malformed::Value),
        }
    }
}

/// Whether a name of a node, a type or an agent can be told.
pub fn is_name(text: &str) -> bool {
    is_text(text, NAME_BYTES_MAX)
}

/// Whether a text can be told: not empty, not too long, nothing in it that a terminal obeys.
fn is_text(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn encode_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.push(text.len() as u8);
    bytes.extend_from_slice(text.as_bytes());
}

fn decode_text<'a>(reader: &mut Reader<'a>, bytes_max: usize) -> Result<&'a str, Malformed> {
    let length = usize::from(reader.u8()?);
    let text = std::str::from_utf8(reader.take(length)?).map_err(|_| Malformed::Text)?;
    if is_text(text, bytes_max) { Ok(text) } else { Err(Malformed::Text) }
}

const fn kind_number(kind: AgentKind) -> u8 {
    match kind {
        AgentKind::Builtin => 0,
        AgentKind::Exec => 1,
        AgentKind::Remote => 2,
        AgentKind::Rust => 3,
    }
}

fn kind_of(number: u8) -> Result<AgentKind, Malformed> {
    let kinds = [AgentKind::Builtin, AgentKind::Exec, AgentKind::Remote, AgentKind::Rust];
    kinds.get(usize::from(number)).copied().ok_or(Malformed::Value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes_max: usize) -> impl Strategy<Value = Box<str>> {
        "\\PC{1,64}".prop_map(move |text: String| {
            let ends = text.char_indices().map(|(begin, letter)| begin + letter.len_utf8());
            let end = ends.take_while(|end| *end <= bytes_max).last();
            text[..end.expect("the first letter is short")].into()
        })
    }

    fn capabilities() -> impl Strategy<Value = Capabilities> {
        prop::collection::vec(text(CAPABILITY_BYTES_MAX), 0..=CAPABILITIES_MAX)
            .prop_map(|words| Capabilities::new(words.iter().map(|word| &**word)).expect("short"))
    }

    fn fact() -> impl Strategy<Value = Fact> {
        let address = (any::<std::net::IpAddr>(), any::<u16>()).prop_map(SocketAddr::from);
        let node = (text(NAME_BYTES_MAX), address, any::<u16>());
        let of_type = (any::<u16>(), text(NAME_BYTES_MAX), 0..4_u8, any::<u32>(), capabilities());
        let agent = (
            any::<u64>().prop_map(AgentId::from_bits),
            any::<u16>(),
            prop::option::of(text(NAME_BYTES_MAX)),
            capabilities(),
        );
        prop_oneof![
            node.prop_map(|(name, rpc, cores)| Fact::Node(NodeFact { name, rpc, cores })),
            of_type.prop_map(|(index, name, kind, max, capabilities)| {
                let kind = kind_of(kind).expect("one of four");
                Fact::Type(index, TypeFact { name, kind, max, capabilities })
            }),
            any::<(u16, [u32; 4])>().prop_map(|(index, numbers)| {
                let [agents, capacity, running, queued] = numbers;
                Fact::Load(index, Load { agents, capacity, running, queued })
            }),
            agent.prop_map(|(id, type_index, name, capabilities)| {
                Fact::Agent(id, AgentFact { type_index, name, capabilities })
            }),
        ]
    }

    proptest! {
        #[test]
        fn facts_survive_their_bytes_and_no_byte_more_or_less_will_do(fact in fact()) {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            fact.key().encode(&mut key);
            fact.encode(&mut value).expect("short texts");
            prop_assert!(key.len() <= KEY_BYTES_MAX && value.len() <= VALUE_BYTES_MAX);
            let key = Key::decode(&key).expect("it was encoded");
            prop_assert_eq!(key, fact.key());
            prop_assert_eq!(Fact::decode(key, &value), Ok(fact));
            for end in 0..value.len() {
                prop_assert!(Fact::decode(key, &value[..end]).is_err());
            }
            value.push(0);
            prop_assert!(Fact::decode(key, &value).is_err());
        }

        #[test]
        fn bytes_that_can_be_read_are_the_ones_that_would_be_written(
            key in prop_oneof![
                Just(Key::Node),
                any::<u16>().prop_map(Key::Type),
                any::<u16>().prop_map(Key::Load),
                any::<u64>().prop_map(|bits| Key::Agent(AgentId::from_bits(bits))),
            ],
            bytes in prop::collection::vec(prop_oneof![0..6_u8, any::<u8>(), 97..100_u8], 0..60),
        ) {
            let value = [&[VERSION][..], &bytes].concat();
            for value in [&value, &bytes] {
                if let Ok(fact) = Fact::decode(key, value) {
                    let mut again = Vec::new();
                    fact.encode(&mut again).expect("it was read");
                    prop_assert_eq!(&again, value);
                }
            }
            let _any_bytes_will_do = Key::decode(&bytes);
        }
    }

    #[test]
    fn keys_and_texts_that_nobody_writes_are_refused() {
        for key in [&b""[..], b"x", b"n1", b"t", b"t1", b"t123", b"l", b"a1234567", b"a123456789"] {
            assert_eq!(Key::decode(key), Err(Malformed::Key), "{key:?}");
        }
        let long = "w".repeat(CAPABILITY_BYTES_MAX + 1);
        for word in ["", "a\nb", "\u{1b}[2J", &long] {
            assert_eq!(Capabilities::new([word]), Err(Malformed::Text), "{word:?}");
        }
        let words: Vec<_> = (0..=CAPABILITIES_MAX).map(|number| number.to_string()).collect();
        let many = Capabilities::new(words.iter().map(String::as_str));
        assert_eq!(many, Err(Malformed::Capabilities));
        let agent = |name: &str| {
            let (name, capabilities) = (Some(name.into()), Capabilities::default());
            let fact = AgentFact { type_index: 0, name, capabilities };
            Fact::Agent(AgentId::from_bits(0), fact).encode(&mut Vec::new())
        };
        for name in ["", "a\0", &"n".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(agent(name), Err(Malformed::Text), "{name:?}");
        }
        let of = |value: &[u8]| Fact::decode(Key::Agent(AgentId::from_bits(0)), value);
        assert_eq!(of(&[1, 0, 0, 0, 0]), Err(Malformed::Version));
        assert_eq!(of(&[2, 0, 0, 0, 2, 1, b'b', 1, b'a']), Err(Malformed::Capabilities));
        assert_eq!(of(&[2, 0, 0, 0, 2, 1, b'a', 1, b'a']), Err(Malformed::Capabilities));
        assert_eq!(of(&[2, 0, 0, 1, 0xff, 0]), Err(Malformed::Text));
    }
}
