//! What files of vectors are read as, and which are refused.

use super::*;
use proptest::prelude::*;
use std::io::Cursor;

/// A file as NumPy writes it: version 1.
fn npy(head: &str, numbers: &[u8]) -> Vec<u8> {
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    let length = (head.len() + 10).next_multiple_of(64) - 10;
    file.extend_from_slice(&(length as u16).to_le_bytes());
    file.extend_from_slice(format!("{head:length$}").as_bytes());
    file.extend_from_slice(numbers);
    file
}

fn head(kind: &str, shape: &str) -> String {
    format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}")
}

fn open(file: Vec<u8>) -> Result<NpyReader<Cursor<Vec<u8>>>, String> {
    NpyReader::new(Cursor::new(file), "a.npy".into()).map_err(|error| error.to_string())
}

fn refusal(file: Vec<u8>) -> String {
    open(file).map(|_| ()).expect_err("the file is refused")
}

fn rows(mut reader: NpyReader<Cursor<Vec<u8>>>) -> Vec<Vec<f32>> {
    let (mut all, mut row) = (Vec::new(), Vec::new());
    while reader.read_row(&mut row).expect("the row is there") {
        all.push(row.clone());
    }
    all
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[test]
fn an_array_of_float32_is_read_row_by_row() {
    let file = npy(&head("<f4", "(2, 3)"), &bytes(&[1.0, -2.5, 3.0, 4.0, 5.0, f32::NAN]));
    let reader = open(file).expect("valid");
    assert_eq!((reader.rows(), reader.dimensions()), (2, 3));
    let rows = rows(reader);
    assert_eq!(rows[0], [1.0, -2.5, 3.0]);
    assert!(rows[1][2].is_nan(), "what a number is worth is for others to say");
}

#[test]
fn float16_has_its_exact_value() {
    // One, minus two, the largest, the least normal, the least of all, minus zero, an infinity: the
    // examples of IEEE 754.
    let halves: [u16; 7] = [0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x8000, 0xfc00];
    let numbers: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    let rows = rows(open(npy(&head("<f2", "(7,)"), &numbers)).expect("one dimension is one row"));
    let expected = [1.0, -2.0, 65504.0, 2f32.powi(-14), 2f32.powi(-24), -0.0, f32::NEG_INFINITY];
    let bits = |row: &[f32]| row.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&rows[0]), bits(&expected));
}

#[test]
fn a_row_is_found_by_its_number() {
    let numbers: Vec<f32> = (0..30).map(|number| number as f32).collect();
    let mut reader = open(npy(&head("<f4", "(10, 3)"), &bytes(&numbers))).expect("valid");
    let mut row = Vec::new();
    for wanted in [7, 0, 9] {
        reader.seek(wanted).expect("the row is there");
        assert!(reader.read_row(&mut row).expect("read"));
        assert_eq!(row[0], 3.0 * wanted as f32);
    }
    reader.seek(11).expect("behind the end is the end");
    assert!(!reader.read_row(&mut row).expect("read"));
}

#[test]
fn integers_are_no_vectors_and_are_read_as_integers() {
    let numbers: Vec<u8> = [3i32, -1].iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut reader = open(npy(&head("<i4", "(1, 2)"), &numbers)).expect("valid");
    let error = reader.read_row(&mut Vec::new()).expect_err("integers");
    assert_eq!(
        error.to_string(),
        "a.npy: row 0: holds integers, not the float16 or float32 of vectors"
    );
    let mut row = Vec::new();
    assert!(reader.read_integers(&mut row).expect("read"));
    assert_eq!(row, [3, -1]);
}

#[test]
fn arrays_that_are_not_rows_of_floats_are_refused_with_what_to_do() {
    let floats = bytes(&[0.0; 6]);
    let with = |kind, shape| refusal(npy(&head(kind, shape), &floats));
    assert!(with("<f8", "(1, 3)").contains("array.astype('<f4')"));
    assert!(with(">f4", "(2, 3)").contains("little endian"));
    assert!(with("<f4", "(1, 2, 3)").contains("3 dimensions"));
    assert!(with("<f4", "()").contains("0 dimensions"));
    assert!(with("<f4", "(2, 0)").contains("rows of 0 numbers"));
    assert!(with("<f4", "(3, 3)").contains("3 rows of 12 bytes, and it has 2 of them"));
    assert!(with("<f4", "(1, 3)").contains("1 rows of 12 bytes, and it has 2 of them"));
    assert!(with("<f4", "(18446744073709551615, 3)").contains("rows"));
    assert!(with("<f4", "(2, 99999999999)").contains("are read"));
    let fortran = head("<f4", "(2, 3)").replace("False", "True");
    assert!(refusal(npy(&fortran, &floats)).contains("ascontiguousarray"));
    assert!(refusal(b"PK\x03\x04 an archive".to_vec()).contains("is no NumPy array"));
    assert!(refusal(b"\x93NUMPY\x09\x00\x10\x00".to_vec()).contains("version 9"));
    let mut long = b"\x93NUMPY\x02\x00".to_vec();
    long.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(refusal(long).contains("at most 65536"));
}

#[test]
fn what_is_written_is_read_again() {
    let mut writer = NpyWriter::new(Cursor::new(Vec::new()), "b.npy".into(), 2).expect("memory");
    writer.write_row(&[1.0, 2.0]).expect("written");
    let error = writer.write_row(&[1.0]).expect_err("too short");
    assert_eq!(error.to_string(), "b.npy: row 1: has 1 numbers, the others 2");
    writer.write_row(&[3.0, 4.0]).expect("written");
    let file = writer.finish().expect("finished").into_inner();
    assert_eq!(rows(open(file).expect("valid")), [[1.0, 2.0], [3.0, 4.0]]);
}

fn fvecs(rows: &[(i32, &[f32])]) -> Vec<u8> {
    let row = |(length, numbers): &(i32, &[f32])| [length.to_le_bytes().to_vec(), bytes(numbers)];
    rows.iter().flat_map(row).flatten().collect()
}

fn open_fvecs(file: Vec<u8>) -> Result<FvecsReader<Cursor<Vec<u8>>>, String> {
    FvecsReader::new(Cursor::new(file), "a.fvecs".into()).map_err(|error| error.to_string())
}

#[test]
fn rows_of_fvecs_have_one_length() {
    let mut row = Vec::new();
    let mut reader = open_fvecs(fvecs(&[(2, &[1.0, 2.0]), (2, &[3.0, 4.0])])).expect("valid");
    assert_eq!((reader.rows(), reader.dimensions()), (2, 2));
    reader.seek(1).expect("there");
    assert!(reader.read_row(&mut row).expect("read"));
    assert_eq!(row, [3.0, 4.0]);
    assert!(!reader.read_row(&mut row).expect("the end"));
    let mut reader = open_fvecs(fvecs(&[(2, &[1.0, 2.0]), (1, &[3.0, 4.0])])).expect("opened");
    assert!(reader.read_row(&mut row).expect("read"));
    let error = reader.read_row(&mut row).expect_err("another length").to_string();
    assert_eq!(error, "a.fvecs: row 1: has 1 numbers, the first row has 2");
    assert_eq!(open_fvecs(Vec::new()).map(|empty| empty.rows()), Ok(0));
    let wild = open_fvecs(fvecs(&[(-5, &[1.0])])).map(|_| ());
    assert!(wild.expect_err("negative").contains("row 0: has -5 numbers"));
}

#[test]
fn fvecs_are_read_up_to_the_row_that_is_wrong_whatever_the_length_of_the_file() {
    let good: [(i32, &[f32]); 2] = [(2, &[1.0, 2.0]), (2, &[3.0, 4.0])];
    let longer: (i32, &[f32]) = (3, &[5.0, 6.0, 7.0]);
    let cut: (i32, &[f32]) = (2, &[5.0]);
    let with = |more: &[(i32, &[f32])]| fvecs(&[&good[..], more].concat());
    let half_a_length = [with(&[]), vec![2, 0]].concat();
    for (file, problem) in [
        (with(&[longer]), "has 3 numbers, the first row has 2"),
        (with(&[longer, good[0], good[1]]), "has 3 numbers, the first row has 2"),
        (with(&[cut]), "is cut off: the file ends in the middle of a row of 2 numbers"),
        (half_a_length, "is cut off: the file ends in the middle of a row of 2 numbers"),
    ] {
        let mut reader = open_fvecs(file).expect("the first rows are right");
        let mut row = Vec::new();
        for (_, wanted) in good {
            assert!(reader.read_row(&mut row).expect("it is right"));
            assert_eq!(row, wanted);
        }
        assert!(reader.rows() > 2);
        // However often it is asked.
        for _ in 0..2 {
            let error = reader.read_row(&mut row).expect_err(problem).to_string();
            assert_eq!(error, format!("a.fvecs: row 2: {problem}"));
        }
    }
}

#[test]
fn a_folder_is_no_file_whatever_its_name() {
    let folder = std::env::temp_dir().join(format!("coreflow-formats-{}", std::process::id()));
    for name in ["a.npy", "a.fvecs", "a.jsonl"] {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).expect("a folder for the test");
        let error = Records::open(&path).map(|_| ()).expect_err("a folder").to_string();
        assert_eq!(error, format!("{}: is a folder, and a file is wanted", path.display()));
    }
    std::fs::remove_dir_all(&folder).expect("it is this test's own");
}

#[test]
fn lines_are_passed_over_up_to_the_end_and_not_beyond() {
    for text in ["{\"text\":\"a\"}\nno record", "{\"text\":\"a\"}\nno record\n"] {
        let mut reader = jsonl(text);
        reader.skip_to(3).expect("behind the last line is the end");
        assert_eq!(reader.read(), Ok(None));
        let error = jsonl(text).skip_to(4).expect_err("beyond").to_string();
        assert_eq!(error, "a.jsonl: has 2 lines, counted from 1");
    }
}

fn jsonl(text: &str) -> JsonlReader<Cursor<Vec<u8>>> {
    JsonlReader::new(Cursor::new(text.as_bytes().to_vec()), "a.jsonl".into())
}

#[test]
fn a_line_is_a_record_with_a_vector_or_a_text() {
    let mut reader = jsonl(
        "{\"key\":\"a\",\"vector\":[1,-0.5],\"metadata\":{\"n\":[1]}}\n\n  \n\
         {\"text\":\"\\u00e9\",\"namespace\":\"n\",\"key\":null}",
    );
    let first = reader.read().expect("well").expect("a record");
    assert_eq!((first.position, first.key.as_deref()), (1, Some("a")));
    assert_eq!(first.content, Content::Vector(vec![1.0, -0.5]));
    assert_eq!(first.metadata, [0x81, 0xa1, b'n', 0x91, 1]);
    let second = reader.read().expect("well").expect("a record");
    assert_eq!((second.position, second.namespace.as_deref()), (4, Some("n")));
    assert_eq!(second.content, Content::Text("é".into()));
    assert_eq!(reader.read(), Ok(None));
    let mut reader = jsonl("no record\n\n{\"text\":\"b\"}\n");
    reader.skip_to(3).expect("there");
    assert_eq!(reader.read().expect("well").map(|record| record.position), Some(3));
}

#[test]
fn lines_that_are_no_records_are_named_with_their_number() {
    for (line, problem) in [
        ("nonsense", "is not JSON"),
        ("[1]", "is no JSON object"),
        ("{}", "vector or text is missing"),
        (r#"{"vector":[1],"text":"a"}"#, "vector and text are both there"),
        (r#"{"vector":[1,"2"]}"#, "vector must be an array of numbers"),
        (r#"{"vector":"1"}"#, "vector must be an array of numbers"),
        (r#"{"text":7}"#, "text must be a string"),
        (r#"{"text":"a","metadata":[]}"#, "metadata must be an object"),
        (r#"{"text":"a","colour":1}"#, "colour is not a field of a record"),
    ] {
        let mut reader = jsonl(&format!("{{\"text\":\"a\"}}\n{line}\n{{\"text\":\"b\"}}"));
        assert!(reader.read().expect("the first is well").is_some());
        let error = reader.read().expect_err(line).to_string();
        assert!(error.starts_with(&format!("a.jsonl: line 2: {problem}")), "{error}");
        assert_eq!(reader.read().expect("the third is well").map(|it| it.position), Some(3));
    }
    let long = jsonl(&"x".repeat(3 << 20)).read().expect_err("too long").to_string();
    assert!(long.contains("line 1: is longer than"), "{long}");
}

#[test]
fn a_line_that_is_written_is_read_as_the_same_record() {
    let record = Record {
        position: 1,
        key: Some("a \"b\"\n".into()),
        namespace: Some("n".into()),
        content: Content::Vector(vec![0.1, -3.4e-38, 1e17, 0.0]),
        metadata: vec![0x81, 0xa1, b'n', 0xc3],
    };
    let text =
        Record { content: Content::Text("é".into()), metadata: Vec::new(), ..record.clone() };
    for record in [record, text] {
        let mut line = Vec::new();
        write_line(&mut line, &record).expect("memory");
        assert_eq!(JsonlReader::new(&line[..], "b".into()).read(), Ok(Some(record)));
    }
}

proptest! {
    #[test]
    fn random_files_never_panic(rest in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..200usize) {
        let mut file = npy(&head("<f4", "(2, 3)"), &rest);
        file.truncate(cut);
        let _ = open(file);
        let _ = open([&b"\x93NUMPY\x01\x00\x20\x00"[..], &rest].concat());
        if let Ok(mut reader) = open_fvecs(rest) {
            let mut row = Vec::new();
            while let Ok(true) = reader.read_row(&mut row) {}
        }
    }
}
