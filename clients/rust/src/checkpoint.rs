use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Remembers the resume token up to which everything was handled.
///
/// To have it together with the effect, in one transaction of a database, do without: store
/// `notification.token` in the transaction, and pass the stored token with
/// [`Subscribe::after`](crate::Subscribe::after).
pub trait Checkpoint: Send {
    /// The token; None if none was stored.
    fn load(&mut self) -> Result<Option<String>>;
    /// Returns only when the token will be loaded, also after a crash. Called at most every second.
    fn store(&mut self, token: &str) -> Result<()>;
}

/// Keeps the token in a file, which is replaced, never rewritten.
#[derive(Debug)]
pub struct FileCheckpoint(PathBuf);

impl FileCheckpoint {
    /// A checkpoint in this file.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self(path.as_ref().to_owned())
    }
}

impl Checkpoint for FileCheckpoint {
    fn load(&mut self) -> Result<Option<String>> {
        let token = match std::fs::read_to_string(&self.0) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if token.is_empty() {
            // To take it for none would leave notifications out unseen.
            let text = format!("{} is empty; remove it to start anew", self.0.display());
            return Err(Error::new(ErrorKind::InvalidData, text));
        }
        Ok(Some(token))
    }

    fn store(&mut self, token: &str) -> Result<()> {
        let parent = self.0.parent().filter(|p| !p.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new("."));
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let beside = directory.join(format!(".{name}.{:016x}", rand::random::<u64>()));
        let written = std::fs::File::create_new(&beside).and_then(|mut file| {
            file.write_all(format!("{token}\n").as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.0)
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        written?;
        std::fs::File::open(directory)?.sync_all()
    }
}

/// Keeps the token for as long as it is there.
#[derive(Debug, Default)]
pub struct MemoryCheckpoint(Mutex<Option<String>>);

impl Checkpoint for &MemoryCheckpoint {
    fn load(&mut self) -> Result<Option<String>> {
        Ok(self.0.lock().unwrap_or_else(|e| e.into_inner()).clone())
    }

    fn store(&mut self, token: &str) -> Result<()> {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(token.to_owned());
        Ok(())
    }
}
