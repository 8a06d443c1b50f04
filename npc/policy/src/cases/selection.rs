//! Which pods a policy isolates, in which direction (1 to 15).

use super::{
    Case,
    Step::{
        Attach, DeleteNamespace, DeletePod, DeletePolicy, Detach, Namespace, Packets, Pod, Policy,
    },
};

pub(super) const CASES: &[Case] = &[
    Case {
        number: 1,
        clause: "a pod that no policy selects is open both ways",
        steps: &[Packets(
            "x/a -> y/a tcp/80 allow
             y/a -> x/a udp/53 allow
             x/c -> x/a icmp allow
             x/a -> outside tcp/443 allow
             outside -> x/a proto/253 allow",
        )],
    },
    Case {
        number: 2,
        clause: "isolation is per direction: an ingress-only policy leaves egress open",
        steps: &[
            Policy(
                "x/in",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}",
            ),
            Policy(
                "y/out",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}",
            ),
            Packets(
                "x/b -> x/a tcp/80 deny
                 x/a -> x/b tcp/80 allow
                 y/a -> y/b tcp/80 deny
                 y/b -> y/a tcp/80 allow",
            ),
        ],
    },
    Case {
        number: 3,
        clause: "policyTypes absent: ingress always, egress only if there are egress rules",
        steps: &[
            Policy("x/p", "{podSelector: {matchLabels: {pod: a}}}"),
            Policy(
                "y/p",
                "{podSelector: {matchLabels: {pod: a}}, egress: [{to: [{podSelector: {}}]}]}",
            ),
            Policy(
                "z/p",
                "{podSelector: {matchLabels: {pod: a}}, egress: [], policyTypes: []}",
            ),
            Packets(
                "x/b -> x/a tcp/80 deny
                 x/a -> x/b tcp/80 allow
                 y/b -> y/a tcp/80 deny
                 y/a -> y/b tcp/80 allow
                 y/a -> x/b tcp/80 deny
                 z/b -> z/a tcp/80 deny
                 z/a -> x/b tcp/80 allow",
            ),
        ],
    },
    Case {
        number: 4,
        clause: "with policyTypes [Egress] an ingress list has no effect",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
            ),
            Packets(
                "y/a -> x/a tcp/80 allow
                 x/a -> x/b tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 5,
        clause: "ingress empty, null or absent denies all when Ingress is in the types",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, policyTypes: [Ingress], ingress: []}",
            ),
            Policy(
                "y/p",
                "{podSelector: {}, policyTypes: [Ingress], ingress: null}",
            ),
            Policy("z/p", "{podSelector: {}, policyTypes: [Ingress]}"),
            Packets(
                "z/b -> x/a tcp/80 deny
                 z/b -> y/a udp/80 deny
                 z/b -> z/a icmp deny
                 outside -> x/a tcp/80 deny
                 x/a -> outside tcp/80 allow",
            ),
        ],
    },
    Case {
        number: 6,
        clause: "one empty rule allows everything",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}",
            ),
            Packets(
                "z/b -> x/a tcp/80 allow
                 outside -> x/a proto/253 allow
                 x/a -> outside icmp allow
                 x/a -> x/b sctp/80 allow
                 outside -> x/a tcp/80 invalid deny",
            ),
        ],
    },
    Case {
        number: 7,
        clause: "from empty or absent is any source; ports empty or absent any port and protocol",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{from: [], ports: [{port: 80}]}]}",
            ),
            Policy(
                "y/p",
                "{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: []}]}",
            ),
            Policy(
                "z/p",
                "{podSelector: {}, ingress: [{from: null, ports: null}]}",
            ),
            Packets(
                "outside -> x/a tcp/80 allow
                 outside -> x/a tcp/81 deny
                 y/c -> y/a udp/9999 allow
                 y/c -> y/a icmp allow
                 x/c -> y/a udp/9999 deny
                 outside -> z/a tcp/1 allow",
            ),
        ],
    },
    Case {
        number: 8,
        clause: "podSelector {} selects all pods of that namespace and none elsewhere",
        steps: &[
            Policy("x/p", "{podSelector: {}, policyTypes: [Ingress]}"),
            Packets(
                "y/a -> x/a tcp/80 deny
                 y/a -> x/b tcp/80 deny
                 x/a -> y/b tcp/80 allow
                 x/a -> z/a tcp/80 allow",
            ),
        ],
    },
    Case {
        number: 9,
        clause: "policies add up",
        steps: &[
            Policy(
                "x/b-80",
                "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 80}]}]}",
            ),
            Policy("x/a-none", "{podSelector: {}, policyTypes: [Ingress]}"),
            Policy(
                "x/c-81",
                "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}], ports: [{port: 81}]}]}",
            ),
            Packets(
                "x/b -> x/a tcp/80 allow
                 x/b -> x/a tcp/81 deny
                 y/b -> x/a tcp/81 allow
                 y/b -> x/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 10,
        clause: "a connection needs egress at the source and ingress at the destination",
        steps: &[
            Policy(
                "x/out",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}",
            ),
            Policy(
                "y/in",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}",
            ),
            Packets(
                "x/a -> y/b tcp/80 allow
                 x/a -> y/a tcp/80 deny
                 x/a -> z/a tcp/80 deny
                 x/b -> y/b tcp/80 allow
                 x/b -> y/a tcp/80 deny",
            ),
            Policy(
                "y/in",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}",
            ),
            Packets(
                "x/a -> y/a tcp/80 allow
                 z/a -> y/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 11,
        clause: "peers on the same and on another node get the same verdict",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}], egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}]}], policyTypes: [Ingress, Egress]}",
            ),
            Packets(
                "y/a -> x/a tcp/80 allow
                 y/c -> x/a tcp/80 allow
                 z/a -> x/a tcp/80 deny
                 z/b -> x/a tcp/80 deny
                 x/a -> y/b tcp/80 allow
                 x/a -> y/c tcp/80 allow
                 x/a -> z/a tcp/80 deny
                 x/a -> z/c tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 12,
        clause: "a policy of both types: its ingress rules never grant egress, nor the reverse",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}]}",
            ),
            Packets("x/a -> x/b tcp/80 deny"),
            Policy(
                "x/p",
                "{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {}}]}]}",
            ),
            Packets("x/a -> x/b tcp/80 deny"),
            Policy(
                "x/p",
                "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}], egress: [{to: [{podSelector: {}}]}]}",
            ),
            Packets("x/a -> x/b tcp/80 allow"),
        ],
    },
    Case {
        number: 13,
        clause: "deleting the last selecting policy re-opens, deleting one of two does not",
        steps: &[
            Policy("x/one", "{podSelector: {}, policyTypes: [Ingress]}"),
            Policy("x/two", "{podSelector: {}, policyTypes: [Ingress]}"),
            DeletePolicy("x/one"),
            Packets("y/a -> x/a tcp/80 deny"),
            DeletePolicy("x/two"),
            Packets("y/a -> x/a tcp/80 allow"),
        ],
    },
    Case {
        number: 14,
        clause: "a policy never selects pods of another namespace with the same labels",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress]}",
            ),
            Packets(
                "z/b -> x/a tcp/80 deny
                 z/b -> y/a tcp/80 allow
                 y/a -> z/b tcp/80 allow",
            ),
        ],
    },
    Case {
        number: 15,
        clause: "a deleted namespace takes its pods out of peers and its policies away",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}",
            ),
            Policy("y/p", "{podSelector: {}, policyTypes: [Ingress]}"),
            Packets(
                "y/c -> x/a tcp/80 allow
                 x/a -> y/a tcp/80 deny",
            ),
            DeleteNamespace("y"),
            Packets("y/c -> x/a tcp/80 deny"),
            DeletePolicy("y/p"),
            DeletePod("y/c"),
            Packets(
                "y/c -> x/a tcp/80 deny
                 x/a -> y/a tcp/80 allow",
            ),
        ],
    },
    Case {
        number: 29,
        clause: "a reused address: old labels do not apply, the new ones do",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
            ),
            Packets("x/b -> x/a tcp/80 allow"),
            Pod("x/b", "{phase: Succeeded}"),
            Detach("x/b", "uid-x-b"),
            Attach("z/new", "uid-new", "10.32.0.3"),
            Packets("z/new -> x/a tcp/80 deny"),
            Pod("z/new", "{uid: uid-new, labels: {pod: b}}"),
            Packets("z/new -> x/a tcp/80 deny"),
            Namespace("z", "{ns: x}"),
            Packets("z/new -> x/a tcp/80 deny"),
            Policy(
                "z/p",
                "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Ingress]}",
            ),
            Packets(
                "x/a -> z/new tcp/80 deny
                 y/a -> z/new tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 29,
        clause: "a recreated pod of the same name and address is not judged by its old labels",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
            ),
            Detach("x/b", "uid-x-b"),
            Attach("x/b", "uid-2", "10.32.0.3"),
            Packets(
                "x/b -> x/a tcp/80 deny
                 x/b -> y/a tcp/80 deny
                 y/a -> x/b tcp/80 deny
                 node -> x/b tcp/80 allow",
            ),
            Pod("x/b", "{uid: uid-2, labels: {pod: other}}"),
            Packets(
                "x/b -> x/a tcp/80 deny
                 x/b -> y/a tcp/80 allow
                 y/a -> x/b tcp/80 allow",
            ),
        ],
    },
    Case {
        number: 29,
        clause: "of two remote pods with one address the one that is not terminating has it",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: c}}}]}]}",
            ),
            Packets("x/c -> x/a tcp/80 allow"),
            Pod("x/c", "{terminating: true, created: 5}"),
            Packets("x/c -> x/a tcp/80 allow"),
            Pod("y/new", "{node: n2, address: 10.32.0.67, created: 5}"),
            Packets("x/c -> x/a tcp/80 deny"),
        ],
    },
    Case {
        number: 28,
        clause: "a terminating pod, and one deleted by force, keep their policy until CNI DEL",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
            ),
            Pod("x/b", "{terminating: true}"),
            Packets(
                "x/b -> x/a tcp/80 allow
                 y/a -> x/b tcp/80 deny",
            ),
            DeletePod("x/b"),
            Packets(
                "x/b -> x/a tcp/80 allow
                 y/a -> x/b tcp/80 deny",
            ),
            Detach("x/b", "uid-x-b"),
            Packets("x/b -> x/a tcp/80 deny"),
        ],
    },
    Case {
        number: 0,
        clause: "a static pod is known by the hash its mirror pod carries, not by any annotation",
        steps: &[
            Attach("z/static", "0123456789abcdef0123456789abcdef", "10.32.0.9"),
            Packets(
                "y/a -> z/static tcp/80 deny
                 z/static -> y/a tcp/80 deny
                 node -> z/static tcp/80 allow",
            ),
            Pod(
                "z/other",
                "{uid: u9, annotations: {kubernetes.io/config.mirror: m, kubernetes.io/config.hash: 0123456789abcdef0123456789abcdef}}",
            ),
            Packets("y/a -> z/static tcp/80 deny"),
            Pod(
                "z/static",
                "{uid: u8, annotations: {kubernetes.io/config.hash: 0123456789abcdef0123456789abcdef}}",
            ),
            Packets("y/a -> z/static tcp/80 deny"),
            Pod(
                "z/static",
                "{uid: u8, annotations: {kubernetes.io/config.mirror: m, kubernetes.io/config.hash: 0123456789abcdef0123456789abcdef}}",
            ),
            Packets(
                "y/a -> z/static tcp/80 allow
                 z/static -> y/a tcp/80 allow",
            ),
        ],
    },
    Case {
        number: 72,
        clause: "what cannot be understood allows nothing in its direction and touches nobody else",
        steps: &[
            Policy(
                "x/bad",
                "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: nonsense}}]}, {}], egress: [{}]}",
            ),
            Policy(
                "x/good",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
            ),
            Policy(
                "y/bad",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80, endPort: 79}]}]}",
            ),
            Packets(
                "y/b -> x/a tcp/80 deny
                 x/b -> x/a tcp/80 allow
                 x/a -> outside tcp/80 allow
                 z/b -> x/b tcp/80 allow
                 z/b -> y/a tcp/80 deny
                 z/b -> y/b tcp/80 allow",
            ),
            Policy(
                "z/bad",
                "{podSelector: {matchExpressions: [{key: pod, operator: Near, values: [a]}]}, ingress: [{}]}",
            ),
            Packets(
                "y/b -> z/a tcp/80 deny
                 z/a -> y/b tcp/80 deny",
            ),
        ],
    },
];
