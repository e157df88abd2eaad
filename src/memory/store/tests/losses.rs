//! What is lost by damage, how long it is known, and how a folder gets whole again.

use super::{
    damage::{filled, flip},
    *,
};
use crate::memory::store::{
    repair::repair,
    survey::{Found, survey},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What `coreflow doctor --memory` tells.
fn found(folder: &Folder) -> Vec<Found> {
    let survey = survey(folder.path()).expect("the folder is read");
    survey.partitions.into_iter().flat_map(|partition| partition.found).collect()
}

/// Damages the text of an item, in the record that has it.
fn spoil(folder: &Folder, text: &str) -> PathBuf {
    for file in folder.files() {
        let bytes = fs::read(&file).unwrap();
        let at = bytes.windows(text.len()).position(|window| window == text.as_bytes());
        if let Some(at) = at {
            flip(&file, at as u64 * 8);
            return file;
        }
    }
    panic!("{text:?} is in no file");
}

fn shorten(file: &Path, bytes: u64) {
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

/// Looks at all records, as a core does after a start.
fn look(partition: &mut Partition) {
    run(partition, |partition| match partition.look() {
        Step::Wait(pieces) => Step::Wait(pieces),
        Step::Done(worked) => Step::Done((!worked).then_some(())),
    });
}

/// The items that are there, which must be as they were at some time; those that are not must be told.
fn check(partition: &mut Partition, items: &BTreeMap<String, MemoryItem>) -> usize {
    let mut there = 0;
    for (place, wanted) in items.values().enumerate() {
        let is_told = partition.damages().count > 0;
        match get(partition, &wanted.key) {
            Ok(found) if found == *wanted => there += 1,
            Ok(found) => {
                let value = found.vector[0];
                let older = item(&wanted.key, value);
                assert!(is_told && found == older && value < 40.0, "item {place}: {found:?}");
            }
            Err(error) => assert!(is_told, "{error}"),
        }
    }
    there
}

#[test]
fn a_file_that_was_shortened_is_named_and_what_is_intact_is_there() {
    for (which, bytes) in [(0, 1000), (0, 0), (1, 2000), (1, 10), (2, 500)] {
        for has_checkpoint in [true, false] {
            let folder = Folder::new("short");
            let items = filled(&folder);
            if !has_checkpoint {
                fs::remove_file(folder.path().join("0000.ckpt")).unwrap();
            }
            let file = folder.files()[which].clone();
            shorten(&file, bytes);
            let short = format!("{}: it has {bytes} bytes and was made with 4096", file.display());
            let told: Vec<_> = found(&folder).iter().map(|it| it.damage.to_string()).collect();
            assert!(told.contains(&short), "{which} {bytes}: {told:?}");
            let (mut partition, store) = open(&settings(Some(&folder)));
            look(&mut partition);
            let told: Vec<_> = partition.damages().told.iter().map(ToString::to_string).collect();
            assert!(told.contains(&short), "{which} {bytes}: {told:?}");
            let there = check(&mut partition, &items);
            // The newest of half the items lie in the file that is cut at the most.
            assert!(there >= 5, "{which} {bytes} {has_checkpoint}: {there}");
            // It goes on, and a later start still knows.
            put(&mut partition, &item("later", 77.0)).unwrap();
            partition.close().unwrap();
            drop((partition, store));
            let (mut partition, _store) = open(&settings(Some(&folder)));
            assert!(partition.damages().count > 0);
            assert_eq!(get(&mut partition, "later"), Ok(item("later", 77.0)));
            assert_eq!(check(&mut partition, &items), there);
        }
    }
}

#[test]
fn a_live_record_that_a_checkpoint_covers_is_found_damaged_after_the_start() {
    let folder = Folder::new("covered");
    filled(&folder);
    spoil(&folder, "text of key-4 is 24");
    let (mut partition, store) = open(&settings(Some(&folder)));
    assert!(partition.is_looking(), "records are looked at because they were not read");
    look(&mut partition);
    assert_eq!(partition.damages().count, 1);
    assert_eq!(partition.len(), 19);
    let error = get(&mut partition, "key-4").unwrap_err();
    assert!(error.to_string().contains("space/key-4"), "{error}");
    partition.close().unwrap();
    drop((partition, store));
    // A later start knows it from the checkpoint, before any record is looked at.
    let (mut partition, store) = open(&settings(Some(&folder)));
    assert_eq!((partition.damages().count, partition.damages().present()), (1, 1));
    assert_eq!(get(&mut partition, "key-4").unwrap_err().code(), "unavailable");
    // Until it is stored again.
    assert_eq!(put(&mut partition, &item("key-4", 5.0)), Ok(true));
    assert_eq!(partition.damages().present(), 0);
    partition.close().unwrap();
    drop((partition, store));
    assert_eq!(open(&settings(Some(&folder))).0.damages().count, 0);
}

#[test]
fn damage_of_what_was_replaced_is_harmless_and_a_repair_drops_it() {
    let folder = Folder::new("replaced");
    let items = filled(&folder);
    let file = spoil(&folder, "text of key-4 is 4");
    let before = found(&folder);
    assert_eq!(before.len(), 1);
    assert!(before[0].is_harmless && before[0].damage.file == file.display().to_string());
    let repaired = repair(folder.path(), 32).unwrap();
    assert_eq!((repaired.found, repaired.items), (before, 20));
    assert_eq!(found(&folder), []);
    let (mut partition, _store) = open(&settings(Some(&folder)));
    assert_eq!((partition.damages().count, check(&mut partition, &items)), (0, 20));
}

#[test]
fn a_damaged_checkpoint_is_told_and_a_repair_makes_another() {
    let folder = Folder::new("bad-checkpoint");
    let items = filled(&folder);
    flip(&folder.path().join("0000.ckpt"), 999);
    let before = found(&folder);
    assert_eq!(before.len(), 1);
    assert!(before[0].is_harmless && before[0].damage.to_string().contains("0000.ckpt"));
    repair(folder.path(), 32).unwrap();
    assert_eq!(found(&folder), []);
    let (mut partition, _store) = open(&settings(Some(&folder)));
    assert!(partition.is_looking(), "there is a checkpoint");
    assert_eq!(check(&mut partition, &items), 20);
}

#[test]
fn a_repair_of_what_is_whole_changes_nothing() {
    let folder = Folder::new("whole");
    filled(&folder);
    let read = || {
        let files = folder.files();
        files.into_iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>()
    };
    let before = read();
    let repaired = repair(folder.path(), 32).unwrap();
    assert_eq!((repaired.found, repaired.copied), (Vec::new(), 0));
    assert_eq!(read(), before);
}

#[test]
fn a_file_that_is_gone_is_done_without_after_a_repair() {
    for which in 0..3 {
        let folder = Folder::new("gone-repair");
        let items = filled(&folder);
        let file = folder.files()[which].clone();
        fs::remove_file(&file).unwrap();
        let repaired = repair(folder.path(), 32).unwrap();
        let told: Vec<_> = repaired.found.iter().map(|it| it.damage.to_string()).collect();
        assert!(told.contains(&format!("{}: it is missing", file.display())), "{told:?}");
        assert_eq!(found(&folder), [], "{which}: {told:?}");
        let (mut partition, _store) = open(&settings(Some(&folder)));
        assert_eq!(partition.len() as u64, repaired.items);
        let there = items.values().filter(|it| get(&mut partition, &it.key).as_ref() == Ok(*it));
        assert_eq!(there.count() as u64, repaired.items);
    }
}

#[test]
fn a_damaged_record_does_not_keep_segments_from_being_freed() {
    let folder = Folder::new("stuck");
    let (mut partition, _store) = open(&settings(Some(&folder)));
    put(&mut partition, &item("spoilt", 99.0)).unwrap();
    put(&mut partition, &item("kept", 98.0)).unwrap();
    // Its head cannot be read.
    flip(&folder.files()[0], 64 * 8 + 20 * 8);
    for round in 0..400 {
        put(&mut partition, &item(&format!("key-{}", round % 10), (round % 90) as f32)).unwrap();
        run(&mut partition, |partition| match partition.move_some() {
            Step::Wait(pieces) => Step::Wait(pieces),
            Step::Done(moved) => Step::Done(Some(moved)),
        });
        look(&mut partition);
    }
    partition.settle().unwrap();
    assert!(folder.files().len() <= 6, "{:?}", folder.files());
    assert_eq!(partition.damages().count, 1);
    assert_eq!(get(&mut partition, "spoilt").unwrap_err().code(), "unavailable");
    assert_eq!(get(&mut partition, "kept"), Ok(item("kept", 98.0)));
}

/// Something that happens to a file.
#[derive(Clone, Debug)]
enum Harm {
    Flip(prop::sample::Index, prop::sample::Index),
    Shorten(prop::sample::Index, prop::sample::Index),
    Remove(prop::sample::Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    let index = || any::<prop::sample::Index>();
    prop_oneof![
        4 => (index(), index()).prop_map(|(file, bit)| Harm::Flip(file, bit)),
        2 => (index(), index()).prop_map(|(file, length)| Harm::Shorten(file, length)),
        1 => index().prop_map(Harm::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happened_to_the_files_a_repair_keeps_what_can_be_read_and_all_is_well_again(
        harms in prop::collection::vec(harm(), 1..6)
    ) {
        let folder = Folder::new("repair");
        let items = filled(&folder);
        let mut files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().path()).collect();
        files.sort();
        // All but the lock; the head and the list not both, which nobody could make again.
        files.retain(|file| !file.ends_with("lock") && !file.ends_with("head"));
        for harm in harms {
            match harm {
                Harm::Flip(file, bit) => {
                    let file = file.get(&files);
                    let bits = fs::metadata(file).map_or(0, |it| it.len()) * 8;
                    if bits > 0 {
                        flip(file, bit.index(bits as usize) as u64);
                    }
                }
                Harm::Shorten(file, length) => {
                    let file = file.get(&files);
                    let bytes = fs::metadata(file).map_or(0, |it| it.len());
                    if bytes > 0 {
                        shorten(file, length.index(bytes as usize) as u64);
                    }
                }
                Harm::Remove(file) => {
                    let _ = fs::remove_file(file.get(&files));
                }
            }
        }
        let before = found(&folder);
        let repaired = repair(folder.path(), 32).unwrap();
        prop_assert!(before.is_empty() || !repaired.found.is_empty());
        prop_assert_eq!(found(&folder), []);
        let (mut partition, _store) = open(&settings(Some(&folder)));
        look(&mut partition);
        prop_assert_eq!(partition.damages().count, 0);
        prop_assert!(repaired.found.is_empty() || repaired.items == partition.len() as u64);
        let mut wrong = 0;
        for wanted in items.values() {
            match get(&mut partition, &wanted.key) {
                Ok(found) if found == *wanted => {}
                Ok(found) => {
                    prop_assert_eq!(&found, &item(&wanted.key, found.vector[0]));
                    wrong += 1;
                }
                Err(error) => {
                    prop_assert_eq!(error.code(), "not_found");
                    wrong += 1;
                }
            }
        }
        prop_assert!(wrong == 0 || !before.is_empty(), "{wrong} are lost and nothing was told");
        put(&mut partition, &item("key-3", 55.0)).unwrap();
        prop_assert_eq!(get(&mut partition, "key-3"), Ok(item("key-3", 55.0)));
    }
}
