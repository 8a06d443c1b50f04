//! A network in memory with the kernel's manners, for tests of loops.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, Netlink, Network, Step};

type Failure = Box<dyn FnMut(&Step) -> Option<i32> + Send>;

/// Keeps a [`Network`]; steps can be told to fail with an errno.
#[derive(Default)]
pub struct Fake {
    network: Mutex<Network>,
    failure: Mutex<Option<Failure>>,
    applied: Mutex<Vec<Step>>,
}

impl Fake {
    /// Starts with `network`.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self {
            network: Mutex::new(network),
            ..Self::default()
        }
    }

    /// The network, to look at or to change behind the loop's back.
    pub fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every step applied so far, in order.
    #[must_use]
    pub fn applied(&self) -> Vec<Step> {
        self.applied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on `failure` is asked before each step: `Some(errno)` makes it fail.
    pub fn fail_with(&self, failure: impl FnMut(&Step) -> Option<i32> + Send + 'static) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(failure));
    }
}

impl Netlink for Fake {
    async fn dump(&self) -> Result<Network, Error> {
        Ok(self.network().clone())
    }

    async fn apply(&self, step: &Step) -> Result<(), Error> {
        let refused = |errno| Error {
            action: step.to_string(),
            cause: format!("errno {errno}"),
            errno: Some(errno),
        };
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(errno) = failure.as_mut().and_then(|f| f(step)) {
            return Err(refused(errno));
        }
        if !self.network().apply(step) {
            // ENODEV or EEXIST, as the kernel has it for a plan that is out of date.
            let adds = matches!(
                step,
                Step::CreateLink { .. } | Step::AddAddress(_) | Step::AddRoute(_)
            );
            return Err(refused(if adds { 17 } else { 19 }));
        }
        self.applied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(step.clone());
        Ok(())
    }
}
