//! E28: a policy becomes stricter while flows are established. And how long a change of policy takes
//! until it holds, as other experiments compare it.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::{core::v1::Pod, networking::v1::NetworkPolicy};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;
use weft_probe::measured::{Measured, unix_ms};

use super::{
    Size,
    count::{Limits, REPAIR_MS, count, is_open_at, window_after},
    prober::Prober,
    row::Spread,
    stage::{ALLOWED, Client, Found, HELD, Stage, allowed_ports, guard, server},
};
use crate::{Flow, policy::app, socket};

/// How a flow becomes forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// The policy names the client as an exception.
    Policy,
    /// The client loses the label that let it in.
    Relabel,
}

const HOWS: [How; 2] = [How::Policy, How::Relabel];

/// The guard of a stage without one of its clients.
fn guard_without(client: &str) -> Value {
    json!({
        "podSelector": app("server"),
        "policyTypes": ["Ingress"],
        "ingress": [{
            "from": [{"podSelector": {
                "matchLabels": {"role": "friend"},
                "matchExpressions": [{"key": "app", "operator": "NotIn", "values": [client]}],
            }}],
            "ports": allowed_ports(),
        }],
    })
}

async fn set_guard(stage: &Stage<'_>, spec: Value) -> anyhow::Result<()> {
    let policies: Api<NetworkPolicy> =
        Api::namespaced(stage.s.cluster.client.clone(), &stage.s.namespace);
    let patch = Patch::Merge(json!({"spec": spec}));
    policies
        .patch("guard", &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

async fn set_role(stage: &Stage<'_>, client: &Client, role: &str) -> anyhow::Result<()> {
    let pods: Api<Pod> = stage.s.cluster.pods(&stage.s.namespace);
    let patch = Patch::Merge(json!({"metadata": {"labels": {"role": role}}}));
    pods.patch(&client.pod.name, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

async fn forbid(stage: &Stage<'_>, client: &Client, how: How) -> anyhow::Result<()> {
    match how {
        How::Policy => set_guard(stage, guard_without(&client.pod.name)).await,
        How::Relabel => set_role(stage, client, "stranger").await,
    }
}

async fn admit(stage: &Stage<'_>, client: &Client, how: How) -> anyhow::Result<()> {
    match how {
        How::Policy => set_guard(stage, guard()).await?,
        How::Relabel => set_role(stage, client, "friend").await?,
    }
    let flow = Flow::port(&client.pod, &client.to, ALLOWED, crate::Proto::Tcp, true);
    stage.s.expect(&[flow]).await
}

/// E28: clients of the own and of another node are cut off in turn, by the policy and by a label.
pub(crate) async fn cut(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let mut all: Vec<Measured> = Vec::new();
    let mut times = Vec::new();
    let mut wrong = Vec::new();
    let mut notes = Vec::new();
    for round in 0..size.cuts {
        let how = HOWS[round % 2];
        let (client, kept) = if round / 2 % 2 == 0 {
            (&stage.far, &stage.near)
        } else {
            (&stage.near, &stage.far)
        };
        let name = &client.pod.name;
        let (victim, others, begun, ended) = one(stage, client, kept, how).await?;
        for flow in &victim.flows {
            let last = victim.begun_unix_ms + flow.last_ms;
            let took = last.saturating_sub(begun);
            let word = flow.proto.word();
            times.push(took);
            notes.push(format!(
                "{name} by {how:?}: the established {word} flow was cut after {took} ms"
            ));
            if took > REPAIR_MS {
                wrong.push(format!(
                    "{name} by {how:?}: the established {word} flow went on for {took} ms"
                ));
            }
            if flow.received == 0 {
                wrong.push(format!(
                    "{name}: the {word} flow never stood: {:?}",
                    flow.ended
                ));
            }
        }
        let open = window_after(std::slice::from_ref(&victim), begun, ended);
        notes.push(format!(
            "{name} by {how:?}: new connections were refused after {open} ms"
        ));
        if open > REPAIR_MS {
            wrong.push(format!(
                "{name} by {how:?}: new connections passed for {open} ms"
            ));
        }
        all.extend(others);
    }
    stage.enforced().await?;
    let mut found = Found::of(stage, &all, Limits::default())
        .repaired(times)
        .note(
            "repair: from before the write to the API until the last packet of the forbidden flow",
        );
    found.notes.extend(notes);
    found.wrong.extend(wrong);
    Ok(found)
}

/// One round: report of the client that is cut off, reports of the others, and when it was done and
/// undone.
async fn one(
    stage: &Stage<'_>,
    client: &Client,
    kept: &Client,
    how: How,
) -> anyhow::Result<(Measured, Vec<Measured>, u64, u64)> {
    let to = |port| socket(&client.to.ip, port);
    let arguments = [
        "--flow".to_owned(),
        format!("tcp/{}", to(HELD)),
        "--flow".to_owned(),
        format!("udp/{}", to(ALLOWED)),
        "--forbidden".to_owned(),
        format!("tcp/{}@250", to(ALLOWED)),
    ];
    let victim = Prober::start(&stage.lab, &client.place, &arguments).await?;
    let mut others = Vec::new();
    for other in [kept, &stage.bound] {
        others.push(Prober::start(&stage.lab, &other.place, &Stage::arguments(other)).await?);
    }
    sleep(Duration::from_secs(1)).await;
    let begun = unix_ms()?;
    let done = forbid(stage, client, how).await;
    sleep(Duration::from_secs(2)).await;
    let ended = unix_ms()?;
    let victim = victim.end().await?;
    let others = futures::future::try_join_all(others.into_iter().map(Prober::end)).await?;
    admit(stage, client, how).await?;
    done?;
    Ok((victim, others, begun, ended))
}

/// Between two changes of [`latencies`].
pub(crate) const DWELL: Duration = Duration::from_millis(400);

/// A client beside those of the stage, whose access is given and taken by [`latencies`].
pub(crate) async fn swing(stage: &Stage<'_>) -> anyhow::Result<Client> {
    let [pod] = stage.s.start([server("swing", stage.n2())]).await?;
    Client::of(&stage.lab, pod, &stage.server).await
}

/// How long changes of the guard take until the last connection of `client` was answered,
/// milliseconds. One connection every 2 ms; `count` changes, with `dwell` between them.
pub(crate) async fn latencies(
    stage: &Stage<'_>,
    client: &Client,
    count: usize,
    dwell: Duration,
) -> anyhow::Result<Vec<u64>> {
    let target = format!("tcp/{}@500", socket(&client.to.ip, ALLOWED));
    let arguments = ["--forbidden".to_owned(), target];
    let prober = Prober::start(&stage.lab, &client.place, &arguments).await?;
    let mut times = Vec::new();
    let mut done = Ok(());
    for _ in 0..count {
        sleep(dwell).await;
        let begun = unix_ms()?;
        done = forbid(stage, client, How::Policy).await;
        sleep(dwell).await;
        times.push((begun, unix_ms()?));
        done = done.and(set_guard(stage, guard()).await);
        if done.is_err() {
            break;
        }
    }
    let measured = [prober.end().await?];
    admit(stage, client, How::Policy).await?;
    done?;
    // It would count as one that nobody had to wait for.
    let missed = times
        .iter()
        .filter(|(_, ended)| is_open_at(&measured, *ended))
        .count();
    ensure!(
        missed == 0,
        "{missed} of {count} changes were not followed within {dwell:?}"
    );
    let windows: usize = measured[0]
        .lanes
        .iter()
        .map(|lane| lane.windows.len())
        .sum();
    ensure!(
        windows >= count,
        "{windows} windows for {count} changes: a change was not followed within {dwell:?}"
    );
    Ok(times
        .into_iter()
        .map(|(begun, ended)| window_after(&measured, begun, ended))
        .collect())
}

/// Below this a latency is the noise of the machine.
const NOISE_MS: u64 = 10;

/// Compares two series of [`latencies`]; what is beyond twice the baseline is wrong.
pub(crate) fn compare(found: Found, baseline: Vec<u64>, under: Vec<u64>) -> Found {
    let (Some(before), Some(during)) = (Spread::of(baseline), Spread::of(under.clone())) else {
        return found.wrong_if(true, "no latency was measured");
    };
    let limit = 2 * before.p99.max(NOISE_MS);
    found
        .repaired(under)
        .note(format!(
            "a change of another policy until enforced, ms p50/p99: baseline {}/{} ({} changes), \
             meanwhile {}/{} ({} changes); limit {limit} (twice the baseline, which counts as at \
             least {NOISE_MS})",
            before.p50, before.p99, before.count, during.p50, during.p99, during.count
        ))
        .wrong_if(
            during.p99 > limit,
            format!(
                "p99 of another policy's change is {} ms, its baseline {} ms",
                during.p99, before.p99
            ),
        )
}

/// Adds the report of a further prober, whose attempts are all forbidden.
pub(crate) fn with_another(mut found: Found, what: &str, measured: &Measured) -> Found {
    let counts = count(std::slice::from_ref(measured));
    found.counts.forbidden += counts.forbidden;
    found.counts.wrongly_allowed += counts.wrongly_allowed;
    found.counts.longest_window_ms = found.counts.longest_window_ms.max(counts.longest_window_ms);
    found.wrong_if(
        counts.wrongly_allowed > 0 || counts.forbidden == 0,
        format!(
            "{what}: {} of {} attempts were answered",
            counts.wrongly_allowed, counts.forbidden
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_the_baseline_is_the_limit_and_noise_is_no_baseline() {
        let found =
            |baseline: Vec<u64>, under: Vec<u64>| compare(Found::default(), baseline, under).wrong;
        assert_eq!(found(vec![4, 5], vec![20, 3]), [""; 0]);
        assert_eq!(found(vec![30, 31], vec![62, 3]), [""; 0]);
        assert_eq!(
            found(vec![30, 31], vec![63, 3]),
            ["p99 of another policy's change is 63 ms, its baseline 31 ms"]
        );
        assert_eq!(found(vec![], vec![1]), ["no latency was measured"]);
    }

    #[test]
    fn guard_differs_in_the_exception_only() {
        let mut without = guard_without("far");
        let selector = without["ingress"][0]["from"][0]["podSelector"]
            .as_object_mut()
            .expect("a selector");
        assert_eq!(
            selector.remove("matchExpressions"),
            Some(json!([{"key": "app", "operator": "NotIn", "values": ["far"]}]))
        );
        assert_eq!(without, guard());
    }
}
