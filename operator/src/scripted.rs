//! A scripted API server for tests: says which calls come in which order, and that no further one
//! comes.

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tower_test::mock::Handle;

type Server = Handle<Request<Body>, Response<Body>>;

/// One call: method, path (with the query behind `?` cut off), answer.
pub(crate) struct Call {
    method: Method,
    path: &'static str,
    code: u16,
    answer: Value,
}

pub(crate) fn call(method: Method, path: &'static str, code: u16, answer: Value) -> Call {
    Call {
        method,
        path,
        code,
        answer,
    }
}

pub(crate) fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

/// Answers `script` call by call and returns the bodies that were sent.
async fn play(mut server: Server, script: Vec<Call>) -> Vec<Value> {
    let mut bodies = Vec::new();
    for expected in script {
        let (request, send) = server.next_request().await.expect("the client still talks");
        let said = (request.method().clone(), request.uri().path().to_owned());
        assert_eq!(said, (expected.method, expected.path.to_owned()));
        let body = request.into_body().collect_bytes().await.unwrap();
        bodies.push(serde_json::from_slice(&body).unwrap_or(Value::Null));
        let answer = Response::builder()
            .status(expected.code)
            .body(Body::from(expected.answer.to_string().into_bytes()));
        send.send_response(answer.unwrap());
    }
    assert!(
        server.next_request().await.is_none(),
        "a call that was not expected"
    );
    bodies
}

/// Runs `act` against `script`.
pub(crate) async fn scenario<T>(
    script: Vec<Call>,
    act: impl AsyncFnOnce(Client) -> T,
) -> (T, Vec<Value>) {
    let (service, server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let server = tokio::spawn(play(server, script));
    let done = act(Client::new(service, "default")).await;
    (done, server.await.unwrap())
}
