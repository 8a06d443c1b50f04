//! E45: objects at the corners of what NetworkPolicy means: what `weft-npc query` says of them, and
//! what a connection finds. The random objects (evaluator, both compilers, packets) are the tests
//! `random_rules_agree_with_the_evaluator` of `npc/compile` and those beside it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use weft_probe::cluster::eventually;

use super::{
    Size,
    count::Limits,
    stage::{ALLOWED, FORBIDDEN, Found, Stage},
};
use crate::{Running, WEFT_NAMESPACE, policy::app, socket};

/// How long npc may take to follow.
const FOLLOWS: Duration = Duration::from_secs(5);
/// For one command in npc's container.
const QUERY: Duration = Duration::from_secs(20);

/// A policy on `subject`, and what becomes of `bound -> subject` on [`ALLOWED`] and [`FORBIDDEN`].
struct Corner {
    what: &'static str,
    spec: Value,
    passes: [bool; 2],
}

/// Ingress policies unless they say otherwise. The client has the labels `app=asker`, `role=friend`.
fn corners(client: &Running) -> Vec<Corner> {
    let subject = app("subject");
    let own = format!("{}/32", client.ip);
    let corner = |what, mut spec: Value, passes| {
        if spec.get("podSelector").is_none() {
            spec["podSelector"] = subject.clone();
        }
        Corner { what, spec, passes }
    };
    let from = |peers: Value| json!({"policyTypes": ["Ingress"], "ingress": [{"from": peers}]});
    let ports = |ports: Value| json!({"policyTypes": ["Ingress"], "ingress": [{"ports": ports}]});
    let both = [true, true];
    let none = [false, false];
    let one = [true, false];
    vec![
        corner(
            "an empty podSelector selects every pod",
            json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
            none,
        ),
        corner(
            "no ingress: nothing",
            json!({"policyTypes": ["Ingress"]}),
            none,
        ),
        corner(
            "ingress []: nothing",
            json!({"policyTypes": ["Ingress"], "ingress": []}),
            none,
        ),
        corner(
            "ingress [{}]: everything",
            json!({"policyTypes": ["Ingress"], "ingress": [{}]}),
            both,
        ),
        corner("from []: everybody", from(json!([])), both),
        corner("from null: everybody", from(Value::Null), both),
        corner("ports []: every port", ports(json!([])), both),
        corner("ports null: every port", ports(Value::Null), both),
        corner(
            "no policyTypes, no egress: Ingress",
            json!({"ingress": []}),
            none,
        ),
        corner(
            "no policyTypes, with egress: Ingress too",
            json!({"egress": [{}]}),
            none,
        ),
        corner(
            "Egress only: ingress is free",
            json!({"policyTypes": ["Egress"]}),
            both,
        ),
        corner(
            "an empty pod selector: this namespace",
            from(json!([{"podSelector": {}}])),
            both,
        ),
        corner(
            "an empty namespace selector: all of them",
            from(json!([{"namespaceSelector": {}}])),
            both,
        ),
        corner(
            "a selector that no pod has",
            from(json!([{"podSelector": {"matchLabels": {"role": "nobody"}}}])),
            none,
        ),
        corner(
            "a namespace that does not exist",
            from(
                json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "no-such-namespace"}}}]),
            ),
            none,
        ),
        corner(
            "NotIn also means: has no such label",
            from(
                json!([{"podSelector": {"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["x"]}]}}]),
            ),
            both,
        ),
        corner(
            "DoesNotExist of a label that it has",
            from(
                json!([{"podSelector": {"matchExpressions": [{"key": "role", "operator": "DoesNotExist"}]}}]),
            ),
            none,
        ),
        corner(
            "a port of another protocol",
            ports(json!([{"protocol": "UDP", "port": ALLOWED}])),
            none,
        ),
        corner("one port", ports(json!([{"port": ALLOWED}])), one),
        corner(
            "a range of one port",
            ports(json!([{"port": ALLOWED, "endPort": ALLOWED}])),
            one,
        ),
        corner(
            "a name that no port has",
            ports(json!([{"port": "no-such-name"}])),
            none,
        ),
        corner(
            "the client's address",
            from(json!([{"ipBlock": {"cidr": own}}])),
            both,
        ),
        corner(
            "everything but the client's address",
            from(json!([{"ipBlock": {"cidr": "0.0.0.0/0", "except": [own]}}])),
            none,
        ),
        corner(
            "a block of the other family",
            from(json!([{"ipBlock": {"cidr": "2001:db8::/32"}}])),
            none,
        ),
        corner(
            "two peers: either will do",
            from(
                json!([{"podSelector": {"matchLabels": {"role": "nobody"}}}, {"ipBlock": {"cidr": own}}]),
            ),
            both,
        ),
    ]
}

/// E45: a policy at a time.
pub(crate) async fn corners_agree(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let s = stage.s;
    let namespace = s.another_namespace(&[]).await?;
    let pods = ["subject", "asker"].map(|name| super::stage::server(name, stage.n1()));
    let [subject, client] = s.start_in(&namespace, pods).await?;
    let agent = s.node_agent(stage.n1()).await?;
    let agent = s.cluster.ready(WEFT_NAMESPACE, &agent).await?;
    let corners = corners(&client);
    let some: Vec<&Corner> = corners.iter().step_by(size.every_corner).collect();
    let count = some.len();
    let (measured, wrong) = stage
        .measure(async || {
            let mut wrong = Vec::new();
            for corner in some {
                let name = "corner";
                let api = kube::Api::namespaced(s.cluster.client.clone(), &namespace);
                let policy = crate::policy::policy(name, corner.spec.clone())?;
                let made = api.create(&kube::api::PostParams::default(), &policy).await;
                let result = match made {
                    Ok(_) => agrees(stage, &agent, &client, &subject, corner).await,
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = result {
                    wrong.push(format!("{}: {error:#}", corner.what));
                }
                let _ = api.delete(name, &kube::api::DeleteParams::default()).await;
            }
            Ok(wrong)
        })
        .await?;
    let mut found = Found::of(stage, &measured, Limits::default()).note(format!(
        "{count} corner objects, two ports each: {} mismatches between what is meant, what \
         `weft-npc query --compare` says and what a connection finds",
        wrong.len()
    ));
    found.wrong.extend(wrong);
    Ok(found)
}

/// Waits until the query says what is meant, and then looks whether a connection finds it.
async fn agrees(
    stage: &Stage<'_>,
    agent: &Running,
    client: &Running,
    subject: &Running,
    corner: &Corner,
) -> anyhow::Result<()> {
    for (port, passes) in [ALLOWED, FORBIDDEN].into_iter().zip(corner.passes) {
        eventually(FOLLOWS, "weft-npc query", async || {
            let says = query(stage, agent, client, subject, port).await?;
            ensure!(
                says == passes,
                "port {port}: it says {says}, meant is {passes}"
            );
            Ok(())
        })
        .await?;
        let limit = if passes { "2s" } else { "700ms" };
        let report = stage
            .s
            .cluster
            .connect(client, &socket(&subject.ip, port), &["--timeout", limit])
            .await?;
        ensure!(
            (report.received > 0) == passes,
            "port {port}: meant is {passes}, a connection finds {report:?}"
        );
    }
    Ok(())
}

/// What npc says: allowed or not. It must find its own rules in the kernel.
async fn query(
    stage: &Stage<'_>,
    agent: &Running,
    client: &Running,
    subject: &Running,
    port: u16,
) -> anyhow::Result<bool> {
    let name = |pod: &Running| format!("{}/{}", pod.namespace, pod.name);
    let (from, to, port) = (name(client), name(subject), port.to_string());
    let command = [
        "/usr/bin/weft-npc",
        "query",
        "--compare",
        "--from",
        &from,
        "--to",
        &to,
        "--port",
        &port,
    ];
    let output = stage
        .s
        .cluster
        .exec_in(agent, Some("npc"), &command, QUERY)
        .await?;
    ensure!(
        !output.stdout.contains("DISAGREE"),
        "policies and kernel disagree: {}",
        output.stdout
    );
    let word = output.stdout.split(':').next().unwrap_or_default();
    match word {
        "allowed" => Ok(true),
        "denied" => Ok(false),
        _ => Err(anyhow::anyhow!("{} {}", output.stdout, output.stderr))
            .context("an answer of weft-npc query"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_corner_is_a_policy_and_they_differ() {
        let client = Running {
            namespace: "e2e".into(),
            name: "asker".into(),
            node: "n1".into(),
            ip: "10.32.0.5".into(),
            ips: vec!["10.32.0.5".into()],
            host_ip: "172.30.0.11".into(),
            host_ips: vec!["172.30.0.11".into()],
        };
        let corners = corners(&client);
        assert!(corners.len() >= 20);
        let mut specs: Vec<String> = Vec::new();
        for corner in &corners {
            crate::policy::policy("corner", corner.spec.clone()).expect(corner.what);
            let text = corner.spec.to_string();
            assert!(!specs.contains(&text), "{}", corner.what);
            specs.push(text);
        }
    }
}
