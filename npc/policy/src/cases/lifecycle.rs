//! What happens to npc, to the API and to objects on the way (57, 58, 66 to 74).

use super::{
    Case,
    Step::{
        self, Attach, DeleteNamespace, DeletePod, DeletePolicy, Detach, Kill, LoseApi, Namespace,
        Packets, Pod, Policy, Relist, Start, TerminateNamespace,
    },
};

/// Pod `b` of the own namespace may enter on port 80; nobody leaves.
const ONLY_B: &str = "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 80}]}]}";

/// Before and after a policy is written in another way.
const REWRITTEN: Step = Packets(
    "y/a -> x/a tcp/80 allow
     x/b -> x/a udp/9 allow
     z/a -> x/a tcp/80 deny",
);

/// Before and after a start.
const STARTED: Step = Packets(
    "x/b -> x/a tcp/80 allow
     y/a -> x/a tcp/80 deny
     x/a -> y/a tcp/80 deny
     y/a -> x/new tcp/80 deny
     z/a -> y/a tcp/80 allow",
);

/// Before npc is killed and after it has started again.
const KILLED: Step = Packets(
    "x/b -> x/a tcp/80 allow
     outside -> x/a tcp/81 allow
     203.0.113.200 -> x/a tcp/81 deny",
);

/// A policy of a namespace that is being deleted, whether the API still has it or not.
const ENDING: Step = Packets(
    "y/b -> y/a tcp/80 allow
     x/b -> y/a tcp/80 deny
     y/a -> z/a tcp/80 deny
     x/b -> y/b tcp/80 allow",
);

pub(super) const CASES: &[Case] = &[
    Case {
        number: 57,
        // What lies between two versions is judged by the compiler's tests, step by step.
        clause: "both versions of a policy judge alike what both speak of",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}], ports: [{port: 80}]}]}",
            ),
            Packets(
                "y/a -> x/a tcp/80 allow
                 y/a -> x/a tcp/81 deny
                 z/a -> x/a tcp/80 deny
                 x/a -> z/a tcp/80 allow",
            ),
            Policy(
                "x/p",
                "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {pod: a}}, namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [z]}]}}], ports: [{port: 70, endPort: 80}]}], egress: [{ports: [{port: serve-80-tcp}]}]}",
            ),
            Packets(
                "y/a -> x/a tcp/80 allow
                 y/a -> x/a tcp/81 deny
                 z/a -> x/a tcp/80 deny
                 x/a -> z/a tcp/80 allow
                 y/b -> x/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 58,
        // That the rules stay as they are is said by the compiler's tests.
        clause: "a policy written in another way is the same policy",
        steps: &[
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}, {podSelector: {matchLabels: {pod: b}}}], ports: [{port: 80}, {protocol: UDP}]}]}",
            ),
            REWRITTEN,
            Policy(
                "x/p",
                "{podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, a]}]}, policyTypes: [Ingress], egress: [{}], ingress: [{ports: [{protocol: UDP}, {port: 80, endPort: 80, protocol: TCP}, {port: 80}], from: [{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b]}], matchLabels: {pod: b}}}, {podSelector: {}, namespaceSelector: {matchExpressions: [{key: ns, operator: In, values: [y]}]}}]}]}",
            ),
            REWRITTEN,
        ],
    },
    Case {
        number: 66,
        clause: "a policy that is older than its pod holds from the pod's first packet on",
        steps: &[
            Policy(
                "z/p",
                "{podSelector: {matchLabels: {pod: new}}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}",
            ),
            // The sandbox is there, npc has not been told.
            Packets(
                "x/b -> 10.32.0.20 tcp/80 closed deny
                 10.32.0.20 -> y/a tcp/80 closed deny
                 10.32.0.20 -> node tcp/80 closed deny
                 node -> 10.32.0.20 tcp/80 allow",
            ),
            Attach("z/new", "uid-new", "10.32.0.20"),
            Packets(
                "x/b -> z/new tcp/80 deny
                 z/new -> y/a tcp/80 deny
                 z/new -> node tcp/80 deny
                 node -> z/new tcp/80 allow",
            ),
            Pod("z/new", "{uid: uid-new, address: ''}"),
            Packets(
                "x/b -> z/new tcp/80 allow
                 y/a -> z/new tcp/80 deny
                 z/new -> y/a tcp/80 deny
                 z/new -> node tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 67,
        clause: "while npc is dead verdicts stay, and a new pod is closed",
        steps: &[
            Policy("x/p", ONLY_B),
            Kill,
            DeletePolicy("x/p"),
            Pod("x/b", "{labels: {pod: other}}"),
            Attach("z/new", "uid-new", "10.32.0.20"),
            Pod("z/new", "{uid: uid-new}"),
            Packets(
                "x/b -> x/a tcp/80 allow
                 x/b -> x/a tcp/81 deny
                 y/a -> x/a tcp/80 deny
                 y/a -> z/new tcp/80 closed deny
                 z/new -> y/a tcp/80 closed deny
                 z/new -> node tcp/80 closed deny
                 node -> z/new tcp/80 allow",
            ),
            Start,
            Packets(
                "y/a -> x/a tcp/80 allow
                 y/a -> z/new tcp/80 allow
                 z/new -> y/a tcp/80 allow",
            ),
        ],
    },
    Case {
        number: 68,
        clause: "a start changes no verdict",
        steps: &[
            Policy("x/p", ONLY_B),
            Attach("x/new", "uid-new", "10.32.0.20"),
            STARTED,
            Start,
            STARTED,
        ],
    },
    Case {
        number: 69,
        clause: "without the API the last state holds, and a new pod is closed until it is back",
        steps: &[
            Policy("x/p", ONLY_B),
            LoseApi,
            DeletePolicy("x/p"),
            Policy("y/p", ONLY_B),
            Attach("z/new", "uid-new", "10.32.0.20"),
            Pod("z/new", "{uid: uid-new}"),
            Packets(
                "x/b -> x/a tcp/80 allow
                 y/b -> x/a tcp/80 deny
                 x/b -> y/a tcp/80 allow
                 z/new -> y/a tcp/80 deny
                 y/b -> z/new tcp/80 deny
                 node -> z/new tcp/80 allow",
            ),
            // A pod that left takes its address out of the known ones, API or not.
            Detach("z/a", "uid-z-a"),
            Packets("10.32.0.6 -> x/b tcp/80 closed deny"),
            Relist,
            Packets(
                "y/b -> x/a tcp/80 allow
                 x/b -> y/a tcp/80 deny
                 y/b -> y/a tcp/80 allow
                 z/new -> x/a tcp/80 allow
                 z/new -> y/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 71,
        clause: "relists, repeated and late events lead to the same state",
        steps: &[
            Policy("x/p", "{podSelector: {}, ingress: [{}]}"),
            Policy("x/p", ONLY_B),
            Policy("x/p", ONLY_B),
            Relist,
            LoseApi,
            // Of a pod that was replaced, only the new one is listed.
            DeletePod("x/c"),
            Pod("x/c", "{uid: again, labels: {pod: b}}"),
            Policy("x/gone", "{podSelector: {}, ingress: [{}]}"),
            DeletePolicy("x/gone"),
            Relist,
            Relist,
            Pod("x/c", "{uid: again, labels: {pod: b}}"),
            Packets(
                "x/b -> x/a tcp/80 allow
                 x/c -> x/a tcp/80 allow
                 y/b -> x/a tcp/80 deny
                 x/b -> x/a tcp/81 deny
                 x/a -> y/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 73,
        clause: "names of 253 characters and labels of any script are told apart",
        steps: &[
            Policy(
                "x/policy-of-a-team-nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnna",
                r#"{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {"r\u00f4le": "\u0431\u0430\u0437\u0430"}}}], ports: [{port: 1}]}]}"#,
            ),
            Policy(
                "x/policy-of-a-team-nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnb",
                r#"{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {"r\u00f4le": "\u0431\u0430\u0437\u044b"}}}], ports: [{port: 2}]}]}"#,
            ),
            Pod(
                "x/b",
                r#"{labels: {"r\u00f4le": "\u0431\u0430\u0437\u0430"}}"#,
            ),
            Pod(
                "x/c",
                r#"{labels: {"r\u00f4le": "\u0431\u0430\u0437\u044b"}}"#,
            ),
            Packets(
                "x/b -> x/a tcp/1 allow
                 x/b -> x/a tcp/2 deny
                 x/c -> x/a tcp/2 allow
                 x/c -> x/a tcp/1 deny
                 y/a -> x/a tcp/1 deny",
            ),
        ],
    },
    Case {
        number: 74,
        // That the rules are the same, byte by byte, is said by the compiler's tests.
        clause: "the same objects give the same rules at every start",
        steps: &[
            Policy("x/p", ONLY_B),
            Policy(
                "x/q",
                "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.128/25]}}], ports: [{port: serve-81-tcp}]}]}",
            ),
            KILLED,
            Kill,
            Start,
            KILLED,
        ],
    },
    Case {
        number: 0,
        clause: "pods of a terminating namespace stay subjects and peers",
        steps: &[
            Policy("y/p", ONLY_B),
            Policy(
                "x/p",
                "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}",
            ),
            TerminateNamespace("y"),
            Namespace("x", "{ns: x, changed: later}"),
            Packets(
                "y/b -> y/a tcp/80 allow
                 x/b -> y/a tcp/80 deny
                 y/a -> z/a tcp/80 deny
                 y/b -> x/a tcp/80 allow
                 z/a -> x/a tcp/80 deny",
            ),
        ],
    },
    Case {
        number: 0,
        clause: "the policies of a deleted namespace hold until its pods are gone",
        steps: &[
            Policy("y/p", ONLY_B),
            TerminateNamespace("y"),
            DeletePolicy("y/p"),
            ENDING,
            Relist,
            ENDING,
            DeletePod("y/a"),
            ENDING,
            Detach("y/b", "uid-y-b"),
            DeletePod("y/b"),
            DeletePod("y/c"),
            DeleteNamespace("y"),
            Packets(
                "x/b -> y/a tcp/80 deny
                 y/a -> z/a tcp/80 deny",
            ),
            Detach("y/a", "uid-y-a"),
            Namespace("y", "{ns: y}"),
            Attach("y/a", "again", "10.32.0.4"),
            Pod("y/a", "{uid: again}"),
            Packets(
                "x/b -> y/a tcp/80 allow
                 y/a -> z/a tcp/80 allow",
            ),
        ],
    },
];
