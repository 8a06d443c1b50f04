//! The text that is served is as it is documented.

use std::collections::BTreeMap;

use super::*;

/// The text that is served, every label used once before `fill`.
pub(super) fn text(fill: impl FnOnce(&Metrics)) -> String {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    metrics.synced(Duration::from_millis(3), Some(Duration::from_millis(4)));
    metrics.failed("lock");
    metrics.drifted();
    metrics.denied("default", "ingress");
    metrics.blocked("tcp", 1);
    fill(&metrics);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("encoded");
    text
}

/// Names of labels of a sample, those of a histogram's buckets left out.
fn labels(sample: &str) -> Vec<&str> {
    let inside = sample
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    let pairs = inside.map_or("", |(labels, _)| labels).split("\",");
    pairs
        .filter_map(|pair| Some(pair.split_once('=')?.0))
        .filter(|name| *name != "le")
        .collect()
}

/// The served metrics as rows of a table.
fn rows(text: &str) -> Vec<String> {
    let mut of_metric: BTreeMap<&str, (&str, &str, Vec<&str>)> = BTreeMap::new();
    let mut order = Vec::new();
    let mut metric = "";
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            metric = name;
            order.push(name);
            of_metric.entry(name).or_default().0 = help;
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            of_metric.entry(name).or_default().1 = kind;
        } else if !line.starts_with('#') {
            of_metric.entry(metric).or_default().2 = labels(line);
        }
    }
    order
        .iter()
        .map(|name| {
            let (help, kind, labels) = &of_metric[name];
            let suffix = if *kind == "counter" { "_total" } else { "" };
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() {
                "-".to_owned()
            } else {
                labels.join(", ")
            };
            format!("| `{name}{suffix}` | {kind} | {labels} | {help} |")
        })
        .collect()
}

#[test]
fn metrics_are_those_that_are_documented() {
    let documented: Vec<&str> = include_str!("../../../docs/npc.md")
        .lines()
        .filter(|line| line.starts_with("| `weft_npc_") || line.starts_with("| `weavenpc_"))
        .collect();
    let served = rows(&text(|_| {}));
    assert_eq!(
        documented,
        served,
        "docs/npc.md should hold\n{}",
        served.join("\n")
    );
}

#[test]
fn a_cluster_of_many_namespaces_does_not_make_many_series() {
    let text = text(|metrics| {
        for n in 0..1000 {
            metrics.denied(&format!("tenant-{n}"), "egress");
            metrics.denied(&format!("tenant-{n}"), "ingress");
        }
    });
    let series = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("weft_npc_denials_total{"))
            .count()
    };
    // "default" in one direction, 255 tenants in both, the rest in both.
    assert_eq!(series(&text), 1 + 2 * 255 + 2, "{text}");
    for direction in ["egress", "ingress"] {
        let rest = format!(
            "weft_npc_denials_total{{namespace=\"other\",direction=\"{direction}\"}} 745\n"
        );
        assert!(text.contains(&rest), "{text}");
    }
}
