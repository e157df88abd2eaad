//! The command line: one file a subcommand, no logic of its own.

pub mod agent;
pub mod bench;
pub mod bench_agent;
pub mod cluster;
pub mod common;
pub mod compare;
pub mod completions;
pub mod config;
pub mod dead;
pub mod doctor;
mod interrupt;
pub mod mcp;
pub mod memory;
mod remote;
pub mod run;
pub mod serve;
pub mod task;
mod tasks;

use clap::{Parser, Subcommand};
use common::Common;
use std::{io, process::ExitCode};

/// Run swarms of agents on pinned cores
#[derive(Parser, Debug)]
#[command(name = "coreflow", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 went well, 1 failed or regressed, 2 wrong usage or \
                        configuration; 3 doctor could not look. Logs go to standard error; \
                        COREFLOW_LOG sets their level.")]
struct CommandLine {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Serve(serve::ServeArgs),
    Run(run::RunArgs),
    Task(task::TaskArgs),
    Dead(dead::DeadArgs),
    Agent(agent::AgentArgs),
    Memory(memory::MemoryArgs),
    Cluster(cluster::ClusterArgs),
    Bench(bench::BenchArgs),
    BenchAgent(bench_agent::BenchAgentArgs),
    Mcp(mcp::McpArgs),
    Compare(compare::CompareArgs),
    Doctor(doctor::DoctorArgs),
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
}

/// Parses the command line, runs the subcommand and tells the exit code.
///
/// Exit codes: 0 went well, 1 failed or regressed, 2 wrong usage or configuration, 3 doctor could not look.
pub fn main() -> ExitCode {
    let CommandLine { common, command } = CommandLine::parse();
    log_to_stderr(matches!(command, Command::Doctor(_)));
    let (mut out, mut err) = (io::stdout(), io::stderr());
    match &command {
        Command::Serve(args) => serve::run(args, &common, &mut out, &mut err),
        Command::Run(args) => run::run(args, &common, &mut out, &mut err),
        Command::Task(args) => task::run(args, &common, &mut out, &mut err),
        Command::Dead(args) => dead::run(args, &common, &mut out, &mut err),
        Command::Agent(args) => agent::run(args, &common, &mut out, &mut err),
        Command::Memory(args) => memory::run(args, &common, &mut out, &mut err),
        Command::Cluster(args) => cluster::run(args, &common, &mut out, &mut err),
        Command::Bench(args) => bench::run(args, &common, &mut out, &mut err),
        Command::BenchAgent(args) => bench_agent::run(args),
        Command::Mcp(args) => mcp::run(args, &common, &mut err),
        Command::Compare(args) => compare::run(args, &common, &mut out, &mut err),
        Command::Doctor(args) => doctor::run(args, &common, &mut out, &mut err),
        Command::Config(args) => config::run(args, &common, &mut out, &mut err),
        Command::Completions(args) => completions::run::<CommandLine>(args, &mut out),
    }
}

/// Lets logs go to standard error; damage that is met is told by the subcommand itself where it reports.
fn log_to_stderr(reports_damage: bool) {
    use tracing_subscriber::{EnvFilter, filter::LevelFilter};
    let mut filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("COREFLOW_LOG")
        .from_env_lossy()
        .add_directive("glommio=error".parse().expect("it is a directive"));
    if reports_damage {
        let quiet = "coreflow::memory::store::losses=off";
        filter = filter.add_directive(quiet.parse().expect("it is a directive"));
    }
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_target(false)
        .with_env_filter(filter)
        .init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::CommandLine::command().debug_assert();
    }
}
