//! The messages of MessagePack-RPC from the client's side.

use super::View;
use crate::wire::msgpack::{Reader, write};

/// The specification's number of a request and of a response.
const REQUEST: u64 = 0;
const RESPONSE: u64 = 1;

/// Appends a request; `params` appends its one map.
#[inline]
pub(crate) fn request(
    out: &mut Vec<u8>,
    msgid: u32,
    method: &str,
    params: impl FnOnce(&mut Vec<u8>),
) {
    write::array(out, 4);
    write::uint(out, REQUEST);
    write::uint(out, msgid.into());
    write::str(out, method);
    write::array(out, 1);
    params(out);
}

/// What a node answered to one request; it borrows from the connection's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The request; `None` when the node complains of the connection's bytes as a whole.
    pub msgid: Option<u32>,
    /// The result, or the error map: see [`Refusal::of`](super::Refusal::of).
    pub outcome: Result<View<'a>, View<'a>>,
}

impl<'a> Answer<'a> {
    /// Takes apart a frame that was scanned; `None` when it is no answer.
    #[inline]
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(frame);
        if reader.array() != Ok(4) || reader.uint() != Ok(RESPONSE) {
            return None;
        }
        let msgid = match reader.nil() {
            true => None,
            false => Some(reader.uint().ok()?.try_into().ok()?),
        };
        let error = View::new(reader.raw().ok()?);
        let result = View::new(reader.raw().ok()?);
        Some(Self { msgid, outcome: if error.is_nil() { Ok(result) } else { Err(error) } })
    }
}
