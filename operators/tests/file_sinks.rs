//! Files that grow as records come, in real time.

use std::{fs, thread, time::Duration};

use thalweg::prelude::*;

#[test]
fn when_a_stream_is_slow_then_its_file_has_what_came_and_a_cancelled_job_leaves_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.ndjson");
    let env = Environment::new();
    env.parallelism(1);
    let (input, events) = env.from_handle::<u64>(16);
    events.sink(ndjson_file(&path));
    let job = env.execute_async().unwrap();
    let lines = |text: &str| text.lines().map(|line| line.parse().unwrap()).collect::<Vec<u64>>();
    let mut pushed = Vec::new();
    for n in 0..3 {
        input.push(n).unwrap();
        pushed.push(n);
        for _ in 0..2_000 {
            if lines(&fs::read_to_string(&path).unwrap_or_default()) == pushed {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(lines(&fs::read_to_string(&path).unwrap()), pushed);
    }
    job.control().cancel();
    job.wait().unwrap_err();
    assert_eq!(lines(&fs::read_to_string(&path).unwrap()), pushed);
}
