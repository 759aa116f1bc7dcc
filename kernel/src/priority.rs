//! A turn for the wall on a host whose processors an attack keeps busy.

#![expect(unsafe_code, reason = "a system call that no crate among ours wraps")]

use std::io;

/// Nice value of whoever decides: before everything ordinary, behind whatever has to run in real time.
const NICE: libc::c_int = -10;

/// Lets the calling thread, and no other that is there already, go before others.
///
/// # Errors
/// When the process may not (capability `CAP_SYS_NICE`).
pub fn raise() -> io::Result<()> {
    // SAFETY: takes numbers alone; process 0 is the calling thread (setpriority(2), differences between C library and kernel).
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
