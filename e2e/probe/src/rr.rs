//! `rr`: request/response latency over one TCP connection, against `serve`.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{connect::resolve, duration, report};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Server, as HOST:PORT.
    target: String,
    /// Number of measured exchanges.
    #[arg(long, default_value_t = 2000)]
    count: usize,
    /// Exchanges before the measurement.
    #[arg(long, default_value_t = 200)]
    warmup: usize,
    /// Bytes of each request and response.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// How long one exchange may take.
    #[arg(long, default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,
}

/// Result of `rr`; times in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct RrReport {
    count: usize,
    p50_us: f64,
    p99_us: f64,
    mean_us: f64,
    per_second: f64,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    report::print(&probe(arguments).await?)?;
    Ok(ExitCode::SUCCESS)
}

async fn probe(arguments: &Arguments) -> anyhow::Result<RrReport> {
    anyhow::ensure!(
        arguments.count > 0 && arguments.size > 0,
        "--count and --size must be at least 1"
    );
    let target = resolve(&arguments.target).await?;
    let stream = timeout(arguments.timeout, TcpStream::connect(target))
        .await
        .context("no answer")
        .and_then(|connected| connected.map_err(Into::into))
        .with_context(|| format!("connect to {target}"))?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    let mut stream = BufReader::new(stream);
    let mut greeting = String::new();
    stream
        .read_line(&mut greeting)
        .await
        .context("read the greeting")?;

    let request = vec![b'x'; arguments.size];
    let mut response = vec![0; arguments.size];
    let mut times = Vec::with_capacity(arguments.count);
    for number in 0..arguments.warmup + arguments.count {
        let start = Instant::now();
        timeout(arguments.timeout, async {
            stream.get_mut().write_all(&request).await?;
            stream.read_exact(&mut response).await
        })
        .await
        .with_context(|| format!("exchange {number}: no answer from {target}"))?
        .with_context(|| format!("exchange {number} with {target}"))?;
        if number >= arguments.warmup {
            times.push(start.elapsed());
        }
    }
    Ok(summary(times))
}

/// Percentiles by nearest rank. `times` is not empty.
fn summary(mut times: Vec<Duration>) -> RrReport {
    times.sort();
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let rank = |percent: usize| (times.len() * percent).div_ceil(100).max(1) - 1;
    let total: Duration = times.iter().sum();
    RrReport {
        count: times.len(),
        p50_us: micros(times[rank(50)]),
        p99_us: micros(times[rank(99)]),
        mean_us: micros(total) / times.len() as f64,
        per_second: times.len() as f64 / total.as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::tests::server;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let times = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(
            summary(times),
            RrReport {
                count: 200,
                p50_us: 100_000.0,
                p99_us: 198_000.0,
                mean_us: 100_500.0,
                per_second: 200.0 / 20.1,
            }
        );
    }

    #[tokio::test]
    async fn every_exchange_is_measured_once() {
        let report = probe(&Arguments {
            target: server().await.to_string(),
            count: 50,
            warmup: 5,
            size: 64,
            timeout: Duration::from_secs(5),
        })
        .await
        .expect("a report");
        assert_eq!(report.count, 50);
        assert!(report.p50_us > 0.0 && report.p50_us <= report.p99_us);
    }
}
