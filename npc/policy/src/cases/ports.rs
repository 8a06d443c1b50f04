//! Ports and protocols (38 to 52).

use super::{
    Case,
    Step::{Packets, Pod, Policy},
};

pub(super) const CASES: &[Case] = &[
    Case {
        number: 38,
        clause: "a port without protocol is TCP",
        steps: &[
            Policy("x/p", "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}"),
            Packets(
                "y/a -> x/a tcp/80 allow
                 y/a -> x/a udp/80 deny
                 y/a -> x/a sctp/80 deny",
            ),
        ],
    },
    Case {
        number: 39,
        clause: "a protocol without port is all its ports",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}",
            ),
            Policy("y/p", "{podSelector: {}, ingress: [{ports: [{}]}]}"),
            Packets(
                "y/a -> x/a udp/1 allow
                 y/a -> x/a udp/65535 allow
                 y/a -> x/a tcp/80 deny
                 x/a -> y/a tcp/65535 allow
                 x/a -> y/a udp/80 deny",
            ),
        ],
    },
    Case {
        number: 40,
        clause: "protocols do not open each other; a policy for SCTP alone still isolates",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{ports: [{protocol: SCTP, port: 80}]}]}",
            ),
            Packets(
                "y/a -> x/a sctp/80 allow
                 y/a -> x/a sctp/81 deny
                 y/a -> x/a tcp/80 deny
                 y/a -> x/a udp/80 deny
                 y/a -> x/a icmp deny",
            ),
        ],
    },
    Case {
        number: 41,
        clause: "the port is the container's, after DNAT",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{ports: [{port: 8080}]}]}",
            ),
            // A Service on port 80 with target port 8080 arrives as 8080.
            Packets(
                "y/a -> x/a tcp/8080 allow
                 y/a -> x/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 42,
        clause: "endPort is included; it may equal port; a range may reach 65535; per protocol",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80, endPort: 82}, {protocol: UDP, port: 65000, endPort: 65535}]}]}",
            ),
            Policy(
                "x/q",
                "{podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{port: 80, endPort: 80}]}]}",
            ),
            Packets(
                "y/a -> x/a tcp/79 deny
                 y/a -> x/a tcp/80 allow
                 y/a -> x/a tcp/82 allow
                 y/a -> x/a tcp/83 deny
                 y/a -> x/a udp/81 deny
                 y/a -> x/a udp/65535 allow
                 y/a -> x/a udp/64999 deny
                 y/a -> x/b tcp/80 allow
                 y/a -> x/b tcp/81 deny",
            ),
        ],
    },
    Case {
        number: 0,
        clause: "of many peers and many ports each pair counts, and so does the rule after them",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}, {namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: a}}}, {namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: c}}}, {namespaceSelector: {matchLabels: {ns: z}}, podSelector: {matchLabels: {pod: c}}}, {ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: 1}, {port: 2}, {port: 3, protocol: UDP}, {port: 4, endPort: 5}, {port: serve-80-tcp}]}, {from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 6}]}]}",
            ),
            Packets(
                "x/b -> x/a tcp/1 allow
                 x/b -> x/a udp/3 allow
                 y/a -> x/a tcp/2 allow
                 y/a -> x/a tcp/80 allow
                 y/c -> x/a tcp/5 allow
                 z/c -> x/a tcp/1 allow
                 z/c -> x/a tcp/80 allow
                 outside -> x/a tcp/4 allow
                 outside -> x/a tcp/80 allow
                 x/b -> x/a tcp/3 deny
                 z/c -> x/a udp/4 deny
                 outside -> x/a tcp/6 deny
                 x/b -> x/a tcp/6 allow
                 z/b -> x/a tcp/1 deny",
            ),
        ],
    },
    Case {
        number: 43,
        clause: "a named port is the destination pod's own, by name and protocol",
        steps: &[
            Pod(
                "x/a",
                "{ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}",
            ),
            Pod("x/b", "{ports: [{name: http, containerPort: 9090}]}"),
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{ports: [{port: http}, {port: dns}, {port: nobody}]}]}",
            ),
            Packets(
                "y/a -> x/a tcp/8080 allow
                 y/a -> x/a tcp/9090 deny
                 y/a -> x/b tcp/9090 allow
                 y/a -> x/b tcp/8080 deny
                 y/a -> x/a udp/53 deny
                 y/a -> x/a tcp/53 deny
                 y/a -> x/a udp/8080 deny",
            ),
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{ports: [{port: dns, protocol: UDP}]}]}",
            ),
            Packets(
                "y/a -> x/a udp/53 allow
                 y/a -> x/b udp/53 deny
                 y/a -> x/a tcp/8080 deny",
            ),
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{ports: [{port: nobody}]}]}",
            ),
            Packets(
                "y/a -> x/a tcp/8080 deny
                 y/a -> x/b tcp/9090 deny",
            ),
        ],
    },
    Case {
        number: 44,
        clause: "named ports: ingress by the subject's containers, egress by each peer's",
        steps: &[
            Pod("y/a", "{ports: [{name: http, containerPort: 1001}]}"),
            Pod("y/c", "{ports: [{name: http, containerPort: 1002}]}"),
            Pod("z/b", "{ports: [{name: http, containerPort: 1003}]}"),
            Pod("x/a", "{ports: [{name: http, containerPort: 1004}]}"),
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}], ports: [{port: http}]}]}",
            ),
            Policy(
                "x/q",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}], ports: [{port: http}]}]}",
            ),
            Packets(
                "y/c -> x/a tcp/1004 allow
                 y/c -> x/a tcp/1002 deny
                 z/b -> x/a tcp/1004 deny
                 x/a -> y/a tcp/1001 allow
                 x/a -> y/a tcp/1002 deny
                 x/a -> y/c tcp/1002 allow
                 x/a -> z/b tcp/1003 deny",
            ),
            Policy(
                "x/q",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}",
            ),
            Packets(
                "x/a -> y/c tcp/1002 allow
                 x/a -> z/b tcp/1003 allow
                 x/a -> z/b tcp/1002 deny
                 x/a -> outside tcp/1003 deny",
            ),
        ],
    },
    Case {
        number: 45,
        clause: "a named port never matches an ipBlock; a name used twice matches each pair",
        steps: &[
            Pod(
                "y/c",
                "{ports: [{name: http, containerPort: 1}, {name: http, containerPort: 2}, {name: http, containerPort: 3, protocol: UDP}]}",
            ),
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: http}]}]}",
            ),
            Policy(
                "x/q",
                "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}, namespaceSelector: {}}], ports: [{port: http}, {port: http, protocol: UDP}]}]}",
            ),
            Packets(
                "x/a -> y/c tcp/1 deny
                 x/a -> outside tcp/1 deny
                 x/b -> y/c tcp/1 allow
                 x/b -> y/c tcp/2 allow
                 x/b -> y/c udp/3 allow
                 x/b -> y/c tcp/3 deny",
            ),
        ],
    },
    Case {
        number: 45,
        clause: "an ingress named port is the subject's, whoever the peer: an ipBlock may reach it",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: serve-80-tcp}]}]}",
            ),
            Packets(
                "outside -> x/a tcp/80 allow
                 outside -> x/a tcp/81 deny
                 y/a -> x/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 46,
        clause: "named ports of restartable init containers count, of others not; \"80\" is a name",
        steps: &[
            Pod(
                "x/a",
                "{ports: [{containerPort: 80}], sidecarPorts: [{name: mesh, containerPort: 15000}], initPorts: [{name: setup, containerPort: 7000}]}",
            ),
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{ports: [{port: mesh}, {port: setup}, {port: '80'}]}]}",
            ),
            Packets(
                "y/a -> x/a tcp/15000 allow
                 y/a -> x/a tcp/7000 deny
                 y/a -> x/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 47,
        clause: "a numeric rule works for ports that no container declares",
        steps: &[
            Pod("x/a", "{ports: []}"),
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{ports: [{port: 12345}]}]}",
            ),
            Packets(
                "y/a -> x/a tcp/12345 allow
                 y/a -> x/a tcp/12346 deny",
            ),
        ],
    },
    Case {
        number: 48,
        clause: "the source port is never examined",
        steps: &[
            Policy("x/p", "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}"),
            Packets(
                "y/a -> x/a tcp/80 from/79 allow
                 y/a -> x/a tcp/80 from/65535 allow
                 y/a -> x/a tcp/81 from/80 deny
                 y/a -> x/a udp/81 from/80 deny",
            ),
        ],
    },
    Case {
        number: 49,
        clause: "a rule without ports admits ICMP between its peers, one with ports does not",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}, {from: [{namespaceSelector: {matchLabels: {ns: z}}}], ports: [{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]}]}",
            ),
            Packets(
                "y/a -> x/a icmp allow
                 z/a -> x/a icmp deny
                 z/a -> x/a udp/7 allow
                 x/a -> z/a icmp/0 established allow",
            ),
        ],
    },
    Case {
        number: 50,
        clause: "RELATED errors and neighbour discovery always pass",
        steps: &[
            Policy("x/p", "{podSelector: {}, policyTypes: [Ingress, Egress]}"),
            Packets(
                "outside -> x/a icmp/3 related allow
                 x/a -> outside icmp/3 related allow
                 outside -> x/a icmp/2 v6 related allow
                 outside -> x/a icmp/3 deny
                 y/a -> x/a icmp/135 v6 allow
                 x/a -> y/a icmp/136 v6 allow
                 x/a -> node icmp/133 v6 allow
                 x/a -> ff02::16 icmp/143 v6 allow
                 y/a -> x/a icmp/138 v6 deny
                 y/a -> x/a icmp/135 deny",
            ),
        ],
    },
    Case {
        number: 51,
        clause: "other IP protocols reach an isolated pod only by a rule without ports",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}, {from: [{namespaceSelector: {matchLabels: {ns: z}}}], ports: [{port: 1, endPort: 65535}]}]}",
            ),
            Packets(
                "y/a -> x/a proto/253 allow
                 z/a -> x/a proto/253 deny
                 z/a -> x/a tcp/7 allow",
            ),
        ],
    },
    Case {
        number: 52,
        clause: "group frames are judged like others: egress by source, ingress by each receiver",
        steps: &[
            Packets(
                "x/a -> 224.0.0.251@y/a udp/5353 allow
                 x/a -> 10.47.255.255@y/a udp/9 allow
                 x/a -> 255.255.255.255@y/a udp/67 allow",
            ),
            Policy(
                "x/out",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 239.0.0.0/8}}]}]}",
            ),
            Policy(
                "y/in",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}], ports: [{protocol: UDP, port: 9}]}]}",
            ),
            Packets(
                "x/a -> 224.0.0.251@y/b udp/5353 deny
                 x/a -> 224.0.0.251 udp/5353 deny
                 x/a -> 239.1.1.1@y/b udp/5 allow
                 x/a -> 239.1.1.1 udp/5 allow
                 x/a -> node udp/5 deny
                 x/b -> node udp/5 allow
                 x/b -> 224.0.0.251@y/a udp/5353 deny
                 x/b -> 224.0.0.251@y/a udp/9 allow
                 x/b -> 224.0.0.251@y/b udp/5353 allow
                 z/b -> 10.47.255.255@y/a udp/9 deny
                 z/b -> ff02::fb@y/a udp/5353 v6 deny
                 z/b -> ff02::fb@y/b udp/5353 v6 allow",
            ),
        ],
    },
];
