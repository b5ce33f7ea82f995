"""The files of protocol/vectors: read here, and sent to a hub."""

import ast
import json
import pathlib
import re

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import cose
import device
import ledger_verify
import messages as m
import wire
from cose import Fault
from table import Table, group, refusal

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


def number_of(what, *given) -> int:
    """The number of the fault that this meets, 0 for none."""
    try:
        what(*given)
    except Fault as fault:
        return fault.number
    return 0


# ---- read here --------------------------------------------------------------


def judge(vectors: Vectors, data: bytes, payment: device.Payment = None) -> None:
    """As the vectors' device takes what its hub sends."""
    hub, key, own = vectors.identity("hub"), vectors.public("hub"), vectors.identity("device")
    number, fields = m.read_frame(data, m.ANSWERS | m.PUSHES)
    if number in (103, 201):
        device.read_status(fields[1], hub, key)
    if number == 105:
        taker = vectors.device()
        taker.enrolled(data, m.Code(hub, b"", [], []))
    committed = fields.get({102: 1, 103: 2}.get(number))
    if committed is not None:
        device.read_receipt(committed, hub, key, own, payment)


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
        same &= cose.sign(vectors.signing_key(each["signer"]), each["external_aad"], payload) == signed
        opened = number_of(cose.verify, signed, each["external_aad"], vectors.public(each["signer"]))
        outcomes.append((f"objects: {each['name']}, made and verified", 0, opened if same else "other bytes"))
    group(table, area, outcomes)
    pay = next(diagnostic(each["diagnostic"])[1] for each in vectors.frames if each["number"] == 2)
    request = cose.decode(cose.parse(pay[1])[1])
    payment = device.Payment(request[1], request[3], request[4], pay[1], pay[2][1], pay[2][2])
    outcomes = []
    for each in vectors.frames:
        data = bytes.fromhex(each["wire"])
        made = m.frame(*diagnostic(each["diagnostic"]))
        own = each["sent_by"] == "device"
        judged = 0 if own else number_of(judge, vectors, data, payment)
        outcomes.append((f"frames: {each['name']}", 0, judged if made == data else "other bytes"))
    group(table, area, outcomes)
    ledger = ledger_verify.Ledger(vectors.public("hub"))
    for each in vectors.ledger:
        ledger.entry(bytes.fromhex(each["signed"]), 1)
    digests = [bytes.fromhex(each["digest"]) for each in vectors.ledger]
    table.check(
        area, f"ledger: {len(digests)} entries of format 1", cose.sha256(*digests), cose.sha256(*ledger.digests[1:])
    )
    code = m.read_code(vectors.code["text"])
    made = (vectors.identity("hub"), 2, 1)
    table.check(area, "code: read", made, (code.hub, len(code.enrol_at), len(code.pay_at)))
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
        "refusals.json, sent to the hub", "the hub goes on after all of them", 2, (await fresh_hello(sender))[2]
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
