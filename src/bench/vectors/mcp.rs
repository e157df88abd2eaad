//! Tools of the Model Context Protocol, asked over HTTP, one at a time.

use super::asker::LIMIT;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

/// Bytes of a request that is refused.
const TOO_LONG: usize = 4_100_000;

/// A connection that stays.
pub(super) struct Mcp {
    stream: BufReader<TcpStream>,
    answer: Vec<u8>,
}

impl Mcp {
    pub(super) fn connect(at: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), answer: Vec::new() })
    }

    /// An item whose metadata are an array of numbers that is far too long.
    pub(super) fn put_too_long(&mut self) -> io::Result<()> {
        let numbers = "1,".repeat(TOO_LONG / 2);
        let metadata = format!(r#"{{"numbers":[{numbers}1]}}"#);
        self.call("memory_store", &format!(r#"{{"text":"it","metadata":{metadata}}}"#), true)
    }

    pub(super) fn search(&mut self, row: &[f32], k: usize, namespace: &str) -> io::Result<()> {
        let vector: Vec<String> = row.iter().map(|number| format!("{number:?}")).collect();
        let vector = vector.join(",");
        let arguments = format!(r#"{{"vector":[{vector}],"k":{k},"namespace":"{namespace}"}}"#);
        self.call("memory_search", &arguments, false)
    }

    pub(super) fn list(&mut self, limit: usize) -> io::Result<()> {
        self.call("memory_list", &format!(r#"{{"limit":{limit}}}"#), false)
    }

    fn call(&mut self, tool: &str, arguments: &str, is_refused: bool) -> io::Result<()> {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        );
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        self.read_answer()?;
        // What a tool refuses is an answer as well.
        let end: &[u8] = if is_refused { b"\"isError\":true}}" } else { b"\"isError\":false}}" };
        match self.answer.ends_with(end) {
            true => Ok(()),
            false => {
                let told = &self.answer[..self.answer.len().min(400)];
                Err(io::Error::other(format!("{tool} failed: {}", String::from_utf8_lossy(told))))
            }
        }
    }

    fn read_answer(&mut self) -> io::Result<()> {
        let mut bytes = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                bytes = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        self.answer.resize(bytes, 0);
        self.stream.read_exact(&mut self.answer)
    }
}
