//! Pod to pod across nodes, against host to host and against the VXLAN floor (an address on a
//! vxlan device, host to host: the least that any overlay of this encapsulation can cost).

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    node::{Lab, Running},
    pods::Pods,
    report::{Budget, Row},
    sample::{median, ratios, spread},
};

const CLIENT: &str = "n1";
const SERVER: &str = "n2";
const NAMESPACE: &str = "weft-bench";
const FLOOR_DEVICE: &str = "weftbench0";
const FLOOR_CLIENT: &str = "192.0.2.1";
const FLOOR_SERVER: &str = "192.0.2.2";

/// One way from client to server.
struct Way {
    name: &'static str,
    address: String,
    client: Vec<String>,
    server: Vec<String>,
}

/// One sample of a path.
#[derive(Clone, Copy)]
struct Sample {
    gbit: f64,
    cpu_seconds_per_gb: f64,
    rr_p50_us: f64,
}

/// Measures all paths in `rounds` rounds.
pub(crate) fn measure(
    lab: &Lab,
    probe: &Path,
    rounds: usize,
    seconds: u32,
) -> anyhow::Result<Vec<Row>> {
    let pods = Pods::create(lab, NAMESPACE, &[("client", CLIENT), ("server", SERVER)])?;
    let floor = Floor::create(lab)?;
    let probe = std::fs::canonicalize(probe)
        .with_context(|| format!("{}: build the image first (make image)", probe.display()))?;
    let address = |node: &str| -> anyhow::Result<String> {
        Ok(lab
            .kubectl(&[
                "get",
                "node",
                node,
                "-o",
                "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}",
            ])?
            .split_whitespace()
            .next()
            .context("a node without InternalIP")?
            .to_owned())
    };
    let netns = |pod: &str, node: &str| -> anyhow::Result<Vec<String>> {
        let name = lab.pod_netns(node, &pods.address(pod)?.to_string())?;
        Ok(["ip", "netns", "exec", &name].map(String::from).into())
    };
    let paths = [
        Way {
            name: "pod to pod",
            address: pods.address("server")?.to_string(),
            client: netns("client", CLIENT)?,
            server: netns("server", SERVER)?,
        },
        Way {
            name: "VXLAN floor",
            address: FLOOR_SERVER.into(),
            client: Vec::new(),
            server: Vec::new(),
        },
        Way {
            name: "host to host",
            address: address(SERVER)?,
            client: Vec::new(),
            server: Vec::new(),
        },
    ];
    // pod, floor, host, host again (the control), floor, pod: drift hits all alike.
    let mut samples: [Vec<Sample>; 4] = Default::default();
    for round in 0..rounds {
        let order: [(usize, usize); 4] = if round % 2 == 0 {
            [(0, 0), (1, 1), (2, 2), (3, 2)]
        } else {
            [(3, 2), (2, 2), (1, 1), (0, 0)]
        };
        for (slot, path) in order {
            let sample = sample(lab, &paths[path], &probe, seconds)?;
            println!(
                "  round {}/{rounds} {:<13} {:6.2} Gbit/s  {:.3} CPU s/GB  p50 {:.1} us",
                round + 1,
                paths[path].name,
                sample.gbit,
                sample.cpu_seconds_per_gb,
                sample.rr_p50_us
            );
            if round > 0 || rounds == 1 {
                samples[slot].push(sample);
            }
        }
    }
    drop(floor);
    drop(pods);
    Ok(rows(&samples))
}

fn rows(samples: &[Vec<Sample>; 4]) -> Vec<Row> {
    let column =
        |slot: usize, f: fn(&Sample) -> f64| samples[slot].iter().map(f).collect::<Vec<f64>>();
    let row = |name: &str, other: usize, f: fn(&Sample) -> f64, budget: Budget| {
        let (ours, theirs) = (column(0, f), column(other, f));
        let noise = spread(&ratios(&column(2, f), &column(3, f)));
        Row::new(
            name,
            "full",
            (median(&ours), median(&theirs)),
            spread(&ratios(&ours, &theirs)),
            Some(noise),
            budget,
        )
    };
    vec![
        row(
            "TCP 1 flow, Gbit/s, pod to pod / VXLAN floor",
            1,
            |s| s.gbit,
            Budget::AtLeast(0.80),
        ),
        row(
            "TCP 1 flow, Gbit/s, pod to pod / host to host",
            2,
            |s| s.gbit,
            Budget::None,
        ),
        row(
            "CPU seconds per GB, pod to pod / VXLAN floor",
            1,
            |s| s.cpu_seconds_per_gb,
            Budget::AtMost(1.20),
        ),
        row(
            "CPU seconds per GB, pod to pod / host to host",
            2,
            |s| s.cpu_seconds_per_gb,
            Budget::None,
        ),
        row(
            "request/response p50 us, pod to pod / VXLAN floor",
            1,
            |s| s.rr_p50_us,
            Budget::None,
        ),
        row(
            "request/response p50 us, pod to pod / host to host",
            2,
            |s| s.rr_p50_us,
            Budget::AtMost(1.90),
        ),
    ]
}

/// One throughput run and one request/response run, client on CPU 0, server on CPU 1.
fn sample(lab: &Lab, path: &Way, probe: &Path, seconds: u32) -> anyhow::Result<Sample> {
    let probe = probe.display().to_string();
    let with = |prefix: &[String], rest: &[&str]| -> Vec<String> {
        prefix
            .iter()
            .cloned()
            .chain(rest.iter().map(|s| (*s).to_owned()))
            .collect()
    };
    let server = with(
        &path.server,
        &["taskset", "-c", "1", "iperf3", "-s", "-1", "-p", "5299"],
    );
    let server = start(lab, SERVER, &server)?;
    await_port(lab, path, 5299)?;
    let length = seconds.to_string();
    let client = with(
        &path.client,
        &[
            "taskset",
            "-c",
            "0",
            "iperf3",
            "-c",
            &path.address,
            "-p",
            "5299",
            "-t",
            &length,
            "-O",
            "1",
            "-J",
        ],
    );
    let before = busy_seconds()?;
    let text = lab.run(
        CLIENT,
        &client.iter().map(String::as_str).collect::<Vec<_>>(),
    )?;
    let busy = busy_seconds()? - before;
    drop(server);
    let json: Value = serde_json::from_str(&text).context("iperf3 did not print JSON")?;
    let end = &json["end"]["sum_received"];
    let bits = end["bits_per_second"]
        .as_f64()
        .context("iperf3 gave no bits_per_second")?;
    // The second that -O omits is in the CPU time as well: count its bytes at the same rate.
    let gigabytes = bits / 8e9 * f64::from(seconds + 1);

    let server = with(
        &path.server,
        &["taskset", "-c", "1", &probe, "serve", "--tcp", "5298"],
    );
    let server = start(lab, SERVER, &server)?;
    await_port(lab, path, 5298)?;
    let target = format!("{}:5298", path.address);
    let client = with(
        &path.client,
        &[
            "taskset", "-c", "0", &probe, "rr", &target, "--count", "20000",
        ],
    );
    let text = lab.run(
        CLIENT,
        &client.iter().map(String::as_str).collect::<Vec<_>>(),
    )?;
    drop(server);
    let json: Value = serde_json::from_str(text.trim()).context("weft-probe rr gave no JSON")?;
    let rr_p50_us = json["p50_us"]
        .as_f64()
        .context("weft-probe rr gave no p50_us")?;
    Ok(Sample {
        gbit: bits / 1e9,
        cpu_seconds_per_gb: busy / gigabytes,
        rr_p50_us,
    })
}

fn start(lab: &Lab, node: &str, command: &[String]) -> anyhow::Result<Running> {
    let child = lab
        .inside(
            node,
            &command.iter().map(String::as_str).collect::<Vec<_>>(),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start on {node}: {}", command.join(" ")))?;
    Ok(Running(child))
}

/// Waits until the server listens, seen from its own namespace (connecting would use up `-1`).
fn await_port(lab: &Lab, path: &Way, port: u16) -> anyhow::Result<()> {
    let filter = format!("sport = :{port}");
    let command: Vec<String> = path
        .server
        .iter()
        .cloned()
        .chain(["ss", "-Hltn", &filter].iter().map(|s| (*s).to_owned()))
        .collect();
    for _ in 0..100 {
        let text = lab.run(
            SERVER,
            &command.iter().map(String::as_str).collect::<Vec<_>>(),
        )?;
        if !text.trim().is_empty() {
            return Ok(());
        }
        pause(Duration::from_millis(20));
    }
    bail!(
        "nothing listens on port {port} of {} after two seconds",
        path.name
    )
}

#[allow(
    clippy::disallowed_methods,
    reason = "no runtime here; polling another process"
)]
fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// CPU seconds of the whole machine that were not idle, since boot (`/proc/stat`, proc(5)).
fn busy_seconds() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let fields: Vec<f64> = text
        .lines()
        .next()
        .context("/proc/stat is empty")?
        .split_whitespace()
        .skip(1)
        .filter_map(|f| f.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal: all but idle, iowait and steal; USER_HZ is 100.
    let busy: f64 = fields
        .iter()
        .enumerate()
        .filter(|(i, _)| ![3, 4, 7].contains(i))
        .map(|f| f.1)
        .take(5)
        .sum();
    Ok(busy / 100.0)
}

/// A vxlan device with an address on each of the two nodes.
struct Floor<'a>(&'a Lab);

impl<'a> Floor<'a> {
    fn create(lab: &'a Lab) -> anyhow::Result<Self> {
        let floor = Self(lab);
        floor.remove();
        let underlay = lab.kubectl(&[
            "get",
            "nodes",
            CLIENT,
            SERVER,
            "-o",
            "jsonpath={range .items[*]}{.status.addresses[0].address}{\"\\n\"}{end}",
        ])?;
        let addresses: Vec<&str> = underlay.split_whitespace().collect();
        let [client, server] = addresses[..] else {
            bail!("expected two InternalIPs, got {addresses:?}")
        };
        for (node, local, remote, address) in [
            (CLIENT, client, server, FLOOR_CLIENT),
            (SERVER, server, client, FLOOR_SERVER),
        ] {
            let script = format!(
                "set -e; ip link add {FLOOR_DEVICE} type vxlan id 4242 dstport 4790 local {local} remote {remote}; \
                 ip addr add {address}/24 dev {FLOOR_DEVICE}; ip link set {FLOOR_DEVICE} up"
            );
            lab.run(node, &["sh", "-c", &script])?;
        }
        Ok(floor)
    }

    fn remove(&self) {
        for node in [CLIENT, SERVER] {
            // Absent is the wanted state.
            let _ = self.0.run(node, &["ip", "link", "del", FLOOR_DEVICE]);
        }
    }
}

impl Drop for Floor<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}
