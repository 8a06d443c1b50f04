//! `serve --push`: a server that sends by itself, whatever the client does. A flow that may not be
//! any more must be cut in this direction too, where no packet of the client is needed.

use std::time::Duration;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::duration::millis;

/// Between two lines.
const PAUSE: Duration = Duration::from_millis(10);

/// A line of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Lines that it had of the client.
    pub(crate) received: u64,
    /// Longest time that it waited for one, milliseconds.
    pub(crate) gap_ms: u64,
}

impl Pushed {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (received, gap_ms) = line.split_once(' ')?;
        Some(Self {
            received: received.parse().ok()?,
            gap_ms: gap_ms.parse().ok()?,
        })
    }

    fn line(self) -> String {
        format!("{} {}\n", self.received, self.gap_ms)
    }
}

/// Serves one client until it goes.
pub(crate) async fn push(stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let mut tick = interval(PAUSE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut said = Pushed::default();
    let mut last = Instant::now();
    loop {
        tokio::select! {
            _ = tick.tick() => writer.write_all(said.line().as_bytes()).await?,
            line = lines.next_line() => {
                if line?.is_none() {
                    return Ok(());
                }
                said.received += 1;
                said.gap_ms = said.gap_ms.max(millis(last.elapsed()));
                last = Instant::now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_the_server_is_read_back() {
        let said = Pushed {
            received: 12,
            gap_ms: 30,
        };
        assert_eq!(Pushed::parse(said.line().trim_end()), Some(said));
        assert_eq!(Pushed::parse("{\"you\":\"1.2.3.4:5\"}"), None);
    }
}
