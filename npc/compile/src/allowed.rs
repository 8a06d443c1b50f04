//! Copies of what is allowed, for namespaces that ask for them. Nothing of it exists where none does.

use weft_netfilter::{ChainName, CtState, Match, Rule, Verdict};
use weft_policy::{Direction, SubjectKey};

use crate::NodeView;
use crate::name::fixed_chain;
use crate::table::Builder;

/// Of each direction: allowed connections are many, and they must stay fast.
const LOGGED: Match = Match::Limit {
    per_second: 100,
    burst: 100,
};

/// Are connections of this pod that are allowed to be logged?
pub(crate) fn is_logged(node: &NodeView, key: &SubjectKey) -> bool {
    node.log_group.is_some() && node.log_allowed.contains(&key.pod.namespace)
}

/// The chain of the direction; made when it is asked for.
pub(crate) fn log_chain(builder: &mut Builder<'_>, direction: Direction) -> ChainName {
    let name = fixed_chain(match direction {
        Direction::Ingress => "WEFT-NPC-LOG-I",
        Direction::Egress => "WEFT-NPC-LOG-E",
    });
    let rule = builder.node.log_group.map(|group| {
        let nflog = Verdict::Nflog {
            group,
            prefix: format!("weft-allow-{direction}"),
        };
        Rule::new([Match::ct([CtState::New]), LOGGED], nflog)
    });
    builder.chain(&name, rule.into_iter().collect());
    name
}
