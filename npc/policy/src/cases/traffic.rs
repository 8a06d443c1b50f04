//! State of flows (53 to 59), nodes, Services and the pod itself (60 to 65), both families (75).

use super::{
    Case,
    Step::{DeletePolicy, Packets, Policy},
};

const DENY_ALL: &str = "{podSelector: {}, policyTypes: [Ingress, Egress]}";

pub(super) const CASES: &[Case] = &[
    Case {
        number: 53,
        clause: "replies pass without a rule",
        steps: &[
            Policy("x/p", DENY_ALL),
            Packets(
                "x/a -> outside tcp/40000 established allow
                 outside -> x/a tcp/40000 established allow
                 x/a -> outside tcp/40000 deny",
            ),
        ],
    },
    Case {
        number: 54,
        clause: "a UDP answer passes while conntrack knows the question, and not after",
        steps: &[
            Policy("x/p", DENY_ALL),
            Packets(
                "outside -> x/a udp/40000 from/53 established allow
                 outside -> x/a udp/40000 from/53 deny",
            ),
        ],
    },
    Case {
        number: 55,
        clause: "after a stricter policy new flows are denied at once",
        steps: &[
            Packets("y/a -> x/a tcp/80 allow"),
            Policy("x/p", DENY_ALL),
            Packets("y/a -> x/a tcp/80 deny"),
        ],
    },
    Case {
        number: 56,
        clause: "after a looser policy new flows pass at once",
        steps: &[
            Policy("x/p", DENY_ALL),
            Packets("y/a -> x/a tcp/80 deny"),
            Policy("x/p", "{podSelector: {}, ingress: [{}]}"),
            Packets("y/a -> x/a tcp/80 allow"),
            DeletePolicy("x/p"),
            Packets("y/a -> x/a tcp/80 allow"),
        ],
    },
    Case {
        number: 59,
        clause: "a packet of no flow is denied to and from an isolated pod, not to others",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{}]}",
            ),
            Policy(
                "y/p",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{}]}",
            ),
            Packets(
                "z/a -> x/a tcp/80 invalid deny
                 x/a -> z/a tcp/80 invalid allow
                 y/a -> z/a tcp/80 invalid deny
                 z/a -> y/a tcp/80 invalid allow
                 z/a -> x/b tcp/80 invalid allow",
            ),
        ],
    },
    Case {
        number: 60,
        clause: "the node reaches its own pods; the host of another node is judged as an address",
        steps: &[
            Policy("x/p", DENY_ALL),
            Packets(
                "node -> x/a tcp/80 allow
                 node -> x/a icmp allow
                 node2 -> x/a tcp/80 deny",
            ),
            Policy(
                "x/q",
                "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.32.0.65/32}}]}]}",
            ),
            Packets("node2 -> x/a tcp/80 allow"),
        ],
    },
    Case {
        number: 61,
        clause: "a pod's own node is an address like others for its egress",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}",
            ),
            Policy(
                "y/p",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.32.0.1/32}}]}]}",
            ),
            Packets(
                "x/a -> node tcp/10250 deny
                 x/b -> node tcp/10250 allow
                 y/a -> node tcp/10250 allow
                 y/a -> node tcp/10250 v6 deny
                 x/a -> x/b tcp/80 allow",
            ),
        ],
    },
    Case {
        number: 62,
        clause: "a pod reaches itself, by address and through its Service",
        steps: &[
            Policy("x/p", DENY_ALL),
            Packets(
                "x/a -> x/a tcp/80 allow
                 x/a -> x/a udp/80 allow
                 x/a -> x/b tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 63,
        clause: "ipBlock judges the address seen: the client's if kept, else the forwarding node's",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}",
            ),
            Packets(
                "outside -> x/a tcp/80 allow
                 node2 -> x/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 64,
        clause: "port-forward, exec and logs keep working: they come from the pod's node",
        steps: &[
            Policy("x/p", DENY_ALL),
            Packets(
                "node -> x/a tcp/9376 allow
                 node2 -> x/a tcp/9376 deny",
            ),
        ],
    },
    Case {
        number: 65,
        clause: "DNS is not special: denied egress denies it",
        steps: &[
            Policy("x/p", "{podSelector: {}, policyTypes: [Egress]}"),
            Packets(
                "x/a -> y/c udp/53 deny
                 x/a -> y/c tcp/53 deny",
            ),
            Policy(
                "x/dns",
                "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}], ports: [{port: 53, protocol: UDP}]}]}",
            ),
            Packets(
                "x/a -> y/c udp/53 allow
                 x/a -> y/c tcp/53 deny",
            ),
        ],
    },
    Case {
        number: 75,
        clause: "both addresses of a pod are judged alike",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: serve-80-tcp}]}]}",
            ),
            Packets(
                "x/b -> x/a tcp/80 allow
                 x/b -> x/a tcp/80 v6 allow
                 x/c -> x/a tcp/80 deny
                 x/c -> x/a tcp/80 v6 deny
                 x/b -> x/a tcp/81 v6 deny",
            ),
        ],
    },
];
