//! The body of an answer: pieces that are written one after the other.
//!
//! hyper copies what it is given into one buffer before it writes, so it is never given much at once.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

/// Bytes that hyper is given at once.
const AT_ONCE_MAX: usize = 32 << 10;

/// What is left to be written.
#[derive(Debug, Default)]
pub struct Pieces {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl<P: Into<Bytes>> From<Vec<P>> for Pieces {
    fn from(pieces: Vec<P>) -> Self {
        let pieces: VecDeque<Bytes> = pieces.into_iter().map(Into::into).collect();
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces, left }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while let Some(first) = self.pieces.front_mut() {
            let piece = first.split_to(first.len().min(AT_ONCE_MAX));
            if first.is_empty() {
                self.pieces.pop_front();
            }
            if !piece.is_empty() {
                self.left -= piece.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;
    use http_body_util::BodyExt;

    #[test]
    fn a_body_is_given_in_small_parts_and_whole() {
        for lens in [&[][..], &[0], &[1, 0, 2], &[3 * AT_ONCE_MAX + 5, 7, AT_ONCE_MAX]] {
            let piece = |len: &usize| (0..*len).map(|at| (at % 253) as u8).collect::<Vec<u8>>();
            let pieces: Vec<Vec<u8>> = lens.iter().map(piece).collect();
            let (mut body, mut given) = (Pieces::from(pieces.clone()), Vec::new());
            assert_eq!(body.size_hint().exact(), Some(pieces.concat().len() as u64));
            while let Some(frame) = block_on(body.frame()) {
                let data = frame.unwrap().into_data().unwrap();
                assert!(!data.is_empty() && data.len() <= AT_ONCE_MAX);
                given.extend_from_slice(&data);
                assert_eq!(
                    body.size_hint().exact(),
                    Some((pieces.concat().len() - given.len()) as u64)
                );
            }
            assert!(body.is_end_stream() && given == pieces.concat());
        }
    }
}
