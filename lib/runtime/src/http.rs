//! The HTTP face of a process: `/livez`, `/readyz`, `/metrics`, and what the caller adds.

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{StatusCode, header},
    routing::get,
};
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{health::Health, unix};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and port.
    Tcp(SocketAddr),
    /// A unix socket (mode 0600).
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Serves `router` until `token` is cancelled. Open connections are not waited for longer than two
/// seconds.
///
/// # Errors
/// The address cannot be bound: in use, say.
pub async fn serve(listen: Listen, router: Router, token: CancellationToken) -> io::Result<()> {
    let stopped = token.clone().cancelled_owned();
    let served = async {
        match &listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(|error| {
                    io::Error::new(
                        error.kind(),
                        format!("cannot listen on TCP {address}: {error}"),
                    )
                })?;
                axum::serve(listener, router)
                    .with_graceful_shutdown(stopped)
                    .await
            }
            Listen::Unix(path) => {
                let listener = unix::bind(path).await?;
                let result = axum::serve(listener, router)
                    .with_graceful_shutdown(stopped)
                    .await;
                let _ = std::fs::remove_file(path);
                result
            }
        }
    };
    tokio::select! {
        result = served => result,
        () = async {
            token.cancelled().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        } => Ok(()),
    }
}

/// `/livez` and `/readyz` (200 `ok`, or 503 with one line a failing check) and `/metrics`
/// (OpenMetrics text).
pub fn routes(health: Health, registry: Arc<Registry>) -> Router {
    let live = health.clone();
    Router::new()
        .route("/livez", get(async move || verdict(&live.stuck())))
        .route("/readyz", get(async move || verdict(&health.unready())))
        .route(
            "/metrics",
            get(async move || {
                let mut text = String::new();
                match prometheus_client::encoding::text::encode(&mut text, &registry) {
                    Ok(()) => Ok((
                        [(
                            header::CONTENT_TYPE,
                            "application/openmetrics-text; version=1.0.0; charset=utf-8",
                        )],
                        text,
                    )),
                    Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
                }
            }),
        )
}

fn verdict(failing: &[String]) -> (StatusCode, String) {
    if failing.is_empty() {
        (StatusCode::OK, "ok\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, failing.join("\n") + "\n")
    }
}

/// Asks `GET path` at the unix socket `socket`, as an exec probe does. `Ok` is the body of a 200.
///
/// # Errors
/// Nobody answers within `limit`, or the answer is not 200: then the body says why.
pub async fn probe(socket: &std::path::Path, path: &str, limit: Duration) -> io::Result<String> {
    let answer = timeout(limit, async {
        let mut stream = UnixStream::connect(socket).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: weft\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    })
    .await
    .map_err(|_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer from {} in {limit:?}", socket.display()),
        )
    })??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 200") {
        Ok(body.to_owned())
    } else {
        Err(io::Error::other(body.trim_end().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[tokio::test]
    async fn probes_and_metrics_are_served_on_a_unix_socket() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("http.sock");
        let health = Health::new(&["fabric"]);
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("weft_test", "A test", counter.clone());
        counter.inc();
        let token = CancellationToken::new();
        let task = tokio::spawn(serve(
            Listen::Unix(socket.clone()),
            routes(health.clone(), Arc::new(registry)),
            token.clone(),
        ));
        while !socket.exists() {
            tokio::task::yield_now().await;
        }
        let get = async |path: &str| probe(&socket, path, Duration::from_secs(5)).await;

        assert_eq!(
            get("/readyz").await.unwrap_err().to_string(),
            "fabric: not yet"
        );
        health.ready("fabric");
        assert_eq!(get("/readyz").await.unwrap(), "ok\n");
        assert_eq!(get("/livez").await.unwrap(), "ok\n");
        assert!(
            get("/metrics")
                .await
                .unwrap()
                .contains("weft_test_total 1\n")
        );
        token.cancel();
        task.await.unwrap().unwrap();
        assert!(!socket.exists());
    }
}
