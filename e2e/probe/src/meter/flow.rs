//! Flows that live through a measurement: numbers in both directions.

use std::{collections::BTreeSet, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{
        TcpStream, UdpSocket,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
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

/// The client's end.
enum Way {
    /// The server says by itself, in each line, how many lines of ours it had and how long it had to
    /// wait for one.
    Tcp {
        lines: Lines<BufReader<OwnedReadHalf>>,
        writer: OwnedWriteHalf,
    },
    /// The server sends back what it gets.
    Udp {
        socket: UdpSocket,
        seen: BTreeSet<u64>,
        buffer: Vec<u8>,
    },
}

/// Opens a flow; a failure is part of its report.
pub(crate) async fn open(target: &Target) -> Opened {
    let way = match target.proto {
        Transport::Tcp => stream(target.address).await,
        Transport::Udp => datagrams(target.address).await,
    };
    Opened {
        flow: Flow::new(target),
        way,
    }
}

async fn stream(target: SocketAddr) -> io::Result<Way> {
    let stream = in_time(TcpStream::connect(target)).await?;
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Ok(Way::Tcp {
        lines: BufReader::new(reader).lines(),
        writer,
    })
}

async fn datagrams(target: SocketAddr) -> io::Result<Way> {
    let socket = UdpSocket::bind((unspecified(target.ip()), 0)).await?;
    socket.connect(target).await?;
    Ok(Way::Udp {
        socket,
        seen: BTreeSet::new(),
        buffer: vec![0; 2048],
    })
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(OPEN, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Way {
    /// Sends a number.
    async fn say(&mut self, number: u64) -> io::Result<()> {
        match self {
            Self::Tcp { writer, .. } => {
                in_time(writer.write_all(format!("{number}\n").as_bytes())).await
            }
            Self::Udp { socket, .. } => {
                // A refused send is an ICMP error for an earlier number, which stays missing.
                let _ = socket.send(number.to_string().as_bytes()).await;
                Ok(())
            }
        }
    }

    /// Waits for the server and notes what it says: was it news? Nothing is lost if it is cancelled.
    async fn hear(&mut self, flow: &mut Flow) -> io::Result<bool> {
        match self {
            Self::Tcp { lines, .. } => {
                let line = lines.next_line().await?;
                let line = line.ok_or(io::ErrorKind::UnexpectedEof)?;
                let said = Pushed::parse(&line)
                    .ok_or_else(|| io::Error::other(format!("the server said {line:?}")))?;
                flow.pushed += 1;
                flow.received = said.received;
                flow.server_gap_ms = said.gap_ms;
                Ok(true)
            }
            Self::Udp {
                socket,
                seen,
                buffer,
            } => {
                let Ok(read) = socket.recv(buffer).await else {
                    return Ok(false);
                };
                let echo = parse(&buffer[..read])
                    .ok()
                    .and_then(|greeting| greeting.echo);
                let number = echo.and_then(|echo| echo.parse().ok());
                let news = number.is_some_and(|number| seen.insert(number));
                flow.received += u64::from(news);
                Ok(news)
            }
        }
    }
}

impl Opened {
    /// Sends a number every `interval` until the end.
    pub(crate) async fn run(self, interval: Duration, course: Course) -> Flow {
        let mut flow = self.flow;
        let ended = match self.way {
            Ok(way) => run(way, &mut flow, interval, course).await,
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

async fn run(mut way: Way, flow: &mut Flow, pause: Duration, mut course: Course) -> io::Result<()> {
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
                let number = flow.sent;
                flow.sent += 1;
                way.say(number).await?;
            }
            news = way.hear(flow) => {
                if news? && give_up.is_none() {
                    flow.heard(clock.now_ms());
                }
            }
            () = sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() => {
                return Ok(());
            }
        }
    }
}
