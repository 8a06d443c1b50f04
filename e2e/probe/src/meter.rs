//! `meter`: many attempts a second on targets that are forbidden and on targets that are allowed,
//! and flows that live through it all: what a fault of an enforcer lets through or breaks.
//!
//! It runs until it is told to stop (SIGTERM, the end of its standard input, or after a time) and
//! then prints one report ([`weft_probe::measured`]). "measuring" on stderr says that the flows
//! stand and the clock runs.

mod flow;
mod lane;

use std::{io::Read as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep},
};
use weft_probe::measured::{Expect, Flow, Lane, Measured, Outcome, Target, unix_ms};

use crate::{
    duration,
    report::{self, ErrorClass},
    stop,
};

#[derive(clap::Args, Clone)]
pub(crate) struct Arguments {
    /// Target on which nothing may come back: tcp/ADDRESS:PORT@RATE, udp/ADDRESS:PORT@RATE.
    #[arg(long, value_name = "TARGET")]
    pub(crate) forbidden: Vec<Target>,
    /// Target that must answer each attempt.
    #[arg(long, value_name = "TARGET")]
    pub(crate) allowed: Vec<Target>,
    /// A flow that is held: tcp/ADDRESS:PORT of `serve --push`, udp/ADDRESS:PORT of `serve --udp`.
    #[arg(long, value_name = "TARGET")]
    pub(crate) flow: Vec<Target>,
    /// Time between two numbers of a flow.
    #[arg(long, default_value = "10ms", value_parser = duration::parse)]
    pub(crate) interval: Duration,
    /// How long a forbidden attempt waits for an answer.
    #[arg(long, default_value = "250ms", value_parser = duration::parse)]
    pub(crate) forbidden_deadline: Duration,
    /// How long an allowed attempt may take. Below 1 s the kernel does not repeat a lost packet of
    /// the handshake, so each lost one is seen.
    #[arg(long, default_value = "900ms", value_parser = duration::parse)]
    pub(crate) allowed_deadline: Duration,
    /// Stop after this time.
    #[arg(long, value_parser = duration::parse)]
    pub(crate) duration: Option<Duration>,
    /// Stop when the standard input ends.
    #[arg(long)]
    pub(crate) until_eof: bool,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let ending = ending(arguments);
    let report = measure(arguments, async {
        eprintln!("measuring");
        ending.await
    })
    .await?;
    report::print(&report)?;
    Ok(ExitCode::SUCCESS)
}

/// When the time is over, the input has ended, or somebody sent a signal.
async fn ending(arguments: &Arguments) -> anyhow::Result<()> {
    let time = async {
        match arguments.duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let eof = async {
        if arguments.until_eof {
            end_of_input().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = time => Ok(()),
        () = eof => Ok(()),
        stopped = stop::requested() => stopped,
    }
}

/// A read of the standard input cannot be cancelled, so it has a thread of its own.
async fn end_of_input() {
    let (sender, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 256];
        while stdin.read(&mut buffer).is_ok_and(|read| read > 0) {}
        // The receiver is gone when something else ended the measurement.
        let _ = sender.send(());
    });
    let _ = ended.await;
}

/// What the parts of a measurement have in common.
#[derive(Clone)]
pub(crate) struct Course {
    /// Time zero.
    start: Instant,
    /// Becomes true at the end.
    stop: watch::Receiver<bool>,
}

impl Course {
    /// Milliseconds since time zero.
    pub(crate) fn now_ms(&self) -> u64 {
        duration::millis(self.start.elapsed())
    }

    /// Returns at the end.
    pub(crate) async fn stopped(&mut self) {
        // The sender lives until every part has ended; without it there is nothing to wait for.
        let _ = self.stop.wait_for(|stopped| *stopped).await;
    }
}

/// Measures until `ending` is over, which begins when the flows stand.
pub(crate) async fn measure(
    arguments: &Arguments,
    ending: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Measured> {
    anyhow::ensure!(
        !(arguments.forbidden.is_empty()
            && arguments.allowed.is_empty()
            && arguments.flow.is_empty()),
        "nothing to measure: give --forbidden, --allowed or --flow"
    );
    let mut opened = Vec::new();
    for target in &arguments.flow {
        opened.push(flow::open(target).await);
    }
    let (sender, stop) = watch::channel(false);
    let course = Course {
        start: Instant::now(),
        stop,
    };
    let begun_unix_ms = unix_ms().context("the clock stands before 1970")?;

    let mut lanes: JoinSet<(usize, Lane)> = JoinSet::new();
    let all = arguments
        .forbidden
        .iter()
        .map(|target| (Expect::Forbidden, target, arguments.forbidden_deadline))
        .chain(
            arguments
                .allowed
                .iter()
                .map(|target| (Expect::Allowed, target, arguments.allowed_deadline)),
        );
    let count = arguments.forbidden.len() + arguments.allowed.len();
    for (number, (expect, target, deadline)) in all.enumerate() {
        let plan = lane::Plan {
            expect,
            target: *target,
            deadline,
            ports: lane::ports(number, count),
            begun_unix_ms,
        };
        let course = course.clone();
        lanes.spawn(async move { (number, lane::run(&plan, course).await) });
    }
    let mut flows: JoinSet<(usize, Flow)> = JoinSet::new();
    for (number, flow) in opened.into_iter().enumerate() {
        let course = course.clone();
        let interval = arguments.interval;
        flows.spawn(async move { (number, flow.run(interval, course).await) });
    }

    ending.await?;
    let length_ms = course.now_ms();
    sender.send_replace(true);
    Ok(Measured {
        begun_unix_ms,
        length_ms,
        lanes: in_order(lanes.join_all().await),
        flows: in_order(flows.join_all().await),
    })
}

fn in_order<T>(mut parts: Vec<(usize, T)>) -> Vec<T> {
    parts.sort_by_key(|(number, _)| *number);
    parts.into_iter().map(|(_, part)| part).collect()
}

/// What an error of a socket says of the network.
pub(crate) fn outcome(error: &std::io::Error) -> Outcome {
    match ErrorClass::of(error) {
        ErrorClass::Timeout => Outcome::Silent,
        ErrorClass::Refused => Outcome::Refused,
        ErrorClass::Unreachable => Outcome::Unreachable,
        ErrorClass::TooLong | ErrorClass::Other => Outcome::Untried(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
