//! The pod's network namespace: opened once, entered on a thread of its own.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};
use weft_socket::code;

use crate::error::Failure;

/// An open network namespace: it cannot vanish while this is held.
#[derive(Debug)]
pub(crate) struct Netns(File);

impl Netns {
    /// Opens the namespace at a path (`CNI_NETNS`).
    pub(crate) fn open(path: &str) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|e| {
            if e.kind() == io::ErrorKind::NotFound {
                // "Container unknown or does not exist": the runtime need not clean up.
                return Failure::new(
                    code::UNKNOWN_CONTAINER,
                    format!("network namespace {path} does not exist"),
                    "the sandbox is gone; the runtime makes a new one",
                );
            }
            Failure::io(&format!("cannot open network namespace {path}"), &e)
        })?;
        let kind = fstatfs(&file)
            .map_err(|e| Failure::io(&format!("cannot examine network namespace {path}"), &e))?;
        if kind.filesystem_type() != NSFS_MAGIC {
            return Err(Failure::new(
                code::UNKNOWN_CONTAINER,
                format!("{path} is not a network namespace"),
                "nothing is mounted there: the sandbox is gone, or CNI_NETNS is wrong",
            ));
        }
        let identity = |m: std::fs::Metadata| (m.dev(), m.ino());
        let own = Path::new("/proc/self/ns/net").metadata().map(identity);
        let theirs = file.metadata().map(identity);
        if matches!((own, theirs), (Ok(own), Ok(theirs)) if own == theirs) {
            return Err(Failure::new(
                code::INVALID_ENVIRONMENT,
                format!("CNI_NETNS {path} is the host's own network namespace"),
                "host-network pods get no interface from a CNI plugin",
            ));
        }
        Ok(Self(file))
    }

    /// Runs `work` inside. The thread ends with it, so nothing else ever runs in the pod's
    /// namespace; sockets and `/proc/sys/net` of the thread are those of the pod.
    pub(crate) fn run<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        self.beside(work, || ()).0
    }

    /// As [`Netns::run`], and `outside` here at the same time.
    pub(crate) fn beside<T: Send, U>(
        &self,
        inside: impl FnOnce() -> Result<T, Failure> + Send,
        outside: impl FnOnce() -> U,
    ) -> (Result<T, Failure>, U) {
        thread::scope(|scope| {
            let inside = thread::Builder::new().spawn_scoped(scope, || {
                setns(&self.0, CloneFlags::CLONE_NEWNET)
                    .map_err(|e| Failure::io("cannot enter the pod's network namespace", &e))?;
                inside()
            });
            let outside = outside();
            let inside = match inside.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(done)) => done,
                Ok(Err(_)) => Err(Failure::new(
                    code::INTERNAL,
                    "the thread inside the pod's network namespace died",
                    "please report this with the plugin's standard error",
                )),
                Err(e) => Err(Failure::io("cannot start a thread", &e)),
            };
            (inside, outside)
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
