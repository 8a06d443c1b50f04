//! Attempts on one target, on a fixed clock: a dropped packet must not slow down the measurement.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::Range,
    time::Duration,
};

use tokio::{
    net::{TcpSocket, UdpSocket},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use weft_probe::measured::{Expect, Lane, Outcome, Tally, Target, Transport};

use super::{Course, outcome};
use crate::ping::unspecified;

/// Local ports of all lanes together: below the ones that the kernel chooses by itself.
const PORTS: Range<u16> = 10_000..32_000;
/// Ports of a lane. So many connections of it can be in the connection table of a node (a forbidden
/// one stays for two minutes), and so many attempts lie between two from the same port: at 500 a
/// second more than the ten seconds for which a connection stays there after its reset ([`turns`]).
const PORTS_OF_A_LANE: u16 = 6000;
/// Attempts under way; more are not started.
const IN_FLIGHT: usize = 2048;

/// What a lane does.
pub(crate) struct Plan {
    pub(crate) expect: Expect,
    pub(crate) target: Target,
    pub(crate) deadline: Duration,
    /// Local ports, used in turn.
    pub(crate) ports: Range<u16>,
    /// Time zero, milliseconds since 1970.
    pub(crate) begun_unix_ms: u64,
}

/// Ports of the lane `number` of `count`.
pub(crate) fn ports(number: usize, count: usize) -> Range<u16> {
    let count = u16::try_from(count.max(1)).unwrap_or(u16::MAX);
    let each = (PORTS.len() as u16 / count).clamp(1, PORTS_OF_A_LANE);
    let number = u16::try_from(number).unwrap_or(0);
    let start = PORTS.start.saturating_add(number.saturating_mul(each));
    start..start.saturating_add(each)
}

/// Ports in their turn, from the one whose turn it is at a time: a measurement goes on where one
/// before it was, with none of its ports for a whole round. A node may still track a connection of
/// the same ports that was allowed then, and a new one can pass as a part of it though nothing is
/// open: the first packet of a connection whose end was not seen whole is no new one to conntrack.
fn turns(ports: &Range<u16>, rate: u32, unix_ms: u64) -> impl Iterator<Item = u16> + use<> {
    let made = unix_ms.saturating_mul(rate.into()) / 1000;
    let turn = made.checked_rem(ports.len() as u64).unwrap_or(0);
    ports.clone().cycle().skip(turn as usize)
}

/// Makes attempts until the end, and waits for those under way.
pub(crate) async fn run(plan: &Plan, mut course: Course) -> Lane {
    let mut tally = Tally::new(plan.expect, &plan.target);
    let mut under_way: JoinSet<(u64, u64, Outcome)> = JoinSet::new();
    let mut tick = interval_at(Instant::now(), Duration::from_secs(1) / plan.target.rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut last = course.now_ms();
    let mut ports = turns(&plan.ports, plan.target.rate, plan.begun_unix_ms);
    let mut number = 0;
    loop {
        let clock = course.clone();
        tokio::select! {
            () = course.stopped() => break,
            _ = tick.tick(), if under_way.len() < IN_FLIGHT => {
                let now = clock.now_ms();
                tally.pause(now - last);
                last = now;
                let port = ports.next().unwrap_or_default();
                let (target, deadline) = (plan.target, plan.deadline);
                let this = number;
                number += 1;
                under_way.spawn(async move {
                    let at = clock.now_ms();
                    (this, at, attempt(target, port, deadline).await)
                });
            }
            Some(ended) = under_way.join_next(), if !under_way.is_empty() => count(&mut tally, ended),
        }
    }
    while let Some(ended) = under_way.join_next().await {
        count(&mut tally, ended);
    }
    tally.end()
}

fn count(tally: &mut Tally, ended: Result<(u64, u64, Outcome), tokio::task::JoinError>) {
    match ended {
        Ok((number, at, outcome)) => tally.count(number, at, outcome),
        Err(error) => tally.count(0, 0, Outcome::Untried(error.to_string())),
    }
}

async fn attempt(target: Target, port: u16, deadline: Duration) -> Outcome {
    let local = SocketAddr::new(unspecified(target.address.ip()), port);
    let result = match target.proto {
        Transport::Tcp => timeout(deadline, tcp(target.address, local)).await,
        Transport::Udp => timeout(deadline, udp(target.address, local)).await,
    };
    match result {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(error)) => outcome(&error),
        Err(_) => Outcome::Silent,
    }
}

/// A handshake, ended by a reset: nothing of it stays at either end, so the port is free at once.
async fn tcp(target: SocketAddr, local: SocketAddr) -> io::Result<()> {
    let socket = match target.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.set_zero_linger()?;
    socket.bind(local)?;
    socket.connect(target).await.map(drop)
}

async fn udp(target: SocketAddr, local: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(local).await?;
    socket.connect(target).await?;
    socket.send(b"0").await?;
    let mut buffer = [0; 256];
    socket.recv(&mut buffer).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_the_ports_and_none_has_those_of_another() {
        for count in [1, 2, 5, 6, 16, 100] {
            let mut free = PORTS.start;
            for number in 0..count {
                let ports = ports(number, count);
                assert!(
                    ports.start >= free && ports.end <= PORTS.end,
                    "{number} of {count}"
                );
                assert!(!ports.is_empty() && ports.len() <= usize::from(PORTS_OF_A_LANE));
                free = ports.end;
            }
        }
    }

    #[test]
    fn measurement_has_no_port_of_one_that_ended_just_before_it() {
        let own = ports(0, 4);
        let begun = 1_800_000_000_123;
        // Two seconds without a policy, and from five seconds later on with one.
        let before: Vec<u16> = turns(&own, 167, begun).take(334).collect();
        let after: Vec<u16> = turns(&own, 167, begun + 5000).take(3000).collect();
        assert!(after.iter().all(|port| !before.contains(port)));
        let all: Vec<u16> = turns(&own, 167, begun).take(own.len()).collect();
        assert!(own.clone().all(|port| all.contains(&port)));
    }

    #[test]
    fn port_of_a_fast_lane_rests_for_as_long_as_a_reset_connection_is_tracked() {
        assert!(ports(0, 1).len() > 500 * 10);
    }
}
