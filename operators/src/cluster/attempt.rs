//! The runner: one attempt to run the job after another, on the thread that waits for its slots.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
};

use thalweg_cluster::job::Attempt;
use thalweg_io::checkpoint::{Depth, Disk, Metadata, RestoredCheckpoint, verify};
use thalweg_model::metrics::MetricRegistry;
use thalweg_runtime::{JobControl, JobError, JobHooks, JobReport, PhysicalPlan, Reactor, TaskListener, execute_with};

use super::{fit::check_fit, inbox::Message, shape::Shape};

/// An attempt that is to be run.
pub(super) struct Order {
    pub(super) attempt: Attempt,
    pub(super) plan: PhysicalPlan,
    pub(super) control: JobControl,
    pub(super) listener: Option<Arc<dyn TaskListener>>,
    pub(super) restore: Option<Restore>,
}

/// What it starts from.
pub(super) enum Restore {
    /// A checkpoint or savepoint in this directory.
    Files(PathBuf),
    /// A checkpoint that was kept in memory.
    Memory(Box<Metadata>),
}

/// How an attempt ended.
pub(super) enum Outcome {
    /// It ran.
    Ran(Result<JobReport, JobError>),
    /// What it was to start from cannot be read: one line that names the file.
    Damaged(String),
    /// What it was to start from is another job's.
    Unfit(String),
}

/// What all attempts have in common.
pub(super) struct Runner<'r> {
    pub(super) reactor: &'r dyn Reactor,
    pub(super) metrics: MetricRegistry,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) shape: Shape,
    pub(super) allow_unclaimed: bool,
    pub(super) inbox: Sender<Message>,
}

impl Runner<'_> {
    /// Runs attempts until there are no more orders.
    pub(super) fn run(&self, orders: &Receiver<Order>) {
        for order in orders {
            let attempt = order.attempt;
            let outcome = catch_unwind(AssertUnwindSafe(|| self.attempt(order)));
            let outcome = outcome.unwrap_or_else(|_| {
                let message = "the thread that watches the job panicked; please report this".to_owned();
                Outcome::Ran(Err(JobError::Failed(message)))
            });
            // A master that is gone has cancelled the attempt, and nobody asks how it ended.
            let _ = self.inbox.send(Message::Ended { attempt, outcome });
        }
    }

    fn attempt(&self, order: Order) -> Outcome {
        let Order { plan, control, listener, restore, .. } = order;
        let restored = match restore.map(|restore| self.open(restore)).transpose() {
            Ok(restored) => restored.map(Arc::new),
            Err(outcome) => return outcome,
        };
        let hooks = JobHooks { listener, restored: restored.clone() };
        let result = execute_with(plan, self.reactor, control, &self.metrics, hooks);
        let damage = restored.and_then(|restored| restored.damage());
        match damage.filter(|_| result.is_err()) {
            Some(damage) => Outcome::Damaged(damage),
            None => Outcome::Ran(result),
        }
    }

    fn open(&self, restore: Restore) -> Result<RestoredCheckpoint, Outcome> {
        let (dir, metadata) = match restore {
            Restore::Memory(metadata) => (PathBuf::new(), *metadata),
            Restore::Files(dir) => {
                let metadata = verify(&*self.disk, &dir, Depth::References);
                (dir, metadata.map_err(|bad| Outcome::Damaged(bad.to_string()))?)
            }
        };
        check_fit(&self.shape, &metadata, self.allow_unclaimed).map_err(|error| Outcome::Unfit(error.to_string()))?;
        tracing::info!("restoring from checkpoint {} {}", metadata.checkpoint, dir.display());
        Ok(RestoredCheckpoint::new(self.disk.clone(), dir, metadata, self.allow_unclaimed))
    }
}
