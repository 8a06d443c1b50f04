//! `wait`: an idle container, or an init container that waits for a server.

use std::{process::ExitCode, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{duration, report, stop};

/// Pause between two tries.
const RETRY: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// TCP server to wait for. Without it: wait for SIGTERM.
    target: Option<String>,
    /// How long to wait for the server.
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    timeout: Duration,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Some(target) = &arguments.target else {
        stop::requested().await?;
        return Ok(ExitCode::SUCCESS);
    };
    let deadline = Instant::now() + arguments.timeout;
    loop {
        let last = match timeout(Duration::from_secs(1), TcpStream::connect(target)).await {
            Ok(Ok(_)) => return Ok(ExitCode::SUCCESS),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer within 1 s".to_owned(),
        };
        if Instant::now() >= deadline {
            eprintln!(
                "{target} did not answer within {:?}: {last}",
                arguments.timeout
            );
            return Ok(report::exit(false));
        }
        sleep(RETRY).await;
    }
}
