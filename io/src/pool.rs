//! The page pool: a slot's slab of equal pages, and the few pages beyond it.
//!
//! Owns the memory of pages and the count of those that are out. A pool belongs to one slot and never leaves its
//! thread; pages do, and come back. It must never hand out a page twice, nor unmap what an endpoint can still read:
//! channels keep the slab alive.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    cell::{Cell, RefCell},
    mem::ManuallyDrop,
    ptr::NonNull,
    rc::Rc,
    sync::Arc,
};

use crate::frame::PAGE_ALIGN;

const HUGE_BYTES: usize = 2 << 20;

/// What a pool is made of.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// Bytes of one page: a multiple of 64.
    pub page_bytes: usize,
    /// Pages of the slab: the sum of what its users may hold ([`EdgeConfig::max_pages`](crate::EdgeConfig::max_pages)).
    pub pages: usize,
    /// Whether to ask the system for huge pages. It may not have them; that is no error.
    pub huge_pages: bool,
    /// Pages beyond the slab that may be out at once, for records that are written although no page is left.
    pub max_overdraft_pages: usize,
}

/// Why there is no pool, or no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The configuration makes no sense.
    #[error(
        "a page of {page_bytes} bytes, {pages} times: use a multiple of 64 bytes up to 1 GiB, and at least one page"
    )]
    BadConfig {
        /// The page size asked for.
        page_bytes: usize,
        /// The number of pages asked for.
        pages: usize,
    },
    /// The system has no memory.
    #[error("cannot map {bytes} bytes for network buffers: use fewer or smaller ones, or give the process more memory")]
    OutOfMemory {
        /// The bytes asked for.
        bytes: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// Too many pages beyond the slab.
    #[error(
        "more than {max_overdraft_pages} buffers beyond the pool are in use: one record makes more output than fits; \
         emit less per record, or raise the limit on overdraft buffers"
    )]
    OverdraftExceeded {
        /// The limit.
        max_overdraft_pages: usize,
    },
}

/// The mapped memory of a pool.
pub(crate) struct Slab {
    map: NonNull<u8>,
    map_bytes: usize,
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the slab only owns the mapping; it never reads or writes it.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    fn new(bytes: usize, huge_pages: bool) -> Result<Self, std::io::Error> {
        let map_bytes = if huge_pages { bytes.next_multiple_of(HUGE_BYTES) + HUGE_BYTES } else { bytes };
        // SAFETY: a new private mapping at an address of the system's choice touches no existing memory.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>()).ok_or_else(std::io::Error::last_os_error)?;
        let skip = if huge_pages { map.align_offset(HUGE_BYTES) } else { 0 };
        // SAFETY: `skip` is below 2 MiB, by which the mapping is larger than what is used of it.
        let base = unsafe { map.add(skip) };
        if huge_pages {
            // SAFETY: the range lies in the mapping. An error means that there are no huge pages; small ones do.
            unsafe { libc::madvise(base.as_ptr().cast(), bytes.next_multiple_of(HUGE_BYTES), libc::MADV_HUGEPAGE) };
        }
        Ok(Self { map, map_bytes, base, bytes })
    }

    fn contains(&self, at: NonNull<u8>) -> bool {
        (at.addr().get().wrapping_sub(self.base.addr().get())) < self.bytes
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`; whoever could read a page of it holds the slab too.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_bytes) };
    }
}

/// The address of a page, plus one if the page is beyond the slab. Owns nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RawPage(NonNull<u8>);

// SAFETY: an address; using it is up to the owner of the page.
unsafe impl Send for RawPage {}

impl RawPage {
    #[inline(always)]
    fn is_overdraft(self) -> bool {
        self.0.addr().get() & 1 == 1
    }

    /// The first byte, aligned to 64.
    #[inline(always)]
    pub(crate) fn start(self) -> *mut u8 {
        self.0.as_ptr().map_addr(|addr| addr & !1)
    }
}

/// A page: owned memory, aligned to 64 bytes, of its pool's page size.
///
/// Give it back with [`PagePool::release`]. A dropped page of the slab is lost to its pool until the pool goes;
/// a dropped page beyond the slab is freed.
#[derive(Debug)]
pub struct Page(RawPage);

impl Page {
    /// Its address, with which the owner may be made again.
    #[inline(always)]
    pub(crate) fn raw(&self) -> RawPage {
        self.0
    }

    /// Gives up ownership.
    pub(crate) fn into_raw(self) -> RawPage {
        ManuallyDrop::new(self).0
    }

    /// The owner of a page again.
    ///
    /// # Safety
    /// The address is that of [`into_raw`](Self::into_raw), and no other owner was made of it.
    pub(crate) unsafe fn from_raw(raw: RawPage) -> Self {
        Self(raw)
    }

    /// The first byte, aligned to 64. Valid for the pool's page size for as long as the page is owned.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.start()
    }
}

/// The prefix of a page beyond the slab, which holds its size.
const PREFIX_BYTES: usize = PAGE_ALIGN;

fn overdraft_layout(page_bytes: usize) -> Layout {
    Layout::from_size_align(PREFIX_BYTES + page_bytes, PAGE_ALIGN).expect("a page is at most 1 GiB")
}

fn new_overdraft(page_bytes: usize) -> Page {
    let layout = overdraft_layout(page_bytes);
    // SAFETY: the layout has a size.
    let Some(prefix) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
    // SAFETY: the prefix has room for its size; the tag lies within the page that follows it.
    unsafe {
        prefix.cast::<usize>().write(page_bytes);
        Page(RawPage(prefix.add(PREFIX_BYTES + 1)))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if self.0.is_overdraft() {
            // SAFETY: the page was made by `new_overdraft`, with its size in the prefix, and this is its only owner.
            unsafe {
                let prefix = self.0.start().sub(PREFIX_BYTES);
                dealloc(prefix, overdraft_layout(prefix.cast::<usize>().read()));
            }
        }
    }
}

/// A slot's pages.
pub struct PagePool {
    slab: Arc<Slab>,
    config: PoolConfig,
    /// Pages at hand; the last one given back is the first one taken, since it may still be in the cache.
    free: RefCell<Vec<Page>>,
    /// Pages beyond the slab kept for the next time.
    spare: RefCell<Vec<Page>>,
    overdraft: Cell<usize>,
}

impl PagePool {
    /// Maps a pool.
    ///
    /// # Errors
    /// [`PoolError::BadConfig`], [`PoolError::OutOfMemory`].
    pub fn new(config: PoolConfig) -> Result<Rc<Self>, PoolError> {
        let PoolConfig { page_bytes, pages, .. } = config;
        let bad = PoolError::BadConfig { page_bytes, pages };
        if page_bytes == 0 || !page_bytes.is_multiple_of(PAGE_ALIGN) || page_bytes > 1 << 30 || pages == 0 {
            return Err(bad);
        }
        let Some(bytes) = page_bytes.checked_mul(pages).filter(|&bytes| bytes < isize::MAX as usize / 2) else {
            return Err(bad);
        };
        let slab = Slab::new(bytes, config.huge_pages).map_err(|source| PoolError::OutOfMemory { bytes, source })?;
        // SAFETY: the pages lie in the slab one after another.
        let page = |index: usize| Page(RawPage(unsafe { slab.base.add(index * page_bytes) }));
        let free = (0..pages).rev().map(page).collect();
        Ok(Rc::new(Self {
            slab: Arc::new(slab),
            config,
            free: RefCell::new(free),
            spare: RefCell::default(),
            overdraft: Cell::new(0),
        }))
    }

    /// A page of the slab, if one is left.
    #[inline]
    pub fn acquire(&self) -> Option<Page> {
        self.free.borrow_mut().pop()
    }

    /// A page beyond the slab.
    ///
    /// # Errors
    /// [`PoolError::OverdraftExceeded`] if as many are out as may be.
    pub fn acquire_overdraft(&self) -> Result<Page, PoolError> {
        let max_overdraft_pages = self.config.max_overdraft_pages;
        if self.overdraft.get() >= max_overdraft_pages {
            return Err(PoolError::OverdraftExceeded { max_overdraft_pages });
        }
        self.overdraft.set(self.overdraft.get() + 1);
        Ok(self.spare.borrow_mut().pop().unwrap_or_else(|| new_overdraft(self.config.page_bytes)))
    }

    /// Takes a page back.
    ///
    /// # Panics
    /// Where the page is of another pool, as far as that can be seen.
    #[inline]
    pub fn release(&self, page: Page) {
        if page.0.is_overdraft() {
            return self.release_overdraft(page);
        }
        assert!(self.slab.contains(page.0.0), "a page goes back to the pool it came from");
        let mut free = self.free.borrow_mut();
        debug_assert!(free.len() < self.config.pages && (free.len() > 64 || !free.iter().any(|p| p.0 == page.0)));
        free.push(page);
    }

    #[cold]
    fn release_overdraft(&self, page: Page) {
        assert!(self.overdraft.get() > 0, "a page goes back to the pool it came from");
        self.overdraft.set(self.overdraft.get() - 1);
        let mut spare = self.spare.borrow_mut();
        // Keep as many as a quarter of the slab: enough for broadcasts under load, not the pages of one giant record.
        if spare.len() < (self.config.pages / 4).max(8) {
            spare.push(page);
        }
    }

    /// Bytes of one page.
    pub fn page_bytes(&self) -> usize {
        self.config.page_bytes
    }

    /// Pages of the slab.
    pub fn total(&self) -> usize {
        self.config.pages
    }

    /// Pages that are out, those beyond the slab included.
    pub fn in_use(&self) -> usize {
        self.config.pages - self.free.borrow().len() + self.overdraft.get()
    }

    /// Pages beyond the slab that are out.
    pub fn overdraft(&self) -> usize {
        self.overdraft.get()
    }

    /// What must live as long as someone may read a page.
    pub(crate) fn slab(&self) -> Arc<Slab> {
        self.slab.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(pages: usize) -> Rc<PagePool> {
        PagePool::new(PoolConfig { page_bytes: 128, pages, huge_pages: true, max_overdraft_pages: 2 }).expect("memory")
    }

    #[test]
    fn when_all_pages_are_out_then_only_overdraft_is_left_and_it_is_bounded() {
        let pool = pool(3);
        let mut pages: Vec<_> = std::iter::from_fn(|| pool.acquire()).collect();
        assert_eq!((pages.len(), pool.in_use(), pool.total()), (3, 3, 3));
        pages.push(pool.acquire_overdraft().expect("first"));
        pages.push(pool.acquire_overdraft().expect("second"));
        assert!(matches!(pool.acquire_overdraft(), Err(PoolError::OverdraftExceeded { max_overdraft_pages: 2 })));
        for page in &pages {
            assert_eq!(page.as_ptr() as usize % 64, 0);
            // SAFETY: the page is owned here and has 128 bytes.
            unsafe { page.as_ptr().write_bytes(0xab, 128) };
        }
        pages.into_iter().for_each(|page| pool.release(page));
        assert_eq!((pool.in_use(), pool.overdraft()), (0, 0));
        drop(pool.acquire_overdraft().expect("a spare one"));
    }

    #[test]
    fn when_the_size_is_odd_then_the_error_says_what_to_use() {
        for (page_bytes, pages) in [(0, 1), (100, 1), (64, 0), (1 << 30, usize::MAX / 2)] {
            let config = PoolConfig { page_bytes, pages, huge_pages: false, max_overdraft_pages: 0 };
            let error = PagePool::new(config).err().expect("refused");
            assert!(error.to_string().contains("multiple of 64"), "{error}");
        }
    }
}
