//! Metrics: who counts what under which name, and how an exporter reads it.
//!
//! Names, scopes and labels are Apache Flink's, so that its dashboards and alerts carry over. Writers hold cheap handles
//! ([`Counter`], [`Gauge`], ...) and store with relaxed atomics; an exporter calls [`MetricRegistry::visit`]. This module
//! has no clock: whoever reads passes a monotonic time, from which rates are computed.
//!
//! Labels and names are kept as given. What a format does not allow in them is the exporter's to replace.

mod histogram;
mod labels;
mod standard;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub use histogram::{Histogram, HistogramSnapshot};
pub use labels::{JobLabels, OperatorLabels, Scope, TaskLabels};
pub use standard::{JobMetrics, OperatorMetrics, SlotMetrics, TaskMetrics};
pub use value::{Counter, FloatGauge, Gauge};

use value::Meter;

/// A label's name and its value.
pub type Label = (Cow<'static, str>, String);

/// All metrics of a process. A cheap handle: clones see the same metrics.
#[derive(Clone)]
pub struct MetricRegistry {
    inner: Arc<Inner>,
}

struct Inner {
    host: String,
    tm_id: String,
    /// Written by whoever registers, read by exporters; never on the record path.
    groups: Mutex<BTreeMap<GroupKey, Arc<Group>>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    scope: Scope,
    /// Parts of the name between the scope's prefix and the metric's own name.
    path: Vec<Cow<'static, str>>,
    labels: Vec<Label>,
}

struct Group {
    key: GroupKey,
    metrics: Mutex<Vec<(Cow<'static, str>, Metric)>>,
}

/// A place to register metrics in: a scope with its labels. A cheap handle.
#[derive(Clone)]
pub struct MetricGroup {
    registry: MetricRegistry,
    group: Arc<Group>,
}

enum Metric {
    Counter(Counter, f64),
    Gauge(Gauge),
    Sum(Vec<Weak<value::GaugeCell>>),
    Float(FloatGauge),
    Function(Box<dyn Fn() -> f64 + Send + Sync>),
    Meter(Mutex<Meter>),
    Histogram(Histogram),
}

/// What a metric says at the moment it is read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MetricValue {
    /// A total that only grows within one attempt.
    Counter(u64),
    /// A whole number that goes up and down.
    Gauge(i64),
    /// A fraction that goes up and down.
    Float(f64),
    /// A rate per second.
    Meter(f64),
    /// A distribution.
    Histogram(Box<HistogramSnapshot>),
}

/// One metric as an exporter sees it.
#[derive(Debug)]
pub struct MetricSample<'a> {
    /// The scope that it belongs to.
    pub scope: Scope,
    /// Name parts between the scope's prefix and the name.
    pub path: &'a [Cow<'static, str>],
    /// The metric's own name, such as `numRecordsIn`.
    pub name: &'a str,
    /// Labels in the order in which the scope defines them.
    pub labels: &'a [Label],
    /// Its value now.
    pub value: MetricValue,
}

impl MetricSample<'_> {
    /// Scope prefix, path and name joined by `_`, not yet filtered: `flink_taskmanager_job_task_numRecordsIn`.
    pub fn full_name(&self) -> String {
        let mut name = String::from(self.scope.prefix());
        for part in self.path {
            name.push('_');
            name.push_str(part);
        }
        name.push('_');
        name.push_str(self.name);
        name
    }
}

impl Default for MetricRegistry {
    /// The registry of an embedded engine on this machine.
    fn default() -> Self {
        Self::new("localhost", "localhost:embedded")
    }
}

impl fmt::Debug for MetricRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = lock(&self.inner.groups).len();
        f.debug_struct("MetricRegistry").field("tm_id", &self.inner.tm_id).field("groups", &groups).finish()
    }
}

impl fmt::Debug for MetricGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricGroup")
            .field("scope", &self.group.key.scope)
            .field("labels", &self.group.key.labels)
            .finish()
    }
}

impl MetricRegistry {
    /// An empty registry. `host` and `tm_id` become labels of every metric.
    pub fn new(host: impl Into<String>, tm_id: impl Into<String>) -> Self {
        let inner = Inner { host: host.into(), tm_id: tm_id.into(), groups: Mutex::new(BTreeMap::new()) };
        Self { inner: Arc::new(inner) }
    }

    /// Metrics of the coordinating process: `flink_jobmanager_`.
    pub fn job_manager(&self) -> MetricGroup {
        self.scoped(Scope::JobManager, vec![("host".into(), self.inner.host.clone())])
    }

    /// Metrics of a job as a whole: `flink_jobmanager_job_`.
    pub fn job(&self, labels: &JobLabels) -> MetricGroup {
        let mut all = vec![("host".into(), self.inner.host.clone())];
        labels.push_to(&mut all);
        self.scoped(Scope::Job, all)
    }

    /// Metrics of the process that runs slots: `flink_taskmanager_`.
    pub fn task_manager(&self) -> MetricGroup {
        self.scoped(Scope::TaskManager, self.process_labels())
    }

    /// Metrics of a job within one process: `flink_taskmanager_job_`.
    pub fn task_manager_job(&self, labels: &JobLabels) -> MetricGroup {
        let mut all = self.process_labels();
        labels.push_to(&mut all);
        self.scoped(Scope::TaskManagerJob, all)
    }

    /// Metrics of one subtask of a task: `flink_taskmanager_job_task_`.
    pub fn task(&self, labels: &TaskLabels) -> MetricGroup {
        let mut all = self.process_labels();
        labels.push_to(&mut all);
        self.scoped(Scope::Task, all)
    }

    /// Metrics of one subtask of an operator, inside chains too: `flink_taskmanager_job_task_operator_`.
    pub fn operator(&self, labels: &OperatorLabels) -> MetricGroup {
        let mut all = self.process_labels();
        labels.push_to(&mut all);
        self.scoped(Scope::Operator, all)
    }

    /// Milliseconds from a source to an operator as latency markers see them; registered under the operator's task.
    pub fn latency(&self, operator: &OperatorLabels, source_id: &str) -> Histogram {
        self.task(&operator.task)
            .group("latency")
            .labelled_group("source_id", source_id)
            .labelled_group("operator_id", operator.operator_id.as_str())
            .labelled_group("operator_subtask_index", operator.task.subtask_index.to_string())
            .histogram("latency")
    }

    /// Forgets every metric that carries this job's id. Handles stay valid and are seen by nobody any more.
    pub fn remove_job(&self, job_id: &str) {
        lock(&self.inner.groups)
            .retain(|key, _| !key.labels.iter().any(|(name, value)| name == "job_id" && value == job_id));
    }

    /// Forgets the metrics of one attempt to run a job, when the next one begins: its tasks are gone.
    pub fn remove_attempt(&self, job_id: &str, attempt_num: u32) {
        let attempt_num = attempt_num.to_string();
        lock(&self.inner.groups).retain(|key, _| {
            let has = |wanted: &str, value: &str| key.labels.iter().any(|(name, of)| name == wanted && of == value);
            !(has("job_id", job_id) && has("task_attempt_num", &attempt_num))
        });
    }

    /// Remembers the state of every meter, so that rates cover the last minute. Call it about once a second.
    ///
    /// `now_ms` comes from a monotonic clock, the same for all calls.
    pub fn tick(&self, now_ms: u64) {
        for group in self.groups() {
            for (_, metric) in lock(&group.metrics).iter() {
                match metric {
                    Metric::Meter(meter) => lock(meter).tick(now_ms),
                    Metric::Histogram(histogram) => histogram.tick(now_ms),
                    _ => {}
                }
            }
        }
    }

    /// Shows every metric to `visitor`, those of one scope and path together.
    ///
    /// `now_ms` as in [`tick`](Self::tick), which it includes. The visitor may register metrics, but must not visit.
    pub fn visit(&self, now_ms: u64, mut visitor: impl FnMut(&MetricSample<'_>)) {
        for group in self.groups() {
            let samples: Vec<(Cow<'static, str>, MetricValue)> =
                lock(&group.metrics).iter().map(|(name, metric)| (name.clone(), metric.read(now_ms))).collect();
            for (name, value) in samples {
                let key = &group.key;
                visitor(&MetricSample { scope: key.scope, path: &key.path, name: &name, labels: &key.labels, value });
            }
        }
    }

    fn process_labels(&self) -> Vec<Label> {
        vec![("host".into(), self.inner.host.clone()), ("tm_id".into(), self.inner.tm_id.clone())]
    }

    fn groups(&self) -> Vec<Arc<Group>> {
        lock(&self.inner.groups).values().cloned().collect()
    }

    fn scoped(&self, scope: Scope, labels: Vec<Label>) -> MetricGroup {
        self.keyed(GroupKey { scope, path: Vec::new(), labels })
    }

    fn keyed(&self, key: GroupKey) -> MetricGroup {
        let group = Arc::clone(
            lock(&self.inner.groups)
                .entry(key)
                .or_insert_with_key(|key| Arc::new(Group { key: key.clone(), metrics: Mutex::new(Vec::new()) })),
        );
        MetricGroup { registry: self.clone(), group }
    }
}

impl MetricGroup {
    /// A group whose metrics have `part` in their names before their own name.
    pub fn group(&self, part: impl Into<Cow<'static, str>>) -> Self {
        let mut key = self.group.key.clone();
        key.path.push(part.into());
        self.registry.keyed(key)
    }

    /// A group whose metrics have `label` in their names and as a label with `value`, as Flink's `addGroup(key, value)`.
    pub fn labelled_group(&self, label: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        let label = label.into();
        let mut key = self.group.key.clone();
        key.path.push(label.clone());
        key.labels.push((label, value.into()));
        self.registry.keyed(key)
    }

    /// A total that only grows. Registering a name twice answers the handle that is there.
    pub fn counter(&self, name: impl Into<Cow<'static, str>>) -> Counter {
        self.scaled_counter(name, 1.0)
    }

    /// A counter whose shown value is what was counted times `scale`, rounded down: count ns, show ms with `1e-6`.
    pub fn scaled_counter(&self, name: impl Into<Cow<'static, str>>, scale: f64) -> Counter {
        self.register(
            name,
            Counter::default(),
            |c| Metric::Counter(c, scale),
            |metric| match metric {
                Metric::Counter(counter, _) => Some(counter.clone()),
                _ => None,
            },
        )
    }

    /// Shows a counter that is registered elsewhere under another name too.
    pub fn same_counter(&self, name: impl Into<Cow<'static, str>>, counter: &Counter) {
        self.register(name, counter.clone(), |c| Metric::Counter(c, 1.0), |_| Some(counter.clone()));
    }

    /// A counter and beside it its rate as `<name>PerSecond`.
    pub fn counter_with_rate(&self, name: &'static str) -> Counter {
        let counter = self.counter(name);
        self.meter(format!("{name}PerSecond"), &counter);
        counter
    }

    /// The growth of `counter` per second, over the last minute or since it was first seen.
    pub fn meter(&self, name: impl Into<Cow<'static, str>>, counter: &Counter) {
        self.scaled_meter(name, counter, 1.0);
    }

    /// The growth of `counter` per second times `scale`: a counter of ns as ms per second with `1e-6`.
    pub fn scaled_meter(&self, name: impl Into<Cow<'static, str>>, counter: &Counter, scale: f64) {
        let meter = Meter::new(counter.clone(), scale);
        self.register(name, (), |()| Metric::Meter(Mutex::new(meter)), |_| Some(()));
    }

    /// A whole number that goes up and down.
    pub fn gauge(&self, name: impl Into<Cow<'static, str>>) -> Gauge {
        self.register(name, Gauge::default(), Metric::Gauge, |metric| match metric {
            Metric::Gauge(gauge) => Some(gauge.clone()),
            _ => None,
        })
    }

    /// One part of a sum: each call answers a gauge of its own, and the metric shows the sum of those still held.
    ///
    /// For what several slots have each their share of, such as buffers.
    pub fn summed_gauge(&self, name: impl Into<Cow<'static, str>>) -> Gauge {
        let name = name.into();
        let part = Gauge::default();
        let mut metrics = lock(&self.group.metrics);
        match metrics.iter_mut().find(|(known, _)| *known == name) {
            Some((_, Metric::Sum(parts))) => {
                parts.retain(|part| part.strong_count() > 0);
                parts.push(part.downgrade());
            }
            Some(_) => {}
            None => metrics.push((name, Metric::Sum(vec![part.downgrade()]))),
        }
        part
    }

    /// A fraction that goes up and down.
    pub fn float_gauge(&self, name: impl Into<Cow<'static, str>>) -> FloatGauge {
        self.register(name, FloatGauge::default(), Metric::Float, |metric| match metric {
            Metric::Float(gauge) => Some(gauge.clone()),
            _ => None,
        })
    }

    /// A value asked for when somebody reads. `function` runs on the exporter's thread and must not block. Registering a name
    /// twice replaces the function: what it looked at may be gone.
    pub fn function_gauge(
        &self,
        name: impl Into<Cow<'static, str>>,
        function: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let name = name.into();
        lock(&self.group.metrics).retain(|(known, metric)| *known != name || !matches!(metric, Metric::Function(_)));
        self.register(name, (), |()| Metric::Function(Box::new(function)), |_| Some(()));
    }

    /// A distribution of whole numbers.
    pub fn histogram(&self, name: impl Into<Cow<'static, str>>) -> Histogram {
        self.register(name, Histogram::default(), Metric::Histogram, |metric| match metric {
            Metric::Histogram(histogram) => Some(histogram.clone()),
            _ => None,
        })
    }

    /// Registers `handle` unless the name is taken. A taken name of the same kind answers the handle that is there; of
    /// another kind, the first stays and the new handle is seen by nobody, as in Flink.
    fn register<H: Clone>(
        &self,
        name: impl Into<Cow<'static, str>>,
        handle: H,
        metric: impl FnOnce(H) -> Metric,
        existing: impl Fn(&Metric) -> Option<H>,
    ) -> H {
        let name = name.into();
        let mut metrics = lock(&self.group.metrics);
        if let Some((_, known)) = metrics.iter().find(|(known, _)| *known == name) {
            return existing(known).unwrap_or(handle);
        }
        metrics.push((name, metric(handle.clone())));
        handle
    }
}

impl Metric {
    fn read(&self, now_ms: u64) -> MetricValue {
        match self {
            Self::Counter(counter, scale) if *scale == 1.0 => MetricValue::Counter(counter.get()),
            Self::Counter(counter, scale) => MetricValue::Counter((counter.get() as f64 * scale) as u64),
            Self::Gauge(gauge) => MetricValue::Gauge(gauge.get()),
            Self::Sum(parts) => MetricValue::Gauge(parts.iter().filter_map(Weak::upgrade).map(|part| part.get()).sum()),
            Self::Float(gauge) => MetricValue::Float(gauge.get()),
            Self::Function(function) => MetricValue::Float(function()),
            Self::Meter(meter) => MetricValue::Meter(lock(meter).read(now_ms)),
            Self::Histogram(histogram) => MetricValue::Histogram(Box::new(histogram.snapshot())),
        }
    }
}

/// A panic while a lock is held leaves plain data behind, which is still good to read.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(registry: &MetricRegistry, now_ms: u64) -> Vec<(String, f64, Vec<Label>)> {
        let mut all = Vec::new();
        registry.visit(now_ms, |sample| {
            let value = match &sample.value {
                MetricValue::Counter(value) => *value as f64,
                MetricValue::Gauge(value) => *value as f64,
                MetricValue::Float(value) | MetricValue::Meter(value) => *value,
                MetricValue::Histogram(snapshot) => snapshot.count() as f64,
            };
            all.push((sample.full_name(), value, sample.labels.to_vec()));
        });
        all
    }

    fn operator() -> OperatorLabels {
        let job = JobLabels { job_id: "j".into(), job_name: "job".into() };
        let task = TaskLabels::new(job, "t", "Source: gen -> Map", 1);
        OperatorLabels { task, operator_id: "o".into(), operator_name: "Map".into() }
    }

    #[test]
    fn when_registered_then_name_and_labels_are_flinks() {
        let registry = MetricRegistry::new("h", "tm");
        registry.operator(&operator()).counter("numRecordsIn").set(7);
        let all = read(&registry, 0);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].0.as_str(), all[0].1), ("flink_taskmanager_job_task_operator_numRecordsIn", 7.0));
        let names: Vec<&str> = all[0].2.iter().map(|(name, _)| name.as_ref()).collect();
        let expected = [
            "host",
            "tm_id",
            "job_id",
            "job_name",
            "task_id",
            "task_name",
            "task_attempt_id",
            "task_attempt_num",
            "subtask_index",
            "operator_id",
            "operator_name",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn when_latency_then_the_name_has_every_label() {
        let registry = MetricRegistry::default();
        registry.latency(&operator(), "src").record(3);
        let all = read(&registry, 0);
        assert_eq!(all[0].0, "flink_taskmanager_job_task_latency_source_id_operator_id_operator_subtask_index_latency");
        assert!(all[0].2.iter().any(|(name, value)| name == "operator_subtask_index" && value == "1"));
    }

    #[test]
    fn when_registered_twice_then_the_handle_is_shared_and_shown_once() {
        let group = MetricRegistry::default().task_manager();
        group.counter("c").add(2);
        group.counter("c").add(3);
        group.gauge("c").set(99);
        let all = read(&group.registry, 0);
        assert_eq!(all.iter().map(|one| one.1).collect::<Vec<_>>(), [5.0]);
    }

    #[test]
    fn when_a_function_is_registered_again_then_the_new_one_is_asked() {
        let group = MetricRegistry::default().task_manager();
        group.function_gauge("f", || 1.0);
        group.function_gauge("f", || 2.0);
        assert_eq!(read(&group.registry, 0).iter().map(|one| one.1).collect::<Vec<_>>(), [2.0]);
    }

    #[test]
    fn when_a_counter_grows_then_its_meter_shows_the_rate() {
        let registry = MetricRegistry::default();
        let counter = registry.task_manager().counter_with_rate("n");
        registry.tick(1_000);
        counter.add(500);
        assert_eq!(read(&registry, 3_000)[1].1, 250.0);
    }

    #[test]
    fn when_a_part_of_a_sum_is_dropped_then_it_no_longer_counts() {
        let registry = MetricRegistry::default();
        let group = registry.task_manager();
        let (one, two) = (group.summed_gauge("s"), group.summed_gauge("s"));
        one.set(3);
        two.set(4);
        assert_eq!(read(&registry, 0)[0].1, 7.0);
        drop(one);
        assert_eq!(read(&registry, 0)[0].1, 4.0);
    }

    #[test]
    fn when_an_attempt_is_removed_then_the_next_one_and_the_job_stay() {
        let registry = MetricRegistry::default();
        let mut labels = operator();
        registry.operator(&labels).counter("c").set(1);
        labels.task.attempt_num = 1;
        registry.operator(&labels).counter("c").set(2);
        registry.job(&labels.task.job).gauge("g").set(3);
        registry.remove_attempt("j", 0);
        let values: Vec<f64> = read(&registry, 0).into_iter().map(|one| one.1).collect();
        assert_eq!(values, [3.0, 2.0]);
    }

    #[test]
    fn when_a_job_is_removed_then_its_metrics_are_gone() {
        let registry = MetricRegistry::default();
        registry.operator(&operator()).counter("c");
        registry.task_manager().counter("stays");
        registry.remove_job("j");
        assert_eq!(read(&registry, 0).len(), 1);
    }
}
