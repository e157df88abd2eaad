//! One connection that keeps many requests under way.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// Read at once.
const PIECE_BYTES: usize = 256 << 10;

/// One side of a protocol.
pub trait Talker: Send {
    /// The first requests.
    fn begin(&mut self, out: &mut Vec<u8>);
    /// Takes one whole answer from the front of `bytes`, appends what follows from it, and tells
    /// how long the answer was; `None` when it is not whole yet.
    ///
    /// # Errors
    /// What the server said when it refused.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, String>;
    /// Whether everything was answered.
    fn is_done(&self) -> bool;
}

/// Connects without waiting for writes to be joined.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    Ok(stream)
}

/// Talks until everything was answered.
pub fn talk(mut stream: TcpStream, mut talker: impl Talker) -> io::Result<()> {
    let (mut out, mut received) = (Vec::new(), vec![0; 2 * PIECE_BYTES]);
    let (mut begin, mut end) = (0, 0);
    talker.begin(&mut out);
    while !talker.is_done() {
        stream.write_all(&out)?;
        out.clear();
        if begin > 0 {
            received.copy_within(begin..end, 0);
            (begin, end) = (0, end - begin);
        }
        if received.len() - end < PIECE_BYTES {
            received.resize(received.len() * 2, 0);
        }
        end += match stream.read(&mut received[end..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => length,
        };
        while let Some(length) =
            talker.take(&received[begin..end], &mut out).map_err(io::Error::other)?
        {
            begin += length;
        }
    }
    Ok(())
}

/// The first line, without its end, and the length of both.
pub fn line(bytes: &[u8]) -> Option<(&str, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    // What is no text matches nothing.
    Some((std::str::from_utf8(&bytes[..end]).unwrap_or("?"), end + 2))
}

/// A producer of a protocol in which every request has one answer.
pub struct Producer<P, A> {
    /// Appends the request that puts a task.
    put: P,
    /// Tells the length of a whole answer.
    answer: A,
    next: u32,
    answered: u32,
    tasks: u32,
}

impl<P, A> Producer<P, A>
where
    P: Fn(&mut Vec<u8>, u32) + Send,
    A: Fn(&[u8]) -> Result<Option<usize>, String> + Send,
{
    /// A producer of so many tasks.
    pub fn new(tasks: u32, put: P, answer: A) -> Self {
        Self { put, answer, next: 0, answered: 0, tasks }
    }

    fn fill(&mut self, out: &mut Vec<u8>) {
        while self.next < self.tasks && self.next - self.answered < crate::WINDOW {
            (self.put)(out, self.next);
            self.next += 1;
        }
    }
}

impl<P, A> Talker for Producer<P, A>
where
    P: Fn(&mut Vec<u8>, u32) + Send,
    A: Fn(&[u8]) -> Result<Option<usize>, String> + Send,
{
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.fill(out);
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, String> {
        let length = (self.answer)(bytes)?;
        if length.is_some() {
            self.answered += 1;
            self.fill(out);
        }
        Ok(length)
    }

    fn is_done(&self) -> bool {
        self.answered == self.tasks
    }
}
