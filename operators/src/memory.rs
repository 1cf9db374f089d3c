//! Shares of memory: what the state of a slot may take, and whether a job has the network buffers that it needs.

use std::fs;

use thalweg_io::EdgeConfig;
use thalweg_model::config::MemoryOptions;
use thalweg_runtime::{EdgePlan, PhysicalPlan};

use crate::error::BuildError;

/// The limit of the control group or the machine's memory, whichever is less, in bytes; `None` where neither is known.
pub(crate) fn machine_bytes() -> Option<u64> {
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group = groups.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_bytes(&text));
    group.into_iter().chain(machine).min()
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Managed memory of one slot of `slots`, in bytes. Where the machine's memory is not known, a share of it is no limit.
pub(crate) fn managed_bytes_per_slot(memory: &MemoryOptions, machine_bytes: Option<u64>, slots: usize) -> Option<u64> {
    let slots = memory.slots.map_or(slots as u64, u64::from).max(1);
    memory.limits_managed().then(|| memory.managed_bytes(machine_bytes.unwrap_or(u64::MAX)) / slots)
}

/// Network buffers that the channels of an edge may hold together.
fn buffers_of(edge: &EdgePlan, plan: &PhysicalPlan) -> u64 {
    let task_of = |segment| plan.tasks.iter().position(|task| task.segments.iter().any(|s| s.id == segment));
    let (Some(from), Some(to)) = (task_of(edge.from_segment), task_of(edge.to_segment)) else { return 0 };
    let (senders, receivers) = (plan.tasks[from].parallelism, plan.tasks[to].parallelism);
    let config = EdgeConfig {
        layout: edge.layout,
        max_record_bytes: plan.config.max_record_bytes,
        buffers_per_channel: plan.config.exclusive_buffers_per_channel.max(1),
        extra_buffers: plan.config.floating_buffers_per_gate.max(1),
        max_buffers_per_channel: plan.config.max_buffers_per_channel.max(1),
    };
    let channels = |sender| match from == to {
        true => 1,
        false => edge.partitioner.targets(sender, senders, receivers).len(),
    };
    (0..senders).map(|sender| config.max_pages(channels(sender)) as u64).sum()
}

/// Refuses a plan whose channels may hold more network buffers than the configured memory has.
pub(crate) fn check_network(
    plan: &PhysicalPlan,
    memory: &MemoryOptions,
    machine_bytes: Option<u64>,
) -> Result<(), BuildError> {
    if !memory.limits_network() {
        return Ok(());
    }
    let buffer_bytes = plan.config.page_bytes as u64;
    let network_bytes = memory.network_bytes(machine_bytes.unwrap_or(u64::MAX));
    let available = network_bytes / buffer_bytes.max(1);
    let required = plan.edges.iter().map(|edge| buffers_of(edge, plan)).sum();
    if required <= available {
        return Ok(());
    }
    Err(BuildError::NetworkBuffers { required, available, network_bytes, buffer_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_memory_is_managed_then_each_slot_has_an_equal_share() {
        let share = |memory: &MemoryOptions, slots| managed_bytes_per_slot(memory, Some(1000), slots);
        let mut memory = MemoryOptions::default();
        assert_eq!(share(&memory, 4), None);
        memory.managed_fraction = Some(0.8);
        assert_eq!(share(&memory, 4), Some(200));
        memory.total_bytes = Some(2000);
        assert_eq!(share(&memory, 4), Some(400));
        memory.managed_size_bytes = Some(100);
        assert_eq!([share(&memory, 4), share(&memory, 0)], [Some(25), Some(100)]);
        memory.slots = Some(10);
        assert_eq!(share(&memory, 4), Some(10));
    }

    #[test]
    fn when_the_machine_is_not_known_then_a_share_of_it_is_no_limit() {
        let memory = MemoryOptions { managed_fraction: Some(1.0), ..Default::default() };
        assert_eq!(managed_bytes_per_slot(&memory, None, 1), Some(u64::MAX));
        assert!(machine_bytes().is_some());
        assert_eq!(total_bytes("MemFree: 1 kB\nMemTotal:   7 kB\n"), Some(7168));
    }
}
