"""Deterministic CBOR and COSE_Sign1 as docs/protocol.md has them."""

import hashlib
import io
from collections.abc import Mapping

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ED25519, ESP256 = -19, -9
MAX_DEPTH = 8


class Fault(Exception):
    """Bad input, with the number that docs/protocol.md gives it."""

    def __init__(self, number: int, why: str):
        super().__init__(f"{number}: {why}")
        self.number = number


# ---- CBOR (RFC 8949 §4.2.1) -------------------------------------------------


def encode(value) -> bytes:
    """Maps must be given in ascending order of their keys, which are integers."""
    return cbor2.dumps(value)


def decode(data: bytes):
    """The one value that these bytes are the deterministic encoding of."""
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream).decode()
    except cbor2.CBORDecodeEOF as error:
        raise Fault(1001, "ends early") from error
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError) as error:
        raise Fault(1005, "not CBOR") from error
    if stream.tell() != len(data):
        raise Fault(1003, "bytes follow")
    value = _known_types(value)
    if cbor2.dumps(value, canonical=True) != data:
        raise Fault(1004, "not the deterministic encoding")
    return value


def _known_types(value, depth: int = 1):
    """The value in lists and dictionaries: below tags cbor2 has others."""
    if isinstance(value, (list, tuple, Mapping, cbor2.CBORTag)) and depth > MAX_DEPTH:
        raise Fault(1005, "nested too deep")
    if isinstance(value, (list, tuple)):
        return [_known_types(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {_known_types(key, depth + 1): _known_types(item, depth + 1) for key, item in value.items()}
    if type(value) is cbor2.CBORTag and value.tag == 18:
        return cbor2.CBORTag(18, _known_types(value.value, depth + 1))
    if type(value) is int and -(2**64) <= value < 2**64 or type(value) in (bytes, str, bool):
        return value
    if value is None:  # what it stands for tells whether that is a field left out, or a wrong type
        return value
    raise Fault(1005, f"a {type(value).__name__} that does not belong")


# ---- Ed25519 and COSE_Sign1 (RFC 9052) --------------------------------------

_P = 2**255 - 19
# y of the points of order 8, as Ed25519 encodes them; those of order 1, 2 and
# 4 are 1, p - 1 and 0.
_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7
_SMALL_ORDER = {0, 1, _P - 1, _Y8, _P - _Y8}


def good_point(point: bytes) -> bool:
    """In its one encoding, and not of small order."""
    y = int.from_bytes(point, "little") & (2**255 - 1)
    return y < _P and y not in _SMALL_ORDER


def public_of(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def kid_of(public: bytes) -> bytes:
    return hashlib.sha256(public).digest()[:16]


def to_be_signed(protected: bytes, external_aad: str, payload: bytes) -> bytes:
    return encode(["Signature1", protected, external_aad.encode(), payload])


def sign(key: Ed25519PrivateKey, external_aad: str, payload: bytes) -> bytes:
    protected = encode({1: ED25519, 4: kid_of(public_of(key))})
    signature = key.sign(to_be_signed(protected, external_aad, payload))
    return encode(cbor2.CBORTag(18, [protected, {}, payload, signature]))


def parse(signed: bytes, algorithm: int = ED25519) -> tuple[bytes, bytes, bytes]:
    """Protected header, payload and signature of an object in the one form."""
    try:
        value = decode(signed)
    except Fault as fault:
        raise Fault(2001, "no COSE_Sign1") from fault
    if signed[:1] != b"\xd2" or type(value.value) is not list or len(value.value) != 4:
        raise Fault(2001, "no COSE_Sign1")
    protected, unprotected, payload, signature = value.value
    parts = (protected, payload, signature)
    if unprotected != {} or any(type(part) is not bytes for part in parts) or len(signature) != 64:
        raise Fault(2001, "another form of COSE_Sign1")
    try:
        header = decode(protected)
    except Fault as fault:
        raise Fault(2001, "a protected header in another form") from fault
    if type(header) is not dict or list(header) != [1, 4] or type(header[4]) is not bytes or len(header[4]) != 16:
        raise Fault(2001, "other protected headers")
    if type(header[1]) is not int or header[1] != algorithm:
        raise Fault(2002, "another algorithm")
    return protected, payload, signature


def verify(signed: bytes, external_aad: str, public: bytes) -> bytes:
    """The payload, if this key signed it as an object of this type."""
    protected, payload, signature = parse(signed)
    if protected[-16:] != kid_of(public):
        raise Fault(2003, "another key")
    if not (good_point(public) and good_point(signature[:32])):
        raise Fault(2004, "a point of small order, or not in its one encoding")
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(signature, to_be_signed(protected, external_aad, payload))
    except (InvalidSignature, ValueError) as error:
        raise Fault(2004, "the signature does not verify") from error
    return payload


# ---- the one object that a TLS key signs (ESP256, RFC 9864) -----------------


def key_info(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign_p256(key: ec.EllipticCurvePrivateKey, external_aad: str, payload: bytes, info: bytes = None) -> bytes:
    """`info` says that another key has signed it."""
    protected = encode({1: ESP256, 4: kid_of(info or key_info(key))})
    how = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    r, s = decode_dss_signature(key.sign(to_be_signed(protected, external_aad, payload), how))
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return encode(cbor2.CBORTag(18, [protected, {}, payload, signature]))


def verify_p256(signed: bytes, external_aad: str, key: ec.EllipticCurvePublicKey) -> bytes:
    protected, payload, signature = parse(signed, ESP256)
    if protected[-16:] != kid_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)):
        raise Fault(2003, "another key")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        to_be_checked = to_be_signed(protected, external_aad, payload)
        key.verify(encode_dss_signature(r, s), to_be_checked, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise Fault(2004, "the signature does not verify") from error
    return payload


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()
