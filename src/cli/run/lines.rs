//! The lines of a file or of standard input, read on a thread of their own.

use futures_channel::mpsc::{self, Receiver, Sender};
use futures_lite::{StreamExt as _, future};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek},
    path::Path,
    thread,
};

/// Lines that are read ahead.
const READ_AHEAD: usize = 1024;

/// One line.
pub(super) struct Line {
    /// From 1.
    pub number: u64,
    /// Without its end; an error when it is too long or could not be read.
    pub text: Result<Vec<u8>, String>,
}

/// The lines, in their order.
pub(super) struct Lines {
    count: Option<u64>,
    receiver: Receiver<Line>,
}

impl Lines {
    /// Begins to read; `-` is standard input. A line of more than `bytes_max` bytes is an error.
    pub(super) fn open(path: &Path, bytes_max: usize) -> io::Result<Self> {
        let (count, input): (_, Box<dyn Read + Send>) = match path.as_os_str() == "-" {
            true => (None, Box::new(io::stdin())),
            false => {
                let mut file = File::open(path)?;
                (count(&mut file)?, Box::new(file))
            }
        };
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        thread::Builder::new()
            .name("coreflow-lines".into())
            .spawn(move || read(BufReader::with_capacity(1 << 16, input), bytes_max, sender))?;
        Ok(Self { count, receiver })
    }

    /// How many there are, when that is known.
    pub(super) fn count(&self) -> Option<u64> {
        self.count
    }

    /// The next one; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Line> {
        self.receiver.next().await
    }
}

/// Lines of a file, which stands at its beginning afterwards; `None` for a pipe or a device, which
/// can be read only once.
fn count(file: &mut File) -> io::Result<Option<u64>> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    if !metadata.is_file() {
        return Ok(None);
    }
    let mut reader = BufReader::with_capacity(1 << 16, &mut *file);
    let (mut lines, mut open) = (0, false);
    loop {
        let bytes = reader.fill_buf()?;
        let Some(last) = bytes.last() else { break };
        open = *last != b'\n';
        lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let len = bytes.len();
        reader.consume(len);
    }
    file.rewind()?;
    Ok(Some(lines + u64::from(open)))
}

fn read(mut input: impl BufRead, bytes_max: usize, mut sender: Sender<Line>) {
    for number in 1.. {
        let (text, failed) = match next_line(&mut input, bytes_max) {
            Ok(Some(text)) => (text, false),
            Ok(None) => return,
            Err(error) => (Err(format!("the input could not be read: {error}")), true),
        };
        let sent = future::block_on(future::poll_fn(|context| sender.poll_ready(context)));
        let sent = sent.and_then(|()| sender.start_send(Line { number, text }));
        if sent.is_err() || failed {
            return;
        }
    }
}

/// The next line; one that is too long is read to its end and dropped.
fn next_line(
    input: &mut impl BufRead,
    bytes_max: usize,
) -> io::Result<Option<Result<Vec<u8>, String>>> {
    let mut line = Vec::new();
    let read = input.by_ref().take(bytes_max as u64 + 1).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(Ok(line)));
    }
    if line.len() <= bytes_max {
        return Ok(Some(Ok(line)));
    }
    loop {
        let bytes = input.fill_buf()?;
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let len = end.map_or(bytes.len(), |end| end + 1);
        input.consume(len);
        if end.is_some() || len == 0 {
            return Ok(Some(Err(format!(
                "longer than {bytes_max} bytes (server.max_frame_bytes)"
            ))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_costs_only_itself() {
        let mut input = &b"one\n\n123456789\nlast"[..];
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input, 4).unwrap() {
            lines.push(line.map_err(|_| ()));
        }
        let expected = [Ok(b"one".to_vec()), Ok(vec![]), Err(()), Ok(b"last".to_vec())];
        assert_eq!(lines, expected);
    }
}
