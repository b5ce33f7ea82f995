"""QUIC to a hub with aioquic: mutual TLS with self-signed container certificates.

aioquic (1.7) answers a server's CertificateRequest by itself if the
configuration has `certificate` and `private_key`. What it has no setting for is
made here, in a subclass of its QuicConnection:

- to accept one self-signed certificate by the SHA-256 of its key, or by what
  the hub states of its keys, and nothing else: the check of names and authorities is switched off (CERT_NONE), and the
  certificate is held against the hub's identity as it comes, before anything
  is sent under it. The handshake's signature aioquic checks either way.
- to sign and accept `ecdsa_secp256r1_sha256` only.
- to notice a stateless reset, which aioquic reads as noise.
"""

import asyncio
import contextlib
import datetime
import socket
import ssl

from aioquic import tls
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicProtocolVersion
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cose import sha256

PAYMENTS = {number: f"store-hub/{number}" for number in (1, 2, 3, 4, 5, 6)}  # by wire version
ENROLMENTS = ["store-hub-enrol/1"]
IDLE_S = 14
KEEP_ALIVE_S = 10
PATIENCE_S = 15
RESET = "stateless reset"


class Closed(Exception):
    """The connection is gone: why, as ("application" or "transport", number)."""

    def __init__(self, why):
        super().__init__(str(why))
        self.why = why


def key_info(public) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def container(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """The certificate that only carries a key."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")])
    begin = datetime.datetime(2020, 1, 1)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + datetime.timedelta(36500))
    return made.sign(key, hashes.SHA256())


class Pinned(QuicConnection):
    def __init__(self, hub, **settings):
        super().__init__(**settings)
        self.hub = hub
        self.tickets, self.tokens = [], []
        self._session_ticket_handler = self.tickets.append
        self._token_handler = self.tokens.append

    def _initialize(self, peer_cid):
        super()._initialize(peer_cid)
        self.tls._signature_algorithms = [tls.SignatureAlgorithm.ECDSA_SECP256R1_SHA256]
        take = self.tls._set_peer_certificate

        def take_the_hub_only(message):
            take(message)
            info = key_info(self.tls._peer_certificate.public_key())
            if len(message.certificates) != 1 or len(info) != 91 or info not in message.certificates[0][0]:
                raise tls.AlertBadCertificate("not one certificate with a P-256 key in its 91 bytes")
            known = self.hub(info, self.tls._peer_certificate) if callable(self.hub) else sha256(info) == self.hub
            if not known:
                raise tls.AlertBadCertificate("another hub")

        self.tls._set_peer_certificate = take_the_hub_only

    def receive_datagram(self, data, addr, now):
        tokens = [cid.stateless_reset_token for cid in (self._peer_cid, *self._peer_cid_available)]
        if len(data) >= 21 and not data[0] & 0x80 and data[-16:] in tokens and self._close_event is None:
            self._close_event = events.ConnectionTerminated(error_code=0, frame_type=None, reason_phrase=RESET)
            self._close_end()
            return
        super().receive_datagram(data, addr, now)


class Connection(QuicConnectionProtocol):
    """Requests on streams of their own; what the hub pushes; how it ended."""

    def __init__(self, quic, stream_handler=None):
        super().__init__(quic, stream_handler)
        self.alpn: str | None = None
        self.pushes: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended: asyncio.Future = asyncio.get_running_loop().create_future()
        self.ready: asyncio.Future = asyncio.get_running_loop().create_future()
        self._received: dict[int, bytearray] = {}
        self._answers: dict[int, asyncio.Future] = {}

    def quic_event_received(self, event):
        if isinstance(event, events.HandshakeCompleted):
            self.alpn = event.alpn_protocol
            self.ready.set_result(event)
        elif isinstance(event, events.StreamDataReceived):
            self._received.setdefault(event.stream_id, bytearray()).extend(event.data)
            if event.end_stream:
                data = bytes(self._received.pop(event.stream_id))
                if event.stream_id % 4 == 3:  # unidirectional, opened by the hub
                    self.pushes.put_nowait(data)
                else:
                    self._settle(event.stream_id, data)
        elif isinstance(event, events.StreamReset):
            self._settle(event.stream_id, Closed(("stream", event.error_code)))
        elif isinstance(event, events.ConnectionTerminated):
            kind = "transport" if event.frame_type is not None else "application"
            why = (RESET, 0) if event.reason_phrase == RESET else (kind, event.error_code)
            self.ended.set_result(why)
            if not self.ready.done():
                self.ready.set_result(None)
            for stream in list(self._answers):
                self._settle(stream, Closed(why))

    def _settle(self, stream: int, outcome):
        waiter = self._answers.pop(stream, None)
        if waiter is not None and not waiter.done():
            waiter.set_exception(outcome) if isinstance(outcome, Exception) else waiter.set_result(outcome)

    async def exchange(self, data: bytes, end: bool = True) -> bytes:
        """All that comes back on a stream on which this was sent."""
        if self.ended.done():
            raise Closed(self.ended.result())
        stream = self._quic.get_next_available_stream_id()
        waiter = self._answers[stream] = asyncio.get_running_loop().create_future()
        self._quic.send_stream_data(stream, data, end_stream=end)
        self.transmit()
        return await asyncio.wait_for(waiter, PATIENCE_S)

    async def end_within(self, seconds: float):
        """Why it ended, or None if it goes on."""
        with contextlib.suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self.ended), seconds)

    async def leave(self):
        self.close()
        await asyncio.wait_for(self.wait_closed(), PATIENCE_S)
        self._transport.close()

    def keep_alive(self):
        """A ping now and then, until it ends."""
        if not self.ended.done():
            self._quic.send_ping(0)
            self.transmit()
            self._loop.call_later(KEEP_ALIVE_S, self.keep_alive)


async def connect(address: tuple[str, int], alpn: list[str], key, hub) -> Connection:
    """A connection to this hub, or the reason why there is none. `hub` is the SHA-256 of its key, or judges it."""
    configuration = QuicConfiguration(
        alpn_protocols=alpn,
        idle_timeout=IDLE_S,
        server_name="store-hub",
        supported_versions=[QuicProtocolVersion.VERSION_1],
        verify_mode=ssl.CERT_NONE,
        certificate=container(key),
        private_key=key,
    )
    loop = asyncio.get_running_loop()
    family, _, _, _, target = (await loop.getaddrinfo(*address, type=socket.SOCK_DGRAM))[0]
    _, connection = await loop.create_datagram_endpoint(
        lambda: Connection(Pinned(hub, configuration=configuration)),
        local_addr=("::" if family == socket.AF_INET6 else "0.0.0.0", 0),
    )
    connection.connect(target)
    try:
        handshake = await asyncio.wait_for(asyncio.shield(connection.ready), PATIENCE_S)
    except asyncio.TimeoutError:
        connection._transport.close()
        raise
    if handshake is None:
        connection._transport.close()
        raise Closed(connection.ended.result())
    connection.keep_alive()
    return connection
