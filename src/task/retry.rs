//! How long a task pauses before another attempt.

/// The pauses of a partition's tasks.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Pause before the second attempt, milliseconds; it doubles with each further one.
    pub base_ms: u64,
    /// Longest pause, milliseconds.
    pub max_ms: u64,
}

impl RetryPolicy {
    /// The pause after attempt number `attempt`, from 1, of a task: from half to the whole of what
    /// the policy says, so that tasks that failed together do not come back together. It follows
    /// from the task's name, so that it can be repeated.
    pub fn pause_ms(&self, random: u128, attempt: u32) -> u64 {
        let doublings = attempt.saturating_sub(1).min(u64::BITS - 1);
        let whole = self.base_ms.saturating_mul(1 << doublings).min(self.max_ms);
        let half = whole / 2;
        let spread = u128::from(mix(random, attempt)) * u128::from(whole - half + 1);
        half + (spread >> u64::BITS) as u64
    }
}

/// Bits that look random, from a task's name and the attempt (the finalizer of SplitMix64).
fn mix(random: u128, attempt: u32) -> u64 {
    let mut bits = random as u64 ^ (random >> 64) as u64;
    bits = bits.wrapping_add(u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy { base_ms: 100, max_ms: 1_000 };

    #[test]
    fn pauses_double_up_to_the_longest_and_spread_over_their_upper_half() {
        for (attempt, whole) in [(1, 100), (2, 200), (4, 800), (5, 1_000), (u32::MAX, 1_000)] {
            let pauses: Vec<u64> =
                (0..1_000).map(|task| POLICY.pause_ms(task << 3, attempt)).collect();
            let (min, max) = (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap());
            assert!(min >= whole / 2 && max <= whole, "{attempt}: {min} to {max}");
            let mean = pauses.iter().sum::<u64>() / 1_000;
            assert!(mean.abs_diff(whole * 3 / 4) < whole / 20, "{attempt}: {mean}");
        }
    }

    #[test]
    fn a_pause_can_be_repeated_and_may_be_nothing() {
        assert_eq!(POLICY.pause_ms(7, 3), POLICY.pause_ms(7, 3));
        assert_eq!(RetryPolicy { base_ms: 0, ..POLICY }.pause_ms(7, 3), 0);
        assert_eq!(RetryPolicy { max_ms: 0, ..POLICY }.pause_ms(7, 3), 0);
    }
}
