//! Where a log is kept.

use std::{collections::VecDeque, io};

/// Durable storage of one log.
pub trait LogStore {
    /// The whole log; `None` if there is none. An implementation may stop reading behind
    /// [`super::MAX_BYTES`] + 1 bytes.
    ///
    /// # Errors
    /// It exists and cannot be read.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>>;

    /// Adds bytes at the end and returns when they are on stable storage.
    ///
    /// # Errors
    /// Nothing, a part or all of it may be in the log: [`LogStore::replace`] before the next append.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Puts `bytes` in place of the log, atomically, and returns when that is on stable storage.
    ///
    /// # Errors
    /// The log is the old one or the new one, never a mixture.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// What goes wrong with one write of a [`MemoryStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written (`ENOSPC`).
    DiskFull,
    /// Nothing is written (`EROFS`).
    ReadOnly,
    /// So many bytes are written, then it fails; a replace fails before its rename.
    Torn(usize),
    /// Everything is written, but the answer is an error (a failed fsync).
    SyncFailed,
}

/// A log in memory that can be told to fail. For tests and simulations.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    /// What is "on disk".
    pub bytes: Option<Vec<u8>>,
    /// Faults of the next writes, in order; `None` lets one write pass.
    pub faults: VecDeque<Option<Fault>>,
    /// Fault of every write when `faults` is empty.
    pub always: Option<Fault>,
}

impl MemoryStore {
    fn fault(&mut self) -> Option<Fault> {
        self.faults.pop_front().unwrap_or(self.always)
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::DiskFull | Fault::Torn(_) => io::ErrorKind::StorageFull.into(),
        Fault::ReadOnly => io::ErrorKind::ReadOnlyFilesystem.into(),
        Fault::SyncFailed => io::Error::other("fsync failed"),
    }
}

impl LogStore for MemoryStore {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.bytes.clone())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fault = self.fault();
        let written = match fault {
            None | Some(Fault::SyncFailed) => bytes.len(),
            Some(Fault::Torn(n)) => n.min(bytes.len()),
            Some(Fault::DiskFull | Fault::ReadOnly) => 0,
        };
        if written > 0 {
            let log = self.bytes.get_or_insert_default();
            log.extend(bytes.iter().take(written));
        }
        fault.map_or(Ok(()), |f| Err(error(f)))
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fault = self.fault();
        if matches!(fault, None | Some(Fault::SyncFailed)) {
            self.bytes = Some(bytes.to_vec());
        }
        fault.map_or(Ok(()), |f| Err(error(f)))
    }
}
