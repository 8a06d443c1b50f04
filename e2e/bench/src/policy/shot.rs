//! Packets: one connection after the other as fast as it goes, or on a clock, or back and forth
//! over one connection.
//!
//! Nobody listens at the other end. A connection that arrives is refused by the receiver's kernel
//! within the system call that sent it (a veth pair is worked off by the sender), so what a loop
//! takes is what the kernel takes, and a connection that was dropped is known by its silence.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{
    objects::{ALLOWED, FLOW, TARGET, at},
    space::Space,
    stage::Stage,
};
use crate::sample::median;

/// Connections between two looks at the clock.
const BURST: u32 = 20;

#[allow(
    clippy::disallowed_methods,
    reason = "no runtime here; attempts start on a clock"
)]
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Keeps the calling thread on the first processor.
fn pin() -> anyhow::Result<()> {
    let mut first = CpuSet::new();
    first.set(0)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &first)?)
}

/// Is a connection answered, if only by a reset?
pub(crate) fn arrives(to: SocketAddr, patience: Duration) -> bool {
    match TcpStream::connect_timeout(&to, patience) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    }
}

/// Nanoseconds of one `work`: the median of short bursts, so that what interrupts a burst (another
/// process, a timer) counts no more than any other.
fn typical(length: Duration, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut bursts = Vec::new();
    while start.elapsed() < length || bursts.len() < 5 {
        let burst = Instant::now();
        for _ in 0..BURST {
            work()?;
        }
        bursts.push(burst.elapsed().as_secs_f64() * 1e9 / f64::from(BURST));
    }
    Ok(median(&bursts))
}

/// Nanoseconds per new connection, over `length`.
pub(crate) fn connection_cost(client: &Space, length: Duration) -> anyhow::Result<f64> {
    client.run(move || {
        // A thread of its own: others of the namespace run wherever they like.
        std::thread::spawn(move || -> anyhow::Result<f64> {
            pin()?;
            typical(length, || match TcpStream::connect(at(ALLOWED)) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
                other => bail!("a connection should be refused by the pod: {other:?}"),
            })
        })
        .join()
        .map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
    })?
}

/// Nanoseconds per round trip of a byte over an established connection, over `length`. Both
/// ends are in one thread, so no wake-up is in it.
pub(crate) fn round_trip_cost(stage: &Stage, length: Duration) -> anyhow::Result<f64> {
    let listener = stage
        .server
        .run(|| TcpListener::bind((TARGET, ALLOWED)))??;
    let mut ours = stage
        .client
        .run(|| TcpStream::connect_timeout(&at(ALLOWED), Duration::from_secs(1)))?
        .context("an allowed connection is refused")?;
    let (mut theirs, _) = listener.accept()?;
    drop(listener);
    let measured = std::thread::spawn(move || -> anyhow::Result<f64> {
        pin()?;
        for end in [&ours, &theirs] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(Duration::from_secs(1)))?;
        }
        let mut byte = [0];
        typical(length, || {
            ours.write_all(&[1])?;
            theirs.read_exact(&mut byte)?;
            theirs.write_all(&[1])?;
            Ok(ours.read_exact(&mut byte)?)
        })
    });
    measured
        .join()
        .map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
}

/// An attempt to connect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    /// When it began.
    pub(crate) at: Instant,
    /// It was answered.
    pub(crate) passed: bool,
}

/// One attempt per `every`, until `end` is set or `log` answers `false`; each waits up to `patience`
/// for an answer.
pub(crate) fn on_clock(
    to: SocketAddr,
    every: Duration,
    patience: Duration,
    end: &AtomicBool,
    mut log: impl FnMut(Attempt) -> bool,
) {
    let mut next = Instant::now();
    while !end.load(Ordering::Relaxed) {
        let at = Instant::now();
        let passed = arrives(to, patience);
        if !log(Attempt { at, passed }) {
            return;
        }
        // A clock, not a pause; what was missed is not made up for.
        next = (next + every).max(Instant::now());
        pause(next.saturating_duration_since(Instant::now()));
    }
}

/// Attempts on a clock, until dropped.
pub(crate) struct Attempts {
    made: Arc<Mutex<Vec<Attempt>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Attempts {
    /// From `client` to `to`, one per `every`; each waits up to `patience` for an answer.
    pub(crate) fn start(
        client: &Space,
        to: SocketAddr,
        every: Duration,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let (made, stop) = (Arc::default(), Arc::default());
        let (log, end): (Arc<Mutex<Vec<Attempt>>>, Arc<AtomicBool>) =
            (Arc::clone(&made), Arc::clone(&stop));
        let thread = client.run(move || {
            std::thread::spawn(move || {
                on_clock(to, every, patience, &end, |attempt| {
                    log.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(attempt);
                    true
                });
            })
        })?;
        Ok(Self {
            made,
            stop,
            thread: Some(thread),
        })
    }

    /// Those that `thread` enters into `made`, until it ends.
    pub(crate) fn of_log(made: Arc<Mutex<Vec<Attempt>>>, thread: JoinHandle<()>) -> Self {
        Self {
            made,
            stop: Arc::default(),
            thread: Some(thread),
        }
    }

    /// Those that began at `since` or later.
    pub(crate) fn since(&self, since: Instant) -> Vec<Attempt> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = made.partition_point(|attempt| attempt.at < since);
        made[begin..].to_vec()
    }

    /// Waits until the last `count` attempts since `since` all passed, or none did: what was
    /// made since then.
    pub(crate) fn settled(
        &self,
        since: Instant,
        count: usize,
        passing: bool,
        patience: Duration,
    ) -> anyhow::Result<Vec<Attempt>> {
        loop {
            let made = self.since(since);
            let tail = made
                .iter()
                .rev()
                .take_while(|a| a.passed == passing)
                .count();
            if tail >= count {
                return Ok(made);
            }
            if since.elapsed() > patience {
                bail!(
                    "after {patience:?} connections {} pass",
                    if passing { "still do not" } else { "still" }
                );
            }
            pause(Duration::from_millis(1));
        }
    }
}

impl Drop for Attempts {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic.
            let _ = thread.join();
        }
    }
}

/// A flow of UDP that lives through what is done meanwhile.
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<anyhow::Result<(u32, u32)>>,
}

impl Flow {
    /// One numbered packet per `every` from the client to the pod, echoed by it.
    pub(crate) fn start(stage: &Stage, every: Duration) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let echo = stage.server.run(|| UdpSocket::bind((TARGET, FLOW)))??;
        echo.set_read_timeout(Some(Duration::from_millis(500)))?;
        let end = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut buffer = [0; 4];
            loop {
                match echo.recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        // An echo that cannot be sent is a packet lost, and counted by the sender.
                        let _ = echo.send_to(&buffer[..length], from);
                    }
                    // It outlives the sender by the time of a late packet.
                    Err(_) if end.load(Ordering::Relaxed) => return,
                    Err(_) => {}
                }
            }
        });
        let socket = stage.client.run(|| -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            socket.connect(at(FLOW))?;
            Ok(socket)
        })??;
        socket.set_nonblocking(true)?;
        let end = Arc::clone(&stop);
        let sender = std::thread::spawn(move || flow(&socket, every, &end));
        Ok(Self { stop, sender })
    }

    /// Packets sent, and those of them that did not come back.
    pub(crate) fn stop(self) -> anyhow::Result<(u32, u32)> {
        self.stop.store(true, Ordering::Relaxed);
        self.sender
            .join()
            .map_err(|_| anyhow::anyhow!("the sending thread panicked"))?
    }
}

fn flow(socket: &UdpSocket, every: Duration, end: &AtomicBool) -> anyhow::Result<(u32, u32)> {
    let (mut sent, mut seen) = (0_u32, 0_u32);
    let mut receive = || {
        let mut buffer = [0; 4];
        while let Ok(4) = socket.recv(&mut buffer) {
            seen += 1;
        }
    };
    while !end.load(Ordering::Relaxed) {
        socket.send(&sent.to_be_bytes())?;
        sent += 1;
        pause(every);
        receive();
    }
    // The last ones may be on their way.
    pause(Duration::from_millis(300));
    receive();
    Ok((sent, sent.saturating_sub(seen)))
}
