//! The `coreflow` program: everything is in the library, see `coreflow::cli`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    coreflow::cli::main()
}
