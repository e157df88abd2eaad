//! What a tuning key is: its name, the rule of its values, its default, and its three sentences.

use std::net::SocketAddr;

use serde::{Serialize, Serializer};

use super::model::{
    ClusterStart, CoreSet, DropPolicy, Embedder, Protocol, PublicKey, Realtime, Spin,
};
use crate::wire::memory::Metric;

/// The highest processor number that a core list may name: the kernel's affinity calls carry
/// 1,024 processors.
const CORE_NUMBER_MAX: i128 = 1023;
/// Longest name of an agent type, and of a cluster, bytes.
pub const AGENT_NAME_BYTES_MAX: usize = 64;
/// Longest path that the kernel takes, bytes.
const PATH_BYTES_MAX: usize = 4095;
/// The longest name of an embedder's model, bytes.
const TITLE_BYTES_MAX: usize = 256;
/// Most capabilities of an agent type.
pub const CAPABILITIES_MAX: usize = 16;
/// Most bytes of a capability.
pub const CAPABILITY_BYTES_MAX: usize = 32;
/// Most words of a command, and most bytes of one word: far below the kernel's limit for `execve`.
const COMMAND_WORDS_MAX: usize = 256;
const COMMAND_WORD_BYTES_MAX: usize = 4096;

/// A part of a tuning file: `[name]`, or the entries `[[name]]`.
pub struct Section {
    /// The name between the brackets.
    pub name: &'static str,
    /// What the section is about, one sentence.
    pub heading: &'static str,
    /// Its keys, in the order in which they are printed.
    pub keys: &'static [Key],
}

/// One key of a tuning file.
pub struct Key {
    /// The key as it is written in the file.
    pub name: &'static str,
    /// Which values are allowed.
    pub rule: Rule,
    /// The value of a file that does not name the key.
    pub default: Preset,
    /// What the key does, one sentence with the unit.
    pub meaning: &'static str,
    /// What a larger (or smaller) value costs.
    pub cost: &'static str,
}

/// The value that a key has when no file names it.
#[derive(Clone, Copy)]
pub enum Preset {
    /// A number.
    Integer(u32),
    /// A text.
    Text(&'static str),
    /// A list without words.
    NoWords,
    /// No value: the key may be left out, or its entry's other keys say whether it must be given.
    Absent,
    /// No value either; where an entry is shown without it, this is shown as a comment.
    Example(&'static str),
}

impl Preset {
    /// The default as a value, if there is one.
    pub fn value(self) -> Option<Value> {
        match self {
            Self::Integer(number) => Some(Value::Integer(number.into())),
            Self::Text(text) => Some(Value::Text(text.to_owned())),
            Self::NoWords => Some(Value::List(Vec::new())),
            Self::Absent | Self::Example(_) => None,
        }
    }
}

/// A value of a tuning file, before its rule looked at it or on its way to be printed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// A number; wide enough for every integer that a file can hold.
    Integer(i128),
    /// A text.
    Text(String),
    /// Core numbers or the words of a command.
    List(Vec<Value>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Integer(_) => "an integer",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
        }
    }

    /// The value as TOML writes it.
    pub fn to_toml(&self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Text(text) => toml::Value::String(text.clone()).to_string(),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(Self::to_toml).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // Every rule's maximum is below 2^63, and no rule allows a negative number.
            Self::Integer(number) => serializer.serialize_u64(*number as u64),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
        }
    }
}

/// Which values a key allows.
#[derive(Clone, Copy)]
pub enum Rule {
    /// An integer from `min` to `max`, both included.
    Integer {
        /// The smallest allowed number.
        min: u64,
        /// The largest allowed number.
        max: u64,
        /// What is counted, plural.
        unit: &'static str,
    },
    /// A power of two from `min` to `max`, both included.
    PowerOfTwo {
        /// The smallest allowed number.
        min: u64,
        /// The largest allowed number.
        max: u64,
        /// What is counted, plural.
        unit: &'static str,
    },
    /// Microseconds up to `max`, or `"forever"`.
    Spin {
        /// The largest allowed number of microseconds.
        max: u64,
    },
    /// `"auto"` or a list of processor numbers.
    Cores,
    /// An IP address of this machine with a port, 0 for a free one.
    Address,
    /// An IP address with the port at which other machines find it too.
    KnownAddress,
    /// A path of a file or folder.
    Path,
    /// A path of a file, or nothing.
    OptionalPath,
    /// A line of text, or nothing.
    OptionalTitle,
    /// The name of an agent type or a cluster.
    Name,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A program and its arguments.
    Command,
    /// A program and its arguments, or nothing.
    OptionalCommand,
    /// Words that say what an agent can do.
    Capabilities,
    /// An ed25519 public key.
    PublicKey,
}

impl Rule {
    /// The allowed values, as a person reads them.
    pub fn allowed(&self) -> String {
        match self {
            Self::Integer { min, max, unit } => format!("{min} to {max} {unit}"),
            Self::PowerOfTwo { min, max, unit } => {
                format!("{min} to {max} {unit}, a power of two")
            }
            Self::Spin { max } => format!("0 to {max} microseconds, or \"forever\""),
            Self::Cores => format!(
                "\"auto\", or a list of different processor numbers from 0 to {CORE_NUMBER_MAX}"
            ),
            Self::Address => {
                "an IP address with a port, such as \"127.0.0.1:7450\" or \"[::1]:7450\"".to_owned()
            }
            Self::KnownAddress => {
                "an IP address with a port from 1, such as \"127.0.0.1:7450\" or \
                 \"[::1]:7450\""
                    .to_owned()
            }
            Self::Path => format!("a path of 1 to {PATH_BYTES_MAX} bytes"),
            Self::OptionalPath => {
                format!("a path of up to {PATH_BYTES_MAX} bytes, or \"\" for none")
            }
            Self::OptionalTitle => {
                format!("a line of up to {TITLE_BYTES_MAX} bytes, or \"\" for none")
            }
            Self::Name => {
                format!("1 to {AGENT_NAME_BYTES_MAX} letters, digits, \"-\" and \"_\"")
            }
            Self::OneOf(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                words.join(", ")
            }
            Self::Command => {
                format!("a list of 1 to {COMMAND_WORDS_MAX} strings: a program and its arguments")
            }
            Self::PublicKey => {
                "64 hexadecimal digits, as `coreflow cluster identity FILE` prints".to_owned()
            }
            Self::Capabilities => format!(
                "a list of up to {CAPABILITIES_MAX} different strings of 1 to \
                 {CAPABILITY_BYTES_MAX} bytes"
            ),
            Self::OptionalCommand => format!(
                "a list of up to {COMMAND_WORDS_MAX} strings: a program and its arguments, or [] \
                 for none"
            ),
        }
    }

    /// Says what is wrong with a value, if something is.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (Self::Integer { min, max, .. }, Value::Integer(number)) => {
                in_range(*number, *min, *max)
            }
            (Self::PowerOfTwo { min, max, .. }, Value::Integer(number)) => {
                in_range(*number, *min, *max)?;
                power_of_two(*number)
            }
            (Self::Spin { max }, Value::Integer(number)) => in_range(*number, 0, *max),
            (Self::Spin { .. }, Value::Text(text)) => one_of(text, &["forever"]),
            (Self::Cores, Value::Text(text)) => one_of(text, &["auto"]),
            (Self::Cores, Value::List(items)) => cores(items),
            (Self::Address, Value::Text(text)) => address(text).map(drop),
            (Self::KnownAddress, Value::Text(text)) => known_address(text),
            (Self::OptionalPath, Value::Text(text)) if text.is_empty() => Ok(()),
            (Self::Path | Self::OptionalPath, Value::Text(text)) => path(text),
            (Self::OptionalTitle, Value::Text(text)) => title(text),
            (Self::Name, Value::Text(text)) => name(text),
            (Self::OneOf(words), Value::Text(text)) => one_of(text, words),
            (Self::OptionalCommand, Value::List(items)) if items.is_empty() => Ok(()),
            (Self::Command | Self::OptionalCommand, Value::List(items)) => command(items),
            (Self::Capabilities, Value::List(items)) => capabilities(items),
            (Self::PublicKey, Value::Text(text)) => match PublicKey::from_hex(text) {
                Some(_) => Ok(()),
                None => Err(format!("{text:?} is no public key")),
            },
            _ => Err(self.wrong_type(value.kind())),
        }
    }

    /// The form of an allowed value that all values with its meaning share.
    pub fn canonical(&self, value: &Value) -> Value {
        match self {
            Self::Address | Self::KnownAddress => SocketAddr::from_value(value).to_value(),
            Self::PublicKey => PublicKey::from_value(value).to_value(),
            _ => value.clone(),
        }
    }

    /// The sentence for a value of a type that the rule does not know.
    pub fn wrong_type(&self, found: &str) -> String {
        let expected = match self {
            Self::Integer { .. } | Self::PowerOfTwo { .. } => "an integer",
            Self::Spin { .. } => "an integer or \"forever\"",
            Self::Cores => "\"auto\" or a list of integers",
            Self::Address
            | Self::KnownAddress
            | Self::Path
            | Self::OptionalPath
            | Self::OptionalTitle
            | Self::Name
            | Self::PublicKey
            | Self::OneOf(_) => "a string",
            Self::Command | Self::OptionalCommand | Self::Capabilities => "a list of strings",
        };
        format!("must be {expected}, not {found}")
    }
}

fn title(text: &str) -> Result<(), String> {
    if text.len() > TITLE_BYTES_MAX {
        return Err(format!("it has {} bytes", text.len()));
    }
    match text.chars().any(char::is_control) {
        true => Err("it has a control character".to_owned()),
        false => Ok(()),
    }
}

fn in_range(number: i128, min: u64, max: u64) -> Result<(), String> {
    if (i128::from(min)..=i128::from(max)).contains(&number) {
        return Ok(());
    }
    Err(format!("{number} is too {}", if number < i128::from(min) { "small" } else { "large" }))
}

fn power_of_two(number: i128) -> Result<(), String> {
    let number = number as u64; // `in_range` came first
    if number.is_power_of_two() {
        return Ok(());
    }
    let above = number.next_power_of_two();
    Err(format!("{number} is not a power of two ({} and {above} are the nearest)", above / 2))
}

fn one_of(text: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&text) {
        return Ok(());
    }
    let hint = super::suggest::nearest(text, words.iter().copied());
    let hint = hint.map(|word| format!(" (did you mean \"{word}\"?)")).unwrap_or_default();
    Err(format!("{text:?} is not known{hint}"))
}

fn cores(items: &[Value]) -> Result<(), String> {
    if items.is_empty() {
        return Err("an empty list leaves no core; write \"auto\" to choose".to_owned());
    }
    let mut seen = std::collections::BTreeSet::new();
    for item in items {
        let Value::Integer(number) = item else {
            return Err(format!("a core is an integer, not {}", item.kind()));
        };
        if !(0..=CORE_NUMBER_MAX).contains(number) {
            return Err(format!("core {number} does not exist"));
        }
        if !seen.insert(number) {
            return Err(format!("core {number} is listed twice"));
        }
    }
    Ok(())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address with a port"))
}

fn known_address(text: &str) -> Result<(), String> {
    let address = address(text)?;
    if address.port() == 0 {
        return Err(format!("{text:?} has no port that others could know"));
    }
    if address.ip().is_unspecified() {
        return Err(format!("{text:?} stands for every address of a machine, and others need one"));
    }
    Ok(())
}

fn path(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("the path is empty".to_owned());
    }
    if text.contains('\0') {
        return Err("the path holds a zero byte".to_owned());
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(format!("a path of {} bytes is too long", text.len()));
    }
    Ok(())
}

fn name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("the name is empty".to_owned());
    }
    if text.len() > AGENT_NAME_BYTES_MAX {
        return Err(format!("the name is {} bytes long", text.len()));
    }
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    match text.chars().find(|letter| !allowed(*letter)) {
        Some(letter) => Err(format!("{letter:?} may not be part of a name")),
        None => Ok(()),
    }
}

fn command(items: &[Value]) -> Result<(), String> {
    if items.len() > COMMAND_WORDS_MAX {
        return Err(format!("{} words are too many", items.len()));
    }
    for (index, item) in items.iter().enumerate() {
        let Value::Text(word) = item else {
            return Err(format!("a word of a command is a string, not {}", item.kind()));
        };
        if word.contains('\0') {
            return Err("a word holds a zero byte".to_owned());
        }
        if word.len() > COMMAND_WORD_BYTES_MAX {
            return Err(format!("a word of {} bytes is too long", word.len()));
        }
        if index == 0 && word.is_empty() {
            return Err("the program's name is empty".to_owned());
        }
    }
    if items.is_empty() { Err("the command is empty".to_owned()) } else { Ok(()) }
}

fn capabilities(items: &[Value]) -> Result<(), String> {
    if items.len() > CAPABILITIES_MAX {
        return Err(format!("{} capabilities are too many", items.len()));
    }
    for (index, item) in items.iter().enumerate() {
        let Value::Text(word) = item else {
            return Err(format!("a capability is a string, not {}", item.kind()));
        };
        if !(1..=CAPABILITY_BYTES_MAX).contains(&word.len()) {
            return Err(format!("a capability of {} bytes", word.len()));
        }
        if word.chars().any(char::is_control) {
            return Err(format!("{word:?} has a control character"));
        }
        if items[..index].contains(item) {
            return Err(format!("{word:?} is listed twice"));
        }
    }
    Ok(())
}

/// A field of the model that has a key: how a value becomes the field, and back.
pub trait Field {
    /// The field from a value that the key's rule has allowed.
    ///
    /// # Panics
    /// When no rule has looked at the value: a defect of this room, never of a file.
    fn from_value(value: &Value) -> Self;

    /// The value as it is printed.
    fn to_value(&self) -> Value;
}

macro_rules! integer_field {
    ($($type:ty),*) => { $(
        impl Field for $type {
            fn from_value(value: &Value) -> Self {
                match value {
                    Value::Integer(number) => {
                        Self::try_from(*number).expect("the rule's range fits the field")
                    }
                    other => unreachable!("the rule let {other:?} through as an integer"),
                }
            }

            fn to_value(&self) -> Value {
                Value::Integer(*self as i128)
            }
        }
    )* };
}

integer_field!(usize, u64, u32);

impl Field for Spin {
    fn from_value(value: &Value) -> Self {
        match value {
            Value::Integer(_) => Self::Micros(u64::from_value(value)),
            _ => Self::Forever,
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Micros(micros) => micros.to_value(),
            Self::Forever => Value::Text("forever".to_owned()),
        }
    }
}

impl Field for CoreSet {
    fn from_value(value: &Value) -> Self {
        match value {
            Value::List(items) => Self::List(items.iter().map(usize::from_value).collect()),
            _ => Self::Auto,
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::List(cores) => Value::List(cores.iter().map(Field::to_value).collect()),
            Self::Auto => Value::Text("auto".to_owned()),
        }
    }
}

impl Field for Realtime {
    fn from_value(value: &Value) -> Self {
        if String::from_value(value) == "off" { Self::Off } else { Self::Auto }
    }

    fn to_value(&self) -> Value {
        Value::Text(match self {
            Self::Auto => "auto".to_owned(),
            Self::Off => "off".to_owned(),
        })
    }
}

impl Field for Protocol {
    fn from_value(value: &Value) -> Self {
        if String::from_value(value) == "pbft" { Self::Pbft } else { Self::Raft }
    }

    fn to_value(&self) -> Value {
        Value::Text(match self {
            Self::Raft => "raft".to_owned(),
            Self::Pbft => "pbft".to_owned(),
        })
    }
}

impl Field for PublicKey {
    fn from_value(value: &Value) -> Self {
        Self::from_hex(&String::from_value(value)).expect("the rule has read the key")
    }

    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }
}

impl Field for ClusterStart {
    fn from_value(value: &Value) -> Self {
        if String::from_value(value) == "join" { Self::Join } else { Self::New }
    }

    fn to_value(&self) -> Value {
        Value::Text(match self {
            Self::New => "new".to_owned(),
            Self::Join => "join".to_owned(),
        })
    }
}

impl Field for DropPolicy {
    fn from_value(value: &Value) -> Self {
        let name = String::from_value(value);
        let place = Self::NAMES.iter().position(|known| *known == name);
        Self::ALL[place.expect("the rule knows the names")]
    }

    fn to_value(&self) -> Value {
        Value::Text(Self::NAMES[*self as usize].to_owned())
    }
}

impl Field for Metric {
    fn from_value(value: &Value) -> Self {
        Self::from_name(&String::from_value(value)).expect("the rule knows the names")
    }

    fn to_value(&self) -> Value {
        Value::Text(self.name().to_owned())
    }
}

impl Field for Embedder {
    fn from_value(value: &Value) -> Self {
        let name = String::from_value(value);
        let place = Self::NAMES.iter().position(|known| *known == name);
        Self::ALL[place.expect("the rule knows the names")]
    }

    fn to_value(&self) -> Value {
        Value::Text(Self::NAMES[*self as usize].to_owned())
    }
}

/// The words of a command or capabilities; none where there is none.
impl Field for Vec<String> {
    fn from_value(value: &Value) -> Self {
        match value {
            Value::List(words) => words.iter().map(Field::from_value).collect(),
            other => unreachable!("the rule let {other:?} through as a command"),
        }
    }

    fn to_value(&self) -> Value {
        Value::List(self.iter().map(Field::to_value).collect())
    }
}

impl Field for String {
    fn from_value(value: &Value) -> Self {
        match value {
            Value::Text(text) => text.clone(),
            other => unreachable!("the rule let {other:?} through as a string"),
        }
    }

    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }
}

impl Field for Option<String> {
    fn from_value(value: &Value) -> Self {
        Some(String::from_value(value)).filter(|text| !text.is_empty())
    }

    fn to_value(&self) -> Value {
        Value::Text(self.clone().unwrap_or_default())
    }
}

impl Field for SocketAddr {
    fn from_value(value: &Value) -> Self {
        String::from_value(value).parse().expect("the rule has parsed the address")
    }

    fn to_value(&self) -> Value {
        Value::Text(self.to_string())
    }
}
