//! A payload or a result: short ones stay in the table, long ones on the heap.

use std::sync::Arc;

/// Longest value that is kept in place, bytes.
const INLINE: usize = 94;

/// The bytes of one payload or result.
pub(super) enum Body {
    /// Short: no allocation, and no second cache miss when it is read.
    Inline { len: u8, bytes: [u8; INLINE] },
    /// Long: not copied where whoever brings it can share it.
    Heap(Arc<[u8]>),
}

impl Body {
    pub(super) const EMPTY: Self = Self::Inline { len: 0, bytes: [0; INLINE] };

    /// Puts another value in its place.
    #[inline]
    pub(super) fn set(&mut self, value: &[u8]) {
        if value.len() > INLINE {
            *self = Self::Heap(value.into());
            return;
        }
        if let Self::Heap(_) = self {
            *self = Self::EMPTY;
        }
        let Self::Inline { len, bytes } = self else { unreachable!("it was just emptied") };
        bytes[..value.len()].copy_from_slice(value);
        *len = value.len() as u8;
    }

    /// Puts another value in its place, which stays where it is.
    pub(super) fn share(&mut self, value: &Arc<[u8]>) {
        match value.len() > INLINE {
            true => *self = Self::Heap(value.clone()),
            false => self.set(value),
        }
    }

    /// Lets go of the value.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.set(&[]);
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
            let mut body = Body::EMPTY;
            body.set(b"what was there before");
            body.set(&value);
            assert_eq!(body.as_bytes(), value);
            assert_eq!(body.heap_bytes() == 0, len <= INLINE);
        }
        let long: Arc<[u8]> = vec![3; 5000].into();
        let mut body = Body::EMPTY;
        body.share(&long);
        assert!(std::ptr::eq(body.as_bytes(), &*long), "it was copied");
        for value in [vec![1; 5000], vec![2; 5]] {
            body.set(&value);
            body.clear();
            assert!(body.as_bytes().is_empty() && body.heap_bytes() == 0);
        }
    }
}
