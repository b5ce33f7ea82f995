"""Devices that approve what their allowance does not permit: found at sync, kept, and quarantined."""

import asyncio
import copy

import messages as m
from allowance import CARD, POLICY, Held, arrived, asked, booked
from cose import Fault
from payments import CHIP, STRIPE
from people import terms
from receipts import Payment
from shop import Shop
from table import Table, refusal

OVERSPENT, FORKED, REUSED, EXPIRED, FOREIGN, GAP, NOT_GIVEN, UNUSABLE = KINDS = range(1, 9)


async def misuse(shop: Shop, kind: int) -> tuple[Held, Payment, dict]:
    """A device that does one of these; the payment that shows it, and the receipt for it."""
    held, _, _ = await asked(await arrived(shop, f"Caisse 7{kind}"))
    device = held.device
    how = {"token": f"tok_misuse{kind}", "entry": STRIPE if kind == FOREIGN else CHIP, "terms": terms()}
    if kind == REUSED:
        await held.give_back()
    if kind == NOT_GIVEN:
        held = Held(device, held.fields | {3: 9})
    if kind in (FORKED, GAP):
        first, other = device.payment(300, **how), copy.copy(held)
        before = held.approve(first)
        if kind == FORKED:
            await held.sync(before, first)
            held = other
    if kind == UNUSABLE:  # another sealed card lies beside it; refused, it holds up nothing behind it
        bad = device.payment(300, **how)
        bad.blob += b"?"
        frame = held.approve(bad)
        for _ in range(2):
            if (number := await refusal(held.sync(frame, bad))) != 3008:
                raise Fault(2004, f"a sealed card that does not match: {number}")
    payment = device.payment(2001 if kind == OVERSPENT else 500, **how)
    frame = held.approve(payment, held.fields[14] if kind == EXPIRED else None)
    receipt = await held.sync(frame, payment)
    if kind == GAP:  # what is missing comes, and then the chain goes on from there
        await held.sync(before, first)
    if receipt != await held.sync(frame, payment):
        raise Fault(2004, "another receipt for the same bytes")
    return held, payment, receipt


async def misused(table: Table, shop: Shop, version: int) -> list[tuple[Held, Payment]]:
    """The gateway answers."""
    area, found = "misuse", []
    for kind in KINDS:
        held, payment, receipt = await misuse(shop, kind)
        found.append((held, payment))
        table.check(area, f"{kind}: the payment is taken", (m.OFFLINE, 0, 2), tuple(receipt[n] for n in (7, 8, 10)))
        table.check(area, f"{kind}: and sent", "approved", await booked(shop, payment))
        table.check(area, f"{kind}: no allowance any more", 7001, await refusal(asked(held.device)))
        paid = await held.device.pay(held.device.payment(400, terms=terms()))
        table.check(area, f"{kind}: it pays online", m.ONLINE, paid[7])
    returns = [await refusal(held.give_back()) for held, _ in found]
    kept = {NOT_GIVEN: 7002}
    expected = [kept.get(kind, "accepted: 1") for kind in KINDS]
    table.check(area, "what is returned all the same", expected, returns)
    await asyncio.to_thread(shop.install_policy, version, POLICY, card=CARD)
    got = [await refusal(asked(held.device)) for held, _ in found]
    table.check(area, "another policy lifts nothing", [7001] * len(found), got)
    return found


async def quarantined(table: Table, shop: Shop, found: list[tuple[Held, Payment]]) -> None:
    """The gateway is gone."""
    area = "misuse"
    for kind, (held, payment) in zip(KINDS, found, strict=True):
        device, got = held.device, []
        for lifted in (False, True):
            if lifted:
                await asyncio.to_thread(shop.ctl, "restrictions", "lift", device.identity.hex())
            for said in (terms(), None):
                receipt = await device.pay(device.payment(200, token=f"tok_after{kind}", terms=said))
                got.append((receipt[7], receipt[8]))
        expected = [(m.DECLINED, 219), (m.DECLINED, 214), (m.OFFLINE, 0), (m.OFFLINE, 0)]
        table.check(area, f"{kind}: offline, with terms and without; once lifted", expected, got)
        table.check(area, f"{kind}: where its payment stands", m.SETTLED, (await device.status(payment.id))[3])
        closed = kind != NOT_GIVEN
        if not closed:
            await asyncio.to_thread(shop.ctl, "devices", "lost", device.identity.hex())
        held, _, _ = await asked(device, 1)
        got = (held.number, await held.give_back())
        table.check(area, f"{kind}: the next allowance, {'returned' if closed else 'lost'} the one before", (2, 2), got)
        await device.connection.leave()
