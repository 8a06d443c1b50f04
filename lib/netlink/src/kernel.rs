//! The kernel of this node, through rtnetlink.

mod apply;
mod dump;
mod events;

use std::sync::{Arc, Mutex, PoisonError};

use rtnetlink::{Handle, packet_core::ErrorMessage};

pub use events::Events;

use crate::{Error, IfName, Link, Netlink, Network, Step};

/// Protocol number of our routes (`ip route ... proto 84`): tells them from everybody else's.
pub(crate) const ROUTE_PROTOCOL: u8 = 84;

/// Network devices of the network namespace in which it was connected.
pub struct Kernel {
    handle: Handle,
    task: Arc<Mutex<tokio::task::JoinHandle<()>>>,
}

impl Kernel {
    /// Opens a netlink socket; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The socket could not be opened.
    pub fn connect() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let task = tokio::spawn(connection);
        Ok(Self {
            handle,
            task: Arc::new(Mutex::new(task)),
        })
    }

    /// One link; `None`: there is none of this name.
    ///
    /// # Errors
    /// The kernel refused or the socket broke.
    pub async fn link(&self, name: &IfName) -> Result<Option<Link>, Error> {
        dump::link(&self.handle, name).await
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abort();
    }
}

impl Netlink for Kernel {
    async fn dump(&self) -> Result<Network, Error> {
        dump::dump(&self.handle).await
    }

    async fn apply(&self, step: &Step) -> Result<(), Error> {
        apply::apply(&self.handle, step).await
    }
}

fn error(action: impl ToString, err: rtnetlink::Error) -> Error {
    match err {
        rtnetlink::Error::NetlinkError(message) => refused(action, &message),
        other => Error {
            action: action.to_string(),
            cause: other.to_string(),
            errno: None,
        },
    }
}

fn refused(action: impl ToString, message: &ErrorMessage) -> Error {
    Error {
        action: action.to_string(),
        cause: message.to_io().to_string(),
        errno: message.to_io().raw_os_error(),
    }
}
