//! The `coreflow` program: everything is in the library, see `coreflow::cli`.

fn main() -> std::process::ExitCode {
    coreflow::cli::main()
}
