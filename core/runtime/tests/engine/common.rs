//! Segments and plans for the runtime's tests.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use thalweg_model::{
    Elem, KeyHash, MaxParallelism,
    metrics::{MetricRegistry, MetricValue},
    record::{decode_unchecked, key_hash},
};
use thalweg_runtime::*;

/// What flows: a key and a number.
pub type Pair = (u64, u64);

pub fn layout() -> FrameLayout {
    FrameLayout::of::<Pair>(true)
}

/// Decodes every frame while there is room.
pub fn each(frames: &mut FrameCursor<'_>, out: &mut Outputs, mut f: impl FnMut(&mut Outputs, Elem<'_, Pair>, KeyHash)) {
    while out.room()
        && let Some(frame) = frames.next::<Pair>()
    {
        // SAFETY: all edges of these tests carry pairs.
        let view = unsafe { decode_unchecked::<Pair>(frame.payload) };
        f(out, Elem { view, timestamp: frame.timestamp, raw: frame.payload }, frame.hash);
    }
}

/// Emits pairs `(i % keys, i)` for its share of `0..records`, timestamp i, a watermark every `mark_every`.
pub struct Numbers {
    pub records: u64,
    pub keys: u64,
    pub mark_every: u64,
    next: u64,
    step: u64,
}

impl Numbers {
    pub fn new(records: u64, keys: u64) -> Self {
        Self { records, keys, mark_every: 10, next: 0, step: 1 }
    }
}

impl Segment for Numbers {
    fn open(&mut self, ctx: &mut SegmentContext, _: &mut Outputs) -> Result<(), TaskError> {
        (self.next, self.step) = (u64::from(ctx.subtask), u64::from(ctx.parallelism));
        Ok(())
    }

    fn process(&mut self, _: usize, _: &mut FrameCursor<'_>, _: &mut Outputs) -> Result<(), TaskError> {
        Err(TaskError::new("", "a source has no input"))
    }

    fn poll_source(&mut self, budget_records: usize, out: &mut Outputs) -> Result<SourceStatus, TaskError> {
        for _ in 0..budget_records {
            if self.next >= self.records {
                return Ok(SourceStatus::Ended);
            }
            if !out.room() {
                break;
            }
            let key = self.next % self.keys;
            out.write::<Pair>(0, Elem::new((key, self.next), self.next as i64), key_hash::<u64>(key));
            if self.next % self.mark_every < self.step {
                out.watermark(self.next as i64 - 1);
            }
            self.next += self.step;
        }
        Ok(SourceStatus::More)
    }

    fn is_source(&self) -> bool {
        true
    }
}

/// Passes everything on.
pub struct Pass;

impl Segment for Pass {
    fn process(&mut self, _: usize, frames: &mut FrameCursor<'_>, out: &mut Outputs) -> Result<(), TaskError> {
        each(frames, out, |out, elem, hash| out.write::<Pair>(0, elem, hash));
        Ok(())
    }
}

/// Counts by key, and emits the counts at the end, as far as there is room each time.
#[derive(Default)]
pub struct Count {
    counts: BTreeMap<u64, u64>,
}

impl Segment for Count {
    fn process(&mut self, _: usize, frames: &mut FrameCursor<'_>, out: &mut Outputs) -> Result<(), TaskError> {
        each(frames, out, |_, elem, hash| {
            assert_eq!(hash, key_hash::<u64>(elem.view.0));
            *self.counts.entry(elem.view.0).or_default() += 1;
        });
        Ok(())
    }

    fn finish(&mut self, out: &mut Outputs) -> Result<Progress, TaskError> {
        while out.room() {
            let Some((key, count)) = self.counts.pop_first() else { return Ok(Progress::Done) };
            out.write::<Pair>(0, Elem::new((key, count), 0), key_hash::<u64>(key));
        }
        Ok(Progress::Blocked)
    }
}

/// What a sink has seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    Record { subtask: u32, input: usize, pair: Pair, timestamp: i64 },
    Watermark { subtask: u32, watermark: i64 },
    Idle { subtask: u32, idle: bool },
    EndInput { subtask: u32, input: usize },
    Finish { subtask: u32 },
    Close { subtask: u32 },
}

#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    pub fn push(&self, seen: Seen) {
        self.0.lock().unwrap().push(seen);
    }
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
    pub fn pairs(&self) -> Vec<Pair> {
        let pair = |seen: &Seen| if let Seen::Record { pair, .. } = seen { Some(*pair) } else { None };
        self.0.lock().unwrap().iter().filter_map(pair).collect()
    }
    pub fn sorted_pairs(&self) -> Vec<Pair> {
        let mut pairs = self.pairs();
        pairs.sort();
        pairs
    }
    pub fn sink(&self) -> SegmentFactory {
        let log = self.clone();
        Arc::new(move || Box::new(Sink { log: log.clone(), subtask: 0 }))
    }
}

/// Writes down what it sees.
struct Sink {
    log: Log,
    subtask: u32,
}

impl Segment for Sink {
    fn open(&mut self, ctx: &mut SegmentContext, _: &mut Outputs) -> Result<(), TaskError> {
        self.subtask = ctx.subtask;
        Ok(())
    }
    fn process(&mut self, input: usize, frames: &mut FrameCursor<'_>, out: &mut Outputs) -> Result<(), TaskError> {
        let subtask = self.subtask;
        each(frames, out, |_, e, _| {
            self.log.push(Seen::Record { subtask, input, pair: e.view, timestamp: e.timestamp })
        });
        Ok(())
    }
    fn watermark(&mut self, watermark: i64, _: &mut Outputs) -> Result<Progress, TaskError> {
        self.log.push(Seen::Watermark { subtask: self.subtask, watermark });
        Ok(Progress::Done)
    }
    fn idle(&mut self, idle: bool, _: &mut Outputs) {
        self.log.push(Seen::Idle { subtask: self.subtask, idle });
    }
    fn end_input(&mut self, input: usize, _: &mut Outputs) -> Result<Progress, TaskError> {
        self.log.push(Seen::EndInput { subtask: self.subtask, input });
        Ok(Progress::Done)
    }
    fn finish(&mut self, _: &mut Outputs) -> Result<Progress, TaskError> {
        self.log.push(Seen::Finish { subtask: self.subtask });
        Ok(Progress::Done)
    }
    fn close(&mut self) {
        self.log.push(Seen::Close { subtask: self.subtask });
    }
}

pub fn boxed<S: Segment + 'static>(make: impl Fn() -> S + Send + Sync + 'static) -> SegmentFactory {
    Arc::new(move || Box::new(make()))
}

/// A source whose polls are a closure's.
pub struct FnSource<F>(pub F);

impl<F: FnMut(usize, &mut Outputs) -> Result<SourceStatus, TaskError>> Segment for FnSource<F> {
    fn process(&mut self, _: usize, _: &mut FrameCursor<'_>, _: &mut Outputs) -> Result<(), TaskError> {
        Err(TaskError::new("", "a source has no input"))
    }
    fn poll_source(&mut self, budget_records: usize, out: &mut Outputs) -> Result<SourceStatus, TaskError> {
        (self.0)(budget_records, out)
    }
    fn is_source(&self) -> bool {
        true
    }
}

/// An operator whose `process` is a closure called per record.
pub struct FnEach<F>(pub F);

impl<F: FnMut(&mut Outputs, Elem<'_, Pair>, KeyHash)> Segment for FnEach<F> {
    fn process(&mut self, _: usize, frames: &mut FrameCursor<'_>, out: &mut Outputs) -> Result<(), TaskError> {
        each(frames, out, &mut self.0);
        Ok(())
    }
}

/// Builds plans: each task one segment, each in slot = subtask.
pub struct Job {
    pub plan: PhysicalPlan,
}

pub fn small_config(page_bytes: usize) -> RuntimeConfig {
    RuntimeConfig {
        page_bytes,
        huge_pages: false,
        max_record_bytes: 1 << 16,
        teardown_timeout: Duration::from_secs(5),
        oversubscribe: true,
        ..RuntimeConfig::default()
    }
}

impl Job {
    pub fn new(config: RuntimeConfig) -> Self {
        Self {
            plan: PhysicalPlan {
                job_id: format!("{:032x}", 7),
                job_name: "test".into(),
                slots: 1,
                tasks: Vec::new(),
                edges: Vec::new(),
                config,
            },
        }
    }

    pub fn task(&mut self, name: &str, parallelism: u32, inputs: usize, factory: SegmentFactory) -> usize {
        let id: usize = self.plan.tasks.iter().map(|task| task.segments.len()).sum();
        self.plan.tasks.push(TaskPlan {
            id: format!("{:032x}", id + 100),
            name: name.into(),
            parallelism,
            slot_of: (0..parallelism as usize).collect(),
            segments: Vec::new(),
        });
        self.plan.slots = self.plan.slots.max(parallelism as usize);
        self.chain(name, inputs, factory)
    }

    /// Adds a segment to the last task.
    pub fn chain(&mut self, name: &str, inputs: usize, factory: SegmentFactory) -> usize {
        let id: usize = self.plan.tasks.iter().map(|task| task.segments.len()).sum();
        self.plan.tasks.last_mut().unwrap().segments.push(SegmentPlan {
            id,
            name: name.into(),
            inputs,
            side_ports: 1,
            factory,
            max_parallelism: MaxParallelism::new(128).unwrap(),
            operators: vec![OperatorInfo { name: name.into(), uid: None, id: format!("{id:032x}") }],
            state_id: format!("{id:032x}"),
        });
        id
    }

    pub fn edge(&mut self, from: usize, to: usize, partitioner: Partitioner) -> &mut EdgePlan {
        self.plan.edges.push(EdgePlan {
            from_segment: from,
            from_port: 0,
            to_segment: to,
            to_input: 0,
            partitioner,
            layout: layout(),
            buffer_timeout: BufferTimeout::Millis(100),
            records: RecordType::of::<Pair>([].into()),
        });
        self.plan.edges.last_mut().unwrap()
    }

    pub fn run(self, reactor: &dyn Reactor) -> Result<JobReport, JobError> {
        self.run_with(reactor, JobControl::new(), &MetricRegistry::default())
    }

    pub fn run_with(
        self,
        reactor: &dyn Reactor,
        control: JobControl,
        metrics: &MetricRegistry,
    ) -> Result<JobReport, JobError> {
        execute(self.plan, reactor, control, metrics)
    }
}

pub fn hash() -> Partitioner {
    Partitioner::Hash { max_parallelism: MaxParallelism::new(128).unwrap() }
}

/// A number to count with from segments.
#[derive(Clone, Default)]
pub struct Counted(Arc<AtomicU64>);

impl Counted {
    pub fn add(&self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::SeqCst) + n
    }
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The seeds a test tries: as many as `THALWEG_SEEDS` says, or so many.
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    0..std::env::var("THALWEG_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

/// A factory for a segment of parallelism one.
pub fn once<S: Segment + Send + 'static>(segment: S) -> SegmentFactory {
    let segment = Mutex::new(Some(segment));
    Arc::new(move || Box::new(segment.lock().unwrap().take().expect("made once")))
}

pub fn emit(out: &mut Outputs, n: u64) {
    out.write::<Pair>(0, Elem::new((n, n), n as i64), KeyHash(n as u32));
}

/// Emits for ever; says how many.
pub fn endless(emitted: Counted) -> impl Fn() -> Box<dyn Segment> + Send + Sync {
    move || {
        let emitted = emitted.clone();
        Box::new(FnSource(move |budget, out: &mut Outputs| {
            for _ in 0..budget {
                if !out.room() {
                    break;
                }
                emit(out, emitted.add(1));
            }
            Ok(SourceStatus::More)
        }))
    }
}

/// The sum of a metric over the subtasks of a task.
pub fn metric(registry: &MetricRegistry, name: &str, task: &str) -> f64 {
    let mut sum = 0.0;
    registry.visit(0, |sample| {
        if sample.name == name
            && sample.path.is_empty()
            && sample.labels.iter().any(|(k, v)| k == "task_name" && v == task)
            && !sample.labels.iter().any(|(k, _)| k == "operator_id")
        {
            sum += match &sample.value {
                MetricValue::Counter(n) => *n as f64,
                MetricValue::Gauge(n) => *n as f64,
                MetricValue::Float(x) | MetricValue::Meter(x) => *x,
                _ => 0.0,
            };
        }
    });
    sum
}

/// What is to be emitted, who is to be woken, and whether this is all.
pub type Queue = Arc<Mutex<(Vec<u64>, Option<SlotWaker>, bool)>>;

/// A source fed by a thread.
pub struct Fed {
    pub queue: Queue,
    pub polls: Counted,
}

impl Segment for Fed {
    fn is_source(&self) -> bool {
        true
    }
    fn open(&mut self, ctx: &mut SegmentContext, _: &mut Outputs) -> Result<(), TaskError> {
        self.queue.lock().unwrap().1 = Some(ctx.waker.clone());
        Ok(())
    }
    fn process(&mut self, _: usize, _: &mut FrameCursor<'_>, _: &mut Outputs) -> Result<(), TaskError> {
        Ok(())
    }
    fn poll_source(&mut self, _: usize, out: &mut Outputs) -> Result<SourceStatus, TaskError> {
        self.polls.add(1);
        let mut queue = self.queue.lock().unwrap();
        queue.0.drain(..).for_each(|n| emit(out, n));
        Ok(if queue.2 { SourceStatus::Ended } else { SourceStatus::Wait { until_ns: None } })
    }
}
