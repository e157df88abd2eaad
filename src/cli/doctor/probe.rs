//! What only a try can tell: whether an io_uring can be made and the listeners bound.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd};

use super::host::Busy;
use crate::config::Config;

/// Size of the kernel's `struct io_uring_params`, bytes.
const PARAMETERS_BYTES: usize = 120;
/// Entries of the ring that is tried: the smallest that every kernel accepts.
const ENTRIES: libc::c_long = 2;

/// Makes an io_uring and closes it; the error is the number that the kernel gave.
#[allow(unsafe_code)]
pub fn io_uring() -> Option<Result<(), i32>> {
    // Eight bytes of alignment, as the kernel's structure has.
    let mut parameters = [0_u64; PARAMETERS_BYTES / 8];
    // SAFETY: the kernel reads and writes `PARAMETERS_BYTES` at the pointer, which is the array's
    // size, and keeps no reference to it after the call.
    let file = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, parameters.as_mut_ptr()) };
    if file < 0 {
        let error = std::io::Error::last_os_error();
        return Some(Err(error.raw_os_error().unwrap_or(0)));
    }
    let file = i32::try_from(file).ok()?;
    // SAFETY: the call has just returned this descriptor and nothing else owns it.
    drop(unsafe { OwnedFd::from_raw_fd(file) });
    Some(Ok(()))
}

/// The listener addresses of a configuration that cannot be bound now.
pub fn busy_listeners(config: &Config) -> Vec<Busy> {
    let at = config.listen();
    let doors = [("rpc", Some(at.rpc)), ("http", Some(at.http)), ("peers", at.peers)];
    let busy = |(door, address): (&str, Option<SocketAddr>)| {
        let address = address?;
        let error = TcpListener::bind(address).err()?;
        Some(Busy { key: config.listen_key(door), address, reason: error.to_string() })
    };
    doors.into_iter().filter_map(busy).collect()
}

/// What is wrong with the files of secrets that a configuration names.
pub fn unfit_secrets(config: &Config) -> Vec<String> {
    let unfit = [config.token().err(), config.cluster_secret().err()];
    unfit.into_iter().flatten().map(|error| error.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_cannot_be_read_is_named() {
        let text = "[server]\ntoken_file = \"/nowhere/token\"\n";
        let config = Config::parse(text, "test", &[]).expect("valid");
        let unfit = unfit_secrets(&config);
        assert_eq!(unfit.len(), 1, "{unfit:?}");
        assert!(unfit[0].contains("server.token_file") && unfit[0].contains("/nowhere/token"));
        assert_eq!(unfit_secrets(&Config::default()), Vec::<String>::new());
    }

    #[test]
    fn a_taken_address_is_busy_and_a_free_one_is_not() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("a bound listener has an address");
        let overrides =
            [format!("server.rpc_address={address}"), "server.http_address=127.0.0.1:0".to_owned()];
        let config = Config::parse("", "test", &overrides).expect("valid");
        let busy = busy_listeners(&config);
        assert_eq!(busy.len(), 1, "{busy:?}");
        assert_eq!((&*busy[0].key, busy[0].address), ("server.rpc_address", address));
    }

    #[test]
    fn the_kernel_answers_the_io_uring_probe() {
        assert!(io_uring().is_some());
    }
}
