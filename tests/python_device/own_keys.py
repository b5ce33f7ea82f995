"""A device changes its own keys."""

import asyncio
import copy

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import device as devices
import messages as m
from shop import Shop
from table import Table, refusal


def keys() -> tuple:
    return ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate()


async def change(table: Table, shop: Shop) -> None:
    area = "a device's own keys"
    device, phone = devices.Device("Caisse A"), devices.Device("Caisse B")
    await device.enrol(await asyncio.to_thread(shop.code))
    await device.connect()
    queued = device.payment(2100)
    (tls, signing), (other, _) = keys(), keys()

    async def asked(frame: bytes) -> int:
        return await refusal(device.ask(frame, 111))

    for what, expected, how in [
        ("without the new TLS key's signature", 2001, {"bare": True}),
        ("signed by another TLS key", 2004, {"signed_by": other}),
        ("signed by it over another number", 2004, {"over": {3: 2}}),
        ("signed by it for another device", 2004, {"over": {2: phone.identity}}),
        ("signed by it for another hub", 2004, {"over": {1: phone.identity}}),
        ("of a number that leaves one out", 6007, {"number": 2}),
    ]:
        table.check(area, f"a change {what}: refused", expected, await asked(device.key_change(tls, signing, **how)))
    squat = device.key_change(phone.tls_key, signing, signed_by=device.tls_key)
    table.check(area, "to the key of a phone to be enrolled: refused", 2004, await asked(squat))
    await phone.enrol(await asyncio.to_thread(shop.code))
    table.check(area, "and the phone enrols", 32, len(phone.known.tls[0]))
    theirs = device.key_change(phone.tls_key, signing)
    table.check(area, "to the key of an enrolled one: refused", 6004, await asked(theirs))
    again = device.key_change(device.tls_key, device.signing_key)
    table.check(area, "to its own present keys: refused", 6004, await asked(again))

    older = copy.copy(device)
    older.versions = (5, 4)
    await older.connect()
    good = device.key_change(tls, signing)
    table.check(area, "on a connection of wire version 5: refused", 1006, await refusal(older.ask(good, 111)))
    await older.connection.leave()

    before = copy.copy(device)
    await device.change_keys(tls, signing)
    table.check(area, "changed, once", 1, device.changes)
    table.check(area, "its answer lost, asked for again: the same", 1, (await before.ask(good, 111))[1])
    table.check(area, "with the old TLS key a payment", 6007, await refusal(before.pay(before.payment(2200))))
    table.check(area, "and hello is answered", 6, (await before.hello())[2])
    await device.connect()
    table.check(area, "with the new one hello is answered", 6, (await device.hello())[2])
    table.check(area, "which ends what the old one has opened", ("application", 6007), await before.connection.end_within(5))
    receipt = await device.pay(queued)
    table.check(area, "what the old key signed before is decided", m.ONLINE, receipt[7])
    late = before.payment(2300)
    table.check(area, "what it signs later is refused", 6007, await refusal(device.pay(late)))
    receipt = await device.pay(device.payment(2400))
    table.check(area, "what the new one signs is decided", m.ONLINE, receipt[7])
    await before.connect()
    table.check(area, "the old TLS key is told so", 6007, await refusal(before.hello()))
    await device.connection.leave()
    await shop_sees(table, shop, area, device)


async def shop_sees(table: Table, shop: Shop, area: str, device) -> None:
    told = await asyncio.to_thread(shop.ctl, "devices")
    mine = next(each for each in told["devices"] if each["name"] == device.name)
    signs = [sign["sign"] for sign in mine["standing"]["signs"]]
    table.check(area, "the shop sees the same device, and that it was copied", ["old-keys"], signs)
