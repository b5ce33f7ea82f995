//! The UDP socket, and what of it is thrown away before QUIC's library sees it.
//!
//! The library answers many a packet by itself, before the hub is asked: a
//! version that it does not know, a Retry token of another address. It derives
//! keys for that, and sends, as often as somebody asks. So the door bounds how
//! many of them there are. What the library ignores without a key, because it is
//! too short or of no handshake that begins, takes nothing from anybody.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::door::Door;
use super::gate::Asks;
use super::hub_tls::HubTls;
use super::packets::LONGEST;

/// The shortest datagram that begins a handshake, in bytes (RFC 9000 §14.1).
const SHORTEST: usize = 1200;

/// In the first byte of a packet: a long header; and the type of it, which is 0
/// for the first packets of a handshake (RFC 9000 §17.2).
const LONG_HEADER: u8 = 0x80;
const TYPE: u8 = 0x30;

const VERSION: [u8; 4] = [0, 0, 0, 1];

/// A socket with a door.
pub(super) struct Guarded {
    pub(super) socket: Arc<dyn AsyncUdpSocket>,
    pub(super) door: Arc<Door>,
    /// Knows the ids of connections that the hub has made.
    pub(super) tls: HubTls,
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
                meta.len = kept(buf, meta.len, meta.stride, |datagram| {
                    asks(datagram, &self.tls).is_none_or(|asks| self.door.may_ask(from, asks))
                });
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

/// Whether the library would answer a datagram that belongs to no connection,
/// and what whoever sent it has to show: an id that the hub has made is from its
/// Retry, which went to the address of somebody.
fn asks(datagram: &[u8], tls: &HubTls) -> Option<Asks> {
    let [first, v1, v2, v3, v4, length, rest @ ..] = datagram else {
        return None;
    };
    let begins = [*v1, *v2, *v3, *v4] != VERSION || first & TYPE == 0;
    if datagram.len() < SHORTEST || first & LONG_HEADER == 0 || !begins {
        return None;
    }
    let made = rest
        .get(..usize::from(*length))
        .is_some_and(|id| tls.has_made(id));
    Some(if made { Asks::Answered } else { Asks::Anew })
}

/// Of datagrams that came from one address and lie one behind the other, all of
/// one length but for the last: leaves those that the hub takes, and says how
/// many bytes they are.
fn kept(buf: &mut [u8], len: usize, stride: usize, mut may: impl FnMut(&[u8]) -> bool) -> usize {
    let (len, stride) = (len.min(buf.len()), stride.max(1));
    let mut kept = 0;
    for at in (0..len).step_by(stride) {
        let end = at.saturating_add(stride).min(len);
        if end - at > LONGEST || !may(&buf[at..end]) {
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
    use crate::devices::tests::keys;

    #[test]
    fn what_is_thrown_away_leaves_the_rest_as_it_came() {
        // Datagrams of three bytes, and one of two.
        let came: [u8; 14] = [0xc3, 1, 1, 0x43, 2, 2, 0xc3, 3, 3, 0x43, 4, 4, 0x83, 5];
        let without = |firsts: &[u8]| {
            let mut buf = came;
            let len = kept(&mut buf, came.len(), 3, |datagram| !firsts.contains(&datagram[0]));
            buf[..len].to_vec()
        };
        assert_eq!(without(&[]), came);
        assert_eq!(without(&[0xc3]), [0x43, 2, 2, 0x43, 4, 4, 0x83, 5]);
        assert_eq!(without(&[0x43, 0x83]), [0xc3, 1, 1, 0xc3, 3, 3]);
        assert!(without(&[0x43, 0x83, 0xc3]).is_empty());
    }

    #[test]
    fn a_datagram_longer_than_the_hub_takes_is_thrown_away() {
        let mut buf = vec![0x43; LONGEST + 1];
        assert_eq!(kept(&mut buf, LONGEST, LONGEST, |_| true), LONGEST);
        assert_eq!(kept(&mut buf, LONGEST + 1, LONGEST + 1, |_| true), 0);
        assert_eq!(kept(&mut buf, 0, 0, |_| true), 0);
    }

    /// Noise keeps nobody out: a flood has to send what costs the hub something.
    #[test]
    fn only_what_the_library_may_answer_takes_from_what_a_network_may_ask() {
        let tls = keys().tls;
        let own = tls.new_id();
        let packet = |first: u8, version: u8, id: &[u8], length: usize| {
            let mut out = vec![first, 0, 0, 0, version, u8::try_from(id.len()).unwrap()];
            out.extend_from_slice(id);
            out.resize(length, 0);
            out
        };
        let asked = |datagram: &[u8]| asks(datagram, &tls);
        assert_eq!(asked(&packet(0xc3, 1, &[7; 8], 1200)), Some(Asks::Anew));
        assert_eq!(asked(&packet(0xc3, 1, &own, 1200)), Some(Asks::Answered));
        assert_eq!(asked(&packet(0xe3, 9, &[7; 20], 1200)), Some(Asks::Anew));
        for ignored in [
            packet(0xc3, 1, &own, 1199),
            packet(0xe3, 1, &own, 1200),
            packet(0x43, 1, &own, 1200),
            vec![0xc3],
            Vec::new(),
        ] {
            assert_eq!(asked(&ignored), None, "{:?}", ignored.first());
        }
        // Ids that reach beyond the datagram, or are longer than any.
        assert_eq!(asked(&[0xff; 1200]), Some(Asks::Anew));
    }
}
