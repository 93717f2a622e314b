//! Who goes first when processors are scarce.
//!
//! Threads that answer requests work for some microseconds at a time and have to begin at once; others use up whatever they
//! are given. Linux lets a thread that has just been woken go before a running one only if its turn would end sooner, else
//! it waits for the next tick of the kernel's clock, up to 4 ms: so the first kind asks for short turns, the second for long
//! ones (Linux 6.12 and later; before, the request has no effect), and for less of the processors, too. A client's
//! threads on the same machine, whose turns are of ordinary length, thereby go before the second kind as well.
//!
//! Neither needs a privilege, and neither is needed for anything but latency: a failure is only logged.

use std::io;
use std::time::Duration;

/// For the backend's thread: writes wait for it only when the write-behind tail is full, so it goes behind those who
/// answer; but it has to keep up with them in the long run, at about a third of what another thread gets.
const NICE_OF_BACKEND: i32 = 5;

/// Below the default of 0, above the least of 19: on a machine whose processors are all taken, long work still gets on,
/// at about a tenth of what another thread gets.
const NICE_OF_LONG_WORK: i32 = 10;

/// How system calls name the calling thread.
const CALLING_THREAD: libc::pid_t = 0;
const NO_FLAGS: libc::c_uint = 0;

/// The shortest turn that Linux gives.
const SHORT_TURN_NS: u64 = 100_000;

/// The longest one.
const LONG_TURN_NS: u64 = 100_000_000;

/// Lets the calling thread, which answers or which others wait for, begin soon after it is woken.
pub fn take_short_turns() {
    ask_for(SHORT_TURN_NS);
}

/// Lets the calling thread, that of the backend, go behind those that answer.
pub fn follow() {
    go_behind(NICE_OF_BACKEND);
}

/// Lets the calling thread, one for long work, go behind all others.
pub fn give_way() {
    go_behind(NICE_OF_LONG_WORK);
}

/// How long the calling thread has waited for a processor so far, over its life; zero where the system does not tell.
pub fn waited() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = told.split(' ').nth(1).and_then(|waited| waited.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn go_behind(nice: i32) {
    // On Linux this concerns the calling thread alone.
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, nice, "cannot lower the priority of a thread");
    }
    ask_for(LONG_TURN_NS);
}

fn ask_for(turn_ns: u64) {
    if let Err(error) = set_turn(turn_ns) {
        tracing::debug!(%error, turn_ns, "cannot ask for a length of turns on a processor");
    }
}

/// Sets the length of turns (the kernel's slice), and nothing else, of the calling thread.
fn set_turn(turn_ns: u64) -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).expect("a small structure"),
        sched_policy: 0,
        sched_flags: u64::try_from(libc::SCHED_FLAG_KEEP_POLICY).expect("a flag"),
        sched_nice: rustix::process::getpriority_process(None)?,
        sched_priority: 0,
        sched_runtime: turn_ns,
        sched_deadline: 0,
        sched_period: 0,
    };
    #[expect(unsafe_code, reason = "no safe wrapper of this system call exists")]
    // SAFETY: the call reads `size` bytes of `attributes`, which lives until it returns, and writes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_setattr, CALLING_THREAD, &raw const attributes, NO_FLAGS)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use super::*;

    fn keep_busy(time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    /// Twice as many threads as there are processors cannot all run at once.
    #[test]
    fn a_thread_that_waits_for_a_processor_is_told_so() {
        let processors = std::thread::available_parallelism().expect("a number").get();
        let start = std::sync::Barrier::new(processors * 2);
        let all_ns = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..processors * 2 {
                scope.spawn(|| {
                    start.wait();
                    keep_busy(Duration::from_millis(100));
                    let waited_ns = u64::try_from(waited().as_nanos()).expect("milliseconds");
                    all_ns.fetch_add(waited_ns, Ordering::Relaxed);
                });
            }
        });
        let all = Duration::from_nanos(all_ns.into_inner());
        assert!(all > Duration::from_millis(20), "{all:?}");
        let own = std::thread::spawn(waited).join().expect("no panic");
        assert!(own < all, "each thread has its own: {own:?}");
    }

    #[test]
    fn the_length_of_turns_needs_no_privilege_and_keeps_the_priority() {
        let before = rustix::process::getpriority_process(None);
        for turn_ns in [SHORT_TURN_NS, LONG_TURN_NS] {
            let thread = std::thread::spawn(move || {
                give_way();
                (set_turn(turn_ns).is_ok(), rustix::process::getpriority_process(None))
            });
            assert_eq!(thread.join().expect("no panic"), (true, Ok(NICE_OF_LONG_WORK)));
        }
        assert_eq!(rustix::process::getpriority_process(None), before, "other threads keep theirs");
    }
}
