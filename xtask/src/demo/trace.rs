//! Which devices one ping crosses, in the order of the kernel's timestamps.
//!
//! One tcpdump per node listens on every device at once. All nodes of the lab share one kernel and
//! so one clock; the two captures are merged by time.

use std::time::Duration;

use anyhow::{Context, Result};

use super::pods::{NAMESPACE, Pod};
use crate::{
    cluster::{inside, kubectl},
    command::{finish, output, pause, start},
};

/// A packet seen on a device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Crossing {
    /// Seconds since the epoch.
    time: f64,
    /// Node.
    node: String,
    /// Device.
    device: String,
    /// Whether the device sends it (else it arrives there).
    leaves: bool,
    /// What it is.
    packet: Packet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packet {
    Request,
    Reply,
    /// The same frame inside UDP on its way between the nodes.
    Tunnel,
}

/// UDP port of the tunnel (default of the WeftNetwork).
const TUNNEL: u16 = 6784;

/// Sends one ping while both nodes are watched.
pub(super) fn capture(from: &Pod, to: &Pod) -> Result<Vec<Crossing>> {
    // Neighbour and forwarding tables are filled first: the trace is about the packet, not ARP.
    ping(from, to).context("the first ping")?;
    let tunnel = TUNNEL.to_string();
    let mut watchers = Vec::new();
    for node in [&from.node, &to.node] {
        let filter = [
            "timeout",
            "--signal=INT",
            "3",
            "tcpdump",
            "-i",
            "any",
            "-nn",
            "-tt",
            "-l",
            "--immediate-mode",
            // With the default length only eight frames fit the ring.
            "-s",
            "256",
            "icmp",
            "or",
            "udp",
            "port",
            &tunnel,
        ];
        watchers.push((node, start(inside(node, &filter)?)?));
    }
    // tcpdump opens its sockets within a few milliseconds; nothing tells when.
    pause(Duration::from_millis(1000));
    ping(from, to).context("the ping that is traced")?;
    let mut crossings = Vec::new();
    for (node, watcher) in watchers {
        let text = finish(watcher)?;
        crossings.extend(text.lines().filter_map(|line| parse(node, line)));
    }
    Ok(one_ping(crossings, &from.address, &to.address))
}

fn ping(from: &Pod, to: &Pod) -> Result<String> {
    output(kubectl(&[
        "exec",
        "-n",
        NAMESPACE,
        &from.name,
        "--",
        "/usr/bin/weft-probe",
        "ping",
        &to.address,
        "--count",
        "1",
    ]))
}

/// A line of `tcpdump -i any -tt -nn`:
/// `1732287654.123456 weave In  IP 10.32.0.2 > 10.32.0.66: ICMP echo request, id 7, seq 1, ...`
fn parse(node: &str, line: &str) -> Option<(Crossing, String)> {
    let mut words = line.split_whitespace();
    let time = words.next()?.parse().ok()?;
    let device = words.next()?.to_owned();
    // `In`, `P` (for another host, as on every bridge port), `B`, `M`, or `Out`.
    let leaves = words.next()? == "Out";
    let rest = line.split_once(" IP ")?.1;
    let packet = if rest.contains("ICMP echo request") {
        Packet::Request
    } else if rest.contains("ICMP echo reply") {
        Packet::Reply
    } else if rest.split(':').next()?.ends_with(&format!(".{TUNNEL}")) {
        Packet::Tunnel
    } else {
        return None;
    };
    let crossing = Crossing {
        time,
        node: node.to_owned(),
        device,
        leaves,
        packet,
    };
    Some((crossing, rest.to_owned()))
}

/// Keeps the packets between the two addresses, and the tunnel's packets between the first and the
/// last of those.
fn one_ping(seen: Vec<(Crossing, String)>, from: &str, to: &str) -> Vec<Crossing> {
    let there = format!("{from} > {to}:");
    let back = format!("{to} > {from}:");
    let mut kept: Vec<Crossing> = seen
        .iter()
        .filter(|(crossing, rest)| match crossing.packet {
            Packet::Request => rest.starts_with(&there),
            Packet::Reply => rest.starts_with(&back),
            Packet::Tunnel => false,
        })
        .map(|(crossing, _)| crossing.clone())
        .collect();
    kept.sort_by(|a, b| a.time.total_cmp(&b.time));
    let (Some(first), Some(last)) = (kept.first(), kept.last()) else {
        return Vec::new();
    };
    let (begin, end) = (first.time, last.time);
    kept.extend(
        seen.into_iter()
            .map(|(crossing, _)| crossing)
            .filter(|c| c.packet == Packet::Tunnel && (begin..=end).contains(&c.time)),
    );
    kept.sort_by(|a, b| a.time.total_cmp(&b.time));
    kept
}

/// The way there and the way back.
pub(super) fn draw(crossings: &[Crossing]) -> String {
    let Some(first) = crossings.first() else {
        return "  (nothing was seen)\n".into();
    };
    let mut text = String::new();
    let mut node = "";
    for crossing in crossings {
        if crossing.node != node {
            node = &crossing.node;
            text.push_str(&format!("  node {node}\n"));
        }
        let packet = match crossing.packet {
            Packet::Request => "echo request",
            Packet::Reply => "echo reply",
            Packet::Tunnel => "VXLAN on the underlay",
        };
        text.push_str(&format!(
            "    {:>6.0} us  {:<16} {:<3} {packet}\n",
            (crossing.time - first.time) * 1e6,
            crossing.device,
            if crossing.leaves { "out" } else { "in" },
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[(&str, &str)]) -> Vec<Crossing> {
        let seen = lines
            .iter()
            .filter_map(|(node, line)| parse(node, line))
            .collect();
        one_ping(seen, "10.32.0.2", "10.32.0.66")
    }

    #[test]
    fn captures_of_two_nodes_are_merged_by_time_and_foreign_packets_left_out() {
        let crossings = read(&[
            (
                "n1",
                "100.000020 weave In  IP 10.32.0.2 > 10.32.0.66: ICMP echo request, id 7, seq 1, length 64",
            ),
            (
                "n1",
                "100.000010 vethwepl1a2b3c4 In  IP 10.32.0.2 > 10.32.0.66: ICMP echo request, id 7, seq 1, length 64",
            ),
            (
                "n1",
                "100.000030 eth0  Out IP 172.30.0.11.40000 > 172.30.0.12.6784: UDP, length 106",
            ),
            (
                "n1",
                "099.000000 eth0  Out IP 172.30.0.11.40000 > 172.30.0.13.6784: UDP, length 64",
            ),
            (
                "n1",
                "100.000035 eth0  Out IP 10.32.0.2 > 10.32.0.9: ICMP echo request, id 1, seq 1, length 64",
            ),
            (
                "n2",
                "100.000040 vxlan-6784 P   IP 10.32.0.2 > 10.32.0.66: ICMP echo request, id 7, seq 1, length 64",
            ),
            (
                "n2",
                "100.000050 vethwepl5 In  IP 10.32.0.66 > 10.32.0.2: ICMP echo reply, id 7, seq 1, length 64",
            ),
            ("n2", "garbage"),
        ]);
        assert_eq!(
            draw(&crossings),
            "  node n1\n         0 us  vethwepl1a2b3c4  in  echo request\n        10 us  weave            in  echo request\n        20 us  eth0             out VXLAN on the underlay\n  node n2\n        30 us  vxlan-6784       in  echo request\n        40 us  vethwepl5        in  echo reply\n"
        );
    }

    #[test]
    fn nothing_seen_is_said() {
        assert_eq!(draw(&read(&[])), "  (nothing was seen)\n");
    }
}
