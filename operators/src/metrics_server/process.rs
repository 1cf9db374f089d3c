//! What this process takes of the machine, under the names that Flink's charts of a JVM are built on.
//!
//! There is no heap, no collector and no class loader here: "heap" is the resident memory and its limit, the collector's
//! figures are zero, and names that nothing corresponds to are left out.

use std::fs;

use thalweg_model::metrics::{Counter, Gauge, MetricRegistry};

use crate::memory;

/// Kernel's clock ticks as `/proc` shows them; fixed at 100 a second for programs on Linux.
const NS_PER_TICK: u64 = 10_000_000;

pub(super) struct ProcessMetrics {
    /// One set each for the two roles of the process: coordinator and place of the slots.
    roles: [Role; 2],
}

struct Role {
    cpu_ns: Counter,
    heap_used: Gauge,
    heap_committed: Gauge,
    threads: Gauge,
    descriptors: Gauge,
}

impl ProcessMetrics {
    pub(super) fn new(registry: &MetricRegistry) -> Self {
        let core_count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let memory_limit = memory_limit_bytes();
        let descriptor_limit = descriptor_limit();
        let roles = [registry.job_manager(), registry.task_manager()].map(|group| {
            let jvm = group.group("Status").group("JVM");
            let (cpu, memory) = (jvm.group("CPU"), jvm.group("Memory"));
            let (heap, descriptors) = (memory.group("Heap"), jvm.group("FileDescriptor"));
            let cpu_ns = cpu.counter("Time");
            // Share of all cores, 0 to 1.
            cpu.scaled_meter("Load", &cpu_ns, 1e-9 / core_count as f64);
            heap.gauge("Max").set(memory_limit);
            descriptors.gauge("Max").set(descriptor_limit);
            let collector = jvm.group("GarbageCollector").group("All");
            for name in ["Count", "Time", "TimeMsPerSecond"] {
                collector.gauge(name).set(0);
            }
            Role {
                cpu_ns,
                heap_used: heap.gauge("Used"),
                heap_committed: heap.gauge("Committed"),
                threads: jvm.group("Threads").gauge("Count"),
                descriptors: descriptors.gauge("Open"),
            }
        });
        // The heap backend takes no managed memory, in Flink neither.
        let managed = registry.task_manager().group("Status").group("Flink").group("Memory").group("Managed");
        managed.gauge("Used").set(0);
        managed.gauge("Total").set(0);
        let metrics = Self { roles };
        metrics.update();
        metrics
    }

    /// Reads the time used so far. What `/proc` does not tell stays as it was.
    pub(super) fn update_cpu(&self) {
        if let Some(ticks) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_ticks) {
            self.roles.iter().for_each(|role| role.cpu_ns.set(ticks * NS_PER_TICK));
        }
    }

    /// Reads everything.
    pub(super) fn update(&self) {
        self.update_cpu();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status_field(&status, "VmRSS:").map(|kib| kib * 1024);
        let threads = status_field(&status, "Threads:");
        let descriptors = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as i64);
        for role in &self.roles {
            if let Some(bytes) = resident {
                role.heap_used.set(bytes);
                role.heap_committed.set(bytes);
            }
            if let Some(count) = threads {
                role.threads.set(count);
            }
            if let Some(count) = descriptors {
                role.descriptors.set(count);
            }
        }
    }
}

/// User and system time from `/proc/self/stat`, in ticks. The command's name in it may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn status_field(status: &str, name: &str) -> Option<i64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// What this process may use; -1, as in Flink, where it is not known.
fn memory_limit_bytes() -> i64 {
    memory::machine_bytes().and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(-1)
}

fn descriptor_limit() -> i64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    status_field(&limits, "Max open files").unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_the_command_has_odd_characters_then_the_time_is_still_found() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0";
        assert_eq!(cpu_ticks(stat), Some(150));
        assert_eq!(cpu_ticks("nonsense"), None);
    }

    #[test]
    fn when_read_on_this_machine_then_limits_are_known() {
        assert!(memory_limit_bytes() > 0);
        assert!(descriptor_limit() > 0);
    }
}
