use super::*;
use proptest::prelude::*;

const LIMIT: usize = FRAME_BYTES + 4096;

fn agent(bits: u64) -> AgentId {
    AgentId::from_bits(bits)
}

/// A record that owns what it carries.
#[derive(Clone, Debug)]
enum Owned {
    Send(u64, u64, Vec<u8>),
    Call(u64, u64, u64, u32, Vec<u8>),
    Broadcast(u64, String, Vec<u8>),
    Reply(u64, Vec<u8>),
    Refusal(u64, Error),
    Full(u64),
    Room(u64),
    Leaves,
}

impl Owned {
    fn record(&self) -> Record<'_> {
        match self {
            Self::Send(target, source, payload) => {
                Record::Send { target: agent(*target), source: agent(*source), payload }
            }
            Self::Call(target, source, correlation, patience_ms, payload) => Record::Call {
                target: agent(*target),
                source: agent(*source),
                correlation: *correlation,
                patience_ms: *patience_ms,
                payload,
            },
            Self::Broadcast(source, agent_type, payload) => {
                Record::Broadcast { source: agent(*source), agent_type, payload }
            }
            Self::Reply(correlation, payload) => {
                Record::Reply { correlation: *correlation, payload }
            }
            Self::Refusal(correlation, error) => {
                Record::Refusal { correlation: *correlation, error: error.clone() }
            }
            Self::Full(id) => Record::Full(agent(*id)),
            Self::Room(id) => Record::Room(agent(*id)),
            Self::Leaves => Record::Leaves,
        }
    }
}

fn errors() -> impl Strategy<Value = Error> {
    let text = || "[a-z ]{0,20}";
    prop_oneof![
        text().prop_map(Error::Invalid),
        text().prop_map(Error::NotFound),
        text().prop_map(Error::Conflict),
        any::<u64>().prop_map(Error::Backpressure),
        text().prop_map(Error::StaleLease),
        text().prop_map(Error::Unauthorized),
        text().prop_map(Error::TooLarge),
        text().prop_map(Error::Unavailable),
        text().prop_map(Error::Uncertain),
        proptest::option::of(text()).prop_map(Error::NotLeader),
    ]
}

fn records() -> impl Strategy<Value = Owned> {
    let payload = || {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..100),
            proptest::collection::vec(any::<u8>(), 2000..4000),
            (any::<u8>(), 0..4000_usize).prop_map(|(byte, len)| vec![byte; len]),
        ]
    };
    prop_oneof![
        (any::<u64>(), any::<u64>(), payload()).prop_map(|(t, s, p)| Owned::Send(t, s, p)),
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), payload())
            .prop_map(|(t, s, c, ms, p)| Owned::Call(t, s, c, ms, p)),
        (any::<u64>(), "[a-z]{0,64}", payload()).prop_map(|(s, n, p)| Owned::Broadcast(s, n, p)),
        (any::<u64>(), payload()).prop_map(|(c, p)| Owned::Reply(c, p)),
        (any::<u64>(), errors()).prop_map(|(c, e)| Owned::Refusal(c, e)),
        any::<u64>().prop_map(Owned::Full),
        any::<u64>().prop_map(Owned::Room),
        Just(Owned::Leaves),
    ]
}

fn unpacker() -> Unpacker {
    Unpacker::new(LIMIT, 1 << 20, Progress::default())
}

/// Everything that waits to be written, as bytes.
fn drain(packer: &mut Packer) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let part = packer.to_write();
        if part.is_empty() {
            break;
        }
        // Not all at once, so that what was written in part is gone on with.
        let len = part.len().min(5000);
        bytes.extend_from_slice(&part[..len]);
        packer.wrote(len);
    }
    bytes
}

/// Gives as many bytes as there is room for; tells how many.
fn feed(unpacker: &mut Unpacker, bytes: &[u8]) -> usize {
    let space = unpacker.space();
    let len = bytes.len().min(space.len());
    space[..len].copy_from_slice(&bytes[..len]);
    unpacker.filled(len);
    len
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn records_come_out_in_order_however_the_bytes_are_cut(
        sent in proptest::collection::vec(records(), 1..200),
        cuts in proptest::collection::vec(1..20_000_usize, 1..20),
    ) {
        let mut packer = Packer::default();
        for record in &sent {
            packer.put(&record.record());
        }
        let bytes = drain(&mut packer);
        let (mut unpacker, mut came, mut at) = (unpacker(), 0, 0);
        for cut in cuts.iter().cycle() {
            let until = bytes.len().min(at + cut);
            while at < until {
                at += feed(&mut unpacker, &bytes[at..until]);
                while let Some(record) = unpacker.record().unwrap() {
                    prop_assert_eq!(&record, &sent[came].record());
                    came += 1;
                    unpacker.taken();
                }
            }
            if at == bytes.len() {
                break;
            }
        }
        prop_assert_eq!(came, sent.len());
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_waits_for_more_and_never_another_record(
        sent in proptest::collection::vec(records(), 1..20),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut packer = Packer::default();
        for record in &sent {
            packer.put(&record.record());
        }
        let mut bytes = drain(&mut packer);
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let (mut unpacker, mut came, mut at) = (unpacker(), 0, 0);
        let broken = 'all: loop {
            loop {
                match unpacker.record() {
                    Ok(Some(record)) => {
                        prop_assert_eq!(&record, &sent[came].record());
                        came += 1;
                        unpacker.taken();
                    }
                    Ok(None) => break,
                    Err(_) => break 'all true,
                }
            }
            if at == bytes.len() {
                break false;
            }
            at += feed(&mut unpacker, &bytes[at..]);
        };
        prop_assert!(broken, "a checksum covers every byte");
        prop_assert!(came < sent.len());
    }

    #[test]
    fn any_bytes_as_records_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut rest = &bytes[..];
        while let Ok((_, taken)) = Record::read(rest) {
            prop_assert!(taken > 0 && taken <= rest.len());
            rest = &rest[taken..];
        }
    }
}

#[test]
fn a_record_is_the_same_until_it_is_taken() {
    let mut packer = Packer::default();
    packer.put(&Record::Full(agent(1)));
    packer.put(&Record::Room(agent(2)));
    let bytes = drain(&mut packer);
    let mut unpacker = unpacker();
    assert_eq!(feed(&mut unpacker, &bytes), bytes.len());
    for _ in 0..3 {
        assert_eq!(unpacker.record(), Ok(Some(Record::Full(agent(1)))));
    }
    unpacker.taken();
    assert_eq!(unpacker.record(), Ok(Some(Record::Room(agent(2)))));
    unpacker.taken();
    assert_eq!(unpacker.record(), Ok(None));
}

#[test]
fn what_is_declared_costs_nothing_before_it_arrives() {
    let forged = |travelling: u32, plain: u32, body: &[u8]| {
        let mut frame = [travelling.to_le_bytes(), plain.to_le_bytes()].concat();
        frame.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        frame.extend_from_slice(&1_u64.to_le_bytes());
        frame.extend_from_slice(&0_u64.to_le_bytes());
        let checksum = crc32fast::hash(&frame);
        frame.extend_from_slice(&checksum.to_le_bytes());
        frame.extend_from_slice(body);
        frame
    };
    let outcome = |frame: &[u8]| {
        let mut unpacker = unpacker();
        feed(&mut unpacker, frame);
        let outcome = unpacker.record().map(|record| record.is_some());
        assert!(unpacker.memory_bytes() <= 4 * LIMIT);
        outcome
    };
    let limit = LIMIT;
    let bytes = LIMIT + 1;
    assert_eq!(outcome(&forged(bytes as u32, 9, &[])), Err(TrunkError::TooLong { bytes, limit }));
    assert_eq!(outcome(&forged(9, bytes as u32, &[])), Err(TrunkError::TooLong { bytes, limit }));
    assert_eq!(outcome(&forged(LIMIT as u32, LIMIT as u32, &[])), Ok(false), "it waits");
    assert_eq!(outcome(&forged(10, LIMIT as u32, &[0; 10])), Err(TrunkError::Compressed));
    assert_eq!(outcome(&forged(10, 9, &[0; 10])), Err(TrunkError::Compressed));
    assert_eq!(outcome(&forged(6, 6, &[9, 0, 0, 0, 6, 1])), Err(TrunkError::Record));
    assert_eq!(outcome(&forged(0, 0, &[])), Err(TrunkError::Record), "a number without records");
}

#[test]
fn what_does_not_become_smaller_is_not_compressed_each_time() {
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(FRAME_BYTES).collect();
    let zeros = vec![0; FRAME_BYTES];
    let mut packer = Packer::default();
    let mut bytes_of = |payload: &[u8]| {
        packer.put(&Record::Reply { correlation: 0, payload });
        drain(&mut packer).len()
    };
    assert!(bytes_of(&zeros) < FRAME_BYTES / 50);
    assert!(bytes_of(&noise) > FRAME_BYTES, "noise");
    let tries = (0..100).position(|_| bytes_of(&zeros) < FRAME_BYTES / 50);
    assert_eq!(tries, Some(15), "after some frames it is tried again");
}

#[test]
fn a_buffer_that_is_never_empty_does_not_grow() {
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1000).collect();
    let mut packer = Packer::default();
    let mut unpacker = unpacker();
    let mut sent = 0;
    while sent < 64 << 20 {
        while packer.kept() < 1 << 20 {
            packer.put(&Record::Reply { correlation: 0, payload: &noise });
        }
        let part = packer.to_write();
        let bytes = feed(&mut unpacker, &part[..part.len().div_ceil(2)]);
        packer.wrote(bytes);
        sent += bytes;
        while unpacker.record().unwrap().is_some() {
            unpacker.taken();
        }
        packer.acknowledge(unpacker.progress().frames).unwrap();
        assert!(packer.kept() > 0, "it was empty: this shows nothing");
    }
    assert!(packer.memory_bytes() < 8 << 20, "{} bytes", packer.memory_bytes());
    assert!(unpacker.memory_bytes() < 8 << 20, "{} bytes", unpacker.memory_bytes());
}

/// One side of a session: what it is to say, what it has heard, and its connection of now.
struct Side {
    packer: Packer,
    unpacker: Unpacker,
    sent: Vec<u64>,
    heard: Vec<u64>,
}

impl Side {
    fn new() -> Self {
        Self { packer: Packer::default(), unpacker: unpacker(), sent: vec![], heard: vec![] }
    }

    fn say(&mut self, random: &mut fastrand::Rng) {
        let number = self.sent.len() as u64;
        let payload = vec![number as u8; random.usize(..1500)];
        self.packer.put(&Record::Reply { correlation: number, payload: &payload });
        self.sent.push(number);
    }

    /// Takes up to so many records in.
    fn take(&mut self, most: usize) {
        for _ in 0..most {
            let Some(record) = self.unpacker.record().expect("no byte is damaged") else { break };
            let Record::Reply { correlation, payload } = record else { panic!("nobody said that") };
            assert!(payload.iter().all(|byte| *byte == correlation as u8));
            self.heard.push(correlation);
            self.unpacker.taken();
        }
        let Progress { frames, .. } = self.unpacker.progress();
        self.packer.took(frames, 0);
        self.packer.acknowledge(self.unpacker.acknowledged()).expect("it was sent");
    }

    /// Begins a connection, over which the other side says what it has taken.
    fn connect(&mut self, taken: u64) {
        self.unpacker = Unpacker::new(LIMIT, 1 << 20, self.unpacker.progress());
        self.packer.resume(taken).expect("it was sent");
    }
}

/// Moves some of what waits from one side to the other.
fn travel(from: &mut Side, to: &mut Side, random: &mut fastrand::Rng) {
    let part = from.packer.to_write();
    if to.unpacker.has_room() {
        let bytes = feed(&mut to.unpacker, &part[..random.usize(..=part.len())]);
        from.packer.wrote(bytes);
    }
}

#[test]
fn over_connections_that_are_cut_anywhere_each_side_hears_all_once_and_in_order() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut cuts, mut partly) = (0, 0);
    for _ in 0..60 {
        let (mut near, mut far) = (Side::new(), Side::new());
        for round in 0.. {
            if round < 300 {
                (0..random.usize(..20)).for_each(|_| near.say(&mut random));
                (0..random.usize(..5)).for_each(|_| far.say(&mut random));
            }
            travel(&mut near, &mut far, &mut random);
            travel(&mut far, &mut near, &mut random);
            near.take(random.usize(..40));
            far.take(random.usize(..40));
            near.packer.tell();
            far.packer.tell();
            if random.u32(..20) == 0 {
                cuts += 1;
                let taken = [&near, &far].map(|side| side.unpacker.progress());
                partly += taken.iter().filter(|it| it.records > 0).count();
                near.connect(taken[1].frames);
                far.connect(taken[0].frames);
            }
            if round >= 300 && near.packer.is_empty() && far.packer.is_empty() {
                break;
            }
            assert!(round < 10_000, "something is never acknowledged");
        }
        assert_eq!(far.heard, near.sent);
        assert_eq!(near.heard, far.sent);
        assert_eq!(near.packer.messages(), 0);
    }
    assert!(cuts > 100 && partly > 20, "{cuts} cuts, {partly} within a frame: this shows nothing");
}

#[test]
fn a_frame_that_is_missing_and_one_that_was_never_sent_are_told() {
    let (mut packer, mut unpacker) = (Packer::default(), unpacker());
    packer.put(&Record::Full(agent(1)));
    let first = drain(&mut packer);
    packer.put(&Record::Room(agent(1)));
    let second = drain(&mut packer);
    feed(&mut unpacker, &second);
    assert_eq!(unpacker.record(), Err(TrunkError::Gap { number: 2, expected: 1 }));
    let mut unpacker = self::unpacker();
    for frame in [&first, &first, &second] {
        feed(&mut unpacker, frame);
        while unpacker.record().unwrap().is_some() {
            unpacker.taken();
        }
    }
    assert_eq!(unpacker.progress(), Progress { frames: 2, records: 0 });
    assert_eq!(packer.acknowledge(3), Err(TrunkError::Unsent { number: 3, sent: 2 }));
    assert!(!packer.is_empty());
    assert_eq!(packer.acknowledge(2), Ok(()));
    assert!(packer.is_empty());
}

#[test]
fn what_is_kept_tells_its_messages_and_which_of_them_were_begun() {
    let mut packer = Packer::default();
    let send = |packer: &mut Packer| {
        packer.put(&Record::Send { target: agent(1), source: agent(2), payload: b"x" })
    };
    let first = send(&mut packer);
    assert!(!packer.is_touched(first));
    drain(&mut packer);
    assert!(packer.is_touched(first));
    packer.put(&Record::Full(agent(1)));
    let second = send(&mut packer);
    assert!(!packer.is_touched(second));
    assert_eq!(packer.messages(), 2);
    packer.acknowledge(first).unwrap();
    assert_eq!(packer.messages(), 1);
}

/// Puts messages of 1,000 bytes in until there are so many closed frames.
fn fill(packer: &mut Packer, frames: u64) -> u64 {
    let mut count = 0;
    let mut frame = 0;
    while frame <= frames {
        let payload = [count as u8; 1_000];
        let record = Record::Send { target: agent(count), source: agent(0), payload: &payload };
        frame = packer.put(&record);
        count += 1;
    }
    count
}

#[test]
fn what_the_other_side_takes_does_not_move_what_it_has_not_taken() {
    let mut packer = Packer::default();
    // Of random numbers, so that nothing is compressed.
    let mut random = fastrand::Rng::with_seed(7);
    while packer.kept() < 4 << 20 {
        let payload: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1_000).collect();
        packer.put(&Record::Send { target: agent(0), source: agent(0), payload: &payload });
    }
    let mut written = 0;
    while written < 3 << 20 {
        let bytes = packer.to_write().len().min(10_000);
        packer.wrote(bytes);
        written += bytes;
    }
    let next = packer.to_write().as_ptr();
    for frame in 1..=45 {
        packer.acknowledge(frame).expect("they were sent");
        assert_eq!(packer.to_write().as_ptr(), next, "frame {frame} moved a megabyte");
    }
    assert!(packer.kept() < 2 << 20, "nothing was taken");
    assert!(packer.memory_bytes() < 3 << 20, "{} bytes", packer.memory_bytes());
}

#[test]
fn a_frame_of_which_no_byte_was_written_was_not_begun() {
    let mut packer = Packer::default();
    fill(&mut packer, 3);
    let begun = |packer: &Packer| (1..=4).filter(|number| packer.is_touched(*number)).count();
    assert_eq!(begun(&packer), 0);
    packer.to_write();
    packer.wrote(1);
    assert_eq!(begun(&packer), 1, "the kernel took a byte of the first");
    // A new connection forgets what was written, not that it was.
    packer.resume(0).unwrap();
    assert_eq!(begun(&packer), 1);
    let bytes = packer.to_write().len();
    packer.wrote(bytes - 1);
    assert_eq!(begun(&packer), 3, "all but a byte of the closed ones");
    packer.to_write();
    packer.wrote(1);
    assert_eq!(begun(&packer), 3);
    drain(&mut packer);
    assert_eq!(begun(&packer), 4);
}

#[test]
fn a_session_begins_again_with_what_the_other_side_cannot_have() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut parts = 0;
    for _ in 0..100 {
        let mut packer = Packer::default();
        let mut count = fill(&mut packer, random.u64(0..6));
        let bytes = packer.to_write().to_vec();
        let written = random.usize(..=bytes.len());
        packer.wrote(written);
        let (mut begun, mut at) = (0, 0);
        while at < written {
            let body = u32::from_le_bytes(*bytes[at..].first_chunk().expect("a head"));
            (begun, at) = (begun + 1, at + HEAD_BYTES + body as usize);
        }
        if random.bool() {
            packer.took(random.u64(1..9), 0);
            packer.tell();
            packer.to_write();
        }
        let (before, open) = (packer.messages(), packer.put(&Record::Full(agent(u64::MAX))));
        let GivenUp { frames, messages } = packer.begin_again();
        assert_eq!(frames, begun, "only of these a byte was written");
        assert_eq!(packer.messages(), before - messages);
        assert!(!packer.is_touched(1));
        parts += u64::from(messages > 0 && messages < before);
        let last = fill(&mut packer, 0);
        assert_eq!(packer.put(&Record::Leaves), open - frames, "the same frame goes on");
        let (mut unpacker, mut expected) = (unpacker(), messages);
        for byte in drain(&mut packer).chunks(10_000) {
            let mut at = 0;
            while at < byte.len() {
                at += feed(&mut unpacker, &byte[at..]);
                while let Some(record) = unpacker.record().expect("its frames follow each other") {
                    match record {
                        Record::Send { target, payload, .. } if expected < count => {
                            assert_eq!(target, agent(expected));
                            assert!(payload.iter().all(|byte| *byte == expected as u8));
                            expected += 1;
                        }
                        Record::Full(_) => (count, expected) = (last, 0),
                        Record::Send { .. } => expected += 1,
                        record => assert_eq!(record, Record::Leaves),
                    }
                    unpacker.taken();
                }
            }
        }
        assert_eq!(expected, last, "nothing is missing");
        assert_eq!(unpacker.acknowledged(), 0, "of the other side's next session nothing came");
        let frames = unpacker.progress().frames;
        packer.acknowledge(frames).expect("all of it was written");
        assert!(packer.is_empty());
    }
    assert!(parts > 10, "{parts} sessions were written in part: this shows nothing");
}
