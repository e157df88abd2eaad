//! The messages of MessagePack-RPC: taken apart in place, put together at the end of a buffer.

use crate::{
    node::gateway::{Challenge, Proof},
    server::{
        memory,
        reply::{self, Reply},
    },
    wire::{
        api::Error,
        id::TaskId,
        msgpack::{Reader, write},
    },
};

/// The specification's number of a request, a response and a notification.
const REQUEST: u64 = 0;
const RESPONSE: u64 = 1;
const NOTIFICATION: u64 = 2;

/// A call that a client makes.
#[derive(Debug, PartialEq)]
pub struct Call<'a> {
    /// What its answer repeats; none for a notification, which has no answer.
    pub msgid: Option<u32>,
    /// The method.
    pub method: &'a str,
    /// Its parameters, as the client sent them.
    pub params: &'a [u8],
}

impl<'a> Call<'a> {
    /// Takes apart a frame that was scanned, so that what follows the method is one value; none
    /// when it is no request and no notification.
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(frame);
        let len = reader.array().ok()?;
        let msgid = match (reader.uint().ok()?, len) {
            (REQUEST, 4) => Some(u32::try_from(reader.uint().ok()?).ok()?),
            (NOTIFICATION, 3) => None,
            _ => return None,
        };
        Some(Self { msgid, method: reader.str().ok()?, params: reader.rest() })
    }

    /// The one map of the parameters: sent in an array of one, bare, or as an empty array.
    pub fn fields(&self) -> Result<&'a [u8], Error> {
        const EMPTY_MAP: &[u8] = &[0x80];
        let mut reader = Reader::new(self.params);
        match reader.array() {
            Err(_) => Ok(self.params),
            Ok(0) => Ok(EMPTY_MAP),
            Ok(1) => Ok(reader.rest()),
            Ok(_) => Err(Error::Invalid("params must be an array with one map".into())),
        }
    }
}

/// The msgid of a request that arrived in part, when it arrived.
pub fn msgid_of_part(part: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(part);
    let is_request = reader.array() == Ok(4) && reader.uint() == Ok(REQUEST);
    if is_request { reader.uint().ok().and_then(|msgid| msgid.try_into().ok()) } else { None }
}

/// Appends the answer of a call.
pub fn answer(out: &mut Vec<u8>, msgid: u32, outcome: &Result<Reply, Error>) {
    match outcome {
        Ok(reply) => {
            begin_answer(out, msgid);
            reply.write(out);
        }
        Err(error) => refuse(out, Some(msgid), error),
    }
}

/// Appends what is in front of an answer that was written already.
pub fn begin_answer(out: &mut Vec<u8>, msgid: u32) {
    head(out, Some(msgid));
    write::nil(out);
}

/// Appends the answer of one submission among several.
pub fn submitted(out: &mut Vec<u8>, msgid: u32, id: TaskId) {
    begin_answer(out, msgid);
    reply::submitted(out, id);
}

/// Appends the answer of one item that was stored among several.
pub fn stored(out: &mut Vec<u8>, msgid: u32, key: &str, replaced: bool) {
    begin_answer(out, msgid);
    memory::stored(out, key, replaced);
}

/// Appends the answer of something that has none but that it was done.
pub fn done(out: &mut Vec<u8>, msgid: u32) {
    begin_answer(out, msgid);
    write::map(out, 0);
}

/// Appends what a node that dials is to prove itself over, and the proof of this one.
pub fn challenged(out: &mut Vec<u8>, msgid: u32, challenge: &Challenge, proof: &Proof) {
    begin_answer(out, msgid);
    write::map(out, 2);
    write::str(out, "challenge");
    write::bin(out, &challenge.0);
    write::str(out, "proof");
    write::bin(out, proof);
}

/// Appends an error; without a msgid it says what was wrong with the connection's bytes.
pub fn refuse(out: &mut Vec<u8>, msgid: Option<u32>, error: &Error) {
    head(out, msgid);
    reply::error(out, error);
    write::nil(out);
}

fn head(out: &mut Vec<u8>, msgid: Option<u32>) {
    write::array(out, 4);
    write::uint(out, RESPONSE);
    match msgid {
        Some(msgid) => write::uint(out, msgid.into()),
        None => write::nil(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_notifications_are_told_apart() {
        let request = [0x94, 0, 7, 0xa1, b'm', 0x91, 0x80];
        let call = Call::parse(&request).unwrap();
        assert_eq!((call.msgid, call.method), (Some(7), "m"));
        assert_eq!(call.fields(), Ok(&[0x80][..]));
        let notification = [0x93, 2, 0xa1, b'm', 0x80];
        let call = Call::parse(&notification).unwrap();
        assert_eq!((call.msgid, call.fields()), (None, Ok(&[0x80][..])));
    }

    #[test]
    fn other_values_are_no_calls() {
        for frame in [&[0x01][..], &[0x94, 1, 1, 0xc0, 0xc0], &[0x93, 0, 1, 0xa1], &[0x90]] {
            assert_eq!(Call::parse(frame), None, "{frame:?}");
        }
        let large_msgid = [0x94, 0, 0xcf, 1, 0, 0, 0, 0, 0, 0, 0, 0xa1, b'm', 0x90];
        assert_eq!(Call::parse(&large_msgid), None);
    }

    #[test]
    fn the_msgid_of_a_part_is_known_once_it_arrived() {
        assert_eq!(msgid_of_part(&[0x94, 0, 0xcd, 1, 2, 0xdb]), Some(258));
        assert_eq!(msgid_of_part(&[0x94, 0, 0xcd, 1]), None);
        assert_eq!(msgid_of_part(&[0x93, 2, 0xa1]), None);
    }
}
