//! What a node's gossip may cost and how patient it is.

use std::time::Duration;

/// Fewest bytes of the largest datagram: the largest entry fits into one.
pub const DATAGRAM_BYTES_MIN: usize = 1_280;
/// Most bytes of the largest datagram: what fits into a jumbo frame.
pub const DATAGRAM_BYTES_MAX: usize = 8_900;

/// Most nodes that are known, unless settings name fewer or more.
pub const NODES_MAX: usize = 16_384;

/// How gossip behaves. All nodes of a cluster have the same settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Time between two rounds.
    pub interval: Duration,
    /// Time between two full reconciliations with a random peer.
    pub reconcile: Duration,
    /// Most bytes of a datagram, seal included; [`DATAGRAM_BYTES_MIN`] to [`DATAGRAM_BYTES_MAX`].
    pub datagram: usize,
    /// Most datagrams that one datagram is answered with, and that one peer is pushed in a round.
    pub burst: usize,
    /// Bytes of entries and digests that a node may send between two rounds beside its pushes; what
    /// is beyond waits for a later round.
    pub round_bytes: usize,
    /// Most peers that are pushed to in a round, and most that are pulled from.
    pub fanout_max: usize,
    /// Fewest nodes that watch a node, when there are as many.
    pub watchers_min: usize,
    /// Most nodes that are known; others are refused.
    pub nodes_max: usize,
    /// Only nodes that the caller named are believed and told of; otherwise whoever speaks is a node.
    pub closed: bool,
    /// Nodes of another cluster have another number here, and are refused.
    pub cluster: u32,
    /// Time for which a deleted key is remembered. A peer that missed it for longer is reset.
    pub tombstone: Duration,
    /// Suspicion at which a silent node is accused: minus the decimal logarithm of the chance that it
    /// lives and is only late.
    pub phi: f64,
    /// Least deviation of the times between two answers that is reckoned with.
    pub deviation_min: Duration,
    /// Time that every answer may be late without being suspicious.
    pub pause: Duration,
    /// Longest silence that is not suspicious, however irregular the answers were. With `suspicion` and two
    /// rounds it is the time until a death is known everywhere.
    pub silence_max: Duration,
    /// Time that a suspect has to refute before it is dead.
    pub suspicion: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            reconcile: Duration::from_secs(10),
            datagram: 1_400,
            burst: 4,
            round_bytes: 64 << 10,
            fanout_max: 10,
            watchers_min: 3,
            nodes_max: NODES_MAX,
            closed: true,
            cluster: 0,
            tombstone: Duration::from_secs(60),
            phi: 8.0,
            deviation_min: Duration::from_millis(80),
            pause: Duration::from_millis(100),
            silence_max: Duration::from_secs(1),
            suspicion: Duration::from_millis(800),
        }
    }
}

/// Why settings cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// No time between two rounds, or more than a minute.
    #[error("a round takes 1 ms to 1 min")]
    Interval,
    /// The datagram is too small or too large.
    #[error("a datagram has {DATAGRAM_BYTES_MIN} to {DATAGRAM_BYTES_MAX} bytes")]
    Datagram,
    /// A count that is to be at least one is zero.
    #[error("burst, fanout_max, watchers_min and nodes_max are at least 1")]
    Zero,
    /// The threshold is no number above zero.
    #[error("phi is a number from 0.1 to 300")]
    Phi,
}

impl Settings {
    /// With rounds of some length, and the patience that belongs to it: what is reckoned with grows with
    /// the rounds, and does not shrink below what threads and networks need.
    pub fn every(interval: Duration) -> Self {
        let usual = Self::default();
        let longer = interval.as_secs_f64() / usual.interval.as_secs_f64();
        let grown = |time: Duration| time.mul_f64(longer.max(1.0));
        Self {
            interval,
            deviation_min: grown(usual.deviation_min),
            pause: grown(usual.pause),
            silence_max: grown(usual.silence_max),
            ..usual
        }
    }

    /// Looks whether they can be used.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn validate(&self) -> Result<(), Unusable> {
        let intervals = Duration::from_millis(1)..=Duration::from_secs(60);
        let counts = [self.burst, self.fanout_max, self.watchers_min, self.nodes_max];
        match () {
            () if !intervals.contains(&self.interval) => Err(Unusable::Interval),
            () if !(DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX).contains(&self.datagram) => {
                Err(Unusable::Datagram)
            }
            () if counts.contains(&0) => Err(Unusable::Zero),
            () if !(0.1..=300.0).contains(&self.phi) => Err(Unusable::Phi),
            () => Ok(()),
        }
    }

    /// Peers that are pushed to in a round among so many nodes, this one included:
    /// `min(⌈log2 nodes⌉ + 1, fanout_max)`, and no more than there are.
    pub fn fanout(&self, nodes: usize) -> usize {
        (logarithm(nodes) + 1).min(self.fanout_max).min(nodes.saturating_sub(1))
    }

    /// Nodes that watch each node: half of those that a node asks in a round.
    pub fn watchers(&self, nodes: usize) -> usize {
        self.fanout(nodes).div_ceil(2).max(self.watchers_min).min(nodes.saturating_sub(1))
    }

    /// Rounds in which news is pushed on, unless its receivers know it already: enough for it to be
    /// everywhere, with some that are lost.
    pub fn rounds_hot(nodes: usize) -> u32 {
        logarithm(nodes).div_ceil(3) as u32 + 3
    }
}

/// The binary logarithm, rounded up.
fn logarithm(nodes: usize) -> usize {
    nodes.max(1).next_power_of_two().trailing_zeros() as usize
}
