//! Requests for checkpoints: their order, their queue and which one may start (Flink's `CheckpointRequestDecider`).

use std::collections::BTreeMap;

use super::{
    failure::FailureReason,
    types::{Kind, RequestId},
};
use crate::TimeMs;

/// Requests that wait at most; beyond, the least important one is refused.
pub const MAX_QUEUED_REQUESTS: usize = 1000;

/// Who wants a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requester {
    /// The interval has passed.
    Periodic,
    /// Everything is processed: a last one, so that sinks commit.
    EndOfData,
    /// Somebody who gets an answer.
    User(RequestId),
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub requester: Requester,
    pub kind: Kind,
    /// Starts even where the most allowed are already in flight.
    pub forced: bool,
    pub at: TimeMs,
    /// Where a savepoint is to lie; `None`: the configured place.
    pub target: Option<String>,
}

/// Savepoints first, then forced ones, then those asked for before periodic ones, then by time, then by arrival.
type Rank = (bool, bool, bool, TimeMs, u64);

/// What the decision depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub now: TimeMs,
    pub triggering: bool,
    pub pending: usize,
    pub cleaning: usize,
    pub max_concurrent: usize,
    /// Periodic ones may not start before this.
    pub pause_until: TimeMs,
}

pub(super) enum Choice {
    /// Nothing may start.
    Nothing,
    Start(Request),
    /// A periodic one was taken from the queue and must be scheduled again for `pause_until`.
    TooEarly,
}

#[derive(Debug, Default)]
pub(super) struct RequestQueue {
    queue: BTreeMap<Rank, Request>,
    arrivals: u64,
}

impl RequestQueue {
    /// Queues a request. Returns the one that is refused instead where the queue is full.
    pub fn push(&mut self, request: Request) -> Option<(Request, FailureReason)> {
        let periodic = |request: &Request| request.requester == Requester::Periodic;
        let full = self.queue.len() >= MAX_QUEUED_REQUESTS;
        if full && self.queue.last_key_value().is_some_and(|(_, last)| !periodic(last)) {
            return Some((request, FailureReason::TooManyRequests));
        }
        self.arrivals += 1;
        let rank = (!request.kind.is_savepoint(), !request.forced, periodic(&request), request.at, self.arrivals);
        self.queue.insert(rank, request);
        (self.queue.len() > MAX_QUEUED_REQUESTS)
            .then(|| (self.queue.pop_last().expect("the queue is full").1, FailureReason::TooManyRequests))
    }

    /// What may start now; it is taken from the queue.
    pub fn choose(&mut self, facts: Facts) -> Choice {
        let Some(first) = self.queue.first_entry() else { return Choice::Nothing };
        if facts.triggering || facts.cleaning > facts.max_concurrent {
            return Choice::Nothing;
        }
        let (forced, periodic) = (first.get().forced, first.get().requester == Requester::Periodic);
        if facts.pending >= facts.max_concurrent {
            return if forced { Choice::Start(first.remove()) } else { Choice::Nothing };
        }
        let request = first.remove();
        if !forced && periodic && facts.now < facts.pause_until { Choice::TooEarly } else { Choice::Start(request) }
    }

    /// Whether a periodic request waits: another would add nothing.
    pub fn has_periodic(&self) -> bool {
        self.queue.values().any(|request| request.requester == Requester::Periodic)
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn drain(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.queue).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::types::SavepointFormat, *};

    const CHECKPOINT: Kind = Kind::Checkpoint { full: false };
    const SAVEPOINT: Kind = Kind::Savepoint { format: SavepointFormat::Canonical, stop: None };

    fn request(requester: Requester, kind: Kind, forced: bool, at: u64) -> Request {
        Request { requester, kind, forced, at: TimeMs(at), target: None }
    }

    fn user(n: u64) -> Requester {
        Requester::User(RequestId(n))
    }

    const FREE: Facts = Facts {
        now: TimeMs(100),
        triggering: false,
        pending: 0,
        cleaning: 0,
        max_concurrent: 1,
        pause_until: TimeMs(0),
    };

    fn started(queue: &mut RequestQueue, facts: Facts) -> Option<Requester> {
        match queue.choose(facts) {
            Choice::Start(request) => Some(request.requester),
            _ => None,
        }
    }

    #[test]
    fn when_requests_wait_then_they_start_in_flinks_order() {
        let mut queue = RequestQueue::default();
        queue.push(request(Requester::Periodic, CHECKPOINT, false, 1));
        queue.push(request(user(1), CHECKPOINT, false, 3));
        queue.push(request(user(2), CHECKPOINT, false, 2));
        queue.push(request(user(3), SAVEPOINT, false, 9));
        queue.push(request(user(4), SAVEPOINT, true, 10));
        queue.push(request(user(5), CHECKPOINT, true, 11));
        queue.push(request(user(6), CHECKPOINT, true, 11));
        let order: Vec<_> = std::iter::from_fn(|| started(&mut queue, FREE)).collect();
        assert_eq!(order, [user(4), user(3), user(5), user(6), user(2), user(1), Requester::Periodic]);
    }

    #[test]
    fn when_as_many_as_allowed_are_pending_then_only_a_forced_one_starts() {
        let mut queue = RequestQueue::default();
        queue.push(request(user(1), SAVEPOINT, false, 1));
        let busy = Facts { pending: 1, ..FREE };
        assert_eq!(started(&mut queue, busy), None);
        queue.push(request(user(2), SAVEPOINT, true, 2));
        assert_eq!(started(&mut queue, Facts { triggering: true, ..busy }), None);
        assert_eq!(started(&mut queue, Facts { cleaning: 2, ..busy }), None);
        assert_eq!(started(&mut queue, Facts { cleaning: 1, ..busy }), Some(user(2)));
        assert_eq!(started(&mut queue, busy), None);
    }

    #[test]
    fn when_a_periodic_one_comes_within_the_pause_then_it_is_taken_out_and_others_are_not_held_up() {
        let mut queue = RequestQueue::default();
        let paused = Facts { pause_until: TimeMs(101), ..FREE };
        queue.push(request(Requester::Periodic, CHECKPOINT, false, 1));
        queue.push(request(user(1), CHECKPOINT, false, 5));
        assert_eq!(started(&mut queue, paused), Some(user(1)));
        assert!(matches!(queue.choose(paused), Choice::TooEarly));
        assert!(matches!(queue.choose(FREE), Choice::Nothing));
    }

    #[test]
    fn when_the_queue_is_full_then_a_periodic_one_gives_way_and_otherwise_the_newcomer() {
        let mut queue = RequestQueue::default();
        queue.push(request(Requester::Periodic, CHECKPOINT, false, 0));
        for n in 1..MAX_QUEUED_REQUESTS as u64 {
            assert!(queue.push(request(user(n), CHECKPOINT, false, n)).is_none());
        }
        let (refused, reason) = queue.push(request(user(5000), CHECKPOINT, false, 5000)).unwrap();
        assert_eq!((refused.requester, reason), (Requester::Periodic, FailureReason::TooManyRequests));
        let (refused, _) = queue.push(request(user(5001), SAVEPOINT, true, 5001)).unwrap();
        assert_eq!(refused.requester, user(5001), "those asked for are kept");
        assert_eq!(queue.drain().len(), MAX_QUEUED_REQUESTS);
    }
}
