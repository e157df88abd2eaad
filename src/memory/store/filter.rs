//! Whether an item's metadata have what a search asks for.

use crate::wire::msgpack::{Malformed, Reader, Value};

/// Fields of one filter.
const FIELDS_MAX: u32 = 64;

/// Fields that must be there, each with an equal value.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Names, and the values that they must have, in the order of the names.
    wanted: Vec<(Box<str>, Box<[u8]>)>,
}

const _: () = assert!(FIELDS_MAX <= u64::BITS, "a bit for each field");

impl Filter {
    /// A filter from a MessagePack map; `None` for one that takes everything.
    ///
    /// # Errors
    /// The bytes are no such map, or it has too many fields; the text says so.
    pub fn new(bytes: &[u8]) -> Result<Option<Self>, String> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut reader = Reader::new(bytes);
        let fields = reader.map().map_err(|_| "filter: it is no map".to_owned())?;
        if fields > FIELDS_MAX {
            return Err(format!("filter: it has {fields} fields; allowed: {FIELDS_MAX}"));
        }
        let mut wanted = Vec::with_capacity(fields as usize);
        for _ in 0..fields {
            let field = reader.str().and_then(|name| Ok((name.into(), reader.raw()?.into())));
            wanted.push(field.map_err(|_| "filter: its keys are not all text".to_owned())?);
        }
        wanted.sort_unstable_by(|one: &(Box<str>, _), other| one.0.cmp(&other.0));
        if let Some(pair) = wanted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("filter: it has the key {:.40} twice", pair[0].0));
        }
        Ok((fields > 0).then_some(Self { wanted }))
    }

    /// Whether metadata have all fields. Looks at each of their fields once.
    pub fn accepts(&self, metadata: &[u8]) -> bool {
        !metadata.is_empty() && self.has_all(metadata) == Ok(true)
    }

    fn has_all(&self, metadata: &[u8]) -> Result<bool, Malformed> {
        let (mut seen, mut left) = (0_u64, self.wanted.len());
        let mut reader = Reader::new(metadata);
        for _ in 0..reader.map()? {
            let name = match reader.str() {
                Ok(name) => Some(name),
                Err(_) => reader.raw().map(|_| None)?,
            };
            let found = reader.raw()?;
            let place = |name| self.wanted.binary_search_by(|(wanted, _)| (**wanted).cmp(name));
            if let Some(Ok(place)) = name.map(place)
                && seen >> place & 1 == 0
            {
                if !are_equal(&self.wanted[place].1, found) {
                    return Ok(false);
                }
                seen |= 1 << place;
                left -= 1;
            }
            if left == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether two values say the same: numbers by what they are worth, however they are written.
fn are_equal(left: &[u8], right: &[u8]) -> bool {
    let (mut left, mut right) = (Reader::new(left), Reader::new(right));
    loop {
        left.pass_same(&mut right);
        if left.is_empty() {
            break;
        }
        let (Ok(one), Ok(other)) = (left.head(), right.head()) else { return false };
        if !are_alike(one, other) {
            return false;
        }
        let bytes = one.body_len() as u32;
        if left.body(bytes) != right.body(bytes) {
            return false;
        }
    }
    right.is_empty()
}

fn are_alike(left: Value, right: Value) -> bool {
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => left == right,
        (Some(whole), None) | (None, Some(whole)) => match (left, right) {
            (Value::Float(float), _) | (_, Value::Float(float)) => {
                // No whole number is lost on the way: those that a float cannot have are unequal.
                float == whole as f64 && float as i128 == whole
            }
            _ => false,
        },
        (None, None) => left == right,
    }
}

fn integer(value: Value) -> Option<i128> {
    match value {
        Value::Uint(number) => Some(number.into()),
        Value::Int(number) => Some(number.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::msgpack::write;

    fn map(fields: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write::map(&mut bytes, fields.len());
        for (name, value) in fields {
            write::str(&mut bytes, name);
            bytes.extend_from_slice(value);
        }
        bytes
    }

    fn accepts(filter: &[(&str, &[u8])], metadata: &[u8]) -> bool {
        Filter::new(&map(filter)).unwrap().unwrap().accepts(metadata)
    }

    #[test]
    fn every_field_must_be_there_and_equal() {
        let metadata = map(&[("a", &[1]), ("b", &[0xa1, b'x']), ("c", &[0x92, 1, 2])]);
        assert!(accepts(&[("b", &[0xa1, b'x'])], &metadata));
        assert!(accepts(&[("c", &[0x92, 1, 2]), ("a", &[1])], &metadata));
        assert!(!accepts(&[("a", &[1]), ("d", &[1])], &metadata));
        assert!(!accepts(&[("b", &[0xa1, b'y'])], &metadata));
        assert!(!accepts(&[("c", &[0x92, 1, 3])], &metadata));
        assert!(!accepts(&[("a", &[1])], &[]));
    }

    #[test]
    fn long_values_are_equal_to_the_last_of_their_parts() {
        for count in [15, 16, 17, 33, 100] {
            let list = |last: &[u8]| {
                let mut list = Vec::new();
                write::array(&mut list, count + 1);
                list.extend((0..count).map(|at| at as u8));
                list.extend_from_slice(last);
                list
            };
            let metadata = map(&[("a", &list(&[7]))]);
            assert!(accepts(&[("a", &list(&[7]))], &metadata));
            assert!(accepts(&[("a", &list(&[0xcd, 0, 7]))], &metadata), "written in another way");
            assert!(!accepts(&[("a", &list(&[8]))], &metadata));
            let mut other = list(&[7]);
            other[count / 2] ^= 1;
            assert!(!accepts(&[("a", &other)], &metadata));
            // No number is equal to what is none.
            let mut nan = vec![0xcb];
            nan.extend_from_slice(&f64::NAN.to_be_bytes());
            assert!(!accepts(&[("a", &list(&nan))], &map(&[("a", &list(&nan))])));
        }
    }

    #[test]
    fn fields_are_found_in_whatever_order_they_are() {
        let names: Vec<String> = (0..64).map(|at| format!("k{:02}", at * 37 % 64)).collect();
        let values: Vec<[u8; 1]> = (0..64).map(|at| [at]).collect();
        let fields: Vec<(&str, &[u8])> =
            names.iter().zip(&values).map(|(name, value)| (&**name, &value[..])).collect();
        let mut turned = fields.clone();
        turned.rotate_left(29);
        turned.push(("more", &[7]));
        let metadata = map(&turned);
        assert!(accepts(&fields, &metadata));
        for at in 0..64 {
            let mut other = fields.clone();
            other[at].1 = &[100];
            assert!(!accepts(&other, &metadata), "{at}");
            other[at] = ("missing", &[7]);
            assert!(!accepts(&other, &metadata), "{at}");
        }
    }

    #[test]
    fn a_number_is_the_same_however_it_is_written() {
        let metadata = map(&[("n", &[0xcd, 0, 5])]);
        let five = 5.0_f64.to_be_bytes();
        let float = [&[0xcb][..], &five].concat();
        assert!(accepts(&[("n", &[5])], &metadata) && accepts(&[("n", &[0xd0, 5])], &metadata));
        assert!(accepts(&[("n", &float)], &metadata));
        assert!(!accepts(&[("n", &[6])], &metadata) && !accepts(&[("n", &[0xc3])], &metadata));
    }

    #[test]
    fn an_empty_filter_is_none_and_what_is_no_map_is_refused() {
        assert!(Filter::new(&[]).unwrap().is_none() && Filter::new(&[0x80]).unwrap().is_none());
        assert!(Filter::new(&[0x91, 1]).is_err() && Filter::new(&[0x81, 1, 1]).is_err());
        assert!(Filter::new(&map(&[("a", &[1]), ("a", &[1])])).is_err(), "one key twice");
    }
}
