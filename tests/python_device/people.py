"""What others than the device sign: supervisors their overrides, verifiers their word."""

import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import cose
import messages as m


def now_ms() -> int:
    return time.time_ns() // 10**6


def override(
    key: Ed25519PrivateKey, id: bytes, device: bytes, amount: int, *, currency="EUR", clock: int = None
) -> bytes:
    """A supervisor's word that this payment may pass a lower limit."""
    said = {1: id, 2: device, 3: amount, 4: currency, 5: now_ms() if clock is None else clock}
    return cose.sign(key, m.OVERRIDE, cose.encode(said))


def attestation(
    key: Ed25519PrivateKey, device: bytes, status: int = m.AFFIRMING, *, at_s: int = None, of_key: bytes = None
) -> bytes:
    """A verifier's word on a device, while it signs with this Ed25519 key if one is named."""
    confirmed = {8: {3: cose.kid_of(of_key)}} if of_key else {}
    said = {6: now_ms() // 1000 if at_s is None else at_s} | confirmed | {256: b"\1" + device, 1000: status}
    return cose.sign(key, m.ATTESTATION_OF_KEY if of_key else m.ATTESTATION, cose.encode(said))


def terms(kind=m.SALE, *, cash: int = None, staff: str = None, training=False, expiry: int = None, override=None):
    """What a payment is, and who stands at the device: the map under key 12."""
    fields = {1: kind, 2: cash, 3: staff, 4: training, 5: expiry, 6: override}
    return {key: value for key, value in fields.items() if value is not None}
