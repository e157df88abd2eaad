//! coreflow, by its own benchmark: `coreflow bench throughput --only durable_tasks`.

use crate::Peer;
use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

struct Coreflow {
    program: PathBuf,
    folder: PathBuf,
}

/// The program, when it was built.
pub fn start(program: &Path, folder: &Path) -> Option<Box<dyn Peer>> {
    let Ok(program) = program.canonicalize() else {
        eprintln!("{} is not there and left out", program.display());
        return None;
    };
    Some(Box::new(Coreflow { program, folder: folder.join("coreflow") }))
}

/// What one component of `coreflow bench throughput` came to.
pub fn measure(
    program: &Path,
    component: &str,
    seconds: f64,
    folder: &Path,
) -> io::Result<serde_json::Value> {
    let output = Command::new(program)
        .args(["bench", "throughput", "--only", component, "--json"])
        .args(["--seconds", &seconds.to_string()])
        .args([Path::new("--out"), folder])
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(said.trim().to_owned()));
    }
    let mut report: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(io::Error::other)?;
    Ok(report["results"][0].take())
}

impl Peer for Coreflow {
    fn name(&self) -> String {
        "coreflow (every acknowledgement synced)".into()
    }

    /// The benchmark runs for a time, so the time of so many tasks is worked out from its rate.
    fn run(&mut self, tasks: u32) -> io::Result<Duration> {
        let measured = measure(&self.program, "durable_tasks", 3.0, &self.folder)?;
        match measured["throughput_tasks_per_s"].as_f64() {
            Some(rate) if rate > 0.0 => Ok(Duration::from_secs_f64(f64::from(tasks) / rate)),
            _ => Err(io::Error::other("the report has no throughput")),
        }
    }
}
