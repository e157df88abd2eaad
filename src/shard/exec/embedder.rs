//! The embedder that is a child process: one for the node, on one of its cores.
//!
//! Invariants worth naming:
//! - A text gets the vector that the child said for it, or an error that names the child.
//! - Texts of all cores wait in one bounded queue. The child has one line at a time, with up to
//!   [`TEXTS_A_LINE`] texts, and a limit of time for it.
//! - A child that dies, is silent or says what is no answer is ended and started again, after a pause
//!   that doubles from [`PAUSE_LEAST`] to [`PAUSE_MOST`]; in a pause whoever asks is told why at once.

use super::{child::Lines, log::log_lines};
use crate::{
    config,
    memory::embed::protocol::{self, NoVectors},
    runtime::{
        executor,
        process::{self, Process, Streams},
    },
    shard::handle::Stay,
    wire::api::Error,
};
use futures_channel::{
    mpsc::{self, UnboundedReceiver, UnboundedSender},
    oneshot,
};
use futures_lite::{StreamExt, future};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Texts in one line.
const TEXTS_A_LINE: usize = 64;
/// The pause after the first failure, and the longest one.
const PAUSE_LEAST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// How long the first answer after a start may take at least: a model is loaded meanwhile.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Bytes of one number in an answer, at most, and of what stands around the vectors.
const NUMBER_BYTES: usize = 32;
const AROUND_BYTES: usize = 64 << 10;
/// When to come back while too many texts wait, milliseconds.
const RETRY_MS: u64 = 100;

/// Where all cores ask the embedder.
#[derive(Clone, Debug)]
pub struct EmbedderDoor {
    requests: UnboundedSender<Asked>,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
}

/// What became of each text, in order.
type Outcomes = Vec<Result<Vec<f32>, Error>>;

/// Texts that wait, and who waits for them.
#[derive(Debug)]
struct Asked {
    texts: Vec<String>,
    answer: oneshot::Sender<Outcomes>,
    _place: Place,
}

/// Places in the queue, given back when it is dropped.
#[derive(Debug)]
struct Place {
    waiting: Arc<AtomicUsize>,
    texts: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.texts, Ordering::Relaxed);
    }
}

impl EmbedderDoor {
    /// Makes a vector of each text, or says why there is none.
    ///
    /// # Errors
    /// [`Error::Backpressure`] when too many texts wait already; a request is taken whatever its
    /// length while none does.
    pub async fn embed(&self, texts: Vec<String>) -> Result<Outcomes, Error> {
        let texts_before = self.waiting.fetch_add(texts.len(), Ordering::Relaxed);
        let place = Place { waiting: self.waiting.clone(), texts: texts.len() };
        if texts_before > 0 && texts_before + texts.len() > self.waiting_max {
            return Err(Error::Backpressure(RETRY_MS));
        }
        let (answer, answered) = oneshot::channel();
        let gone = || Error::Unavailable("the node has stopped".into());
        let asked = Asked { texts, answer, _place: place };
        self.requests.unbounded_send(asked).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

/// The child's side: it is made on any thread and runs on one core.
pub struct Embedder {
    command: Vec<String>,
    dimension: usize,
    limit: Duration,
    requests: UnboundedReceiver<Asked>,
}

/// The embedder on its core.
struct Life {
    plan: Embedder,
    child: Option<Running>,
    failures: u32,
    /// Until when no child is started, and why.
    pause: Option<(Instant, String)>,
    lines: u64,
}

/// A child that runs.
struct Running {
    process: Process,
    streams: (crate::runtime::fs::Pipe, crate::runtime::fs::Pipe),
    answers: Lines,
    /// It has answered once.
    answered: bool,
    /// Dropped when it has ended.
    _alive: oneshot::Sender<()>,
}

/// Why a line of texts brought no vectors.
enum Trouble {
    /// The child said so, or its answer is wrong; it goes on.
    Said(String),
    /// The child is of no use any more.
    Broken(String),
}

impl Embedder {
    /// An embedder as the configuration has it, and the door to it.
    pub fn new(settings: &config::Memory) -> (Self, EmbedderDoor) {
        let (sender, requests) = mpsc::unbounded();
        let waiting_max = settings.embedder_queue;
        let door = EmbedderDoor { requests: sender, waiting: Arc::default(), waiting_max };
        let embedder = Self {
            command: settings.embedder_command.clone(),
            dimension: settings.dimension,
            limit: Duration::from_millis(settings.embedder_timeout_ms),
            requests,
        };
        (embedder, door)
    }

    /// Answers until the core ends; the child does not outlive it.
    pub async fn run(self, ended: oneshot::Receiver<()>, _stay: Stay) {
        let mut life = Life { plan: self, child: None, failures: 0, pause: None, lines: 0 };
        let ended = async {
            // It is dropped, not sent.
            let _ = ended.await;
        };
        future::or(life.serve(), ended).await;
        if let Some(child) = life.child.take() {
            let _ = child.process.end().await;
        }
    }
}

impl Life {
    async fn serve(&mut self) {
        while let Some(first) = self.plan.requests.next().await {
            let mut batch = vec![first];
            let mut texts = batch[0].texts.len();
            while texts < TEXTS_A_LINE
                && let Ok(more) = self.plan.requests.try_recv()
            {
                texts += more.texts.len();
                batch.push(more);
            }
            // Whoever went away needs no vectors.
            batch.retain(|asked| !asked.answer.is_canceled());
            let texts: Vec<&str> =
                batch.iter().flat_map(|asked| asked.texts.iter().map(String::as_str)).collect();
            let mut outcomes = self.embed(&texts).await.into_iter();
            for asked in batch {
                let own = outcomes.by_ref().take(asked.texts.len()).collect();
                // Whoever asked may have gone away.
                let _ = asked.answer.send(own);
            }
        }
    }

    /// What becomes of each text.
    async fn embed(&mut self, texts: &[&str]) -> Outcomes {
        let mut outcomes = Vec::with_capacity(texts.len());
        for line in texts.chunks(TEXTS_A_LINE) {
            match self.exchange(line).await {
                Ok(vectors) => outcomes.extend(vectors.into_iter().map(|it| self.check(it))),
                Err(Trouble::Said(_)) if line.len() > 1 => {
                    // One text may be at fault for all.
                    for text in line {
                        outcomes.push(self.embed_one(text).await);
                    }
                }
                Err(Trouble::Said(text) | Trouble::Broken(text)) => {
                    outcomes.extend(line.iter().map(|_| Err(Error::Unavailable(text.clone()))));
                }
            }
        }
        outcomes
    }

    async fn embed_one(&mut self, text: &str) -> Result<Vec<f32>, Error> {
        match self.exchange(&[text]).await {
            Ok(mut vectors) => self.check(vectors.pop().expect("one text has one vector")),
            Err(Trouble::Said(text) | Trouble::Broken(text)) => Err(Error::Unavailable(text)),
        }
    }

    /// A vector of the child, when it is one for this memory.
    fn check(&self, vector: Vec<f32>) -> Result<Vec<f32>, Error> {
        let (len, dimension) = (vector.len(), self.plan.dimension);
        if len != dimension {
            let problem =
                format!("gave a vector of {len} numbers, memory.dimension is {dimension}");
            return Err(Error::Unavailable(self.says(&problem)));
        }
        match vector.iter().position(|number| !number.is_finite()) {
            // It would say so of this text again.
            Some(place) => {
                let problem = format!("gave a vector whose number [{place}] is not finite");
                Err(Error::Invalid(self.says(&problem)))
            }
            None => Ok(vector),
        }
    }

    /// Sends one line to the child, which is started when none runs, and reads its answer.
    async fn exchange(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Trouble> {
        if let Some((until, why)) = &self.pause {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                let text = format!("{why}; it is started again in {} ms", left.as_millis() + 1);
                return Err(Trouble::Broken(text));
            }
        }
        self.lines += 1;
        let (id, line) = (self.lines, protocol::request(self.lines, texts));
        let said = self.converse(id, &line).await;
        let vectors = match said {
            Ok(Ok(vectors)) if vectors.len() == texts.len() => vectors,
            Ok(Ok(vectors)) => {
                let problem = format!("gave {} vectors for {} texts", vectors.len(), texts.len());
                return Err(Trouble::Said(self.says(&problem)));
            }
            Ok(Err(NoVectors::Said(error))) => {
                return Err(Trouble::Said(self.says(&format!("says: {error}"))));
            }
            Ok(Err(NoVectors::Wrong(what))) => {
                return Err(Trouble::Said(self.says(&format!("answered with {what}"))));
            }
            Err(problem) => return Err(self.broken(&problem).await),
        };
        (self.failures, self.pause) = (0, None);
        Ok(vectors)
    }

    /// What the child answers to a line, or why it is of no use any more.
    async fn converse(
        &mut self,
        id: u64,
        line: &[u8],
    ) -> Result<Result<Vec<Vec<f32>>, NoVectors>, String> {
        let bytes_max = TEXTS_A_LINE * self.plan.dimension * NUMBER_BYTES + AROUND_BYTES;
        let child = match &mut self.child {
            Some(child) => child,
            none => none.insert(start(&self.plan.command).await?),
        };
        let limit = if child.answered { self.plan.limit } else { self.plan.limit.max(START_LIMIT) };
        let (stdin, stdout) = &child.streams;
        let (process, answers) = (&child.process, &mut child.answers);
        let exchange = async {
            let written = stdin.write_all(line).await;
            written.map_err(|error| format!("does not read: {error}"))?;
            loop {
                if let Some(line) = answers.next_line() {
                    let mut line = line.to_vec();
                    let read = executor::aside(move || protocol::answer(&mut line, bytes_max));
                    let answer = read
                        .await
                        .map_err(|error| format!("wrote a line that is no answer: {error}"))?;
                    return match answer.id == id {
                        true => Ok(answer.vectors),
                        false => Err(format!("answered {} when it was asked {id}", answer.id)),
                    };
                }
                match answers.fill(stdout, bytes_max).await {
                    Ok(true) => {}
                    Ok(false) => return Err("closed its standard output".to_owned()),
                    Err(error) => return Err(format!("cannot be read: {error}")),
                }
            }
        };
        let died = async {
            process.ended().await;
            Err("ended".to_owned())
        };
        let said = executor::timeout(limit, future::or(exchange, died)).await;
        let said = said.unwrap_or_else(|| Err(format!("was silent for {} ms", limit.as_millis())));
        child.answered |= said.is_ok();
        said
    }

    /// Ends the child and remembers why; the next one waits.
    async fn broken(&mut self, problem: &str) -> Trouble {
        let status = match self.child.take() {
            Some(child) => child.process.end().await.ok(),
            None => None,
        };
        let status = status.map(|status| format!(" ({status})")).unwrap_or_default();
        let text = self.says(&format!("{problem}{status}"));
        let pause = PAUSE_LEAST.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MOST);
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(pause_ms = pause.as_millis() as u64, "{text}");
        self.pause = Some((Instant::now() + pause, text.clone()));
        Trouble::Broken(text)
    }

    /// A sentence about the child.
    fn says(&self, what: &str) -> String {
        format!("the embedder {} {what}", self.plan.command.join(" "))
    }
}

/// Starts a child.
async fn start(command: &[String]) -> Result<Running, String> {
    let (process, streams) =
        process::start(command).await.map_err(|error| format!("does not run: {error}"))?;
    tracing::info!(pid = process.id(), "the embedder was started");
    let Streams { stdin, stdout, stderr } = streams;
    let (alive, ended) = oneshot::channel();
    executor::spawn(log_lines("embedder", stderr, ended));
    let answers = Lines::default();
    Ok(Running { process, streams: (stdin, stdout), answers, answered: false, _alive: alive })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use std::pin::pin;

    fn texts(count: usize) -> Vec<String> {
        vec!["text".to_owned(); count]
    }

    #[test]
    fn beyond_the_queue_texts_are_refused_and_who_goes_away_gives_the_place_back() {
        let settings = config::Memory { embedder_queue: 3, ..config::Config::default().memory };
        let (mut embedder, door) = Embedder::new(&settings);
        block_on(async {
            // While none waits a request is taken whatever its length.
            let mut first = pin!(door.embed(texts(5)));
            assert!(poll_once(&mut first).await.is_none(), "it waits");
            let refused = Err(Error::Backpressure(RETRY_MS));
            assert_eq!(door.embed(texts(1)).await, refused);
            let asked = embedder.requests.try_recv().expect("the first request");
            asked.answer.send(vec![Ok(vec![1.0])]).expect("it is waited for");
            assert_eq!(first.await, Ok(vec![Ok(vec![1.0])]));
            drop(asked._place);
            let mut second = pin!(door.embed(texts(2)));
            assert!(poll_once(&mut second).await.is_none());
            let mut third = pin!(door.embed(texts(1)));
            assert!(poll_once(&mut third).await.is_none(), "three fit");
            assert_eq!(door.embed(texts(1)).await, refused);
            drop(embedder);
            assert!(matches!(second.await, Err(Error::Unavailable(_))));
        });
    }
}
