//! A unix-socket server where one connection is one request line and one reply line.
//!
//! What the lines mean is the handler's business. A client that sends too much, too slowly or
//! nothing costs one connection slot for a bounded time.

use std::{io, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::unix;

/// Longest request line, in bytes, with the line feed.
pub const MAX_LINE: usize = 1 << 20;
/// Connections that are served at the same time; further ones wait in the listen queue.
pub const MAX_CONNECTIONS: usize = 256;
/// How long a client may take to send its line, and to take the answer.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests in flight may take after shutdown was asked for.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves `handler` at `path` (mode 0600; the socket of a dead process is replaced) until `token`
/// is cancelled; then lets requests in flight finish for [`DRAIN_TIMEOUT`] and removes the socket.
///
/// The handler gets the line without its line feed and returns the answer; a missing line feed at
/// the end of the answer is added.
///
/// # Errors
/// The socket cannot be made, or somebody else serves it. Errors of single connections are logged.
pub async fn serve<H, F>(path: &Path, token: CancellationToken, handler: H) -> io::Result<()>
where
    H: Fn(Vec<u8>) -> F + Send + Sync + 'static,
    F: Future<Output = Vec<u8>> + Send + 'static,
{
    let listener = unix::bind(path).await?;
    let handler = Arc::new(handler);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = tokio::select! {
            () = token.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => match slot {
                Ok(slot) => slot,
                Err(_closed) => break,
            },
        };
        let stream = tokio::select! {
            () = token.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(socket = %path.display(), %error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let handler = Arc::clone(&handler);
        connections.spawn(async move {
            if let Err(error) = one(stream, &*handler).await {
                tracing::debug!(%error, "connection failed");
            }
            drop(slot);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let _ = std::fs::remove_file(path);
    let _ = timeout(DRAIN_TIMEOUT, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
    Ok(())
}

async fn one<H, F>(stream: UnixStream, handler: &H) -> io::Result<()>
where
    H: Fn(Vec<u8>) -> F,
    F: Future<Output = Vec<u8>>,
{
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(read.take(MAX_LINE as u64));
    timeout(CLIENT_TIMEOUT, reader.read_until(b'\n', &mut line)).await??;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("request is no line of at most {MAX_LINE} bytes"),
        ));
    }
    let mut answer = handler(line).await;
    if answer.last() != Some(&b'\n') {
        answer.push(b'\n');
    }
    timeout(CLIENT_TIMEOUT, write.write_all(&answer)).await??;
    write.shutdown().await
}

#[cfg(test)]
mod tests;
