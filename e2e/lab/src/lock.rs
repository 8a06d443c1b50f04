//! One verb at a time, one build at a time.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::progress::Progress;

/// Held until dropped or until the process ends, however it ends.
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its Drop")] Flock<File>);

fn open(path: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// Locks directory `path`, or fails at once with `busy`.
pub(crate) fn try_lock(path: &Path, busy: &str) -> anyhow::Result<Lock> {
    match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Lock(lock)),
        Err((_, Errno::EWOULDBLOCK)) => bail!("{busy}"),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Locks directory `path`; says so when somebody else holds it.
pub(crate) fn wait_lock(path: &Path, progress: Progress, busy: &str) -> anyhow::Result<Lock> {
    let file = match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => return Ok(Lock(lock)),
        Err((file, _)) => file,
    };
    progress.say(busy);
    Flock::lock(file, FlockArg::LockExclusive)
        .map(Lock)
        .map_err(|(_, error)| error)
        .with_context(|| format!("cannot lock {}", path.display()))
}
