//! `Checks`: what must hold whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_cluster::{
    checkpoint::{Action, CheckpointId, Event, JobEnd, RequestId, Retained, SubtaskId},
    job::{Attempt, JobEvent, JobState},
};
use thalweg_model::config::{CheckpointRetention, CheckpointingOptions};

use crate::{storage::Storage, tasks::State};

pub struct Checks {
    pub state: JobState,
    pub damage_seen: bool,
    /// Whether a stop with savepoint came true.
    pub stopped: bool,
    last_id: CheckpointId,
    /// Started and neither committed nor given up; whether each has been triggered.
    in_flight: BTreeMap<CheckpointId, bool>,
    /// What each builds on.
    bases: BTreeMap<CheckpointId, CheckpointId>,
    acknowledged: BTreeSet<(CheckpointId, SubtaskId)>,
    written: BTreeSet<CheckpointId>,
    writing: Option<CheckpointId>,
    given_up: BTreeSet<CheckpointId>,
    unanswered: BTreeSet<RequestId>,
    attempt: Attempt,
    pub completed_count: u64,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            state: JobState::Created,
            damage_seen: false,
            stopped: false,
            last_id: CheckpointId(0),
            in_flight: BTreeMap::new(),
            bases: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            written: BTreeSet::new(),
            writing: None,
            given_up: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            attempt: Attempt(0),
            completed_count: 0,
        }
    }
}

impl Checks {
    pub fn asked(&mut self, request: RequestId) {
        assert!(self.unanswered.insert(request));
    }

    /// Who asked the process that is gone gets no answer; everything else starts anew.
    pub fn crashed(&mut self, storage: &Storage) {
        // An id whose directory was never made is known to nobody and may be given again.
        self.last_id = CheckpointId(storage.highest_id);
        self.state = JobState::Created;
        self.in_flight.clear();
        self.writing = None;
        self.unanswered.clear();
        self.attempt = Attempt(0);
    }

    /// Notes what the job is about to hear.
    pub fn before(&mut self, event: &JobEvent<State>, storage: &Storage) {
        match event {
            JobEvent::Checkpoint(Event::Acknowledged(ack)) => {
                self.acknowledged.insert((ack.id, ack.subtask));
            }
            JobEvent::Checkpoint(Event::MetadataWritten { id, .. }) => {
                assert!(storage.is_complete(*id));
                assert_eq!(self.writing.take(), Some(*id));
                self.in_flight.remove(id);
                self.completed_count += 1;
            }
            JobEvent::Checkpoint(Event::MetadataFailed { .. }) => self.writing = None,
            _ => {}
        }
    }

    pub fn deployed(&mut self, attempt: Attempt, restore: Option<&Retained<State>>, storage: &Storage) {
        assert_eq!(self.state, JobState::Running);
        assert!(attempt > self.attempt, "each deployment has a number of its own");
        self.attempt = attempt;
        assert_eq!(self.writing, None, "deployed while nobody knows which checkpoint is the newest");
        let newest = storage.recoverable().last().map(|newest| newest.checkpoint.id);
        assert_eq!(restore.map(|restore| restore.checkpoint.id), newest, "not the newest good checkpoint");
        assert!(self.damage_seen || newest >= storage.newest_commit(), "restored from before what was committed");
    }

    pub fn decided(&mut self, action: &Action<State>, options: &CheckpointingOptions, now: u64) {
        match action {
            Action::Prepare { id, kind, .. } => {
                assert!(*id > self.last_id, "ids rise: {id} after {}", self.last_id);
                self.last_id = *id;
                assert!(self.in_flight.values().all(|triggered| *triggered), "one is triggered at a time");
                let may = self.in_flight.len() < options.effective_max_concurrent();
                let forced = kind.is_savepoint() && !options.unaligned_enabled();
                assert!(may || forced, "{} in flight at {now}", self.in_flight.len());
                self.in_flight.insert(*id, false);
            }
            Action::Trigger { barrier, subtasks } => {
                assert!(!subtasks.is_empty(), "nobody is triggered");
                *self.in_flight.get_mut(&barrier.id).expect("it was started") = true;
                if let Some(base) = barrier.base {
                    self.bases.insert(barrier.id, base);
                    assert!(options.incremental && self.written.contains(&base) && base < barrier.id);
                }
            }
            Action::WriteMetadata { checkpoint } => {
                let id = checkpoint.id;
                self.stopped |= checkpoint.kind.stop().is_some();
                assert!(self.written.insert(id), "{id} is written twice");
                assert!(!self.given_up.contains(&id) && self.in_flight.contains_key(&id));
                assert_eq!(self.writing.replace(id), None, "one is written at a time");
                for part in &checkpoint.parts {
                    assert!(self.acknowledged.contains(&(id, part.subtask)), "{} did not acknowledge", part.subtask);
                    assert_eq!(part.state.owner, Some(part.subtask));
                }
                let apart: BTreeSet<SubtaskId> = checkpoint.finished.iter().copied().collect();
                let parts: BTreeSet<SubtaskId> = checkpoint.parts.iter().map(|part| part.subtask).collect();
                assert!(apart.is_disjoint(&parts));
            }
            Action::Abandon { checkpoint } => {
                assert!(self.given_up.insert(checkpoint.id), "{} is given up twice", checkpoint.id);
                self.in_flight.remove(&checkpoint.id);
            }
            // One that was given up while it was being prepared is abandoned only when that is answered.
            Action::NotifyAborted { id, .. } => {
                self.in_flight.remove(id);
                assert_eq!(self.state, JobState::Running);
            }
            Action::NotifyComplete { id, .. } => {
                assert_eq!(self.state, JobState::Running);
                assert!(self.written.contains(id));
            }
            Action::Answer { request, result } => {
                assert!(self.unanswered.remove(request), "{request:?} is answered twice");
                if let Ok(answered) = result {
                    assert!(self.written.contains(&answered.id), "the answer comes before the checkpoint");
                }
            }
            Action::Delete { lowest_in_use, .. } => {
                // What is on its way builds on files of its base, whose own directory may go.
                let in_flight = |id: &&CheckpointId| self.in_flight.contains_key(id);
                for base in self.bases.keys().filter(in_flight).map(|id| self.bases[id]) {
                    assert!(lowest_in_use.is_some_and(|lowest| lowest <= base), "files of {base} are in use");
                }
            }
            Action::DiscardState { .. } | Action::FailJob { .. } => {}
        }
    }

    pub fn at_end(&self) {
        assert!(self.unanswered.is_empty(), "never answered: {:?}", self.unanswered);
    }

    /// What is kept is what the way in which the job ended lets it keep; what it was to go on from, in any case, where it
    /// failed without having `completed` a checkpoint since.
    pub fn retained_at_end(&self, end: JobEnd, completed: u64, options: &CheckpointingOptions, storage: &Storage) {
        let kept = storage.engines_own().count();
        let keeps = match (end, options.retention) {
            (JobEnd::Failed, _) if completed == 0 => return,
            (JobEnd::Finished, _) | (_, CheckpointRetention::NoExternalizedCheckpoints) => false,
            (JobEnd::Canceled, retention) => retention == CheckpointRetention::RetainOnCancellation,
            _ => true,
        };
        if keeps {
            assert!(kept <= options.retained_count as usize, "{kept} are kept");
        } else {
            assert_eq!(kept, 0, "nothing may be kept");
        }
    }
}
