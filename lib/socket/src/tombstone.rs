//! Tombstones: attachments that were deleted while the router could not be asked.
//!
//! A DEL must succeed while the router is down (else pods hang in Terminating), and must not lose
//! the release. The plugin takes the link away, writes a tombstone into [`DEL_DIR`] and answers
//! success. The router replays them when it serves requests again and then from time to time: DEL of
//! every tombstone, and after the release is durable, [`Tombstone::remove`]. An ADD of the same
//! attachment removes its tombstone before it asks the router.

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{AttachmentId, decode, encode};

/// Where tombstones are. On a tmpfs: a reboot takes the pods away as well.
pub const DEL_DIR: &str = "/run/weft/del";

/// A tombstone on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The attachment that is gone.
    pub id: AttachmentId,
    /// The file.
    pub path: PathBuf,
}

impl Tombstone {
    /// Removes the file; gone already is success.
    ///
    /// # Errors
    /// It exists and cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        remove_file(&self.path)
    }
}

/// Records that `id` is gone. Written aside and renamed, so that a reader sees all or nothing.
///
/// # Errors
/// The directory or the file cannot be written: the caller must not answer success.
pub fn bury(dir: &Path, id: &AttachmentId) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let new = dir.join(format!(".{}", file_name(id)));
    let mut file = File::create(&new)?;
    file.write_all(&encode(id)?)?;
    file.sync_all()?;
    fs::rename(new, dir.join(file_name(id)))
}

/// Takes the tombstone of `id` away; none is success.
///
/// # Errors
/// It exists and cannot be removed.
pub fn exhume(dir: &Path, id: &AttachmentId) -> io::Result<()> {
    remove_file(&dir.join(file_name(id)))
}

/// Every tombstone, in order of file names. Files that are none are left out.
///
/// # Errors
/// The directory exists and cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<Tombstone>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found: Vec<Tombstone> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let id: AttachmentId = decode(&fs::read(&path).ok()?).ok()?;
            // A half-written one has the other name and is not a tombstone yet.
            (path.file_name()?.to_str()? == file_name(&id)).then_some(Tombstone { id, path })
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Container ids and interface names cannot hold a slash (CNI spec, "Parameters").
fn file_name(id: &AttachmentId) -> String {
    format!("{}-{}", id.container_id, id.ifname).replace('/', "_")
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
