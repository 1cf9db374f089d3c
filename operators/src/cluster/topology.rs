//! From the plan of a job to the vertices that checkpoints know: one for each task.

use thalweg_cluster::checkpoint::{Input, SubtaskId, Topology, Vertex, Wiring};
use thalweg_runtime::{Partitioner, PhysicalPlan, TaskSubtask};

/// The vertices of a plan, in its order: the graph lists tasks upstream before downstream.
pub(super) fn topology(plan: &PhysicalPlan) -> Topology {
    let task_of = |segment: usize| plan.tasks.iter().position(|task| task.segments.iter().any(|one| one.id == segment));
    let mut vertices: Vec<Vertex> =
        plan.tasks.iter().map(|task| Vertex { parallelism: task.parallelism, inputs: Vec::new() }).collect();
    for edge in &plan.edges {
        let (Some(from), Some(to)) = (task_of(edge.from_segment), task_of(edge.to_segment)) else { continue };
        if from != to {
            vertices[to].inputs.push(Input { from: from as u32, wiring: wiring(edge.partitioner) });
        }
    }
    Topology::new(vertices)
}

/// Whom a partitioner connects; those that pick a channel for each record have one to every subtask.
fn wiring(partitioner: Partitioner) -> Wiring {
    match partitioner {
        Partitioner::Forward => Wiring::Forward,
        Partitioner::Rescale => Wiring::Rescale,
        _ => Wiring::All,
    }
}

/// The subtask as coordination names it.
pub(super) fn subtask_id(subtask: TaskSubtask) -> SubtaskId {
    SubtaskId { vertex: subtask.task as u32, index: subtask.subtask }
}

/// The subtasks as the runtime names them.
pub(super) fn task_subtasks(subtasks: &[SubtaskId]) -> Vec<TaskSubtask> {
    subtasks.iter().map(|id| TaskSubtask { task: id.vertex as usize, subtask: id.index }).collect()
}
