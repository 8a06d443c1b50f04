//! Policies that are meant to hurt, one after the other beside the others.

use std::time::{Duration, Instant};

use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_netfilter::{nft, plan};
use weft_policy::{Index, ObjectKey};
use weft_policy_compile::{NodeView, compile};
use weft_testkit::builders::{ip_block, make_network_policy, make_pod, port_number};

type Rules = Vec<networking::NetworkPolicyIngressRule>;

fn rule(
    from: Vec<networking::NetworkPolicyPeer>,
    ports: Vec<networking::NetworkPolicyPort>,
) -> networking::NetworkPolicyIngressRule {
    networking::NetworkPolicyIngressRule {
        from: Some(from),
        ports: Some(ports),
    }
}

fn port(port: IntOrString, end: Option<i32>) -> networking::NetworkPolicyPort {
    networking::NetworkPolicyPort {
        port: Some(port),
        end_port: end,
        protocol: None,
    }
}

fn net(n: i32) -> String {
    format!("10.{}.{}.0/24", n / 256 % 256, n % 256)
}

fn pods(operator: &str, values: Option<Vec<String>>) -> networking::NetworkPolicyPeer {
    networking::NetworkPolicyPeer {
        pod_selector: Some(LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "app".to_owned(),
                operator: operator.to_owned(),
                values,
            }]),
            match_labels: None,
        }),
        namespace_selector: Some(LabelSelector::default()),
        ip_block: None,
    }
}

fn all() -> Vec<(&'static str, Rules)> {
    let hosts: Vec<String> = (0..10_000)
        .map(|n| format!("10.{}.{}.4/32", n / 256, n % 256))
        .collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    vec![
        (
            "10,000 rules of a CIDR and a port",
            (0..10_000)
                .map(|n| rule(vec![ip_block(&net(n), &[])], vec![port_number(1 + n)]))
                .collect(),
        ),
        (
            "10,000 rules of a selector that names nobody",
            (0..10_000)
                .map(|n| rule(vec![pods("In", Some(vec![format!("none-{n}")]))], vec![]))
                .collect(),
        ),
        (
            "10,000 rules of a selector that names every pod",
            (0..10_000)
                .map(|n| rule(vec![pods("NotIn", Some(vec![format!("none-{n}")]))], vec![]))
                .collect(),
        ),
        (
            "1,000 overlapping port ranges of 65,535",
            (0..1000)
                .map(|n| rule(vec![], vec![port(IntOrString::Int(1 + n), Some(65_535))]))
                .collect(),
        ),
        (
            "5,000 CIDRs with an except each",
            vec![rule(
                (0..5000)
                    .map(|n| ip_block(&net(n), &[&format!("10.{}.{}.4/32", n / 256, n % 256)]))
                    .collect(),
                vec![],
            )],
        ),
        (
            "0.0.0.0/0 but for 10,000 hosts",
            vec![rule(vec![ip_block("0.0.0.0/0", &hosts)], vec![])],
        ),
        (
            "5,000 named ports",
            (0..5000)
                .map(|n| {
                    rule(
                        vec![],
                        vec![port(IntOrString::String(format!("p{n}")), None)],
                    )
                })
                .collect(),
        ),
        (
            "5,000 peers and 5,000 ports in a rule",
            vec![rule(
                (0..5000)
                    .map(|n| ip_block(&net(n), &["10.0.0.1/32"]))
                    .collect(),
                (0..5000).map(|n| port_number(1 + 2 * n)).collect(),
            )],
        ),
    ]
}

/// What each costs when it comes, and what a change of somebody else's pod costs while it is there.
pub(crate) fn print(index: &mut Index, view: &NodeView) {
    println!(
        "    comes   compiled    lowered  iptables | a pod changes: model, ruleset, nft | elements"
    );
    one(index, view, "nothing more", None);
    for (what, rules) in all() {
        let policy = make_network_policy("team-0", "hostile").types(&["Ingress"]);
        let mut policy = policy.build();
        policy.spec.get_or_insert_default().ingress = Some(rules);
        one(index, view, what, Some(&policy));
    }
}

fn one(index: &mut Index, view: &NodeView, what: &str, policy: Option<&networking::NetworkPolicy>) {
    let (_, came) = timed(|| {
        if let Some(policy) = policy {
            index.apply_network_policy(policy);
        }
        index.refresh()
    });
    let model = index.refresh();
    let (ruleset, compiled) = timed(|| compile(&model, view));
    let (_, lowered) = timed(|| nft::lower(&ruleset));
    let (_, planned) =
        timed(|| plan::diff(&plan::Observed::default(), &ruleset).map(|plan| plan.to_string()));
    let mut best = [Duration::MAX; 3];
    for turn in 0..6 {
        let pod = make_pod("team-1", "changing")
            .label("app", "app-0")
            .node("n2");
        index.apply_pod(&pod.address(&format!("10.48.1.{turn}")).build());
        let (model, modelled) = timed(|| index.refresh());
        let (ruleset, compiled) = timed(|| compile(&model, view));
        let (_, lowered) = timed(|| nft::lower(&ruleset));
        for (best, now) in best.iter_mut().zip([modelled, compiled, lowered]) {
            *best = (*best).min(now);
        }
    }
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let (_, _, elements) = ruleset.size();
    println!(
        "{:8.2}   {:8.2}   {:8.2}  {:8.2} | {:8.2} {:8.2} {:8.2} ms | {elements:8}  {what}{}",
        milliseconds(came),
        milliseconds(compiled),
        milliseconds(lowered),
        milliseconds(planned),
        milliseconds(best[0]),
        milliseconds(best[1]),
        milliseconds(best[2]),
        if model.problems.is_empty() {
            ""
        } else {
            " (closed)"
        },
    );
    index.delete_network_policy(&ObjectKey::new("team-0", "hostile"));
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}
