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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, prelude::*};

    #[test]
    fn when_a_job_is_planned_then_its_vertices_are_wired_as_its_tasks_are() {
        let env = Environment::new();
        env.parallelism(2).disable_operator_chaining();
        let numbers = env.generate(10, |n| n).rescale().map(|n| n).parallelism(4);
        numbers.key_by(|n| n % 3).aggregate(Count, |key, _| key).disable_chaining().sink(discard().0);
        let plan = env.plan().unwrap();
        let topology = topology(&plan);
        let of = |at: usize| {
            let vertex = &topology.vertices()[at];
            (vertex.parallelism, vertex.inputs.iter().map(|input| (input.from, input.wiring)).collect::<Vec<_>>())
        };
        assert_eq!(of(0), (2, vec![]));
        assert_eq!(of(1), (4, vec![(0, Wiring::Rescale)]));
        assert_eq!(of(2), (2, vec![(1, Wiring::All)]));
        assert_eq!(topology.vertices().len(), plan.tasks.len());
        let subtask = TaskSubtask { task: 1, subtask: 3 };
        assert_eq!(task_subtasks(&[subtask_id(subtask)]), [subtask]);
    }
}
