//! The logical graph that the DataStream API builds, and its translation into a physical plan.
//!
//! A node is a *segment*: operators that the compiler fused. Here the chaining rule (Flink's, see
//! `StreamingJobGraphGenerator`) joins segments into tasks, tasks get slots, edges get partitioners.

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use thalweg_cluster::{VertexSlots, allocate_slots};
use thalweg_io::FrameLayout;
use thalweg_model::{JobId, KeyHasher, MaxParallelism};
use thalweg_runtime::{
    BufferTimeout, EdgePlan, OperatorInfo, Partitioner, PhysicalPlan, RecordType, RuntimeConfig, SegmentFactory,
    SegmentPlan, TaskPlan,
};

use crate::{error::BuildError, side::SidePorts};

/// Index of a segment in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId(pub usize);

/// How the records of a logical edge spread over the subtasks of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// Forward where the parallelism is the same, else rebalance.
    Auto,
    Forward,
    Hash,
    Rebalance,
    Rescale,
    Broadcast,
    Shuffle,
    Global,
    Custom,
}

/// Whether an operator may be chained to its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Chaining {
    #[default]
    Always,
    Head,
    Never,
}

#[derive(Clone, Debug)]
pub(crate) struct Operator {
    pub name: String,
    pub uid: Option<String>,
}

pub(crate) struct Node {
    pub operators: Vec<Operator>,
    pub factory: Option<SegmentFactory>,
    pub inputs: usize,
    pub parallelism: Option<u32>,
    pub max_parallelism: Option<u32>,
    /// A source or operator that can only run with one subtask.
    pub sequential: bool,
    pub slot_group: Option<String>,
    pub chaining: Chaining,
    /// Of the edges that leave the segment.
    pub buffer_timeout: Option<BufferTimeout>,
    pub side_ports: SidePorts,
}

#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub from: SegmentId,
    pub port: usize,
    pub to: SegmentId,
    pub input: usize,
    pub exchange: Exchange,
    pub timed: bool,
    /// What its records are.
    pub records: RecordType,
}

#[derive(Default)]
pub(crate) struct Graph {
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
}

/// Ends the segment before an operator, so that the operator starts one of its own.
pub trait Cut {
    /// Takes the factory of what came before and the type of the records between.
    fn cut(&mut self, before: SegmentFactory, records: RecordType);
}

impl Graph {
    pub fn add(&mut self, inputs: usize, name: Option<&str>) -> SegmentId {
        let operators = name.map(|name| Operator { name: name.to_owned(), uid: None }).into_iter().collect();
        self.nodes.push(Node {
            operators,
            factory: None,
            inputs,
            parallelism: None,
            max_parallelism: None,
            sequential: false,
            slot_group: None,
            chaining: Chaining::Always,
            buffer_timeout: None,
            side_ports: SidePorts::default(),
        });
        SegmentId(self.nodes.len() - 1)
    }

    /// Adds an operator to a segment; answers its index in it.
    pub fn add_operator(&mut self, segment: SegmentId, name: &str) -> usize {
        let operators = &mut self.nodes[segment.0].operators;
        operators.push(Operator { name: name.to_owned(), uid: None });
        operators.len() - 1
    }

    fn task_name(&self, chain: &[usize]) -> String {
        let mut names: Vec<&str> = Vec::new();
        for &segment in chain {
            names.extend(self.nodes[segment].operators.iter().map(|operator| operator.name.as_str()));
        }
        if names.is_empty() { "Records".to_owned() } else { names.join(" -> ") }
    }
}

/// What the environment decides for all operators that do not say otherwise.
pub(crate) struct Defaults {
    pub parallelism: u32,
    pub max_parallelism: Option<u32>,
    pub chaining: bool,
    /// Whether operators of different maximum parallelism may be chained.
    pub chain_different_max_parallelism: bool,
    pub buffer_timeout: BufferTimeout,
    /// The maximum parallelism of operators, by id, in the checkpoint that the job starts from.
    pub restored_max: HashMap<String, u32>,
}

/// A graph with every open question answered: parallelisms, partitioners, tasks.
pub(crate) struct Resolved {
    pub parallelism: Vec<u32>,
    pub max_parallelism: Vec<MaxParallelism>,
    pub slot_group: Vec<String>,
    pub exchange: Vec<Exchange>,
    /// Task index of each segment.
    pub task: Vec<usize>,
    /// Segments of each task in topological order.
    pub tasks: Vec<Vec<usize>>,
}

impl Graph {
    /// Answers every open question, or says what is wrong with the job.
    pub fn resolve(&self, defaults: &Defaults) -> Result<Resolved, BuildError> {
        if self.nodes.is_empty() {
            return Err(BuildError::Empty);
        }
        self.check_uids()?;
        let order = self.topological()?;
        let mut parallelism = vec![0; self.nodes.len()];
        let mut max_parallelism = vec![MaxParallelism::derived(1); self.nodes.len()];
        for &segment in &order {
            (parallelism[segment], max_parallelism[segment]) = self.sizes(segment, defaults, &parallelism)?;
        }
        let slot_group = self.slot_groups(&order);
        let mut exchange = Vec::new();
        for edge in &self.edges {
            let same = parallelism[edge.from.0] == parallelism[edge.to.0];
            // Towards a segment without operators each subtask keeps to the one of its number, so that its records stay in
            // their order up to what partitions them next.
            let passes_on =
                self.nodes[edge.to.0].operators.is_empty() && parallelism[edge.from.0] < parallelism[edge.to.0];
            exchange.push(match edge.exchange {
                Exchange::Auto if same || passes_on => Exchange::Forward,
                Exchange::Auto => Exchange::Rebalance,
                Exchange::Forward if !same => {
                    return Err(BuildError::ForwardParallelism {
                        from: self.task_name(&[edge.from.0]),
                        to: self.task_name(&[edge.to.0]),
                    });
                }
                other => other,
            });
        }
        let mut task = vec![usize::MAX; self.nodes.len()];
        let mut tasks: Vec<Vec<usize>> = Vec::new();
        for &segment in &order {
            let mut inputs = self.edges.iter().enumerate().filter(|(_, edge)| edge.to.0 == segment);
            let joined = match (inputs.next(), inputs.next()) {
                (Some((index, edge)), None)
                    if defaults.chaining
                        && exchange[index] == Exchange::Forward
                        && parallelism[edge.from.0] == parallelism[segment]
                        && (defaults.chain_different_max_parallelism
                            || max_parallelism[edge.from.0] == max_parallelism[segment])
                        && slot_group[edge.from.0] == slot_group[segment]
                        && self.nodes[segment].chaining == Chaining::Always
                        && self.nodes[edge.from.0].chaining != Chaining::Never =>
                {
                    Some(task[edge.from.0])
                }
                _ => None,
            };
            task[segment] = joined.unwrap_or_else(|| {
                tasks.push(Vec::new());
                tasks.len() - 1
            });
            tasks[task[segment]].push(segment);
        }
        Ok(Resolved { parallelism, max_parallelism, slot_group, exchange, task, tasks })
    }

    /// Parallelism and maximum parallelism of a segment, given those of its inputs.
    fn sizes(&self, segment: usize, defaults: &Defaults, known: &[u32]) -> Result<(u32, MaxParallelism), BuildError> {
        let node = &self.nodes[segment];
        let operator = || self.task_name(&[segment]);
        if node.factory.is_none() {
            return Err(BuildError::NoSink { operator: operator() });
        }
        let parallelism =
            node.parallelism.or_else(|| self.inherited(segment, known)).unwrap_or(match node.sequential {
                true => 1,
                false => defaults.parallelism,
            });
        if parallelism == 0 {
            return Err(BuildError::ZeroParallelism { operator: operator() });
        }
        if node.sequential && parallelism != 1 {
            return Err(BuildError::NotParallel { operator: operator(), parallelism });
        }
        let max = match node.max_parallelism.or(defaults.max_parallelism) {
            Some(max) => MaxParallelism::new(max).ok_or(BuildError::MaxParallelism { max })?,
            // Keys stay in their groups: what was derived for a checkpoint is not derived again.
            None => self.restored_max(segment, defaults).unwrap_or_else(|| MaxParallelism::derived(parallelism)),
        };
        if parallelism > max.get() {
            return Err(BuildError::ParallelismAboveMax { operator: operator(), parallelism, max: max.get() });
        }
        Ok((parallelism, max))
    }

    fn restored_max(&self, segment: usize, defaults: &Defaults) -> Option<MaxParallelism> {
        let ids = (0..self.nodes[segment].operators.len()).map(|index| self.operator_id(segment, index));
        ids.filter_map(|id| MaxParallelism::new(*defaults.restored_max.get(&id)?)).next()
    }

    /// Id of an operator: that of its uid, else that of its place.
    fn operator_id(&self, segment: usize, index: usize) -> String {
        match &self.nodes[segment].operators[index].uid {
            Some(uid) => id(&[uid.as_bytes()]),
            None => id(&[&segment.to_le_bytes(), &index.to_le_bytes()]),
        }
    }

    /// State is matched by the operator's id: no two may have the same.
    fn check_uids(&self) -> Result<(), BuildError> {
        let mut names: HashMap<String, &str> = HashMap::new();
        for (segment, node) in self.nodes.iter().enumerate() {
            for (index, operator) in node.operators.iter().enumerate() {
                if let Some(first) = names.insert(self.operator_id(segment, index), &operator.name) {
                    let uid = operator.uid.clone().unwrap_or_default();
                    return Err(BuildError::DuplicateUid {
                        uid,
                        first: first.to_owned(),
                        second: operator.name.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// A segment without operators of its own is no place where records change subtasks: it is as wide as the widest of its
    /// inputs, so that what follows (a key, say) partitions what they send in the order in which they send it.
    fn inherited(&self, segment: usize, known: &[u32]) -> Option<u32> {
        if !self.nodes[segment].operators.is_empty() {
            return None;
        }
        self.edges.iter().filter(|edge| edge.to.0 == segment).map(|edge| known[edge.from.0]).max()
    }

    fn topological(&self) -> Result<Vec<usize>, BuildError> {
        let mut missing: Vec<usize> =
            (0..self.nodes.len()).map(|n| self.edges.iter().filter(|edge| edge.to.0 == n).count()).collect();
        let mut ready: Vec<usize> = (0..self.nodes.len()).rev().filter(|&n| missing[n] == 0).collect();
        let mut order = Vec::new();
        while let Some(segment) = ready.pop() {
            order.push(segment);
            for edge in self.edges.iter().rev().filter(|edge| edge.from.0 == segment) {
                missing[edge.to.0] -= 1;
                if missing[edge.to.0] == 0 {
                    ready.push(edge.to.0);
                }
            }
        }
        if order.len() == self.nodes.len() { Ok(order) } else { Err(BuildError::Cycle) }
    }

    /// A group is inherited from the inputs where they agree, as in Flink.
    fn slot_groups(&self, order: &[usize]) -> Vec<String> {
        let mut groups = vec![String::new(); self.nodes.len()];
        for &segment in order {
            groups[segment] = self.nodes[segment].slot_group.clone().unwrap_or_else(|| {
                let mut inputs = self.edges.iter().filter(|edge| edge.to.0 == segment).map(|edge| &groups[edge.from.0]);
                match inputs.next() {
                    Some(first) if inputs.all(|other| other == first) => first.clone(),
                    _ => "default".to_owned(),
                }
            });
        }
        groups
    }

    /// What names a segment across builds of one job: its operators' uids, else its place.
    fn node_key(&self, segment: usize) -> String {
        let uids: Vec<&str> =
            self.nodes[segment].operators.iter().filter_map(|operator| operator.uid.as_deref()).collect();
        if uids.is_empty() { segment.to_string() } else { uids.join("/") }
    }

    /// The plan that the runtime executes.
    pub fn plan(
        &self,
        job_name: &str,
        job_id: JobId,
        defaults: &Defaults,
        config: RuntimeConfig,
    ) -> Result<PhysicalPlan, BuildError> {
        let resolved = self.resolve(defaults)?;
        let vertices: Vec<VertexSlots<'_>> = resolved
            .tasks
            .iter()
            .map(|chain| VertexSlots {
                parallelism: resolved.parallelism[chain[0]],
                group: &resolved.slot_group[chain[0]],
            })
            .collect();
        let allocation = allocate_slots(&vertices);
        let mut tasks = Vec::new();
        for (index, chain) in resolved.tasks.iter().enumerate() {
            let key: Vec<String> = chain.iter().map(|&segment| self.node_key(segment)).collect();
            tasks.push(TaskPlan {
                id: id(&key.iter().map(|part| part.as_bytes()).collect::<Vec<_>>()),
                name: self.task_name(chain),
                parallelism: resolved.parallelism[chain[0]],
                slot_of: allocation.slot_of[index].clone(),
                segments: chain
                    .iter()
                    .map(|&segment| self.segment_plan(segment, &resolved))
                    .collect::<Result<_, _>>()?,
            });
        }
        let mut edges = Vec::new();
        for (edge, exchange) in self.edges.iter().zip(&resolved.exchange) {
            edges.push(EdgePlan {
                from_segment: edge.from.0,
                from_port: edge.port,
                to_segment: edge.to.0,
                to_input: edge.input,
                partitioner: partitioner(*exchange, resolved.max_parallelism[edge.to.0], edges.len()),
                layout: self.input_layout(edge.to),
                buffer_timeout: self.nodes[edge.from.0].buffer_timeout.unwrap_or(defaults.buffer_timeout),
                records: edge.records.clone(),
            });
        }
        Ok(PhysicalPlan {
            job_id: job_id.to_string(),
            job_name: job_name.to_owned(),
            slots: allocation.slots,
            tasks,
            edges,
            config,
        })
    }

    /// All edges into a segment are read by one gate, so they share one layout that suits all of them.
    fn input_layout(&self, to: SegmentId) -> FrameLayout {
        let edges = self.edges.iter().filter(|edge| edge.to == to);
        let (align, timed) =
            edges.fold((1, false), |(align, timed), edge| (edge.records.align.max(align), edge.timed || timed));
        FrameLayout::new(align, timed)
    }

    fn segment_plan(&self, segment: usize, resolved: &Resolved) -> Result<SegmentPlan, BuildError> {
        let node = &self.nodes[segment];
        let factory =
            node.factory.clone().ok_or_else(|| BuildError::NoSink { operator: self.task_name(&[segment]) })?;
        let info = |(index, operator): (usize, &Operator)| OperatorInfo {
            name: operator.name.clone(),
            uid: operator.uid.clone(),
            id: self.operator_id(segment, index),
        };
        let operators: Vec<OperatorInfo> = node.operators.iter().enumerate().map(info).collect();
        Ok(SegmentPlan {
            id: segment,
            name: self.task_name(&[segment]),
            inputs: node.inputs,
            side_ports: node.side_ports.names().len(),
            factory,
            max_parallelism: resolved.max_parallelism[segment],
            state_id: match operators.first() {
                Some(first) => first.id.clone(),
                None => id(&[b"segment", &segment.to_le_bytes()]),
            },
            operators,
        })
    }

    /// The job graph in words: tasks, their operators, and how they are joined.
    pub fn explain(&self, job_name: &str, defaults: &Defaults) -> Result<String, BuildError> {
        let resolved = self.resolve(defaults)?;
        let mut text = format!("job {job_name}: {} tasks\n", resolved.tasks.len());
        for (index, chain) in resolved.tasks.iter().enumerate() {
            let first = chain[0];
            let _ = write!(
                text,
                "\n[{}] {}\n    parallelism {}, max parallelism {}, slot sharing group {}\n",
                index + 1,
                self.task_name(chain),
                resolved.parallelism[first],
                resolved.max_parallelism[first].get(),
                resolved.slot_group[first]
            );
            for &segment in chain {
                for operator in self.nodes[segment].operators.iter().filter(|operator| operator.uid.is_some()) {
                    let _ = writeln!(text, "    uid of {}: {}", operator.name, operator.uid.as_deref().unwrap_or(""));
                }
            }
            for (edge, exchange) in self.edges.iter().zip(&resolved.exchange) {
                let (from, to) = (resolved.task[edge.from.0], resolved.task[edge.to.0]);
                if from == index && to != index {
                    let side = edge
                        .port
                        .checked_sub(1)
                        .map(|port| format!(" (side output {})", self.nodes[edge.from.0].side_ports.names()[port]));
                    let _ = writeln!(
                        text,
                        "    --{}--> [{}] input {}{}",
                        format!("{exchange:?}").to_uppercase(),
                        to + 1,
                        edge.input,
                        side.unwrap_or_default()
                    );
                }
            }
        }
        Ok(text)
    }
}

fn partitioner(exchange: Exchange, max_parallelism: MaxParallelism, edge: usize) -> Partitioner {
    match exchange {
        Exchange::Auto | Exchange::Forward => Partitioner::Forward,
        Exchange::Hash => Partitioner::Hash { max_parallelism },
        Exchange::Rebalance => Partitioner::Rebalance,
        Exchange::Rescale => Partitioner::Rescale,
        Exchange::Broadcast => Partitioner::Broadcast,
        Exchange::Shuffle => Partitioner::Shuffle { seed: edge as u64 },
        Exchange::Global => Partitioner::Global,
        Exchange::Custom => Partitioner::Custom,
    }
}

/// An id as Flink shows them: 32 hexadecimal digits, a hash of what names the thing.
fn id(parts: &[&[u8]]) -> String {
    let mut halves = [0u64; 2];
    for (salt, half) in halves.iter_mut().enumerate() {
        let mut hasher = KeyHasher::new();
        hasher.word(salt as u64);
        parts.iter().for_each(|part| hasher.bytes(part));
        *half = hasher.finish64();
    }
    format!("{:016x}{:016x}", halves[0], halves[1])
}

/// `execution.buffer-timeout` from a duration: zero flushes after every record.
pub(crate) fn buffer_timeout(timeout: Duration) -> BufferTimeout {
    if timeout.is_zero() {
        BufferTimeout::PerRecord
    } else {
        BufferTimeout::Millis(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1))
    }
}
