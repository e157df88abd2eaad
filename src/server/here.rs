//! What other nodes ask: requests about tasks that this node does itself or refuses.
//!
//! Their names are those of clients' requests behind `here.`; two of them have fields of their own.

use super::{
    Limits,
    params::{Fields, required},
    request::Request,
    worker::WorkerRequest,
};
use crate::node::gateway::Offer;
use crate::wire::{
    api::{Error, TaskFilter, TaskStatus},
    id::{PartitionIndex, TaskId},
};

/// A request that is done here or not at all.
#[derive(Debug)]
pub enum HereRequest {
    /// One that clients have too.
    Same(Box<Request>),
    /// `here.task.result`
    Task {
        /// The task.
        id: TaskId,
        /// How long to wait for it to end.
        wait_ms: u64,
        /// A result of more bytes is left out.
        result_bytes: usize,
    },
    /// `here.trunk`: the connection is for messages between agents from here on.
    Trunk(Offer),
    /// `here.task.list`
    Tasks {
        /// The partition whose tasks are listed.
        partition: PartitionIndex,
        /// Which of them.
        filter: TaskFilter,
        /// Where the part begins.
        from: u64,
        /// Tasks at most.
        max: u32,
    },
}

/// Reads the parameters of a method without its `here.`; `None` when there is no such method.
pub fn parse(method: &str, params: &[u8], limits: &Limits) -> Result<Option<HereRequest>, Error> {
    Ok(Some(match method {
        "task.result" => task(params)?,
        "task.list" => tasks(params)?,
        "trunk" => trunk(params)?,
        "task.submit" | "task.submit_batch" | "task.cancel" | "dead.requeue"
        | "worker.complete" | "worker.fail" | "worker.extend" => {
            HereRequest::Same(Box::new(Request::parse(method, params, limits)?))
        }
        _ => return Ok(None),
    }))
}

fn task(params: &[u8]) -> Result<HereRequest, Error> {
    let (mut fields, mut id) = (Fields::of(params)?, None);
    let (mut wait_ms, mut result_bytes) = (0, u64::MAX);
    while let Some(field) = fields.next()? {
        match field.name {
            "id" => id = field.parsed()?,
            "wait_ms" => wait_ms = field.uint()?.unwrap_or(0),
            "result_bytes" => result_bytes = field.uint()?.unwrap_or(u64::MAX),
            _ => return Err(field.unknown()),
        }
    }
    let result_bytes = usize::try_from(result_bytes).unwrap_or(usize::MAX);
    Ok(HereRequest::Task { id: required("id", id)?, wait_ms, result_bytes })
}

fn tasks(params: &[u8]) -> Result<HereRequest, Error> {
    let (mut fields, mut partition) = (Fields::of(params)?, None);
    let (mut from, mut max, mut filter) = (0, u64::from(u32::MAX), TaskFilter::default());
    while let Some(field) = fields.next()? {
        match field.name {
            "partition" => partition = field.at_most(PartitionIndex::MAX.into())?,
            "from" => from = field.uint()?.unwrap_or(0),
            "max" => max = field.at_most(u32::MAX.into())?.unwrap_or(max),
            "type" => filter.agent_type = field.text()?.map(str::to_owned),
            "status" => filter.status = field.text()?.map(status).transpose()?,
            _ => return Err(field.unknown()),
        }
    }
    let partition = required("partition", partition)? as PartitionIndex;
    Ok(HereRequest::Tasks { partition, filter, from, max: max as u32 })
}

fn trunk(params: &[u8]) -> Result<HereRequest, Error> {
    let mut fields = Fields::of(params)?;
    let (mut from, mut to, mut record_bytes) = (None, None, None);
    while let Some(field) = fields.next()? {
        match field.name {
            "from" => from = field.uint()?,
            "to" => to = field.uint()?,
            "record_bytes" => record_bytes = field.uint()?,
            _ => return Err(field.unknown()),
        }
    }
    let record_bytes = required("record_bytes", record_bytes)?;
    Ok(HereRequest::Trunk(Offer {
        from: required("from", from)?,
        to: required("to", to)?,
        record_bytes: usize::try_from(record_bytes).unwrap_or(usize::MAX),
    }))
}

/// A status by its name.
pub fn status(name: &str) -> Result<TaskStatus, Error> {
    let unknown = "status must be queued, delayed, running, done, dead or cancelled";
    TaskStatus::from_name(name).ok_or_else(|| Error::Invalid(unknown.into()))
}

/// Whether a request joins its neighbours on a connection, which are all done here or all not.
pub fn unwrap(request: Request) -> (Request, bool) {
    match request {
        Request::Here(HereRequest::Same(same))
            if matches!(*same, Request::Submit(_) | Request::Worker(WorkerRequest::End(_))) =>
        {
            (*same, true)
        }
        request => (request, false),
    }
}
