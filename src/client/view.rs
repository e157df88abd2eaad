//! One MessagePack value of an answer, read in place.

use crate::wire::{
    json::{self, Unrepresentable},
    msgpack::{Reader, Value},
};

/// One value inside an answer: looks into maps and arrays without copying them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// A view of the bytes of one value.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The value's bytes.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The value of a field, when this is a map that has it and it is not nil.
    #[inline]
    pub fn get(self, name: &str) -> Option<View<'a>> {
        let value = self.fields().find(|(key, _)| *key == name)?.1;
        (!value.is_nil()).then_some(value)
    }

    /// The fields of a map, in their order; none for anything else.
    #[inline]
    pub fn fields(self) -> Fields<'a> {
        let mut reader = Reader::new(self.0);
        let remaining = reader.map().unwrap_or(0);
        Fields { reader, remaining }
    }

    /// Text.
    #[inline]
    pub fn str(self) -> Option<&'a str> {
        Reader::new(self.0).str().ok()
    }

    /// Bytes.
    pub fn bin(self) -> Option<&'a [u8]> {
        Reader::new(self.0).bin().ok()
    }

    /// An integer of 0 or more.
    #[inline]
    pub fn uint(self) -> Option<u64> {
        Reader::new(self.0).uint().ok()
    }

    /// Any number, as the nearest that 64 bits hold.
    pub fn float(self) -> Option<f64> {
        match Reader::new(self.0).head() {
            Ok(Value::Float(number)) => Some(number),
            Ok(Value::Uint(number)) => Some(number as f64),
            Ok(Value::Int(number)) => Some(number as f64),
            _ => None,
        }
    }

    /// Whether it is a number with a fraction.
    pub fn is_float(self) -> bool {
        matches!(Reader::new(self.0).head(), Ok(Value::Float(_)))
    }

    /// True or false.
    pub fn bool(self) -> Option<bool> {
        match Reader::new(self.0).head() {
            Ok(Value::Bool(value)) => Some(value),
            _ => None,
        }
    }

    /// Whether it is nil.
    pub fn is_nil(self) -> bool {
        Reader::new(self.0).nil()
    }

    /// The values of an array; none for anything else.
    pub fn items(self) -> Items<'a> {
        let mut reader = Reader::new(self.0);
        let remaining = reader.array().unwrap_or(0);
        Items { reader, remaining }
    }

    /// The value as JSON text.
    ///
    /// # Errors
    /// When it is nested too deeply.
    pub fn to_json(self) -> Result<String, Unrepresentable> {
        let mut text = Vec::new();
        json::from_msgpack(self.0, &mut text)?;
        String::from_utf8(text).map_err(|_| Unrepresentable)
    }
}

/// The fields of a map; those whose name is no text are passed over.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    reader: Reader<'a>,
    remaining: u32,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, View<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.remaining = self.remaining.checked_sub(1)?;
            let key = View(self.reader.raw().ok()?);
            let value = View(self.reader.raw().ok()?);
            if let Some(name) = key.str() {
                return Some((name, value));
            }
        }
    }
}

/// The values of an array.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    reader: Reader<'a>,
    remaining: u32,
}

impl<'a> Iterator for Items<'a> {
    type Item = View<'a>;

    #[inline]
    fn next(&mut self) -> Option<View<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        self.reader.raw().ok().map(View)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::msgpack::write;

    #[test]
    fn fields_and_items_are_found_in_place() {
        let mut bytes = Vec::new();
        write::map(&mut bytes, 3);
        write::str(&mut bytes, "none");
        write::nil(&mut bytes);
        write::str(&mut bytes, "list");
        write::array(&mut bytes, 2);
        write::uint(&mut bytes, 300);
        write::bool(&mut bytes, true);
        write::str(&mut bytes, "text");
        write::str(&mut bytes, "é");
        let view = View::new(&bytes);
        assert_eq!(view.get("none"), None);
        assert_eq!(view.get("absent"), None);
        assert_eq!(view.get("text").and_then(View::str), Some("é"));
        let items: Vec<_> = view.get("list").unwrap().items().collect();
        assert_eq!((items.len(), items[0].uint(), items[1].bool()), (2, Some(300), Some(true)));
        assert_eq!(view.to_json().unwrap(), r#"{"none":null,"list":[300,true],"text":"é"}"#);
    }

    #[test]
    fn what_is_not_there_is_none_and_no_panic() {
        for bytes in [&[][..], &[0x81], &[0x92, 1], &[0xdf, 0xff, 0xff, 0xff, 0xff], &[0xc1]] {
            let view = View::new(bytes);
            assert_eq!((view.get("x"), view.str(), view.uint()), (None, None, None));
            assert!(view.float().is_none() && !view.is_float());
            assert!(view.items().count() <= 1);
            assert!(view.to_json().is_err());
        }
    }
}
