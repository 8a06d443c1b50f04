//! Flows that live through a measurement: numbers in both directions.

use std::{collections::BTreeSet, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpStream, UdpSocket},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use weft_probe::measured::{Flow, Target, Transport};

use super::Course;
use crate::{connect::parse, ping::unspecified, push::Pushed};

/// How long a flow may take to be opened, and a write to be taken.
const OPEN: Duration = Duration::from_secs(2);
/// How long what is under way at the end may take to arrive.
const LATE: Duration = Duration::from_secs(1);

/// A flow that stands, or why it does not.
pub(crate) struct Opened {
    flow: Flow,
    way: io::Result<Way>,
}

enum Way {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// Opens a flow; a failure is part of its report.
pub(crate) async fn open(target: &Target) -> Opened {
    let way = match target.proto {
        Transport::Tcp => timeout(OPEN, TcpStream::connect(target.address))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .and_then(|stream| stream.set_nodelay(true).map(|()| Way::Tcp(stream))),
        Transport::Udp => datagram(target.address).await.map(Way::Udp),
    };
    Opened {
        flow: Flow::new(target),
        way,
    }
}

async fn datagram(target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((unspecified(target.ip()), 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

impl Opened {
    /// Sends a number every `interval` until the end.
    pub(crate) async fn run(self, interval: Duration, course: Course) -> Flow {
        let mut flow = self.flow;
        let ended = match self.way {
            Ok(Way::Tcp(stream)) => tcp(stream, &mut flow, interval, course).await,
            Ok(Way::Udp(socket)) => udp(&socket, &mut flow, interval, course).await,
            Err(error) => {
                flow.sent = 1;
                Err(error)
            }
        };
        flow.lost = flow.sent.saturating_sub(flow.received);
        flow.ended = ended.err().map(|error| error.to_string());
        flow
    }
}

/// The server says by itself, in each line, how many lines of ours it had and how long it had to
/// wait for one.
async fn tcp(
    stream: TcpStream,
    flow: &mut Flow,
    pause: Duration,
    mut course: Course,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let mut tick = interval(pause.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let clock = course.clone();
    let mut give_up: Option<Instant> = None;
    flow.last_ms = clock.now_ms();
    loop {
        if give_up.is_some() && flow.received >= flow.sent {
            return Ok(());
        }
        tokio::select! {
            () = course.stopped(), if give_up.is_none() => {
                flow.quiet(clock.now_ms());
                give_up = Some(Instant::now() + LATE);
            }
            _ = tick.tick(), if give_up.is_none() => {
                let line = format!("{}\n", flow.sent);
                flow.sent += 1;
                timeout(OPEN, writer.write_all(line.as_bytes()))
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            }
            line = lines.next_line() => {
                let line = line?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let said = Pushed::parse(&line)
                    .ok_or_else(|| io::Error::other(format!("the server said {line:?}")))?;
                if give_up.is_none() {
                    flow.heard(clock.now_ms());
                }
                flow.pushed += 1;
                flow.received = said.received;
                flow.server_gap_ms = said.gap_ms;
            }
            () = sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() => {
                return Ok(());
            }
        }
    }
}

async fn udp(
    socket: &UdpSocket,
    flow: &mut Flow,
    pause: Duration,
    mut course: Course,
) -> io::Result<()> {
    let mut tick = interval(pause.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let clock = course.clone();
    let mut give_up: Option<Instant> = None;
    let mut seen = BTreeSet::new();
    let mut buffer = [0; 2048];
    flow.last_ms = clock.now_ms();
    loop {
        if give_up.is_some() && flow.received >= flow.sent {
            return Ok(());
        }
        tokio::select! {
            () = course.stopped(), if give_up.is_none() => {
                flow.quiet(clock.now_ms());
                give_up = Some(Instant::now() + LATE);
            }
            _ = tick.tick(), if give_up.is_none() => {
                let number = flow.sent.to_string();
                flow.sent += 1;
                // A refused send is an ICMP error for an earlier number, which stays missing.
                let _ = socket.send(number.as_bytes()).await;
            }
            read = socket.recv(&mut buffer) => {
                let Ok(read) = read else { continue };
                let echo = parse(&buffer[..read]).ok().and_then(|greeting| greeting.echo);
                let number = echo.and_then(|echo| echo.parse::<u64>().ok());
                if number.is_some_and(|number| seen.insert(number)) {
                    if give_up.is_none() {
                        flow.heard(clock.now_ms());
                    }
                    flow.received += 1;
                }
            }
            () = sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() => {
                return Ok(());
            }
        }
    }
}
