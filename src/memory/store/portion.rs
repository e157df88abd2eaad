//! How many records one step reads: so many, or so many bytes, that messages wait no longer than for any
//! other step.

/// Records of a step.
const RECORDS: usize = 32;
/// Bytes of records after which no further one is read. The last one may go beyond.
const BYTES: usize = 64 << 10;

/// What a step may still read.
pub(super) struct Portion {
    records: usize,
    bytes: usize,
}

impl Portion {
    /// That of a step which begins.
    pub(super) fn new() -> Self {
        Self { records: RECORDS, bytes: BYTES }
    }

    /// Takes room for a record of so many bytes; false when the step should end. The first one always
    /// finds room.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        if self.is_spent() {
            return false;
        }
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }

    /// Whether no further record has room.
    pub(super) fn is_spent(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_ends_after_many_records_or_a_long_one() {
        let mut small = Portion::new();
        assert_eq!((0..100).take_while(|_| small.take(64)).count(), RECORDS);
        let mut long = Portion::new();
        assert!(long.take(10 * BYTES) && !long.take(0));
    }
}
