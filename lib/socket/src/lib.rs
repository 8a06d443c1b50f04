//! The two unix sockets of a node: `/run/weft/router.sock` (asked by the CNI plugin and npc) and
//! `/run/weft/npc.sock` (asked by the router, and by people through `weft-npc query`).
//!
//! One connection carries one request and one reply, each a line of JSON. The crate holds the
//! messages and a blocking client for the plugin, which starts for every pod and has no runtime.
//! It must not know tokio, Kubernetes or any weft crate: servers bring their own loop and call
//! [`decode`] and [`encode`].
//!
//! ```text
//! weft-cni --Add, Enforce, Del, Check, Gc, Status--> router --Pod, PodGone, Blocks, Status--> npc
//!                                                    router <----------- Endpoints ----------- npc
//! ```

mod client;
mod message;
pub mod tombstone;

pub use client::{CallError, call};
pub use message::{
    AddReply, AddRequest, AttachmentId, Endpoint, Endpoints, ErrorReply, GcReply, GcRequest,
    Judged, KernelJudged, NpcRequest, NpcStatus, PodRef, Query, QueryEnd, QueryReply, Reply,
    RouterRequest, RouterStatus, code,
};

use serde::{Serialize, de::DeserializeOwned};

/// Where the router listens.
pub const ROUTER_SOCKET: &str = "/run/weft/router.sock";
/// Where npc listens.
pub const NPC_SOCKET: &str = "/run/weft/npc.sock";
/// Exists after an uninstall while sandboxes of ours remain; one line: the directory of the conflist.
/// While it is there, ADD is refused, and the DEL that takes our last link also removes the
/// conflist ([`CONFLIST`]), the plugin and the directory the marker is in.
pub const UNINSTALLED_MARKER: &str = "/var/lib/weft/uninstalled";
/// File name of npc's last state, in the state directory.
pub const NPC_SNAPSHOT: &str = "npc.snapshot";
/// File name of the CNI configuration, in the conf directory.
pub const CONFLIST: &str = "10-weft.conflist";
/// Host ends of pods have names that start so (Weave Net's).
pub const HOST_IFNAME_PREFIX: &str = "vethwepl";
/// `ifalias` of every link of ours starts so.
pub const IFALIAS_PREFIX: &str = "weft/";
/// Longest line either side accepts, in bytes (a GC request lists every attachment of a node).
pub const MAX_LINE: usize = 1 << 20;

/// One line of JSON, with the line feed.
///
/// # Errors
/// Only if the type cannot be serialised (a map with non-string keys, say).
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a message from one line of JSON.
///
/// # Errors
/// The line is not JSON or not of this type.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(line)
}
