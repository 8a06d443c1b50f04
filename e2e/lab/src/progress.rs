//! Progress for people, on standard error (standard output belongs to the verbs' results).

use std::time::Instant;

/// Says what happens and how many seconds have passed since the verb started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    start: Instant,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn seconds(self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub(crate) fn say(self, line: impl std::fmt::Display) {
        eprintln!("[{:6.1} s] {line}", self.seconds());
    }
}
