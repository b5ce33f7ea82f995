#!/usr/bin/env python3
"""Lays the first inputs of every fuzz target into a folder: seeds.py FOLDER.

They come from the protocol's vectors, the samples in config/ and the stores of
earlier versions, so that a fuzzer begins behind the first checks."""

import base64
import hashlib
import hmac
import json
import pathlib
import sys
import tarfile

TOP = pathlib.Path(__file__).resolve().parents[2]
# As fuzz_targets/objects.rs numbers them.
OBJECTS = (
    "PaymentRequest VoidRequest Receipt Entry LedgerCommit EnrolmentRequest Registration ArchiveManifest "
    "LedgerBase DeviceDescription AttestationResult Allowance DeviceReceipt AllowanceReturn DeviceList CardBlob Override "
    "PaymentStatus HubKeyChange HubTlsKeys DeviceKeyChange CertificateKeys SealedEntry Event"
).split()
# As fuzz_targets/records.rs numbers the kinds of keys in the index.
RECORDS = {b"p": 0, b"c": 1, b"d": 2, b"s": 3, b"f": 4, b"u": 5, b"o": 6, b"t": 7}
BLOCK = 8192


def head(major: int, argument: int) -> bytes:
    """The head of an item in CBOR."""
    if argument < 24:
        return bytes([major << 5 | argument])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * size:
            return bytes([major << 5 | code]) + argument.to_bytes(size)
    raise ValueError(argument)


def cbor(value) -> bytes:
    """Deterministic CBOR of numbers, byte strings, lists and maps."""
    match value:
        case int():
            return head(0, value)
        case bytes():
            return head(2, len(value)) + value
        case list():
            return head(4, len(value)) + b"".join(map(cbor, value))
        case dict():
            return head(5, len(value)) + b"".join(cbor(key) + cbor(item) for key, item in value.items())
    raise TypeError(value)


def end_of(data: bytes, at: int) -> int:
    """Where the item at `at` ends."""
    major, short = data[at] >> 5, data[at] & 31
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(short, 0)
    argument = int.from_bytes(data[at + 1 : at + 1 + size]) if size else short
    at += 1 + size
    if major in (2, 3):
        return at + argument
    for _ in range({4: argument, 5: 2 * argument, 6: 1}.get(major, 0)):
        at = end_of(data, at)
    return at


def event_of(entry: bytes) -> bytes:
    """The event of an entry in clear: key 5, the last."""
    at = 1
    for _ in range(4):
        at = end_of(entry, end_of(entry, at))
    return entry[end_of(entry, at) :]


def part(kind: int, data: bytes) -> bytes:
    """A part, as hub_fuzz::Parts takes inputs apart."""
    return bytes([kind]) + len(data).to_bytes(2, "little") + data


def divided(first: bytes, rest: bytes) -> bytes:
    """Two inputs in one, the first behind its length."""
    return len(first).to_bytes(2, "little") + first + rest


def blocks(table: bytes):
    """The records of each block of a table in clear, as they stand there."""
    while table[-24:-16] == b"HUBTABL1" and len(table) > BLOCK:
        block, table = table[:BLOCK], table[BLOCK:]
        at = 10
        for _ in range(int.from_bytes(block[8:10], "little")):
            key, value = (int.from_bytes(block[at + n : at + n + 2], "little") for n in (0, 2))
            at += 4 + key + (value if value != 0xFFFF else 0)
        yield block[10:at]


def records(block: bytes):
    """Key and value of each record."""
    at = 0
    while at < len(block):
        key, value = (int.from_bytes(block[at + n : at + n + 2], "little") for n in (0, 2))
        value = value if value != 0xFFFF else 0
        at += 4
        yield block[at : at + key], block[at + key : at + key + value]
        at += key + value


def vectors(name: str):
    return json.loads((TOP / "protocol/vectors" / f"{name}.json").read_text())


def stores():
    """Every file of the stores in tests/fixtures: name and bytes."""
    for archive in sorted((TOP / "hubd/tests/fixtures").glob("*.tar.gz")):
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile():
                    yield member.name, tar.extractfile(member).read()


def base(records_format: int) -> bytes:
    """What is signed of a base, without policy and root."""
    return cbor({1: bytes([7] * 32), 2: 1, 3: 9, 4: bytes([4] * 32), 5: 1, 6: bytes(32), 7: 3, 9: records_format})


def at_rest():
    """Vault and data key."""
    card = cbor({1: bytes([1] * 16), 2: bytes([2] * 120)})
    one, other = part(0, card), part(0x10, card)
    yield "vault", one
    yield "vault", one + other + part(5, bytes(300)) + part(0x21, card)
    yield "vault", one + part(7, b"") + one + other
    yield "vault", part(3, one[3:60]) + other + part(2, bytes([3] * 20)) + part(0, b"")
    yield "restore", divided(base(6), part(0, b""))

    def mac(key: bytes, what: str) -> bytes:
        return hmac.digest(key, what.encode(), "sha256")[:8]

    data_id, vault_id = mac(bytes([0x42] * 32), "hub-data-key/1"), mac(bytes([1] * 32), "hub-vault-key/1")
    wrap = {1: 1, 2: vault_id, 3: b"W" * 72}
    stored = [cbor({1: written, 2: data_id, 3: [wrap] * wraps}) for written, wraps in ((1, 1), (2, 2), (5, 1))]
    for copy in stored:
        yield "data_key", b"\x00" + divided(copy, copy)
        yield "data_key", b"\x00" + divided(copy, stored[0])
        yield "data_key", b"\x02" + divided(copy, b"")


def keys():
    """Keys that change."""
    hub = bytes([7] * 32)

    def change(number: int) -> bytes:
        return cbor({1: hub, 2: number, 3: bytes(32), 4: bytes(32), 5: 10 * number, 6: 1})

    def stated(number: int, *tls: int) -> bytes:
        return cbor({1: hub, 2: number, 3: [bytes([key] * 32) for key in tls], 4: 9, 5: 1})

    show = part(3, b"")
    yield "tls_keys", part(0x02, stated(1, 8, 7)) + show
    yield "tls_keys", part(0x02, stated(1, 8, 7)) + show + part(0x02, stated(2, 8)) + show + part(0x02, stated(1, 7)) + show
    yield "tls_keys", part(0x11, change(1)) + part(0x06, stated(1, 8)) + show
    yield "tls_keys", part(0x11, change(1)) + part(0x25, change(2)) + part(0x0A, stated(2, 9, 8)) + show
    said = vectors("certificate")
    content = bytes.fromhex(said["content"])
    extension = bytes.fromhex("060a699ad0e8f987cf86c66b0482") + len(content).to_bytes(2) + content
    yield "tls_keys", extension
    yield "certificate", extension
    yield "objects", bytes([OBJECTS.index("CertificateKeys")]) + bytes.fromhex(said["cbor"])
    yield "objects", bytes([OBJECTS.index("CardBlob")]) + cbor({1: 1, 2: bytes(16), 3: bytes(60)})
    yield "signing_keys", part(0x08, change(1))
    yield "signing_keys", part(0x08, change(1)) + part(0x11, change(2)) + part(0x1A, change(3))
    yield "signing_keys", part(0x11, change(2)) + part(0x1A, change(3)) + part(0x80, change(4))
    yield "device_list", (
        b'tenant = "acme"\nstores = ["store-0042"]\nversion = 3\nnot_before = 2026-11-26T00:00:00Z\n'
        b'expires = 2026-12-26T00:00:00Z\nrevoked = ["' + b"ab" * 32 + b'"]\n[[device]]\nid = "' + b"5c" * 32
        + b'"\nkey = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"\nclass = "softpos"\n'
        b'name = "Caisse 3"\nmodel = "Example S1"\n'
    )
    for item in vectors("objects"):
        signed, payload = bytes.fromhex(item["signed"]), bytes.fromhex(item["payload"])
        if item["type"] == "DeviceKeyChange":
            yield "device_keys", signed
            yield "device_keys", b"\x04" + payload
        if item["type"] == "DeviceList":
            yield "device_list", signed
            yield "device_list", payload
        if item["type"] in ("HubKeyChange", "HubTlsKeys"):
            yield "signing_keys", part(0x08, payload)
            yield "tls_keys", part(0x02, payload) + show


def seeds():
    for frame in vectors("frames"):
        yield "frames", bytes.fromhex(frame["wire"])
    for refusal in vectors("refusals"):
        yield "frames", bytes.fromhex(refusal["wire"])
    for item in vectors("objects"):
        yield "cose", bytes.fromhex(item["signed"])
        if item["type"] == "Receipt":
            yield "cose", bytes.fromhex(item["payload"])
        if item["type"] in OBJECTS:
            yield "objects", bytes([OBJECTS.index(item["type"])]) + bytes.fromhex(item["payload"])
    events = []
    for entry in vectors("ledger"):
        payload = bytes.fromhex(entry["payload"])
        yield "cose", bytes.fromhex(entry["signed"])
        yield "objects", bytes([OBJECTS.index("Entry")]) + payload
        yield "sealed", payload
        events.append(event_of(payload))
    for number, event in enumerate(events):
        yield "objects", bytes([OBJECTS.index("Event")]) + event
        yield "sealed", event
        yield "segment", part(0, event) + part(3, b"")
        yield "segment", part(2, b"\xa5\x01") + part(7, bytes(8) + event) + part(3, b"")
        if number:
            yield "segment", part(0, events[number - 1]) + part(8, event) + part(3, b"") + part(0, event) + part(5, b"")
    yield "segment", b"".join(part(0, event) for event in events) + part(3, b"")
    yield "segment", b"".join(part(0, event) + part(3 + 2 * (number % 9 == 8), b"") for number, event in enumerate(events))
    for item in vectors("objects"):
        if item["type"] == "ArchiveManifest":
            manifest = bytes.fromhex(item["payload"])
            yield "archive", divided(manifest, b"".join(part(0, event) for event in events))
            yield "archive", divided(manifest, part(0, events[0]) + part(3, b"") + part(8, events[1]))
    sealed = vectors("sealed")["entries"]
    for entry in sealed:
        yield "sealed", bytes.fromhex(entry["payload"])
        if entry["entry_key"]:
            yield "objects", bytes([OBJECTS.index("SealedEntry")]) + bytes.fromhex(entry["payload"])
    lines = [
        json.dumps({"sequence": entry["sequence"], "key": entry["entry_key"]}, separators=(",", ":")) + "\n"
        for entry in sealed
        if entry["entry_key"]
    ]
    yield "disclosed", lines[0].encode()
    yield "disclosed", "".join(lines).encode()
    yield from keys()
    yield from at_rest()
    for root in vectors("roots"):
        yield "root", bytes.fromhex(root["signed"])
        yield "root", bytes.fromhex(root["payload"])
    code = vectors("enrolment-code")
    for text in [code["text"], *code["also_read"], *code["refused"]]:
        yield "texts", text.encode()
    for item in vectors("texts"):
        yield "texts", item["text"].encode()
    for policy in sorted((TOP / "config/policies").glob("*.toml")):
        yield "policy", policy.read_bytes()
    yield "config", (TOP / "config/hubd.toml").read_bytes()
    for number, dialect in enumerate(sorted((TOP / "config/dialects").glob("*.toml"))):
        yield "iso8583", dialect.read_bytes()
        message = b"0800" + bytes([0x82, 0x20, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]) + b"1124080000000001301"
        yield "iso8583", bytes([number]) + message
    answer = {
        "payment_id": "07070707-0707-0707-0707-070707070707",
        "status": "approved",
        "response_code": "00",
        "authorisation_code": "123456",
        "reference": "r-1",
        "presentation": 1,
    }
    for status, asked in [(200, 0), (200, 4), (404, 4), (409, 1), (422, 1), (429, 1), (503, 2)]:
        head = b"retry-after: 3\nreplay-spread: 60\ndate: Thu, 26 Nov 2026 10:00:00 GMT\n\n"
        for body in (answer, {"title": "unknown-payment", "payment_id": answer["payment_id"]}):
            yield "gateway_answer", (status - 100).to_bytes(2) + bytes([asked]) + head + json.dumps(body).encode()
    yield "mdns", b"Till 1\nv=3\nid=till-1\nclass=terminal\nk=00112233445566ff"
    yield "operator", b'{"amount_minor": 500, "card": {"token": "a", "bin": "40000000"}, "at": "2026-11-26T10:00:00Z"}'
    yield "operator", b'{"event": "wan_up"}\n{"event": "settled", "outcome": "approved"}\n{"event": "restart"}'
    for command in ("status", "queue", "devices"):
        yield "operator", json.dumps({"command": command}).encode()
    for name, data in stores():
        if name.endswith((".tbl", ".ids", ".base")):
            yield "table", data
            found = list(blocks(data))
            if found:
                yield "table", b"".join(part(0, block) for block in found[:8])
            for block in found[:4]:
                yield "table", part(1, len(block).to_bytes(2, "little") + block[:700])
                yield "restore", divided(base(6), part(0, block))
                for key, value in records(block):
                    if key[:1] in RECORDS:
                        yield "records", bytes([RECORDS[key[:1]]]) + value
        if name.endswith((".vlt")):
            yield "vault", part(6, data.rstrip(b"\0")[:4000])
        if name.endswith("gateway-ca.pem"):
            yield "certificate", base64.b64decode(b"".join(data.split(b"\n")[1:-2]))
        if name.endswith(("enrolled.cbor", "allowance.cbor", "again.payment")):
            yield "device_files", data
        if name.endswith(".seg"):
            yield "ledger", data.rstrip(b"\0") + bytes(8)
        if name.endswith((".ids", ".tbl", ".base")):
            yield "archive", bytes(2) + data
        if name.endswith(".seg.gz"):
            yield "archive", bytes(2) + data


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    for target in sorted((TOP / "tests/fuzz/fuzz_targets").glob("*.rs")):
        (folder / target.stem).mkdir(parents=True, exist_ok=True)
    for target, data in seeds():
        (folder / target / hashlib.sha1(data).hexdigest()).write_bytes(data)
    for target in sorted(folder.iterdir()):
        count = len(list(target.iterdir()))
        print(f"{target.name}: {count} seeds")


if __name__ == "__main__":
    main()
