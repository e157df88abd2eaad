//! What workers ask: programs that connect from outside and fetch tasks of remote agent types.
//!
//! A worker belongs to its connection: when that ends, what the worker holds goes to others.

use super::{
    Limits,
    large::LargeResults,
    params::{Fields, registration, required},
    reply::Reply,
};
use crate::{
    node::gateway::{Challenge, Gateway},
    wire::{
        api::{Completion, Error, Failure, Worker},
        id::TaskId,
        msgpack::Reader,
    },
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

/// Most tasks that one fetch may ask for.
const FETCH_MAX: u64 = 10_000;
/// The longest extension of a lease, milliseconds: a day.
const EXTEND_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// What a connection knows of its client beyond the requests under way.
#[derive(Default)]
pub struct WorkerSession {
    registered: RefCell<Option<Registered>>,
    /// What another node is to prove itself over.
    pub challenge: Cell<Option<Challenge>>,
    /// What bounds the results that are on their way to it.
    pub large_results: LargeResults,
}

/// A worker, and the agent types that it named.
#[derive(Clone)]
struct Registered {
    worker: Worker,
    types: Rc<[String]>,
}

impl WorkerSession {
    /// A session of a connection on which many requests may wait.
    pub fn new(limits: &Limits) -> Self {
        Self { large_results: LargeResults::new(limits), ..Self::default() }
    }

    /// The worker that registered here, to be told goodbye.
    pub fn take(&self) -> Option<Worker> {
        self.registered.borrow_mut().take().map(|registered| registered.worker)
    }
}

/// A request of a worker whose parameters are right.
#[derive(Debug)]
pub enum WorkerRequest {
    /// `worker.register`
    Register {
        /// The remote agent types whose tasks it takes.
        types: Vec<String>,
        /// Tasks that it may hold at the same time.
        capacity: u32,
    },
    /// `worker.fetch`
    Fetch {
        /// Tasks at most.
        max: u32,
        /// How long to wait for the first.
        wait_ms: u64,
    },
    /// `worker.complete` and `worker.fail`
    End(Completion),
    /// `worker.extend`
    Extend {
        /// The task.
        id: TaskId,
        /// The attempt's fencing token.
        lease: u64,
        /// How long the lease is to last from now, milliseconds.
        extend_ms: u64,
    },
}

/// Reads the parameters of a worker's method; `None` when there is no such method.
pub fn parse(
    method: &str,
    params: &[u8],
    payload_bytes_max: usize,
) -> Result<Option<WorkerRequest>, Error> {
    Ok(Some(match method {
        "worker.register" => {
            let (types, capacity) = registration(params)?;
            WorkerRequest::Register { types, capacity }
        }
        "worker.fetch" => fetch(params)?,
        "worker.complete" => WorkerRequest::End(complete(params, payload_bytes_max)?),
        "worker.fail" => WorkerRequest::End(fail(params)?),
        "worker.extend" => extend(params)?,
        _ => return Ok(None),
    }))
}

impl WorkerRequest {
    /// Does what is asked for the worker of `session`.
    pub async fn run<G: Gateway>(
        self,
        gateway: Rc<G>,
        session: &WorkerSession,
    ) -> Result<Reply, Error> {
        match self {
            Self::Register { types, capacity } => {
                let worker = gateway.clone().register(types.clone(), capacity).await?;
                let registered = Registered { worker, types: types.into() };
                let before = session.registered.borrow_mut().replace(registered);
                if let Some(before) = before {
                    gateway.leave(before.worker).await;
                }
                Ok(Reply::Done)
            }
            Self::Fetch { max, wait_ms } => {
                let registered = session.registered.borrow().clone();
                let Registered { worker, types } = registered.ok_or_else(|| {
                    Error::Invalid("worker.fetch comes after worker.register".into())
                })?;
                let leased = gateway.fetch(worker, max, wait_ms).await?;
                Ok(Reply::Leased { leased, types })
            }
            Self::End(completion) => {
                let ended = gateway.end_attempts(vec![completion]).await?;
                ended.into_iter().next().unwrap_or(Ok(())).map(|()| Reply::Done)
            }
            Self::Extend { id, lease, extend_ms } => {
                gateway.extend(id, lease, extend_ms).await.map(|()| Reply::Done)
            }
        }
    }
}

fn fetch(params: &[u8]) -> Result<WorkerRequest, Error> {
    let (mut fields, mut max, mut wait_ms) = (Fields::of(params)?, 1, 0);
    while let Some(field) = fields.next()? {
        match field.name {
            "max" => max = field.at_most(FETCH_MAX)?.unwrap_or(1).max(1) as u32,
            "wait_ms" => wait_ms = field.uint()?.unwrap_or(0),
            _ => return Err(field.unknown()),
        }
    }
    Ok(WorkerRequest::Fetch { max, wait_ms })
}

fn complete(params: &[u8], payload_bytes_max: usize) -> Result<Completion, Error> {
    const NIL: u8 = 0xc0;
    let (mut fields, mut id, mut lease, mut result) = (Fields::of(params)?, None, None, None);
    while let Some(field) = fields.next()? {
        match field.name {
            "id" => id = field.parsed()?,
            "lease" => lease = field.uint()?,
            "result" => result = Some(field.payload(payload_bytes_max)?),
            _ => return Err(field.unknown()),
        }
    }
    let outcome = Ok(result.unwrap_or_else(|| vec![NIL]));
    Ok(Completion { id: required("id", id)?, lease: required("lease", lease)?, outcome })
}

fn fail(params: &[u8]) -> Result<Completion, Error> {
    let (mut fields, mut id, mut lease) = (Fields::of(params)?, None, None);
    let (mut error, mut retry) = (String::new(), true);
    while let Some(field) = fields.next()? {
        match field.name {
            "id" => id = field.parsed()?,
            "lease" => lease = field.uint()?,
            "error" => error = error_text(field.value),
            "retry" => retry = field.bool()?.unwrap_or(true),
            _ => return Err(field.unknown()),
        }
    }
    let outcome = Err(Failure { error, retry });
    Ok(Completion { id: required("id", id)?, lease: required("lease", lease)?, outcome })
}

/// The text of an error, cut to what is worth keeping.
fn error_text(value: &[u8]) -> String {
    const ERROR_CHARACTERS_MAX: usize = 1000;
    let text = Reader::new(value).str().unwrap_or("the worker gave a reason that is no text");
    text.chars().take(ERROR_CHARACTERS_MAX).collect()
}

fn extend(params: &[u8]) -> Result<WorkerRequest, Error> {
    let (mut fields, mut id, mut lease) = (Fields::of(params)?, None, None);
    let mut extend_ms = None;
    while let Some(field) = fields.next()? {
        match field.name {
            "id" => id = field.parsed()?,
            "lease" => lease = field.uint()?,
            "ms" => extend_ms = field.at_most(EXTEND_MS_MAX)?,
            _ => return Err(field.unknown()),
        }
    }
    Ok(WorkerRequest::Extend {
        id: required("id", id)?,
        lease: required("lease", lease)?,
        extend_ms: required("ms", extend_ms)?,
    })
}
