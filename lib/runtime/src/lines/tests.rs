use std::os::unix::fs::PermissionsExt;

use super::*;

async fn ask(path: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = loop {
        match UnixStream::connect(path).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    // A server that gives up on the line closes while we still write.
    let _ = stream.write_all(request).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    Ok(answer)
}

struct Served {
    dir: tempfile::TempDir,
    token: CancellationToken,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

impl Served {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token = CancellationToken::new();
        let path = dir.path().join("s.sock");
        let stop = token.clone();
        let task = tokio::spawn(async move {
            serve(&path, stop, |line| async move {
                [b"<".as_slice(), &line, b">"].concat()
            })
            .await
        });
        Self { dir, token, task }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("s.sock")
    }
}

#[tokio::test]
async fn a_line_is_answered_with_a_line() {
    let served = Served::start();
    assert_eq!(ask(&served.path(), b"hi\n").await.unwrap(), b"<hi>\n");
    assert_eq!(ask(&served.path(), b"\n").await.unwrap(), b"<>\n");
}

#[tokio::test]
async fn only_root_may_connect_and_the_socket_goes_away_at_the_end() {
    let served = Served::start();
    ask(&served.path(), b"x\n").await.unwrap();
    let mode = std::fs::metadata(served.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    served.token.cancel();
    let path = served.path();
    served.task.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_request_without_line_feed_or_too_long_gets_no_answer() {
    let served = Served::start();
    assert_eq!(ask(&served.path(), b"half").await.unwrap(), b"");
    let long = vec![b'x'; MAX_LINE + 1];
    assert_eq!(ask(&served.path(), &long).await.unwrap(), b"");
    assert_eq!(ask(&served.path(), b"next\n").await.unwrap(), b"<next>\n");
}

#[tokio::test]
async fn the_socket_of_a_dead_process_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let token = CancellationToken::new();
    token.cancel();
    serve(&path, token, |line| async move { line })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_socket_that_is_served_is_not_taken_over() {
    let served = Served::start();
    ask(&served.path(), b"x\n").await.unwrap();
    let error = serve(
        &served.path(),
        CancellationToken::new(),
        |l| async move { l },
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}
