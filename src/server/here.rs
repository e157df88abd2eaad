//! What other nodes ask: requests about tasks that this node does itself or refuses.
//!
//! Their names are those of clients' requests behind `here.`; some have fields of their own, and
//! `here.run`, `here.stop` and `here.trunk` are for nodes alone.

use super::{
    Limits,
    params::{Fields, required},
    request::Request,
    worker::WorkerRequest,
};
use crate::node::gateway::{Challenge, Offer, Origin, TrunkOffer};
use crate::wire::{
    api::{Error, Guest, Priority, TaskFilter, TaskStatus},
    id::{CoreIndex, PartitionIndex, TaskId},
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
    Trunk(Box<TrunkOffer>),
    /// `here.run`: an attempt of a task that the other node keeps.
    Run {
        /// The type of the agent that is to run it.
        agent_type: String,
        /// The attempt.
        guest: Guest,
    },
    /// `here.stop`: the other node has given an attempt up.
    Stop {
        /// The task.
        id: TaskId,
        /// The other node's lease.
        lease: u64,
    },
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
        "run" => run(params, limits.max_payload_bytes)?,
        "stop" => stop(params)?,
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
    let (mut from, mut core, mut life, mut to) = (None, None, None, None);
    let (mut session, mut resumes, mut taken, mut record_bytes) = (None, None, None, None);
    let (mut version_min, mut version_max) = (None, None);
    let (mut challenge, mut proof) = (None, None);
    while let Some(field) = fields.next()? {
        match field.name {
            "from" => from = field.uint()?,
            "core" => core = field.at_most(CoreIndex::MAX.into())?,
            "life" => life = field.uint()?,
            "to" => to = field.uint()?,
            "session" => session = field.uint()?,
            "resumes" => resumes = field.uint()?,
            "taken" => taken = field.uint()?,
            "record_bytes" => record_bytes = field.uint()?,
            "version_min" => version_min = field.uint()?,
            "version_max" => version_max = field.uint()?,
            "challenge" => challenge = field.bytes()?.map(Challenge),
            "proof" => proof = field.bytes()?,
            // A later version says more; which one both speak is found out by the numbers.
            _ => {}
        }
    }
    let record_bytes = required("record_bytes", record_bytes)?;
    let from = Origin {
        node: required("from", from)?,
        core: required("core", core)? as CoreIndex,
        life: required("life", life)?,
    };
    let offer = Offer {
        from,
        to: required("to", to)?,
        session: required("session", session)?,
        resumes: required("resumes", resumes)? != 0,
        taken: required("taken", taken)?,
        record_bytes: usize::try_from(record_bytes).unwrap_or(usize::MAX),
    };
    // The first version had no number.
    let versions = version_min.unwrap_or(1)..=version_max.unwrap_or(1);
    Ok(HereRequest::Trunk(Box::new(TrunkOffer { offer, versions, challenge, proof })))
}

fn run(params: &[u8], payload_bytes_max: usize) -> Result<HereRequest, Error> {
    let (mut fields, mut id, mut lease) = (Fields::of(params)?, None, None);
    let (mut agent_type, mut attempt, mut priority) = (None, None, None);
    let (mut timeout_ms, mut payload) = (None, None);
    while let Some(field) = fields.next()? {
        match field.name {
            "id" => id = field.parsed()?,
            "lease" => lease = field.uint()?,
            "type" => agent_type = field.text()?.map(str::to_owned),
            "attempt" => attempt = field.positive_at_most(u32::MAX.into())?,
            "priority" => priority = field.text()?.map(priority_of).transpose()?,
            "timeout_ms" => timeout_ms = field.positive()?,
            "payload" => payload = Some(field.payload(payload_bytes_max)?),
            _ => return Err(field.unknown()),
        }
    }
    let guest = Guest {
        id: required("id", id)?,
        lease: required("lease", lease)?,
        attempt: required("attempt", attempt)? as u32,
        priority: required("priority", priority)?,
        timeout_ms: required("timeout_ms", timeout_ms)?,
        payload: required("payload", payload)?,
    };
    Ok(HereRequest::Run { agent_type: required("type", agent_type)?, guest })
}

fn stop(params: &[u8]) -> Result<HereRequest, Error> {
    let (mut fields, mut id, mut lease) = (Fields::of(params)?, None, None);
    while let Some(field) = fields.next()? {
        match field.name {
            "id" => id = field.parsed()?,
            "lease" => lease = field.uint()?,
            _ => return Err(field.unknown()),
        }
    }
    Ok(HereRequest::Stop { id: required("id", id)?, lease: required("lease", lease)? })
}

fn priority_of(name: &str) -> Result<Priority, Error> {
    let unknown = "priority must be low, normal, high or critical";
    Priority::from_name(name).ok_or_else(|| Error::Invalid(unknown.into()))
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
