//! Messages: each names the file and, for records, the line, the column and the reason.

use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
struct Pair {
    a: i32,
    b: Option<i32>,
}

/// Reads a file in splits of any size; all must tell the same error, which is answered without the path.
fn error_of<F: FileFormat>(format: &F, content: impl AsRef<[u8]>, split_bytes: &[u64]) -> String {
    let (_directory, path) = file("in", content);
    let messages: Vec<String> = split_bytes
        .iter()
        .map(|bytes| match read_all(format, &plan_splits([&path], *bytes).unwrap()) {
            Err(error) => error.to_string().replace(path.to_str().unwrap(), "in"),
            Ok(_) => "no error".to_string(),
        })
        .collect();
    assert!(messages.windows(2).all(|pair| pair[0] == pair[1]), "{messages:#?}");
    messages[0].replace("; correct it, or have bad records skipped and counted", "")
}

const SPLITS: &[u64] = &[1, 2, 7, 30, u64::MAX];

#[test]
fn when_a_json_line_is_bad_then_line_column_and_reason_are_told() {
    let error = |content: &[u8]| error_of(&NdjsonFormat::<Pair>::new(), content, SPLITS);
    assert_eq!(error(b"{\"a\":1}\n\r\n{\"a\":x}\n"), "in:3:6: expected value");
    assert_eq!(error(b"{\"a\":1}\n{\"a\":"), "in:2:5: EOF while parsing a value");
    assert_eq!(error("{\"é\":1,\"a\":true}".as_bytes()), "in:1:15: invalid type: boolean `true`, expected i32");
    assert_eq!(error(b"{\"a\":1}\n{}"), "in:2:2: missing field `a`");
    assert_eq!(error(b"{\"a\":1}\n{\"a\":1} 2"), "in:2:9: trailing characters");
    assert_eq!(error(b"{\"a\":1}\n{\"z\":\"\xc3\xa9\xff\"}"), "in:2:8: the text is not UTF-8");
}

#[test]
fn when_a_csv_row_is_bad_then_line_column_field_and_reason_are_told() {
    let options = CsvOptions { nulls: vec!["NA".into()], ..CsvOptions::default() };
    let format = CsvFormat::<Pair>::new(options);
    let error = |content: &[u8]| error_of(&format, content, SPLITS);
    assert_eq!(
        error(b"a,b\n1,2\n\nNA,3\n"),
        "in:4:1: field \"a\": \"NA\" is not an integer of 32 bits (a missing value; an Option may have it)"
    );
    assert_eq!(error(b"a,b\n1,2\n10,x3\n"), "in:3:4: field \"b\": \"x3\" is not an integer of 32 bits");
    assert_eq!(error(b"a,b\n1,2,3"), "in:2:5: the number of fields is 3, but the header names 2");
    assert_eq!(error(b"a,b\n12"), "in:2:3: the number of fields is 1, but the header names 2");
    assert_eq!(error(b"x,b\n1,2"), "in:2:1: missing field `a` (the columns are x, b)");
    assert_eq!(error(b"a,b\n1,2\n\xff,1"), "in:3:1: the text is not UTF-8");
    assert!(error(b"a,b\n1,2\n\"1\"x,1").starts_with("in:3:4: something follows the closing quote"));
    assert!(error(b"a,\"b\n1,2\n").starts_with("in:1:3: a quoted field is not closed on its line"));
}

#[test]
fn when_a_quote_is_not_closed_then_splits_and_whole_files_say_which_way_out() {
    let format = CsvFormat::<(String, i32)>::default();
    let content = "a,b\nx,1\n\"y\nz\",2\n";
    assert!(error_of(&format, content, &[5, 12]).starts_with("in:3:1: a quoted field is not closed on its line"));
    assert_eq!(error_of(&format, content, &[100]), "no error");
    let error = error_of(&format, "a,b\nx,1\ny,\"2\n\n", &[100]);
    assert_eq!(error, "in:3:3: a quoted field is not closed before the end of the file");
    let error = error_of(&format, "a,b\n\"x\ny\",z\n", &[100]);
    assert_eq!(error, "in:3:4: field \"b\": \"z\" is not an integer of 32 bits");
    let short = CsvFormat::<(String, i32)>::new(CsvOptions { max_line_bytes: 8, ..CsvOptions::default() });
    let error = error_of(&short, "a,b\n\"x\nyyyyyyyy\n\",1", &[100]);
    assert!(error.starts_with("in:2:1: the line is longer than 8 bytes"), "{error}");
}

#[test]
fn when_a_quoted_line_break_crosses_splits_then_each_of_them_says_so() {
    let (_directory, path) =
        file("in.csv", "\u{feff}\"a\",b,c\nx,\"1\"\"\",2\n\"y\nmid,dle\nz,w\",u,2\ngood,1,2\nbad,1\n");
    let format = CsvFormat::<(String, String, i32)>::default();
    let error_from = |start| {
        let split = FileSplit { start, ..FileSplit::whole(&path).unwrap() };
        format.open(&split).unwrap().next_record().unwrap_err().to_string()
    };
    let (middle, rest) = (24, 32);
    let advice =
        "must be read as one split, since they could cross from one to the next (raise the split size above the";
    for (start, place) in [(middle, "in.csv:4:1: "), (rest, "in.csv:5:1: ")] {
        let error = error_from(start);
        assert!(error.contains(place) && error.contains("a quoted field that began on an earlier line"), "{error}");
        assert!(error.contains(advice), "{error}");
    }
    assert!(error_from(12).contains(advice), "{}", error_from(12));
    // What is bad by itself is still called that.
    let error = error_from(50);
    assert!(error.contains("in.csv:7:6: the number of fields is 2"), "{error}");

    let skipping = CsvOptions { on_bad_record: OnBadRecord::Skip, ..CsvOptions::default() };
    let split = FileSplit { start: middle, ..FileSplit::whole(&path).unwrap() };
    let mut reader = CsvFormat::<(String, String, i32)>::new(skipping).open(&split).unwrap();
    while reader.next_record().unwrap().is_some() {}
    let first = reader.first_skipped().unwrap().to_string();
    assert!(first.contains("in.csv:4:1: the line goes on with a quoted field"), "{first}");
}

#[test]
fn when_lines_end_with_cr_alone_then_that_is_said() {
    let format = CsvFormat::<Pair>::default();
    let told = "the lines end with CR alone; write the file with LF or CRLF at the end of each line";
    assert_eq!(error_of(&format, "a,b\r1,2\r3,4\r", SPLITS), format!("in:1:4: {told}"));
    assert_eq!(error_of(&format, "a,b\r", SPLITS), format!("in:1:4: {told}"));
    let short = CsvFormat::<Pair>::new(CsvOptions { max_line_bytes: 8, ..CsvOptions::default() });
    assert_eq!(error_of(&short, "a,b\r1,2\r3,4\r5,6\r", &[100]), format!("in:1:1: {told}"));
    // A CR within quotes is part of a name, and one at a line's end of the line break.
    let (_directory, path) = file("in.csv", "\"a\r\",b");
    assert_eq!(read_all(&format, &plan_splits([&path], 100).unwrap()).unwrap(), []);
    assert_eq!(error_of(&format, "a,b\r\n1,2\r\n", SPLITS), "no error");
}

#[test]
fn when_a_line_is_too_long_then_it_is_told_and_the_next_is_read() {
    for long_bytes in [11, 15, 100, 200_000] {
        let content = ["12".to_string(), "3".repeat(long_bytes), "45".to_string()].join("\n");
        let format = NdjsonFormat::<i64>::new().max_line_bytes(10);
        let error = error_of(&format, &content, &[3, 64 << 10, u64::MAX]);
        assert_eq!(error, "in:2:1: the line is longer than 10 bytes (raise the maximum line length if that is right)");
        let (_directory, path) = file("in", &content);
        let split = FileSplit::whole(&path).unwrap();
        let mut reader = format.on_bad_record(OnBadRecord::Skip).open(&split).unwrap();
        assert_eq!(reader.next_record().unwrap(), Some(12));
        assert_eq!(reader.next_record().unwrap(), Some(45));
        assert_eq!((reader.next_record().unwrap(), reader.skipped()), (None, 1));
    }
}

#[test]
fn when_bad_records_are_skipped_then_they_are_counted_and_the_first_is_kept() {
    let (_directory, path) = file("in.csv", "a,b\n1,2\nx,2\n\"\n3,\n4,\"\n");
    let format = CsvFormat::<Pair>::new(CsvOptions { on_bad_record: OnBadRecord::Skip, ..CsvOptions::default() });
    let (mut read, mut skipped, mut firsts) = (Vec::new(), 0, Vec::new());
    for split in plan_splits([&path], 9).unwrap() {
        let mut reader = format.open(&split).unwrap();
        while let Some(pair) = reader.next_record().unwrap() {
            read.push(pair.a);
        }
        skipped += reader.skipped();
        firsts.extend(reader.first_skipped().map(|error| error.to_string()));
    }
    assert_eq!((read, skipped), (vec![1, 3], 3));
    assert!(firsts[0].contains("in.csv:3:1: field \"a\""), "{firsts:?}");
    assert!(firsts[1].contains("in.csv:4:1: a quoted field"), "{firsts:?}");
}

#[test]
fn when_a_file_cannot_be_read_then_the_message_names_it_and_what_to_do() {
    let (directory, path) = file("in", "1\n2\n3\n");
    let missing = directory.path().join("missing");
    let message = plan_splits([&missing], 10).unwrap_err().to_string();
    assert!(message.contains("there is no file") && message.contains(missing.to_str().unwrap()), "{message}");
    fs::create_dir(directory.path().join("empty")).unwrap();
    let message = plan_splits([directory.path().join("empty")], 10).unwrap_err().to_string();
    assert!(message.contains("holds no file to read"), "{message}");
    assert!(matches!(plan_splits(["/dev/null"], 10), Err(FileError::NotRegular { .. })));
    assert!(matches!(plan_splits([&path], 0), Err(FileError::ZeroSplitBytes)));
    assert!(matches!(plan_splits::<&str>([], 1), Err(FileError::NoInput)));

    let split = FileSplit { start: 2, ..FileSplit::whole(&path).unwrap() };
    for offset in [0, 3, 7] {
        assert!(matches!(LineReader::open_at(&split, offset, 10), Err(FileError::BadPosition { .. })), "{offset}");
    }
    fs::write(&path, "1\n").unwrap();
    assert!(matches!(LineReader::open(&split, 10), Err(FileError::Shrunk { actual_bytes: 2, .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(LineReader::open(&split, 10), Err(FileError::NotFound { .. })));
}

#[test]
fn when_a_file_cannot_be_written_then_the_message_names_it_and_the_failure_stays() {
    let mut writer = NdjsonWriter::create("/dev/full").unwrap();
    writer.write(&1).unwrap();
    let message = writer.flush().unwrap_err().to_string();
    assert!(message.starts_with("cannot write to /dev/full: ") && message.contains("has room"), "{message}");
    assert!(matches!(writer.write(&1), Err(WriteError::Incomplete { .. })));
    let mut writer = CsvWriter::create("/dev/full").unwrap();
    writer.write(&[1, 2]).unwrap();
    assert!(matches!(writer.flush(), Err(WriteError::Write { .. })));
    assert!(matches!(writer.close(), Err(WriteError::Incomplete { .. })));

    let (directory, path) = file("other", "");
    let missing = directory.path().join("missing/out");
    let message = NdjsonWriter::<u8>::create(&missing).err().unwrap().to_string();
    assert!(message.starts_with("cannot create ") && message.contains("missing/out"), "{message}");
    assert!(matches!(OutputFiles::prepare(directory.path(), "csv", 1), Err(WriteError::Occupied { .. })));
    assert!(path.exists());
}

#[test]
fn when_a_record_panics_within_its_line_then_the_lines_before_it_are_written_whole() {
    struct Panics;
    impl serde::Serialize for Panics {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("no such record")
        }
    }
    let mut written = Vec::new();
    let mut writer = NdjsonWriter::over("out", &mut written);
    writer.write(&(1, None)).unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.write(&(2, Some(Panics)))));
    assert!(outcome.is_err());
    writer.flush().unwrap();
    drop(writer);
    assert_eq!(written, b"[1,null]\n");
}
