//! The other container of the pod: npc, asked over its socket.

use std::{path::PathBuf, time::Duration};

use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};
use weft_socket::{ErrorReply, MAX_LINE, NpcRequest, Reply, code, decode, encode};

/// Asks npc.
#[derive(Debug, Clone)]
pub(crate) struct Npc {
    socket: PathBuf,
}

impl Npc {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks `request` and waits up to `limit` for the answer.
    ///
    /// # Errors
    /// npc's own, or `TRY_AGAIN_LATER` when it cannot be reached.
    pub(crate) async fn ask<A: DeserializeOwned>(
        &self,
        request: &NpcRequest,
        limit: Duration,
    ) -> Result<A, ErrorReply> {
        let failed = |why: String| ErrorReply {
            code: code::TRY_AGAIN_LATER,
            msg: format!("npc on {} did not answer: {why}", self.socket.display()),
            details: "the pod stays closed until npc runs; see container npc of pod weft-node on \
                      this node"
                .to_owned(),
        };
        let talk = async {
            let line = encode(request).map_err(|e| e.to_string())?;
            let mut stream = UnixStream::connect(&self.socket)
                .await
                .map_err(|e| e.to_string())?;
            stream.write_all(&line).await.map_err(|e| e.to_string())?;
            let mut answer = Vec::new();
            BufReader::new(stream.take(MAX_LINE as u64))
                .read_until(b'\n', &mut answer)
                .await
                .map_err(|e| e.to_string())?;
            decode::<Reply<A>>(&answer).map_err(|e| e.to_string())
        };
        match timeout(limit, talk).await {
            Err(_) => Err(failed(format!("no answer within {limit:?}"))),
            Ok(Err(why)) => Err(failed(why)),
            Ok(Ok(Reply::Ok(answer))) => Ok(answer),
            Ok(Ok(Reply::Error(error))) => Err(error),
        }
    }
}
