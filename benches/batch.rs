//! What crosses a core and what comes in at a socket: batches, MessagePack frames and JSON.
//!
//! - `batch/bytes_64`: 100 messages of 64 bytes are put into a batch, it is sealed, every message
//!   is read, and the used buffer comes back for the next one, as over a ring of the mesh.
//! - `batch/value`: the same with an archived value in each message, the news of a task with a
//!   result of 64 bytes; it is validated and read in place.
//! - `batch/large_shared`: the same with 16 KiB in each message that the sender holds by reference
//!   count already; `batch/large_from_bytes`: that the sender holds as plain bytes, which are
//!   copied once to be shared.
//! - `frame/…`: a `task.submit` with a payload of 256 bytes. `scan` finds the end of the frame in a
//!   connection's buffer, `read` takes it apart in place.
//! - `json/…`: the parameters of a submission of that size as JSON. `to_msgpack` copies the text
//!   into a used buffer (the parser overwrites it), parses and transcodes it; `from_msgpack` writes
//!   it.
//!
//! `cargo bench --bench batch`, or `cargo bench --bench batch -- --quick frame` for a first look.
//!
//! The middle one of the three times is the estimate for one iteration: 100 messages in the `batch`
//! groups, one frame or text in the others. `thrpt` counts messages, frames and texts.

use coreflow::wire::{
    batch::{Attachment, BatchBuilder, Content, Header, Kind, Limits, Value},
    json::{self, Document},
    letter::{ArchivedTaskNews, NewsKind, TaskNews},
    msgpack::{Malformed, Reader, Scan, Scanner, write},
};
use criterion::{Criterion, Throughput};
use std::{hint::black_box, sync::Arc, time::Duration};

/// Messages of a full batch, bytes of one, and from where a payload is shared: the default tuning.
const LIMITS: Limits = Limits { messages: 100, bytes: 65_536, shared_payload_bytes: 4_096 };
const LARGE_BYTES: usize = 16_384;
const FRAME_BYTES_MAX: usize = 1 << 20;

/// Fills, seals and reads batches whose messages `content` makes and `read` reads, over and over
/// in the same two buffers.
fn bench_batch<C: Content>(
    criterion: &mut Criterion,
    name: &str,
    mut content: impl FnMut() -> C,
    read: impl Fn(coreflow::wire::batch::Parcel<'_>) -> u64,
) {
    let mut builder = BatchBuilder::new(LIMITS);
    let mut used = None;
    let mut turn = || {
        for correlation in 0..LIMITS.messages as u64 {
            let header = Header { target: 1, source: 2, correlation, kind: Kind::Send };
            content().put(&mut builder, header);
        }
        let mut batch = builder.seal(0, used.take());
        let parcels = (0..batch.len()).map(|place| batch.parcel(place));
        let sum: u64 = parcels.map(|parcel| parcel.header.correlation + read(parcel)).sum();
        batch.release();
        used = Some(batch);
        sum
    };
    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Elements(LIMITS.messages as u64));
    group.bench_function(name, |bencher| bencher.iter(&mut turn));
}

/// The first and the last byte: a payload that nobody touched would cost nothing to read.
fn ends(payload: &[u8]) -> u64 {
    payload.first().zip(payload.last()).map_or(0, |(first, last)| u64::from(first ^ last))
}

fn bench_batches(criterion: &mut Criterion) {
    let small = [7_u8; 64];
    bench_batch(criterion, "bytes_64", || black_box(&small[..]), |parcel| ends(parcel.payload));
    let news = TaskNews {
        random: 1 << 77,
        partition: 0,
        place: 0,
        what: NewsKind::Done,
        attempts: 1,
        retry_after_ms: 0,
        body: &small,
    };
    bench_batch(
        criterion,
        "value",
        || Value(black_box(&news)),
        |parcel| {
            let news = parcel.open::<ArchivedTaskNews<'_>>();
            u64::from(news.attempts.to_native()) + ends(&news.body)
        },
    );
    let large: Arc<[u8]> = vec![7; LARGE_BYTES].into();
    bench_batch(
        criterion,
        "large_shared",
        || Attachment::Payload(black_box(&large).clone()),
        |parcel| ends(parcel.payload),
    );
    bench_batch(
        criterion,
        "large_from_bytes",
        || black_box(&large[..]),
        |parcel| ends(parcel.payload),
    );
}

/// A MessagePack-RPC request as a client sends it.
fn submit_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    write::array(&mut frame, 4);
    write::uint(&mut frame, 0);
    write::uint(&mut frame, 70_000);
    write::str(&mut frame, "task.submit");
    write::array(&mut frame, 1);
    write::map(&mut frame, 4);
    write::str(&mut frame, "type");
    write::str(&mut frame, "sha256");
    write::str(&mut frame, "payload");
    write::bin(&mut frame, &[7; 256]);
    write::str(&mut frame, "priority");
    write::str(&mut frame, "high");
    write::str(&mut frame, "timeout_ms");
    write::uint(&mut frame, 30_000);
    frame
}

/// Takes a request apart down to the fields of its one parameter map; gives the payload's size.
fn read_frame(frame: &[u8]) -> Result<usize, Malformed> {
    let mut reader = Reader::new(frame);
    reader.array()?;
    black_box((reader.uint()?, reader.uint()?, reader.str()?));
    reader.array()?;
    let mut payload_bytes = 0;
    for _ in 0..reader.map()? {
        match reader.str()? {
            "payload" => payload_bytes = reader.raw()?.len(),
            "timeout_ms" => _ = black_box(reader.uint()?),
            _ => _ = black_box(reader.str()?),
        }
    }
    Ok(payload_bytes)
}

fn bench_frame(criterion: &mut Criterion) {
    let frame = submit_frame();
    let mut scanner = Scanner::new(FRAME_BYTES_MAX);
    assert_eq!(scanner.scan(&frame), Scan::Complete(frame.len()));
    assert_eq!(read_frame(&frame), Ok(3 + 256), "the payload is its head and its bytes");
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Elements(1));
    group.bench_function("scan", |bencher| bencher.iter(|| scanner.scan(black_box(&frame))));
    group.bench_function("read", |bencher| bencher.iter(|| read_frame(black_box(&frame))));
}

/// The parameters of a submission as a client writes them, with a text of 256 characters.
fn submit_text() -> String {
    let text = "seven ".repeat(42) + "end.";
    let payload = format!(r#"{{"text":"{text}","weights":[0.5,-3,70000]}}"#);
    format!(r#"{{"type":"sha256","payload":{payload},"priority":"high","timeout_ms":30000}}"#)
}

/// Parses `text`, which is overwritten, and puts it into `packed` as MessagePack.
fn transcode(text: &mut [u8], packed: &mut Vec<u8>) {
    let document = Document::parse(text, FRAME_BYTES_MAX).expect("the text is JSON");
    packed.clear();
    json::to_msgpack(document.root(), packed);
}

fn bench_json(criterion: &mut Criterion) {
    let text = submit_text();
    let (mut buffer, mut packed, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let mut group = criterion.benchmark_group("json");
    group.throughput(Throughput::Elements(1));
    transcode(&mut text.clone().into_bytes(), &mut packed);
    json::from_msgpack(&packed, &mut back).expect("it was written as MessagePack");
    assert_eq!(back, text.as_bytes(), "the text comes back");
    group.bench_function("from_msgpack", |bencher| {
        bencher.iter(|| {
            back.clear();
            json::from_msgpack(black_box(&packed), &mut back)
        });
    });
    group.bench_function("to_msgpack", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            buffer.extend_from_slice(black_box(text.as_bytes()));
            transcode(&mut buffer, &mut packed);
            packed.len()
        });
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    bench_batches(&mut criterion);
    bench_frame(&mut criterion);
    bench_json(&mut criterion);
    criterion.final_summary();
}
