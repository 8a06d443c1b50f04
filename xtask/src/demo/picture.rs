//! `ip -d -j address` of a node, reduced to the devices of weft and how they hang together.

use anyhow::{Context, Result};
use serde_json::Value;

use super::pods::Pod;

/// Draws the picture of the node of the first pod.
pub(super) fn draw(addresses: &str, pods: &[Pod]) -> Result<String> {
    let links: Vec<Value> =
        serde_json::from_str(addresses).context("parse the output of `ip -d -j address`")?;
    let mut lines =
        vec![["device", "kind", "on bridge", "MTU", "state", "what it is"].map(String::from)];
    let mut rows: Vec<(u8, [String; 6])> = links
        .iter()
        .filter_map(|link| {
            let name = link["ifname"].as_str()?;
            Some((rank(name)?, row(name, link)))
        })
        .collect();
    rows.sort();
    let ports = rows.iter().filter(|(rank, _)| *rank == POD_PORT).count();
    lines.extend(rows.into_iter().map(|(_, row)| row));
    let mut text = table(&lines);
    text.push_str(&format!(
        "\n  pod eth0 -- vethwepl… -- [weave] -- vethwe-bridge|vethwe-datapath -- [datapath] -- vxlan-6784 -- other nodes\n\n\
         {ports} pod ports on this node ({} of the demo's {} pods run here).\n",
        pods.iter()
            .filter(|pod| pods.first().is_some_and(|first| first.node == pod.node))
            .count(),
        pods.len(),
    ));
    Ok(text)
}

const POD_PORT: u8 = 1;

/// Order from the pod outwards; none for devices that are not weft's.
fn rank(name: &str) -> Option<u8> {
    match name {
        "weave" => Some(2),
        "vethwe-bridge" => Some(3),
        "vethwe-datapath" => Some(4),
        "datapath" => Some(5),
        _ if name.starts_with("vethwepl") => Some(POD_PORT),
        _ if name.starts_with("vxlan-") => Some(6),
        _ => None,
    }
}

fn row(name: &str, link: &Value) -> [String; 6] {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let kind = text(&link["linkinfo"]["info_kind"]);
    let data = &link["linkinfo"]["info_data"];
    let what = match name {
        "weave" => {
            let addresses: Vec<String> = link["addr_info"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|address| address["scope"] == "global")
                .map(|address| format!("{}/{}", text(&address["local"]), address["prefixlen"]))
                .collect();
            format!("the pods' bridge; gateway {}", addresses.join(", "))
        }
        "vethwe-bridge" | "vethwe-datapath" => format!("cable, other end {}", text(&link["link"])),
        "datapath" => "the switch that the router steers".into(),
        _ if name.starts_with("vxlan-") => format!(
            "tunnel to the other nodes, VNI {}, UDP {}",
            data["id"], data["port"]
        ),
        _ => "a pod's eth0 is the other end".into(),
    };
    [
        name.to_owned(),
        kind,
        text(&link["master"]),
        link["mtu"].to_string(),
        text(&link["operstate"]),
        what,
    ]
}

fn table(lines: &[[String; 6]]) -> String {
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].len())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            row.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_devices_are_shown_from_the_pod_outwards() {
        let links = r#"[
          {"ifname": "lo", "mtu": 65536},
          {"ifname": "eth0", "mtu": 1500, "linkinfo": {"info_kind": "veth"}},
          {"ifname": "vxlan-6784", "mtu": 1450, "operstate": "UNKNOWN", "master": "datapath",
           "linkinfo": {"info_kind": "vxlan", "info_data": {"id": 1, "port": 6784}}},
          {"ifname": "weave", "mtu": 1450, "operstate": "UP", "linkinfo": {"info_kind": "bridge"},
           "addr_info": [{"local": "10.32.0.1", "prefixlen": 12, "scope": "global"},
                         {"local": "fe80::1", "prefixlen": 64, "scope": "link"}]},
          {"ifname": "vethwepl1a2b3c4", "mtu": 1450, "operstate": "UP", "master": "weave",
           "linkinfo": {"info_kind": "veth"}}
        ]"#;
        let text = draw(links, &[]).unwrap();
        let lines: Vec<&str> = text.lines().take(4).collect();
        assert_eq!(
            lines,
            [
                "device           kind    on bridge  MTU   state    what it is",
                "vethwepl1a2b3c4  veth    weave      1450  UP       a pod's eth0 is the other end",
                "weave            bridge  -          1450  UP       the pods' bridge; gateway 10.32.0.1/12",
                "vxlan-6784       vxlan   datapath   1450  UNKNOWN  tunnel to the other nodes, VNI 1, UDP 6784",
            ]
        );
    }
}
