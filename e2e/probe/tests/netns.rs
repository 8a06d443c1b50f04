//! `weft-probe meter` at its full rate through a filter of a known behaviour: what it reports is
//! what the filter did.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::Child,
    time::{Duration, Instant},
};

use weft_probe::measured::{Lane, Measured};
use weft_testkit::{
    eventually::eventually,
    netns::{Netns, join},
};

/// The program under test.
const PROBE: &str = env!("CARGO_BIN_EXE_weft-probe");
/// Measured time.
const SECONDS: u64 = 10;
/// For how long the filter is open.
const WINDOW_MS: u64 = 50;

/// A server behind a filter that drops 8081 unless the port is in the set `open`, whose members the
/// kernel forgets by itself: a window of a known length, whatever starting `nft` takes.
const FILTER: &str = "nft -f - <<'END'
table inet t {
  set open { type inet_service; flags timeout; }
  chain in {
    type filter hook input priority 0;
    tcp dport @open accept
    meta l4proto { tcp, udp } th dport 8081 drop
  }
}
END";

struct Stage {
    server: Netns,
    client: Netns,
    _serving: Serving,
}

/// A server that ends with this value.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stage {
    fn new() -> Self {
        let (server, client) = (Netns::new(), Netns::new());
        join(&server, "s", "192.0.2.1/24", &client, "c", "192.0.2.2/24");
        server.sh(FILTER);
        let serving = Serving(server.spawn(&format!(
            "{PROBE} serve --tcp 8080,8081 --udp 8080,8081 --push 8082"
        )));
        eventually(Duration::from_secs(10), || {
            client.try_sh(&format!("{PROBE} connect 192.0.2.1:8080 --timeout 500ms"))
        });
        Self {
            server,
            client,
            _serving: serving,
        }
    }

    /// Starts the meter and waits until it measures.
    fn meter(&self, arguments: &str) -> Child {
        // As the experiments start it: a busy machine must not blind it.
        let line = format!("chrt --other 0 nice -n -15 {PROBE} meter {arguments}");
        let mut child = self.client.spawn(&line);
        let stderr = child.stderr.as_mut().expect("piped");
        let mut line = String::new();
        BufReader::new(stderr)
            .read_line(&mut line)
            .expect("a line of the meter");
        assert_eq!(line.trim(), "measuring");
        child
    }
}

fn report(mut child: Child) -> Measured {
    let mut text = String::new();
    let stdout = child.stdout.as_mut().expect("piped");
    stdout.read_to_string(&mut text).expect("a report");
    assert!(child.wait().expect("its end").success(), "{text}");
    serde_json::from_str(&text).expect("a report")
}

/// Processor time of a process, seconds (proc(5): fields 14 and 15, a hundredth each).
fn processor(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let ticks = |field: &str| field.parse::<f64>().expect("ticks");
    (ticks(fields[12]) + ticks(fields[13])) / 100.0
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn full_rate_through_a_filter_is_counted_right_and_a_window_of_50_ms_is_found() {
    let stage = Stage::new();
    let begun = Instant::now();
    let meter = stage.meter(&format!(
        "--duration {SECONDS}s --forbidden tcp/192.0.2.1:8081@500 --allowed tcp/192.0.2.1:8080@500 \
         --forbidden udp/192.0.2.1:8081@50 --allowed udp/192.0.2.1:8080@50 \
         --flow tcp/192.0.2.1:8082 --flow udp/192.0.2.1:8080"
    ));
    stage.server.sh(&format!(
        "sleep 3; nft add element inet t open '{{ 8081 timeout {WINDOW_MS}ms }}'; sleep 5"
    ));
    let used = processor(meter.id());
    let elapsed = begun.elapsed().as_secs_f64();
    let measured = report(meter);
    eprintln!("the meter used {used:.2} s of processor time in {elapsed:.1} s: {measured:?}");

    let [forbidden, forbidden_udp, allowed, allowed_udp] = &measured.lanes[..] else {
        panic!("{measured:?}");
    };
    for (lane, rate) in [
        (forbidden, 500),
        (allowed, 500),
        (forbidden_udp, 50),
        (allowed_udp, 50),
    ] {
        let due = rate * SECONDS;
        assert!(
            lane.untried == 0 && lane.sent >= due * 98 / 100 && lane.sent <= due * 102 / 100,
            "{due} attempts were due: {lane:?}"
        );
    }
    for lane in [allowed, allowed_udp, forbidden_udp] {
        assert_eq!((lane.wrong, &lane.windows[..]), (0, &[][..]), "{lane:?}");
    }
    let [window] = forbidden.windows[..] else {
        panic!("one window was open: {forbidden:?}");
    };
    let length = window.to_ms - window.from_ms;
    // Attempts 2 ms apart, and half a scheduler's delay at either end.
    assert!(
        length.abs_diff(WINDOW_MS) <= 10,
        "{length} ms: {forbidden:?}"
    );
    assert_eq!(window.attempts, forbidden.wrong);
    assert!(
        forbidden.wrong.abs_diff(WINDOW_MS / 2) <= 5,
        "{forbidden:?}"
    );
    for flow in &measured.flows {
        assert!(flow.sent >= SECONDS * 95, "{flow:?}");
        assert_eq!((flow.lost, &flow.ended), (0, &None), "{flow:?}");
        assert!(flow.longest_gap_ms < 200, "{flow:?}");
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn connection_table_stays_small_however_long_attempts_go_on() {
    let stage = Stage::new();
    // Connection tracking begins with the first rule that asks for it.
    stage
        .server
        .sh("nft add rule inet t in ct state established accept");
    stage.client.sh(
        "nft add table inet t; nft 'add chain inet t out { type filter hook output priority 0; }'; \
             nft add rule inet t out ct state new accept",
    );
    let meter = stage.meter("--duration 10s --forbidden tcp/192.0.2.1:8081@2000");
    let lane: Lane = report(meter).lanes.remove(0);
    let entries: u64 = stage
        .client
        .sh("cat /proc/sys/net/netfilter/nf_conntrack_count")
        .parse()
        .expect("a number");
    assert!(lane.sent >= 15_000 && lane.wrong == 0, "{lane:?}");
    assert!(
        entries > 1000 && entries <= 4200,
        "{entries} entries after {} attempts",
        lane.sent
    );
}
