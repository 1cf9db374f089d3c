//! Memory straight from the kernel: aligned to 2 MiB, in huge pages where the system has them; and the reserve of what
//! tables have left, for those that come after them.

use std::{
    ptr::NonNull,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Size and alignment of a huge page.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// While one of these exists, the memory of tables that are dropped stays with the process, and the tables made after
/// them take it first.
///
/// A job that restarts needs what it has just had: taking it anew is slow, since the kernel clears it page by page, and
/// on a virtual machine whose host takes back what is free it stalls all cores, for milliseconds, while others are
/// restored or run on. Kept memory is handed on only on the NUMA node where it lay.
///
/// What is kept is bounded by the most that tables ever held at a time.
#[derive(Debug)]
pub struct MemoryReserve {
    is_of_job: bool,
}

/// What tables have left while there is a reserve.
struct Kept {
    /// Reserves of jobs, and others.
    jobs: usize,
    holders: usize,
    mappings: Vec<Unused>,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { jobs: 0, holders: 0, mappings: Vec::new() });

fn kept() -> MutexGuard<'static, Kept> {
    // Nobody panics while holding it, and it is whole between any two of its operations.
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    /// The longest range of this node's that is not too short, cut off where it is too long.
    fn take(&mut self, least: usize, most: usize) -> Option<Unused> {
        if self.mappings.is_empty() {
            return None;
        }
        let node = this_node();
        let fits = |unused: &Unused| unused.node == node && unused.bytes >= least;
        let just_fits = |unused: &Unused| unused.node == node && unused.bytes == most;
        let longest = |mappings: &[Unused]| {
            let fitting = mappings.iter().enumerate().filter(|(_, unused)| fits(unused));
            fitting.max_by_key(|(_, unused)| unused.bytes).map(|(at, _)| at)
        };
        let at = self.mappings.iter().rposition(just_fits).or_else(|| longest(&self.mappings))?;
        let unused = &mut self.mappings[at];
        if unused.bytes <= most {
            return Some(self.mappings.swap_remove(at));
        }
        unused.bytes -= most;
        // SAFETY: the end of the range, which is longer than that and begins where what is left of it ends.
        Some(Unused { start: unsafe { unused.start.add(unused.bytes) }, bytes: most, node })
    }
}

/// A range that nobody uses.
struct Unused {
    start: NonNull<u8>,
    bytes: usize,
    /// The NUMA node of the core that had it.
    node: u32,
}

// SAFETY: plain memory that this value alone owns.
unsafe impl Send for Unused {}

impl MemoryReserve {
    /// Keeps what tables leave from now on, for whichever jobs of this process come. All that is unused goes back to the
    /// system with the last such reserve.
    #[expect(clippy::new_without_default, reason = "it acts on the whole process as long as it lives")]
    pub fn new() -> Self {
        kept().holders += 1;
        Self { is_of_job: false }
    }

    /// Keeps what tables leave from now on, for the next attempt of a job. All that is unused goes back to the system when
    /// the job ends, where there is no reserve but those of jobs.
    pub fn of_job() -> Self {
        kept().jobs += 1;
        Self { is_of_job: true }
    }

    /// Bytes that are kept, and used by nobody.
    pub fn unused_bytes(&self) -> usize {
        kept().mappings.iter().map(|unused| unused.bytes).sum()
    }
}

impl Drop for MemoryReserve {
    fn drop(&mut self) {
        let mut kept = kept();
        *(if self.is_of_job { &mut kept.jobs } else { &mut kept.holders }) -= 1;
        let gone = if kept.holders == 0 { std::mem::take(&mut kept.mappings) } else { Vec::new() };
        drop(kept);
        // Unmapping takes its time: others need not wait for it.
        drop(gone);
    }
}

impl Drop for Unused {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own, and nobody uses it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// The NUMA node of the core that runs this, 0 where the system does not say.
fn this_node() -> u32 {
    let (mut core, mut node) = (0, 0);
    // SAFETY: writes two numbers.
    let _ = unsafe { libc::syscall(libc::SYS_getcpu, &raw mut core, &raw mut node, 0) };
    let _: u32 = core;
    node
}

/// An anonymous mapping, left to the reserve when dropped, or to the system where there is none.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    is_zeroed: bool,
}

// SAFETY: the mapping is plain memory that this value alone owns.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Initialised memory of `bytes`, rounded up to whole huge pages; what is in it is arbitrary unless it
    /// [is zeroed](Self::is_zeroed).
    ///
    /// # Panics
    /// Where the system has no memory left to map.
    pub(crate) fn new(bytes: usize) -> Self {
        Self::between(bytes, bytes)
    }

    /// As [`Self::new`], of any length from `least` to `most`, as it comes cheapest.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub(crate) fn between(least: usize, most: usize) -> Self {
        let [least, most] = [least, most].map(|bytes| bytes.next_multiple_of(HUGE_PAGE_BYTES));
        match kept().take(least, most) {
            Some(unused) => {
                let unused = std::mem::ManuallyDrop::new(unused);
                Self { start: unused.start, bytes: unused.bytes, is_zeroed: false }
            }
            None => Self::fresh(most),
        }
    }

    fn fresh(bytes: usize) -> Self {
        let reserved = bytes + HUGE_PAGE_BYTES;
        // SAFETY: a fresh anonymous private mapping touches nothing that exists.
        let raw = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                reserved,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert!(
            raw != libc::MAP_FAILED,
            "no memory for {bytes} bytes of keyed state ({}): give the process more memory or more slots",
            std::io::Error::last_os_error()
        );
        let raw = raw.cast::<u8>();
        let head = raw.align_offset(HUGE_PAGE_BYTES);
        // SAFETY: the mapping is a huge page longer than needed, so the aligned part and both trimmed ends lie in it.
        let start = unsafe {
            let start = raw.add(head);
            if head > 0 {
                libc::munmap(raw.cast(), head);
            }
            let tail = reserved - head - bytes;
            if tail > 0 {
                libc::munmap(start.add(bytes).cast(), tail);
            }
            // Advice only: where it is refused the memory has small pages.
            libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
            start
        };
        Self { start: NonNull::new(start).expect("mmap does not answer null"), bytes, is_zeroed: true }
    }

    /// Its first byte.
    pub(crate) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Whether it was all zeroes when it was made, and its pages are yet to be given by the system.
    pub(crate) const fn is_zeroed(&self) -> bool {
        self.is_zeroed
    }

    /// Gives the last huge page back, unless it is the only one left. False in that case.
    ///
    /// # Safety
    /// Nobody may use that page any more.
    pub(crate) unsafe fn shrink(&mut self) -> bool {
        if self.bytes <= HUGE_PAGE_BYTES {
            return false;
        }
        self.bytes -= HUGE_PAGE_BYTES;
        // SAFETY: the end of this value's own range, which nobody uses any more, as the caller promises.
        unsafe { libc::munmap(self.start.as_ptr().add(self.bytes).cast(), HUGE_PAGE_BYTES) };
        true
    }

    /// Its length.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Its owner is gone, and nobody uses it any more.
        let unused = Unused { start: self.start, bytes: self.bytes, node: this_node() };
        let mut kept = kept();
        if kept.jobs + kept.holders > 0 {
            kept.mappings.push(unused);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_mapped_then_memory_is_aligned_and_zeroed() {
        let mapping = Mapping::fresh(4 << 20);
        assert_eq!((mapping.bytes(), mapping.is_zeroed()), (4 << 20, true));
        assert_eq!(mapping.start().as_ptr() as usize % HUGE_PAGE_BYTES, 0);
        // SAFETY: the last byte is inside the mapping.
        assert_eq!(unsafe { mapping.start().as_ptr().add(mapping.bytes() - 1).read() }, 0);
    }

    #[test]
    fn when_memory_is_taken_from_what_is_kept_then_as_much_as_possible_is_used_and_no_byte_twice() {
        let pages = |count: usize| count * HUGE_PAGE_BYTES;
        let leave = |bytes| {
            let mapping = std::mem::ManuallyDrop::new(Mapping::fresh(bytes));
            Unused { start: mapping.start, bytes, node: this_node() }
        };
        let mut kept = Kept { jobs: 0, holders: 1, mappings: [pages(1), pages(5), pages(2)].map(leave).into() };
        let mut taken = Vec::new();
        for (least, most, got) in
            [(2, 2, Some(2)), (1, 3, Some(3)), (3, 9, None), (1, 9, Some(2)), (1, 9, Some(1)), (1, 1, None)]
        {
            let one = kept.take(pages(least), pages(most));
            // A thread that has moved to another node finds nothing there.
            if one.as_ref().map(|one| one.bytes) != got.map(pages) {
                assert!(kept.mappings.iter().chain(&taken).any(|unused| unused.node != this_node()));
            }
            taken.extend(one);
        }
        taken.sort_by_key(|unused| unused.start);
        assert!(taken.windows(2).all(|two| two[0].start.addr().get() + two[0].bytes <= two[1].start.addr().get()));
    }
}
