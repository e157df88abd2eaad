//! The few system calls that the standard library does not offer, as safe functions.

#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// A new eventfd with the counter at 0; a read blocks until it is above.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: eventfd takes no pointer; the result is checked before it is owned.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Kills a process group with SIGKILL; a group that is gone is no error.
pub fn kill_group(leader: u32) {
    let Ok(leader) = libc::pid_t::try_from(leader) else { return };
    // SAFETY: kill takes no pointer.
    unsafe { libc::kill(-leader, libc::SIGKILL) };
}

/// Whether a child of this process has ended; it stays there to be waited for.
pub fn has_ended(child: u32) -> bool {
    // SAFETY: a siginfo_t of zeros is a valid one.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is to a value that lives through the call.
    let result = unsafe { libc::waitid(libc::P_PID, child, &raw mut info, options) };
    // SAFETY: the kernel, or the zeros above, filled the field that this reads.
    result == 0 && unsafe { info.si_pid() } != 0
}

/// A socket option that is an integer.
pub fn set_socket_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An engine file over a descriptor that is read and written without a position: a pipe or an
/// eventfd.
pub fn engine_file(fd: OwnedFd) -> glommio::io::BufferedFile {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor is owned and handed over; the engine's file closes it.
    unsafe { glommio::io::BufferedFile::from_raw_fd(File::from(fd).into_raw_fd()) }
}
