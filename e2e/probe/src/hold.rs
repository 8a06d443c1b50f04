//! `connect --hold`: one flow that lives through whatever is done to the network meanwhile.
//!
//! Numbers are sent on a fixed clock and must come back. TCP repeats lost segments, so there loss
//! shows as a gap, and only a broken connection loses numbers; over UDP each lost packet is one
//! number that is missing.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};

use crate::{
    connect::{Arguments, Proto, datagram, no_answer, open, parse},
    report::Report,
};

/// Runs the flow to its end and sums it up.
pub(crate) async fn probe(target: SocketAddr, arguments: &Arguments) -> anyhow::Result<Report> {
    match arguments.proto {
        Proto::Tcp => tcp(target, arguments).await,
        Proto::Udp => udp(target, arguments).await,
    }
}

/// What is sent and when it ends.
struct Schedule {
    start: Instant,
    count: u64,
    end: Option<Instant>,
}

impl Schedule {
    fn new(arguments: &Arguments) -> Self {
        let start = Instant::now();
        Self {
            start,
            count: arguments.count.unwrap_or(u64::MAX),
            // Without any limit the flow would never report.
            end: match (arguments.count, arguments.duration) {
                (None, None) => Some(start + Duration::from_secs(10)),
                (_, duration) => duration.map(|duration| start + duration),
            },
        }
    }

    fn more(&self, sent: u64) -> bool {
        sent < self.count && self.end.is_none_or(|end| Instant::now() < end)
    }
}

async fn tcp(target: SocketAddr, arguments: &Arguments) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let opened = timeout(arguments.timeout, open(target, arguments))
        .await
        .unwrap_or_else(|_| Err(no_answer(arguments.timeout)));
    let stream = match opened {
        Ok(stream) => stream,
        Err(error) => {
            report.sent = 1;
            report.failed(&error);
            return Ok(report);
        }
    };
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    let (reader, mut writer) = stream.into_split();
    let (lines, mut received) = mpsc::channel::<std::io::Result<String>>(1024);
    tokio::spawn(async move {
        let mut reader = BufReader::new(reader).lines();
        loop {
            let line = reader.next_line().await.transpose();
            let line = line
                .unwrap_or_else(|| Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)));
            let ended = line.is_err();
            if lines.send(line).await.is_err() || ended {
                return;
            }
        }
    });

    let schedule = Schedule::new(arguments);
    let mut tick = interval(arguments.interval.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last = schedule.start;
    let mut give_up = None;
    let mut greeted = false;
    loop {
        let more = schedule.more(report.sent);
        if !more {
            if report.received == report.sent {
                break;
            }
            give_up.get_or_insert(Instant::now() + arguments.timeout);
        }
        tokio::select! {
            _ = tick.tick(), if more => {
                let line = format!("{}\n", report.sent);
                match timeout(arguments.timeout, writer.write_all(line.as_bytes())).await {
                    Ok(Ok(())) => report.sent += 1,
                    Ok(Err(error)) => { report.failed(&error); break; }
                    Err(_) => { report.failed(&no_answer(arguments.timeout)); break; }
                }
            }
            line = received.recv() => match line {
                Some(Ok(line)) if !greeted => {
                    greeted = true;
                    let greeting = parse(line.as_bytes())?;
                    report.you = Some(greeting.you);
                    report.me = Some(greeting.me);
                }
                Some(Ok(_)) => {
                    let now = Instant::now();
                    report.gap(now - last);
                    last = now;
                    report.received += 1;
                }
                Some(Err(error)) => { report.failed(&error); break; }
                None => break,
            },
            () = sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() => {
                report.failed(&no_answer(arguments.timeout));
                break;
            }
        }
    }
    if report.received < report.sent {
        report.gap(Instant::now() - last);
    }
    Ok(report)
}

async fn udp(target: SocketAddr, arguments: &Arguments) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let socket: UdpSocket = match datagram(target, arguments).await {
        Ok(socket) => socket,
        Err(error) => {
            report.sent = 1;
            report.failed(&error);
            return Ok(report);
        }
    };
    let schedule = Schedule::new(arguments);
    let mut tick = interval(arguments.interval.max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last = schedule.start;
    let mut give_up = None;
    let mut seen = BTreeSet::new();
    let mut buffer = vec![0; 2048];
    loop {
        let more = schedule.more(report.sent);
        if !more {
            if report.received == report.sent {
                break;
            }
            give_up.get_or_insert(Instant::now() + arguments.timeout);
        }
        tokio::select! {
            _ = tick.tick(), if more => {
                // A refused send is an ICMP error for an earlier number; that number stays missing.
                let line = report.sent.to_string();
                report.sent += 1;
                if let Err(error) = socket.send(line.as_bytes()).await {
                    report.last_error = Some(error.to_string());
                }
            }
            read = socket.recv(&mut buffer) => match read {
                Ok(read) => {
                    let greeting = parse(&buffer[..read])?;
                    let number = greeting.echo.as_deref().and_then(|echo| echo.parse::<u64>().ok());
                    if number.is_some_and(|number| seen.insert(number)) {
                        let now = Instant::now();
                        report.gap(now - last);
                        last = now;
                        report.answered(greeting);
                    }
                }
                Err(error) => report.last_error = Some(error.to_string()),
            },
            () = sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() => break,
        }
    }
    if report.received < report.sent {
        report.gap(Instant::now() - last);
        let lost = report.sent - report.received;
        report
            .errors
            .insert(crate::report::ErrorClass::Timeout, lost);
    }
    Ok(report)
}
