//! The UDP socket, and what of it is thrown away before QUIC's library sees it.
//!
//! A packet with a long header (RFC 9000 §17.2) belongs to a handshake, and the
//! library answers many a one by itself: a version that it does not know, a
//! Retry token of another address. It derives keys for that, and sends, as often
//! as somebody asks. So the door bounds how many of them there are.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::door::Door;
use super::packets::LONGEST;

/// In the first byte of a packet.
const LONG_HEADER: u8 = 0x80;

/// A socket with a door.
pub(super) struct Guarded {
    pub(super) socket: Arc<dyn AsyncUdpSocket>,
    pub(super) door: Arc<Door>,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guarded({:?})", self.socket)
    }
}

impl AsyncUdpSocket for Guarded {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.socket.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(received)) = polled {
            for (buf, meta) in bufs.iter_mut().zip(meta).take(received) {
                let from = meta.addr;
                meta.len = kept(buf, meta.len, meta.stride, || self.door.may_shake(from));
            }
        }
        polled
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// Of datagrams that came from one address and lie one behind the other, all of
/// one length but for the last: leaves those that the hub takes, and says how
/// many bytes they are.
fn kept(buf: &mut [u8], len: usize, stride: usize, mut may_shake: impl FnMut() -> bool) -> usize {
    let (len, stride) = (len.min(buf.len()), stride.max(1));
    let mut kept = 0;
    for at in (0..len).step_by(stride) {
        let end = at.saturating_add(stride).min(len);
        let long = buf[at] & LONG_HEADER != 0;
        if end - at > LONGEST || (long && !may_shake()) {
            continue;
        }
        if kept < at {
            buf.copy_within(at..end, kept);
        }
        kept += end - at;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Datagrams of three bytes, and one of two: long, short, long, short, long.
    const CAME: [u8; 14] = [0xc3, 1, 1, 0x43, 2, 2, 0xc3, 3, 3, 0x43, 4, 4, 0x83, 5];

    #[test]
    fn packets_of_handshakes_are_thrown_away_beyond_their_bound_and_no_others() {
        let mut left = 0;
        let mut some = |more: usize| {
            left = more;
            let mut buf = CAME;
            let len = kept(&mut buf, CAME.len(), 3, || {
                let may = left > 0;
                left = left.saturating_sub(1);
                may
            });
            buf[..len].to_vec()
        };
        assert_eq!(some(3), CAME);
        assert_eq!(some(0), [0x43, 2, 2, 0x43, 4, 4]);
        assert_eq!(some(1), [0xc3, 1, 1, 0x43, 2, 2, 0x43, 4, 4]);
        assert_eq!(some(2), CAME[..12]);
    }

    #[test]
    fn a_datagram_longer_than_the_hub_takes_is_thrown_away() {
        let mut buf = vec![0x43; LONGEST + 1];
        assert_eq!(kept(&mut buf, LONGEST, LONGEST, || true), LONGEST);
        assert_eq!(kept(&mut buf, LONGEST + 1, LONGEST + 1, || true), 0);
        assert_eq!(kept(&mut buf, 0, 0, || true), 0);
    }
}
