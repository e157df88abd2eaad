//! Servers as child processes, and the folder of a run.

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A folder that goes with the run.
pub struct Folder(PathBuf);

impl Folder {
    /// A new folder inside `parent`.
    pub fn new(parent: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(parent)?.join(format!("peers-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server; it ends with this.
pub struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts a program that takes its port and its folder as words, and waits until it listens;
    /// `None` when it is not installed.
    pub fn start(
        program: &str,
        folder: &Path,
        words: impl FnOnce(u16, &str) -> Vec<String>,
    ) -> io::Result<Option<Self>> {
        fs::create_dir(folder)?;
        let address = free_address()?;
        let words = words(address.port(), &folder.display().to_string());
        let log = File::create(folder.join("log"))?;
        let started = Command::new(program)
            .args(words)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        let child = match started {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("{program} is not installed and left out");
                return Ok(None);
            }
            started => started?,
        };
        let server = Self { child, address };
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                let said = fs::read_to_string(folder.join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("{program} does not listen: {said}")));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Some(server))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
