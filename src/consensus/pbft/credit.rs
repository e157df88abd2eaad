//! How many signatures of proofs are verified for each member, in all partitions together.
//!
//! A view change, a new view or a proof of entries holds hundreds of signatures, and whoever lies can sign
//! any number of them well: for ever higher views, in each partition. So each member has a credit of
//! verifications, which what it sends uses up and time fills again. What is not looked at comes again with the
//! next report.
//!
//! Invariants worth naming
//! - What one member sends takes nothing from another's credit.
//! - A full credit is enough for all partitions to change their view at once, and to begin the next; it is
//!   filled again for one such change within the longest patience, so that no view waits for ever.
//! - One proof may use up more than there is; the next then waits until that is filled again.

use super::group::Settings;
use std::collections::BTreeMap;

/// Verifications that come back in a second, at least: one to two hundredths of a core's time.
const A_SECOND_MIN: u64 = 500;

/// The credit of all members.
#[derive(Clone, Debug)]
pub(super) struct Credit {
    /// Of each, thousandths of a verification.
    most: i64,
    a_ms: i64,
    members: BTreeMap<u64, Account>,
}

/// What a member has.
#[derive(Clone, Copy, Debug)]
struct Account {
    left: i64,
    at_ms: u64,
}

impl Credit {
    /// The credit of the members of so many partitions.
    pub fn new(settings: &Settings, nodes: &[u64], partitions: usize) -> Self {
        let Settings { checkpoint_every, timing, .. } = settings;
        let (members, partitions) = (nodes.len() as u64, partitions as u64);
        // Of each entry between the water marks a certificate, and a checkpoint.
        let change = (2 * checkpoint_every + 1) * members + 1;
        let all = partitions * change;
        let seconds = (timing.patience_max_ms / 1000).max(1);
        let a_ms = (all / seconds).max(A_SECOND_MIN);
        // Its own change, and a new view with those of all.
        let most = (all * (1 + members) * 1000) as i64;
        let full = Account { left: most, at_ms: 0 };
        let members = nodes.iter().map(|node| (*node, full)).collect();
        Self { most, a_ms: a_ms as i64, members }
    }

    /// What a member has now; `None` for whoever is none, of whom nobody looks at a proof.
    fn account(&mut self, from: u64, now_ms: u64) -> Option<&mut Account> {
        let Self { most, a_ms, .. } = *self;
        let account = self.members.get_mut(&from)?;
        let passed = now_ms.saturating_sub(account.at_ms).min(i32::MAX as u64) as i64;
        account.left = most.min(account.left + passed * a_ms);
        account.at_ms = now_ms;
        Some(account)
    }

    /// Whether something more of a member is looked at.
    pub fn has(&mut self, from: u64, now_ms: u64) -> bool {
        self.account(from, now_ms).is_none_or(|account| account.left > 0)
    }

    /// What it sent took so many verifications.
    pub fn spend(&mut self, from: u64, verified: u64, now_ms: u64) {
        if let Some(account) = self.account(from, now_ms) {
            account.left -= verified as i64 * 1000;
        }
    }
}
