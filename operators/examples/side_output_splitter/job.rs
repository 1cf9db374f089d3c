//! The job: a keyed process function that sends lines of a log to its main output and two side outputs.

use thalweg::prelude::*;

/// A log: service, level, text.
pub const LINES: [&str; 7] = [
    "web INFO started",
    "db INFO started",
    "web ERROR no answer from db",
    "what is this",
    "db ERROR disk full",
    "web ERROR no answer from db",
    "web INFO stopped",
];

/// A line that is no error.
#[derive(Record, Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Whose it is.
    pub service: String,
    /// What it says.
    pub text: String,
}

/// A line that is an error.
#[derive(Record, Clone, Debug, PartialEq, Eq)]
pub struct ErrorLine {
    /// Whose it is.
    pub service: String,
    /// The service's first, second, .. error.
    pub number: u64,
    /// What it says.
    pub text: String,
}

/// Builds the job, with a sink for each output.
pub fn build<L, E, R>(env: &Environment, lines: Vec<String>, log: L, errors: E, rejected: R)
where
    L: Sink<LogLine>,
    E: Sink<ErrorLine>,
    R: Sink<String>,
{
    let split = Split {
        errors: OutputTag::new("errors"),
        rejected: OutputTag::new("rejected"),
        error_count: ValueState::default(),
    };
    let (error_tag, rejected_tag) = (split.errors.clone(), split.rejected.clone());
    let stream = env
        .from_iter(lines)
        .key_by_view::<String, _>(|line| line.split(' ').next().unwrap_or(line))
        .process(split)
        .name("Split");
    stream.side_output(&error_tag).sink(errors).name("Errors");
    stream.side_output(&rejected_tag).sink(rejected).name("Rejected");
    stream.sink(log).name("Log");
}

/// Sends each line where it belongs. Tags are part of the function; they name the outputs to both sides.
#[derive(Clone)]
struct Split {
    errors: OutputTag<ErrorLine>,
    rejected: OutputTag<String>,
    error_count: ValueState<u64>,
}

impl KeyedProcessFunction<String, String> for Split {
    type Out = LogLine;

    fn open(&mut self, ctx: &mut StateContext<'_, String>) {
        self.error_count = ctx.value_state("error count");
    }

    fn process<E: Emit<LogLine>>(
        &mut self,
        line: &str,
        ctx: &mut KeyContext<'_, String>,
        out: &mut Collector<'_, LogLine, E>,
    ) {
        let mut parts = line.splitn(3, ' ');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(service), Some("INFO"), Some(text)) => out.collect(LogLineView { service, text }),
            (Some(service), Some("ERROR"), Some(text)) => {
                let number = self.error_count.update(
                    ctx,
                    || 0,
                    |count| {
                        *count += 1;
                        *count
                    },
                );
                out.side_output(&self.errors, ErrorLineView { service, number, text });
            }
            _ => out.side_output(&self.rejected, line),
        }
    }
}
