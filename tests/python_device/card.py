"""Card data: their envelope, and sealing them to the gateway's key by HPKE (RFC 9180)."""

import hashlib
import hmac
import json
import os
import pathlib

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

import cose
import messages as m
from cose import sha256
from device import Device
from shop import Shop
from table import Table, refusal

HPKE, DUKPT = 1, 2
INFO = b"hub-card/1"
KEM, SUITE = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x03"


# ---- HPKE: RFC 9180 §4 to §6.1. The library has a suite of its own, without aad. ----


def extract(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + key, hashlib.sha256)


def expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """Of at most one block, which is all that is needed."""
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labelled + b"\x01", hashlib.sha256)[:length]


def derive_key(material: bytes) -> X25519PrivateKey:
    """DeriveKeyPair."""
    secret = expand(KEM, extract(KEM, b"", b"dkp_prk", material), b"sk", b"", 32)
    return X25519PrivateKey.from_private_bytes(secret)


def seal(public: bytes, info: bytes, aad: bytes, clear: bytes, ephemeral: X25519PrivateKey = None) -> bytes:
    """SealBase: the encapsulated key, and the ciphertext behind it."""
    ephemeral = ephemeral or X25519PrivateKey.generate()
    encapsulated = ephemeral.public_key().public_bytes_raw()
    shared = extract(KEM, b"", b"eae_prk", ephemeral.exchange(X25519PublicKey.from_public_bytes(public)))
    shared = expand(KEM, shared, b"shared_secret", encapsulated + public, 32)
    context = b"\0" + extract(SUITE, b"", b"psk_id_hash", b"") + extract(SUITE, b"", b"info_hash", info)
    secret = extract(SUITE, shared, b"secret", b"")
    key, nonce = (expand(SUITE, secret, name, context, size) for name, size in ((b"key", 32), (b"base_nonce", 12)))
    return encapsulated + ChaCha20Poly1305(key).encrypt(nonce, clear, aad)


# ---- the envelope ----


def dukpt() -> bytes:
    """What a reader encrypted under a key of its own, in its envelope."""
    return cose.encode({1: DUKPT, 2: os.urandom(10), 3: os.urandom(96)})


class CardKey:
    """The gateway's public key, and the merchant that cards are sealed for: both from the PSP."""

    def __init__(self, public: bytes, merchant: str):
        self.public, self.merchant = public, merchant

    @classmethod
    def of(cls, gateway_dir: pathlib.Path, merchant: str = "shop-001"):
        said = json.loads((gateway_dir / "card-key.json").read_text())
        key = cls(bytes.fromhex(said["public_key"]), merchant)
        if key.id.hex() != said["key_id"]:
            raise ValueError("the key's id is not that of the key")
        return key

    @property
    def id(self) -> bytes:
        return sha256(self.public)[:16]

    def seal(self, clear: bytes, id: bytes, amount: int, currency: str, ephemeral=None) -> bytes:
        aad = cose.encode({1: id, 2: amount, 3: currency, 4: self.merchant})
        return cose.encode({1: HPKE, 2: self.id, 3: seal(self.public, INFO, aad, clear, ephemeral)})


def read_here(table: Table, frames: list[dict]) -> None:
    """The vector with an envelope, made again of what the document says of it."""
    gateway, id = derive_key(b"\x03" * 32).public_key().public_bytes_raw(), "0192f3a011117000800000000000cafe"
    made = CardKey(gateway, "shop-001").seal(
        b"what the reader read", bytes.fromhex(id), 2590, "EUR", derive_key(b"\x05" * 32)
    )
    wire = next(bytes.fromhex(each["wire"]) for each in frames if "in its envelope" in each["name"])
    table.check("sealed cards", "the envelope of the vectors, made of its fields", cose.decode(wire[4:])[1][2][2], made)


async def sealed(table: Table, shop: Shop, device: Device) -> None:
    """Online, so that the gateway says what it thinks of a sealed card."""
    area = "sealed cards"
    key = CardKey.of(shop.gateway_dir)

    def paying(amount: int, blob, clear: bytes = b"made-up card data"):
        id = os.urandom(16)
        return device.payment(amount, id=id, sealed=(os.urandom(16), blob(id, amount)))

    async def decision(payment) -> int:
        return (await device.pay(payment))[7]

    def good(id, amount):
        return key.seal(b"made-up card data", id, amount, "EUR")

    table.check(area, "sealed by HPKE: the gateway opens it", m.ONLINE, await decision(paying(1900, good)))
    table.check(area, "a reader's (DUKPT): passed through", m.ONLINE, await decision(paying(1901, lambda *_: dukpt())))
    wrong = {
        "another payment's": lambda id, amount: good(os.urandom(16), amount),
        "of another amount": lambda id, amount: good(id, amount + 1),
        "of another currency": lambda id, amount: key.seal(b"x", id, amount, "USD"),
        "of another merchant": lambda id, amount: CardKey(key.public, "shop-002").seal(b"x", id, amount, "EUR"),
        "changed on its way": lambda id, amount: good(id, amount)[:-1] + b"\0",
    }
    for what, blob in wrong.items():
        table.check(area, f"{what}: not opened, declined", m.DECLINED, await decision(paying(1902, blob)))
    envelopes = {
        "no envelope": lambda *_: os.urandom(200),
        "a scheme that is not assigned": lambda *_: cose.encode({1: 3, 2: os.urandom(10), 3: os.urandom(96)}),
        "a key id of 15 bytes": lambda *_: cose.encode({1: HPKE, 2: os.urandom(15), 3: os.urandom(96)}),
        "bytes behind it": lambda id, amount: good(id, amount) + b"\0",
    }
    for what, blob in envelopes.items():
        payment = paying(1903, blob)
        table.check(area, f"{what}: refused", 3009, await refusal(device.pay(payment)))
        table.check(area, f"{what}: and nothing was decided", 4002, await refusal(device.status(payment.id)))

    bare = paying(1904, lambda *_: os.urandom(200))
    await device.connection.leave()
    device.versions = (3, 2)
    await device.connect()
    table.check(area, "no envelope, on version 3: taken", m.ONLINE, await decision(bare))
    await device.connection.leave()
    device.versions = (4, 3, 2)
    await device.connect()
    table.check(area, "and known for life, on version 4 too", m.ONLINE, await decision(bare))
