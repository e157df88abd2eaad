//! The `coreflow` program: everything is in the library, see `coreflow::cli`.

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};
use std::ffi::c_long;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`, milliseconds: so long that no core gives memory back, which
/// would keep its messages waiting for a millisecond. A thread does ([`coreflow::runtime::free_memory`]).
const PURGE_DELAY: (mi_option_t, c_long) = (15, 3_600_000);
/// `mi_option_generic_collect`: after so many allocations that find no block at once a thread looks at all
/// pages that it has, which takes longer the more there are. The most that is allowed.
const GENERIC_COLLECT: (mi_option_t, c_long) = (34, 1_000_000);

fn main() -> std::process::ExitCode {
    set_up_allocator();
    coreflow::runtime::free_memory::set_give_back(give_back);
    coreflow::cli::main()
}

#[allow(unsafe_code)]
fn set_up_allocator() {
    for (option, value) in [PURGE_DELAY, GENERIC_COLLECT] {
        // SAFETY: a number is written to an array of options that has one of this number.
        unsafe { mi_option_set(option, value) };
    }
}

/// Gives all memory that is free back to the system.
#[allow(unsafe_code)]
fn give_back() {
    // The allocator does nothing for a thread that never had memory.
    drop(std::hint::black_box(Box::new(0_u8)));
    // SAFETY: any thread may ask for it at any time.
    unsafe { mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the process has in memory, KiB.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("it is there");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it says so");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
    }

    /// One test, since there is one allocator.
    #[test]
    #[allow(unsafe_code)]
    fn free_memory_stays_until_it_is_given_back() {
        // SAFETY: a number is read from an array of options that has one of this number.
        let get = |(option, _)| unsafe { libmimalloc_sys::mi_option_get(option) };
        assert_eq!((get(PURGE_DELAY), get(GENERIC_COLLECT)), (1000, 10_000), "as it begins");
        set_up_allocator();
        assert_eq!((get(PURGE_DELAY), get(GENERIC_COLLECT)), (PURGE_DELAY.1, GENERIC_COLLECT.1));

        let before = resident();
        let blocks: Vec<Vec<u8>> = (0..1024).map(|_| vec![1; 64 << 10]).collect();
        let most = resident();
        assert!(most > before + (60 << 10), "{before} and then {most} KiB");
        drop(std::hint::black_box(blocks));
        let kept = resident();
        assert!(kept > before + (60 << 10), "{before}, {most} and then {kept} KiB");
        std::thread::spawn(give_back).join().expect("it gives back");
        let after = resident();
        assert!(after < before + (16 << 10), "{before}, {most}, {kept} and then {after} KiB");
    }
}
