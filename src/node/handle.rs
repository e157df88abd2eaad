//! The doors' view of a node for a thread that is not one of its cores.

use super::{
    NodeHandle,
    gateway::{Answer, Ask, ClusterStatus, Gateway},
};
use crate::wire::{
    api::{
        AgentView, Completion, Error, Leased, NodeStats, TaskFilter, TaskPage, TaskSpec, TaskView,
        Worker,
    },
    id::{AgentAddress, AgentId, PartitionIndex, TaskId},
    memory::{MemoryHit, MemoryItem, MemoryPage, MemoryQuery, MemoryStats, Metric},
    neighbours::{AgentFilter, FarAgent, Neighbour},
};
use std::{rc::Rc, sync::Arc};

impl Gateway for NodeHandle {
    async fn submit(self: Rc<Self>, specs: Vec<TaskSpec>) -> Result<Vec<TaskId>, Error> {
        self.run(move |core| core.submit(specs)).await
    }

    async fn submit_each(
        self: Rc<Self>,
        specs: Vec<TaskSpec>,
    ) -> Result<Vec<Result<TaskId, Error>>, Error> {
        self.run(move |core| core.submit_each(specs)).await
    }

    async fn task_within(
        self: Rc<Self>,
        id: TaskId,
        wait_ms: u64,
        result_bytes: usize,
    ) -> Result<TaskView, Error> {
        self.run(move |core| core.task_within(id, wait_ms, result_bytes)).await
    }

    async fn cancel(self: Rc<Self>, id: TaskId) -> Result<bool, Error> {
        self.run(move |core| core.cancel(id)).await
    }

    async fn tasks(
        self: Rc<Self>,
        filter: TaskFilter,
        cursor: Option<String>,
        max: u32,
    ) -> Result<TaskPage, Error> {
        self.run(move |core| core.tasks(filter, cursor, max)).await
    }

    async fn requeue(self: Rc<Self>, id: TaskId) -> Result<(), Error> {
        self.run(move |core| core.requeue(id)).await
    }

    async fn register(self: Rc<Self>, types: Vec<String>, capacity: u32) -> Result<Worker, Error> {
        self.run(move |core| core.register(types, capacity)).await
    }

    async fn fetch(
        self: Rc<Self>,
        worker: Worker,
        max: u32,
        wait_ms: u64,
    ) -> Result<Leased, Error> {
        self.run(move |core| core.fetch(worker, max, wait_ms)).await
    }

    async fn end_attempts(
        self: Rc<Self>,
        completions: Vec<Completion>,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        self.run(move |core| core.end_attempts(completions)).await
    }

    async fn extend(self: Rc<Self>, id: TaskId, lease: u64, extend_ms: u64) -> Result<(), Error> {
        self.run(move |core| core.extend(id, lease, extend_ms)).await
    }

    async fn leave(self: Rc<Self>, worker: Worker) {
        let left = self.run(move |core| async move {
            core.leave(worker).await;
            Ok(())
        });
        // A node that has stopped holds no worker either.
        drop(left.await);
    }

    async fn agents(self: Rc<Self>, agent_type: Option<String>) -> Result<Vec<AgentView>, Error> {
        self.run(move |core| core.agents(agent_type)).await
    }

    async fn spawn(
        self: Rc<Self>,
        agent_type: String,
        name: Option<String>,
    ) -> Result<AgentId, Error> {
        self.run(move |core| core.spawn(agent_type, name)).await
    }

    async fn stop(self: Rc<Self>, id: AgentId) -> Result<(), Error> {
        self.run(move |core| core.stop(id)).await
    }

    async fn send(
        self: Rc<Self>,
        to: impl Into<AgentAddress>,
        payload: Vec<u8>,
    ) -> Result<(), Error> {
        let to = to.into();
        self.run(move |core| core.send(to, payload)).await
    }

    async fn call(
        self: Rc<Self>,
        to: impl Into<AgentAddress>,
        payload: Vec<u8>,
        timeout_ms: u64,
    ) -> Result<Vec<u8>, Error> {
        let to = to.into();
        self.run(move |core| core.call(to, payload, timeout_ms)).await
    }

    fn stats(&self) -> NodeStats {
        self.shared.stats()
    }

    fn readiness(&self) -> Result<(), String> {
        self.shared.readiness()
    }

    fn here(self: Rc<Self>) -> Rc<Self> {
        Rc::new(Self { forwards: false, ..(*self).clone() })
    }

    async fn tasks_of(
        self: Rc<Self>,
        partition: PartitionIndex,
        filter: TaskFilter,
        from: u64,
        max: u32,
    ) -> Result<(Vec<TaskView>, Option<u64>), Error> {
        self.run(move |core| core.tasks_of(partition, filter, from, max)).await
    }

    fn cluster_status(&self) -> Result<Arc<ClusterStatus>, Error> {
        self.shared.cluster_status()
    }

    fn agents_everywhere(&self, filter: &AgentFilter) -> Option<Vec<FarAgent>> {
        self.shared.agents_everywhere(filter)
    }

    fn is_able(&self, agent_type: &str, capability: &str) -> bool {
        self.shared.is_able(agent_type, capability)
    }

    fn find_agent(&self, name: &str) -> Option<AgentAddress> {
        self.shared.find_agent(name)
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        self.shared.neighbours()
    }

    async fn ask_cluster(self: Rc<Self>, ask: Ask) -> Result<Answer, Error> {
        self.shared.ask_cluster(ask).await
    }

    async fn memory_embed(
        self: Rc<Self>,
        texts: Vec<String>,
    ) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        self.run(move |core| core.memory_embed(texts)).await
    }

    fn embedder_name(&self) -> &'static str {
        self.shared.embedder.name()
    }

    fn memory_shape(&self) -> Option<(usize, Metric)> {
        Some(self.shared.embedder.shape())
    }

    async fn memory_put(
        self: Rc<Self>,
        items: Vec<MemoryItem>,
    ) -> Result<Vec<Result<bool, Error>>, Error> {
        self.run(move |core| core.memory_put(items)).await
    }

    async fn memory_get(
        self: Rc<Self>,
        namespace: String,
        key: String,
    ) -> Result<MemoryItem, Error> {
        self.run(move |core| core.memory_get(namespace, key)).await
    }

    async fn memory_delete(self: Rc<Self>, namespace: String, key: String) -> Result<bool, Error> {
        self.run(move |core| core.memory_delete(namespace, key)).await
    }

    async fn memory_search(self: Rc<Self>, query: MemoryQuery) -> Result<Vec<MemoryHit>, Error> {
        self.run(move |core| core.memory_search(query)).await
    }

    async fn memory_list(
        self: Rc<Self>,
        namespace: Option<String>,
        cursor: Option<String>,
        max: u32,
    ) -> Result<MemoryPage, Error> {
        self.run(move |core| core.memory_list(namespace, cursor, max)).await
    }

    async fn memory_stats(self: Rc<Self>, sample: u32) -> Result<MemoryStats, Error> {
        self.run(move |core| core.memory_stats(sample)).await
    }
}
