//! Any content in splits of any size reads as the whole does, and goes on from every position.

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

/// The lines of a split as (offset, bytes) with the reader's position before each.
fn lines_from(split: &FileSplit, offset: u64) -> Vec<(u64, Vec<u8>, u64)> {
    let mut reader = LineReader::open_at(split, offset, 1 << 20).unwrap();
    let mut lines = Vec::new();
    loop {
        let position = reader.position();
        match reader.poll_line().unwrap() {
            Step::Item(line) => lines.push((line.offset, line.bytes.to_vec(), position)),
            Step::Pending => {}
            Step::End => return lines,
        }
    }
}

/// Lines by the book: cut at LF, one CR before it dropped, a byte order mark at the start dropped.
fn expected_lines(content: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut lines = Vec::new();
    let mut offset = 0;
    for piece in content.split_inclusive(|byte| *byte == b'\n') {
        let line = match piece.strip_suffix(b"\n") {
            Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
            None => piece,
        };
        let line = if offset == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        if !line.is_empty() || piece.ends_with(b"\n") {
            lines.push((offset as u64, line.to_vec()));
        }
        offset += piece.len();
    }
    lines
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[ -~]{0,12}".prop_map(String::into_bytes),
        2 => "\\PC{0,4}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..6),
        4 => Just(b"\n".to_vec()),
        2 => Just(b"\r\n".to_vec()),
        1 => Just(b"\r".to_vec()),
    ];
    (any::<bool>(), prop::collection::vec(piece, 0..24)).prop_map(|(marked, pieces)| {
        let mut content = if marked { b"\xef\xbb\xbf".to_vec() } else { Vec::new() };
        content.extend(pieces.concat());
        content
    })
}

/// Text in rows of a quoted or plain field, a number, and a perhaps missing number; as CSV and as values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    name: String,
    count: i64,
    delay: Option<i32>,
}

fn rows(text: &'static str) -> impl Strategy<Value = Vec<Row>> {
    let row = (text, any::<i64>(), any::<Option<i32>>()).prop_map(|(name, count, delay)| Row { name, count, delay });
    prop::collection::vec(row, 0..20)
}

/// Every reader of every split continues from each position it had with exactly what it had not read.
fn check_positions<F: FileFormat>(format: &F, splits: &[FileSplit])
where
    F::Item: PartialEq + std::fmt::Debug,
{
    for split in splits {
        let all = read_all(format, std::slice::from_ref(split)).unwrap();
        let mut reader = format.open(split).unwrap();
        let mut read = 0;
        loop {
            let mut restored = format.open_at(split, reader.position()).unwrap();
            let mut rest = Vec::new();
            while let Some(record) = restored.next_record().unwrap() {
                rest.push(record);
            }
            assert_eq!(rest, all[read..]);
            match reader.poll_next().unwrap() {
                Step::Item(_) => read += 1,
                Step::Pending => {}
                Step::End => break,
            }
        }
        assert_eq!(read, all.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn when_a_file_is_split_anywhere_then_each_line_is_read_once_in_order(content in content(), split_bytes in 1u64..40) {
        let (_directory, path) = file("lines", &content);
        let splits = plan_splits([&path], split_bytes).unwrap();
        let mut read = Vec::new();
        for split in &splits {
            let lines = lines_from(split, split.start);
            for (index, (offset, _, position)) in lines.iter().enumerate() {
                prop_assert!((split.start..split.end).contains(offset));
                prop_assert_eq!(&lines_from(split, *position)[..], &lines[index..].iter().enumerate()
                    .map(|(at, line)| if at == 0 { (line.0, line.1.clone(), *position) } else { line.clone() })
                    .collect::<Vec<_>>()[..]);
            }
            read.extend(lines.into_iter().map(|(offset, bytes, _)| (offset, bytes)));
        }
        prop_assert_eq!(read, expected_lines(&content));
    }

    #[test]
    fn when_ndjson_is_split_anywhere_then_each_value_is_read_once_in_order(
        rows in rows("\\PC{0,6}"), split_bytes in 1u64..200, crlf in any::<bool>(), ends in any::<bool>(),
    ) {
        let line_break = if crlf { "\r\n" } else { "\n" };
        let lines: Vec<_> = rows.iter().map(|row| serde_json::to_string(row).unwrap()).collect();
        let content = lines.join(line_break) + if ends { line_break } else { "" };
        let (_directory, path) = file("rows.ndjson", content);
        let splits = plan_splits([&path], split_bytes).unwrap();
        let format = NdjsonFormat::<Row>::new();
        prop_assert_eq!(read_all(&format, &splits).unwrap(), rows);
        check_positions(&format, &splits);
    }

    #[test]
    fn when_csv_is_split_anywhere_then_each_row_is_read_once_in_order(
        rows in rows("[a-c,\"é ]{0,6}"), split_bytes in 1u64..120,
    ) {
        let (_directory, path) = file("rows.csv", "");
        let mut writer = CsvWriter::create(&path).unwrap();
        rows.iter().try_for_each(|row| writer.write(row)).unwrap();
        writer.close().unwrap();
        let splits = plan_splits([&path], split_bytes).unwrap();
        let format = CsvFormat::<Row>::default();
        prop_assert_eq!(read_all(&format, &splits).unwrap(), rows);
        check_positions(&format, &splits);
    }

    #[test]
    fn when_quotes_hold_line_breaks_then_a_whole_file_reads_as_the_csv_crate_reads_it(
        rows in rows("[a,\"\n\r]{0,6}"),
    ) {
        let (_directory, path) = file("rows.csv", "");
        let mut writer = CsvWriter::create(&path).unwrap();
        rows.iter().try_for_each(|row| writer.write(row)).unwrap();
        writer.close().unwrap();
        let splits = plan_splits([&path], u64::MAX).unwrap();
        let format = CsvFormat::<Row>::default();
        let read = read_all(&format, &splits).unwrap();
        let theirs: Vec<Row> = csv::Reader::from_path(&path).unwrap().deserialize().map(Result::unwrap).collect();
        prop_assert_eq!(&read, &theirs);
        prop_assert_eq!(read, rows);
        check_positions(&format, &splits);
    }
}

#[test]
fn when_lines_are_longer_than_a_chunk_then_they_are_read_whole_and_in_bounded_steps() {
    let lines: Vec<Vec<u8>> = (0..7).map(|n| vec![b'a' + n; 150_000 * n as usize]).collect();
    let (_directory, path) = file("lines", lines.join(&b"\n"[..]));
    for split_bytes in [70_000, 1 << 20, u64::MAX] {
        let splits = plan_splits([&path], split_bytes).unwrap();
        let read: Vec<_> = splits.iter().flat_map(|split| lines_from(split, split.start)).map(|line| line.1).collect();
        assert!(read == lines, "split of {split_bytes} bytes");
    }
    let mut reader = LineReader::open(&FileSplit::whole(&path).unwrap(), 1 << 20).unwrap();
    let mut steps = 0;
    while reader.poll_line().unwrap() != Step::End {
        steps += 1;
    }
    assert!(steps > 40, "{steps} steps for 3 MB");
}
