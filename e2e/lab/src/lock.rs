//! One verb at a time, one build at a time.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::progress::Progress;
use crate::wait::pause;

/// Held until dropped or until the process ends, however it ends.
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its Drop")] Flock<File>);

fn open(path: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// How long the child of a killed command may keep its lock.
///
/// `flock(2)` belongs to the open file, so a child has it too from `fork` until `exec` closes its
/// copy; a child that makes namespaces in between takes a while, and outlives a killed parent.
const ORPHAN: Duration = Duration::from_secs(3);

/// Locks directory `path`, or fails with `busy` when somebody keeps it for more than [`ORPHAN`].
pub(crate) fn try_lock(path: &Path, busy: &str) -> anyhow::Result<Lock> {
    let start = Instant::now();
    let mut file = open(path)?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Lock(lock)),
            Err((file, Errno::EWOULDBLOCK)) if start.elapsed() < ORPHAN => file,
            Err((_, Errno::EWOULDBLOCK)) => bail!("{busy}"),
            Err((_, error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        };
        pause(Duration::from_millis(20));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_an_orphan_keeps_for_a_moment_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let orphan = try_lock(directory.path(), "busy").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pause(Duration::from_millis(200));
                drop(orphan);
            });
            drop(try_lock(directory.path(), "busy").unwrap());
        });
    }

    #[test]
    fn a_lock_that_is_kept_is_busy() {
        let directory = tempfile::tempdir().unwrap();
        let _kept = try_lock(directory.path(), "busy").unwrap();
        assert_eq!(
            try_lock(directory.path(), "the words")
                .err()
                .unwrap()
                .to_string(),
            "the words"
        );
    }
}
