"""Payments: online, offline, after a kill, voided, pushed; and a device's standing."""

import asyncio
import os

import cose
import messages as m
import wire
from device import Device
from shop import Shop
from table import ACCESS_DENIED, Table, refusal

CHIP, TAP, STRIPE = 1, 2, 3
NO_CVM, OFFLINE_PIN, ONLINE_PIN = 1, 3, 4
TC, ARQC, AAC = 1, 2, 3


# ---- payments online --------------------------------------------------------


async def pushed(device: Device, number: int, id: bytes = None):
    """The next push of this kind about this payment."""
    while True:
        data = await asyncio.wait_for(device.connection.pushes.get(), 30)
        got, what = device.push(data)
        if got == number and (id is None or what[2] == id):
            return what


async def online(table: Table, shop: Shop, device: Device) -> None:
    area = "payments online"
    payment = device.payment(1250)
    committed, receipt = await device.pay_committed(payment)
    table.check(area, "approved online", (m.ONLINE, 0, 1, True), (receipt[7], receipt[8], receipt[10], receipt[11][1]))
    again, _ = await device.pay_committed(payment)
    table.check(
        area,
        "the same bytes again: the same receipt",
        m.read(m.committed_receipt, committed)[1],
        m.read(m.committed_receipt, again)[1],
    )
    table.check(
        area, "the same id with other bytes", 4001, await refusal(device.pay(device.payment(1250, id=payment.id)))
    )
    second = Device("Caisse 2")
    await second.enrol(shop.code())
    await second.connect()
    table.check(
        area, "the same id from another device", 4001, await refusal(second.pay(second.payment(1250, id=payment.id)))
    )
    table.check(area, "the bytes of another device", 2003, await refusal(second.ask(payment.frame(), 102)))
    table.check(area, "its status to another device", 4003, await refusal(second.status(payment.id)))
    table.check(area, "its void by another device", 4003, await refusal(second.void(payment.id)))
    status = await device.status(payment.id)
    table.check(
        area,
        "status: settled, and the same receipt",
        (m.SETTLED, cose.encode(receipt)),
        (
            status[3],
            cose.encode(device.receipt(status["receipt"], payment)),
        ),
    )
    table.check(area, "status of an id that is not known", 4002, await refusal(device.status(os.urandom(16))))
    table.check(area, "void of an id that is not known", 4002, await refusal(device.void(os.urandom(16))))
    table.check(area, "void: a reversal is queued", m.REVERSAL_QUEUED, (await device.void(payment.id))[3])
    table.check(area, "push: reversed", m.REVERSED, (await pushed(device, 201, payment.id))[3])
    table.check(area, "void again: where the first stands", m.REVERSED, (await device.void(payment.id))[3])

    refused = device.payment(700, cryptogram=AAC)
    receipt = await device.pay(refused)
    table.check(area, "refused by the card", (m.DECLINED, 110), (receipt[7], receipt[8]))
    table.check(area, "void of a payment that was declined", 4004, await refusal(device.void(refused.id)))
    receipt = await device.pay(device.payment(700, currency="USD"))
    table.check(area, "a currency that the shop does not take", (m.DECLINED, 130), (receipt[7], receipt[8]))
    advice = device.payment(800, cryptogram=TC)
    receipt = await device.pay(advice)
    table.check(
        area,
        "approved by the chip: decided here, sent as advice",
        (m.OFFLINE, 0, 3),
        (receipt[7], receipt[8], receipt[10]),
    )
    table.check(area, "push: settled", m.SETTLED, (await pushed(device, 201, advice.id))[3])
    shop.faults(decline=1.0)
    receipt = await device.pay(device.payment(900))
    table.check(area, "declined by the gateway", (m.DECLINED, 150, False), (receipt[7], receipt[8], receipt[11][1]))
    shop.faults()
    payments = [device.payment(300 + at) for at in range(40)]
    receipts = await asyncio.gather(*map(device.pay, payments))
    table.check(
        area,
        "40 at once, all committed and approved",
        (40, 40),
        (
            len({receipt[3] for receipt in receipts}),
            [receipt[7] for receipt in receipts].count(m.ONLINE),
        ),
    )
    await second.connection.leave()


# ---- the gateway is gone ----------------------------------------------------


async def decided(device: Device, *args, **fields) -> tuple:
    """Decision, reason, and what goes with them: the submission or the fallback action."""
    receipt = await device.pay(device.payment(*args, **fields))
    return receipt[7], receipt[8], receipt.get(10, receipt.get(9, 0))


async def outage(table: Table, shop: Shop, device: Device) -> list[bytes]:
    area = "payments offline"
    await asyncio.to_thread(shop.stop_gateway)
    await asyncio.to_thread(shop.wait_for, "offline")
    for _ in range(50):  # the hub tells its devices a moment after it tells hubctl
        if (stands := (await device.hello())[6]) == 3:
            break
        await asyncio.sleep(0.1)
    table.check(area, "hello: the gateway is gone", 3, stands)
    kept = []
    for at, (what, submission, cryptogram) in enumerate(
        [("asks online", 2, ARQC), ("chip approved", 3, TC), ("to be voided", 2, ARQC)]
    ):
        payment = device.payment(2500 + at, token=f"tok_offline{at}", cryptogram=cryptogram)
        committed, receipt = await device.pay_committed(payment)
        kept.append((payment, committed, receipt))
        table.check(
            area, f"{what}: approved offline", (m.OFFLINE, 0, submission), (receipt[7], receipt[8], receipt[10])
        )
        table.check(area, f"{what}: status queued", m.QUEUED, (await device.status(payment.id))[3])
    table.check(area, "void before it was sent", m.VOIDED, (await device.void(kept[2][0].id))[3])
    above = [
        ("above the ceiling for one payment", (m.DECLINED, 410, 0), dict(amount=15001)),
        ("magnetic stripe: insert the card", (m.FALLBACK, 320, 1), dict(amount=500, entry=STRIPE)),
        ("PIN for the issuer: insert, enter the PIN", (m.FALLBACK, 321, 2), dict(amount=500, verification=ONLINE_PIN)),
        (
            "tapped for too much: insert, enter the PIN",
            (m.FALLBACK, 330, 2),
            dict(amount=5001, entry=TAP, verification=NO_CVM),
        ),
        ("refused by the card", (m.DECLINED, 110, 0), dict(amount=500, cryptogram=AAC)),
    ]
    for at, (what, expected, fields) in enumerate(above):
        table.check(area, what, expected, await decided(device, token=f"tok_above{at}", **fields))
    for _ in range(5):
        await decided(device, 100, token="tok_often")
    table.check(
        area, "one card for the sixth time", (m.DECLINED, 520, 0), await decided(device, 100, token="tok_often")
    )

    area = "the hub is killed"
    old = device.connection
    shop.kill_hub()
    shop.start_hub()
    table.check(area, "the old connection learns of it by a stateless reset", (wire.RESET, 0), await old.end_within(12))
    await asyncio.to_thread(shop.wait_for, "offline")
    await device.connect()
    for payment, committed, _ in kept:
        again, _ = await device.pay_committed(payment)
        before, after = m.read(m.committed_receipt, committed)[1], m.read(m.committed_receipt, again)[1]
        table.check(area, f"payment of {payment.amount} again: the same receipt", before, after)
    other = device.payment(2500, id=kept[0][0].id)
    table.check(area, "the same id with other bytes", 4001, await refusal(device.pay(other)))
    table.check(area, "what was voided stays so", m.VOIDED, (await device.status(kept[2][0].id))[3])

    area = "the gateway is back"
    await asyncio.to_thread(shop.start_gateway)
    for payment, _, _ in kept[:2]:
        table.check(area, f"push: {payment.amount} settled", m.SETTLED, (await pushed(device, 201, payment.id))[3])
    status = await device.status(kept[0][0].id)
    table.check(
        area,
        "status: settled, with the receipt of the offline decision",
        cose.encode(kept[0][2]),
        cose.encode(device.receipt(status["receipt"])),
    )
    return [committed for _, committed, _ in kept]


async def standing(table: Table, shop: Shop, device: Device) -> None:
    area = "policy and standing"
    shop.install_policy(2)
    table.check(area, "push: policy 2 is in force", 2, await pushed(device, 202))
    table.check(area, "hello says so too", 2, (await device.hello())[5])
    for version in range(3, 22):
        await asyncio.to_thread(shop.install_policy, version, "#" * 60_000)
    shop.ctl("devices", "block", device.identity.hex())
    table.check(area, "blocked: the hub closes", ("application", 6005), await device.connection.end_within(5))

    async def come_back():
        await device.connect()
        return await device.hello()

    table.check(area, "blocked: it cannot come back", ACCESS_DENIED, await refusal(come_back()))
    said = shop.code()
    table.check(area, "blocked: nor enrol again", 6005, await refusal(device.enrol(said)))
    shop.ctl("devices", "unblock", device.identity.hex())
    table.check(area, "unblocked: it can", 4, (await come_back())[2])


async def stopping(table: Table, shop: Shop, device: Device) -> None:
    area = "the hub stops"
    table.check(area, "exit code", 0, await asyncio.to_thread(shop.stop_hub))
    table.check(area, "it closes with 5002", ("application", 5002), await device.connection.end_within(5))
