//! Just enough of HTTP/2 and gRPC to put keys into etcd, many at a time on one connection.
//!
//! A call that fails is answered with headers alone, so an answer with a message is a success: what
//! the headers say need not be decoded, and nothing here knows their compression.

use crate::talk::Talker;
use std::collections::HashSet;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;
/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW: u8 = 8;
/// Flags of frames.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// What may be sent before the other side makes room, and what it may send here.
const WINDOW_BYTES: i64 = 65_535;
const OWN_WINDOW_BYTES: u32 = 1 << 30;

/// Puts keys with a window of calls.
pub struct Puts {
    /// Keys from here on.
    first: u32,
    total: u32,
    window: u32,
    value: Vec<u8>,
    next: u32,
    answered: u32,
    /// Bytes that the other side takes at the moment.
    room: i64,
    /// Calls that were answered with a message and have not ended.
    answers: HashSet<u32>,
}

impl Puts {
    /// So many keys with a value, of which so many are under way.
    pub fn new(first: u32, total: u32, window: u32, value: Vec<u8>) -> Self {
        let (next, answered, room) = (0, 0, WINDOW_BYTES);
        Self { first, total, window, value, next, answered, room, answers: HashSet::new() }
    }

    fn fill(&mut self, out: &mut Vec<u8>) {
        while self.next < self.total && self.next - self.answered < self.window {
            let call = call(self.first + self.next, &self.value);
            if self.room < call.len() as i64 {
                return;
            }
            self.room -= call.len() as i64;
            // Streams of a client have odd numbers.
            let stream = 2 * self.next + 1;
            frame(out, HEADERS, END_HEADERS, stream, &headers());
            frame(out, DATA, END_STREAM, stream, &call);
            self.next += 1;
        }
    }
}

impl Talker for Puts {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        // Each stream's window, too: setting 4.
        let mut setting = vec![0, 4];
        setting.extend_from_slice(&OWN_WINDOW_BYTES.to_be_bytes());
        frame(out, SETTINGS, 0, 0, &setting);
        frame(out, WINDOW, 0, 0, &OWN_WINDOW_BYTES.to_be_bytes());
        self.fill(out);
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, String> {
        let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match kind {
            DATA if !body.is_empty() => drop(self.answers.insert(stream)),
            SETTINGS if flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(out, PING, ACK, 0, body),
            WINDOW if stream == 0 => {
                let bytes = body.try_into().map_err(|_| "a window has 4 bytes")?;
                self.room += i64::from(u32::from_be_bytes(bytes));
            }
            RESET => return Err("a call was broken off".into()),
            GO_AWAY => return Err(format!("go away: {}", String::from_utf8_lossy(body))),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            if !self.answers.remove(&stream) {
                return Err("a put was refused".into());
            }
            self.answered += 1;
        }
        self.fill(out);
        Ok(Some(FRAME_HEAD_BYTES + length))
    }

    fn is_done(&self) -> bool {
        self.answered == self.total
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
}

/// The headers of a call, none of them compressed but by the table that everybody has.
fn headers() -> Vec<u8> {
    // :method POST and :scheme http are entries 3 and 6 of that table.
    let mut headers = vec![0x83, 0x86];
    let mut text = |name: &[u8], value: &str| {
        headers.extend_from_slice(name);
        headers.push(value.len() as u8);
        headers.extend_from_slice(value.as_bytes());
    };
    // Names of the table: :path is 4, :authority 1, content-type 31.
    text(&[4], "/etcdserverpb.KV/Put");
    text(&[1], "etcd");
    text(&[0x0f, 31 - 15], "application/grpc");
    text(b"\0\x02te", "trailers");
    headers
}

/// The message of a call: not compressed, its length, field 1 is the key and field 2 the value.
fn call(key: u32, value: &[u8]) -> Vec<u8> {
    let key = format!("{key:08x}");
    let mut message = vec![0x0a, key.len() as u8];
    message.extend_from_slice(key.as_bytes());
    // A length of up to 14 bits.
    message.extend_from_slice(&[0x12, value.len() as u8 & 0x7f | 0x80, (value.len() >> 7) as u8]);
    message.extend_from_slice(value);
    let mut call = vec![0];
    call.extend_from_slice(&(message.len() as u32).to_be_bytes());
    call.extend_from_slice(&message);
    call
}
