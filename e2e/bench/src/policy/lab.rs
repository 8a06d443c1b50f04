//! One change of a policy in the lab: the write goes to the real API server, npc runs where weft was
//! installed, and the connection goes from a pod of one node to a pod of another.
//!
//! The write is timed without the start of a kubectl: `kubectl proxy` runs meanwhile and takes plain
//! HTTP on this machine's loopback.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{
    change::{ANSWER, EVERY, Times, budget, rows},
    shot::{self, Attempt, Attempts},
};
use crate::{
    node::{Lab, Running},
    pods::Pods,
    report::Row,
};

const NAMESPACE: &str = "weft-bench-policy";
const CLIENT: &str = "n1";
const SERVER: &str = "n2";
const PORT: u16 = 8080;
/// Where `kubectl proxy` listens.
const PROXY: &str = "127.0.0.1:18123";
/// Numbers of policies that are loaded, ascending.
const LOADED: [usize; 2] = [10, 1000];

/// Arguments of the part that connects, which runs inside a pod's namespace.
#[derive(clap::Args)]
pub(crate) struct Attempting {
    /// Where to.
    #[arg(long)]
    target: SocketAddr,
}

/// Tries for ever and prints when each attempt began, in nanoseconds of the wall clock (the one
/// clock that two processes share), and whether it was answered.
pub(crate) fn attempting(arguments: &Attempting) -> anyhow::Result<()> {
    let clock = Clock::new();
    let mut out = std::io::stdout().lock();
    let end = AtomicBool::new(false);
    // An answer comes from another node.
    shot::on_clock(arguments.target, EVERY, ANSWER * 2, &end, |attempt| {
        let nanoseconds = clock.wall(attempt.at).as_nanos();
        let line = format!("{nanoseconds} {}\n", u8::from(attempt.passed));
        // Whoever reads has gone: so do we.
        out.write_all(line.as_bytes())
            .and_then(|()| out.flush())
            .is_ok()
    });
    Ok(())
}

/// One moment on both clocks.
struct Clock {
    instant: Instant,
    wall: Duration,
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "shared with another process")]
    fn new() -> Self {
        Self {
            instant: Instant::now(),
            wall: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    fn wall(&self, at: Instant) -> Duration {
        self.wall + at.saturating_duration_since(self.instant)
    }

    fn instant(&self, wall: Duration) -> Instant {
        self.instant + wall.saturating_sub(self.wall)
    }
}

/// Measures and forms rows.
pub(crate) fn measure(lab: &Lab, changes: usize) -> anyhow::Result<Vec<Row>> {
    let bed = Bed::create(lab)?;
    let mut all = Vec::new();
    let mut loaded = 1;
    for policies in LOADED {
        for n in loaded..policies {
            bed.call("POST", "", &policy(&format!("p-{n:05}"), "other", n))?;
        }
        loaded = policies;
        let (attempts, child) = bed.attempts()?;
        let start = Instant::now();
        attempts.settled(start, 20, false, Duration::from_secs(30))?;
        let mut times = Times::default();
        for _ in 0..changes {
            times.measure(&attempts, |open| {
                let body = target_policy(open);
                bed.call("PUT", "/target", &body)
            })?;
        }
        // The reader ends when its writer does.
        drop(child);
        drop(attempts);
        let what = format!("{policies} policies, real API server");
        all.extend(rows(
            &what,
            "lab",
            &times,
            &Times::default(),
            budget(policies),
        ));
    }
    Ok(all)
}

fn policy(name: &str, app: &str, n: usize) -> Value {
    let (cidr, port) = super::objects::network(n);
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"],
            "ingress": [super::objects::network_rule(&cidr, port)]}})
}

fn target_policy(open: bool) -> Value {
    let mut policy = policy("target", "server", 0);
    if open {
        policy["spec"]["ingress"] = json!([{
            "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
            "ports": [{"protocol": "TCP", "port": PORT}]}]);
    }
    policy
}

/// Three pods, the proxy, and the closed policy of the server.
struct Bed<'a> {
    lab: &'a Lab,
    _pods: Pods<'a>,
    _proxy: Running,
    client_netns: String,
    server: SocketAddr,
}

impl<'a> Bed<'a> {
    fn create(lab: &'a Lab) -> anyhow::Result<Self> {
        let all = [("client", CLIENT), ("server", SERVER), ("other", SERVER)];
        let pods = Pods::create(lab, NAMESPACE, &all)?;
        let port = PROXY.split(':').next_back().unwrap_or_default();
        let proxy = lab.kubectl_start(&["proxy", "--port", port])?;
        let bed = Self {
            lab,
            _proxy: proxy,
            client_netns: lab.pod_netns(CLIENT, &pods.address("client")?.to_string())?,
            server: SocketAddr::new(pods.address("server")?, PORT),
            _pods: pods,
        };
        let start = Instant::now();
        while TcpStream::connect(PROXY).is_err() {
            ensure!(
                start.elapsed() < Duration::from_secs(10),
                "kubectl proxy does not listen"
            );
            shot::pause(Duration::from_millis(20));
        }
        bed.call("POST", "", &target_policy(false))?;
        Ok(bed)
    }

    /// One request about policies of the namespace.
    fn call(&self, verb: &str, name: &str, body: &Value) -> anyhow::Result<()> {
        let path =
            format!("/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies{name}");
        let body = body.to_string();
        let mut stream = TcpStream::connect(PROXY)?;
        stream.set_nodelay(true)?;
        let request = format!(
            "{verb} {path} HTTP/1.1\r\nHost: {PROXY}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let good = answer
            .split(' ')
            .nth(1)
            .is_some_and(|code| code.starts_with('2'));
        ensure!(good, "{verb} {path}: {answer}");
        Ok(())
    }

    /// Attempts from the client's namespace to the server.
    #[allow(
        clippy::disallowed_methods,
        reason = "the same program runs again inside the node"
    )]
    fn attempts(&self) -> anyhow::Result<(Attempts, Running)> {
        let me = std::env::current_exe()?.display().to_string();
        let target = self.server.to_string();
        let words = [
            "ip",
            "netns",
            "exec",
            &self.client_netns,
            &me,
            "attempting",
            "--target",
            &target,
        ];
        let mut child = self
            .lab
            .inside(CLIENT, &words)
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("standard output is closed")?;
        let child = Running(child);
        let made: Arc<Mutex<Vec<Attempt>>> = Arc::default();
        let log = Arc::clone(&made);
        let thread = std::thread::spawn(move || {
            let clock = Clock::new();
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some((nanoseconds, passed)) = line.split_once(' ')
                    && let Ok(nanoseconds) = nanoseconds.parse()
                {
                    log.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(Attempt {
                            at: clock.instant(Duration::from_nanos(nanoseconds)),
                            passed: passed == "1",
                        });
                }
            }
        });
        Ok((Attempts::of_log(made, thread), child))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clocks_tell_the_same_moment() {
        let clock = Clock::new();
        let at = clock.instant + Duration::from_millis(1234);
        assert_eq!(clock.instant(clock.wall(at)), at);
    }
}
