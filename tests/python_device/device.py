"""A payment device: keys, enrolment, describing itself, payments, voids, status, pushes."""

import os

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import cose
import hub_keys
import messages as m
import wire
from cose import Fault, sha256
from people import now_ms
from receipts import Payment, read_receipt, read_status


class Refused(Exception):
    """The hub refused, with this number."""

    def __init__(self, number: int, text: str):
        super().__init__(f"{number} {text}")
        self.number = number


class Device:
    def __init__(self, name: str, tls_key=None, signing_key=None, versions=(6, 5, 4, 3, 2)):
        self.name = name
        self.versions = versions  # of the wire, that it offers
        self.tls_key = tls_key or ec.generate_private_key(ec.SECP256R1())
        self.signing_key = signing_key or Ed25519PrivateKey.generate()
        self.identity = sha256(wire.key_info(self.tls_key.public_key()))
        self.public = cose.public_of(self.signing_key)
        self.changes = 0  # of its keys
        self.hub = self.hub_signing_key = None
        self.known = None  # of the hub's keys
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
        self.known = hub_keys.HubKeys(self)
        return registration

    async def enrol(self, said: str) -> dict:
        code = m.read_code(said)
        at = m.host_and_port(code.enrol_at[0])
        connection = await wire.connect(at, wire.ENROLMENTS, self.tls_key, code.tls_key or code.hub)
        try:
            return self.enrolled(await connection.exchange(self.enrolment(code)), code)
        finally:
            await connection.leave()

    # -- the session --

    async def connect(self, address=None, pin=None) -> wire.Connection:
        at = address or self.addresses[0]
        alpn = [wire.PAYMENTS[version] for version in self.versions]
        self.connection = await wire.connect(at, alpn, self.tls_key, pin or self.known.accepts)
        return self.connection

    @property
    def version(self) -> int:
        """The wire version that it speaks."""
        alpn = self.connection and self.connection.alpn
        return next((version for version in self.versions if wire.PAYMENTS[version] == alpn), self.versions[0])

    def answer(self, data: bytes) -> tuple[int, dict]:
        number, fields = m.read_frame(data, m.ANSWERS if self.version > 2 else m.ANSWERS_2)
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
        terms: dict = None,
        signed_as: str = None,
        card: dict = None,
        sealed: tuple[bytes, bytes] = None,
        clock: int = None,
    ) -> Payment:
        """A new payment. With other terms, or signed as something else, than the document has: to be refused."""
        self.sequence += 1
        # Of version 4 in an envelope, as a reader with a key of its own (DUKPT) would fill it.
        envelope = cose.encode({1: 2, 2: os.urandom(10), 3: os.urandom(96)})
        blob = envelope if max(self.versions) >= 4 else os.urandom(200)
        id, (salt, blob) = id or os.urandom(16), sealed or (os.urandom(16), blob)
        card = card or {1: token, 2: 2, 3: 2, 4: "FR", 5: "497000", 6: "1234"}
        request = {1: id, 2: self.sequence, 3: amount, 4: currency, 5: order, 6: card, 7: entry}
        request |= {8: verification, 9: cryptogram, 10: sha256(salt, blob)}
        request |= {11: now_ms() if clock is None else clock}
        request |= {} if terms is None else {12: terms}
        signed_as = signed_as or (m.PAY if terms is None else m.PAY_ON_TERMS)
        signed = cose.sign(self.signing_key, signed_as, cose.encode(request))
        return Payment(id, amount, currency, terms and terms.get(1), signed, salt, blob)

    def receipt(self, committed: bytes, payment: Payment = None) -> dict:
        grammar = m.receipt if self.version > 2 else m.plain_receipt
        return read_receipt(committed, self.hub, self.hub_signing_key, self.identity, payment, grammar)

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
        request = cose.encode({1: id, 2: self.sequence, 3: now_ms()})
        frame = m.frame(3, {1: cose.sign(self.signing_key, m.VOID, request)})
        return self._status(await self.ask(frame, 103), id)

    async def status(self, id: bytes) -> dict:
        return self._status(await self.ask(m.frame(4, {1: id}), 103), id)

    def description(
        self,
        vendor="Acme",
        model="Tap 3",
        *,
        os="Android",
        os_version=(14, 1, 0, 0),
        app_version=(2, 4, 10, 0),
        certification=5,
        device: bytes = None,
        clock: int = None,
    ) -> bytes:
        """What it is, signed."""
        said = {1: device or self.identity, 2: now_ms() if clock is None else clock, 3: vendor, 4: model}
        said |= {5: os, 6: list(os_version), 7: list(app_version), 8: certification}
        return cose.sign(self.signing_key, m.DESCRIPTION, cose.encode(said))

    async def describe(self, description: bytes, word: bytes = None) -> bool:
        """Whether the hub counts a verifier's word, if one goes beside the description."""
        frame = m.frame(6, {1: description} | ({} if word is None else {2: word}))
        return (await self.ask(frame, 106))[1]

    # -- its own keys --

    def key_change(self, tls_key, signing_key, *, number: int = None, signed_by=None, bare=False, over: dict = {}) -> bytes:
        """The frame that asks for other keys. To be refused: signed by another TLS key than `tls_key`, by none, or
        over other fields."""
        said = {1: self.hub, 2: self.identity, 3: self.changes + 1 if number is None else number}
        said |= {4: self.public, 5: cose.public_of(signing_key), 7: self.sequence, 8: cose.key_info(tls_key)}
        inner = cose.encode(said)
        if not bare:
            by = signed_by or tls_key
            proof = cose.sign_p256(by, m.DEVICE_TLS_KEY, cose.encode(said | over), cose.key_info(tls_key))
            protected, _, signature = cose.parse(proof, cose.ESP256)
            inner = cose.encode(cose.cbor2.CBORTag(18, [protected, {}, inner, signature]))
        by_new = cose.sign(signing_key, m.DEVICE_KEY_CHANGE, inner)
        return m.frame(11, {1: cose.sign(self.signing_key, m.DEVICE_KEY_CHANGE, by_new)})

    async def change_keys(self, tls_key, signing_key) -> None:
        """Over the connection that there is, which is of no use afterwards."""
        number = (await self.ask(self.key_change(tls_key, signing_key), 111))[1]
        if number != self.changes + 1:
            raise Fault(2004, "another change")
        self.tls_key, self.signing_key, self.changes = tls_key, signing_key, number
        self.public = cose.public_of(signing_key)

    def push(self, data: bytes) -> tuple[int, object]:
        """What a pushed frame says: a status, or the version of the policy."""
        number, fields = m.read_frame(data, m.PUSHES)
        return number, read_status(fields[1], self.hub, self.hub_signing_key) if number == 201 else fields[1]
