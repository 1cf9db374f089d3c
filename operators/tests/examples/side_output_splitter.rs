//! `side_output_splitter`: which line goes where.

#[path = "../../examples/side_output_splitter/job.rs"]
mod job;

use job::{ErrorLine, LINES, LogLine};
use thalweg::prelude::*;

use crate::{PARALLELISMS, environment};

#[test]
fn when_lines_are_split_then_each_comes_out_where_it_belongs() {
    for parallelism in PARALLELISMS {
        let env = environment(parallelism);
        let (log, log_out) = collect();
        let (errors, errors_out) = collect();
        let (rejected, rejected_out) = collect();
        job::build(&env, LINES.map(str::to_owned).to_vec(), log, errors, rejected);
        env.execute().unwrap();

        let web = |line: &LogLine| line.service == "web";
        let (web, other): (Vec<LogLine>, Vec<LogLine>) = log_out.take().into_iter().partition(web);
        assert_eq!(web.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["started", "stopped"]);
        assert_eq!(other, [LogLine { service: "db".to_owned(), text: "started".to_owned() }]);

        let mut errors = errors_out.take();
        errors.sort_by_key(|error| (error.service.clone(), error.number));
        let error = |service: &str, number, text: &str| ErrorLine {
            service: service.to_owned(),
            number,
            text: text.to_owned(),
        };
        let expected =
            [error("db", 1, "disk full"), error("web", 1, "no answer from db"), error("web", 2, "no answer from db")];
        assert_eq!(errors, expected);
        assert_eq!(rejected_out.take(), ["what is this"]);
    }
}
