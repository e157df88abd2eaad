//! How far a value reaches: all that passing over one takes.

use super::head::NoHead;

/// The parts of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Bytes that say what it is; a scalar is nothing else.
    pub head: usize,
    /// Bytes of text or other bytes.
    pub body: usize,
    /// Values that follow as its parts.
    pub children: u64,
    /// Whether the body must be UTF-8.
    pub is_text: bool,
}

impl Span {
    /// The value at the start of `bytes`, whose head must be there.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Result<Self, NoHead> {
        let &first = bytes.first().ok_or(NoHead::Short)?;
        let shape = &SHAPES[first as usize];
        if shape.width > 0 {
            return Self::read_long(bytes, shape);
        }
        if bytes.len() < shape.head as usize {
            return Err(NoHead::Short);
        }
        Ok(Self {
            head: shape.head as usize,
            body: shape.body as usize,
            children: shape.children as u64,
            is_text: matches!(shape.class, Class::Text),
        })
    }

    /// A value whose length does not stand in its first byte.
    fn read_long(bytes: &[u8], shape: &Shape) -> Result<Self, NoHead> {
        if matches!(shape.class, Class::Reserved) {
            return Err(NoHead::Reserved);
        }
        let head = shape.head as usize;
        let digits = bytes.get(1..1 + shape.width as usize).ok_or(NoHead::Short)?;
        if bytes.len() < head {
            return Err(NoHead::Short);
        }
        let number = digits.iter().fold(0_usize, |number, digit| number << 8 | *digit as usize);
        let (body, children) = match shape.class {
            Class::Text | Class::Bytes => (number, 0),
            Class::Array => (0, number as u64),
            Class::Map => (0, number as u64 * 2),
            Class::Scalar | Class::Reserved => (0, 0),
        };
        Ok(Self { head, body, children, is_text: matches!(shape.class, Class::Text) })
    }
}

#[derive(Clone, Copy)]
enum Class {
    Scalar,
    Text,
    Bytes,
    Array,
    Map,
    /// Begins no value.
    Reserved,
}

/// Values of one byte that are passed over together.
pub(super) const RUN: usize = 16;

/// The values that follow as parts of those that begin with these bytes, if each of them has one byte, what
/// it contains apart.
#[inline]
pub(super) fn children_of_run(bytes: &[u8; RUN]) -> Option<u64> {
    let (mut children, mut most) = (0_u64, 0_u8);
    for byte in bytes {
        let of_one = CHILDREN_OF_ONE[*byte as usize];
        most = most.max(of_one);
        children += u64::from(of_one);
    }
    (most < NOT_ONE).then_some(children)
}

/// How many values follow as parts of one whose head and body have one byte; [`NOT_ONE`] of the others.
const CHILDREN_OF_ONE: [u8; 256] = {
    let mut children = [NOT_ONE; 256];
    let mut first = 0;
    while first < 256 {
        let shape = &SHAPES[first];
        if shape.head == 1 && shape.body == 0 && shape.width == 0 {
            children[first] = shape.children;
        }
        first += 1;
    }
    children
};
const NOT_ONE: u8 = u8::MAX;

/// What a first byte says of the value that it begins.
#[derive(Clone, Copy)]
struct Shape {
    head: u8,
    /// Bytes of the body, when the first byte tells.
    body: u8,
    /// Values that follow, when the first byte tells.
    children: u8,
    /// Bytes after the first that tell the length; 0 when the first byte does.
    width: u8,
    class: Class,
}

const SHAPES: [Shape; 256] = {
    let mut shapes = [Shape::of(0); 256];
    let mut first = 1;
    while first < 256 {
        shapes[first] = Shape::of(first as u8);
        first += 1;
    }
    shapes
};

impl Shape {
    const fn of(first: u8) -> Self {
        match first {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Self::scalar(1),
            0x80..=0x8f => {
                Self { children: 2 * (first & 15), class: Class::Map, ..Self::scalar(1) }
            }
            0x90..=0x9f => Self { children: first & 15, class: Class::Array, ..Self::scalar(1) },
            0xa0..=0xbf => Self { body: first & 31, class: Class::Text, ..Self::scalar(1) },
            0xc1 => Self::long(Class::Reserved, 1, 0),
            // Bytes, extensions and text with 1, 2 or 4 bytes of length; extensions have one more
            // byte of type.
            0xc4..=0xc6 => Self::long(Class::Bytes, 1 << (first - 0xc4), 0),
            0xc7..=0xc9 => Self::long(Class::Bytes, 1 << (first - 0xc7), 1),
            0xd9..=0xdb => Self::long(Class::Text, 1 << (first - 0xd9), 0),
            // Floating point and integer numbers.
            0xca | 0xcb => Self::scalar(1 + (4 << (first - 0xca))),
            0xcc..=0xcf => Self::scalar(1 + (1 << (first - 0xcc))),
            0xd0..=0xd3 => Self::scalar(1 + (1 << (first - 0xd0))),
            // Extensions of 1, 2, 4, 8 and 16 bytes.
            0xd4..=0xd8 => {
                Self { body: 1 << (first - 0xd4), class: Class::Bytes, ..Self::scalar(2) }
            }
            0xdc | 0xdd => Self::long(Class::Array, 2 << (first - 0xdc), 0),
            0xde | 0xdf => Self::long(Class::Map, 2 << (first - 0xde), 0),
        }
    }

    const fn scalar(head: u8) -> Self {
        Self { head, body: 0, children: 0, width: 0, class: Class::Scalar }
    }

    const fn long(class: Class, width: u8, more: u8) -> Self {
        Self { head: 1 + width + more, body: 0, children: 0, width, class }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::head::Head, *};

    #[test]
    fn a_run_is_what_its_values_are_one_by_one() {
        for first in 0..=u8::MAX {
            for at in [0, 7, RUN - 1] {
                let mut bytes = [5_u8; RUN];
                bytes[at] = first;
                let span = Span::read(&bytes[at..]);
                let expected = span.ok().filter(|span| span.head == 1 && span.body == 0);
                // A length of two bytes needs them there: they are no value of one byte either way.
                assert_eq!(children_of_run(&bytes), expected.map(|it| it.children), "{first:#x}");
            }
        }
    }

    #[test]
    fn heads_and_spans_agree_on_every_first_byte() {
        for first in 0..=u8::MAX {
            for len in 0..20 {
                let mut bytes = [3_u8; 20];
                bytes[0] = first;
                let bytes = &bytes[..len];
                let head = Head::read(bytes).map(|head| {
                    let (body, children) = (head.value.body_len(), head.value.children());
                    let is_text = matches!(head.value, super::super::Value::Str(_));
                    Span { head: head.len, body, children, is_text }
                });
                assert_eq!(Span::read(bytes), head, "{first:#x}, {len} bytes");
            }
        }
    }
}
