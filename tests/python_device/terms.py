"""Payments that say what they are and who stands at the device; supervisors; wire version 2 beside."""

import asyncio
import datetime
import os

import cose
import messages as m
import people
from device import Device
from payments import AAC, NO_CVM, TAP
from people import terms
from shop import Shop
from table import Table, group, number_of, refusal


def month(ago: int = 0) -> int:
    """The month so many months ago, as cards have it: 2711 for November 2027."""
    today = datetime.datetime.now(datetime.UTC)
    months = today.year * 12 + today.month - 1 - ago
    return months // 12 % 100 * 100 + months % 12 + 1


async def decided(device: Device, *args, **fields) -> tuple:
    """Decision, reason, and the transaction type, 0 for none."""
    receipt = await device.pay(device.payment(*args, **fields))
    return receipt[7], receipt[8], receipt.get(16, 0)


# ---- online -----------------------------------------------------------------


async def online(table: Table, shop: Shop, device: Device) -> None:
    area = "terms, online"
    for what, amount, said in [
        ("a sale by a member of staff", 1250, terms(staff="anna")),
        ("a refund", 1251, terms(m.REFUND, staff="anna")),
        ("a sale with cash handed out", 3000, terms(m.CASH_BACK, cash=1000)),
        ("a card in its last month", 1252, terms(expiry=month())),
        ("a card that has expired: the gateway decides", 1253, terms(expiry=month(1))),
    ]:
        payment = device.payment(amount, terms=said)
        receipt = await device.pay(payment)
        kind = said[1]
        table.check(area, what, (m.ONLINE, 0, kind), (receipt[7], receipt[8], receipt.get(16, 0)))
        known = await asyncio.to_thread(shop.book, payment.id)
        names = {m.SALE: "sale", m.REFUND: "refund", m.CASH_BACK: "cash-back"}
        got = (known.get("status"), known.get("transaction_type"))
        table.check(area, f"{what}: at the gateway", ("approved", names[kind]), got)
    payment = device.payment(1300, terms=terms(training=True))
    receipt = await device.pay(payment)
    table.check(area, "training", (m.DECLINED, 105, m.SALE), (receipt[7], receipt[8], receipt.get(16, 0)))
    table.check(area, "training: at the gateway", False, bool(await asyncio.to_thread(shop.book, payment.id)))
    payment = device.payment(1400, terms=terms(staff="anna"))
    first, again = (await device.pay_committed(payment))[0], (await device.pay_committed(payment))[0]
    first, again = (m.read(m.committed_receipt, committed)[1] for committed in (first, again))
    table.check(area, "the same bytes again: the same receipt", first, again)


async def malformed(table: Table, device: Device) -> None:
    """Terms that are none, each refused before anything is decided."""
    good = terms(m.CASH_BACK, cash=1000, staff="anna", expiry=2711)
    key = device.signing_key
    long = cose.sign(key, m.OVERRIDE, bytes(420))
    cases = [
        ("a transaction type that is not assigned", 1005, good | {1: 4}),
        ("no transaction type", 1005, {4: False}),
        ("no word on training", 1005, {1: 1}),
        ("training as a number", 1005, {1: 1, 4: 0}),
        ("an unknown key", 1004, good | {7: 1}),
        ("null for what is absent", 1004, {1: 1, 3: None, 4: False}),
        ("cash-back without cash", 3005, terms(m.CASH_BACK)),
        ("a sale with cash", 3005, terms(cash=1)),
        ("a refund with cash", 3005, terms(m.REFUND, cash=1)),
        ("no cash at all", 3005, good | {2: 0}),
        ("cash and nothing bought", 3005, good | {2: 2000}),
        ("staff without a letter", 3005, good | {3: ""}),
        ("staff of 65 bytes", 3005, good | {3: "a" * 65}),
        ("staff not ASCII", 3005, good | {3: "Zoé"}),
        ("staff a card number", 3006, good | {3: "4111111111111111"}),
        ("a month that is none", 3005, good | {5: 2713}),
        ("a year alone", 3005, good | {5: 2700}),
        ("a month of 100 years on", 3005, good | {5: 12711}),
        ("an override above its size", 3005, terms(override=long)),
        ("an override that is empty", 3005, terms(override=b"")),
    ]
    outcomes = []
    for what, expected, said in cases:
        payment = device.payment(2000, terms=dict(sorted(said.items())), cryptogram=AAC)
        outcomes.append((what, expected, await refusal(device.pay(payment))))
    for what, expected, fields in [
        ("terms, signed as of old", 2004, {"terms": good, "signed_as": m.PAY}),
        ("no terms, signed as of now", 2004, {"signed_as": m.PAY_ON_TERMS}),
    ]:
        outcomes.append((what, expected, await refusal(device.pay(device.payment(2000, cryptogram=AAC, **fields)))))
    group(table, "terms that are none", outcomes)
    receipt = await device.pay(device.payment(2000, terms=terms(override=b"\0"), cryptogram=AAC))
    table.check("terms that are none", "an override that is no object: as none", 110, receipt[8])


# ---- wire version 2 ---------------------------------------------------------


async def version_2(table: Table, shop: Shop, device: Device) -> None:
    area = "wire version 2"
    table.check(area, "offered 6, 5, 4, 3 and 2: it is 6", "store-hub/6", device.connection.alpn)
    old = Device("Caisse 5", versions=(2,))
    await old.enrol(shop.code())
    await old.connect()
    table.check(area, "offered 2 alone", ("store-hub/2", 2), (old.connection.alpn, (await old.hello())[2]))
    plain = old.payment(1500)
    committed, receipt = await old.pay_committed(plain)
    table.check(area, "a receipt without a transaction type", (m.ONLINE, False), (receipt[7], 16 in receipt))
    stated = old.payment(1501, terms=terms(staff="anna"))
    table.check(area, "terms are refused", 2004, await refusal(old.pay(stated)))
    table.check(area, "and nothing was decided under their id", 4002, await refusal(old.status(stated.id)))
    describe = m.frame(6, {1: old.description()})
    table.check(area, "describe is refused", 1006, await refusal(old.ask(describe, 106)))
    await old.connection.leave()

    old.versions = (2, 3)
    await old.connect()
    table.check(area, "updated, and still offering 2 first: it is 3", "store-hub/3", old.connection.alpn)
    again = (await old.pay_committed(plain))[0]
    before, after = m.read(m.committed_receipt, committed)[1], m.read(m.committed_receipt, again)[1]
    table.check(area, "the payment from before, asked for with its bytes", before, after)
    receipt = await old.pay(stated)
    table.check(area, "what was refused on 2 is taken on 3", (m.ONLINE, m.SALE), (receipt[7], receipt.get(16, 0)))
    await old.connection.leave()

    old.versions = (2,)
    await old.connect()
    table.check(area, "paid on 3, asked for on 2", 2004, await refusal(old.pay(stated)))
    shown = (await old.status(stated.id))["receipt"]
    table.check(area, "its receipt is what it was", cose.encode(receipt), m.read(m.committed_receipt, shown)[1])
    table.check(area, "which devices of version 2 do not take", 1004, number_of(old.receipt, shown))
    await old.connection.leave()

    old.versions = (1,)
    await old.connect()
    table.check(area, "version 1 alone", ("store-hub/1", 1), (old.connection.alpn, (await old.hello())[2]))
    await old.connection.leave()


# ---- offline ----------------------------------------------------------------


async def offline(table: Table, device: Device) -> None:
    """Under the sample policy; the gateway is gone."""
    area = "terms, offline"
    for at, (what, expected, said) in enumerate(
        [
            ("a sale by a member of staff", (m.OFFLINE, 0, m.SALE), terms(staff="anna")),
            ("a refund", (m.DECLINED, 230, m.REFUND), terms(m.REFUND)),
            ("a sale with cash handed out", (m.DECLINED, 230, m.CASH_BACK), terms(m.CASH_BACK, cash=100)),
            ("training", (m.DECLINED, 105, m.SALE), terms(training=True)),
            ("a refund, in training", (m.DECLINED, 105, m.REFUND), terms(m.REFUND, training=True)),
            ("a card that has expired", (m.DECLINED, 306, m.SALE), terms(expiry=month(1))),
            ("a card in its last month", (m.OFFLINE, 0, m.SALE), terms(expiry=month())),
        ]
    ):
        table.check(area, what, expected, await decided(device, 1000, token=f"tok_terms{at}", terms=said))


OVERRIDES = """
[override]
window_count = 1
window_minutes = 240

[[override.supervisor]]
name = "Claire"
key = "{claire}"
"""


async def supervised(table: Table, shop: Shop, device: Device, version: int) -> None:
    """The gateway is gone."""
    claire, public = shop.keygen("claire")
    stranger, _ = shop.keygen("stranger")
    shop.install_policy(version, OVERRIDES.format(claire=public), {"card": "consecutive_lower_limit = 2"})
    tap = {"entry": TAP, "verification": NO_CVM}
    for _ in range(2):
        await decided(device, 100, token="tok_lower", terms=terms())
    area = "supervisors"

    async def lifted(key=claire, amount=100, over=None, id=None, device_id=None, **fields) -> tuple:
        id = id or os.urandom(16)
        word = people.override(key, fields.pop("of", id), device_id or device.identity, over or amount, **fields)
        said = terms(staff="bob", override=word)
        return await decided(device, amount, id=id, token="tok_lower", terms=said, **tap)

    asked = (m.FALLBACK, 620, m.SALE)
    table.check(area, "an override by a key that the policy does not name", asked, await lifted(stranger))
    table.check(area, "an override for another payment", asked, await lifted(of=os.urandom(16)))
    table.check(area, "an override for another device", asked, await lifted(device_id=bytes(32)))
    table.check(area, "an override for another amount", asked, await lifted(over=99))
    table.check(area, "an override for another currency", asked, await lifted(currency="USD"))
    table.check(area, "a supervisor's override: the lower limit is lifted", (m.OFFLINE, 0, m.SALE), await lifted())
    table.check(area, "a second one, where the policy allows one", asked, await lifted())
    id = os.urandom(16)
    word = people.override(claire, id, device.identity, 15001)
    got = await decided(device, 15001, id=id, token="tok_high", terms=terms(staff="bob", override=word))
    table.check(area, "an override does not lift a ceiling", (m.DECLINED, 410, m.SALE), got)
