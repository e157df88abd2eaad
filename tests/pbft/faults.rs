//! What goes wrong with correct replicas and with the network, and how often.

/// Which faults a run has, each as how many of a hundred thousand milliseconds begin one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A process ends, and begins again after a time.
    pub crash: u32,
    /// All lose their power at about the same time.
    pub blackout: u32,
    /// Nothing gets from one to another for a time.
    pub cut: u32,
    /// Nothing gets from and to a replica for a time.
    pub isolate: u32,
    /// The replicas are in two parts that do not hear each other for a time.
    pub part: u32,
    /// A disk takes long for a time.
    pub slow: u32,
    /// A process ends when it comes to lead, perhaps before its disk knows.
    pub stumble: u32,
    /// All disks take long for a time, and all lose their power as soon as somebody is answered.
    pub snuff: u32,
    /// Nothing gets from and to a primary for a time that has nothing under way, and goes on to read.
    pub strand: u32,
}

/// What begins now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// See [`Faults::crash`].
    Crash,
    /// See [`Faults::blackout`].
    Blackout,
    /// See [`Faults::cut`].
    Cut,
    /// See [`Faults::isolate`].
    Isolate,
    /// See [`Faults::part`].
    Part,
    /// See [`Faults::slow`].
    Slow,
    /// See [`Faults::stumble`].
    Stumble,
    /// See [`Faults::snuff`].
    Snuff,
    /// See [`Faults::strand`].
    Strand,
}

impl Faults {
    /// Faults of a run: some kinds at all, and those as often as it comes.
    pub fn random(rng: &mut fastrand::Rng) -> Self {
        let mut often = |most: u32| if rng.u32(..2) == 0 { 0 } else { rng.u32(1..=most) };
        Self {
            crash: often(100),
            blackout: often(15),
            cut: often(300),
            isolate: often(40),
            part: often(40),
            slow: often(60),
            stumble: often(60),
            snuff: often(100),
            strand: often(100),
        }
    }

    /// What begins in a millisecond.
    pub fn strike(&self, rng: &mut fastrand::Rng) -> Option<Fault> {
        let mut at = rng.u32(..100_000);
        let kinds = [
            (self.crash, Fault::Crash),
            (self.blackout, Fault::Blackout),
            (self.cut, Fault::Cut),
            (self.isolate, Fault::Isolate),
            (self.part, Fault::Part),
            (self.slow, Fault::Slow),
            (self.stumble, Fault::Stumble),
            (self.snuff, Fault::Snuff),
            (self.strand, Fault::Strand),
        ];
        kinds.into_iter().find_map(|(often, fault)| {
            let is_it = at < often;
            at = at.saturating_sub(often);
            is_it.then_some(fault)
        })
    }
}
