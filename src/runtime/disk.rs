//! Files that a blocking thread writes past the page cache, and the thread itself.
//!
//! A write that must outlast a loss of power is one `pwrite` on a descriptor opened with O_DIRECT
//! and O_DSYNC, from a thread that does nothing else: with a real-time priority it takes what the
//! disk takes, also while all cores are busy. Memory for such writes begins and ends at pages.

use super::{executor, sys};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    ops::{Deref, DerefMut},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    thread,
};

/// Memory and files are aligned to this, which every disk's own block size divides.
const PAGE_BYTES: usize = 4096;
/// Bytes of zeros that are written at a time.
const ZEROS_BYTES: usize = 1 << 20;

/// Memory that begins at a page.
pub struct AlignedBuffer {
    /// A page longer than asked for; never reallocated, so that `start` stays right.
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl AlignedBuffer {
    /// Zeros, `bytes` of them, rounded up to whole pages.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.next_multiple_of(PAGE_BYTES);
        let memory = vec![0; bytes + PAGE_BYTES];
        let start = memory.as_ptr().align_offset(PAGE_BYTES);
        Self { memory, start, bytes }
    }

    /// Makes room for at least `bytes`, keeping the first `kept_bytes`.
    pub fn grow(&mut self, bytes: usize, kept_bytes: usize) {
        if bytes > self.bytes {
            let mut larger = Self::new(bytes);
            larger[..kept_bytes].copy_from_slice(&self[..kept_bytes]);
            *self = larger;
        }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.bytes]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}

/// A file whose writes outlast a loss of power once they return.
#[derive(Debug)]
pub struct SyncedFile {
    file: File,
    /// Written past the page cache; otherwise each write is followed by an fdatasync.
    direct: bool,
}

impl SyncedFile {
    /// Opens a file that is there.
    ///
    /// # Errors
    /// It cannot be opened in this way.
    pub fn open(path: &Path, direct: bool) -> io::Result<Self> {
        let flags = if direct { libc::O_DIRECT | libc::O_DSYNC } else { 0 };
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        Ok(Self { file, direct })
    }

    /// Writes all of `bytes`, which begin at a page and are whole pages, at a whole page.
    ///
    /// # Errors
    /// Any, a short write among them: then nobody knows what was written.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let written = loop {
            match self.file.write_at(bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        if written != bytes.len() {
            let problem = format!("the disk took {written} of {} bytes", bytes.len());
            return Err(io::Error::new(io::ErrorKind::WriteZero, problem));
        }
        if self.direct { Ok(()) } else { self.sync() }
    }

    /// Makes everything that was written to the file outlast a loss of power.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Whether files in `folder` can be written past the page cache. A file system that cannot, such
/// as an old tmpfs, refuses either the flag or the first write.
///
/// # Errors
/// No file can be made there at all.
pub fn is_direct(folder: &Path) -> io::Result<bool> {
    let path = folder.join("probe");
    let page = AlignedBuffer::new(PAGE_BYTES);
    fs::write(&path, b"")?;
    let tried = SyncedFile::open(&path, true).and_then(|file| file.write(0, &page));
    fs::remove_file(&path)?;
    match tried {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a file of `bytes` zeros, a multiple of a page; every block of it has been written.
///
/// # Errors
/// The disk is full, or refuses; the file may be there in part.
pub fn write_zeros(path: &Path, bytes: u64, direct: bool) -> io::Result<()> {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).custom_flags(flags).open(path)?;
    let zeros = AlignedBuffer::new(ZEROS_BYTES);
    let mut offset = 0;
    while offset < bytes {
        let part = (bytes - offset).min(ZEROS_BYTES as u64) as usize;
        file.write_all_at(&zeros[..part], offset)?;
        offset += part as u64;
    }
    file.sync_all()
}

/// Makes the names in a folder outlast a loss of power.
///
/// # Errors
/// The folder cannot be opened or synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Replaces what a small file says: whoever reads it, also after a loss of power, finds either what
/// it said before or all of `bytes`.
///
/// # Errors
/// The file cannot be written; what it said before is still there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_folder(folder_of(path))
}

/// The folder that a path lies in. One of a single name lies in the folder that the process runs in, which is
/// named ".".
fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Makes a folder, and its parents where they are not there, that outlasts a loss of power.
///
/// # Errors
/// It cannot be made or synced, or is no folder.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<_> = folder.ancestors().take_while(|path| !path.exists()).collect();
    fs::create_dir_all(folder)?;
    for made in missing {
        sync_folder(folder_of(made))?;
    }
    Ok(())
}

/// A folder is this process's alone for as long as this lives; a process that dies leaves nothing.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // To close the file would not do: a child that is being started has a copy of it for a moment.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the lock of a folder stays until its file is closed");
        }
    }
}

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it; its number, where it could be read.
    #[error("{}", held(*.0))]
    Held(Option<u32>),
    /// The lock's file cannot be opened, read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn held(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid} uses it"),
        None => "another process uses it".to_owned(),
    }
}

impl FolderLock {
    /// Takes a folder, and leaves this process's number in its file `lock`.
    ///
    /// # Errors
    /// Another process has it, or the file cannot be made.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let mut file = lock(file.open(folder.join("lock"))?, true)?;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { file })
    }

    /// Keeps others from taking a folder while it is read; `None` when nobody ever took it.
    ///
    /// # Errors
    /// Another process has it, or the file cannot be read.
    pub fn share(folder: &Path) -> Result<Option<Self>, LockError> {
        match File::open(folder.join("lock")) {
            Ok(file) => Ok(Some(Self { file: lock(file, false)? })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn lock(mut file: File, exclusive: bool) -> Result<File, LockError> {
    if sys::try_lock(&file, exclusive)? {
        return Ok(file);
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Err(LockError::Held(text.trim().parse().ok()))
}

/// Where and how a blocking thread runs.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The kernel's number of the processor that it keeps to; `None` for any.
    pub cpu: Option<usize>,
    /// Whether it asks for a real-time priority, which wakes it past busy threads.
    pub realtime: bool,
}

/// What became of a [`Placement`] that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// False when it was to keep to a processor and may not.
    pub pinned: bool,
    /// False when it was to have a real-time priority and may not.
    pub realtime: bool,
}

/// Starts a thread that may block, outside every executor. It tells `run` what was granted; when
/// `run` panics the process ends at once with `exit_code`.
///
/// # Errors
/// The kernel gives no thread.
pub fn spawn_blocking_thread(
    name: &str,
    placement: Placement,
    exit_code: i32,
    run: impl FnOnce(Placed) + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let placed = Placed {
            pinned: placement.cpu.is_none_or(executor::pin_thread),
            realtime: !placement.realtime || sys::set_realtime().is_ok(),
        };
        // The panic hook has told what happened.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(placed))).is_err() {
            exit_now(exit_code);
        }
    })
}

/// Ends the process without running anything more of it.
pub fn exit_now(code: i32) -> ! {
    sys::exit_now(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_and_read_back_with_and_without_the_page_cache() {
        let folder = std::env::temp_dir().join(format!("coreflow-disk-{}", std::process::id()));
        make_folder(&folder.join("below")).unwrap();
        let direct = is_direct(&folder).unwrap();
        let mut page = AlignedBuffer::new(PAGE_BYTES);
        for direct in [direct, false] {
            let path = folder.join("below/file");
            write_zeros(&path, 3 << 20, direct).unwrap();
            page.fill(if direct { 1 } else { 2 });
            SyncedFile::open(&path, direct).unwrap().write(8192, &page).unwrap();
            let content = fs::read(&path).unwrap();
            assert_eq!(content.len(), 3 << 20);
            assert_eq!(content[8192..12_288], page[..]);
            assert_eq!(content.iter().filter(|byte| **byte != 0).count(), PAGE_BYTES);
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_path_of_one_name_lies_in_the_folder_of_the_process() {
        for (path, folder) in [("node-1.key.begun", "."), ("./a", "."), ("b/a", "b"), ("/a", "/")] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder));
            sync_folder(folder_of(Path::new(if folder == "b" { "src/a" } else { path }))).unwrap();
        }
    }

    #[test]
    fn a_folder_is_free_again_though_a_child_has_a_copy_of_the_lock() {
        let folder = std::env::temp_dir().join(format!("coreflow-lock-{}", std::process::id()));
        make_folder(&folder).unwrap();
        let lock = FolderLock::take(&folder).unwrap();
        assert!(matches!(FolderLock::take(&folder), Err(LockError::Held(Some(_)))));
        let copy = lock.file.try_clone().unwrap();
        drop(lock);
        let again = FolderLock::take(&folder).unwrap();
        drop((again, copy));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn memory_begins_at_a_page_and_keeps_its_content_when_it_grows() {
        let mut buffer = AlignedBuffer::new(5000);
        assert_eq!((buffer.len(), buffer.as_ptr() as usize % PAGE_BYTES), (8192, 0));
        buffer[..5000].fill(7);
        buffer.grow(100_000, 4500);
        assert_eq!((buffer.len(), buffer.as_ptr() as usize % PAGE_BYTES), (102_400, 0));
        assert_eq!((buffer[4499], buffer[4500]), (7, 0));
    }
}
