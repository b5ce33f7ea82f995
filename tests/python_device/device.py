"""A payment device: keys, enrolment, payments, voids, status, receipts, pushes."""

import dataclasses
import os
import time

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import cose
import messages as m
import wire
from cose import Fault, sha256


class Refused(Exception):
    """The hub refused, with this number."""

    def __init__(self, number: int, text: str):
        super().__init__(f"{number} {text}")
        self.number = number


@dataclasses.dataclass
class Payment:
    """A request as it was signed, kept until there is an answer."""

    id: bytes
    amount: int
    currency: str
    signed: bytes
    salt: bytes
    blob: bytes

    def frame(self) -> bytes:
        return m.frame(2, {1: self.signed, 2: {1: self.salt, 2: self.blob}})


# ---- what hubs sign ---------------------------------------------------------


def leads_to(leaf: bytes, index: int, count: int, path: list[bytes], root: bytes) -> bool:
    """RFC 9162 §2.1.3.2."""
    if index >= count:
        return False
    at, last, digest = index, count - 1, leaf
    for step in path:
        if last == 0:
            return False
        if at % 2 or at == last:
            digest = sha256(b"\1", step, digest)
            while at % 2 == 0 and at != 0:
                at, last = at >> 1, last >> 1
        else:
            digest = sha256(b"\1", digest, step)
        at, last = at >> 1, last >> 1
    return last == 0 and digest == root


def read_receipt(committed: bytes, hub: bytes, signing_key: bytes, device: bytes, payment: Payment = None) -> dict:
    """The receipt, if it is good, checked in the order of docs/protocol.md."""
    parts = m.read(m.committed_receipt, committed)  # 1: holds the path to its bound
    encoded, index, path = parts[1], parts[2], parts[3]
    commit = m.read(m.commit, cose.verify(parts[4], m.COMMIT, signing_key))  # 2
    receipt = m.read(m.receipt, encoded)
    count, root = commit.get(5, {1: 0, 2: b""}).values()
    if not leads_to(sha256(b"\0", encoded), index, count, path, root):  # 3
        raise Fault(2004, "the receipt is not in the commit")
    if receipt[1] != commit[1] or not commit[2] <= receipt[12] <= commit[3]:  # 4
        raise Fault(2004, "the commit is not over this receipt's entry")
    if receipt[12] == commit[3] and receipt[13] != commit[4]:
        raise Fault(2004, "another entry than the commit's last")
    if receipt[1] != hub or receipt[2] != device:  # 5
        raise Fault(2004, "a receipt of another hub, or for another device")
    if payment is not None:
        if receipt[3] != payment.id or receipt[4] != sha256(payment.signed):  # 6, 7
            raise Fault(2004, "a receipt for another request")
        if (receipt[5], receipt[6]) != (payment.amount, payment.currency):  # 8
            raise Fault(2004, "a receipt over another amount")
    return receipt


def read_status(signed: bytes, hub: bytes, signing_key: bytes) -> dict:
    status = m.read(m.status, cose.verify(signed, m.STATUS, signing_key))
    if status[1] != hub:
        raise Fault(2004, "another hub's status")
    return status


# ---- the device -------------------------------------------------------------


class Device:
    def __init__(self, name: str, tls_key=None, signing_key=None):
        self.name = name
        self.tls_key = tls_key or ec.generate_private_key(ec.SECP256R1())
        self.signing_key = signing_key or Ed25519PrivateKey.generate()
        self.identity = sha256(wire.key_info(self.tls_key.public_key()))
        self.public = cose.public_of(self.signing_key)
        self.hub = self.hub_signing_key = None
        self.addresses: list[tuple[str, int]] = []
        self.sequence = 0
        self.connection: wire.Connection | None = None

    # -- enrolment --

    def enrolment(self, code: m.Code, hub: bytes = None, device: bytes = None) -> bytes:
        """The frame that asks to be enrolled."""
        request = {1: code.token, 2: hub or code.hub, 3: device or self.identity, 4: self.public}
        request |= {5: 3, 6: self.name, 7: "Python device"}
        return m.frame(5, {1: cose.sign(self.signing_key, m.ENROLMENT, cose.encode(request))})

    def enrolled(self, answer: bytes, code: m.Code) -> dict:
        """Takes the registration in, if it is good."""
        number, fields = self.answer(answer)
        if number != 105:
            raise Fault(1006, "no registration")
        _, payload, _ = cose.parse(fields[1])
        registration = m.read(m.registration, payload)
        cose.verify(fields[1], m.REGISTRATION, registration[7])
        if (registration[6], registration[1], registration[2]) != (code.hub, self.identity, self.public):
            raise Fault(2004, "the registration of another")
        self.hub, self.hub_signing_key = code.hub, registration[7]
        self.addresses = [m.host_and_port(address) for address in code.pay_at]
        return registration

    async def enrol(self, said: str) -> dict:
        code = m.read_code(said)
        at = m.host_and_port(code.enrol_at[0])
        connection = await wire.connect(at, wire.ENROLMENTS, self.tls_key, code.hub)
        try:
            return self.enrolled(await connection.exchange(self.enrolment(code)), code)
        finally:
            await connection.leave()

    # -- the session --

    async def connect(self, address=None) -> wire.Connection:
        at = address or self.addresses[0]
        self.connection = await wire.connect(at, wire.PAYMENTS, self.tls_key, self.hub)
        return self.connection

    @staticmethod
    def answer(data: bytes) -> tuple[int, dict]:
        number, fields = m.read_frame(data, m.ANSWERS)
        if number == 199:
            raise Refused(fields[1][1], fields[1][2])
        return number, fields

    async def ask(self, frame: bytes, expected: int) -> dict:
        number, fields = self.answer(await self.connection.exchange(frame))
        if number != expected:
            raise Fault(1006, f"answer {number} instead of {expected}")
        return fields

    async def hello(self) -> dict:
        info = (await self.ask(m.frame(1, {1: "python device 1"}), 101))[1]
        if info[1] != self.hub:
            raise Fault(2004, "another hub")
        return info

    def payment(
        self,
        amount: int,
        *,
        id=None,
        currency="EUR",
        order="190328106044-104",
        token="tok_9f86d081884c7d65",
        entry=1,
        verification=3,
        cryptogram=2,
    ) -> Payment:
        self.sequence += 1
        id, salt, blob = id or os.urandom(16), os.urandom(16), os.urandom(200)
        card = {1: token, 2: 2, 3: 2, 4: "FR", 5: "497000", 6: "1234"}
        request = {1: id, 2: self.sequence, 3: amount, 4: currency, 5: order, 6: card, 7: entry}
        request |= {8: verification, 9: cryptogram, 10: sha256(salt, blob), 11: time.time_ns() // 10**6}
        signed = cose.sign(self.signing_key, m.PAY, cose.encode(request))
        return Payment(id, amount, currency, signed, salt, blob)

    def receipt(self, committed: bytes, payment: Payment = None) -> dict:
        return read_receipt(committed, self.hub, self.hub_signing_key, self.identity, payment)

    async def pay_committed(self, payment: Payment) -> tuple[bytes, dict]:
        """The committed receipt as it came, and what it says."""
        committed = (await self.ask(payment.frame(), 102))[1]
        return committed, self.receipt(committed, payment)

    async def pay(self, payment: Payment) -> dict:
        return (await self.pay_committed(payment))[1]

    def _status(self, fields: dict, id: bytes) -> dict:
        status = read_status(fields[1], self.hub, self.hub_signing_key)
        if status[2] != id:
            raise Fault(2004, "the status of another payment")
        return status | {"receipt": fields.get(2)}

    async def void(self, id: bytes) -> dict:
        self.sequence += 1
        request = cose.encode({1: id, 2: self.sequence, 3: time.time_ns() // 10**6})
        frame = m.frame(3, {1: cose.sign(self.signing_key, m.VOID, request)})
        return self._status(await self.ask(frame, 103), id)

    async def status(self, id: bytes) -> dict:
        return self._status(await self.ask(m.frame(4, {1: id}), 103), id)

    def push(self, data: bytes) -> tuple[int, object]:
        """What a pushed frame says: a status, or the version of the policy."""
        number, fields = m.read_frame(data, m.PUSHES)
        return number, read_status(fields[1], self.hub, self.hub_signing_key) if number == 201 else fields[1]
