"""What a device approves by itself under an allowance, and how that comes to the hub."""

import asyncio
import copy
import datetime

import cose
import messages as m
from cose import Fault, sha256
from device import Device
from payments import AAC, NO_CVM, ONLINE_PIN, STRIPE, TAP
from people import now_ms, terms
from receipts import Payment
from shop import Shop, until
from table import Table, group, refusal

CLOSED = "nothing is held"


def read_allowance(signed: bytes, hub: bytes, signing_key: bytes, device: bytes, closed: int = 0) -> dict:
    """The allowance, if it is this device's and comes after the last one that it closed."""
    fields = m.read(m.allowance, cose.verify(signed, m.ALLOWANCE, signing_key))
    if (fields[1], fields[2]) != (hub, device):
        raise Fault(2004, "an allowance of another hub, or for another device")
    if fields[3] <= closed:
        raise Fault(2004, "an allowance that was closed before")
    return fields


class Held:
    """An allowance in the device's hands, and the chain of its receipts."""

    def __init__(self, device: Device, allowance: dict, clock: int = None):
        self.device, self.fields, self.number = device, allowance, allowance[3]
        self.index, self.total, self.last, self.time = 0, 0, sha256(cose.encode(allowance)), 0
        self.behind = max(0, allowance[13] - (now_ms() if clock is None else clock))
        self.by_card: dict[str, int] = {}
        self.closed = False

    def chain(self) -> dict:
        """As the hub has it, once all is synced."""
        return {1: self.index, 2: self.total, 3: self.last, 4: self.time}

    def now(self, clock: int = None) -> int:
        return max((now_ms() if clock is None else clock) + self.behind, self.time)

    def against(self, payment: Payment, clock: int = None) -> int | str:
        """The reason why it is not approved, 0 for none."""
        if self.closed:
            return CLOSED
        paid, may, now = cose.decode(cose.parse(payment.signed)[1]), self.fields, self.now(clock)
        said, card = paid.get(12, {}), paid[6]
        tapped = paid[7] == TAP and paid[8] == NO_CVM
        month = datetime.datetime.fromtimestamp(now / 1000, datetime.UTC)
        rules = [
            (105, said.get(4, False)),
            (110, paid[9] == AAC),
            (130, paid[4] != may[8]),
            (215, not may[13] <= now < may[14]),
            (230, said.get(1, m.SALE) != m.SALE),
            (306, said.get(5, 9912) < month.year % 100 * 100 + month.month),
            (310, card[2] not in may[9]),
            (311, card[3] not in may[10]),
            (320, paid[7] not in may[11]),
            (321, paid[8] == ONLINE_PIN),
            (330, tapped and paid[3] > may.get(12, paid[3])),
            (410, paid[3] > may[6]),
            (420, self.by_card.get(card[1], 0) + paid[3] > may[7]),
            (421, self.total + paid[3] > may[4]),
            (521, self.index >= may[5]),
        ]
        return next((reason for reason, stands in rules if stands), 0)

    def approve(self, payment: Payment, clock: int = None) -> bytes:
        """The frame that tells the hub of it; the rules are for `against` to look at."""
        token = cose.decode(cose.parse(payment.signed)[1])[6][1]
        self.by_card[token] = self.by_card.get(token, 0) + payment.amount
        self.index, self.total, self.time = self.index + 1, self.total + payment.amount, self.now(clock)
        said = {1: self.number, 2: self.index, 3: self.last, 4: payment.id, 5: sha256(payment.signed)}
        encoded = cose.encode(said | {6: payment.amount, 7: self.total, 8: self.time})
        self.last = sha256(encoded)
        receipt = cose.sign(self.device.signing_key, m.DEVICE_RECEIPT, encoded)
        sealed = {1: payment.salt, 2: payment.blob}
        return m.frame(8, {1: self.number, 2: payment.signed, 3: sealed, 4: receipt})

    def returned(self) -> bytes:
        """The frame that gives it back: nothing is approved from here on."""
        self.closed = True
        said = cose.encode({1: self.number, 2: self.index, 3: self.total, 4: self.last})
        return m.frame(9, {1: cose.sign(self.device.signing_key, m.RETURN, said)})

    async def sync(self, frame: bytes, payment: Payment) -> dict:
        """The hub's receipt, checked as any."""
        return self.device.receipt((await self.device.ask(frame, 108))[1], payment)

    async def give_back(self) -> int:
        return (await self.device.ask(self.returned(), 109))[1]


async def asked(device: Device, closed: int = 0) -> tuple[Held, bytes, dict]:
    """What the hub gives, as it came, and how far it knows the chain."""
    fields = await device.ask(m.frame(7, {1: closed} if closed else {}), 107)
    taken = read_allowance(fields[1], device.hub, device.hub_signing_key, device.identity, closed)
    return Held(device, taken), fields[1], fields[2]


async def arrived(shop: Shop, name: str, device_class="terminal", **how) -> Device:
    device = Device(name, **how)
    await device.enrol(shop.code(device_class))
    await device.connect()
    return device


# ---- as it should be --------------------------------------------------------

POLICY = """
[allowance]
amount = 5000
count = 3
transaction_ceiling = 2000
minutes = 60
classes = ["terminal"]
card_ceiling = 5000
devices = 20
"""
CARD = 200_000  # of which half is for devices that are out of reach


def rules(table: Table, held: Held) -> None:
    """What the device itself says no to, each for one thing alone."""
    chip = {1: "tok_rules", 2: 2, 3: 2}
    cases = [
        (0, 2000, {}),
        (0, 2000, {"terms": terms(expiry=9912)}),
        (105, 100, {"terms": terms(training=True), "cryptogram": AAC}),
        (110, 100, {"cryptogram": AAC, "currency": "USD"}),
        (130, 100, {"currency": "USD", "terms": terms(m.REFUND)}),
        (230, 100, {"terms": terms(m.CASH_BACK, cash=10, expiry=2001)}),
        (306, 100, {"terms": terms(expiry=2001)}),
        (310, 100, {"card": chip | {2: 0}}),
        (311, 100, {"card": chip | {3: 4}}),
        (320, 100, {"entry": STRIPE}),
        (321, 100, {"verification": ONLINE_PIN}),
        (410, 2001, {}),
    ]
    area, device = "an allowance", copy.copy(held.device)
    outcomes = [(f"the device itself: reason {no}", no, held.against(device.payment(n, **how))) for no, n, how in cases]
    at = [held.fields[13] - 1, held.fields[13], held.fields[14] - 1, held.fields[14]]
    held = copy.copy(held)
    held.behind = 0
    for clock, no in zip(at, [215, 0, 0, 215], strict=True):
        outcomes.append((f"the device itself: at its time, {no}", no, held.against(device.payment(100), clock)))
    held.time = at[2]
    outcomes.append(("the device itself: a clock that goes back", at[2], held.now(at[0])))
    for no, change, how in [
        (330, {12: 99}, {"entry": TAP, "verification": NO_CVM}),
        (420, {7: 99}, {}),
        (421, {4: 99}, {}),
        (521, {5: 0}, {}),
    ]:
        changed = Held(device, held.fields | change)
        outcomes.append((f"the device itself: reason {no}", no, changed.against(device.payment(100, **how))))
    group(table, area, outcomes)


async def given(table: Table, shop: Shop, version: int) -> None:
    """The gateway answers."""
    area = "an allowance"
    device = await arrived(shop, "Caisse 7")
    table.check(area, "a policy that gives none", 7001, await refusal(asked(device)))
    await asyncio.to_thread(shop.install_policy, version, POLICY, card=CARD)
    phone = await arrived(shop, "Tél 7", "softpos")
    table.check(area, "a class that gets none", 7001, await refusal(asked(phone)))

    held, signed, chain = await asked(device)
    may = held.fields
    table.check(
        area,
        "given: number, amount, count, for a payment, for a card, currency, policy, minutes",
        (1, 5000, 3, 2000, 5000, "EUR", version, 60),
        (may[3], may[4], may[5], may[6], may[7], may[8], may[15], (may[14] - may[13]) // 60_000),
    )
    cards = [may[9], may[10], may[11], may[12]]
    table.check(area, "given: schemes, funding, entry modes, a tap", [[1, 2, 3], [1, 2, 3], [1, 2], 5000], cards)
    table.check(area, "its chain has not begun", cose.encode(held.chain()), cose.encode(chain))
    table.check(area, "asked again: the same, byte for byte", signed, (await asked(device))[1])
    rules(table, held)

    payments = [device.payment(1700 + at, token=f"tok_away{at}", terms=terms(staff="anna")) for at in range(3)]
    frames = []
    for payment in payments:
        no = 421 if payment is payments[2] else 0
        table.check(area, f"{payment.amount}: what stands against it", no, held.against(payment))
        frames += [] if no else [held.approve(payment)]
    table.check(area, "returned before it is synced", 7003, await refusal(held.give_back()))
    table.check(area, "nothing is approved once its return was made", CLOSED, held.against(device.payment(1)))
    first = await held.sync(frames[0], payments[0])
    table.check(
        area,
        "the first synced: approved offline, deferred",
        (m.OFFLINE, 0, 2, 1),
        tuple(first[n] for n in (7, 8, 10, 16)),
    )
    first = cose.encode(first)
    again = [await held.sync(frames[0], payments[0]), await device.pay(payments[0])]
    table.check(area, "the same bytes again, and as any payment: the same", [first] * 2, list(map(cose.encode, again)))
    chain = (await asked(device))[2]
    table.check(area, "how far the hub knows the chain", (1, 1700), (chain[1], chain[2]))
    table.check(area, "returned before all is synced", 7003, await refusal(held.give_back()))
    shop.kill_hub()
    shop.start_hub()
    await asyncio.to_thread(shop.wait_for, "online")
    await device.connect()
    again = await held.sync(frames[0], payments[0])
    table.check(area, "after a kill: the same receipt", first, cose.encode(again))
    second = await held.sync(frames[1], payments[1])
    table.check(area, "the second synced", (m.OFFLINE, 0, 2, 1), tuple(second[n] for n in (7, 8, 10, 16)))
    _, again, chain = await asked(device)
    _, again, chain = await asked(device)
    same = (again, cose.encode(chain))
    table.check(
        area, "asked again: the same allowance, and the chain as here", (signed, cose.encode(held.chain())), same
    )
    table.check(area, "sent to the gateway", "approved", await booked(shop, payments[1]))
    table.check(area, "voided as any payment", m.REVERSAL_QUEUED, (await device.void(payments[1].id))[3])
    unknown = Held(device, may | {3: 2})
    table.check(area, "a return of one that was never given", 7002, await refusal(unknown.give_back()))
    table.check(area, "returned, and once more", (1, 1), (await held.give_back(), await held.give_back()))

    held, _, _ = await asked(device, held.number)
    table.check(area, "the next one has a higher number", 2, held.number)
    shop.faults(decline=1.0)
    payment = device.payment(100, token="tok_before", terms=terms())
    declined = await device.pay(payment)
    shop.faults()
    got = await held.sync(held.approve(payment), payment)
    table.check(
        area, "declined by the hub before: that stands", (150, cose.encode(declined)), (got[8], cose.encode(got))
    )
    table.check(area, "returned, with a payment that was declined", 2, await held.give_back())
    await device.connection.leave()
    old = await arrived(shop, "Caisse 8", versions=(2,))
    newer = {107: m.frame(7, {}), 108: frames[0], 109: held.returned()}
    answers = [await refusal(old.ask(frame, number)) for number, frame in newer.items()]
    table.check(area, "frames 7 to 9 on wire version 2", [1006] * 3, answers)
    await old.connection.leave()


async def booked(shop: Shop, payment: Payment) -> str:
    """What the gateway says of a payment, once it has it."""
    return await asyncio.to_thread(until, "the gateway", lambda: shop.book(payment.id).get("status"))
