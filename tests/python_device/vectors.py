"""The files of protocol/vectors: read here, and sent to a hub."""

import ast
import json
import pathlib
import re

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import allowance
import cose
import device
import ledger_verify
import messages as m
import people
import receipts
import wire
from table import Table, group, number_of, refusal

CLOSES = (1002, 5002, 6005)


class Vectors:
    def __init__(self, folder: pathlib.Path):
        names = "keys objects frames enrolment-code ledger refusals texts".split()
        files = [json.loads((folder / f"{name}.json").read_text()) for name in names]
        self.keys, self.objects, self.frames, self.code, self.ledger, self.refusals, self.texts = files
        self.signing = {key["name"]: key for key in self.keys["signing"]}
        self.tls = {key["name"]: key for key in self.keys["tls"]}

    def signing_key(self, name: str) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.signing[name]["seed"]))

    def tls_key(self, name: str):
        return ec.derive_private_key(int(self.tls[name]["private_scalar"], 16), ec.SECP256R1())

    def identity(self, name: str) -> bytes:
        return bytes.fromhex(self.tls[name]["identity"])

    def public(self, name: str) -> bytes:
        return bytes.fromhex(self.signing[name]["public_key"])

    def device(self) -> device.Device:
        """The device that the refusals are sent by."""
        return device.Device("device", self.tls_key("device"), self.signing_key("device"))


def diagnostic(text: str):
    """The value of the diagnostic notation that the vectors use (RFC 8949 §8)."""
    parts = re.split(r'("(?:[^"\\]|\\.)*")', text)
    for at in range(0, len(parts), 2):
        part = re.sub(r"h'([0-9a-f]*)'", lambda hex: repr(bytes.fromhex(hex[1])), parts[at])
        parts[at] = part.replace("true", "True").replace("false", "False")
    return ast.literal_eval("".join(parts))


# ---- read here --------------------------------------------------------------


def judge(vectors: Vectors, data: bytes, payment: receipts.Payment = None) -> None:
    """As the vectors' device takes what its hub sends."""
    hub, key, own = vectors.identity("hub"), vectors.public("hub"), vectors.identity("device")
    number, fields = m.read_frame(data, m.ANSWERS | m.PUSHES)
    if number in (103, 201):
        receipts.read_status(fields[1], hub, key)
    if number == 105:
        taker = vectors.device()
        taker.enrolled(data, m.Code(hub, b"", [], []))
    if number == 107:
        allowance.read_allowance(fields[1], hub, key, own)
    for change in fields[1] if number == 110 else [fields[1]] if number == 203 else []:
        by_new = cose.verify(change, m.KEY_CHANGE, key)
        cose.verify(by_new, m.KEY_CHANGE, cose.decode(cose.parse(by_new)[1])[4])
    if number == 204:  # behind the change
        cose.verify(fields[1], m.TLS_KEYS, vectors.public("next hub"))
    committed = fields.get({102: 1, 103: 2, 108: 1}.get(number))
    if committed is not None:
        receipts.read_receipt(committed, hub, key, own, payment)


def pay_type(signed: bytes) -> str:
    """What a payment request is signed as, which its content tells."""
    return m.PAY_ON_TERMS if 12 in cose.decode(cose.parse(signed)[1]) else m.PAY


def word_type(signed: bytes) -> str:
    """The same of a verifier's word."""
    return m.ATTESTATION_OF_KEY if 8 in cose.decode(cose.parse(signed)[1]) else m.ATTESTATION


def key_change_type(signed: bytes) -> str:
    """Of a change of a device's keys: before wire version 6 the TLS key did not sign it."""
    by_new = cose.decode(cose.parse(signed)[1])
    return m.FORMER_KEY_CHANGE if type(cose.decode(by_new.value[2])) is dict else m.DEVICE_KEY_CHANGE


# Signed objects inside of frames and of the ledger's events: by which key, as what.
IN_FRAMES = {
    2: {1: ("device", pay_type)},
    3: {1: ("device", m.VOID)},
    5: {1: ("device", m.ENROLMENT)},
    6: {1: ("device", m.DESCRIPTION), 2: ("verifier", word_type)},
    8: {2: ("device", pay_type), 4: ("device", m.DEVICE_RECEIPT)},
    9: {1: ("device", m.RETURN)},
    11: {1: ("device", key_change_type)},
}
IN_EVENTS = {
    10: {3: ("device", pay_type)},
    11: {3: ("device", pay_type)},
    13: {2: ("device", m.VOID)},
    22: {2: ("device", m.DESCRIPTION), 3: ("verifier", word_type)},
    30: {3: ("policy", "hub-policy/1")},
    # 110 holds a root, which several sign: no device has to do with it.
    91: {2: ("device", m.DEVICE_RECEIPT)},
    92: {3: ("device", m.RETURN)},
    93: {4: ("device", m.DEVICE_RECEIPT)},
    94: {2: ("device", m.DEVICE_RECEIPT)},
    120: {1: ("hub", m.KEY_CHANGE)},
    125: {6: ("device", key_change_type)},
    104: {4: ("policy", "hub-device-list/1")},
}


def open_all(vectors: Vectors, known: dict, number: int, fields) -> None:
    """Every signed object in there must verify."""
    held = [(fields[key], *by) for key, by in known.get(number, {}).items() if key in fields]
    for signed, signer, signed_as in held:
        signed_as = signed_as(signed) if callable(signed_as) else signed_as
        payload = cose.verify(signed, signed_as, vectors.public(signer))
        if signed_as in (m.DEVICE_KEY_CHANGE, m.FORMER_KEY_CHANGE):
            payload = cose.verify(payload, signed_as, vectors.public("next device"))
        if signed_as == m.DEVICE_KEY_CHANGE:
            cose.verify_p256(payload, m.DEVICE_TLS_KEY, vectors.tls_key("next device").public_key())
        if signed_as == m.PAY_ON_TERMS and 6 in (terms := cose.decode(payload)[12]):
            cose.verify(terms[6], m.OVERRIDE, vectors.public("supervisor"))


def made_here(vectors: Vectors) -> dict[str, bytes]:
    """The objects of wire version 3 as this device, and those who sign beside it, make them."""
    own, supervisor, verifier = vectors.device(), vectors.signing_key("supervisor"), vectors.signing_key("verifier")
    id = bytes.fromhex("0192f3a011117000800000000000cafe")
    lifts = people.override(supervisor, id, own.identity, 2590, clock=1774688729000)
    card = {1: "tok_9f86d081884c7d65", 2: 1, 3: 2, 4: "FR", 5: "49700000", 6: "1234"}
    fields = {"id": id, "card": card, "entry": 2, "verification": 1, "clock": 1774688730000}
    fields["sealed"] = (b"\x5a" * 16, b"sealed to the gateway's key")
    every = people.terms(m.CASH_BACK, cash=1000, staff="anna", expiry=2711, override=lifts)
    own.sequence = 41
    paid = own.payment(2590, terms=every, **fields)
    own.sequence = 41
    held = allowance.Held(own, given(vectors))
    synced = held.approve(own.payment(2590, **fields), 1774688730000)
    returned = held.returned()
    return {
        "override": lifts,
        "device description": own.description(clock=1774688700000),
        "attestation result": people.attestation(verifier, own.identity, at_s=1774688000),
        "attestation result that names the device's key": people.attestation(
            verifier, own.identity, at_s=1774688000, of_key=vectors.public("next device")
        ),
        "request: change keys": changes_made(vectors),
        "payment request with every term": paid.signed,
        "a device's receipt": cose.decode(synced[4:])[1][4],
        "return of an allowance": cose.decode(returned[4:])[1][1],
        "request: sync": synced,
        "request: return": returned,
    }


def changes_made(vectors: Vectors) -> bytes:
    """The vectors' device changes its keys."""
    own = vectors.device()
    own.hub, own.sequence = vectors.identity("hub"), 42
    return own.key_change(vectors.tls_key("next device"), vectors.signing_key("next device"))


def given(vectors: Vectors) -> dict:
    """The allowance that the vectors' chain begins with."""
    payload = next(each["payload"] for each in vectors.objects if each["name"] == "allowance with every field")
    return m.read(m.allowance, bytes.fromhex(payload))


def allowances_judged(vectors: Vectors) -> list[tuple[str, int, int]]:
    """What the device makes of allowances that only the hub's key can sign."""
    hub, own, good = vectors.identity("hub"), vectors.identity("device"), given(vectors)
    cases = [
        ("as it is in the vectors", 0, good, {}),
        ("without one of its fields", 1005, {key: value for key, value in good.items() if key != 7}, {}),
        ("with a field that is not known", 1004, good | {16: 1}, {}),
        ("with a scheme that is not assigned", 1005, good | {9: [9]}, {}),
        ("of another hub", 2004, good | {1: own}, {}),
        ("for another device", 2004, good | {2: hub}, {}),
        ("of the number that was closed last", 2004, good, {"closed": 3}),
        ("signed by the device", 2003, good, {"signer": "device"}),
        ("signed as a commit", 2004, good, {"signed_as": m.COMMIT}),
    ]
    outcomes = []
    for what, number, fields, how in cases:
        signing_key = vectors.signing_key(how.get("signer", "hub"))
        signed = cose.sign(signing_key, how.get("signed_as", m.ALLOWANCE), cose.encode(fields))
        taken = (signed, hub, vectors.public("hub"), own, how.get("closed", 0))
        outcomes.append((f"allowance {what}", number, number_of(allowance.read_allowance, *taken)))
    return outcomes


def read_all(table: Table, vectors: Vectors) -> None:
    area = "vectors, read here"
    for name, key in vectors.signing.items():
        public = cose.public_of(vectors.signing_key(name))
        made = (public, cose.kid_of(public))
        table.check(area, f"keys: {name}, public key and kid", (vectors.public(name), bytes.fromhex(key["kid"])), made)
    for name in vectors.tls:
        info = wire.key_info(vectors.tls_key(name).public_key())
        table.check(area, f"keys: identity of {name}", vectors.identity(name), cose.sha256(info))
    outcomes = []
    for each in vectors.objects:
        payload, signed = bytes.fromhex(each["payload"]), bytes.fromhex(each["signed"])
        encoded = cose.encode(diagnostic(each["diagnostic"]))
        same = encoded == payload
        signer, signed_as = each["signer"], each["external_aad"]
        if signed_as == m.DEVICE_TLS_KEY:
            key = vectors.tls_key(signer)
            same &= cose.sign_p256(key, signed_as, payload) == signed
            opened = number_of(cose.verify_p256, signed, signed_as, key.public_key())
        else:
            same &= cose.sign(vectors.signing_key(signer), signed_as, payload) == signed
            opened = number_of(cose.verify, signed, signed_as, vectors.public(signer))
        outcomes.append((f"objects: {each['name']}, made and verified", 0, opened if same else "other bytes"))
    group(table, area, outcomes)
    signed = {each["name"]: bytes.fromhex(each["signed"]) for each in vectors.objects}
    signed |= {each["name"]: bytes.fromhex(each["wire"]) for each in vectors.frames}
    for name, made in made_here(vectors).items():
        table.check(area, f"{name}, made of its fields", signed.get(name), made)
    group(table, area, allowances_judged(vectors))
    pay = next(diagnostic(each["diagnostic"])[1] for each in vectors.frames if each["number"] == 2)
    request = cose.decode(cose.parse(pay[1])[1])
    payment = receipts.Payment(request[1], request[3], request[4], None, pay[1], pay[2][1], pay[2][2])
    outcomes = []
    for each in vectors.frames:
        data = bytes.fromhex(each["wire"])
        made = m.frame(*diagnostic(each["diagnostic"]))
        own = each["sent_by"] == "device"
        judged = number_of(open_all, vectors, IN_FRAMES, *diagnostic(each["diagnostic"])) if own else None
        judged = number_of(judge, vectors, data, payment) if judged is None else judged
        outcomes.append((f"frames: {each['name']}", 0, judged if made == data else "other bytes"))
    group(table, area, outcomes)
    ledger = ledger_verify.Ledger(vectors.public("hub"))
    ledger.hub = vectors.identity("hub")
    for each in vectors.ledger:
        ledger.entry(bytes.fromhex(each["signed"]), 1)
    digests = [bytes.fromhex(each["digest"]) for each in vectors.ledger]
    table.check(
        area, f"ledger: {len(digests)} entries of format 1", cose.sha256(*digests), cose.sha256(*ledger.digests[1:])
    )
    events = [diagnostic(each["diagnostic"])[5] for each in vectors.ledger]
    inside = [event for event in events if event[0] in IN_EVENTS]
    opened = [number_of(open_all, vectors, IN_EVENTS, *event) for event in inside]
    group(
        table,
        area,
        [(f"ledger: what is signed in event {event[0]}", 0, got) for event, got in zip(inside, opened, strict=True)],
    )
    table.check(area, "ledger: events with something signed", sorted(IN_EVENTS), sorted({event[0] for event in inside}))
    code = m.read_code(vectors.code["text"])
    made = (vectors.identity("hub"), 2, 1)
    table.check(area, "code: read", made, (code.hub, len(code.enrol_at), len(code.pay_at)))
    later = m.read_code(vectors.code["later_text"])
    table.check(area, "code: with another TLS key", vectors.identity("next hub"), later.tls_key)
    for text in vectors.code["also_read"]:
        table.check(area, "code: in another form", code.token, m.read_code(text).token)
    refused = [text for text in vectors.code["refused"] if number_of(m.read_code, text)]
    table.check(area, "code: texts that are none", len(vectors.code["refused"]), len(refused))
    outcomes = [
        (each["name"], each["refusal"], number_of(judge, vectors, bytes.fromhex(each["wire"])))
        for each in vectors.refusals
        if each["sent_by"] == "hub"
    ]
    group(table, "refusals.json, by hubs, refused here", outcomes)


# ---- sent to a hub ----------------------------------------------------------


async def send_refusals(table: Table, vectors: Vectors, sender: device.Device, code: m.Code) -> None:
    """`sender` is vectors.device(), enrolled. A code must be outstanding, for the frames that ask to be enrolled."""
    enrol_at = m.host_and_port(code.enrol_at[0])
    outcomes, closed = [], []
    for each in vectors.refusals:
        if each["sent_by"] != "device":
            continue
        data = bytes.fromhex(each["wire"])
        if data[4:6] == b"\x82\x05":
            connection = await wire.connect(enrol_at, wire.ENROLMENTS, sender.tls_key, sender.hub)
        else:
            connection = sender.connection
            if connection is None or connection.ended.done():
                connection = await sender.connect()
        outcomes.append((each["name"], each["refusal"], await refusal(answered(sender, connection, data))))
        if each["refusal"] in CLOSES:
            closed.append((f"{each['name']}: closes", ("application", each["refusal"]), await connection.end_within(5)))
        elif connection is not sender.connection:
            await connection.leave()
    group(table, "refusals.json, sent to the hub", outcomes)
    for name, expected, got in closed:
        table.check("refusals.json, sent to the hub", name, expected, got)
    table.check(
        "refusals.json, sent to the hub", "the hub goes on after all of them", 6, (await fresh_hello(sender))[2]
    )


async def answered(sender: device.Device, connection: wire.Connection, data: bytes):
    return sender.answer(await connection.exchange(data))


async def fresh_hello(sender: device.Device) -> dict:
    if sender.connection is None or sender.connection.ended.done():
        await sender.connect()
    return await sender.hello()


async def send_texts(table: Table, sender: device.Device, vectors: Vectors) -> None:
    outcomes = []
    for at, each in enumerate(vectors.texts):
        if each["field"] == "name":
            name = m.frame(1, {1: each["text"]})
            got = await refusal(sender.ask(name, 101))
        else:
            # Refused by its card, so that nothing is charged: the text is looked at before.
            payment = sender.payment(100 + at, order=each["text"], cryptogram=3)
            got = await refusal(sender.pay(payment))
        got = 0 if type(got) is str and got.startswith("accepted") else got
        outcomes.append((f"{each['field']} {each['text'][:30]!a}", each["refusal"] or 0, got))
    group(table, "texts.json, sent to the hub", outcomes)
