//! Peers: pods, namespaces (16 to 28) and address blocks (30 to 37).

use super::{
    Case,
    Step::{Attach, DeletePod, Namespace, Packets, Pod, Policy},
};

pub(super) const CASES: &[Case] = &[
    Case {
        number: 16,
        clause: "podSelector alone means the policy's namespace only",
        steps: &[
            Policy("x/p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}"),
            Packets(
                "x/b -> x/a tcp/80 allow
                 y/b -> x/a tcp/80 deny
                 z/b -> x/a tcp/80 deny
                 x/c -> x/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 17,
        clause: "namespaceSelector alone means all pods there; {} means all namespaces, own included",
        steps: &[
            Policy("x/p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}"),
            Policy("x/q", "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{namespaceSelector: {}}]}]}"),
            Packets(
                "y/a -> x/a tcp/80 allow
                 y/c -> x/a tcp/80 allow
                 x/c -> x/a tcp/80 deny
                 x/a -> x/b tcp/80 allow
                 z/c -> x/b tcp/80 allow
                 outside -> x/b tcp/80 deny
                 node2 -> x/b tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 18,
        clause: "both selectors in one element must hold; two elements are alternatives",
        steps: &[
            Policy("x/and", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: b}}}]}]}"),
            Policy("x/or", "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}, {podSelector: {matchLabels: {pod: c}}}]}]}"),
            Packets(
                "y/b -> x/a tcp/80 allow
                 y/a -> x/a tcp/80 deny
                 x/b -> x/a tcp/80 deny
                 z/b -> x/a tcp/80 deny
                 y/a -> x/b tcp/80 allow
                 x/c -> x/b tcp/80 allow
                 x/a -> x/b tcp/80 deny
                 z/c -> x/b tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 19,
        clause: "In, NotIn, Exists, DoesNotExist; NotIn and DoesNotExist hold where the key is missing",
        steps: &[
            Pod("y/a", "{labels: {role: web}}"),
            Pod("y/b", "{labels: {role: db}}"),
            Pod("y/c", "{labels: {other: x}}"),
            Policy("x/in", "{podSelector: {matchLabels: {pod: a}}, ingress: [
                {ports: [{port: 1}], from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchExpressions: [{key: role, operator: In, values: [web, cache]}]}}]},
                {ports: [{port: 2}], from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchExpressions: [{key: role, operator: NotIn, values: [web, cache]}]}}]},
                {ports: [{port: 3}], from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchExpressions: [{key: role, operator: Exists}]}}]},
                {ports: [{port: 4}], from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchExpressions: [{key: role, operator: DoesNotExist}]}}]}]}"),
            Packets(
                "y/a -> x/a tcp/1 allow
                 y/b -> x/a tcp/1 deny
                 y/c -> x/a tcp/1 deny
                 y/a -> x/a tcp/2 deny
                 y/b -> x/a tcp/2 allow
                 y/c -> x/a tcp/2 allow
                 y/a -> x/a tcp/3 allow
                 y/b -> x/a tcp/3 allow
                 y/c -> x/a tcp/3 deny
                 y/a -> x/a tcp/4 deny
                 y/b -> x/a tcp/4 deny
                 y/c -> x/a tcp/4 allow",
            ),
        ],
    },
    Case {
        number: 20,
        clause: "matchLabels and matchExpressions must both hold",
        steps: &[
            Pod("x/b", "{labels: {pod: b, tier: front}}"),
            Pod("x/c", "{labels: {pod: b, tier: back}}"),
            Policy("x/p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}, matchExpressions: [{key: tier, operator: NotIn, values: [back]}]}}]}]}"),
            Packets(
                "x/b -> x/a tcp/80 allow
                 x/c -> x/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 21,
        clause: "kubernetes.io/metadata.name selects a namespace by name",
        steps: &[
            Policy("x/p", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}]}]}"),
            Packets(
                "z/a -> x/a tcp/80 allow
                 y/a -> x/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 22,
        clause: "a relabelled pod moves in and out of subjects and peers at once",
        steps: &[
            Policy("x/p", "{podSelector: {matchLabels: {role: db}}, ingress: [{from: [{podSelector: {matchLabels: {role: web}}}]}]}"),
            Packets(
                "x/b -> x/a tcp/80 allow
                 y/a -> x/a tcp/80 allow",
            ),
            Pod("x/a", "{labels: {role: db}}"),
            Packets("x/b -> x/a tcp/80 deny"),
            Pod("x/b", "{labels: {role: web}}"),
            Packets(
                "x/b -> x/a tcp/80 allow
                 y/a -> x/a tcp/80 deny",
            ),
            Pod("x/b", "{labels: {role: db}}"),
            Packets(
                "x/b -> x/a tcp/80 deny
                 y/a -> x/b tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 23,
        clause: "a relabelled namespace moves peers, by namespace alone and with a pod selector",
        steps: &[
            Policy("x/p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]}"),
            Policy("x/q", "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {pod: a}}}]}]}"),
            Packets(
                "y/a -> x/a tcp/80 deny
                 y/a -> x/b tcp/80 deny",
            ),
            Namespace("y", "{team: red}"),
            Packets(
                "y/a -> x/a tcp/80 allow
                 y/b -> x/a tcp/80 allow
                 y/a -> x/b tcp/80 allow
                 y/b -> x/b tcp/80 deny",
            ),
            Namespace("y", "{}"),
            Packets(
                "y/a -> x/a tcp/80 deny
                 y/a -> x/b tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 24,
        clause: "pods and namespaces created later match; a selector of nothing is nobody, never any",
        steps: &[
            Policy("x/p", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: w}}}]}]}"),
            Packets(
                "y/a -> x/a tcp/80 deny
                 outside -> x/a tcp/80 deny
                 10.32.0.80 -> x/a tcp/80 deny",
            ),
            Pod("w/a", "{node: n2, address: 10.32.0.80}"),
            Packets("10.32.0.80 -> x/a tcp/80 deny"),
            Namespace("w", "{ns: w}"),
            Packets(
                "10.32.0.80 -> x/a tcp/80 allow
                 y/a -> x/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 25,
        clause: "a rule whose peers resolve to nothing denies; another rule still counts",
        steps: &[
            Policy("x/p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: none}}}]}, {from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 80}]}], egress: [{to: [{podSelector: {matchLabels: {pod: none}}}]}], policyTypes: [Ingress, Egress]}"),
            Packets(
                "y/a -> x/a tcp/80 deny
                 x/c -> x/a tcp/80 deny
                 x/b -> x/a tcp/80 allow
                 x/b -> x/a tcp/81 deny
                 x/a -> y/a tcp/80 deny
                 x/a -> outside tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 26,
        clause: "a host-network pod is neither peer nor subject",
        steps: &[
            Pod("y/host", "{node: n2, address: 172.30.0.12, hostNetwork: true}"),
            Pod("y/here", "{node: n1, address: 10.32.0.1, hostNetwork: true}"),
            Policy("x/p", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}], egress: [{to: [{namespaceSelector: {}}]}], policyTypes: [Ingress, Egress]}"),
            Policy("y/p", "{podSelector: {matchLabels: {pod: here}}, policyTypes: [Ingress, Egress]}"),
            Packets(
                "172.30.0.12 -> x/a tcp/80 deny
                 x/a -> 172.30.0.12 tcp/80 deny
                 x/a -> node tcp/80 deny
                 y/a -> node tcp/80 allow
                 node -> y/a tcp/80 allow
                 y/c -> x/a tcp/80 allow
                 x/a -> y/c tcp/80 allow",
            ),
        ],
    },
    Case {
        number: 27,
        clause: "a pod without address or finished is no peer; it becomes one with its address",
        steps: &[
            Policy("x/p", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}"),
            Packets("y/c -> x/a tcp/80 allow"),
            Pod("y/c", "{phase: Succeeded}"),
            Packets("y/c -> x/a tcp/80 deny"),
            Pod("y/c", "{phase: Failed}"),
            Packets("y/c -> x/a tcp/80 deny"),
            Pod("y/d", "{node: n2, address: ''}"),
            Packets("10.32.0.99 -> x/a tcp/80 deny"),
            Pod("y/d", "{node: n2, address: 10.32.0.99}"),
            Packets("10.32.0.99 -> x/a tcp/80 allow"),
            // A finished pod of this node, its sandbox still there.
            Pod("y/b", "{phase: Succeeded}"),
            Policy(
                "z/p",
                "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: serve-80-tcp}]}]}",
            ),
            Packets(
                "y/a -> x/a tcp/80 allow
                 y/b -> x/a tcp/80 deny
                 z/a -> y/a tcp/80 allow
                 z/a -> y/b tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 27,
        clause: "a local pod's address comes from CNI, before and against the Pod's status",
        steps: &[
            Policy("x/p", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}"),
            Pod("y/d", "{uid: u-d, address: ''}"),
            Attach("y/d", "u-d", "10.32.0.20"),
            Packets("y/d -> x/a tcp/80 allow"),
            Pod("y/d", "{uid: u-d, address: 10.32.0.21}"),
            Packets(
                "10.32.0.20 -> x/a tcp/80 allow
                 10.32.0.71 -> x/a tcp/80 deny",
            ),
            Pod("y/e", "{address: 203.0.113.9}"),
            Packets("203.0.113.9 -> x/a tcp/80 deny"),
            DeletePod("y/e"),
        ],
    },
    Case {
        number: 30,
        clause: "a CIDR matches by address, also a pod's",
        steps: &[
            Policy("x/p", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.32.0.68/32}}]}], egress: [{to: [{ipBlock: {cidr: 10.32.0.0/26}}]}], policyTypes: [Ingress, Egress]}"),
            Packets(
                "y/c -> x/a tcp/80 allow
                 z/b -> x/a tcp/80 deny
                 x/a -> y/a tcp/80 allow
                 x/a -> node tcp/80 allow
                 x/a -> y/c tcp/80 deny
                 y/c -> x/a tcp/80 v6 deny",
            ),
        ],
    },
    Case {
        number: 31,
        clause: "except takes from its own block only",
        steps: &[
            Policy("x/p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/25]}}, {ipBlock: {cidr: 203.0.113.8/29, except: [203.0.113.12/32]}}]}]}"),
            Packets(
                "203.0.113.200 -> x/a tcp/80 allow
                 203.0.113.20 -> x/a tcp/80 deny
                 203.0.113.10 -> x/a tcp/80 allow
                 203.0.113.12 -> x/a tcp/80 deny
                 198.51.100.1 -> x/a tcp/80 deny",
            ),
            Policy("x/q", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.12/32}}]}]}"),
            Packets("203.0.113.12 -> x/a tcp/80 allow"),
        ],
    },
    Case {
        number: 32,
        clause: "several excepts may overlap; one that equals or covers the CIDR leaves nothing",
        steps: &[
            Policy("x/p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/26, 203.0.113.0/25, 203.0.113.16/28, 203.0.113.128/25, 203.0.113.0/24]}}]}], egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.112.0/22]}}]}], policyTypes: [Ingress, Egress]}"),
            Policy("x/q", "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/26, 203.0.113.0/25, 203.0.113.16/28, 198.51.100.0/24]}}]}]}"),
            Packets(
                "203.0.113.5 -> x/a tcp/80 deny
                 203.0.113.200 -> x/a tcp/80 deny
                 x/a -> 203.0.113.5 tcp/80 deny
                 203.0.113.5 -> x/b tcp/80 deny
                 203.0.113.17 -> x/b tcp/80 deny
                 203.0.113.200 -> x/b tcp/80 allow",
            ),
        ],
    },
    Case {
        number: 33,
        clause: "0.0.0.0/0 never matches IPv6 and ::/0 never IPv4",
        steps: &[
            Policy("x/p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}"),
            Policy("x/q", "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{ipBlock: {cidr: '::/0'}}]}]}"),
            Packets(
                "outside -> x/a tcp/80 allow
                 outside -> x/a tcp/80 v6 deny
                 outside -> x/b tcp/80 deny
                 outside -> x/b tcp/80 v6 allow
                 y/a -> x/a tcp/80 allow
                 y/a -> x/a tcp/80 v6 deny",
            ),
        ],
    },
    Case {
        number: 34,
        clause: "/0 with excepts, /32, /128 and host bits that are not zero",
        steps: &[
            Policy("x/p", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 128.0.0.0/1]}}, {ipBlock: {cidr: '2001:db8::203.0.113.10/128'}}]}]}"),
            Policy("x/q", "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.77/24}}, {ipBlock: {cidr: 198.51.100.7/32}}]}]}"),
            Packets(
                "9.9.9.9 -> x/a tcp/80 allow
                 10.9.9.9 -> x/a tcp/80 deny
                 outside -> x/a tcp/80 deny
                 outside -> x/a tcp/80 v6 allow
                 2001:db8::203.0.113.11 -> x/a tcp/80 v6 deny
                 outside -> x/b tcp/80 allow
                 198.51.100.7 -> x/b tcp/80 allow
                 198.51.100.8 -> x/b tcp/80 deny",
            ),
            Policy(
                "y/p",
                "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/1}}, {ipBlock: {cidr: '8000::/1'}}]}]}",
            ),
            Packets(
                "9.9.9.9 -> y/a tcp/80 allow
                 outside -> y/a tcp/80 deny
                 outside -> y/a tcp/80 v6 deny
                 fd10:32::41 -> y/a tcp/80 v6 allow",
            ),
        ],
    },
    Case {
        number: 35,
        clause: "an IPv6 block neither opens nor breaks what the rest of the policy says of IPv4",
        steps: &[
            Policy("x/p", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: '2001:db8::10.32.0.0/108'}}, {podSelector: {matchLabels: {pod: b}}}]}, {from: [{ipBlock: {cidr: '::/0', except: ['2001:db8::10.32.0.0/108', '2001:db8::198.51.100.0/120']}}]}]}"),
            Packets(
                "x/b -> x/a tcp/80 allow
                 y/a -> x/a tcp/80 deny
                 outside -> x/a tcp/80 deny
                 y/a -> x/a tcp/80 v6 allow
                 outside -> x/a tcp/80 v6 allow
                 2001:db8::198.51.100.7 -> x/a tcp/80 v6 deny",
            ),
        ],
    },
    Case {
        number: 36,
        clause: "from outside: judged by the address seen at the pod's node, before our SNAT",
        steps: &[
            Policy("x/p", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}], egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}]}], policyTypes: [Ingress, Egress]}"),
            Packets(
                "outside -> x/a tcp/80 allow
                 172.30.0.12 -> x/a tcp/80 deny
                 x/a -> outside tcp/80 allow
                 x/a -> 198.51.100.1 tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 37,
        clause: "through a ClusterIP: judged by the backend, a block of the Service range grants nothing",
        steps: &[
            Policy("x/p", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}]}]}"),
            // After DNAT: what the Service's address became.
            Packets("x/a -> y/a tcp/80 deny"),
            Policy("x/q", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}"),
            Packets("x/a -> y/a tcp/80 allow"),
        ],
    },
];
