//! The network configuration on standard input.

#[cfg(test)]
mod tests;

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use weft_socket::{AttachmentId, ROUTER_SOCKET, code, tombstone};

use crate::{call::is_identifier, error::Failure};

/// Versions of the protocol we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    pub(crate) const ALL: [Self; 3] = [Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    pub(crate) const LATEST: Self = Self::V1_1_0;

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.text() == text)
    }
}

/// The configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NetConf {
    pub(crate) version: Version,
    /// Result of the ADD, for CHECK.
    pub(crate) previous: Option<Previous>,
    /// Attachments that exist, for GC.
    pub(crate) valid: Option<Vec<AttachmentId>>,
    /// Passed on to the result.
    pub(crate) dns: Option<Value>,
    /// Where the router listens.
    pub(crate) router: PathBuf,
    /// Where tombstones go.
    pub(crate) del_dir: PathBuf,
    /// Exists when weft is uninstalled.
    pub(crate) uninstalled: PathBuf,
    /// GC touches only links of this cluster; unset: any of weft's.
    pub(crate) cluster_id: Option<String>,
}

/// What we need of a `prevResult`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Previous {
    pub(crate) interfaces: Vec<PreviousInterface>,
    pub(crate) ips: Vec<PreviousIp>,
    pub(crate) routes: Vec<PreviousRoute>,
}

/// One interface of a `prevResult`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PreviousInterface {
    pub(crate) name: String,
    pub(crate) mac: String,
    pub(crate) mtu: Option<u32>,
    pub(crate) sandbox: String,
}

/// One address of a `prevResult`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct PreviousIp {
    pub(crate) address: IpNet,
    #[serde(default)]
    pub(crate) interface: Option<usize>,
}

/// One route of a `prevResult`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct PreviousRoute {
    pub(crate) dst: IpNet,
    #[serde(default)]
    pub(crate) gw: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "cniVersion", default)]
    version: String,
    #[serde(default)]
    name: String,
    #[serde(rename = "prevResult", default)]
    previous: Option<Previous>,
    #[serde(rename = "cni.dev/valid-attachments", default)]
    valid: Option<Vec<RawAttachment>>,
    /// What libcni before 1.3 writes beside or in place of it.
    #[serde(rename = "cni.dev/attachments", default)]
    valid_old: Option<Vec<RawAttachment>>,
    #[serde(default)]
    dns: Option<Value>,
    #[serde(default)]
    ipam: Option<Value>,
    #[serde(rename = "routerSocket", default)]
    router: Option<PathBuf>,
    #[serde(rename = "delDir", default)]
    del_dir: Option<PathBuf>,
    #[serde(rename = "uninstalledMarker", default)]
    uninstalled: Option<PathBuf>,
    #[serde(rename = "clusterID", default)]
    cluster_id: Option<String>,
}

#[derive(Deserialize)]
struct RawAttachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

impl NetConf {
    /// Reads a configuration.
    pub(crate) fn parse(input: &[u8]) -> Result<Self, Failure> {
        let value: Value = serde_json::from_slice(input).map_err(|e| {
            Failure::new(
                code::DECODING_FAILURE,
                format!("the network configuration on standard input is not JSON: {e}"),
                "",
            )
        })?;
        if !value.is_object() {
            return Err(invalid(
                "the network configuration cannot be used: it is no JSON object".into(),
            ));
        }
        let raw: Raw = serde_json::from_value(value)
            .map_err(|e| invalid(format!("the network configuration cannot be used: {e}")))?;
        let version = Version::parse(&raw.version).ok_or_else(|| unsupported(&raw.version))?;
        let first = raw.name.chars().next();
        if !first.is_some_and(|c| c.is_ascii_alphanumeric()) || !raw.name.chars().all(is_identifier)
        {
            return Err(invalid(format!(
                "network name {:?} must start with a letter or digit and hold only those, '_', '.' \
                 and '-'",
                raw.name
            )));
        }
        if raw
            .ipam
            .is_some_and(|ipam| ipam != Value::Null && ipam != serde_json::json!({}))
        {
            return Err(invalid(format!(
                "network {}: remove \"ipam\": weft gives addresses out of IPPool objects",
                raw.name
            )));
        }
        let attachment = |a: RawAttachment| AttachmentId {
            container_id: a.container_id,
            ifname: a.ifname,
        };
        Ok(Self {
            version,
            previous: raw.previous,
            valid: raw
                .valid
                .or(raw.valid_old)
                .map(|list| list.into_iter().map(attachment).collect()),
            dns: raw.dns,
            router: raw.router.unwrap_or_else(|| ROUTER_SOCKET.into()),
            del_dir: raw.del_dir.unwrap_or_else(|| tombstone::DEL_DIR.into()),
            uninstalled: raw
                .uninstalled
                .unwrap_or_else(|| weft_socket::UNINSTALLED_MARKER.into()),
            cluster_id: raw.cluster_id.filter(|id| !id.is_empty()),
        })
    }
}

/// The version an input asks for, for answers to inputs that cannot be used.
pub(crate) fn version_of(input: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Only {
        #[serde(rename = "cniVersion")]
        version: String,
    }
    serde_json::from_slice::<Only>(input)
        .map_or_else(|_| Version::LATEST.text().to_owned(), |only| only.version)
}

fn unsupported(version: &str) -> Failure {
    let ours: Vec<&str> = Version::ALL.iter().map(|v| v.text()).collect();
    let given = if version.is_empty() {
        "no cniVersion (which means 0.1.0)".to_owned()
    } else {
        format!("cniVersion {version:?}")
    };
    Failure::new(
        code::INCOMPATIBLE_VERSION,
        format!(
            "the configuration has {given}, supported are {}",
            ours.join(", ")
        ),
        "",
    )
}

fn invalid(msg: String) -> Failure {
    Failure::new(code::INVALID_NETWORK_CONFIG, msg, "")
}
