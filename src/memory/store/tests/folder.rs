//! Folders from which whole files were taken away, and what a start makes of them.

use super::{damage::filled, *};
use crate::memory::{
    cases::cases,
    store::{
        files::list_name,
        folder::{self, HEAD_NAME},
        head::StoreHead,
        repair::repair,
        survey::survey,
    },
};
use proptest::prelude::*;

fn refusal(folder: &Folder) -> String {
    Store::open(&settings(Some(folder))).err().expect("it is refused").to_string()
}

/// The damage that `coreflow doctor --memory` tells.
fn told(folder: &Folder) -> Vec<String> {
    let survey = survey(folder.path()).expect("the folder is read");
    let found = survey.partitions.into_iter().flat_map(|partition| partition.found);
    found.map(|found| found.damage.to_string()).collect()
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn any_record_file_that_is_gone_refuses_the_start_and_is_told(
        which in any::<prop::sample::Index>(),
        has_checkpoint in any::<bool>(),
    ) {
        let folder = Folder::new("gone");
        filled(&folder);
        if !has_checkpoint {
            fs::remove_file(folder.path().join("0000.ckpt")).unwrap();
        }
        let files = folder.files();
        let file = which.get(&files);
        fs::remove_file(file).unwrap();
        let missing = format!("{}", file.display());
        let error = refusal(&folder);
        prop_assert!(error.contains(&format!("{missing} is missing")), "{error}");
        let told = told(&folder);
        prop_assert!(told.contains(&format!("{missing}: it is missing")), "{told:?}");
        // Nothing was made or changed: the file can be brought back.
        prop_assert_eq!(folder.files().len(), files.len() - 1);
    }
}

#[test]
fn a_partition_whose_files_are_all_gone_refuses_the_start() {
    let folder = Folder::new("all-gone");
    filled(&folder);
    let count = folder.files().len();
    folder.files().iter().for_each(|file| fs::remove_file(file).unwrap());
    fs::remove_file(folder.path().join("0000.ckpt")).unwrap();
    let error = refusal(&folder);
    let more = format!("0000-00000000.rec is missing, and {} more", count - 1);
    assert!(error.contains(&more), "{error}");
}

#[test]
fn a_head_that_is_gone_makes_no_new_memory_and_is_made_again_by_a_repair() {
    let folder = Folder::new("no-head");
    let items = filled(&folder);
    let head = fs::read(folder.path().join(HEAD_NAME)).unwrap();
    for content in [None, Some(&b"no head at all\xff"[..])] {
        fs::remove_file(folder.path().join(HEAD_NAME)).unwrap();
        if let Some(content) = content {
            fs::write(folder.path().join(HEAD_NAME), content).unwrap();
        }
        let error = refusal(&folder);
        assert!(error.contains("head") && error.contains("--repair"), "{error}");
        assert!(survey(folder.path()).is_err());
        let repaired = repair(folder.path(), 32).unwrap();
        assert_eq!((repaired.found.len(), repaired.items), (1, items.len() as u64));
        assert_eq!(fs::read(folder.path().join(HEAD_NAME)).unwrap(), head);
        assert_eq!(told(&folder), [""; 0]);
    }
    let (mut partition, _store) = open(&settings(Some(&folder)));
    for item in items.values() {
        assert_eq!(get(&mut partition, &item.key).as_ref(), Ok(item));
    }
}

#[test]
fn without_head_and_lists_it_is_said_what_to_bring_back_and_what_is_lost_otherwise() {
    let folder = Folder::new("headless");
    let items = filled(&folder);
    let (head, list) = (folder.path().join(HEAD_NAME), folder.path().join(list_name(0)));
    let (head_was, list_was) = (fs::read(&head).unwrap(), fs::read(&list).unwrap());
    fs::write(&list, &list_was[1..]).unwrap();
    for content in [None, Some(b"no head")] {
        fs::remove_file(&head).unwrap();
        if let Some(content) = content {
            fs::write(&head, content).unwrap();
        }
        let by_repair =
            repair(folder.path(), 32).expect_err("nothing says what is there").to_string();
        let by_survey = survey(folder.path()).expect_err("it cannot be read").to_string();
        for error in [refusal(&folder), by_survey, by_repair] {
            for part in ["From a copy of this folder bring back head", "its items are lost"] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
        fs::write(&head, b"so that there is one to remove").unwrap();
    }
    // What it says is so: either of them is enough.
    fs::write(&head, &head_was).unwrap();
    assert_eq!(repair(folder.path(), 32).unwrap().items, items.len() as u64);
    let list_now = fs::read(&list).unwrap();
    fs::remove_file(&head).unwrap();
    fs::write(&list, &list_now).unwrap();
    assert_eq!(repair(folder.path(), 32).unwrap().items, items.len() as u64);
    assert_eq!(told(&folder), [""; 0]);
}

#[test]
fn a_head_that_is_gone_before_anything_was_stored_is_made_again() {
    let folder = Folder::new("empty");
    drop(open(&settings(Some(&folder))));
    fs::remove_file(folder.path().join(HEAD_NAME)).unwrap();
    drop(open(&settings(Some(&folder))));
    assert!(folder.path().join(HEAD_NAME).exists());
}

#[test]
fn a_head_of_another_folder_is_refused() {
    let (folder, other) = (Folder::new("head-one"), Folder::new("head-other"));
    let items = filled(&folder);
    filled(&other);
    let head = folder.path().join(HEAD_NAME);
    let own = fs::read(&head).unwrap();
    fs::copy(other.path().join(HEAD_NAME), &head).unwrap();
    let error = refusal(&folder);
    assert!(error.contains(&list_name(0)), "{error}");
    // Nothing was lost by the attempt.
    fs::write(&head, own).unwrap();
    let (mut partition, _store) = open(&settings(Some(&folder)));
    assert_eq!(partition.len(), items.len());
    assert_eq!(get(&mut partition, "key-3").as_ref(), Ok(&items["key-3"]));
}

#[test]
fn a_list_that_is_gone_or_damaged_refuses_the_start_and_is_made_again_by_a_repair() {
    let folder = Folder::new("list");
    let items = filled(&folder);
    let list = folder.path().join(list_name(0));
    let content = fs::read(&list).unwrap();
    for is_gone in [true, false] {
        match is_gone {
            true => fs::remove_file(&list).unwrap(),
            false => fs::write(&list, &content[1..]).unwrap(),
        }
        assert!(refusal(&folder).contains(&list_name(0)));
        assert_eq!(told(&folder).len(), 1);
        let repaired = repair(folder.path(), 32).unwrap();
        assert_eq!((repaired.items, repaired.copied), (items.len() as u64, 0));
        assert_eq!(told(&folder), [""; 0]);
    }
    assert_eq!(open(&settings(Some(&folder))).0.len(), items.len());
}

#[test]
fn a_folder_of_the_first_format_is_taken_over_and_its_files_are_missed_from_then_on() {
    let folder = Folder::new("first-format");
    let items = filled(&folder);
    let head = folder::read_head(folder.path()).unwrap().unwrap();
    let first = StoreHead { segment_bytes: None, embedder: String::new(), ..head };
    folder::write_head(folder.path(), &first).unwrap();
    fs::remove_file(folder.path().join(list_name(0))).unwrap();
    // A file that was being made when the node died.
    let torn = folder.path().join(format!("0000-{:08}.rec", folder.files().len()));
    fs::write(&torn, [0; 100]).unwrap();
    assert_eq!(told(&folder).len(), 1, "only the torn file is too short");
    let (mut partition, store) = open(&settings(Some(&folder)));
    for item in items.values() {
        assert_eq!(get(&mut partition, &item.key).as_ref(), Ok(item));
    }
    assert_eq!(partition.damages().count, 0);
    partition.close().unwrap();
    drop((partition, store));
    fs::remove_file(&folder.files()[0]).unwrap();
    assert!(refusal(&folder).contains("0000-00000000.rec is missing"));
}

#[test]
fn a_checkpoint_without_the_files_that_it_knows_is_missed_in_the_first_format_too() {
    let folder = Folder::new("first-format-gone");
    filled(&folder);
    let head = folder::read_head(folder.path()).unwrap().unwrap();
    let first = StoreHead { segment_bytes: None, embedder: String::new(), ..head };
    folder::write_head(folder.path(), &first).unwrap();
    fs::remove_file(folder.path().join(list_name(0))).unwrap();
    folder.files().iter().for_each(|file| fs::remove_file(file).unwrap());
    let error = refusal(&folder);
    assert!(error.contains("is missing"), "{error}");
}

#[test]
fn texts_are_not_mixed_with_those_of_another_embedder() {
    let folder = Folder::new("embedder");
    let by =
        |embedder: &str| StoreSettings { embedder: embedder.to_owned(), ..settings(Some(&folder)) };
    let vector_alone = MemoryItem { text: None, ..item("vector", 1.0) };
    let (mut partition, store) = open(&by("lexical"));
    put(&mut partition, &vector_alone).unwrap();
    partition.close().unwrap();
    drop((partition, store));
    // Nothing was made of a text: the embedder may change.
    let (mut partition, store) = open(&by("model-1"));
    put(&mut partition, &item("text", 2.0)).unwrap();
    partition.close().unwrap();
    drop((partition, store));
    let error = Store::open(&by("model-2")).err().expect("it is refused").to_string();
    for part in ["\"model-1\"", "\"model-2\"", "memory.folder", "memory.embedder_model"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // Without an embedder nothing is made of texts, and who made them is not forgotten.
    drop(open(&by("")));
    assert!(Store::open(&by("model-2")).is_err());
    let (mut partition, store) = open(&by("model-1"));
    assert_eq!(delete(&mut partition, "text"), Ok(true));
    partition.close().unwrap();
    drop((partition, store));
    assert_eq!(get(&mut open(&by("model-2")).0, "vector"), Ok(vector_alone));
}
