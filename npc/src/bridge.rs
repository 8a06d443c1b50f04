//! Do frames on the pods' bridge pass our rules at all?
//!
//! The kernel hands bridged frames to iptables and to `inet` tables if the bridge says so, or the
//! node's sysctl `bridge-nf-call-iptables`. The sysctl belongs to the node: others set it, and no
//! event tells. So `weave` says it itself, whatever the sysctl does. The router writes that, and
//! again when somebody else changed it; npc looks too, because without it every policy is open and
//! the router may be dead.

use weft_netlink::{Bridge, Error, IfName, Kernel, Kind, Netlink as _, Owner, Step};

/// The pods' bridge.
const BRIDGE: &str = "weave";

/// Looks after it.
pub(crate) struct Guard {
    kernel: Kernel,
    owner: Owner,
    bridge: IfName,
}

impl Guard {
    /// For the bridge of the cluster with this id; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The netlink socket could not be opened.
    pub(crate) fn new(cluster_id: &str) -> std::io::Result<Self> {
        Ok(Self {
            kernel: Kernel::connect()?,
            owner: Owner::new(cluster_id),
            bridge: IfName::parse(BRIDGE).map_err(std::io::Error::other)?,
        })
    }

    /// Puts it right if it is wrong, and says what was done. A bridge that is not there, or not ours,
    /// is the router's business.
    ///
    /// # Errors
    /// The kernel refused.
    pub(crate) async fn look(&self) -> Result<Option<String>, Error> {
        let Some(link) = self.kernel.link(&self.bridge).await? else {
            return Ok(None);
        };
        let Kind::Bridge(bridge) = link.kind else {
            return Ok(None);
        };
        let wanted = Bridge {
            nf_call_iptables: true,
            nf_call_ip6tables: true,
            ..bridge
        };
        if link.alias != self.owner.fabric_alias() || bridge == wanted {
            return Ok(None);
        }
        let name = self.bridge.clone();
        let step = Step::SetBridge {
            name,
            bridge: wanted,
        };
        self.kernel.apply(&step).await?;
        Ok(Some(format!(
            "ip link set {BRIDGE} type bridge nf_call_iptables 1 nf_call_ip6tables 1\n"
        )))
    }
}
