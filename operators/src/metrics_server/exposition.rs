//! The registry as Prometheus' text format, in the shape that Flink's reporter gives it.
//!
//! Flink's habits, which dashboards rely on: counters and meters are of type gauge, histograms are summaries without
//! `_sum`, every character outside `[a-zA-Z0-9:_]` in names and label values becomes `_`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use prometheus::TextEncoder;
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary};
use thalweg_model::metrics::{HistogramSnapshot, MetricRegistry, MetricSample, MetricValue};

/// Content type of what [`render`] answers.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The quantiles of Flink's summaries.
const QUANTILES: [f64; 6] = [0.5, 0.75, 0.95, 0.98, 0.99, 0.999];

struct Family {
    help: String,
    kind: MetricType,
    metrics: Vec<Metric>,
    /// Label sets that are there already: filtering may make two of them equal, and a scrape with both would fail.
    seen: HashSet<String>,
}

/// All metrics of `registry` in Prometheus' text format. `now_ms` as for [`MetricRegistry::visit`].
///
/// # Errors
/// Where the encoder refuses a family, which it does for none that the registry can hold.
pub fn render(registry: &MetricRegistry, now_ms: u64) -> Result<String, prometheus::Error> {
    let mut families = BTreeMap::new();
    registry.visit(now_ms, |sample| add(&mut families, sample));
    let mut sums = HashSet::new();
    let families: Vec<MetricFamily> = families
        .into_iter()
        .map(|(name, family)| {
            if family.kind == MetricType::SUMMARY {
                sums.insert(format!("{name}_sum"));
            }
            let mut proto = MetricFamily::default();
            proto.set_name(name);
            proto.set_help(family.help);
            proto.set_field_type(family.kind);
            proto.set_metric(family.metrics);
            proto
        })
        .collect();
    let text = TextEncoder::new().encode_to_string(&families)?;
    if sums.is_empty() { Ok(text) } else { Ok(without_sums(&text, &sums)) }
}

/// The encoder writes a `_sum` for every summary, which Flink's reporter does not.
fn without_sums(text: &str, sums: &HashSet<String>) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        if !sums.contains(name) {
            kept.push_str(line);
        }
    }
    kept
}

fn add(families: &mut BTreeMap<String, Family>, sample: &MetricSample<'_>) {
    let value = match &sample.value {
        MetricValue::Counter(value) => *value as f64,
        MetricValue::Gauge(value) => *value as f64,
        MetricValue::Float(value) | MetricValue::Meter(value) => *value,
        MetricValue::Histogram(snapshot) => return insert(families, sample, MetricType::SUMMARY, summary(snapshot)),
        // A kind that this exporter does not know yet has no shape to show it in.
        _ => return,
    };
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    insert(families, sample, MetricType::GAUGE, Metric::from_gauge(gauge));
}

fn insert(families: &mut BTreeMap<String, Family>, sample: &MetricSample<'_>, kind: MetricType, mut metric: Metric) {
    let family = families.entry(filtered(&sample.full_name()).into_owned()).or_insert_with(|| Family {
        help: help(sample),
        kind,
        metrics: Vec::new(),
        seen: HashSet::new(),
    });
    let mut key = String::new();
    let labels: Vec<LabelPair> = sample
        .labels
        .iter()
        .map(|(name, value)| {
            let (name, value) = (filtered(name).into_owned(), filtered(value).into_owned());
            key.push_str(&name);
            key.push('=');
            key.push_str(&value);
            key.push(',');
            let mut pair = LabelPair::default();
            pair.set_name(name);
            pair.set_value(value);
            pair
        })
        .collect();
    // As in Flink, of two that collide the first stays.
    if family.kind == kind && family.seen.insert(key) {
        metric.set_label(labels);
        family.metrics.push(metric);
    }
}

fn summary(snapshot: &HistogramSnapshot) -> Metric {
    let quantiles = QUANTILES.iter().map(|&q| {
        let mut quantile = Quantile::default();
        quantile.set_quantile(q);
        quantile.set_value(snapshot.quantile(q) as f64);
        quantile
    });
    let mut summary = Summary::default();
    summary.set_sample_count(snapshot.count());
    summary.set_sample_sum(snapshot.sum() as f64);
    summary.set_quantile(quantiles.collect());
    let mut metric = Metric::default();
    metric.set_summary(summary);
    metric
}

fn help(sample: &MetricSample<'_>) -> String {
    let mut scope = String::from(sample.scope.logical());
    for part in sample.path {
        scope.push('_');
        scope.push_str(part);
    }
    format!("{} (scope: {scope})", sample.name)
}

/// `text` with every character that Flink does not let through replaced by `_`.
fn filtered(text: &str) -> Cow<'_, str> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == ':' || c == '_';
    if text.chars().all(good) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.chars().map(|c| if good(c) { c } else { '_' }).collect())
    }
}

/// A strict reader of the text format, for tests.
#[cfg(test)]
pub(super) mod parser {
    use std::collections::HashSet;

    fn name_end(line: &str, colon: bool) -> usize {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
        let end = line.find(|c| !good(c)).unwrap_or(line.len());
        assert!(end > 0 && !line.starts_with(|c: char| c.is_ascii_digit()), "no name at: {line}");
        end
    }

    /// Reads `name{labels} value` and answers its name and the whole series.
    fn series(line: &str) -> (&str, &str) {
        let end = name_end(line, true);
        let (name, mut rest) = line.split_at(end);
        if let Some(labels) = rest.strip_prefix('{') {
            let mut labels = labels;
            let mut names = HashSet::new();
            while !labels.starts_with('}') {
                let (label, after) = labels.split_at(name_end(labels, false));
                assert!(names.insert(label), "label {label} twice: {line}");
                let after = after.strip_prefix("=\"").unwrap_or_else(|| panic!("no value: {line}"));
                let (value, after) = after.split_once('"').unwrap_or_else(|| panic!("open value: {line}"));
                assert!(!value.contains('\\'), "nothing needs escapes after filtering: {line}");
                labels = after.strip_prefix(',').unwrap_or(after);
                assert!(after.starts_with([',', '}']), "{line}");
            }
            rest = &labels[1..];
        }
        let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
        value.parse::<f64>().unwrap_or_else(|_| panic!("not a number: {line}"));
        (name, &line[..line.len() - rest.len()])
    }

    /// Panics unless every line parses, no series is there twice, families are contiguous and each has one head.
    pub fn check(text: &str) {
        let (mut families, mut all) = (HashSet::new(), HashSet::new());
        let mut current: Option<(String, String)> = None;
        let mut help: Option<String> = None;
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let end = name_end(rest, true);
                assert!(rest[end..].starts_with(' ') && rest.len() > end + 1, "{line}");
                assert!(help.replace(rest[..end].to_owned()).is_none(), "two helps in a row: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(help.take().as_deref(), Some(name), "no help before: {line}");
                assert!(["gauge", "summary"].contains(&kind), "{line}");
                assert!(families.insert(name.to_owned()), "family twice: {line}");
                current = Some((name.to_owned(), kind.to_owned()));
            } else {
                let (name, series) = series(line);
                let (family, kind) = current.as_ref().unwrap_or_else(|| panic!("no head before: {line}"));
                let belongs = name == family || (kind == "summary" && name == format!("{family}_count"));
                assert!(belongs, "{name} is not of family {family}");
                assert!(all.insert(series.to_owned()), "series twice: {line}");
            }
        }
        assert!(help.is_none(), "a help without samples");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_model::metrics::{
        JobLabels, JobMetrics, OperatorLabels, OperatorMetrics, SlotMetrics, TaskLabels, TaskMetrics,
    };

    fn full_registry() -> MetricRegistry {
        let registry = MetricRegistry::new("my-host", "my-host:1-ab");
        let job = JobLabels { job_id: "0a".into(), job_name: "word \"count\" \\ é".into() };
        JobMetrics::new(&registry, &job).num_restarts.set(7);
        for subtask in 0..2 {
            let task = TaskLabels::new(job.clone(), "t1", "Source: words -> Map", subtask);
            let operator = OperatorLabels { task: task.clone(), operator_id: "o1".into(), operator_name: "Map".into() };
            TaskMetrics::new(&registry, &task).num_records_in.set(99_731);
            let metrics = OperatorMetrics::new(&registry, &operator);
            metrics.num_late_records_dropped().set(u64::from(subtask));
            let latency = metrics.latency_ms("s1");
            (1..=100).for_each(|value| latency.record(value));
            drop(SlotMetrics::new(&registry, 100, 32_768));
        }
        registry
    }

    #[test]
    fn when_everything_is_registered_then_the_text_is_strictly_well_formed() {
        parser::check(&render(&full_registry(), 1).unwrap());
    }

    #[test]
    fn when_rendered_then_lines_are_flinks() {
        let text = render(&full_registry(), 1).unwrap();
        let expected = [
            "# HELP flink_taskmanager_job_task_numRecordsIn numRecordsIn (scope: taskmanager_job_task)",
            "# TYPE flink_taskmanager_job_task_numRecordsIn gauge",
            "flink_taskmanager_job_task_numRecordsIn{host=\"my_host\",tm_id=\"my_host:1_ab\",job_id=\"0a\",\
             job_name=\"word__count_____\",task_id=\"t1\",task_name=\"Source:_words____Map\",\
             task_attempt_id=\"0a_t1_1_0\",task_attempt_num=\"0\",subtask_index=\"1\"} 99731",
        ];
        for line in expected {
            assert!(text.lines().any(|one| one == line), "missing: {line}\n{text}");
        }
    }

    #[test]
    fn when_a_histogram_then_it_is_a_summary_without_a_sum() {
        let text = render(&full_registry(), 1).unwrap();
        let name = "flink_taskmanager_job_task_latency_source_id_operator_id_operator_subtask_index_latency";
        assert!(text.contains(&format!("# TYPE {name} summary\n")));
        for q in ["0.5", "0.75", "0.95", "0.98", "0.99", "0.999"] {
            assert!(text.contains(&format!("quantile=\"{q}\"")), "{q}");
        }
        assert!(text.lines().any(|line| line.starts_with(&format!("{name}_count{{")) && line.ends_with(" 100")));
        assert!(!text.contains(&format!("{name}_sum")));
    }

    #[test]
    fn when_two_series_become_equal_by_filtering_then_the_first_stays() {
        let registry = MetricRegistry::default();
        registry.task_manager().labelled_group("topic", "a-b").counter("n").set(1);
        registry.task_manager().labelled_group("topic", "a_b").counter("n").set(2);
        let text = render(&registry, 0).unwrap();
        parser::check(&text);
        assert_eq!(text.matches("topic=\"a_b\"").count(), 1);
    }
}
