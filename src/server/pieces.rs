//! Long text in pieces: a buffer for all of it would be copied whenever it grew, and take long to let go of.

/// Bytes after which a piece is full.
const PIECE_BYTES: usize = 64 << 10;
/// What one append adds at most where many bytes are appended.
pub const APPEND_BYTES: usize = 8 << 10;

/// Pieces that are full, and the one that is appended to.
#[derive(Debug, Default)]
pub struct Pieces {
    full: Vec<Vec<u8>>,
    open: Vec<u8>,
}

impl Pieces {
    /// Where to append; the next piece when one is full.
    pub fn end(&mut self) -> &mut Vec<u8> {
        if self.open.len() >= PIECE_BYTES {
            let next = Vec::with_capacity(PIECE_BYTES + 2 * APPEND_BYTES);
            self.full.push(std::mem::replace(&mut self.open, next));
        }
        &mut self.open
    }

    /// Appends bytes of any number.
    pub fn append(&mut self, bytes: &[u8]) {
        bytes.chunks(APPEND_BYTES).for_each(|part| self.end().extend_from_slice(part));
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.full.iter().map(Vec::len).sum::<usize>() + self.open.len()
    }

    /// The pieces, in their order.
    pub fn into_vec(mut self) -> Vec<Vec<u8>> {
        if !self.open.is_empty() {
            self.full.push(self.open);
        }
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_comes_out_in_order_and_no_piece_is_long() {
        let (mut pieces, mut expected) = (Pieces::default(), Vec::new());
        for len in [0, 1, PIECE_BYTES - 1, 1, 3 * PIECE_BYTES, 7] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            pieces.append(&bytes);
            expected.extend_from_slice(&bytes);
            assert_eq!(pieces.len(), expected.len());
        }
        let pieces = pieces.into_vec();
        assert!(pieces.iter().all(|piece| piece.len() < PIECE_BYTES + APPEND_BYTES));
        assert!(pieces.len() > 3 && pieces.concat() == expected);
    }
}
