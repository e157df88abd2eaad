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
    ]
}

/// Everything that waits, as bytes.
fn drain(packer: &mut Packer) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !packer.is_empty() {
        let part = packer.to_write();
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
        sent.iter().for_each(|record| packer.put(&record.record()));
        let bytes = drain(&mut packer);
        let (mut unpacker, mut came, mut at) = (Unpacker::new(LIMIT), 0, 0);
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
        sent.iter().for_each(|record| packer.put(&record.record()));
        let mut bytes = drain(&mut packer);
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let (mut unpacker, mut came, mut at) = (Unpacker::new(LIMIT), 0, 0);
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
    let mut unpacker = Unpacker::new(LIMIT);
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
        let checksum = crc32fast::hash(&frame);
        frame.extend_from_slice(&checksum.to_le_bytes());
        frame.extend_from_slice(body);
        frame
    };
    let outcome = |frame: &[u8]| {
        let mut unpacker = Unpacker::new(LIMIT);
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
    let mut sent = 0;
    while sent < 64 << 20 {
        while packer.waiting() < 1 << 20 {
            packer.put(&Record::Reply { correlation: 0, payload: &noise });
        }
        let bytes = packer.to_write().len().div_ceil(2);
        packer.wrote(bytes);
        sent += bytes;
        assert!(packer.waiting() > 0, "it was empty: this shows nothing");
    }
    assert!(packer.memory_bytes() < 8 << 20, "{} bytes", packer.memory_bytes());
}
