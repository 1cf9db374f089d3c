//! Flags of every subcommand that runs a job, and the metrics server that one of them asks for.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::Args;
use thalweg::entry::{ConfigurationArgs, ConfigurationError, CoreList, parallelism};
use thalweg::metrics_server::{MetricsServer, MetricsServerError};
use thalweg::model::config::{Configuration, keys};
use thalweg::model::metrics::MetricRegistry;
use thalweg_benches::options::{BufferTimeout, EngineOptions};

/// How the engine runs the job.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineArgs {
    /// Subtasks per operator, one slot each; by default, one for each core of --cores, else as many as there are cores.
    #[arg(short = 'p', long, value_name = "P")]
    parallelism: Option<NonZeroU32>,
    /// Cores to pin slots to, in this order, such as 0,2-3; by default, those that this process may use.
    #[arg(long, value_name = "LIST")]
    cores: Option<CoreList>,
    /// Let several slots share a core where there are fewer cores than slots. They do not spin then.
    #[arg(long)]
    oversubscribe: bool,
    /// Microseconds that an idle slot looks for work before it sleeps; 0 never looks.
    #[arg(long, value_name = "MICROS")]
    spin: Option<u64>,
    /// Milliseconds that a record may wait in a buffer; 0 sends each at once, -1 only full buffers.
    #[arg(long, value_name = "MS", allow_negative_numbers = true, value_parser = buffer_timeout)]
    buffer_timeout: Option<BufferTimeout>,
    /// Serve Prometheus metrics on 127.0.0.1 and this port; 0 takes a free one and says which.
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<u16>,
    /// Answer requests of `thalweg list`, `savepoint`, `stop` and `cancel` on this port of 127.0.0.1 (rest.port); 0 takes
    /// a free one and says which. Only of `bench crash` and `nexmark run`, each of whose jobs runs once.
    #[arg(long, value_name = "PORT")]
    rest_port: Option<u16>,
    /// Where settings come from.
    #[command(flatten)]
    configuration: ConfigurationArgs,
}

fn buffer_timeout(text: &str) -> Result<BufferTimeout, String> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(BufferTimeout::Never),
        Ok(ms @ 0..=4_294_967_295) => Ok(BufferTimeout::After(Duration::from_millis(ms.unsigned_abs()))),
        _ => Err("write milliseconds, 0 to send each record at once, or -1 to send full buffers only".into()),
    }
}

impl EngineArgs {
    /// The options for the harness.
    ///
    /// # Errors
    /// Where the configuration cannot be read or used.
    pub fn options(&self) -> Result<EngineOptions, ConfigurationError> {
        let mut configuration = self.configuration.load()?;
        if let Some(port) = self.rest_port {
            let definition = format!("{}={port}", keys::REST_PORT.name);
            let (flag, _) = Configuration::builder().define(&definition)?.build()?;
            configuration.overlay(&flag);
        }
        Ok(EngineOptions {
            parallelism: parallelism(self.parallelism.map(NonZeroU32::get), self.cores.as_ref(), &configuration),
            configuration,
            cores: self.cores.clone().map(|cores| cores.0).unwrap_or_default(),
            oversubscribe: self.oversubscribe,
            spin_us: self.spin,
            buffer_timeout: self.buffer_timeout,
        })
    }

    /// As [`options`](Self::options), for a subcommand that answers no requests: it says so where they are asked for.
    ///
    /// # Errors
    /// As [`options`](Self::options).
    pub fn unserved_options(&self, command: &str) -> Result<EngineOptions, ConfigurationError> {
        let options = self.options()?;
        if options.configuration.source(&keys::REST_PORT).is_some() {
            let key = keys::REST_PORT.name;
            eprintln!("warning: {key} has no effect: {command} answers no requests, bench crash and nexmark run do");
        }
        Ok(options)
    }

    /// Serves `registry` if asked to, and says where. The server ends when the answer is dropped.
    ///
    /// # Errors
    /// Where the port cannot be had.
    pub fn serve_metrics(&self, registry: &MetricRegistry) -> Result<Option<MetricsServer>, MetricsServerError> {
        let Some(port) = self.metrics_port else { return Ok(None) };
        let server = MetricsServer::start(port, registry.clone())?;
        eprintln!("metrics: {}", server.url());
        Ok(Some(server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use thalweg::model::config::keys;

    #[derive(Debug, Parser)]
    struct Probe {
        #[command(flatten)]
        engine: EngineArgs,
    }

    fn parse(args: &str) -> Result<EngineOptions, String> {
        let args = std::iter::once("probe").chain(args.split_whitespace());
        let probe = Probe::try_parse_from(args).map_err(|error| error.to_string())?;
        probe.engine.options().map_err(|error| error.to_string())
    }

    #[test]
    fn when_flags_are_given_then_they_become_options() {
        assert_eq!(parse(""), Ok(EngineOptions::default()));
        let options = parse("-p 4 --cores 1,3-4 --oversubscribe --spin 0 --buffer-timeout 100").unwrap();
        let expected = EngineOptions {
            parallelism: Some(4),
            cores: vec![1, 3, 4],
            oversubscribe: true,
            spin_us: Some(0),
            buffer_timeout: Some(BufferTimeout::After(Duration::from_millis(100))),
            ..EngineOptions::default()
        };
        assert_eq!(options, expected);
        assert_eq!(parse("--buffer-timeout -1").unwrap().buffer_timeout, Some(BufferTimeout::Never));
        assert_eq!(parse("--buffer-timeout=0").unwrap().buffer_timeout, Some(BufferTimeout::After(Duration::ZERO)));
    }

    #[test]
    fn when_cores_are_listed_then_there_is_a_subtask_for_each_unless_something_says_how_many() {
        let parallelism = |args| parse(args).unwrap().parallelism;
        assert_eq!(parallelism("--cores 0"), Some(1));
        assert_eq!(parallelism("--cores 5,0-1"), Some(3));
        assert_eq!(parallelism("--cores 0-1 -p 1"), Some(1));
        assert_eq!(parallelism("--cores 0-1 -D parallelism.default=4"), Some(4));
    }

    #[test]
    fn when_a_key_is_set_then_it_is_configured_and_a_flag_counts_more() {
        assert_eq!(parse("-D parallelism.default=3").unwrap().parallelism, Some(3));
        let options = parse("-D parallelism.default=3 -Dmetrics.latency.interval=5 -p 2").unwrap();
        assert_eq!(options.parallelism, Some(2));
        let interval = options.configuration.explicit(&keys::LATENCY_INTERVAL);
        assert_eq!(interval, Some(Duration::from_millis(5)));
        let port = |args| parse(args).unwrap().configuration.explicit(&keys::REST_PORT);
        assert_eq!((port("-Drest.port=1"), port("-Drest.port=1 --rest-port 2")), (Some(1), Some(2)));
        let message = parse("-D paralelism.default=3").unwrap_err();
        assert!(message.contains("did you mean parallelism.default?"), "{message}");
    }

    #[test]
    fn when_a_flag_is_wrong_then_the_message_names_it_and_says_what_to_write() {
        let cases = [
            ("-p 0", "--parallelism"),
            ("--cores 3-1", "write 1-3"),
            ("--cores a", "--cores"),
            ("--buffer-timeout -2", "-1 to send full buffers only"),
            ("--metrics-port 70000", "--metrics-port"),
            ("--rest-port 70000", "--rest-port"),
        ];
        for (args, expected) in cases {
            let message = parse(args).unwrap_err();
            assert!(message.starts_with("error: ") && message.contains(expected), "{args}: {message}");
        }
    }
}
