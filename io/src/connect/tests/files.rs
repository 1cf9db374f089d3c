//! Plans of splits, outputs, and what formats read and write.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::*;

fn ranges(splits: &[FileSplit]) -> Vec<(String, u64, u64)> {
    let name = |split: &FileSplit| split.path.file_name().unwrap().to_str().unwrap().to_string();
    splits.iter().map(|split| (name(split), split.start, split.end)).collect()
}

fn csv<T: serde::de::DeserializeOwned + 'static>(content: &str, options: CsvOptions) -> Result<Vec<T>, ReadError> {
    let (_directory, path) = file("x.csv", content);
    read_all(&CsvFormat::new(options), &plan_splits([&path], u64::MAX).unwrap())
}

#[test]
fn when_splits_are_planned_then_files_keep_their_order_and_directories_are_sorted() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: usize| fs::write(directory.path().join(name), vec![b'x'; bytes]).unwrap();
    for (name, bytes) in [("b", 10), ("a", 5), ("empty", 0), (".hidden", 3), ("_SUCCESS", 3)] {
        put(name, bytes);
    }
    fs::create_dir(directory.path().join("sub")).unwrap();
    let of = |name: &str, start, end| (name.to_string(), start, end);
    let plan = plan_splits([directory.path()], 4).unwrap();
    assert_eq!(ranges(&plan), [of("a", 0, 4), of("a", 4, 5), of("b", 0, 4), of("b", 4, 8), of("b", 8, 10)]);
    let plan = plan_splits([directory.path().join("b"), directory.path().join("a")], u64::MAX).unwrap();
    assert_eq!(ranges(&plan), [of("b", 0, 10), of("a", 0, 5)]);
}

#[test]
fn when_splits_are_dealt_then_each_goes_to_one_subtask_in_order() {
    let plan: Vec<_> = (0..7).map(|n| FileSplit { path: "f".into(), start: n, end: n + 1 }).collect();
    for parallelism in 1..10 {
        let assignment = SplitAssignment::new(parallelism);
        let mut dealt: Vec<usize> = Vec::new();
        for subtask in 0..parallelism {
            let own: Vec<_> = assignment.splits_of(subtask, &plan).map(|(index, _)| index).collect();
            assert!(own.is_sorted() && own.iter().all(|index| index % parallelism == subtask));
            dealt.extend(own);
        }
        dealt.sort_unstable();
        assert_eq!(dealt, (0..7).collect::<Vec<_>>());
    }
}

#[test]
fn when_fields_read_as_null_then_options_are_none_and_strings_keep_their_text() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Typed {
        code: String,
        delay: Option<f64>,
        tail: Option<String>,
        on_time: bool,
        kind: Kind,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Jet,
        Prop,
    }
    let text = "kind,code,unused,delay,tail,on_time\njet,NA,1,NA,\"NA\",TRUE\n\nprop,,2,-1.5,N1,false\n";
    let options = CsvOptions { nulls: vec![String::new(), "NA".into()], ..CsvOptions::default() };
    let rows: Vec<Typed> = csv(text, options).unwrap();
    assert_eq!(
        rows,
        [
            Typed { code: "NA".into(), delay: None, tail: None, on_time: true, kind: Kind::Jet },
            Typed { code: String::new(), delay: Some(-1.5), tail: Some("N1".into()), on_time: false, kind: Kind::Prop },
        ]
    );
}

#[test]
fn when_csv_has_no_header_or_other_delimiters_then_rows_are_read_by_place() {
    let options = CsvOptions { delimiter: b';', quote: b'\'', has_header: false, ..CsvOptions::default() };
    let rows: Vec<(String, u8, Option<i64>)> = csv("a;1;\r\n'b;b';2;3", options.clone()).unwrap();
    assert_eq!(rows, [("a".into(), 1, None), ("b;b".into(), 2, Some(3))]);
    #[derive(Debug, PartialEq, Deserialize)]
    struct Pair {
        left: u128,
        right: char,
    }
    assert_eq!(csv::<Pair>("7;é", options).unwrap(), [Pair { left: 7, right: 'é' }]);
}

#[test]
fn when_a_row_is_read_into_a_map_or_any_value_then_names_and_types_are_kept() {
    let maps: Vec<HashMap<String, String>> = csv("a,b\n1,x\n", CsvOptions::default()).unwrap();
    assert_eq!(maps, [HashMap::from([("a".into(), "1".into()), ("b".into(), "x".into())])]);
    let values: Vec<serde_json::Value> = csv("a,b,c,d,e\n1,-2,x,0.5,\n", CsvOptions::default()).unwrap();
    assert_eq!(values, [serde_json::json!({"a": 1, "b": -2, "c": "x", "d": 0.5, "e": null})]);
}

#[test]
fn when_a_csv_file_has_a_header_alone_or_nothing_then_it_has_no_rows() {
    for text in ["", "\n\n", "a,b", "a,b\n", "\u{feff}"] {
        assert_eq!(csv::<(u8, u8)>(text, CsvOptions::default()).unwrap(), [], "{text:?}");
    }
    assert_eq!(csv::<(u8, u8)>("\u{feff}\n\na,b\r\n1,2", CsvOptions::default()).unwrap(), [(1, 2)]);
}

#[test]
fn when_records_are_written_then_they_read_back_and_old_output_is_gone() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Out {
        name: Option<String>,
        mean: Option<f64>,
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/out.ndjson");
    for parallelism in [1, 3, 2, 1, 1] {
        let output = OutputFiles::prepare(&path, "ndjson", parallelism).unwrap();
        for subtask in 0..parallelism {
            let mut writer = NdjsonWriter::create(output.path_of(subtask)).unwrap();
            writer.write(&Out { name: Some(format!("é {subtask}\n")), mean: None }).unwrap();
            writer.write(&Out { name: None, mean: Some(0.5) }).unwrap();
            assert_eq!(writer.records(), 2);
            writer.close().unwrap();
        }
        let rows = read_all(&NdjsonFormat::<Out>::new(), &plan_splits([&path], 10).unwrap()).unwrap();
        assert_eq!(rows.len(), 2 * parallelism);
        assert_eq!(rows[0], Out { name: Some("é 0\n".into()), mean: None });
    }
}

#[test]
fn when_a_record_is_not_json_then_nothing_of_it_is_written() {
    let (_directory, path) = file("x.ndjson", "old");
    let mut writer = NdjsonWriter::create(&path).unwrap();
    writer.write(&HashMap::from([(vec![1], 1)])).unwrap_err();
    writer.write(&HashMap::new()).unwrap();
    writer.close().unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "{}\n");
}
