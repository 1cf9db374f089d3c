//! Slots begin, however often their threads lose their cores.

use std::{
    cell::Cell,
    mem, ptr,
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
};

use super::*;

/// Threads lose their cores up to so many times before the first turn,
const LOSSES: usize = 12;
/// and so many threads each number of times: the hole is some microseconds wide, and the last loss has to fall into it,
/// since another would wake who has fallen.
const STARTS: usize = 5;
/// For so long a thread goes on before it loses its core.
const GOES_ON_NS: i64 = 20_000;
/// For so long it stands still: longer than the millisecond after which glommio looks for other tasks by default.
const STANDS_STILL: Duration = Duration::from_millis(3);

/// How often a thread has lost its core.
static LOST: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The timer of this thread's interruptions, null where it has none.
    static TIMER: Cell<libc::timer_t> = const { Cell::new(ptr::null_mut()) };
    /// How often this thread is still to lose its core.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

fn arm(timer: libc::timer_t) {
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let soon = libc::itimerspec { it_interval: never, it_value: libc::timespec { tv_sec: 0, tv_nsec: GOES_ON_NS } };
    // SAFETY: the timer exists, and the pointers are good for the call.
    unsafe { libc::timer_settime(timer, 0, &soon, ptr::null_mut()) };
}

/// Takes the core from the thread. Does nothing that a signal handler may not do.
extern "C" fn interrupt(_: libc::c_int) {
    LOST.fetch_add(1, Relaxed);
    thread::sleep(STANDS_STILL);
    LEFT.set(LEFT.get().saturating_sub(1));
    let timer = TIMER.get();
    if !timer.is_null() && LEFT.get() > 0 {
        arm(timer);
    }
}

/// Takes the core from this thread so many times, as a busy machine does.
fn begin_interruptions(losses: usize) {
    let handler: extern "C" fn(libc::c_int) = interrupt;
    // SAFETY: plain system calls with zeroed structures whose fields are set, on a signal that nothing else here uses; the
    // timer signals this thread alone.
    let timer = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        (action.sa_sigaction, action.sa_flags) = (handler as usize, libc::SA_RESTART);
        assert_eq!(libc::sigaction(libc::SIGUSR2, &action, ptr::null_mut()), 0);
        let mut event: libc::sigevent = mem::zeroed();
        (event.sigev_notify, event.sigev_signo) = (libc::SIGEV_THREAD_ID, libc::SIGUSR2);
        event.sigev_notify_thread_id = libc::gettid();
        let mut timer: libc::timer_t = ptr::null_mut();
        assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer), 0);
        timer
    };
    // The system's first timer may be called null: then it is the second that is used.
    if timer.is_null() {
        return begin_interruptions(losses);
    }
    TIMER.set(timer);
    LEFT.set(losses);
    arm(timer);
}

fn end_interruptions() {
    let timer = TIMER.replace(ptr::null_mut());
    // SAFETY: it is this thread's, and the handler does not see it any more.
    unsafe { libc::timer_delete(timer) };
}

#[test]
fn when_threads_lose_their_cores_before_the_first_turn_then_their_slots_begin_nevertheless() {
    let wanted = STARTS * LOSSES;
    let mut starts = 0;
    // Where threads begin fast, few lose their cores in time: more of them are started then.
    while starts < wanted || LOST.load(Relaxed) < wanted && starts < 20 * wanted {
        let start = starts;
        starts += 1;
        let (began, begins) = mpsc::channel();
        let slot = thread::spawn(move || {
            let executor = executor(start, None).unwrap();
            begin_interruptions(1 + start % LOSSES);
            executor.run(async move {
                end_interruptions();
                began.send(()).unwrap();
            });
        });
        let begun = begins.recv_timeout(Duration::from_secs(20));
        assert!(begun.is_ok(), "slot {start} sleeps beside its first turn");
        slot.join().unwrap();
    }
    assert!(LOST.load(Relaxed) >= wanted, "cores were lost {} times only, in {starts} starts", LOST.load(Relaxed));
}
