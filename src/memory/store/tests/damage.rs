//! Files that were changed behind the store's back.

use super::*;
use crate::memory::{cases::cases, store::record::UNIT_BYTES};
use proptest::prelude::*;
use std::{collections::BTreeMap, fs, os::unix::fs::FileExt};

/// What stands in the head of a record that is a seal.
const SEAL: u8 = 3;

/// A closed store with items `key-0` to `key-19`, each replaced once.
pub fn filled(folder: &Folder) -> BTreeMap<String, MemoryItem> {
    let (mut partition, _store) = open(&settings(Some(folder)));
    let mut items = BTreeMap::new();
    for round in 0..40 {
        let item = item(&format!("key-{}", round % 20), round as f32);
        put(&mut partition, &item).unwrap();
        items.insert(item.key.clone(), item);
    }
    partition.close().unwrap();
    items
}

pub fn flip(file: &Path, bit: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).unwrap();
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn a_flipped_bit_loses_one_item_at_most_and_is_told(position in any::<prop::sample::Index>()) {
        let folder = Folder::new("flip");
        let items = filled(&folder);
        // The records are what is looked at.
        fs::remove_file(folder.path().join("0000.ckpt")).unwrap();
        let files = folder.files();
        let bits = fs::metadata(&files[0]).unwrap().len() * 8;
        let bit = position.index(bits as usize * files.len()) as u64;
        let before = fs::read(&files[(bit / bits) as usize]).unwrap();
        flip(&files[(bit / bits) as usize], bit % bits);
        let (mut partition, _store) = open(&settings(Some(&folder)));
        let wrong: Vec<_> = items
            .values()
            .filter(|item| get(&mut partition, &item.key).as_ref() != Ok(*item))
            .collect();
        prop_assert!(wrong.len() <= 1, "{wrong:?}");
        let is_told = partition.damages().count > 0;
        let was_zero = before[(bit % bits / 8) as usize] == 0;
        // The very last record holds nothing, and damage of it looks like a write that was cut off.
        let unit = &before[(bit % bits / 8) as usize / UNIT_BYTES * UNIT_BYTES..][..UNIT_BYTES];
        let is_seal = unit[8..13] == [UNIT_BYTES as u8, 0, 0, 0, SEAL];
        let may_be_silent = wrong.is_empty() && (was_zero || is_seal);
        prop_assert!(is_told || may_be_silent, "bit {bit} of {bits}");
        for item in wrong {
            // An older record of the same item can be taken for the newest only where the head
            // itself is damaged, which says which item it was.
            match get(&mut partition, &item.key) {
                Err(_) => {}
                Ok(other) => prop_assert!(is_told && other.key == item.key),
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn a_damaged_checkpoint_costs_time_and_nothing_else(
        position in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let folder = Folder::new("checkpoint");
        let items = filled(&folder);
        let file = folder.path().join("0000.ckpt");
        let bytes = fs::metadata(&file).unwrap().len();
        let bit = position.index(bytes as usize * 8) as u64;
        match is_cut {
            true => fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(bit / 8).unwrap(),
            false => flip(&file, bit),
        }
        let (mut partition, _store) = open(&settings(Some(&folder)));
        for item in items.values() {
            prop_assert_eq!(get(&mut partition, &item.key), Ok(item.clone()));
            let query = MemoryQuery { vector: item.vector.clone(), k: 1, ..MemoryQuery::default() };
            prop_assert_eq!(&search(&mut partition, query).unwrap()[0].key, &item.key);
        }
        prop_assert_eq!(partition.len(), items.len());
        prop_assert_eq!(partition.damages().count, 0);
    }
}

#[test]
fn a_bit_that_flips_under_a_running_store_is_told_and_never_answered_with() {
    let folder = Folder::new("running");
    let (mut partition, _store) = open(&settings(Some(&folder)));
    for key in 0..10 {
        put(&mut partition, &item(&format!("key-{key}"), key as f32)).unwrap();
    }
    let file = &folder.files()[0];
    let bytes = fs::read(file).unwrap();
    let text = b"text of key-4 is 4";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    flip(file, at as u64 * 8);
    let error = get(&mut partition, "key-4").unwrap_err();
    assert_eq!(error.code(), "unavailable");
    assert!(error.to_string().contains("0000-00000000.rec"), "{error}");
    assert!(error.to_string().contains("space/key-4"), "{error}");
    let query = MemoryQuery { vector: item("", 4.0).vector, k: 10, ..MemoryQuery::default() };
    let hits = search(&mut partition, query).unwrap();
    assert_eq!(hits.len(), 9);
    assert!(hits.iter().all(|hit| hit.key != "key-4"));
    assert_eq!(partition.damages().count, 1);
    // It can be stored again.
    assert_eq!(put(&mut partition, &item("key-4", 5.0)), Ok(true));
    assert_eq!(get(&mut partition, "key-4"), Ok(item("key-4", 5.0)));
    assert_eq!(partition.len(), 10);
}

#[test]
fn a_damaged_item_is_known_as_such_after_a_start_and_its_older_record_does_not_answer() {
    let folder = Folder::new("known");
    filled(&folder);
    fs::remove_file(folder.path().join("0000.ckpt")).unwrap();
    for file in folder.files() {
        let bytes = fs::read(&file).unwrap();
        let text = b"text of key-4 is 24";
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
            flip(&file, at as u64 * 8);
        }
    }
    let (mut partition, _store) = open(&settings(Some(&folder)));
    let error = get(&mut partition, "key-4").unwrap_err();
    assert!(error.to_string().contains("space/key-4"), "{error}");
    assert_eq!(partition.damages().count, 1);
    assert_eq!(delete(&mut partition, "key-4"), Ok(true));
    assert_eq!(get(&mut partition, "key-4").unwrap_err().code(), "not_found");
}

#[test]
fn a_file_between_others_that_is_missing_refuses_the_start() {
    let folder = Folder::new("missing");
    filled(&folder);
    let files = folder.files();
    assert!(files.len() > 2, "{files:?}");
    fs::remove_file(&files[1]).unwrap();
    let error = Store::open(&settings(Some(&folder))).err().expect("it is refused");
    assert!(error.to_string().contains("0000-00000001.rec is missing"), "{error}");
}

#[test]
fn another_dimension_or_metric_is_refused_with_what_to_do() {
    let folder = Folder::new("other");
    filled(&folder);
    let other = StoreSettings { dimension: 5, ..settings(Some(&folder)) };
    let error = Store::open(&other).err().expect("it is refused").to_string();
    assert!(error.contains("vectors of 4 numbers") && error.contains("memory.folder"), "{error}");
    let other = StoreSettings { metric: Metric::Dot, ..settings(Some(&folder)) };
    assert!(Store::open(&other).is_err());
}

#[test]
fn a_folder_is_one_stores_alone() {
    let folder = Folder::new("alone");
    let _first = open(&settings(Some(&folder)));
    let error = Store::open(&settings(Some(&folder))).err().expect("it is refused").to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
}
