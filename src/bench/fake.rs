//! A node of a few lines for the tests of the measured clients: one thread a connection, tasks in
//! a map, no log.

use super::work;
use crate::{
    client::{Params, View},
    wire::{
        id::TaskId,
        msgpack::{Scan, Scanner, write},
    },
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

/// What the connections share.
#[derive(Default)]
struct State {
    queue: VecDeque<(String, Vec<u8>)>,
    status: BTreeMap<String, &'static str>,
    /// Tasks that a worker was given.
    taken: BTreeMap<String, Vec<u8>>,
    keys: HashMap<String, String>,
    stale: HashSet<u32>,
    /// Numbers whose tasks are accepted and then forgotten.
    forget: HashSet<u32>,
    requests: u64,
    /// After so many requests every connection ends, once.
    die_after: Option<u64>,
}

/// The node; its threads end with their connections.
pub(super) struct Node {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Node {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let state = shared.clone();
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next completion of that number is refused.
    pub(super) fn make_stale(&self, number: u32) {
        self.state().stale.insert(number);
    }

    /// The task of that number is lost once it was accepted.
    pub(super) fn forget(&self, number: u32) {
        self.state().forget.insert(number);
    }

    /// Connections are served again, and what workers had taken is given out again.
    pub(super) fn revive(&self) {
        let mut state = self.state();
        state.die_after = None;
        let State { queue, status, taken, .. } = &mut *state;
        taken.retain(|id, _| status.get(id) == Some(&"queued"));
        queue.extend(std::mem::take(taken));
    }

    /// All connections end after so many requests from now on, with whatever was not answered.
    pub(super) fn die_after(&self, requests: u64) {
        let mut state = self.state();
        state.die_after = Some(state.requests + requests);
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut scanner = Scanner::new(1 << 24);
    let (mut received, mut piece, mut out) = (Vec::new(), vec![0; 1 << 16], Vec::new());
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        received.extend_from_slice(&piece[..length]);
        let mut taken = 0;
        while let Scan::Complete(length) = scanner.scan(&received[taken..]) {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.requests += 1;
            if state.die_after.is_some_and(|last| state.requests > last) {
                return;
            }
            answer(View::new(&received[taken..taken + length]), &mut state, &mut out);
            taken += length;
        }
        received.drain(..taken);
        if stream.write_all(&out).is_err() {
            return;
        }
        out.clear();
    }
}

fn answer(request: View<'_>, state: &mut State, out: &mut Vec<u8>) {
    let parts: Vec<_> = request.items().collect();
    let (msgid, method) = (parts[1].uint().unwrap(), parts[2].str().unwrap());
    let params = parts[3].items().next().unwrap();
    let outcome = perform(method, params, state);
    write::array(out, 4);
    write::uint(out, 1);
    write::uint(out, msgid);
    match outcome {
        Ok(result) => {
            write::nil(out);
            write::raw(out, &result);
        }
        Err(code) => {
            Params::new().str("code", code).str("message", code).write(out);
            write::nil(out);
        }
    }
}

fn perform(method: &str, params: View<'_>, state: &mut State) -> Result<Vec<u8>, &'static str> {
    let text = |name| params.get(name).and_then(View::str);
    let answer = match method {
        "task.submit" => {
            let id = submit(params, state);
            Params::new().str("id", &id)
        }
        "task.status" => {
            let status = state.status.get(text("id").ok_or("invalid")?).ok_or("not_found")?;
            Params::new().str("status", status)
        }
        "worker.register" => Params::new(),
        "worker.fetch" => {
            let max = params.get("max").and_then(View::uint).ok_or("invalid")? as usize;
            let taken: Vec<_> = state.queue.drain(..max.min(state.queue.len())).collect();
            state.taken.extend(taken.iter().cloned());
            Params::new().with("tasks", |out| {
                write::array(out, taken.len());
                for (id, payload) in &taken {
                    let task = Params::new().str("id", id).value("payload", payload);
                    task.uint_if("lease", Some(1)).write(out);
                }
            })
        }
        "worker.complete" => {
            let number = params.get("result").and_then(View::uint).ok_or("invalid")? as u32;
            if state.stale.remove(&number) {
                return Err("stale_lease");
            }
            state.status.insert(text("id").ok_or("invalid")?.to_owned(), "done");
            Params::new()
        }
        _ => return Err("not_found"),
    };
    let mut bytes = Vec::new();
    answer.write(&mut bytes);
    Ok(bytes)
}

fn submit(params: View<'_>, state: &mut State) -> String {
    let payload = params.get("payload").unwrap();
    let key = params.get("key").and_then(View::str);
    if let Some(id) = key.and_then(|key| state.keys.get(key)) {
        return id.clone();
    }
    let id = TaskId { partition: 0, random: state.keys.len() as u128 + state.requests as u128 };
    let id = id.to_string();
    if let Some(key) = key {
        state.keys.insert(key.to_owned(), id.clone());
    }
    if !work::number_in(payload).is_some_and(|number| state.forget.contains(&number)) {
        state.queue.push_back((id.clone(), payload.bytes().to_vec()));
        state.status.insert(id.clone(), "queued");
    }
    id
}
