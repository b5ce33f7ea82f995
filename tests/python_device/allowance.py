"""What a device approves by itself under an allowance, and how that comes to the hub."""

import datetime

import cose
import messages as m
from cose import Fault, sha256
from people import now_ms
from receipts import Payment

CONTACTLESS, NOT_VERIFIED, ISSUERS_PIN, CARD_REFUSED = 2, 1, 4, 3


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

    def __init__(self, device, allowance: dict, clock: int = None):
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

    def against(self, payment: Payment, clock: int = None) -> int:
        """The reason why it is not approved, 0 for none."""
        paid, may, now = cose.decode(cose.parse(payment.signed)[1]), self.fields, self.now(clock)
        terms, card = paid.get(12, {}), paid[6]
        tapped = paid[7] == CONTACTLESS and paid[8] == NOT_VERIFIED
        month = datetime.datetime.fromtimestamp(now / 1000, datetime.UTC)
        rules = [
            (105, terms.get(4, False)),
            (110, paid[9] == CARD_REFUSED),
            (130, paid[4] != may[8]),
            (215, self.closed or not may[13] <= now < may[14]),
            (230, terms.get(1, m.SALE) != m.SALE),
            (306, terms.get(5, 9912) < month.year % 100 * 100 + month.month),
            (310, card[2] not in may[9]),
            (311, card[3] not in may[10]),
            (320, paid[7] not in may[11]),
            (321, paid[8] == ISSUERS_PIN),
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
