//! `weft-probe meter` at its full rate through a filter of a known behaviour: what it reports is
//! what the filter did.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::Child,
    time::Duration,
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
/// What a window may be wrong by: attempts 2 ms apart, and half a scheduler's delay at either end.
const WRONG_BY_MS: u64 = 10;
/// Measurements, if the meter itself says that it was blind for longer than that.
const TRIES: usize = 6;
/// As the experiments start the meter: a busy machine must not blind it, nor keep the server from
/// taking connections.
const FIRST: &str = "chrt --other 0 nice -n -15";

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
            "{FIRST} {PROBE} serve --tcp 8080,8081 --udp 8080,8081 --push 8082"
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
        let mut child = self
            .client
            .spawn(&format!("{FIRST} {PROBE} meter {arguments}"));
        let stderr = child.stderr.as_mut().expect("piped");
        let mut line = String::new();
        BufReader::new(stderr)
            .read_line(&mut line)
            .expect("a line of the meter");
        assert_eq!(line.trim(), "measuring");
        child
    }

    /// Everything at once, with one window.
    fn measure(&self) -> Measured {
        let meter = self.meter(&format!(
            "--duration {SECONDS}s --forbidden tcp/192.0.2.1:8081@500 \
             --allowed tcp/192.0.2.1:8080@500 --forbidden udp/192.0.2.1:8081@50 \
             --allowed udp/192.0.2.1:8080@50 --flow tcp/192.0.2.1:8082 --flow udp/192.0.2.1:8080"
        ));
        self.server.sh(&format!(
            "sleep 3; nft add element inet t open '{{ 8081 timeout {WINDOW_MS}ms }}'"
        ));
        let measured = report(meter);
        is_right_but_for_windows(&measured);
        measured
    }
}

/// What was due was done, and all but what passed the window came to what it should.
fn is_right_but_for_windows(measured: &Measured) {
    let [forbidden, forbidden_udp, allowed, allowed_udp] = &measured.lanes[..] else {
        unreachable!("a lane for each target: {measured:?}");
    };
    assert!(measured.length_ms >= SECONDS * 1000, "{measured:?}");
    for (lane, rate) in [
        (forbidden, 500),
        (allowed, 500),
        (forbidden_udp, 50),
        (allowed_udp, 50),
    ] {
        let due = rate * measured.length_ms / 1000;
        assert!(
            lane.untried == 0 && lane.sent >= due * 98 / 100 && lane.sent <= due * 102 / 100,
            "{due} attempts were due: {lane:?}"
        );
    }
    for lane in [allowed, allowed_udp, forbidden_udp] {
        assert_eq!((lane.wrong, &lane.windows[..]), (0, &[][..]), "{lane:?}");
    }
    for flow in &measured.flows {
        // Numbers that were due while it waited for a processor are not sent.
        assert!(flow.sent >= SECONDS * 50, "{flow:?}");
        assert_eq!((flow.lost, &flow.ended), (0, &None), "{flow:?}");
        assert!(flow.longest_gap_ms < 1000, "{flow:?}");
    }
}

/// One window of the filter's length is reported, and what passed in it.
fn window_is_found(forbidden: &Lane) -> bool {
    let [window] = forbidden.windows[..] else {
        return false;
    };
    let length = window.to_ms - window.from_ms;
    length.abs_diff(WINDOW_MS) <= WRONG_BY_MS
        && window.attempts == forbidden.wrong
        && forbidden.wrong.abs_diff(WINDOW_MS / 2) <= WRONG_BY_MS / 2
}

fn report(mut child: Child) -> Measured {
    let mut text = String::new();
    let stdout = child.stdout.as_mut().expect("piped");
    stdout.read_to_string(&mut text).expect("a report");
    assert!(child.wait().expect("its end").success(), "{text}");
    serde_json::from_str(&text).expect("a report")
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn full_rate_through_a_filter_is_counted_right_and_a_window_of_50_ms_is_found() {
    let stage = Stage::new();
    for _ in 0..TRIES {
        let forbidden = stage.measure().lanes.remove(0);
        if window_is_found(&forbidden) {
            return;
        }
        // It says itself how long a window it can have missed: nothing else excuses it.
        assert!(forbidden.longest_pause_ms > WRONG_BY_MS, "{forbidden:?}");
    }
    panic!("the meter was blind each time: this machine has no time for it");
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
    // Far more than the table may hold: an entry for each port of a lane (meter/lane.rs).
    assert!(lane.sent >= 10_000 && lane.wrong == 0, "{lane:?}");
    assert!(
        entries > 1000 && entries <= 6200,
        "{entries} entries after {} attempts",
        lane.sent
    );
}
