//! The port table and who writes it: passes of the sync loop, ADD and DEL, one at a time. A pass can
//! take long (it dumps and compares everything), so ADD does not wait for one: it waits for this
//! table alone.

use std::collections::BTreeMap;

use tokio::sync::Mutex;
use weft_fabric::{PodPort, PortRules};
use weft_netlink::IfName;

use super::PortTable;
use crate::exec::ExecError;

/// The pods that may use a port.
pub type Pods = BTreeMap<IfName, PodPort>;

/// The table, for one writer at a time.
pub struct Ports(Mutex<Inner>);

struct Inner {
    table: PortTable,
    /// What a pass wanted last, or why no port may be opened.
    wanted: Result<PortRules, String>,
}

impl Ports {
    /// No port is opened before the first pass allows it.
    #[must_use]
    pub fn new(table: PortTable) -> Self {
        Self(Mutex::new(Inner {
            table,
            wanted: Err("the first sync is not done".to_owned()),
        }))
    }

    /// For a pass: makes the table hold `rules`, with the pods that there are when its turn comes.
    /// Their list is read then, so that a pass that began before an ADD never closes its port.
    ///
    /// # Errors
    /// `nft` failed.
    pub async fn write(
        &self,
        rules: &PortRules,
        pods: impl FnOnce() -> Pods,
        verify: bool,
    ) -> Result<Option<String>, ExecError> {
        let mut inner = self.0.lock().await;
        let mut rules = rules.clone();
        rules.ports = pods();
        let done = inner.table.apply(&rules, verify).await;
        if let Ok(wanted) = &mut inner.wanted {
            *wanted = rules;
        }
        done
    }

    /// After a pass: from now on pods come and go on top of `wanted`, or no port is opened.
    pub async fn allow(&self, wanted: Result<&PortRules, String>) {
        self.0.lock().await.wanted = wanted.cloned();
    }

    /// For ADD and DEL: brings the pods in line, and nothing else.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub async fn bring(&self, pods: impl FnOnce() -> Pods) -> Result<(), String> {
        let mut inner = self.0.lock().await;
        let mut rules = inner.wanted.clone()?;
        rules.ports = pods();
        let done = inner.table.apply(&rules, false).await;
        inner.wanted = Ok(rules);
        done.map(drop).map_err(|e| e.to_string())
    }
}
