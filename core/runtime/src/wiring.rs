//! Wiring: from the plan to what each slot builds: channels for every pair of subtasks, and the sizes of pools.
//!
//! Runs on the thread that starts the job. What it makes moves to the slots' threads; nothing is shared but the channels.

use std::{collections::HashMap, sync::Arc};

use crate::{
    BufferTimeout, EdgePlan, FrameLayout, JobError, Partitioner, PhysicalPlan, SegmentPlan,
    exchange::{ChannelConfig, ChannelReceiver, ChannelSender, EdgeConfig, channel},
    outputs::Flush,
};

/// What a slot builds.
#[derive(Default)]
pub(crate) struct SlotBlueprint {
    pub(crate) tasks: Vec<TaskBlueprint>,
    /// Pages of its pool: the sum of what its edges may hold.
    pub(crate) pages: usize,
}

/// A subtask.
pub(crate) struct TaskBlueprint {
    /// Index of the task in the plan.
    pub(crate) task: usize,
    pub(crate) subtask: u32,
    pub(crate) segments: Vec<SegmentBlueprint>,
}

/// A segment of a subtask: its ends of the channels.
#[derive(Default)]
pub(crate) struct SegmentBlueprint {
    pub(crate) receivers: Vec<(FrameLayout, ChannelReceiver)>,
    /// Of each receiver: the logical input, and the slot at the other end.
    pub(crate) input_of: Vec<usize>,
    pub(crate) slot_of: Vec<usize>,
    /// Whether one comes from another task.
    pub(crate) from_other_tasks: bool,
    /// Of each receiver: what names it in checkpoints, and the schema of its records.
    pub(crate) names: Vec<String>,
    pub(crate) schemas: Vec<Arc<[u8]>>,
    /// Whether barriers may overtake records on all of them.
    pub(crate) overtakes: bool,
    pub(crate) edges: Vec<EdgeBlueprint>,
}

/// An edge of a segment of a subtask.
pub(crate) struct EdgeBlueprint {
    pub(crate) port: usize,
    pub(crate) partitioner: Partitioner,
    pub(crate) flush: Flush,
    pub(crate) config: EdgeConfig,
    pub(crate) senders: Vec<ChannelSender>,
    pub(crate) slot_of: Vec<usize>,
    /// Of each sender: what names it in checkpoints; and the schema of the records.
    pub(crate) names: Vec<String>,
    pub(crate) schema: Arc<[u8]>,
    /// Whether barriers may overtake records on it.
    pub(crate) overtakes: bool,
}

/// Where a segment is in the plan.
#[derive(Clone, Copy)]
struct Place {
    task: usize,
    index: usize,
}

/// Lays out the job.
///
/// # Errors
/// [`JobError::Plan`] where the plan contradicts itself.
pub(crate) fn wire(plan: &PhysicalPlan) -> Result<Vec<SlotBlueprint>, JobError> {
    let places = check(plan).map_err(JobError::Plan)?;
    let mut subtasks: Vec<Vec<TaskBlueprint>> = plan
        .tasks
        .iter()
        .enumerate()
        .map(|(task, t)| {
            let segments = || t.segments.iter().map(|_| SegmentBlueprint::default()).collect();
            (0..t.parallelism).map(|subtask| TaskBlueprint { task, subtask, segments: segments() }).collect()
        })
        .collect();
    for (index, edge) in plan.edges.iter().enumerate() {
        let ends = Ends { from: places[&edge.from_segment], to: places[&edge.to_segment] };
        let overtakes = plan
            .edges
            .iter()
            .filter(|other| other.to_segment == edge.to_segment)
            .all(|other| may_overtake(plan, other, places[&other.from_segment].task == ends.to.task));
        connect(plan, index, &ends, overtakes, &mut subtasks);
    }
    let mut slots: Vec<SlotBlueprint> = (0..plan.slots).map(|_| SlotBlueprint::default()).collect();
    for (task, subtasks) in plan.tasks.iter().zip(subtasks) {
        for (subtask, &slot) in subtasks.into_iter().zip(&task.slot_of) {
            let edges = subtask.segments.iter().flat_map(|segment| &segment.edges);
            slots[slot].pages += edges.map(|edge| edge.config.max_pages(edge.senders.len())).sum::<usize>();
            slots[slot].tasks.push(subtask);
        }
    }
    Ok(slots)
}

/// The ends of an edge.
struct Ends {
    from: Place,
    to: Place,
}

/// Whether barriers may overtake records on an edge, as far as that depends on the edge alone (Flink's rule: where a record
/// goes must not depend on where others went).
fn may_overtake(plan: &PhysicalPlan, edge: &EdgePlan, within_task: bool) -> bool {
    let Some(setup) = plan.config.checkpointing.as_ref().filter(|setup| setup.unaligned) else { return false };
    match edge.partitioner {
        // Within a task the two ends are one to the user.
        _ if within_task => true,
        Partitioner::Forward | Partitioner::Rescale | Partitioner::Broadcast => false,
        Partitioner::Custom => setup.unaligned_forced,
        _ => true,
    }
}

/// Makes the channels of an edge and hands out their ends.
fn connect(plan: &PhysicalPlan, index: usize, ends: &Ends, overtakes: bool, subtasks: &mut [Vec<TaskBlueprint>]) {
    let (edge, &Ends { from, to }) = (&plan.edges[index], ends);
    let config = &plan.config;
    let edge_name = plan.edge_name(index);
    let (sending, receiving) = (&plan.tasks[from.task], &plan.tasks[to.task]);
    let within_task = from.task == to.task;
    let max_buffers = config.max_buffers_per_channel.max(1);
    let channel_config = |same_core| ChannelConfig {
        exclusive_buffers: config.exclusive_buffers_per_channel.max(1) as u32,
        // Room for a few flushed slices of each page that may be under way.
        ring_slots: (4 * max_buffers).max(32) as u32,
        same_core,
    };
    let flush = match edge.buffer_timeout {
        _ if within_task => Flush::Step,
        BufferTimeout::PerRecord => Flush::Record,
        BufferTimeout::Millis(ms) => Flush::After(u64::from(ms) * 1_000_000),
        BufferTimeout::WhenFull => Flush::Full,
    };
    for subtask in 0..sending.parallelism {
        let targets = if within_task {
            subtask..subtask + 1
        } else {
            edge.partitioner.targets(subtask, sending.parallelism, receiving.parallelism)
        };
        let (mut senders, mut slot_of, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for target in targets {
            let (slot, target_slot) = (sending.slot_of[subtask as usize], receiving.slot_of[target as usize]);
            let (sender, receiver) = channel(channel_config(slot == target_slot));
            senders.push(sender);
            slot_of.push(target_slot);
            names.push(format!("out {edge_name} {target}"));
            let segment = &mut subtasks[to.task][target as usize].segments[to.index];
            segment.receivers.push((edge.layout, receiver));
            segment.input_of.push(edge.to_input);
            segment.slot_of.push(slot);
            segment.from_other_tasks |= !within_task;
            segment.names.push(format!("in {edge_name} {subtask}"));
            segment.schemas.push(edge.records.schema.clone());
            segment.overtakes = overtakes;
        }
        subtasks[from.task][subtask as usize].segments[from.index].edges.push(EdgeBlueprint {
            port: edge.from_port,
            partitioner: edge.partitioner,
            flush,
            config: EdgeConfig {
                layout: edge.layout,
                max_record_bytes: config.max_record_bytes,
                buffers_per_channel: config.exclusive_buffers_per_channel.max(1),
                extra_buffers: config.floating_buffers_per_gate.max(1),
                max_buffers_per_channel: max_buffers,
            },
            senders,
            slot_of,
            names,
            schema: edge.records.schema.clone(),
            overtakes,
        });
    }
}

/// Finds what is wrong with a plan, or where its segments are.
fn check(plan: &PhysicalPlan) -> Result<HashMap<usize, Place>, String> {
    let config = &plan.config;
    if !config.page_bytes.is_multiple_of(64) || config.page_bytes == 0 {
        return Err(format!("network buffers of {} bytes; use a multiple of 64", config.page_bytes));
    }
    let mut places = HashMap::new();
    for (task_index, task) in plan.tasks.iter().enumerate() {
        if task.parallelism == 0 || task.slot_of.len() != task.parallelism as usize {
            return Err(format!(
                "task {} has {} subtasks and {} slots",
                task.name,
                task.parallelism,
                task.slot_of.len()
            ));
        }
        if let Some(slot) = task.slot_of.iter().find(|&&slot| slot >= plan.slots) {
            return Err(format!("task {} runs in slot {slot} of {}", task.name, plan.slots));
        }
        for (index, segment) in task.segments.iter().enumerate() {
            if segment.max_parallelism.get() < task.parallelism {
                return Err(format!(
                    "{} has parallelism {} above its maximum parallelism {}; raise `pipeline.max-parallelism`",
                    segment.name,
                    task.parallelism,
                    segment.max_parallelism.get()
                ));
            }
            if places.insert(segment.id, Place { task: task_index, index }).is_some() {
                return Err(format!("two segments have the number {}", segment.id));
            }
        }
    }
    for edge in &plan.edges {
        check_edge(plan, edge, &places)?;
    }
    for segment in plan.tasks.iter().flat_map(|task| &task.segments) {
        let connected = |input| plan.edges.iter().any(|e| e.to_segment == segment.id && e.to_input == input);
        if let Some(input) = (0..segment.inputs).find(|&input| !connected(input)) {
            return Err(format!("nothing is connected to input {input} of {}", segment.name));
        }
    }
    Ok(places)
}

fn check_edge(plan: &PhysicalPlan, edge: &EdgePlan, places: &HashMap<usize, Place>) -> Result<(), String> {
    let find =
        |id| places.get(&id).copied().ok_or_else(|| format!("an edge refers to segment {id}, which does not exist"));
    let (from, to) = (find(edge.from_segment)?, find(edge.to_segment)?);
    let segment = |place: Place| -> &SegmentPlan { &plan.tasks[place.task].segments[place.index] };
    let name = format!("the edge from {} to {}", segment(from).name, segment(to).name);
    if edge.from_port > segment(from).side_ports || edge.to_input >= segment(to).inputs {
        return Err(format!(
            "{name} uses port {} and input {}, not both of which exist",
            edge.from_port, edge.to_input
        ));
    }
    if from.task == to.task && from.index >= to.index {
        return Err(format!("{name} leads backwards in its task"));
    }
    let forward = edge.partitioner == Partitioner::Forward;
    let (senders, receivers) = (plan.tasks[from.task].parallelism, plan.tasks[to.task].parallelism);
    let reaches_all = |other: &EdgePlan| {
        let at_same_input = other.to_segment == edge.to_segment && other.to_input == edge.to_input;
        let wide = |place: &Place| plan.tasks[place.task].parallelism >= receivers;
        at_same_input
            && (other.partitioner != Partitioner::Forward || places.get(&other.from_segment).is_some_and(wide))
    };
    if forward && (senders > receivers || !plan.edges.iter().any(reaches_all)) {
        return Err(format!("{name} is a forward edge between different parallelisms; use rebalance or rescale"));
    }
    if from.task == to.task && !forward && plan.tasks[from.task].parallelism > 1 {
        return Err(format!("{name} stays within its task and must be a forward edge"));
    }
    if plan.config.page_bytes < edge.layout.min_page_bytes() {
        let (page, least) = (plan.config.page_bytes, edge.layout.min_page_bytes());
        return Err(format!("{name} needs network buffers of {least} bytes or more; they have {page}"));
    }
    Ok(())
}
