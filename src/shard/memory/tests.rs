//! What a core does with records that are not in memory.

use super::*;
use crate::{
    memory::{
        store::{Region, Store, StoreSettings},
        thread,
    },
    runtime::doorbell::Doorbell,
    wire::memory::{MemoryItem, MemoryQuery, Metric},
};
use std::{fs, path::PathBuf, sync::Arc};

/// Beyond any wait of these tests.
const DEADLINE: Duration = Duration::from_secs(30);
const ITEMS: u16 = 200;

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn item(number: u16) -> MemoryItem {
    MemoryItem {
        key: format!("key-{number}"),
        namespace: "space".to_owned(),
        vector: (0..64).map(|at| f32::from(number) + at as f32).collect(),
        text: None,
        metadata: vec![0x80],
    }
}

fn settings(folder: &Folder) -> StoreSettings {
    StoreSettings {
        folder: Some(folder.0.clone()),
        dimension: 64,
        metric: Metric::Euclidean,
        partitions: 1,
        ef_construction: 32,
        items_max: 1000,
        segment_bytes: 1 << 20,
        embedder: String::new(),
    }
}

/// Goes on until something is answered; counts how often records were waited for.
fn answer(memory: &mut Memory, waited: &mut usize) -> Response {
    let deadline = Instant::now() + DEADLINE;
    loop {
        memory.take_answers();
        while memory.look(0) {}
        if let Some(operation) = memory.operations.pop_front() {
            let before = memory.waits.len();
            memory.step(operation);
            *waited += memory.waits.len() - before;
            if let Some((_, response)) = memory.answers.pop() {
                return response;
            }
        }
        memory.flush();
        // Where one thread runs at a time the others have their turn.
        std::thread::yield_now();
        assert!(Instant::now() < deadline, "nothing is answered");
    }
}

#[test]
fn cold_records_are_waited_for_aside_and_then_answered_with() {
    let name = format!("coreflow-cold-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    fs::remove_dir_all(&folder.0).ok();
    let mut store = Store::open(&settings(&folder)).unwrap();
    let partition = &mut store.partitions[0];
    partition.prepare();
    partition.settle().unwrap();
    for number in 0..ITEMS {
        partition.put(&item(number), number.into()).unwrap();
    }
    partition.settle().unwrap();
    let regions: Vec<Arc<Region>> = partition.log().regions().collect();
    let (bell, partitions) = (Doorbell::new().unwrap(), std::mem::take(&mut store.partitions));
    let (threads, mut desks) = thread::start(&[bell], None, regions.clone()).unwrap();
    let mut memory = Memory::new(0, 1, partitions, 50, desks.pop());
    let ask = |memory: &mut Memory, request| {
        memory.ask(0, 1, request);
        assert!(memory.answers.is_empty(), "nothing is known at once");
    };
    let search = |number: u16| {
        let query = MemoryQuery { vector: item(number).vector, k: 5, ..MemoryQuery::default() };
        Request::MemorySearch(0, query)
    };
    // Warm, nothing is waited for.
    let mut waited = 0;
    ask(&mut memory, Request::MemoryGet(0, "space".to_owned(), "key-7".to_owned()));
    assert!(matches!(answer(&mut memory, &mut waited), Response::MemoryItem(it) if it == item(7)));
    assert_eq!(waited, 0);
    for number in [7, 100, 199] {
        // A file system in memory forgets nothing.
        regions.iter().for_each(|region| region.forget().unwrap());
        let is_cold = !regions[0].is_resident(0, regions[0].readable());
        let before = waited;
        ask(&mut memory, Request::MemoryGet(0, "space".to_owned(), format!("key-{number}")));
        let got = answer(&mut memory, &mut waited);
        assert!(matches!(got, Response::MemoryItem(it) if it == item(number)));
        assert!(waited > before || !is_cold, "a cold record was read on the core");
        regions.iter().for_each(|region| region.forget().unwrap());
        let before = waited;
        ask(&mut memory, search(number));
        let Response::MemoryHits(hits) = answer(&mut memory, &mut waited) else {
            panic!("a search is answered with hits");
        };
        assert_eq!((hits.len(), &*hits[0].key), (5, &*format!("key-{number}")));
        assert!(waited > before || !is_cold, "cold records were read on the core");
        if !is_cold {
            eprintln!("the folder for temporary files is in memory: nothing was cold");
        }
    }
    assert!(memory.waits.is_empty());
    drop(threads);
    memory.close().unwrap();
    drop(store);
}

#[test]
fn records_that_cannot_be_read_fail_what_asked_for_them_and_are_tried_again_for_the_rest() {
    let name = format!("coreflow-unreadable-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    fs::remove_dir_all(&folder.0).ok();
    let store = Store::open(&StoreSettings { folder: None, ..settings(&folder) }).unwrap();
    let mut memory = Memory::new(0, 1, store.partitions, 50, None);
    let broken = || Err(io::Error::from_raw_os_error(5));
    let what = What::Get("space".to_owned(), "key".to_owned());
    let asker = Asker { core: 0, correlation: 9 };
    memory.waits.insert(1, Waits::Operation(Operation { asker, partition: 0, what }));
    memory.go_on_after(1, broken());
    assert!(memory.operations.is_empty(), "it is not tried for ever");
    let (told, response) = memory.answers.pop().expect("who asked is told");
    assert_eq!(told.correlation, 9);
    assert!(matches!(response, Response::Failed(Error::Unavailable(_))), "{response:?}");
    for waits in [Waits::Apply(0), Waits::Move(0), Waits::Look(0), Waits::Tidy(0)] {
        memory.waits.insert(2, waits);
        memory.go_on_after(2, broken());
    }
    let kept = &mut memory.kept[0];
    (kept.applying_waits, kept.moving_waits, kept.looking_waits) = (true, true, true);
    kept.tidying_waits = true;
    memory.read_again();
    assert!(memory.has_departures() && memory.kept[0].applying_waits, "not at once");
    memory.unreadable.iter_mut().for_each(|(at, _)| *at = Instant::now());
    memory.read_again();
    let kept = &memory.kept[0];
    assert!(!kept.applying_waits && !kept.moving_waits);
    assert!(!kept.looking_waits && !kept.tidying_waits);
    assert!(!memory.has_departures());
}
