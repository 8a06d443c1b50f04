//! Blocking client: connect, one line out, one line in.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{ErrorReply, MAX_LINE, Reply, decode, encode};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens, or the connection broke.
    #[error("cannot talk to {socket}: {source}")]
    Io {
        /// Path of the socket.
        socket: String,
        /// Cause.
        source: io::Error,
    },
    /// The other side is of another version, or not ours.
    #[error("unexpected answer from {socket}: {source}")]
    Decode {
        /// Path of the socket.
        socket: String,
        /// Cause.
        source: serde_json::Error,
    },
    /// The other side answered with an error.
    #[error(transparent)]
    Refused(#[from] ErrorReply),
}

/// Asks `request` at `socket` and waits up to `timeout` for the answer.
///
/// # Errors
/// See [`CallError`].
pub fn call<Q: Serialize, A: DeserializeOwned>(
    socket: &Path,
    request: &Q,
    timeout: Duration,
) -> Result<A, CallError> {
    let io = |source: io::Error| CallError::Io {
        socket: socket.display().to_string(),
        // What a socket's timeout looks like says nothing to a person.
        source: if source.kind() == io::ErrorKind::WouldBlock {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {timeout:?}"),
            )
        } else {
            source
        },
    };
    let parse = |source| CallError::Decode {
        socket: socket.display().to_string(),
        source,
    };
    let mut stream = UnixStream::connect(socket).map_err(io)?;
    stream.set_read_timeout(Some(timeout)).map_err(io)?;
    stream.set_write_timeout(Some(timeout)).map_err(io)?;
    stream
        .write_all(&encode(request).map_err(parse)?)
        .map_err(io)?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_LINE as u64))
        .read_until(b'\n', &mut line)
        .map_err(io)?;
    if line.is_empty() {
        return Err(io(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "closed without an answer",
        )));
    }
    match decode::<Reply<A>>(&line).map_err(parse)? {
        Reply::Ok(answer) => Ok(answer),
        Reply::Error(error) => Err(CallError::Refused(error)),
    }
}
