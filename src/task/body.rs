//! A payload or a result: short ones stay in the table, long ones on the heap.

/// Longest value that is kept in place, bytes.
const INLINE: usize = 62;

/// The bytes of one payload or result.
pub(super) enum Body {
    /// Short: no allocation, and no second cache miss when it is read.
    Inline { len: u8, bytes: [u8; INLINE] },
    /// Long.
    Heap(Box<[u8]>),
}

impl Body {
    pub(super) const EMPTY: Self = Self::Inline { len: 0, bytes: [0; INLINE] };

    #[inline]
    pub(super) fn new(value: &[u8]) -> Self {
        if value.len() > INLINE {
            return Self::Heap(value.into());
        }
        let mut bytes = [0; INLINE];
        bytes[..value.len()].copy_from_slice(value);
        Self::Inline { len: value.len() as u8, bytes }
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..*len as usize],
            Self::Heap(bytes) => bytes,
        }
    }

    /// Bytes that it takes outside of the table.
    #[inline]
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Inline { .. } => 0,
            Self::Heap(bytes) => bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_values_come_back() {
        for len in [0, 1, INLINE - 1, INLINE, INLINE + 1, 5000] {
            let value: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let body = Body::new(&value);
            assert_eq!(body.as_bytes(), value);
            assert_eq!(body.heap_bytes() == 0, len <= INLINE);
        }
        assert!(Body::EMPTY.as_bytes().is_empty());
    }
}
