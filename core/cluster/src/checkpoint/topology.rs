//! Which subtasks a checkpoint is triggered at, waits for and finds finished (Flink's `DefaultCheckpointPlanCalculator`).

use super::{failure::FailureReason, types::SubtaskId};

/// The vertices of a job, upstream before downstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    vertices: Vec<Vertex>,
}

/// A vertex as checkpoints see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vertex {
    /// Number of subtasks.
    pub parallelism: u32,
    /// Where its records come from; nothing for a source.
    pub inputs: Vec<Input>,
}

/// An edge, seen from its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Place of the sending vertex.
    pub from: u32,
    /// Who is connected with whom.
    pub wiring: Wiring,
}

/// Which subtasks an edge connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// Each with the one of the same index. Receivers beyond the senders hear of other edges.
    Forward,
    /// Each with a contiguous share (Flink's pointwise distribution).
    Rescale,
    /// Each with every one.
    All,
}

/// How far a subtask is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskPhase {
    /// Not running yet, or no more.
    #[default]
    Absent,
    /// Running.
    Running,
    /// Running, but all of its input is processed: it waits for a last checkpoint.
    EndOfData,
    /// Finished.
    Finished,
}

/// Who does what in a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Told by message, since no barrier reaches them.
    pub trigger: Vec<SubtaskId>,
    /// Must acknowledge, and are told the outcome.
    pub wait_for: Vec<SubtaskId>,
    /// Had finished before.
    pub finished: Vec<SubtaskId>,
}

impl Topology {
    /// A job's vertices.
    ///
    /// # Panics
    /// Where a vertex has no subtask, where an input does not come from an earlier vertex, or where a forward edge
    /// leads to fewer subtasks than send.
    pub fn new(vertices: Vec<Vertex>) -> Self {
        for (at, vertex) in vertices.iter().enumerate() {
            assert!(vertex.parallelism > 0, "vertex {at} has no subtask");
            for input in &vertex.inputs {
                assert!((input.from as usize) < at, "vertex {at} reads vertex {}, which is not before it", input.from);
                let fits = vertices[input.from as usize].parallelism <= vertex.parallelism;
                assert!(fits || input.wiring != Wiring::Forward, "forward edge to fewer subtasks than send");
            }
        }
        Self { vertices }
    }

    /// The vertices.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// Number of subtasks.
    pub fn subtask_count(&self) -> usize {
        self.vertices.iter().map(|vertex| vertex.parallelism as usize).sum()
    }

    /// All subtasks, vertex by vertex.
    pub fn subtasks(&self) -> impl Iterator<Item = SubtaskId> + '_ {
        let indices = |(vertex, of): (usize, &Vertex)| (0..of.parallelism).map(move |index| (vertex as u32, index));
        self.vertices.iter().enumerate().flat_map(indices).map(|(vertex, index)| SubtaskId { vertex, index })
    }

    /// The subtasks of the sending vertex that a subtask reads from: a contiguous range.
    pub fn senders(&self, receiver: SubtaskId, input: Input) -> std::ops::Range<u32> {
        let senders = u64::from(self.vertices[input.from as usize].parallelism);
        let receivers = u64::from(self.vertices[receiver.vertex as usize].parallelism);
        let index = u64::from(receiver.index);
        let (start, end) = match input.wiring {
            Wiring::Forward => (index.min(senders), (index + 1).min(senders)),
            Wiring::All => (0, senders),
            Wiring::Rescale if senders >= receivers => (index * senders / receivers, (index + 1) * senders / receivers),
            Wiring::Rescale => {
                // Sender s feeds receivers ceil(s*r/n) .. ceil((s+1)*r/n).
                let sender = index * senders / receivers;
                (sender, sender + 1)
            }
        };
        start as u32..end as u32
    }
}

/// The phases of all subtasks.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    phases: Vec<Vec<TaskPhase>>,
}

impl Tasks {
    pub fn new(topology: &Topology) -> Self {
        Self { phases: topology.vertices.iter().map(|v| vec![TaskPhase::Absent; v.parallelism as usize]).collect() }
    }

    pub fn reset(&mut self) {
        self.phases.iter_mut().flatten().for_each(|phase| *phase = TaskPhase::Absent);
    }

    /// Sets a subtask's phase; whether that changed anything. A phase never goes back but by `reset`, so that messages
    /// may come twice or in the wrong order.
    pub fn set(&mut self, subtask: SubtaskId, phase: TaskPhase) -> bool {
        let rank = |phase| match phase {
            TaskPhase::Absent => 0,
            TaskPhase::Running => 1,
            TaskPhase::EndOfData => 2,
            TaskPhase::Finished => 3,
        };
        match self.phases.get_mut(subtask.vertex as usize).and_then(|v| v.get_mut(subtask.index as usize)) {
            Some(old) if rank(phase) > rank(*old) => {
                *old = phase;
                true
            }
            _ => false,
        }
    }

    fn get(&self, subtask: SubtaskId) -> TaskPhase {
        self.phases[subtask.vertex as usize][subtask.index as usize]
    }

    pub fn is_finished(&self, subtask: SubtaskId) -> bool {
        self.get(subtask) == TaskPhase::Finished
    }

    /// Whether whatever still runs has processed all of its input, and something does run.
    pub fn all_at_end_of_data(&self) -> bool {
        let phases = || self.phases.iter().flatten();
        phases().all(|phase| matches!(phase, TaskPhase::EndOfData | TaskPhase::Finished))
            && phases().any(|phase| *phase == TaskPhase::EndOfData)
    }

    /// The plan of a checkpoint that starts now.
    pub fn plan(&self, topology: &Topology, finished_allowed: bool) -> Result<Plan, FailureReason> {
        let mut plan = Plan::default();
        let live: Vec<bool> = self.phases.iter().map(|v| v.iter().any(|p| *p != TaskPhase::Finished)).collect();
        for subtask in topology.subtasks() {
            match self.get(subtask) {
                TaskPhase::Absent => return Err(FailureReason::NotAllTasksRunning),
                TaskPhase::Finished => plan.finished.push(subtask),
                TaskPhase::Running | TaskPhase::EndOfData => {
                    plan.wait_for.push(subtask);
                    if !self.hears_barriers(topology, subtask, &live) {
                        plan.trigger.push(subtask);
                    }
                }
            }
        }
        let nothing_left = plan.wait_for.is_empty();
        let unwanted = !plan.finished.is_empty() && !finished_allowed;
        if nothing_left || unwanted { Err(FailureReason::NotAllTasksRunning) } else { Ok(plan) }
    }

    /// Whether some subtask that still runs sends to this one.
    fn hears_barriers(&self, topology: &Topology, subtask: SubtaskId, live: &[bool]) -> bool {
        topology.vertices[subtask.vertex as usize].inputs.iter().any(|&input| {
            let mut senders = topology.senders(subtask, input);
            live[input.from as usize]
                && (input.wiring == Wiring::All
                    || senders.any(|index| self.get(SubtaskId { vertex: input.from, index }) != TaskPhase::Finished))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(parallelism: u32, inputs: &[(u32, Wiring)]) -> Vertex {
        Vertex { parallelism, inputs: inputs.iter().map(|&(from, wiring)| Input { from, wiring }).collect() }
    }

    fn id(vertex: u32, index: u32) -> SubtaskId {
        SubtaskId { vertex, index }
    }

    fn running(topology: &Topology) -> Tasks {
        let mut tasks = Tasks::new(topology);
        topology.subtasks().for_each(|subtask| assert!(tasks.set(subtask, TaskPhase::Running)));
        tasks
    }

    fn chain() -> Topology {
        Topology::new(vec![vertex(2, &[]), vertex(2, &[(0, Wiring::Forward)]), vertex(3, &[(1, Wiring::All)])])
    }

    #[test]
    fn when_all_run_then_sources_are_triggered_and_all_are_waited_for() {
        let plan = running(&chain()).plan(&chain(), true).unwrap();
        assert_eq!(plan.trigger, [id(0, 0), id(0, 1)]);
        assert_eq!(plan.wait_for.len(), 7);
        assert!(plan.finished.is_empty());
    }

    #[test]
    fn when_a_source_subtask_has_finished_then_its_forward_receiver_is_triggered() {
        let mut tasks = running(&chain());
        tasks.set(id(0, 0), TaskPhase::Finished);
        let plan = tasks.plan(&chain(), true).unwrap();
        assert_eq!(plan.trigger, [id(0, 1), id(1, 0)]);
        assert_eq!(plan.finished, [id(0, 0)]);
        assert_eq!(tasks.plan(&chain(), false), Err(FailureReason::NotAllTasksRunning));
        tasks.set(id(0, 1), TaskPhase::Finished);
        tasks.set(id(1, 0), TaskPhase::Finished);
        assert_eq!(tasks.plan(&chain(), true).unwrap().trigger, [id(1, 1)], "the last vertex still hears vertex 1");
        tasks.set(id(1, 1), TaskPhase::Finished);
        assert_eq!(tasks.plan(&chain(), true).unwrap().trigger, [id(2, 0), id(2, 1), id(2, 2)]);
    }

    #[test]
    fn when_a_task_is_absent_or_all_have_finished_then_there_is_no_plan() {
        let mut tasks = Tasks::new(&chain());
        assert_eq!(tasks.plan(&chain(), true), Err(FailureReason::NotAllTasksRunning));
        chain().subtasks().for_each(|subtask| assert!(tasks.set(subtask, TaskPhase::Finished)));
        assert_eq!(tasks.plan(&chain(), true), Err(FailureReason::NotAllTasksRunning));
    }

    #[test]
    fn when_rescaled_then_each_receiver_hears_the_senders_that_send_to_it() {
        for (senders, receivers) in [(2, 3), (3, 2), (4, 2), (1, 5), (5, 1), (3, 3), (7, 4), (4, 7)] {
            let topology = Topology::new(vec![vertex(senders, &[]), vertex(receivers, &[(0, Wiring::Rescale)])]);
            let mut heard = vec![0; senders as usize];
            for index in 0..receivers {
                let range = topology.senders(id(1, index), Input { from: 0, wiring: Wiring::Rescale });
                assert!(!range.is_empty());
                range.for_each(|sender| heard[sender as usize] += 1);
                if senders < receivers {
                    // Flink's formula, seen from the sender.
                    let start = |s: u32| (s * receivers).div_ceil(senders);
                    let sender = (0..senders).find(|&s| (start(s)..start(s + 1)).contains(&index)).unwrap();
                    assert!(topology.senders(id(1, index), topology.vertices[1].inputs[0]).eq([sender]));
                }
            }
            assert!(heard.iter().all(|&n| n > 0), "{senders} to {receivers}: {heard:?}");
        }
    }

    #[test]
    fn when_a_forward_edge_has_fewer_senders_then_the_other_receivers_hear_nothing_of_it() {
        let inputs = [(0, Wiring::Forward), (1, Wiring::Forward)];
        let topology = Topology::new(vec![vertex(1, &[]), vertex(2, &[]), vertex(2, &inputs)]);
        let mut tasks = running(&topology);
        assert_eq!(tasks.plan(&topology, true).unwrap().trigger, [id(0, 0), id(1, 0), id(1, 1)]);
        tasks.set(id(1, 1), TaskPhase::Finished);
        assert_eq!(tasks.plan(&topology, true).unwrap().trigger, [id(0, 0), id(1, 0), id(2, 1)]);
    }

    #[test]
    fn when_phases_come_in_the_wrong_order_then_they_never_go_back() {
        let mut tasks = running(&chain());
        assert!(tasks.set(id(0, 0), TaskPhase::Finished));
        assert!(!tasks.set(id(0, 0), TaskPhase::Running));
        assert!(!tasks.set(id(9, 0), TaskPhase::Running), "unknown subtasks change nothing");
        chain().subtasks().for_each(|subtask| {
            tasks.set(subtask, TaskPhase::EndOfData);
        });
        assert!(tasks.all_at_end_of_data());
    }
}
