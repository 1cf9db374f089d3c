//! Scopes of metrics and the labels that each scope carries.

use super::Label;

/// What a metric is about. Decides the prefix of its name and its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// The coordinating process.
    JobManager,
    /// A job as the coordinator sees it.
    Job,
    /// A process that runs slots.
    TaskManager,
    /// A job within such a process.
    TaskManagerJob,
    /// One subtask of a task.
    Task,
    /// One subtask of an operator.
    Operator,
}

impl Scope {
    /// Start of the names in this scope, without the `_` that follows.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::JobManager => "flink_jobmanager",
            Self::Job => "flink_jobmanager_job",
            Self::TaskManager => "flink_taskmanager",
            Self::TaskManagerJob => "flink_taskmanager_job",
            Self::Task => "flink_taskmanager_job_task",
            Self::Operator => "flink_taskmanager_job_task_operator",
        }
    }

    /// The logical scope as the help line of Flink's reporter has it: `taskmanager_job_task`.
    pub fn logical(self) -> &'static str {
        &self.prefix()["flink_".len()..]
    }
}

/// Labels of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobLabels {
    /// Id of the job, 32 hexadecimal digits.
    pub job_id: String,
    /// Name of the job.
    pub job_name: String,
}

/// Labels of one subtask of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskLabels {
    /// The job.
    pub job: JobLabels,
    /// Id of the task: of the job vertex.
    pub task_id: String,
    /// Chained name: `Source: gen -> Map`.
    pub task_name: String,
    /// `<execution graph id>_<vertex id>_<subtask>_<attempt>`.
    pub attempt_id: String,
    /// Number of the attempt, from 0.
    pub attempt_num: u32,
    /// Index of the subtask, from 0.
    pub subtask_index: u32,
}

/// Labels of one subtask of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorLabels {
    /// The subtask that runs it.
    pub task: TaskLabels,
    /// Id of the operator.
    pub operator_id: String,
    /// Name of the operator.
    pub operator_name: String,
}

impl TaskLabels {
    /// Labels of the first attempt of a subtask; the attempt's id is made from the job's and the task's.
    pub fn new(job: JobLabels, task_id: impl Into<String>, task_name: impl Into<String>, subtask_index: u32) -> Self {
        let task_id = task_id.into();
        let attempt_id = format!("{}_{task_id}_{subtask_index}_0", job.job_id);
        Self { job, task_id, task_name: task_name.into(), attempt_id, attempt_num: 0, subtask_index }
    }

    pub(super) fn push_to(&self, labels: &mut Vec<Label>) {
        self.job.push_to(labels);
        labels.extend([
            ("task_id".into(), self.task_id.clone()),
            ("task_name".into(), self.task_name.clone()),
            ("task_attempt_id".into(), self.attempt_id.clone()),
            ("task_attempt_num".into(), self.attempt_num.to_string()),
            ("subtask_index".into(), self.subtask_index.to_string()),
        ]);
    }
}

impl JobLabels {
    pub(super) fn push_to(&self, labels: &mut Vec<Label>) {
        labels.push(("job_id".into(), self.job_id.clone()));
        labels.push(("job_name".into(), self.job_name.clone()));
    }
}

impl OperatorLabels {
    pub(super) fn push_to(&self, labels: &mut Vec<Label>) {
        self.task.push_to(labels);
        labels.push(("operator_id".into(), self.operator_id.clone()));
        labels.push(("operator_name".into(), self.operator_name.clone()));
    }
}
