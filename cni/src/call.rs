//! The call: what the runtime says in environment variables.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use weft_socket::{AttachmentId, PodRef, code};

use crate::error::Failure;

/// What is asked (`CNI_COMMAND`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// A call with its parameters, checked. Those that the verb does not need may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: AttachmentId,
    /// `CNI_NETNS`; may be empty for DEL.
    pub(crate) netns: String,
    /// From `CNI_ARGS`; empty when the runtime is no kubelet.
    pub(crate) pod: PodRef,
}

/// Reads the verb.
pub(crate) fn verb(environment: &BTreeMap<String, String>) -> Result<Verb, Failure> {
    match environment.get("CNI_COMMAND").map(String::as_str) {
        Some("ADD") => Ok(Verb::Add),
        Some("DEL") => Ok(Verb::Del),
        Some("CHECK") => Ok(Verb::Check),
        Some("GC") => Ok(Verb::Gc),
        Some("STATUS") => Ok(Verb::Status),
        Some("VERSION") => Ok(Verb::Version),
        Some(other) if !other.is_empty() => Err(invalid(format!("unknown CNI_COMMAND {other:?}"))),
        _ => Err(missing(&["CNI_COMMAND"])),
    }
}

impl Call {
    /// Reads the parameters the verb needs. Every missing variable is named.
    pub(crate) fn parse(
        verb: Verb,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Failure> {
        let needed: &[&str] = match verb {
            Verb::Add | Verb::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Verb::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Verb::Gc | Verb::Status | Verb::Version => &[],
        };
        let value = |name: &str| environment.get(name).cloned().unwrap_or_default();
        let absent: Vec<&str> = needed
            .iter()
            .copied()
            .filter(|name| value(name).is_empty())
            .collect();
        if !absent.is_empty() {
            return Err(missing(&absent));
        }
        let call = Self {
            id: AttachmentId {
                container_id: value("CNI_CONTAINERID"),
                ifname: value("CNI_IFNAME"),
            },
            netns: value("CNI_NETNS"),
            pod: pod(&value("CNI_ARGS"))?,
        };
        if !needed.is_empty() {
            check_container_id(&call.id.container_id)?;
            check_ifname(&call.id.ifname)?;
        }
        Ok(call)
    }
}

fn check_container_id(id: &str) -> Result<(), Failure> {
    let first = id.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && id.len() <= 200 && id.chars().all(is_identifier) {
        Ok(())
    } else {
        Err(invalid(format!(
            "CNI_CONTAINERID {id:?} must start with a letter or digit and hold only those, '_', '.' \
             and '-'"
        )))
    }
}

fn check_ifname(name: &str) -> Result<(), Failure> {
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
    if name.len() <= 15 && name != "." && name != ".." && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(invalid(format!(
            "CNI_IFNAME {name:?} is no interface name: at most 15 bytes, no '/', ':' or space"
        )))
    }
}

/// What identifiers of the CNI specification may hold.
pub(crate) fn is_identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// `KEY=VALUE;KEY=VALUE`; keys we do not know are left out.
fn pod(arguments: &str) -> Result<PodRef, Failure> {
    let mut pod = PodRef::default();
    for pair in arguments.split(';').filter(|p| !p.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(invalid(format!("CNI_ARGS: {pair:?} is not KEY=VALUE")));
        };
        match key {
            "K8S_POD_NAMESPACE" => value.clone_into(&mut pod.namespace),
            "K8S_POD_NAME" => value.clone_into(&mut pod.name),
            "K8S_POD_UID" => value.clone_into(&mut pod.uid),
            _ => {}
        }
    }
    Ok(pod)
}

fn missing(names: &[&str]) -> Failure {
    Failure::new(
        code::INVALID_ENVIRONMENT,
        format!(
            "required environment variables missing: {}",
            names.join(", ")
        ),
        "the container runtime sets them; see weft-cni --help",
    )
}

fn invalid(msg: String) -> Failure {
    Failure::new(code::INVALID_ENVIRONMENT, msg, "")
}
