//! The log in a directory: `<dir>/ipam.log`, replaced through `<dir>/ipam.log.new`.

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use crate::log::{LogStore, MAX_BYTES};

/// Name of the log in its directory.
pub const LOG: &str = "ipam.log";

/// A log in a directory.
#[derive(Debug)]
pub struct FileStore {
    dir: PathBuf,
    /// Open for append, between two replacements.
    log: Option<File>,
}

impl FileStore {
    /// A store in `dir`, which need not exist yet.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            log: None,
        }
    }

    /// Path of the log.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    fn write_new(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.dir.join("ipam.log.new");
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.path())?;
        // The rename itself is on disk only when the directory is.
        File::open(&self.dir)?.sync_all()
    }
}

impl LogStore for FileStore {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.log {
            Some(file) => file,
            empty => empty.insert(OpenOptions::new().append(true).open(self.dir.join(LOG))?),
        };
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        // The open file is the old log's from here on.
        self.log = None;
        fs::create_dir_all(&self.dir)?;
        self.write_new(bytes).inspect_err(|_| {
            // Room for the next try; the error that counts is the first.
            let _ = fs::remove_file(self.dir.join("ipam.log.new"));
        })
    }
}
