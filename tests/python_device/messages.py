"""The messages of docs/protocol.md: fields by their keys, checked as its CDDL has them."""

import base64
import dataclasses
import re

from cose import Fault, decode, encode

PAY, PAY_ON_TERMS, VOID = "hub-payment-request/1", "hub-payment-request/2", "hub-void-request/1"
OVERRIDE, DESCRIPTION, ATTESTATION = "hub-override/1", "hub-device-description/1", "hub-attestation-result/1"
ATTESTATION_OF_KEY = "hub-attestation-result/2"
STATUS, COMMIT = "hub-status/1", "hub-ledger-commit/1"
KEY_CHANGE = "hub-key-change/1"
TLS_KEYS = "hub-tls-keys/1"
DEVICE_KEY_CHANGE, DEVICE_TLS_KEY = "hub-device-key-change/2", "hub-device-tls-key/1"
FORMER_KEY_CHANGE = "hub-device-key-change/1"
ALLOWANCE, DEVICE_RECEIPT, RETURN = "hub-allowance/1", "hub-device-receipt/1", "hub-allowance-return/1"
ENROLMENT, REGISTRATION = "hub-enrolment/1", "hub-registration/1"
MAX_FRAME = 16384

ONLINE, OFFLINE, DECLINED, FALLBACK = 1, 2, 3, 4
SALE, REFUND, CASH_BACK = 1, 2, 3
AFFIRMING, WARNING, CONTRAINDICATED = 2, 32, 96
OPEN, REFUSED, QUEUED, PARKED, SETTLED, SETTLED_DECLINED, VOIDED, REVERSAL_QUEUED, REVERSED = range(1, 10)


# ---- the grammar ------------------------------------------------------------


def number_in(*allowed):
    def check(value):
        if type(value) is not int or value not in allowed:
            raise Fault(1005, "a number that is not assigned")

    return check


def uint(value, bits=64):
    if type(value) is not int or not 0 <= value < 2**bits:
        raise Fault(1005, "no unsigned integer")


def uint32(value):
    uint(value, 32)


def boolean(value):
    if type(value) is not bool:
        raise Fault(1005, "no truth value")


def sized(length):
    def check(value):
        if type(value) is not bytes or len(value) != length:
            raise Fault(1005, f"no {length} bytes")

    return check


def any_bytes(value):
    if type(value) is not bytes:
        raise Fault(1005, "no bytes")


def text(value):
    if type(value) is not str:
        raise Fault(1005, "no text")


def currency(value):
    text(value)
    if not re.fullmatch("[A-Z]{3}", value):
        raise Fault(3004, "no currency")


def many(check, most):
    def checks(value):
        if type(value) is not list or len(value) > most:
            raise Fault(1005, "no list, or one too long")
        for item in value:
            check(item)

    return checks


def map_of(fields, optional=()):
    """A map with these keys, and no others."""

    def check(value):
        if type(value) is not dict:
            raise Fault(1005, "no map")
        for key, field in fields.items():
            if key in value:
                if value[key] is None and key in optional:
                    raise Fault(1004, f"null for field {key}, which is absent")
                field(value[key])
            elif key not in optional:
                raise Fault(1005, f"no field {key}")
        if unknown := value.keys() - fields.keys():
            raise Fault(1004, f"unknown keys {unknown}")

    return check


identity = digest = public_key = sized(32)
payment_id = token = key_id = sized(16)
gateway_result = map_of({1: boolean, 2: text, 3: text, 4: text}, optional=(3, 4))
entry_time = map_of({1: uint, 2: uint, 3: sized(16), 4: number_in(1, 2, 3)})
state = number_in(*range(1, 11))
# The reasons that requests without terms can be answered with, and those that need terms.
reasons = (
    "0 110 120 130 150 155 160 170 171 210 211 212 213 214 215 216 310 311 320 321 330 410 420 421 422 520 521 522"
)
reasons_on_terms = """105 217 218 219 220 221 222 230 305 306 312 313 322 331 411 423 523 530 531 540 620 621 622 623
    630"""
refusals = """1001 1002 1003 1004 1005 1006 2001 2002 2003 2004 3001 3002 3003 3004 3005 3006 3007 3008 3009 4001 4002 4003
    4004 4005 4006 5001 5002 5003 5004 6001 6002 6003 6004 6005 6006 6007 7001 7002 7003 7004"""
reason = number_in(*map(int, reasons.split()))
reason_on_terms = number_in(*map(int, f"{reasons} {reasons_on_terms}".split()))

registration = map_of(
    {1: identity, 2: public_key, 3: number_in(1, 2, 3), 4: text, 5: text, 6: identity, 7: public_key, 8: uint}
)
hub_info = map_of({1: identity, 2: uint, 3: text, 4: uint, 5: uint, 6: number_in(1, 2, 3)})
receipt_fields = {
    1: identity,
    2: identity,
    3: payment_id,
    4: digest,
    5: uint,
    6: currency,
    7: number_in(1, 2, 3, 4),
    8: reason,
} | {9: number_in(1, 2), 10: number_in(1, 2, 3), 11: gateway_result, 12: uint, 13: digest, 14: entry_time, 15: uint}
# Of wire version 2, and of later ones to requests without terms.
plain_receipt = map_of(receipt_fields, optional=(9, 10, 11))
score = map_of({1: uint, 2: many(map_of({1: number_in(*range(1, 8)), 2: uint}), 7)})
receipt_on_terms = map_of(
    receipt_fields | {8: reason_on_terms, 16: number_in(1, 2, 3), 17: score}, optional=(9, 10, 11, 17)
)


def receipt(value):
    """Of wire version 3."""
    (receipt_on_terms if type(value) is dict and 16 in value else plain_receipt)(value)


committed_receipt = map_of({1: any_bytes, 2: uint32, 3: many(digest, 16), 4: any_bytes})
commit = map_of(
    {1: identity, 2: uint, 3: uint, 4: digest, 5: map_of({1: uint32, 2: digest})},
    optional=(5,),
)
allowance = map_of(
    {1: identity, 2: identity, 3: uint, 4: uint, 5: uint, 6: uint, 7: uint, 8: currency}
    | {9: many(number_in(*range(9)), 64), 10: many(number_in(*range(5)), 64), 11: many(number_in(1, 2, 3, 4), 64)}
    | {12: uint, 13: uint, 14: uint, 15: uint},
    optional=(12,),
)
allowance_chain = map_of({1: uint32, 2: uint, 3: digest, 4: uint})
status = map_of({1: identity, 2: payment_id, 3: state, 4: gateway_result, 5: uint}, optional=(4,))
code_map = map_of({1: identity, 2: token, 3: many(text, 16), 4: many(text, 16), 5: digest}, optional=(5,))

# What hubs send: the answers, and what comes on streams that the hub opens.
ANSWERS = {
    101: map_of({1: hub_info}),
    102: map_of({1: any_bytes}),
    103: map_of({1: any_bytes, 2: any_bytes}, optional=(2,)),
    105: map_of({1: any_bytes}),
    106: map_of({1: boolean}),
    107: map_of({1: any_bytes, 2: allowance_chain}),
    108: map_of({1: any_bytes}),
    109: map_of({1: uint}),
    110: map_of({1: many(any_bytes, 32)}),
    111: map_of({1: uint32}),
    199: map_of({1: map_of({1: number_in(*map(int, refusals.split())), 2: text})}),
}
ANSWERS_2 = {number: fields for number, fields in ANSWERS.items() if number not in (106, 107, 108, 109, 110, 111)}
PUSHES = {201: map_of({1: any_bytes}), 202: map_of({1: uint}), 203: map_of({1: any_bytes}), 204: map_of({1: any_bytes})}

# What is said of a hub's keys.
key_change = map_of({1: identity, 2: uint32, 3: identity, 4: identity, 5: uint, 6: uint})
tls_keys = map_of({1: identity, 2: uint32, 3: many(digest, 2), 4: uint, 5: uint})
certificate_keys = map_of({1: many(any_bytes, 16), 2: any_bytes})


def read(check, data: bytes) -> dict:
    """The fields of a message."""
    value = decode(data)
    check(value)
    return value


# ---- frames -----------------------------------------------------------------


def frame(number: int, fields: dict) -> bytes:
    body = encode([number, fields])
    return len(body).to_bytes(4, "big") + body


def read_frame(data: bytes, known: dict) -> tuple[int, dict]:
    """The one frame on a stream, if it is of those known here."""
    if len(data) < 4:
        raise Fault(1001, "the length is cut")
    length = int.from_bytes(data[:4], "big")
    if length > MAX_FRAME:
        raise Fault(1002, "the frame is too long")
    if len(data) < 4 + length:
        raise Fault(1001, "the frame ends early")
    if len(data) > 4 + length:
        raise Fault(1003, "bytes follow the frame")
    value = decode(data[4:])
    if type(value) is not list or len(value) != 2 or type(value[0]) is not int:
        raise Fault(1005, "no frame")
    if value[0] not in known:
        raise Fault(1006, "a frame that hubs do not send here")
    known[value[0]](value[1])
    return value[0], value[1]


# ---- the enrolment code -----------------------------------------------------


@dataclasses.dataclass
class Code:
    hub: bytes
    token: bytes
    enrol_at: list[str]
    pay_at: list[str]
    tls_key: bytes | None = None


def write_code(code: Code) -> str:
    fields = {1: code.hub, 2: code.token, 3: code.enrol_at, 4: code.pay_at}
    data = encode(fields | ({5: code.tls_key} if code.tls_key else {}))
    return "HUB1-" + base64.b32encode(data).decode().rstrip("=")


def read_code(said: str) -> Code:
    """Ignores white space and takes small letters; else only the one encoding."""
    said = "".join(said.split()).upper()
    if not said.startswith("HUB1-") or len(said) > 4096:
        raise Fault(1005, "no enrolment code")
    letters = said[5:]
    try:
        data = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except ValueError as error:
        raise Fault(1005, "no enrolment code") from error
    fields = read(code_map, data)
    code = Code(*fields.values())
    if write_code(code) != said:
        raise Fault(1004, "another encoding of the code")
    return code


def host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
