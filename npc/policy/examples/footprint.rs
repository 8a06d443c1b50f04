//! What the pods of a cluster cost npc: `cargo run --release -p weft-policy --example footprint
//! [PODS]`. Lists them page by page as the watch does and prints, for each pass, the memory that is
//! resident after it and at its peak, and its processor time.
#![allow(clippy::print_stdout, reason = "the figures are its output")]
#![allow(
    clippy::expect_used,
    reason = "a figure that cannot be had is no figure"
)]

use std::fmt::Write as _;

use serde::Deserialize;
use weft_policy::{Index, ObjectKey, Pod, SlimPod};

/// As the watch asks for.
const PAGE: usize = 500;
/// Pods of one ReplicaSet.
const REPLICAS: usize = 10;

#[derive(Deserialize)]
struct List {
    items: Vec<SlimPod>,
}

fn main() {
    let pods = std::env::args().nth(1);
    let pods = pods.map_or(20_000, |pods| pods.parse().expect("a number of pods"));
    let mut index = Index::new("n1");
    let text = page(0..PAGE, 0);
    println!("{pods} pods, {} bytes of JSON each", text.len() / PAGE);
    drop(text);

    let decoded = measure("pages decoded, nothing kept", pods, 0, drop);
    let mut list = |what, turn| {
        let mut changes = 0_usize;
        index.begin_pod_list();
        let resident = measure(what, pods, turn, |pod| {
            changes += usize::from(index.apply_pruned_pod(&pod));
        });
        index.end_pod_list();
        println!("          {changes} changes");
        resident
    };
    let listed = list("first list", 0);
    list("relist, nothing changed", 0);
    list("relist, every pod changed", 1);
    list("relist, every pod changed", 2);
    assert!(
        index
            .pod(&ObjectKey::new("team-1", "no-such-pod"))
            .is_none()
    );
    let kept = listed.saturating_sub(decoded) * 1024;
    println!("{} bytes a pod in the store", kept / pods);
}

/// Lists all pods once; returns what is resident then, in KiB.
fn measure(what: &str, pods: usize, turn: usize, mut keep: impl FnMut(Pod)) -> usize {
    // Forgets the peak of before; where that is not allowed the peak is that of the process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let mut spent = 0;
    for first in (0..pods).step_by(PAGE) {
        let text = page(first..pods.min(first + PAGE), turn);
        let before = processor_nanoseconds();
        let list: List = serde_json::from_str(&text).expect("a list of pods");
        drop(text);
        list.items.into_iter().map(Pod::from).for_each(&mut keep);
        spent += processor_nanoseconds() - before;
    }
    let (resident, peak) = (status("VmRSS:"), status("VmHWM:"));
    let milliseconds = spent / 1_000_000;
    println!("{resident:6} KiB resident, {peak:6} KiB at the peak, {milliseconds:5} ms  {what}");
    resident
}

/// A line of `/proc/self/status`, in KiB.
fn status(field: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.expect("a line").trim().trim_end_matches(" kB");
    number.parse().expect("a number")
}

/// Time that this thread was on a processor.
fn processor_nanoseconds() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let first = text.split_whitespace().next().expect("a field");
    first.parse().expect("a number")
}

/// A page as the API writes it.
fn page(numbers: std::ops::Range<usize>, turn: usize) -> String {
    let mut text =
        r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":["#
            .to_owned();
    for n in numbers.clone() {
        if n > numbers.start {
            text.push(',');
        }
        pod(&mut text, n, turn);
    }
    text.push_str("]}");
    text
}

/// Five labels, as Deployments and teams set them; names and UIDs of the usual length; one IPv4
/// address; one named port.
fn pod(text: &mut String, n: usize, turn: usize) {
    let set = n / REPLICAS;
    let (app, team) = (set % 50, set % 20);
    let hash = format!("{:09x}", set * 0x9e37_79b9 % 0xf_ffff_ffff);
    let name = format!("app-{app:03}-{hash}-{:05x}", n * 7919 % 0xf_ffff);
    let uid = format!("{n:08x}-{turn:04x}-4a6b-8c7d-0123456789ab");
    let ip = std::net::Ipv4Addr::from_bits(0x0a20_0002 + u32::try_from(n).unwrap_or_default());
    let environment: String = (0..12)
        .map(|i| format!(r#"{{"name":"SETTING_{i}","value":"a value of some length {i}"}},"#))
        .collect();
    let managed: String = (0..30)
        .map(|i| format!(r#""f:field{i}":{{"f:inner":{{}},"f:other":{{}}}},"#))
        .collect();
    write!(
        text,
        r#"{{"metadata":{{"name":"{name}","generateName":"app-{app:03}-{hash}-","namespace":"team-{team}",
"uid":"{uid}","resourceVersion":"{n}","creationTimestamp":"2026-01-01T00:00:00Z",
"labels":{{"app":"app-{app:03}","pod-template-hash":"{hash}","version":"v{}","team":"team-{team}",
"app.kubernetes.io/managed-by":"Helm"}},"annotations":{{"checksum/config":"{hash}{hash}{hash}"}},
"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"app-{app:03}-{hash}","uid":"{uid}",
"controller":true,"blockOwnerDeletion":true}}],
"managedFields":[{{"manager":"kubelet","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1",
"fieldsV1":{{{managed}"f:last":{{}}}}}}]}},
"spec":{{"volumes":[{{"name":"token","projected":{{"sources":[{{"serviceAccountToken":{{"path":"token"}}}}]}}}}],
"containers":[{{"name":"main","image":"registry.example.com/team-{team}/app-{app}:v{}","env":[{environment}
{{"name":"LAST","value":"x"}}],"ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}}],
"resources":{{"requests":{{"cpu":"100m","memory":"128Mi"}}}}}}],"restartPolicy":"Always",
"nodeName":"node-{:04}","serviceAccountName":"default","tolerations":[{{"key":"node.kubernetes.io/not-ready",
"operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}]}},
"status":{{"phase":"Running","conditions":[{{"type":"Ready","status":"True","lastProbeTime":null,
"lastTransitionTime":"2026-01-01T00:00:00Z"}}],"hostIP":"172.30.0.1","podIP":"{ip}","podIPs":[{{"ip":"{ip}"}}],
"startTime":"2026-01-01T00:00:00Z","qosClass":"Burstable"}}}}"#,
        set % 3,
        set % 3,
        n % 700,
    )
    .expect("a String takes everything");
}
