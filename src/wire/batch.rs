//! What travels over a ring: one buffer with up to a hundred messages, read in place.
//!
//! Layout, all offsets known to rkyv: the root, then the envelopes, then the payloads.
//!
//! ```text
//! | root | envelope 0 | envelope 1 | … room for the limit … | payload 0 | payload 1 | … |
//! ```
//!
//! Invariants worth naming:
//! - Messages come out in the order they were put in.
//! - A [`Batch`] was written by a [`BatchBuilder`] of this process and nothing else, which is what
//!   makes reading it without validation sound.
//! - Payloads start at multiples of 16 bytes, so archived values inside can be read in place.
//! - Payloads above the mesh's threshold travel beside the batch by reference count.

#![allow(unsafe_code)]

use rkyv::{
    Archive, Place, Portable, Serialize,
    api::high::{HighSerializer, HighValidator, to_bytes_in},
    bytecheck::CheckBytes,
    munge::munge,
    rancor,
    ser::allocator::ArenaHandle,
    util::AlignedVec,
    vec::{ArchivedVec, VecResolver},
};
use std::{any::Any, sync::Arc};

/// What an envelope carries and what the receiver does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A message to one agent.
    Send,
    /// A message that waits for an answer.
    Call,
    /// The answer to a call.
    Reply,
    /// Why there is no answer to a call; the payload is an archived error.
    Refusal,
    /// A message to every agent of a type on the receiving core.
    Broadcast,
    /// A question to a core; the payload is an archived request.
    Request,
    /// What a core answers.
    Response,
    /// Something every core should know; the payload is an archived notice.
    Notice,
    /// A task for the receiving shard.
    Submit,
    /// How an attempt of a task of the receiving shard ended.
    Ending,
    /// What became of a submission or of an attempt's end.
    TaskEvent,
}

impl Kind {
    /// All kinds, each at the place of its number.
    const ALL: [Self; 11] = [
        Self::Send,
        Self::Call,
        Self::Reply,
        Self::Refusal,
        Self::Broadcast,
        Self::Request,
        Self::Response,
        Self::Notice,
        Self::Submit,
        Self::Ending,
        Self::TaskEvent,
    ];
}

const _: () = {
    let mut place = 0;
    while place < Kind::ALL.len() {
        assert!(Kind::ALL[place] as usize == place);
        place += 1;
    }
};

/// An envelope's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The receiving agent's id, or what the kind says.
    pub target: u64,
    /// The sending agent's id, or the asking core.
    pub source: u64,
    /// What an answer will carry, so that the asker knows what it answers.
    pub correlation: u64,
    /// What it is.
    pub kind: Kind,
}

/// One message of a batch as it is archived; never built in this form.
#[derive(Archive)]
#[allow(dead_code, reason = "only its archived form exists")]
struct Envelope {
    target: u64,
    source: u64,
    correlation: u64,
    payload: Vec<u8>,
    /// Place in the batch's attachments plus one; 0 for none.
    attachment: u32,
    /// Place in [`Kind::ALL`].
    kind: u8,
}

/// The archived batch.
#[derive(Archive)]
#[allow(dead_code, reason = "only its archived form exists")]
struct Packet {
    messages: Vec<Envelope>,
    /// The sender's load when the batch left, in thousandths.
    load: u32,
}

const ROOT_BYTES: usize =
    size_of::<ArchivedPacket>().next_multiple_of(align_of::<ArchivedEnvelope>());
const ENVELOPE_BYTES: usize = size_of::<ArchivedEnvelope>();
const PAYLOAD_ALIGNMENT: usize = 16;
const _: () = assert!(align_of::<ArchivedEnvelope>() <= PAYLOAD_ALIGNMENT);

/// A buffer that starts at a cache line.
type Bytes = AlignedVec<64>;

/// What travels beside a batch by reference count.
#[derive(Clone)]
pub enum Attachment {
    /// A large payload.
    Payload(Arc<[u8]>),
    /// An immutable value that its publisher shares.
    Snapshot(Arc<dyn Any + Send + Sync>),
}

/// A batch on its way, or a used one on its way back.
pub struct Batch {
    bytes: Bytes,
    attachments: Vec<Attachment>,
}

/// One message of a batch, borrowed from it.
#[derive(Clone, Copy)]
pub struct Parcel<'a> {
    /// The fixed part.
    pub header: Header,
    /// The message's bytes; empty when it carries nothing but a snapshot.
    pub payload: &'a [u8],
    /// What travels beside it.
    pub attachment: Option<&'a Attachment>,
}

impl<'a> Parcel<'a> {
    /// The payload as the archived value that the kind promises.
    ///
    /// # Panics
    /// When it is not: both ends are this program, so the sender has a defect.
    #[inline]
    pub fn open<T>(&self) -> &'a T
    where
        T: Portable + for<'v> CheckBytes<HighValidator<'v, rancor::Failure>>,
    {
        rkyv::access::<T, rancor::Failure>(self.payload).expect("a payload of the kind's type")
    }
}

impl Batch {
    fn packet(&self) -> &ArchivedPacket {
        // SAFETY: `bytes` was sealed by `BatchBuilder::seal`, which wrote the root at 0 and every
        // envelope and payload that it points to, in a buffer aligned for them.
        unsafe { rkyv::api::access_pos_unchecked::<ArchivedPacket>(&self.bytes, 0) }
    }

    /// Messages in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.packet().messages.len()
    }

    /// Whether it carries nothing; a sealed batch always carries something.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sender's load when it left, in thousandths.
    #[inline]
    pub fn load(&self) -> u32 {
        self.packet().load.to_native()
    }

    /// The message at `index`, which is below [`Batch::len`].
    #[inline]
    pub fn parcel(&self, index: usize) -> Parcel<'_> {
        let envelope = &self.packet().messages[index];
        let attachment = match envelope.attachment.to_native() {
            0 => None,
            place => self.attachments.get(place as usize - 1),
        };
        let payload = match attachment {
            Some(Attachment::Payload(payload)) => payload,
            _ => envelope.payload.as_slice(),
        };
        let header = Header {
            target: envelope.target.to_native(),
            source: envelope.source.to_native(),
            correlation: envelope.correlation.to_native(),
            kind: Kind::ALL[envelope.kind as usize],
        };
        Parcel { header, payload, attachment }
    }

    /// Lets go of what it carried, so that only the buffer goes back to the sender.
    #[inline]
    pub fn release(&mut self) {
        self.attachments.clear();
    }
}

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages.
    pub messages: usize,
    /// Bytes of payload.
    pub bytes: usize,
    /// Payloads of at least this many bytes travel beside it.
    pub shared_payload_bytes: usize,
}

/// What may be archived into a batch.
pub trait Payload:
    for<'a> Serialize<HighSerializer<Bytes, ArenaHandle<'a>, rancor::Error>>
{
}

impl<T> Payload for T where
    T: for<'a> Serialize<HighSerializer<Bytes, ArenaHandle<'a>, rancor::Error>>
{
}

/// What a message is made of: bytes that are copied in, a [`Value`], an [`Attachment`], or a value and a snapshot
/// ([`Both`]).
pub trait Content {
    /// Puts a message made of it in; the batch must not be full.
    fn put(self, batch: &mut BatchBuilder, header: Header);
}

/// A value that is archived into the batch.
pub struct Value<'a, V>(pub &'a V);

impl Content for &[u8] {
    #[inline(always)]
    fn put(self, batch: &mut BatchBuilder, header: Header) {
        batch.push(header, self);
    }
}

impl<V: Payload> Content for Value<'_, V> {
    #[inline(always)]
    fn put(self, batch: &mut BatchBuilder, header: Header) {
        batch.push_value(header, self.0);
    }
}

/// A value that is archived into the batch, and a snapshot that travels beside it, of so many bytes.
pub struct Both<'a, V>(pub &'a V, pub Attachment, pub usize);

impl<V: Payload> Content for Both<'_, V> {
    #[inline(always)]
    fn put(self, batch: &mut BatchBuilder, header: Header) {
        batch.push_both(header, self.0, Some((self.1, self.2)));
    }
}

impl Content for Attachment {
    fn put(self, batch: &mut BatchBuilder, header: Header) {
        batch.push_attached(header, self);
    }
}

/// A batch that is being filled.
pub struct BatchBuilder {
    bytes: Bytes,
    attachments: Vec<Attachment>,
    count: usize,
    /// Bytes of values' snapshots.
    bytes_beside: usize,
    limits: Limits,
    buffers_made: u64,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(limits: Limits) -> Self {
        let mut builder = Self {
            bytes: Bytes::new(),
            attachments: Vec::new(),
            count: 0,
            bytes_beside: 0,
            limits,
            buffers_made: 0,
        };
        builder.restart(None);
        builder
    }

    /// Bytes before the first payload.
    fn front(&self) -> usize {
        (ROOT_BYTES + self.limits.messages * ENVELOPE_BYTES).next_multiple_of(PAYLOAD_ALIGNMENT)
    }

    /// Begins anew, in a used buffer when there is one.
    fn restart(&mut self, used: Option<Batch>) {
        (self.bytes, self.attachments) = match used {
            Some(batch) => (batch.bytes, batch.attachments),
            None => (Bytes::new(), Vec::new()),
        };
        self.attachments.clear();
        (self.count, self.bytes_beside) = (0, 0);
        // A buffer that one large message made large is not kept.
        if self.bytes.capacity() > 4 * (self.front() + self.limits.bytes) {
            self.bytes = Bytes::new();
        }
        self.buffers_made += u64::from(self.bytes.capacity() == 0);
        // A used buffer is longer than this and keeps its bytes; a new one is filled with zeros,
        // so that the envelopes' room is initialised memory in both.
        self.bytes.resize(self.front(), 0);
    }

    /// Buffers that were allocated because there was no used one.
    pub fn buffers_made(&self) -> u64 {
        self.buffers_made
    }

    /// Messages in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is nothing in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether it should leave before anything else is put in.
    #[inline]
    pub fn is_full(&self) -> bool {
        let bytes = self.bytes.len() + self.bytes_beside;
        self.count >= self.limits.messages || bytes >= self.front() + self.limits.bytes
    }

    /// Puts a message of plain bytes in; the batch must not be full.
    #[inline]
    pub fn push(&mut self, header: Header, payload: &[u8]) {
        if payload.len() >= self.limits.shared_payload_bytes {
            return self.push_attached(header, Attachment::Payload(payload.into()));
        }
        let start = self.align();
        self.bytes.extend_from_slice(payload);
        self.write_envelope(header, start, payload.len(), 0);
    }

    /// Puts a message in whose payload is archived in place; the batch must not be full.
    pub fn push_value(&mut self, header: Header, value: &impl Payload) {
        self.push_both(header, value, None);
    }

    /// The same with a snapshot beside the batch, of so many bytes, which count as if they were in it.
    pub fn push_both(
        &mut self,
        header: Header,
        value: &impl Payload,
        beside: Option<(Attachment, usize)>,
    ) {
        let attachment = beside.map_or(0, |(beside, bytes)| {
            assert!(matches!(beside, Attachment::Snapshot(_)), "the payload is the value");
            self.bytes_beside += bytes;
            self.attachments.push(beside);
            self.attachments.len() as u32
        });
        let start = self.align();
        // Writing to memory that grows cannot fail, and no payload type of ours has an error.
        let written: Result<Bytes, rancor::Error> =
            to_bytes_in(value, std::mem::take(&mut self.bytes));
        self.bytes = written.expect("archiving into memory");
        let length = self.bytes.len() - start;
        self.write_envelope(header, start, length, attachment);
    }

    /// Puts a message in that travels beside the batch; the batch must not be full.
    pub fn push_attached(&mut self, header: Header, attachment: Attachment) {
        self.attachments.push(attachment);
        let start = self.bytes.len();
        self.write_envelope(header, start, 0, self.attachments.len() as u32);
    }

    #[inline]
    fn align(&mut self) -> usize {
        let start = self.bytes.len().next_multiple_of(PAYLOAD_ALIGNMENT);
        self.bytes.resize(start, 0);
        start
    }

    #[inline]
    fn write_envelope(&mut self, header: Header, start: usize, length: usize, attachment: u32) {
        assert!(self.count < self.limits.messages, "a full batch must leave first");
        let position = ROOT_BYTES + self.count * ENVELOPE_BYTES;
        // SAFETY: `position` lies in the front region, which `restart` made and the assertion
        // keeps us in; it is a multiple of the envelope's size after the root, both aligned.
        let out: Place<ArchivedEnvelope> =
            unsafe { Place::new_unchecked(position, self.bytes.as_mut_ptr().add(position).cast()) };
        munge!(let ArchivedEnvelope {
            target, source, correlation, payload, attachment: beside, kind
        } = out);
        header.target.resolve((), target);
        header.source.resolve((), source);
        header.correlation.resolve((), correlation);
        ArchivedVec::resolve_from_len(length, VecResolver::from_pos(start), payload);
        attachment.resolve((), beside);
        (header.kind as u8).resolve((), kind);
        self.count += 1;
    }

    /// Takes what was put in as a batch and begins anew, in `used` when there is one.
    #[inline]
    pub fn seal(&mut self, load: u32, used: Option<Batch>) -> Batch {
        // SAFETY: the root's room is the first of the front region, aligned to the buffer.
        let out: Place<ArchivedPacket> =
            unsafe { Place::new_unchecked(0, self.bytes.as_mut_ptr().cast()) };
        munge!(let ArchivedPacket { messages, load: out_load } = out);
        ArchivedVec::resolve_from_len(self.count, VecResolver::from_pos(ROOT_BYTES), messages);
        load.resolve((), out_load);
        let sealed = Batch {
            bytes: std::mem::take(&mut self.bytes),
            attachments: std::mem::take(&mut self.attachments),
        };
        self.restart(used);
        sealed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { messages: 4, bytes: 256, shared_payload_bytes: 128 };

    fn header(correlation: u64) -> Header {
        Header { target: 1, source: 2, correlation, kind: Kind::Call }
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_through_reused_buffers(
            rounds in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..160), 1..=4), 1..5),
        ) {
            let mut builder = BatchBuilder::new(LIMITS);
            let mut used = None;
            for (round, payloads) in rounds.iter().enumerate() {
                let mut expected = Vec::new();
                for (place, payload) in payloads.iter().enumerate() {
                    if builder.is_full() {
                        break;
                    }
                    builder.push(header(place as u64), payload);
                    expected.push(payload);
                }
                let mut batch = builder.seal(round as u32, used.take());
                prop_assert_eq!(batch.len(), expected.len());
                prop_assert_eq!(batch.load(), round as u32);
                for (place, payload) in expected.into_iter().enumerate() {
                    let parcel = batch.parcel(place);
                    prop_assert_eq!(parcel.header, header(place as u64));
                    prop_assert_eq!(parcel.payload, payload.as_slice());
                    prop_assert_eq!(parcel.attachment.is_some(), payload.len() >= 128);
                }
                batch.release();
                used = Some(batch);
            }
        }
    }

    #[test]
    fn a_value_and_a_snapshot_come_out_together() {
        let mut builder = BatchBuilder::new(LIMITS);
        builder.push_value(header(0), &"before".to_owned());
        let snapshot = Attachment::Snapshot(Arc::new(7_u32));
        builder.push_both(header(1), &"beside it".to_owned(), Some((snapshot, 4)));
        let batch = builder.seal(0, None);
        let parcels = [batch.parcel(0), batch.parcel(1)];
        let values = parcels.map(|it| it.open::<rkyv::Archived<String>>().as_str());
        assert_eq!(values, ["before", "beside it"]);
        assert!(parcels[0].attachment.is_none());
        let Some(Attachment::Snapshot(snapshot)) = parcels[1].attachment else {
            panic!("the snapshot is gone")
        };
        assert_eq!(snapshot.downcast_ref(), Some(&7_u32));
    }

    #[test]
    fn a_batch_is_full_at_either_limit() {
        let mut builder = BatchBuilder::new(LIMITS);
        for place in 0..LIMITS.messages {
            assert!(!builder.is_full());
            builder.push(header(place as u64), b"x");
        }
        assert!(builder.is_full());
        builder.seal(0, None);
        for _ in 0..3 {
            assert!(!builder.is_full());
            builder.push(header(0), &[7; 100]);
        }
        assert!(builder.is_full(), "three payloads of 100 bytes pass the limit of 256");
        for _ in 0..2 {
            builder.seal(0, None);
            for _ in 0..2 {
                assert!(!builder.is_full(), "what was beside the batch before left with it");
                let snapshot = Attachment::Snapshot(Arc::new(()));
                builder.push_both(header(0), &7_u32, Some((snapshot, 128)));
            }
            assert!(builder.is_full(), "so do two snapshots of 128 bytes");
        }
    }

    #[test]
    fn archived_values_are_read_in_place() {
        let mut builder = BatchBuilder::new(LIMITS);
        builder.push(header(0), b"odd");
        builder.push_value(header(1), &vec![5u64, 6, 7]);
        let batch = builder.seal(0, None);
        let payload = batch.parcel(1).payload;
        let value = rkyv::access::<rkyv::Archived<Vec<u64>>, rancor::Error>(payload).unwrap();
        assert_eq!(value.as_slice(), [5, 6, 7]);
    }

    #[test]
    fn large_payloads_and_snapshots_are_shared_not_copied() {
        let mut builder = BatchBuilder::new(LIMITS);
        let large: Arc<[u8]> = vec![9; 1000].into();
        builder.push_attached(header(0), Attachment::Payload(large.clone()));
        builder.push_attached(header(1), Attachment::Snapshot(Arc::new(42u32)));
        let mut batch = builder.seal(0, None);
        assert_eq!(batch.parcel(0).payload.as_ptr(), large.as_ptr());
        let Some(Attachment::Snapshot(snapshot)) = batch.parcel(1).attachment else { panic!() };
        assert_eq!(snapshot.downcast_ref::<u32>(), Some(&42));
        assert_eq!(Arc::strong_count(&large), 2);
        batch.release();
        assert_eq!(Arc::strong_count(&large), 1);
    }
}
