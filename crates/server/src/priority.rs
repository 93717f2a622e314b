//! Who goes first when processors are scarce.
//!
//! Threads that answer requests work for some microseconds at a time and have to begin at once; others use up whatever they
//! are given. Linux lets a running thread finish its slice, some milliseconds, before one that has just been woken: so all
//! ask for short slices (Linux 6.12 and later; before, the request has no effect), and those for long work for less of the
//! processors, too.
//!
//! Neither needs a privilege, and neither is needed for anything but latency: a failure is only logged.

use std::io;

/// Below the default of 0, above the least of 19: on a machine whose processors are all taken, long work still gets on,
/// at about a tenth of what another thread gets.
const NICE_OF_LONG_WORK: i32 = 10;

/// How system calls name the calling thread.
const CALLING_THREAD: libc::pid_t = 0;
const NO_FLAGS: libc::c_uint = 0;

/// The shortest slice that Linux gives.
const SLICE_NS: u64 = 100_000;

/// Lets the calling thread begin soon after it is woken, and others while it works.
pub fn take_turns() {
    if let Err(error) = ask_for_slice() {
        tracing::debug!(%error, "cannot ask for short slices of processor time");
    }
}

/// Lets the calling thread go behind the others.
pub fn give_way() {
    take_turns();
    // On Linux this concerns the calling thread alone.
    if let Err(error) = rustix::process::setpriority_process(None, NICE_OF_LONG_WORK) {
        tracing::debug!(%error, "cannot lower the priority of a thread for long work");
    }
}

/// Sets the slice, and nothing else, of a thread of the ordinary policy.
fn ask_for_slice() -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).expect("a small structure"),
        sched_policy: 0,
        sched_flags: u64::try_from(libc::SCHED_FLAG_KEEP_POLICY).expect("a flag"),
        sched_nice: rustix::process::getpriority_process(None)?,
        sched_priority: 0,
        sched_runtime: SLICE_NS,
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
    use super::*;

    #[test]
    fn a_short_slice_needs_no_privilege_and_keeps_the_priority() {
        let thread = std::thread::spawn(|| {
            give_way();
            (ask_for_slice().is_ok(), rustix::process::getpriority_process(None))
        });
        assert_eq!(thread.join().expect("no panic"), (true, Ok(NICE_OF_LONG_WORK)));
        assert_eq!(rustix::process::getpriority_process(None), Ok(0), "other threads keep theirs");
    }
}
