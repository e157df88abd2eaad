//! What the log was told, for tests.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};
use tracing::Subscriber;

/// Lines of a log that is kept in memory.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    /// What writes to it.
    pub fn listener(&self) -> impl Subscriber + Send + Sync + use<> {
        let said = self.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || said.clone()).finish()
    }

    /// All of it.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).expect("text")
    }

    /// How many of its lines have these words.
    pub fn lines_with(&self, words: &str) -> usize {
        self.text().lines().filter(|line| line.contains(words)).count()
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
