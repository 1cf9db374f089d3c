//! Alignment: from the barriers of many channels to one moment of a segment. Pure: told of events, answers what to do.
//!
//! The rules are Flink's (`SingleCheckpointBarrierHandler`): a channel that has ended counts as one that has delivered;
//! the barrier of a newer checkpoint cancels the alignment of an older one.

use std::sync::Arc;

use thalweg_model::CheckpointId;

use super::{BarrierAlignment, CheckpointRequest};

/// What is to be done about the gate and the segment.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Aligned {
    /// Hold this channel back.
    pub(crate) block: Option<usize>,
    /// Hold no channel back any more. Before `block`.
    pub(crate) unblock_all: bool,
    /// An alignment that was given up for this one: the checkpoint must be declined.
    pub(crate) cancelled: Option<CheckpointId>,
    /// The segment's moment has come.
    pub(crate) complete: Option<Complete>,
}

/// All barriers of a checkpoint have come, or they need not be waited for.
#[derive(Debug)]
pub(crate) struct Complete {
    pub(crate) request: Arc<CheckpointRequest>,
    /// When the first barrier came, in nanoseconds of the slot's clock.
    pub(crate) first_ns: u64,
    /// Bytes that had been read then.
    pub(crate) first_bytes: u64,
    /// Channels whose barrier has not come: what is queued on them belongs to the checkpoint.
    pub(crate) overtaken: Vec<usize>,
    /// Whether the barrier overtakes from here on.
    pub(crate) overtakes: bool,
}

struct Current {
    request: Arc<CheckpointRequest>,
    delivered: Box<[bool]>,
    first_ns: u64,
    first_bytes: u64,
    blocks: bool,
}

/// The barriers of a gate's channels.
pub(crate) struct Alignments {
    ended: Box<[bool]>,
    /// Barriers up to this one are done with, or given up.
    last: CheckpointId,
    current: Option<Current>,
    /// Whether barriers may overtake on these channels.
    may_overtake: bool,
}

impl Alignments {
    /// For so many channels, on which barriers may or may not overtake.
    pub(crate) fn new(channels: usize, may_overtake: bool) -> Self {
        Self { ended: vec![false; channels].into(), last: CheckpointId(0), current: None, may_overtake }
    }

    /// Whether a barrier of this checkpoint is of any interest.
    pub(crate) fn wants(&self, id: CheckpointId) -> bool {
        id > self.last
    }

    /// A barrier has come on a channel. `now_ns`: the slot's clock; `bytes`: read so far by the segment.
    pub(crate) fn barrier(
        &mut self,
        channel: usize,
        request: Arc<CheckpointRequest>,
        now_ns: u64,
        bytes: u64,
    ) -> Aligned {
        let id = request.id;
        let mut aligned = self.begin(request, now_ns, bytes);
        if let Some(current) = self.current.as_mut().filter(|current| current.request.id == id)
            && aligned.complete.is_none()
        {
            current.delivered[channel] = true;
            if current.blocks {
                aligned.block = Some(channel);
            }
        }
        self.complete_if_all(aligned)
    }

    /// The checkpoint was announced by message: no barrier comes, but for those that are on their way from channels that
    /// have not ended.
    pub(crate) fn trigger(&mut self, request: Arc<CheckpointRequest>, now_ns: u64, bytes: u64) -> Aligned {
        let aligned = self.begin(request, now_ns, bytes);
        self.complete_if_all(aligned)
    }

    /// A channel has ended.
    pub(crate) fn ended(&mut self, channel: usize) -> Aligned {
        self.ended[channel] = true;
        self.complete_if_all(Aligned::default())
    }

    /// The checkpoint came to nothing.
    pub(crate) fn abort(&mut self, id: CheckpointId) -> Aligned {
        let mut aligned = Aligned::default();
        if self.current.as_ref().is_some_and(|current| current.request.id <= id) {
            self.current = None;
            aligned.unblock_all = true;
        }
        self.last = self.last.max(id);
        aligned
    }

    /// When the present alignment is to be given up for overtaking, in milliseconds since the epoch.
    pub(crate) fn overtakes_at_ms(&self) -> Option<i64> {
        self.current.as_ref().filter(|_| self.may_overtake)?.request.overtakes_at_ms()
    }

    /// A barrier has overtaken what is queued on a channel: the segment's moment is now.
    pub(crate) fn overtaken(&mut self, request: Arc<CheckpointRequest>, now_ns: u64, bytes: u64) -> Aligned {
        let id = request.id;
        let aligned = self.begin(request, now_ns, bytes);
        match self.current.take_if(|current| current.request.id == id) {
            Some(current) => Aligned { cancelled: aligned.cancelled, ..self.done(current, true) },
            None => aligned,
        }
    }

    /// The present alignment has taken too long: the segment's moment is now.
    pub(crate) fn overtake(&mut self) -> Aligned {
        let Some(current) = self.current.take() else { return Aligned::default() };
        self.done(current, true)
    }

    fn begin(&mut self, request: Arc<CheckpointRequest>, now_ns: u64, bytes: u64) -> Aligned {
        let mut aligned = Aligned::default();
        if !self.wants(request.id) {
            return aligned;
        }
        if let Some(current) = &self.current {
            if current.request.id == request.id {
                return aligned;
            }
            if current.request.id > request.id {
                aligned.cancelled = Some(request.id);
                return aligned;
            }
            aligned.cancelled = Some(current.request.id);
            aligned.unblock_all = true;
        }
        let blocks = request.alignment != BarrierAlignment::Counted;
        let overtakes = request.alignment == BarrierAlignment::Unaligned && self.may_overtake;
        let delivered = vec![false; self.ended.len()].into();
        let current = Current { request, delivered, first_ns: now_ns, first_bytes: bytes, blocks };
        if overtakes {
            let done = self.done(current, true);
            return Aligned { complete: done.complete, unblock_all: true, ..aligned };
        }
        self.current = Some(current);
        aligned
    }

    fn complete_if_all(&mut self, mut aligned: Aligned) -> Aligned {
        let all = |current: &Current| self.ended.iter().zip(&current.delivered).all(|(ended, has)| *ended || *has);
        if aligned.complete.is_none()
            && self.current.as_ref().is_some_and(all)
            && let Some(current) = self.current.take()
        {
            let overtakes = current.request.alignment == BarrierAlignment::Unaligned;
            let done = self.done(current, overtakes);
            aligned.block = None;
            aligned.unblock_all = true;
            aligned.complete = done.complete;
        }
        aligned
    }

    fn done(&mut self, current: Current, overtakes: bool) -> Aligned {
        let Current { request, delivered, first_ns, first_bytes, .. } = current;
        self.last = request.id;
        let channels = self.ended.iter().zip(&delivered).enumerate();
        let overtaken = channels.filter(|(_, (ended, has))| !**ended && !**has).map(|(channel, _)| channel).collect();
        let complete = Some(Complete { request, first_ns, first_bytes, overtaken, overtakes });
        Aligned { unblock_all: true, complete, ..Aligned::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u64, alignment: BarrierAlignment) -> Arc<CheckpointRequest> {
        Arc::new(CheckpointRequest {
            id: CheckpointId(id),
            savepoint: false,
            stop: None,
            triggered_ms: 100,
            alignment,
            incremental: false,
            base: None,
            files: None,
        })
    }

    fn id(complete: &Option<Complete>) -> Option<u64> {
        complete.as_ref().map(|complete| complete.request.id.0)
    }

    #[test]
    fn when_barriers_come_then_channels_are_held_back_until_the_last() {
        let mut alignments = Alignments::new(3, true);
        let one = || request(1, BarrierAlignment::Aligned);
        let first = alignments.barrier(0, one(), 5, 70);
        assert_eq!((first.block, id(&first.complete)), (Some(0), None));
        assert!(alignments.ended(1).complete.is_none());
        let last = alignments.barrier(2, one(), 9, 99);
        assert_eq!((last.block, last.unblock_all, id(&last.complete)), (None, true, Some(1)));
        let complete = last.complete.unwrap();
        assert_eq!((complete.first_ns, complete.first_bytes, complete.overtaken), (5, 70, vec![]));
        assert!(alignments.barrier(0, one(), 9, 99).complete.is_none(), "once");
    }

    #[test]
    fn when_at_least_once_then_barriers_are_counted_and_nothing_is_held_back() {
        let mut alignments = Alignments::new(2, true);
        let one = || request(1, BarrierAlignment::Counted);
        let first = alignments.barrier(1, one(), 0, 0);
        assert_eq!((first.block, id(&first.complete)), (None, None));
        assert_eq!(id(&alignments.barrier(0, one(), 0, 0).complete), Some(1));
    }

    #[test]
    fn when_a_newer_barrier_comes_then_the_older_alignment_is_given_up() {
        let mut alignments = Alignments::new(2, true);
        let _ = alignments.barrier(0, request(1, BarrierAlignment::Aligned), 0, 0);
        let newer = alignments.barrier(1, request(2, BarrierAlignment::Aligned), 0, 0);
        assert_eq!((newer.cancelled, newer.unblock_all, newer.block), (Some(CheckpointId(1)), true, Some(1)));
        let late = alignments.barrier(0, request(1, BarrierAlignment::Aligned), 0, 0);
        assert_eq!((late.cancelled, id(&late.complete)), (Some(CheckpointId(1)), None));
        assert_eq!(id(&alignments.barrier(0, request(2, BarrierAlignment::Aligned), 0, 0).complete), Some(2));
    }

    #[test]
    fn when_aborted_then_channels_go_on_and_its_barriers_are_ignored() {
        let mut alignments = Alignments::new(2, true);
        let _ = alignments.barrier(0, request(1, BarrierAlignment::Aligned), 0, 0);
        assert!(alignments.abort(CheckpointId(1)).unblock_all);
        assert!(!alignments.wants(CheckpointId(1)));
        let late = alignments.barrier(1, request(1, BarrierAlignment::Aligned), 0, 0);
        assert_eq!((late.block, id(&late.complete)), (None, None));
    }

    #[test]
    fn when_triggered_by_message_then_channels_that_have_not_ended_are_waited_for() {
        let mut alignments = Alignments::new(2, true);
        let _ = alignments.ended(0);
        assert!(alignments.trigger(request(1, BarrierAlignment::Aligned), 0, 0).complete.is_none());
        assert_eq!(id(&alignments.ended(1).complete), Some(1));
        assert_eq!(id(&alignments.trigger(request(2, BarrierAlignment::Aligned), 0, 0).complete), Some(2));
    }

    #[test]
    fn when_unaligned_then_the_first_barrier_is_the_moment_and_the_others_are_overtaken() {
        let mut alignments = Alignments::new(3, true);
        let _ = alignments.ended(0);
        let first = alignments.barrier(1, request(1, BarrierAlignment::Unaligned), 0, 0);
        assert_eq!(id(&first.complete), Some(1));
        assert_eq!(
            first.complete.unwrap().overtaken,
            [1, 2],
            "its own channel too: the barrier overtook what is queued"
        );
        assert!(alignments.barrier(2, request(1, BarrierAlignment::Unaligned), 0, 0).complete.is_none());
    }

    #[test]
    fn when_barriers_may_not_overtake_here_then_unaligned_ones_are_aligned() {
        let mut alignments = Alignments::new(2, false);
        let first = alignments.barrier(0, request(1, BarrierAlignment::Unaligned), 0, 0);
        assert_eq!((first.block, id(&first.complete)), (Some(0), None));
        let last = alignments.barrier(1, request(1, BarrierAlignment::Unaligned), 0, 0).complete.unwrap();
        assert!(last.overtakes && last.overtaken.is_empty(), "downstream it overtakes again");
    }

    #[test]
    fn when_a_barrier_has_overtaken_then_those_that_came_in_line_are_not_waited_for() {
        let mut alignments = Alignments::new(3, true);
        let at_first = || request(1, BarrierAlignment::AlignedAtFirst { timeout_ms: 30 });
        let _ = alignments.barrier(0, at_first(), 0, 0);
        let moment = alignments.overtaken(at_first(), 0, 0);
        assert_eq!((moment.unblock_all, moment.complete.unwrap().overtaken), (true, vec![1, 2]));
        assert!(alignments.overtaken(at_first(), 0, 0).complete.is_none(), "once");
    }

    #[test]
    fn when_aligning_takes_too_long_then_the_rest_is_overtaken() {
        let mut alignments = Alignments::new(2, true);
        let at_first = BarrierAlignment::AlignedAtFirst { timeout_ms: 30 };
        let _ = alignments.barrier(0, request(1, at_first), 0, 0);
        assert_eq!(alignments.overtakes_at_ms(), Some(130));
        let moment = alignments.overtake();
        assert_eq!((id(&moment.complete), moment.unblock_all), (Some(1), true));
        assert_eq!(moment.complete.unwrap().overtaken, [1]);
    }
}
