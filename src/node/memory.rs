//! Pattern memory of a node: opened before its cores start, closed when they have ended, and asked
//! through the doors of any core.
//!
//! Each node has a memory of its own; in a cluster nothing of it is replicated. Items are dealt out to
//! partitions by the hash of their names; a partition lives on one core. An item is asked for at the core
//! that has it, a search asks all partitions at once and keeps the best of what they find.

use super::{gateway::FEW_ITEMS, local::LocalGateway};
use crate::{
    config::{self, Config},
    memory::{
        embed::LEXICAL_NAME,
        store::{
            OpenError, Partition, Region, Store, StoreSettings, check_names, check_query,
            partition_of,
        },
        thread::{self, MemoryThreads},
    },
    runtime::{disk::FolderLock, doorbell::Doorbell, executor, topology::Topology},
    shard::{core::Shard, memory::Memory},
    wire::{
        api::Error,
        id::CoreIndex,
        letter::{Request, Response},
        memory::{
            MemoryHit, MemoryItem, MemoryPage, MemoryQuery, MemoryStats, Metric, PartitionReport,
            RecallEstimate,
        },
    },
};
use futures_channel::oneshot;
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, mpsc},
};

/// How long a request may wait for its answer, milliseconds.
const ANSWER_MS: u64 = 30_000;
/// The same where all rows are compared.
const SCAN_MS: u64 = 600_000;
/// Damaged records that are told with their place.
const DAMAGES_TOLD: usize = 64;

/// What holds for all of a node's memory.
#[derive(Clone, Copy)]
pub(super) struct Facts {
    partitions: u16,
    dimension: u32,
    metric: Metric,
    is_durable: bool,
    ef_search: u32,
}

/// What is left of pattern memory when the cores have ended.
pub(super) struct Ending {
    threads: Option<MemoryThreads>,
    /// The folder is this node's until all is closed.
    lock: Option<FolderLock>,
    returned: mpsc::Receiver<Box<Memory>>,
}

/// What the cores begin with.
pub(super) struct Opened {
    pub facts: Facts,
    /// The part of each core.
    pub memories: Vec<Memory>,
    pub ending: Ending,
    /// Where a core that ends gives its part back.
    pub back: mpsc::Sender<Box<Memory>>,
}

/// Opens the memory that a configuration names; memory alone unless the node is durable.
///
/// # Errors
/// The folder cannot be used.
pub(super) fn open(
    config: &Config,
    is_durable: bool,
    topology: &Topology,
    bells: &[Doorbell],
) -> Result<Opened, OpenError> {
    let memory = &config.memory;
    let cores = bells.len() as CoreIndex;
    let settings = StoreSettings {
        folder: is_durable.then(|| config.memory_folder()),
        dimension: memory.dimension,
        metric: memory.metric,
        partitions: cores,
        ef_construction: memory.ef_construction,
        items_max: memory.max_vectors,
        segment_bytes: memory.segment_mib << 20,
        embedder: embedder_model(memory),
    };
    let Store { head, partitions, lock } = Store::open(&settings)?;
    let items: usize = partitions.iter().map(Partition::len).sum();
    if items > 0 {
        tracing::info!(items, partitions = head.partitions, "pattern memory was read");
    }
    let facts = Facts {
        partitions: head.partitions,
        dimension: head.dimension,
        metric: head.metric,
        is_durable,
        ef_search: memory.ef_search as u32,
    };
    let (threads, desks) = match &settings.folder {
        Some(folder) => {
            let regions = partitions.iter().flat_map(|it| it.log().regions());
            let regions: Vec<Arc<Region>> = regions.collect();
            let cpu = topology.raft.first().copied();
            let io = |source| OpenError::Io { folder: folder.clone(), source };
            let (threads, desks) = thread::start(bells, cpu, regions).map_err(io)?;
            (Some(threads), desks.into_iter().map(Some).collect())
        }
        None => (None, bells.iter().map(|_| None).collect::<Vec<_>>()),
    };
    let mut parts: Vec<Vec<Partition>> = bells.iter().map(|_| Vec::new()).collect();
    for (number, partition) in partitions.into_iter().enumerate() {
        parts[number % bells.len()].push(partition);
    }
    let memories = parts.into_iter().zip(desks).enumerate().map(|(core, (partitions, desk))| {
        Memory::new(core as CoreIndex, cores, partitions, memory.ef_search, desk)
    });
    let (back, returned) = mpsc::channel();
    let ending = Ending { threads, lock, returned };
    Ok(Opened { facts, memories: memories.collect(), ending, back })
}

/// What identifies the embedder; nothing where there is none.
fn embedder_model(memory: &config::Memory) -> String {
    match memory.embedder {
        config::Embedder::None => String::new(),
        config::Embedder::Lexical => LEXICAL_NAME.to_owned(),
        config::Embedder::Exec => memory.embedder_model.clone().unwrap_or_else(|| {
            let words = memory.embedder_command.join(" ");
            words.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
        }),
    }
}

impl Ending {
    /// Writes what the cores left, and seals the files.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn close(self) -> io::Result<()> {
        // They do what was given to them before they end.
        drop(self.threads);
        let mut closed = Ok(());
        for memory in self.returned.try_iter() {
            // One that fails is no reason not to close the others.
            closed = memory.close().and(closed);
        }
        drop(self.lock);
        closed
    }
}

impl LocalGateway {
    fn core_of_memory(&self, partition: u16) -> CoreIndex {
        partition % self.cores()
    }

    /// Asks a partition; what to wait for.
    fn begin_asking(&self, partition: u16, request: Request, limit_ms: u64) -> Asked {
        let (answer, answered) = oneshot::channel();
        let core = self.core_of_memory(partition);
        let ask = |shard: &mut Shard| shard.ask_beside(core, request, limit_ms, answer);
        Asked(self.core.with_shard(ask).map(|()| answered))
    }

    async fn ask_partition(&self, partition: u16, request: Request) -> Result<Response, Error> {
        self.begin_asking(partition, request, ANSWER_MS).answer().await
    }

    /// Asks all partitions the same.
    async fn ask_memory(
        &self,
        question: impl Fn(u16) -> Request,
        limit_ms: u64,
    ) -> Result<Vec<Response>, Error> {
        let all = 0..self.shared.memory.partitions;
        let ask = |partition| self.begin_asking(partition, question(partition), limit_ms);
        let asked: Vec<Asked> = all.map(ask).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for asked in asked {
            answers.push(asked.answer().await?);
        }
        Ok(answers)
    }

    pub(super) async fn put_items(
        &self,
        items: Vec<MemoryItem>,
    ) -> Result<Vec<Result<bool, Error>>, Error> {
        let partitions = self.shared.memory.partitions;
        // Of each partition the items, and their places in the request.
        let mut parts: BTreeMap<u16, (Vec<MemoryItem>, Vec<usize>)> = BTreeMap::new();
        let count = items.len();
        for (place, item) in items.into_iter().enumerate() {
            let partition = partition_of(&item.namespace, &item.key, partitions);
            let (items, places) = parts.entry(partition).or_default();
            items.push(item);
            places.push(place);
            if count > FEW_ITEMS {
                executor::breathe().await;
            }
        }
        let mut asked = Vec::with_capacity(parts.len());
        for (partition, (items, places)) in parts {
            let request = Request::MemoryPut(partition, items);
            asked.push((self.begin_asking(partition, request, ANSWER_MS), places));
        }
        let mut outcomes = vec![Ok(false); count];
        for (asked, places) in asked {
            match asked.answer().await {
                Ok(Response::MemoryPut(of_part)) => {
                    for (place, outcome) in places.into_iter().zip(of_part) {
                        outcomes[place] = outcome;
                    }
                }
                Ok(other) => unreachable!("a put was answered with {other:?}"),
                Err(error) => {
                    places.into_iter().for_each(|place| outcomes[place] = Err(error.clone()));
                }
            }
        }
        Ok(outcomes)
    }

    pub(super) async fn get_item(
        &self,
        namespace: String,
        key: String,
    ) -> Result<MemoryItem, Error> {
        check_names(&namespace, &key)?;
        let partition = partition_of(&namespace, &key, self.shared.memory.partitions);
        match self.ask_partition(partition, Request::MemoryGet(partition, namespace, key)).await? {
            Response::MemoryItem(item) => Ok(item),
            other => unreachable!("a question for an item was answered with {other:?}"),
        }
    }

    pub(super) async fn delete_item(&self, namespace: String, key: String) -> Result<bool, Error> {
        check_names(&namespace, &key)?;
        let partition = partition_of(&namespace, &key, self.shared.memory.partitions);
        let request = Request::MemoryDelete(partition, namespace, key);
        match self.ask_partition(partition, request).await? {
            Response::MemoryDeleted(was_there) => Ok(was_there),
            other => unreachable!("a delete was answered with {other:?}"),
        }
    }

    pub(super) async fn search_items(&self, query: MemoryQuery) -> Result<Vec<MemoryHit>, Error> {
        check_query(&query)?;
        let question = |partition| Request::MemorySearch(partition, query.clone());
        let limit_ms = if query.filter.is_empty() { ANSWER_MS } else { SCAN_MS };
        let answers = self.ask_memory(question, limit_ms).await?;
        let hits = answers.into_iter().map(|answer| match answer {
            Response::MemoryHits(hits) => hits,
            other => unreachable!("a search was answered with {other:?}"),
        });
        let mut all = nearest(hits.collect(), query.k as usize).await;
        if self.shared.memory.metric == Metric::Cosine {
            // Rounding takes some a bit beyond what a cosine can be.
            all.iter_mut().for_each(|hit| hit.score = hit.score.clamp(-1.0, 1.0));
        }
        Ok(all)
    }

    pub(super) async fn list_items(
        &self,
        namespace: Option<String>,
        cursor: Option<String>,
        max: u32,
    ) -> Result<MemoryPage, Error> {
        let (mut partition, mut from) = cursor.as_deref().map_or(Ok((0, 0)), parse_cursor)?;
        let mut page = MemoryPage::default();
        while partition < self.shared.memory.partitions {
            let left = max - page.items.len() as u32;
            let request = Request::MemoryList(partition, namespace.clone(), from, left);
            let (items, next) = match self.ask_partition(partition, request).await? {
                Response::MemoryItems(items, next) => (items, next),
                other => unreachable!("a question for items was answered with {other:?}"),
            };
            match page.items.is_empty() {
                true => page.items = items,
                false => page.items.extend(items),
            }
            (partition, from) = next.map_or((partition + 1, 0), |next| (partition, next));
            if page.items.len() as u32 >= max {
                let is_more = partition < self.shared.memory.partitions;
                page.cursor = is_more.then(|| format!("{partition}.{from}"));
                break;
            }
        }
        Ok(page)
    }

    pub(super) async fn describe_memory(&self, sample: u32) -> Result<MemoryStats, Error> {
        let Facts { partitions, dimension, metric, is_durable, ef_search } = self.shared.memory;
        let share = |partition: u16| {
            let (each, left) = (sample / u32::from(partitions), sample % u32::from(partitions));
            each + u32::from(u32::from(partition) < left)
        };
        let question = |partition| Request::MemoryStats(partition, share(partition));
        let limit_ms = if sample > 0 { SCAN_MS } else { ANSWER_MS };
        let mut stats =
            MemoryStats { dimension, metric, durable: is_durable, ..MemoryStats::default() };
        let mut namespaces: BTreeMap<String, u64> = BTreeMap::new();
        let (mut queries, mut found, mut wanted) = (0, 0, 0);
        for answer in self.ask_memory(question, limit_ms).await? {
            let report = match answer {
                Response::MemoryReport(report) => report,
                other => unreachable!("a question for a report was answered with {other:?}"),
            };
            let PartitionReport { partition, namespaces: of_part, sample, damaged, lost, .. } =
                report;
            stats.count += partition.count;
            stats.bytes_resident += partition.bytes_resident;
            stats.bytes_on_disk += partition.bytes_on_disk;
            stats.partitions.push(partition);
            for (name, count) in of_part {
                *namespaces.entry(name).or_default() += count;
                executor::breathe().await;
            }
            (queries, found, wanted) = (queries + sample.0, found + sample.1, wanted + sample.2);
            stats.damaged.extend(damaged);
            stats.damaged_count += report.damaged_count;
            stats.lost.extend(lost);
            stats.lost_count += report.lost_count;
            stats.lost_unnamed_count += report.lost_unnamed_count;
            stats.lost_more |= report.lost_more;
        }
        stats.damaged.truncate(DAMAGES_TOLD);
        stats.lost.truncate(DAMAGES_TOLD);
        stats.namespaces.reserve(namespaces.len());
        for namespace in namespaces {
            stats.namespaces.push(namespace);
            executor::breathe().await;
        }
        if stats.count > 0 {
            stats.bytes_per_vector = stats.bytes_resident as f64 / stats.count as f64;
        }
        let k = crate::memory::store::Recall::K as u32;
        stats.recall = (wanted > 0).then(|| RecallEstimate {
            recall: found as f64 / wanted as f64,
            queries,
            k,
            ef: ef_search,
        });
        Ok(stats)
    }
}

/// A question to a partition that waits for its answer, or why it was not asked.
struct Asked(Result<oneshot::Receiver<Result<Response, Error>>, Error>);

impl Asked {
    async fn answer(self) -> Result<Response, Error> {
        self.0?.await.unwrap_or_else(|_| Err(super::stopped()))
    }
}

/// The nearest of what partitions found, each of which has its nearest first.
async fn nearest(found: Vec<Vec<MemoryHit>>, k: usize) -> Vec<MemoryHit> {
    let mut rows: Vec<_> = found.into_iter().map(|hits| hits.into_iter().peekable()).collect();
    let mut nearest = Vec::new();
    while nearest.len() < k {
        let mut best: Option<(f32, usize)> = None;
        for (place, row) in rows.iter_mut().enumerate() {
            let score = row.peek().map(|hit| hit.score);
            if let Some(score) = score
                && best.is_none_or(|(most, _)| score.total_cmp(&most).is_gt())
            {
                best = Some((score, place));
            }
        }
        let Some((_, place)) = best else { break };
        nearest.extend(rows[place].next());
        executor::breathe().await;
    }
    for hit in rows.into_iter().flatten() {
        drop(hit);
        executor::breathe().await;
    }
    nearest
}

/// Where the next part of a list of items begins: `partition.row`.
fn parse_cursor(text: &str) -> Result<(u16, u32), Error> {
    let parts = text.split_once('.');
    let parsed =
        parts.and_then(|(partition, from)| Some((partition.parse().ok()?, from.parse().ok()?)));
    parsed.ok_or_else(|| Error::Invalid("cursor is not one that a list gave".into()))
}
