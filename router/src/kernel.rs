//! Makes the kernel hold a [`Fabric`]: dump, compare, apply, for each of the five places it lives
//! in. Knows no Kubernetes; works in whatever network namespace it was made in.

mod listing;
mod pods;
mod ports;
mod rules;
mod shortcut;
mod sysctl;
mod turns;

use std::{collections::BTreeSet, path::PathBuf};

use nix::errno::Errno;
use weft_fabric::Fabric;
use weft_netlink::{FdbEntry, Foreign, IfName, MacAddr, Netlink, Network, Owner, Step, diff};
use weft_socket::HOST_IFNAME_PREFIX;

pub use pods::attachments;
pub use ports::{PortTable, listed_addresses};
pub use rules::RuleTable;
pub(crate) use rules::rule_owner;
use shortcut::ShortcutTable;
pub use sysctl::Settings;
pub use turns::{Pods, Ports};

/// What one pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Every change, as printed.
    pub changes: Vec<String>,
    /// Devices in the way.
    pub foreign: Vec<Foreign>,
    /// What failed; the rest was done.
    pub problems: Vec<String>,
}

impl Outcome {
    /// The kernel holds the fabric.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.foreign.is_empty() && self.problems.is_empty()
    }
}

/// Makes `mac` known on the port `link`, and nothing else: the quick way of an ADD.
///
/// # Errors
/// Netlink refused: the link is not there, or is no port.
pub async fn forward(netlink: &impl Netlink, link: &IfName, mac: MacAddr) -> Result<(), String> {
    let entry = FdbEntry::Port {
        link: link.clone(),
        mac,
    };
    let done = netlink.apply(&Step::AddFdb(entry)).await;
    done.map_err(|e| e.to_string())
}

/// The kernel's side of the fabric.
pub struct Applier<N> {
    netlink: N,
    owner: Owner,
    settings: Settings,
    shortcut: ShortcutTable,
}

impl<N: Netlink> Applier<N> {
    /// For the cluster with this id, with kernel settings below `sysctl_dir`.
    #[must_use]
    pub fn new(netlink: N, cluster_id: &str, sysctl_dir: PathBuf) -> Self {
        Self {
            netlink,
            owner: Owner::new(cluster_id),
            settings: Settings::new(sysctl_dir),
            shortcut: ShortcutTable::default(),
        }
    }

    /// What is there.
    ///
    /// # Errors
    /// Netlink refused.
    pub async fn observe(&self) -> Result<Network, weft_netlink::Error> {
        self.netlink.dump().await
    }

    /// Whose links are ours.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Bridged packets can pass iptables here.
    #[must_use]
    pub fn has_bridge_netfilter(&self) -> bool {
        self.settings.has_bridge_netfilter()
    }

    /// Makes devices and settings those of `fabric`, from what was `observed`. `verify`: also read
    /// back the short cut, which is believed to be right. Goes on past errors and returns all of them.
    ///
    /// Iptables rules ([`RuleTable`]) and the port table ([`PortTable`]) come before: pods are closed
    /// before a device exists. Devices come before settings, which name them. The pods of `fabric`
    /// must not be older than `observed`, or the FDB entry of one that came in between would go.
    pub async fn apply(&mut self, observed: &Network, fabric: &Fabric, verify: bool) -> Outcome {
        let mut outcome = Outcome::default();
        let missing = self.devices(observed, fabric, verify, &mut outcome).await;
        for sysctl in &fabric.sysctls {
            // A device that is not ours keeps its settings, too.
            let of = |name: &str| sysctl.path.split('/').any(|part| part == name);
            if outcome.foreign.iter().any(|f| of(f.name.as_str()))
                || missing.iter().any(|name| of(name.as_str()))
            {
                continue;
            }
            match self.settings.apply(sysctl) {
                Ok(Some(change)) => outcome.changes.push(change),
                Ok(None) => {}
                Err(e) if sysctl.required => outcome.problems.push(e.to_string()),
                Err(e) => tracing::trace!(error = %e, "Kernel setting left as it is"),
            }
        }
        outcome
    }

    /// Returns the links that could not be made.
    async fn devices(
        &mut self,
        observed: &Network,
        fabric: &Fabric,
        verify: bool,
        outcome: &mut Outcome,
    ) -> BTreeSet<IfName> {
        let plan = diff(observed, &fabric.devices, &self.owner);
        outcome.foreign = plan.foreign;
        let mut missing = BTreeSet::new();
        for step in &plan.steps {
            // What has the name of a link that could not be made is somebody else's.
            if step.links().into_iter().any(|link| missing.contains(link)) {
                continue;
            }
            match self.netlink.apply(step).await {
                Ok(()) => outcome.changes.push(step.to_string()),
                Err(e) if went_meanwhile(step, &e) => {
                    tracing::debug!(error = %e, "The pod's interface went during the pass");
                }
                Err(e) => {
                    outcome.problems.push(e.to_string());
                    if let Step::CreateLink { .. } = step {
                        missing.extend(step.links().into_iter().cloned());
                    }
                }
            }
        }
        if outcome.is_complete() {
            let table = &mut self.shortcut;
            let change = table.apply(&fabric.shortcut, &plan.steps, verify).await;
            outcome.changes.extend(change);
        }
        missing
    }
}

/// Whether a step failed because its pod's interface was deleted after the look: what was to be done
/// is no longer wanted, and the next pass, which the deletion causes, knows. Without this, a DEL could
/// refuse the ADD of another pod. A device of the fabric that is not there is a failure.
fn went_meanwhile(step: &Step, error: &weft_netlink::Error) -> bool {
    error.errno == Some(Errno::ENODEV as i32)
        && step
            .links()
            .first()
            .is_some_and(|link| link.as_str().starts_with(HOST_IFNAME_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_goes_during_a_pass_does_not_fail_it_and_a_device_of_ours_does() {
        let step = |link: &str| {
            Step::AddFdb(FdbEntry::Port {
                link: link.parse().unwrap(),
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
            })
        };
        let error = |errno: Errno| weft_netlink::Error {
            action: "look up link".into(),
            cause: errno.to_string(),
            errno: Some(errno as i32),
        };
        assert!(went_meanwhile(&step("vethwepl1"), &error(Errno::ENODEV)));
        assert!(!went_meanwhile(&step("vethwepl1"), &error(Errno::EBUSY)));
        assert!(!went_meanwhile(
            &step("vethwe-bridge"),
            &error(Errno::ENODEV)
        ));
        let with_bridge = Step::ClearPort {
            name: "vethwepl1".parse().unwrap(),
        };
        assert!(went_meanwhile(&with_bridge, &error(Errno::ENODEV)));
    }
}
