//! The `coreflow` program: everything is in the library, see `coreflow::cli`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`: milliseconds, of which memory that is free takes ten times as
/// many before it goes back to the system.
const PURGE_DELAY: (i32, std::ffi::c_long) = (15, 200);

fn main() -> std::process::ExitCode {
    keep_free_memory();
    coreflow::cli::main()
}

/// Keeps memory that is free for two seconds. To give back what a large answer took, a tenth of a second
/// after it, and to be given it again by page faults, held a core for half a millisecond each time.
#[allow(unsafe_code)]
fn keep_free_memory() {
    let (option, value) = PURGE_DELAY;
    // SAFETY: a number is written to an array of options that has one of this number.
    unsafe { libmimalloc_sys::mi_option_set(option, value) };
}
