"""How a device finds a hub, enrols with it and opens a session."""

import asyncio
import os

from cryptography.hazmat.primitives.asymmetric import ec
from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

import messages as m
import wire
from device import Device
from shop import Shop
from table import ACCESS_DENIED, Table, refusal

NO_CERTIFICATE = ("transport", 0x100 + 116)
NO_SUCH_ALPN = ("transport", 0x100 + 120)


# ---- finding the hub --------------------------------------------------------


async def find(hub: bytes, seconds: float = 20) -> tuple[tuple[str, int], dict]:
    """The hub's address and TXT keys by mDNS on loopback."""
    found: asyncio.Future = asyncio.get_running_loop().create_future()
    async with AsyncZeroconf(interfaces=["127.0.0.1"]) as network:

        async def look(name: str):
            info = AsyncServiceInfo("_store-hub._udp.local.", name)
            if await info.async_request(network.zeroconf, 3000):
                keys = {key.decode(): (value or b"").decode() for key, value in info.properties.items()}
                if keys.get("k") == hub[:8].hex() and not found.done():
                    found.set_result(((info.parsed_addresses()[0], info.port), keys))

        def changed(zeroconf, service_type, name, state_change):
            looks.append(asyncio.ensure_future(look(name)))

        looks: list[asyncio.Future] = []
        browser = AsyncServiceBrowser(network.zeroconf, "_store-hub._udp.local.", handlers=[changed])
        try:
            return await asyncio.wait_for(found, seconds)
        finally:
            await browser.async_cancel()


async def discovery(table: Table, shop: Shop) -> None:
    area = "finding the hub"
    address, keys = await find(shop.hub_id)
    table.check(area, "mDNS: address and port", ("127.0.0.1", shop.pay_port), address)
    table.check(
        area, "mDNS: TXT v, id, k", ("6", "shop-001", shop.hub_id[:8].hex()), (keys["v"], keys["id"], keys["k"])
    )
    unseen = Device("Caisse 9")
    short = unseen.identity[:8].hex()
    kind, name = "_pos-device._udp.local.", f"Caisse {short}"
    txt = {"v": "3", "id": name, "class": "terminal", "k": short}
    where = {"port": 0, "addresses": [bytes([127, 0, 0, 1])], "server": f"pos-{short}.local."}
    listed = None
    async with AsyncZeroconf(interfaces=["127.0.0.1"]) as network:
        await (await network.async_register_service(ServiceInfo(kind, f"{name}.{kind}", properties=txt, **where)))
        for _ in range(100):
            devices = shop.ctl("devices")["devices"]
            listed = next((each["name"] for each in devices if each["id"] == short), None)
            if listed:
                break
            await asyncio.sleep(0.1)
    table.check(area, "mDNS: the hub lists a device that is not enrolled, by its name", name, listed)


# ---- enrolment --------------------------------------------------------------


async def enrolment(table: Table, shop: Shop) -> Device:
    area = "enrolment"
    said = shop.code()
    code = m.read_code(said)
    table.check(
        area,
        "the code names the hub, and both addresses",
        (
            shop.hub_id,
            f"127.0.0.1:{shop.enrol_port}",
            f"127.0.0.1:{shop.pay_port}",
        ),
        (code.hub, *code.enrol_at, *code.pay_at),
    )
    device = Device("Caisse 1")
    at = m.host_and_port(code.enrol_at[0])

    async def ask(frame: bytes, key=None, alpn=wire.ENROLMENTS, hub=code.hub):
        connection = await wire.connect(at, alpn, key or device.tls_key, hub)
        try:
            return device.answer(await connection.exchange(frame))
        finally:
            if not connection.ended.done():
                await connection.leave()

    other = Device("Caisse 2")
    forged = m.Code(code.hub, os.urandom(16), code.enrol_at, code.pay_at)
    table.check(area, "a token that is not known", 6001, await refusal(ask(device.enrolment(forged))))
    table.check(area, "a code for another hub", 6001, await refusal(ask(device.enrolment(code, hub=other.identity))))
    table.check(
        area,
        "another identity than the connection's",
        6003,
        await refusal(ask(device.enrolment(code, device=other.identity))),
    )
    table.check(area, "another frame than enrol", 1006, await refusal(ask(m.frame(1, {1: "app"}))))
    table.check(
        area,
        "the ALPN for payments here",
        NO_SUCH_ALPN,
        await refusal(ask(device.enrolment(code), alpn=[wire.PAYMENTS[3]])),
    )
    wrong = await refusal(ask(device.enrolment(code), hub=other.identity))
    table.check(area, "a hub of another identity: the device hangs up", ("transport", 0x100 + 42), wrong)

    connection = await wire.connect(at, wire.ENROLMENTS, device.tls_key, code.hub)
    frame = device.enrolment(code)
    answer = await connection.exchange(frame)
    registration = device.enrolled(answer, code)
    await connection.leave()
    table.check(
        area,
        "the registration: class, name, and the key that the ledger is signed with",
        (
            3,
            "Caisse 1",
            shop.signing_key,
        ),
        (registration[3], registration[4], registration[7]),
    )
    again = await wire.connect(at, wire.ENROLMENTS, device.tls_key, code.hub)
    table.check(area, "the same request again: the same answer", answer, await again.exchange(frame))
    await again.leave()

    code = m.read_code(shop.code())
    table.check(
        area,
        "a used code by another device",
        6001,
        await refusal(ask(other.enrolment(m.read_code(said)), other.tls_key)),
    )
    rekeyed = Device("Caisse 1", tls_key=device.tls_key)
    table.check(area, "this device with another signing key", 6004, await refusal(ask(rekeyed.enrolment(code))))
    copied = Device("Caisse 3", signing_key=device.signing_key)
    table.check(
        area, "another device with this signing key", 6004, await refusal(ask(copied.enrolment(code), copied.tls_key))
    )
    number, fields = await ask(device.enrolment(code))
    table.check(area, "once more with both keys: the first registration", answer, m.frame(number, fields))
    return device


# ---- the session ------------------------------------------------------------


async def session(table: Table, shop: Shop, device: Device) -> None:
    area = "the session"
    shown, _ = await find(shop.hub_id)
    table.check(area, "the code's static address is the one that mDNS shows", device.addresses[0], shown)
    connection = await device.connect(shown)
    quic = connection._quic
    info = await device.hello()
    table.check(
        area,
        "hello: wire version, shop, policy, gateway",
        (6, "Épicerie du Port", 1, 1),
        (info[2], info[3], info[5], info[6]),
    )
    table.check(
        area,
        "a Retry, no session ticket, no token",
        (1, 0, 0),
        (quic._retry_count, len(quic.tickets), len(quic.tokens)),
    )
    allowed = (quic._remote_max_streams_bidi >= 16, quic._remote_max_streams_uni, quic._remote_max_data >= 256 * 1024)
    table.check(area, "16 streams, none of one direction, 256 KiB ahead", (True, 0, True), allowed)
    hellos = await asyncio.gather(*(device.hello() for _ in range(64)))
    table.check(area, "64 requests, as many at once as may be", 64, len(hellos))

    stranger = Device("stranger")
    stranger.hub = shop.hub_id
    stranger.addresses = device.addresses

    async def as_stranger(alpn=(wire.PAYMENTS[3],), key=None):
        connection = await wire.connect(device.addresses[0], list(alpn), key or stranger.tls_key, shop.hub_id)
        why = await connection.end_within(5)
        raise wire.Closed(why or ("still", "open"))

    table.check(area, "a device that is not enrolled", ACCESS_DENIED, await refusal(as_stranger()))
    table.check(area, "an ALPN that is none", NO_SUCH_ALPN, await refusal(as_stranger(["store-hub/3000"])))
    table.check(area, "the ALPN for enrolment here", NO_SUCH_ALPN, await refusal(as_stranger(wire.ENROLMENTS)))
    p384 = ec.generate_private_key(ec.SECP384R1())
    table.check(area, "a key of another curve, so no certificate", NO_CERTIFICATE, await refusal(as_stranger(key=p384)))
    enrol = device.enrolment(m.Code(shop.hub_id, os.urandom(16), [], []))
    table.check(area, "enrol on the payment endpoint", 1006, await refusal(device.ask(enrol, 105)))
    hello = m.frame(1, {1: "app"})
    table.check(area, "two frames on a stream", 1003, await refusal(device.ask(hello + hello, 101)))

    async def read(answer):
        return device.answer(await answer)

    slow = device.connection.exchange(hello[:-1], end=False)
    table.check(area, "a frame without its end, after 5 s", 1001, await refusal(read(slow)))

    more = [await wire.connect(device.addresses[0], [wire.PAYMENTS[3]], device.tls_key, device.hub) for _ in range(4)]
    table.check(area, "a fifth connection closes the oldest", ("application", 0), await connection.end_within(5))
    table.check(area, "and no other", 4, [await each.end_within(0.1) for each in more].count(None))
    for each in more:
        await each.leave()
    await device.connect()
