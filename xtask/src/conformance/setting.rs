//! How npc is set up for a run: by the WeftNetwork, as a person would.

use std::{ops::ControlFlow, time::Duration};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{
    cluster::kubectl,
    command::{output, run},
    install::{LOOK_AT, NAMESPACE},
    wait,
};

/// How long the nodes may take to run with another setting.
const ROLLED_OUT: Duration = Duration::from_secs(240);

/// What every run of the suite must pass with.
pub(crate) const BACKENDS: [Setting; 3] = [
    Setting::IptablesLegacy,
    Setting::IptablesNft,
    Setting::Nftables,
];

/// A `spec.policy` of the WeftNetwork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Setting {
    /// iptables-legacy and ipset.
    IptablesLegacy,
    /// iptables-nft and ipset.
    IptablesNft,
    /// nftables.
    Nftables,
    /// What is there, whatever it is.
    AsInstalled,
    /// Nothing is enforced: the suite must fail.
    Disabled,
}

impl Setting {
    /// The name of its report.
    pub(crate) fn configuration(self, proxy: &str) -> String {
        let name = match self {
            Self::AsInstalled => "as-installed",
            Self::IptablesLegacy | Self::IptablesNft | Self::Nftables | Self::Disabled => {
                self.backend().unwrap_or_default()
            }
        };
        format!("{name}-proxy-{proxy}")
    }

    /// The backend that nodes report when they run with it.
    fn backend(self) -> Option<&'static str> {
        match self {
            Self::IptablesLegacy => Some("iptables-legacy"),
            Self::IptablesNft => Some("iptables-nft"),
            Self::Nftables => Some("nftables"),
            Self::Disabled => Some("disabled"),
            Self::AsInstalled => None,
        }
    }

    fn policy(self) -> Option<Value> {
        let enforced = |backend: &str, variant: &str| json!({"enforcement": "Enabled", "backend": backend, "iptablesVariant": variant});
        match self {
            Self::IptablesLegacy => Some(enforced("Iptables", "Legacy")),
            Self::IptablesNft => Some(enforced("Iptables", "Nft")),
            Self::Nftables => Some(enforced("Nftables", "Auto")),
            Self::Disabled => Some(json!({"enforcement": "Disabled"})),
            Self::AsInstalled => None,
        }
    }

    /// Sets it and waits until every node runs with it.
    ///
    /// # Errors
    /// The API refused it, or a node did not get there in time.
    pub(crate) fn apply(self) -> Result<()> {
        let Some(policy) = self.policy() else {
            return Ok(());
        };
        patch(&policy)?;
        rolled_out(self.backend())
    }
}

/// `spec.policy` as it is now.
pub(crate) fn found() -> Result<Value> {
    let network = get("weftnetwork/default", &[])?;
    Ok(network["spec"]["policy"].clone())
}

/// Sets `spec.policy` as it was.
pub(crate) fn put_back(policy: &Value) -> Result<()> {
    if found()? == *policy {
        return Ok(());
    }
    patch(policy)?;
    rolled_out(None)
}

fn patch(policy: &Value) -> Result<()> {
    let patch = json!({"spec": {"policy": policy}}).to_string();
    run(kubectl(&[
        "patch",
        "weftnetwork",
        "default",
        "--type=merge",
        "--patch",
        &patch,
    ]))
}

fn get(object: &str, more: &[&str]) -> Result<Value> {
    let mut line = vec!["get", object, "--output=json"];
    line.extend(more);
    serde_json::from_str(&output(kubectl(&line))?).with_context(|| format!("read {object}"))
}

/// Waits until no agent of another setting is left.
fn rolled_out(backend: Option<&str>) -> Result<()> {
    wait::until(ROLLED_OUT, LOOK_AT, || {
        let missing = missing(
            &get("weftnetwork/default", &[])?,
            &get("daemonset/weft-node", &["--namespace", NAMESPACE])?,
            &get("weftnodes", &[])?,
            backend,
        );
        Ok(match missing {
            Some(missing) => ControlFlow::Continue(missing),
            None => ControlFlow::Break("every agent runs with it".into()),
        })
    })
}

/// What has not followed the WeftNetwork yet.
fn missing(
    network: &Value,
    agents: &Value,
    nodes: &Value,
    backend: Option<&str>,
) -> Option<String> {
    let observed =
        |object: &Value| object["metadata"]["generation"] == object["status"]["observedGeneration"];
    if !observed(network) {
        return Some("the operator has not seen the WeftNetwork yet".into());
    }
    let count = |key: &str| agents["status"][key].as_u64().unwrap_or_default();
    let desired = count("desiredNumberScheduled");
    let done = count("updatedNumberScheduled").min(count("numberReady"));
    if !observed(agents) || done < desired {
        return Some(format!("{done} of {desired} agents run with it"));
    }
    let backend = backend?;
    let other: Vec<String> = nodes["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|node| node["status"]["policy"]["backend"] != backend)
        .map(|node| {
            format!(
                "{} reports {}",
                node["metadata"]["name"].as_str().unwrap_or("?"),
                node["status"]["policy"]["backend"]
                    .as_str()
                    .unwrap_or("no backend")
            )
        })
        .collect();
    (!other.is_empty()).then(|| other.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(generation: u64, observed: u64) -> Value {
        json!({"metadata": {"generation": generation}, "status": {
            "observedGeneration": observed, "desiredNumberScheduled": 1,
            "updatedNumberScheduled": 1, "numberReady": 1,
        }})
    }

    fn nodes(backend: &str) -> Value {
        json!({"items": [
            {"metadata": {"name": "n1"}, "status": {"policy": {"backend": backend}}},
        ]})
    }

    #[test]
    fn a_run_waits_for_operator_agents_and_what_every_node_reports() {
        let (old, new) = (object(2, 1), object(2, 2));
        let wanted = Some("nftables");
        let ask = |network: &Value, agents: &Value, backend: &str| {
            missing(network, agents, &nodes(backend), wanted)
        };
        assert_eq!(
            ask(&old, &new, "nftables").as_deref(),
            Some("the operator has not seen the WeftNetwork yet")
        );
        assert_eq!(
            ask(&new, &old, "nftables").as_deref(),
            Some("1 of 1 agents run with it")
        );
        assert_eq!(
            ask(&new, &new, "iptables-nft").as_deref(),
            Some("n1 reports iptables-nft")
        );
        assert_eq!(ask(&new, &new, "nftables"), None);
    }

    #[test]
    fn report_is_named_by_the_configuration() {
        let names: Vec<String> = Setting::value_variants()
            .iter()
            .map(|setting| setting.configuration("iptables"))
            .collect();
        assert_eq!(
            names,
            [
                "iptables-legacy-proxy-iptables",
                "iptables-nft-proxy-iptables",
                "nftables-proxy-iptables",
                "as-installed-proxy-iptables",
                "disabled-proxy-iptables",
            ]
        );
    }
}
