//! What is asked of pattern memory: parsed from one parameter map, run against the gateway.
//!
//! | file | duty |
//! |---|---|
//! | `parse` | requests from parameters |
//! | `order` | changes of one item, one after the other |
//! | `vector` | a vector from an array of numbers or from bytes |
//! | `reply` | the answers |
//!
//! Invariants:
//! - What is stored or searched for has the dimension of the memory and finite numbers; with the cosine
//!   it is not zero. What does not is `invalid` with the reason, whoever made the vector.
//! - A text becomes a vector by the embedder of the node or not at all.
//! - Changes of one item take effect in the order in which they came to the core, long batches apart.

mod order;
mod parse;
mod reply;
#[cfg(test)]
mod tests;
mod vector;

pub use parse::{Batch, parse};
pub use reply::{MemoryReply, stored};

use self::order::Turn;
use crate::{
    node::gateway::{FEW_ITEMS, Gateway},
    wire::{
        api::Error,
        memory::{COMPONENT_MAX, MemoryItem, MemoryQuery, Metric},
    },
};
use std::rc::Rc;

/// What the names of all methods begin with.
pub const METHODS: &str = "memory.";

/// A request whose parameters are right.
#[derive(Debug)]
pub enum MemoryRequest {
    /// `memory.put`: an item whose vector is empty gets that of its text.
    Put(MemoryItem),
    /// `memory.put_batch`
    PutBatch(Batch),
    /// `memory.get` and `memory.retrieve`
    Get {
        /// Where the item is.
        namespace: String,
        /// Its name.
        key: String,
        /// Whether its vector is part of the answer.
        with_vector: bool,
    },
    /// `memory.search`: with a text in place of the vector.
    Search {
        /// The query; its vector is empty when there is a text.
        query: MemoryQuery,
        /// What the vector is made of.
        text: Option<String>,
    },
    /// `memory.delete`
    Delete {
        /// Where the item is.
        namespace: String,
        /// Its name.
        key: String,
    },
    /// `memory.list`
    List {
        /// Only what is in this namespace.
        namespace: Option<String>,
        /// Where the part begins.
        cursor: Option<String>,
        /// Items at most.
        limit: u32,
    },
    /// `memory.stats`
    Stats {
        /// Searches that recall is estimated with.
        sample: u32,
    },
}

/// An item that was stored: its name, and whether it replaced another.
pub type Stored = (String, bool);

impl MemoryRequest {
    /// Does what is asked, and writes what the answer has if that is much.
    pub async fn run<G: Gateway>(self, gateway: Rc<G>) -> Result<MemoryReply, Error> {
        let reply = self.answer(gateway.clone()).await?;
        Ok(reply.written(&*gateway).await)
    }

    async fn answer<G: Gateway>(self, gateway: Rc<G>) -> Result<MemoryReply, Error> {
        Ok(match self {
            Self::Put(item) => {
                let mut outcomes = put(gateway, vec![item]).await?;
                let outcome = outcomes.pop().expect("one item has one outcome");
                let (key, replaced) = outcome?;
                MemoryReply::Stored { key, replaced }
            }
            Self::PutBatch(batch) => MemoryReply::StoredBatch(put_batch(gateway, batch).await?),
            Self::Get { namespace, key, with_vector } => {
                MemoryReply::Item { item: gateway.memory_get(namespace, key).await?, with_vector }
            }
            Self::Search { mut query, text } => {
                if let Some(text) = text {
                    let vectors = gateway.clone().memory_embed(vec![text]).await?;
                    query.vector = vectors.into_iter().next().expect("one text has one vector")?;
                }
                check(&*gateway, &query.vector)?;
                MemoryReply::Hits(gateway.memory_search(query).await?)
            }
            Self::Delete { namespace, key } => {
                let mut turn = Turn::take(std::iter::once((&*namespace, &*key, false)));
                turn.come().await;
                MemoryReply::Deleted(gateway.memory_delete(namespace, key).await?)
            }
            Self::List { namespace, cursor, limit } => {
                MemoryReply::Page(gateway.memory_list(namespace, cursor, limit).await?)
            }
            Self::Stats { sample } => {
                let embedder = gateway.embedder_name();
                MemoryReply::Stats { stats: gateway.memory_stats(sample).await?, embedder }
            }
        })
    }
}

/// Stores those items of a batch that could be read; outcomes in the order of `items`.
async fn put_batch<G: Gateway>(
    gateway: Rc<G>,
    mut batch: Batch,
) -> Result<Vec<Result<Stored, Error>>, Error> {
    let count = batch.len();
    let mut items = Vec::with_capacity(count);
    // Those that could not be read, with their places.
    let mut wrong = Vec::new();
    let mut place = 0;
    while let Some(item) = batch.next() {
        match item {
            Ok(item) => items.push(item),
            Err(error) => wrong.push((place, error)),
        }
        place += 1;
        breathe_among(&*gateway, count).await;
    }
    drop(batch);
    let stored = put(gateway.clone(), items).await?;
    let (mut stored, mut wrong) = (stored.into_iter(), wrong.into_iter().peekable());
    let mut outcomes = Vec::with_capacity(count);
    for place in 0..count {
        outcomes.push(match wrong.next_if(|(at, _)| *at == place) {
            Some((_, error)) => Err(error),
            None => stored.next().expect("each item has an outcome"),
        });
        gateway.breathe().await;
    }
    Ok(outcomes)
}

/// Lets others have their turn between two items of so many.
async fn breathe_among<G: Gateway>(gateway: &G, items: usize) {
    if items > FEW_ITEMS {
        gateway.breathe().await;
    }
}

/// Stores items, each by itself; outcomes in the order of `items`.
pub async fn put<G: Gateway>(
    gateway: Rc<G>,
    mut items: Vec<MemoryItem>,
) -> Result<Vec<Result<Stored, Error>>, Error> {
    let count = items.len();
    let mut turn = (count <= FEW_ITEMS).then(|| {
        let changes = items.iter().map(|it| (&*it.namespace, &*it.key, it.vector.is_empty()));
        Turn::take(changes)
    });
    let mut outcomes: Vec<Result<(), Error>> = vec![Ok(()); count];
    let without: Vec<usize> =
        (0..items.len()).filter(|index| items[*index].vector.is_empty()).collect();
    if !without.is_empty() {
        let mut texts = Vec::with_capacity(without.len());
        for index in &without {
            texts.push(items[*index].text.clone().unwrap_or_default());
            breathe_among(&*gateway, count).await;
        }
        match gateway.clone().memory_embed(texts).await {
            Ok(vectors) => {
                assert_eq!(vectors.len(), without.len(), "an embedder gives each text an outcome");
                for (index, vector) in without.into_iter().zip(vectors) {
                    match vector {
                        Ok(vector) => items[index].vector = vector,
                        Err(error) => outcomes[index] = Err(error),
                    }
                }
            }
            Err(error) => without.into_iter().for_each(|it| outcomes[it] = Err(error.clone())),
        }
    }
    // Of each item its name, or what is wrong with it.
    let mut names = Vec::with_capacity(items.len());
    let mut well = Vec::with_capacity(items.len());
    for (item, outcome) in items.into_iter().zip(outcomes) {
        names
            .push(outcome.and_then(|()| check(&*gateway, &item.vector)).map(|()| item.key.clone()));
        if matches!(names.last(), Some(Ok(_))) {
            well.push(item);
        }
        breathe_among(&*gateway, count).await;
    }
    if let Some(turn) = &mut turn {
        turn.come().await;
    }
    let stored = match well.is_empty() {
        true => Vec::new(),
        false => gateway.clone().memory_put(well).await?,
    };
    let mut stored = stored.into_iter();
    let mut outcomes = Vec::with_capacity(names.len());
    for name in names {
        outcomes.push(match name {
            Ok(key) => {
                let replaced = stored.next().expect("a gateway gives each item an outcome");
                replaced.map(|replaced| (key, replaced))
            }
            Err(error) => Err(error),
        });
        gateway.breathe().await;
    }
    Ok(outcomes)
}

/// Whether a vector can be stored and searched for.
fn check<G: Gateway>(gateway: &G, vector: &[f32]) -> Result<(), Error> {
    let Some((dimension, metric)) = gateway.memory_shape() else { return Ok(()) };
    if vector.len() != dimension {
        return Err(Error::Invalid(format!(
            "vector has {} numbers, this memory's have {dimension} (memory.dimension)",
            vector.len()
        )));
    }
    if let Some(place) = vector.iter().position(|number| !number.is_finite()) {
        return Err(Error::Invalid(format!("vector[{place}] is not finite")));
    }
    if let Some(place) = vector.iter().position(|number| number.abs() > COMPONENT_MAX) {
        return Err(Error::Invalid(format!("vector[{place}] is beyond {COMPONENT_MAX:e}")));
    }
    if metric == Metric::Cosine && vector.iter().all(|number| *number == 0.0) {
        let text = "vector is zero, and the cosine (memory.metric) asks for a direction";
        return Err(Error::Invalid(text.into()));
    }
    Ok(())
}
