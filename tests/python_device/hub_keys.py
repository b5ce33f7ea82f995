"""By which keys a hub is known, and how it changes them."""

import asyncio

import cbor2
from cryptography import x509

import device as devices
import messages as m
import wire
from cose import Fault, parse, sha256, verify
from shop import Shop
from table import Table

EXTENSION = x509.ObjectIdentifier("2.25.1918994997670159211")


def octets(der: bytes) -> bytes:
    """What an octet string in DER holds."""
    if der[:1] != b"\x04":
        raise Fault(1005, "no octet string")
    size = der[1] & 0x7F if der[1] & 0x80 else 0
    length = int.from_bytes(der[2 : 2 + size], "big") if size else der[1]
    return der[2 + size : 2 + size + length]


class HubKeys:
    """What a device knows of the keys of its hub."""

    def __init__(self, device):
        self.device, self.number, self.tls = device, 0, [device.hub]

    def follow(self, changes: list[bytes]) -> None:
        """Takes the changes of the signing key that go on from the one that is known."""
        for change in changes:
            by_new = parse(change)[1]
            stated = m.read(m.key_change, parse(by_new)[1])
            if (stated[1], stated[3]) == (self.device.hub, self.device.hub_signing_key):
                verify(verify(change, m.KEY_CHANGE, stated[3]), m.KEY_CHANGE, stated[4])
                self.device.hub_signing_key = stated[4]

    def take(self, statement: bytes) -> None:
        stated = m.read(m.tls_keys, verify(statement, m.TLS_KEYS, self.device.hub_signing_key))
        if stated[1] != self.device.hub or not 1 <= len(set(stated[3])) == len(stated[3]) <= 2:
            raise Fault(2004, "no statement of this hub's keys")
        if stated[2] < max(self.number, 1) or (stated[2] == self.number and stated[3] != self.tls):
            raise Fault(2004, "an older statement")
        self.number, self.tls = stated[2], stated[3]

    def accepts(self, info: bytes, certificate: x509.Certificate) -> bool:
        """Whether this is the hub's key, after what its certificate says has been taken."""
        try:
            said = certificate.extensions.get_extension_for_oid(EXTENSION).value.value
            said = m.read(m.certificate_keys, octets(said))
            self.follow(said[1])
            self.take(said[2])
        except (x509.ExtensionNotFound, Fault, cbor2.CBORDecodeError):
            pass
        return sha256(info) in self.tls


async def ending(device) -> str:
    try:
        await device.connect()
    except wire.Closed:
        return "another hub"
    await device.hello()
    number = device.known.number
    await device.connection.leave()
    return f"{device.connection.alpn}, statement {number}"


async def change(table: Table, shop: Shop) -> None:
    """The TLS key changes, with a device that follows, one that is away, and one of wire version 4."""
    area = "another TLS key"
    ctl = lambda *args: asyncio.to_thread(shop.ctl, "keys", "rotate", *args)  # noqa: E731
    follows, away, old = devices.Device("Caisse 7"), devices.Device("Caisse 8"), devices.Device("Caisse 9", versions=(4, 3))
    for device in (follows, away, old):
        await device.enrol(await asyncio.to_thread(shop.code))
    table.check(area, "before", "store-hub/6, statement 0", await ending(follows))
    await follows.connect()
    await ctl("tls", "--yes")
    number, fields = m.read_frame(await asyncio.wait_for(follows.connection.pushes.get(), 15), m.PUSHES)
    follows.known.take(fields[1])
    table.check(area, "a push says so", (204, 1, 2), (number, follows.known.number, len(follows.known.tls)))
    await follows.connection.leave()
    table.check(area, "while two overlap", "store-hub/6, statement 1", await ending(follows))
    table.check(area, "an older device knows the old one", "store-hub/4, statement 0", await ending(Older(old)))
    await ctl("signing", "--yes")
    await ctl("tls", "--finish", "--yes")
    table.check(area, "afterwards", "store-hub/6, statement 2", await ending(follows))
    table.check(area, "by who was away for both keys", "store-hub/6, statement 2", await ending(away))
    table.check(area, "an older device finds no hub", "another hub", await ending(Older(old)))
    await away.connect()
    receipt = await away.pay(away.payment(1900))
    table.check(area, "and a payment is decided", m.ONLINE, receipt[7])
    await away.connection.leave()


class Older:
    """A device whose software knows nothing of such changes."""

    def __init__(self, device):
        self.device, self.known = device, HubKeys(device)
        self.known.number = 0

    async def connect(self) -> None:
        self.connection = await self.device.connect(pin=self.device.hub)

    async def hello(self) -> None:
        await self.device.hello()
