//! A connection whose end is not noticed while a call is under way.
//!
//! The HTTP server drops a handler as soon as it sees that the asker has hung
//! up. A gateway does not: what it has read, it works on, and that is how a
//! call that lay on a dead line becomes a late charge. So the end of the
//! connection is kept from the server for a moment, or until it has answered.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

/// How long the end is kept from the server, at most: enough for a handler
/// to take up the call.
const MOMENT: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Wire {
    stream: TlsStream<TcpStream>,
    /// Bytes have been read since the last answer was begun.
    asked: bool,
    /// The end has been seen and is being kept back.
    ending: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream,
            asked: false,
            ending: None,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.ending.is_none() {
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
            if read.is_ok() && buf.filled().len() > before {
                self.asked = true;
                return Poll::Ready(Ok(()));
            }
            self.ending = Some(Box::pin(sleep(MOMENT)));
        }
        if self.asked
            && let Some(moment) = &mut self.ending
        {
            // Answered in the meantime, the server asks again by itself.
            ready!(moment.as_mut().poll(cx));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = false;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
