//! The one map of parameters that a request carries.

use crate::wire::msgpack::write;

/// A map of parameters that is being put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    pairs: usize,
    body: Vec<u8>,
}

impl Params {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds text.
    #[must_use]
    pub fn str(self, name: &str, value: &str) -> Self {
        self.with(name, |out| write::str(out, value))
    }

    /// Adds text when there is some.
    #[must_use]
    pub fn str_if(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.str(name, value),
            None => self,
        }
    }

    /// Adds a number when there is one.
    #[must_use]
    pub fn uint_if(self, name: &str, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.with(name, |out| write::uint(out, value)),
            None => self,
        }
    }

    /// Adds true or false.
    #[must_use]
    pub fn bool(self, name: &str, value: bool) -> Self {
        self.with(name, |out| write::bool(out, value))
    }

    /// Adds a value that is MessagePack already.
    #[must_use]
    pub fn value(self, name: &str, value: &[u8]) -> Self {
        self.with(name, |out| write::raw(out, value))
    }

    /// Adds bytes.
    #[must_use]
    pub fn bin(self, name: &str, value: &[u8]) -> Self {
        self.with(name, |out| write::bin(out, value))
    }

    /// Adds what `write` appends: exactly one value.
    #[must_use]
    pub fn with(mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        self.pairs += 1;
        write::str(&mut self.body, name);
        write(&mut self.body);
        self
    }

    /// Appends the map.
    pub fn write(&self, out: &mut Vec<u8>) {
        write::map(out, self.pairs);
        write::raw(out, &self.body);
    }
}
