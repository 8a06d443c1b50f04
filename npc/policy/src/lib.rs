//! What NetworkPolicy means: an [`Index`] of the objects it speaks of, the [`PolicyModel`] of one
//! node, and [`evaluate`], the definition of allowed and denied that every ruleset is compared
//! with.
//!
//! ```text
//! Pod, Namespace, NetworkPolicy, local endpoints -> Index -> model() -> evaluate(model, packet)
//! ```
//!
//! Everything here is a total function of its arguments: a malformed object becomes a [`Problem`]
//! on that object, never an error of the loop. The crate must not know how packets are filtered
//! (chains, sets, marks), nor any client, clock, environment or process.
//!
//! Laws: the same objects in any order of arrival, also repeated or relisted, give equal models
//! (I1), but for what outlives the API: a pod until it is detached, the policies of a namespace that
//! is being deleted until its pods are gone. What a policy says and cannot be understood never allows anything.

mod block;
mod cache;
#[cfg(feature = "cases")]
pub mod cases;
mod endpoints;
mod evaluate;
mod index;
mod key;
mod limit;
mod model;
mod namespace;
mod objects;
mod packet;
mod parse;
mod pod;
mod port;
mod problem;
mod selector;
mod store;
#[cfg(feature = "stored")]
mod stored;
mod template;

pub use block::IpBlock;
pub use endpoints::Endpoint;
pub use evaluate::{Judgement, Verdict, evaluate};
pub use index::Index;
pub use key::{EndpointId, ObjectKey, Uid};
pub use limit::{MAX_ADDRESSES, MAX_TERMS};
pub use model::{
    Direction, Named, Peers, Policy, PolicyModel, PortMatch, Ports, Rule, Standing, Subject,
    SubjectKey,
};
pub use namespace::{Namespace, Version};
pub use packet::{Packet, Path, Payload, State};
pub use pod::{ContainerPort, Pod, SlimPod};
pub use port::{PortRange, Protocol};
pub use problem::Problem;
pub use selector::{Labels, Namespaces, Operator, PeerSelector, Requirement, Selector};
