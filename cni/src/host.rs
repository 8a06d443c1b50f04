//! The router, and which links of the host belong to an attachment.

use std::time::Duration;

use serde::de::DeserializeOwned;
use weft_socket::{
    AddReply, AddRequest, AttachmentId, CallError, GcReply, GcRequest, HOST_IFNAME_PREFIX,
    IFALIAS_PREFIX, RouterRequest, RouterStatus, call, tombstone,
};

use crate::{call::Call, conf::NetConf, netlink::Link};

/// Longest waits for the router. The kubelet waits minutes for a sandbox, so these only bound a
/// router that hangs; ADD and Enforce wait for the API and for npc, bounded by the router.
const ADD_TIMEOUT: Duration = Duration::from_secs(30);
const DEL_TIMEOUT: Duration = Duration::from_secs(10);
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// The router of this node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Router<'a>(pub(crate) &'a NetConf);

impl Router<'_> {
    pub(crate) fn add(self, call: &Call) -> Result<AddReply, CallError> {
        let request = AddRequest {
            id: call.id.clone(),
            netns: call.netns.clone(),
            pod: call.pod.clone(),
        };
        self.ask(RouterRequest::Add(request), ADD_TIMEOUT)
    }

    pub(crate) fn enforce(self, id: &AttachmentId) -> Result<AddReply, CallError> {
        self.ask(RouterRequest::Enforce(id.clone()), ADD_TIMEOUT)
    }

    pub(crate) fn check(self, id: &AttachmentId) -> Result<AddReply, CallError> {
        self.ask(RouterRequest::Check(id.clone()), STATUS_TIMEOUT)
    }

    pub(crate) fn gc(self, valid: Vec<AttachmentId>) -> Result<GcReply, CallError> {
        self.ask(RouterRequest::Gc(GcRequest { valid }), ADD_TIMEOUT)
    }

    pub(crate) fn status(self) -> Result<RouterStatus, CallError> {
        self.ask(RouterRequest::Status, STATUS_TIMEOUT)
    }

    /// Takes an attachment back, or leaves a tombstone for a router that cannot be asked now. Either
    /// way it is not lost; an error means: ask again.
    pub(crate) fn del(self, id: &AttachmentId) -> Result<(), crate::error::Failure> {
        let asked: Result<Option<serde_json::Value>, CallError> =
            self.ask(RouterRequest::Del(id.clone()), DEL_TIMEOUT);
        match asked {
            Ok(_) => tombstone::exhume(&self.0.del_dir, id)
                .map_err(|e| crate::error::Failure::io("cannot remove a tombstone", &e)),
            Err(CallError::Refused(refusal)) => Err(CallError::Refused(refusal).into()),
            Err(e @ (CallError::Io { .. } | CallError::Decode { .. })) => {
                tombstone::bury(&self.0.del_dir, id).map_err(|buried| {
                    let mut failure = crate::error::Failure::from(e);
                    failure.details = format!(
                        "and cannot leave a note in {}: {buried}; {}",
                        self.0.del_dir.display(),
                        failure.details
                    );
                    failure
                })
            }
        }
    }

    fn ask<A: DeserializeOwned>(
        self,
        request: RouterRequest,
        timeout: Duration,
    ) -> Result<A, CallError> {
        call(&self.0.router, &request, timeout)
    }
}

/// Whose link it is: what an `ifalias` of ours says, `weft/<cluster id>/<container id>` for `eth0`
/// and `weft/<cluster id>/<container id>/<interface>` for any other interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) container: &'a str,
    pub(crate) ifname: &'a str,
}

impl<'a> Mark<'a> {
    /// Reads the mark of a pod's host end; `None` if the link is not one of ours.
    pub(crate) fn of(link: &'a Link) -> Option<Self> {
        if !link.name.starts_with(HOST_IFNAME_PREFIX) {
            return None;
        }
        let mut parts = link.alias.strip_prefix(IFALIAS_PREFIX)?.split('/');
        let mark = Self {
            cluster: parts.next()?,
            container: parts.next().filter(|c| !c.is_empty())?,
            ifname: parts.next().unwrap_or("eth0"),
        };
        parts.next().is_none().then_some(mark)
    }

    /// Whether it is the link of an attachment.
    pub(crate) fn is_of(self, id: &AttachmentId) -> bool {
        self.container == id.container_id && self.ifname == id.ifname
    }
}
