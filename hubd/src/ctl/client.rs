//! Asks the hub over its socket. Blocking: one question, one answer.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::failure::Failure;
use crate::admin::protocol::{Answer, MAX_ANSWER, Request};

/// How long the hub may take for one answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection to a running hub.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects. Fails with [`Failure::Unreachable`] if no hub answers there.
    pub fn connect(socket: &Path) -> Result<Self, Failure> {
        let unreachable = |error: std::io::Error| {
            let hint = match error.kind() {
                ErrorKind::PermissionDenied => "ask as root or as the hub's own user",
                _ => "is it running? (systemctl status hubd)",
            };
            Failure::Unreachable(format!(
                "the hub cannot be reached at {}: {error}; {hint}",
                socket.display()
            ))
        };
        let stream = UnixStream::connect(socket).map_err(unreachable)?;
        stream.set_read_timeout(Some(ANSWER)).map_err(unreachable)?;
        stream.set_write_timeout(Some(ANSWER)).map_err(unreachable)?;
        Ok(Self { stream })
    }

    /// [`connect`](Self::connect); `None` if nobody listens there.
    pub fn connect_if_running(socket: &Path) -> Result<Option<Self>, Failure> {
        match UnixStream::connect(socket).map_err(|error| error.kind()) {
            Err(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            _ => Self::connect(socket).map(Some),
        }
    }

    /// Asks and waits for the answer, at most 30 seconds. A refusal by the
    /// hub is a [`Failure`].
    pub fn ask(&self, request: &Request) -> Result<Answer, Failure> {
        let lost = |error: std::io::Error| Failure::Unreachable(format!("the hub does not answer: {error}"));
        let mut line = serde_json::to_vec(request)
            .map_err(|error| Failure::Usage(format!("this cannot be asked: {error}")))?;
        line.push(b'\n');
        // A hub that turns a connection away does so without reading: what it
        // said is worth more than the broken pipe.
        let written = (&self.stream).write_all(&line);
        let mut answer = Vec::new();
        BufReader::new((&self.stream).take(MAX_ANSWER as u64 + 1))
            .read_until(b'\n', &mut answer)
            .map_err(lost)?;
        if answer.is_empty() {
            written.map_err(lost)?;
            return Err(lost(ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_slice(&answer) {
            Ok(Answer::Error { code, message }) => Err(Failure::from_hub(code, message)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(Failure::Unreachable(format!(
                "what answers there does not speak as hubd does, or is of another version: {error}"
            ))),
        }
    }

    /// The process at the other end, where the system says so.
    pub(super) fn process(&self) -> Option<i32> {
        let peer = rustix::net::sockopt::socket_peercred(&self.stream).ok()?;
        Some(peer.pid.as_raw_nonzero().get())
    }

    /// An answer of another kind than the question wants.
    pub(super) fn unexpected(answer: &Answer) -> Failure {
        Failure::Unreachable(format!(
            "the hub gave an answer to another question ({answer:?}); is it of another version than hubctl?"
        ))
    }
}
