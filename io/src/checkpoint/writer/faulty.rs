//! A lane with faults, for tests: what the plan says fails never reaches the lane behind it.

use std::{io, path::PathBuf, sync::Arc};

use super::{
    lane::{Answer, Done, Job, Lane, Op},
    thread::perform,
    wake::Wake,
};
use crate::checkpoint::faults::{FaultPlan, Operation, Verdict, path_of};

/// Asks the plan before each operation.
pub(crate) struct FaultyLane {
    inner: Box<dyn Lane>,
    plan: Arc<FaultPlan>,
    failed: Vec<Done>,
    wake: Arc<Wake>,
}

impl FaultyLane {
    pub(crate) fn new(inner: Box<dyn Lane>, plan: Arc<FaultPlan>, wake: Arc<Wake>) -> Self {
        Self { inner, plan, failed: Vec::new(), wake }
    }
}

fn kind(op: &Op) -> Option<Operation> {
    match op {
        Op::Create { .. } => Some(Operation::Open),
        Op::Allocate { .. } => Some(Operation::Allocate),
        Op::Write { .. } => Some(Operation::Write),
        Op::Truncate { .. } => Some(Operation::Truncate),
        Op::Sync { .. } => Some(Operation::Sync),
        Op::Rename { .. } => Some(Operation::Rename),
        Op::Unlink { .. } => Some(Operation::Unlink),
        Op::MakeDir { .. } => Some(Operation::MakeDir),
        Op::OpenDir { .. } | Op::Close { .. } => None,
    }
}

fn path(op: &Op) -> PathBuf {
    match op {
        Op::Create { path, .. } | Op::OpenDir { path } | Op::Unlink { path } | Op::MakeDir { path } => path.clone(),
        Op::Rename { to, .. } => to.clone(),
        Op::Allocate { file, .. } | Op::Write { file, .. } | Op::Truncate { file, .. } | Op::Sync { file } => {
            path_of(&**file)
        }
        Op::Close { .. } => PathBuf::new(),
    }
}

impl Lane for FaultyLane {
    fn submit(&mut self, mut job: Job) {
        let bytes = if let Op::Write { start, end, .. } = &job.op { end - start } else { 0 };
        let verdict = match kind(&job.op) {
            Some(kind) => self.plan.decide(kind, bytes, || path(&job.op)),
            None => Verdict::Go,
        };
        let fail = |errno| Err::<Answer, _>(io::Error::from_raw_os_error(errno));
        let limit = |job: &mut Job, bytes| {
            if let Op::Write { at_most, .. } = &mut job.op {
                *at_most = bytes;
            }
        };
        let result = match verdict {
            Verdict::Go => return self.inner.submit(job),
            Verdict::Short(bytes) => {
                limit(&mut job, bytes);
                return self.inner.submit(job);
            }
            Verdict::Fail(errno) => fail(errno),
            Verdict::Torn(bytes, errno) => {
                limit(&mut job, bytes);
                // What becomes of the half is part of the fault.
                let _ = perform(&mut job.op);
                fail(errno)
            }
        };
        self.failed.push(Done { job, result });
        self.wake.signal();
    }

    fn poll(&mut self, done: &mut Vec<Done>) -> io::Result<()> {
        if !self.failed.is_empty() {
            self.wake.drain();
            done.append(&mut self.failed);
        }
        self.inner.poll(done)
    }

    fn wait(&mut self) -> io::Result<()> {
        if self.failed.is_empty() { self.inner.wait() } else { Ok(()) }
    }
}
