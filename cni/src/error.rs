//! Errors as the protocol carries them.

use std::fmt;

use serde_json::{Value, json};
use weft_socket::{CallError, code};

use crate::{conf::Version, netlink};

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// CNI error code.
    pub(crate) code: u32,
    /// What was tried, on which object.
    pub(crate) msg: String,
    /// What to do next.
    pub(crate) details: String,
}

impl Failure {
    pub(crate) fn new(code: u32, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: details.into(),
        }
    }

    /// An operating system call failed.
    pub(crate) fn io(what: &str, cause: &dyn fmt::Display) -> Self {
        Self::new(code::IO_FAILURE, format!("{what}: {cause}"), "")
    }

    /// The error result in the version of the configuration; unknown versions get the latest.
    pub(crate) fn to_json(&self, version: &str) -> Value {
        let version = Version::parse(version).unwrap_or(Version::LATEST);
        json!({
            "cniVersion": version.text(),
            "code": self.code,
            "msg": self.msg,
            "details": self.details,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}

impl From<netlink::Error> for Failure {
    fn from(error: netlink::Error) -> Self {
        Self::new(code::IO_FAILURE, error.to_string(), "")
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(reply) => Self::new(reply.code, reply.msg, reply.details),
            CallError::Io { .. } | CallError::Decode { .. } => Self::new(
                code::TRY_AGAIN_LATER,
                error.to_string(),
                "is the pod weft-node of this node running? kubectl -n kube-system get pods -l \
                 app.kubernetes.io/name=weft-node -o wide",
            ),
        }
    }
}
