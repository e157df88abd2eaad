//! Bugs that a build can be given on purpose, to show that the simulator finds them.
//!
//! Only the feature `planted-bugs` makes [`has`] anything but false, and only a thread that asked
//! with `plant` for one of them has it.

#[cfg(feature = "planted-bugs")]
use std::cell::Cell;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A replica votes and acknowledges entries before its disk has them.
    EarlyPromise,
    /// A replica forgets whom it voted for.
    ForgottenVote,
    /// A log that is read back keeps entries that were overwritten.
    DroppedTruncation,
    /// A replica takes messages of terms that are over for ones of its own.
    IgnoredTerm,
    /// A submission is acknowledged before it is committed.
    EarlyAcknowledgement,
    /// A leader answers questions without asking whether it leads still.
    UnconfirmedRead,
    /// Fencing tokens that an earlier leader reserved are given again.
    ForgottenTokens,
    /// A segment is freed though a partition's log begins in it.
    EarlyRelease,
    /// A vote that comes twice counts as those of two voters.
    CountedTwice,
    /// What a start has read is taken for written before it was synced.
    UnsyncedStart,
    /// The checksums of a group are not looked at when a log is read at a start.
    UncheckedStart,
    /// The checksum of a record is not looked at when it is read back for a shard.
    UncheckedRecord,
    /// A block is not checked that is read back for a follower or a shard.
    UncheckedEntry,
    /// Gossip applies changes whose predecessors are missing.
    UncheckedGap,
    /// A node loses tombstones without saying from where on they are missing.
    EarlyCollection,
    /// A node refutes an accusation without a higher incarnation.
    WeakRefutation,
    /// Time in which a node itself did not run counts as the others' silence.
    CountedPause,
    /// An answer that is sent again counts as heard.
    BelievedReplay,
    /// A map that is received in parts is shown before it is whole.
    HalfMap,
    /// Byzantine agreement counts 2f votes for a quorum, one too few.
    SmallQuorum,
    /// A replica answers a client tentatively before the entry is prepared.
    EarlyTentative,
    /// A replica tells a client how far the log is while the next entry is executed tentatively.
    EarlyHead,
    /// A replica tells a client that the log is as far as it has accepted entries.
    TentativeHead,
    /// A replica answers a client tentatively before its disk has the certificate of the entry.
    UnsyncedAnswer,
    /// What a view has executed tentatively stays executed when that is left.
    KeptTentative,
    /// Entries that come by state transfer are not compared with what a quorum has signed.
    UncheckedTransfer,
    /// Certificates in view changes and new views are not verified.
    UncheckedCertificate,
    /// A replica leaves a view for a duty with one other that says so, which may lie.
    LoneDuty,
    /// A replica takes part in orders whatever its shard makes of the copies in them.
    UncheckedClaim,
    /// A copy of a task that lives is taken for true whatever its contents are.
    UncheckedContents,
    /// An order of a primary that a replica drops is as one that was never given.
    ForgottenOrder,
    /// Nobody is owed that the log becomes shorter.
    IdleDuty,
}

impl Bug {
    /// Those that the simulator of the log must find.
    pub const ALL: [Self; 13] = [
        Self::EarlyPromise,
        Self::ForgottenVote,
        Self::DroppedTruncation,
        Self::IgnoredTerm,
        Self::EarlyAcknowledgement,
        Self::UnconfirmedRead,
        Self::ForgottenTokens,
        Self::EarlyRelease,
        Self::CountedTwice,
        Self::UnsyncedStart,
        Self::UncheckedStart,
        Self::UncheckedRecord,
        Self::UncheckedEntry,
    ];

    /// Those of them that it must find as well where the nodes agree by PBFT, within some ten seeds: unchecked
    /// records take hundreds there, as another replica notices before.
    pub const AGREED: [Self; 7] = [
        Self::EarlyAcknowledgement,
        Self::UnconfirmedRead,
        Self::ForgottenTokens,
        Self::EarlyRelease,
        Self::UnsyncedStart,
        Self::UncheckedStart,
        Self::SmallQuorum,
    ];

    /// Those beside them that it must find where one of the nodes lies.
    pub const LIED: [Self; 4] =
        [Self::UncheckedClaim, Self::UncheckedContents, Self::ForgottenOrder, Self::IdleDuty];

    /// Those that the simulator of gossip must find.
    pub const GOSSIP: [Self; 6] = [
        Self::UncheckedGap,
        Self::EarlyCollection,
        Self::WeakRefutation,
        Self::CountedPause,
        Self::BelievedReplay,
        Self::HalfMap,
    ];

    /// Those that the simulator of Byzantine agreement must find, and its model.
    pub const PBFT: [Self; 3] =
        [Self::SmallQuorum, Self::EarlyTentative, Self::UncheckedCertificate];

    /// Those that its simulator must find, and no model of view changes can.
    pub const PBFT_SIMULATED: [Self; 7] = [
        Self::LoneDuty,
        Self::EarlyHead,
        Self::TentativeHead,
        Self::UnsyncedAnswer,
        Self::KeptTentative,
        Self::UncheckedTransfer,
        Self::UnconfirmedRead,
    ];
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Gives this thread a bug, or none.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    BUG.set(bug);
}

/// Whether this thread has a bug.
#[cfg(feature = "planted-bugs")]
pub fn has(bug: Bug) -> bool {
    BUG.get() == Some(bug)
}

/// No build but for the simulator has any.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn has(_: Bug) -> bool {
    false
}
