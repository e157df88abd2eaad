//! The few system calls that the standard library does not offer, as safe functions.

#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    time::Duration,
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

/// Processor time of this thread, and how often another one took its processor away.
pub fn thread_use() -> (Duration, u64) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: all bytes zero are a value, and both calls write into what lives through them.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let (timed, counted) = unsafe {
        let timed = libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time);
        (timed, libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage))
    };
    assert!(timed == 0 && counted == 0, "a thread may ask what it used");
    let time = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
    (time, usage.ru_nivcsw as u64)
}

/// Kills a process group with SIGKILL; a group that is gone is no error.
pub fn kill_group(leader: u32) {
    let Ok(leader) = libc::pid_t::try_from(leader) else { return };
    // SAFETY: kill takes no pointer.
    unsafe { libc::kill(-leader, libc::SIGKILL) };
}

/// Waits until `file` can be read, for at most `limit`; tells whether it can.
pub fn wait_readable(file: &impl AsRawFd, limit: Option<Duration>) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the first pointer is one entry and the count says so; the second is null or a time
    // that lives through the call; the last is null, which keeps the signal mask.
    let ready = unsafe { libc::ppoll(&raw mut entry, 1, limit, std::ptr::null()) };
    match ready {
        0 => Ok(false),
        1.. => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

/// Locks a file for this process, or shares it with others that read; tells whether that worked.
pub fn try_lock(file: &File, exclusive: bool) -> io::Result<bool> {
    let operation = if exclusive { libc::LOCK_EX } else { libc::LOCK_SH } | libc::LOCK_NB;
    // SAFETY: flock takes no pointer.
    if unsafe { libc::flock(file.as_raw_fd(), operation) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        error => Err(error),
    }
}

/// Gives the calling thread the lowest real-time priority above none; threads that it starts have
/// an ordinary one.
pub fn set_realtime() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 2 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the pointer is a parameter that lives through the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const priority) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the process at once.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes no pointer and does not return; skipping destructors is its purpose.
    unsafe { libc::_exit(code) }
}

/// Which processors a thread may use.
#[derive(Clone, Copy)]
pub struct Affinity(libc::cpu_set_t);

/// Which processors the calling thread may use; none that are known when the kernel does not tell.
pub fn affinity() -> Affinity {
    // SAFETY: a set of bits, for which all zeros is a value; the kernel fills as much as it is
    // told that there is.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &raw mut set);
        Affinity(set)
    }
}

/// Lets a child run on `processors` instead of its starter's.
pub fn before_exec(child: &mut Command, processors: Option<Affinity>) {
    let prepare = move || {
        if let Some(Affinity(set)) = &processors {
            // SAFETY: a system call that touches nothing but the calling thread, which is what a
            // child may do between fork and exec. That it failed is no reason not to run.
            unsafe { libc::sched_setaffinity(0, size_of_val(set), set) };
        }
        Ok(())
    };
    // SAFETY: the closure above allocates nothing and takes no lock.
    unsafe { child.pre_exec(prepare) };
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

/// Another descriptor of the same open file.
pub fn duplicate(file: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: `file` keeps its descriptor open through the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
    borrowed.try_clone_to_owned()
}

/// An engine's stream over a connected socket.
pub fn engine_stream(socket: OwnedFd) -> glommio::net::TcpStream {
    // SAFETY: the descriptor is owned and handed over; the engine's stream closes it.
    unsafe { glommio::net::TcpStream::from_raw_fd(socket.into_raw_fd()) }
}

/// An engine's listener over a socket that listens.
pub fn engine_listener(socket: std::net::TcpListener) -> glommio::net::TcpListener {
    // SAFETY: the descriptor is owned and handed over; the engine's listener closes it.
    unsafe { glommio::net::TcpListener::from_raw_fd(socket.into_raw_fd()) }
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
    // SAFETY: the descriptor is owned and handed over; the engine's file closes it.
    unsafe { glommio::io::BufferedFile::from_raw_fd(File::from(fd).into_raw_fd()) }
}
