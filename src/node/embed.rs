//! What makes vectors of texts on this node.

use crate::{
    config::{self, Config},
    memory::embed::Lexical,
    runtime::executor,
    shard::exec::embedder::{Embedder as Child, EmbedderDoor},
    wire::{api::Error, memory::Metric},
};

/// Letters that the lexical embedder reads before others on its core have their turn: some tens of
/// microseconds.
const LETTERS_A_TURN: usize = 1024;
/// Bytes from which on a text is embedded aside: a long run of marks is put in order as a whole.
const LONG_TEXT: usize = 2048;
/// What a text costs beside its letters, in letters.
const LETTERS_A_TEXT: usize = 64;

/// The embedder of a node, and what its memory's vectors look like.
pub struct Embedder {
    kind: Kind,
    dimension: usize,
    metric: Metric,
}

enum Kind {
    None,
    Lexical(Lexical),
    Exec(EmbedderDoor),
}

impl Embedder {
    /// The embedder that the configuration names, and the child that one core is to run.
    pub fn new(config: &Config) -> (Self, Option<Child>) {
        let settings = &config.memory;
        let (kind, child) = match settings.embedder {
            config::Embedder::None => (Kind::None, None),
            config::Embedder::Lexical => (Kind::Lexical(Lexical::new(settings.dimension)), None),
            config::Embedder::Exec => {
                let (child, door) = Child::new(settings);
                (Kind::Exec(door), Some(child))
            }
        };
        (Self { kind, dimension: settings.dimension, metric: settings.metric }, child)
    }

    /// What the vectors of the node's memory are.
    pub fn shape(&self) -> (usize, Metric) {
        (self.dimension, self.metric)
    }

    /// The name that users know it by.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::None => "none",
            Kind::Lexical(_) => "lexical",
            Kind::Exec(_) => "exec",
        }
    }

    /// A vector for each text, or why there is none. Runs on a core.
    ///
    /// # Errors
    /// When the node has no embedder, or too many texts wait for it.
    pub async fn embed(&self, texts: Vec<String>) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        match &self.kind {
            Kind::None => Err(Error::Invalid(
                "this node has no embedder: send a vector, or set memory.embedder".into(),
            )),
            Kind::Lexical(lexical) => {
                let (mut outcomes, mut left) = (Vec::with_capacity(texts.len()), LETTERS_A_TURN);
                for text in texts {
                    if text.len() >= LONG_TEXT {
                        let lexical = *lexical;
                        let vector = executor::aside(move || lexical.embed(&text)).await;
                        outcomes.push(vector.map_err(|error| Error::Invalid(error.to_string())));
                        continue;
                    }
                    let mut embedding = lexical.begin(&text);
                    let vector = loop {
                        match embedding.step(&mut left) {
                            Some(vector) => break vector,
                            None => executor::yield_now().await,
                        }
                        left = LETTERS_A_TURN;
                    };
                    outcomes.push(vector.map_err(|error| Error::Invalid(error.to_string())));
                    left = left.saturating_sub(LETTERS_A_TEXT);
                }
                Ok(outcomes)
            }
            Kind::Exec(door) => door.embed(texts).await,
        }
    }
}
