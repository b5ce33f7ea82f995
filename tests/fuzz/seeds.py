#!/usr/bin/env python3
"""Lays the first inputs of every fuzz target into a folder: seeds.py FOLDER.

They come from the protocol's vectors, the samples in config/ and the stores of
earlier versions, so that a fuzzer begins behind the first checks."""

import hashlib
import json
import pathlib
import sys
import tarfile

TOP = pathlib.Path(__file__).resolve().parents[2]
# As fuzz_targets/objects.rs numbers them.
OBJECTS = (
    "PaymentRequest VoidRequest Receipt Entry LedgerCommit EnrolmentRequest Registration ArchiveManifest "
    "LedgerBase DeviceDescription AttestationResult Allowance DeviceReceipt AllowanceReturn"
).split()


def vectors(name: str):
    return json.loads((TOP / "protocol/vectors" / f"{name}.json").read_text())


def stores():
    """Every file of the stores in tests/fixtures: name and bytes."""
    for archive in sorted((TOP / "hubd/tests/fixtures").glob("*.tar.gz")):
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile():
                    yield member.name, tar.extractfile(member).read()


def seeds():
    for frame in vectors("frames"):
        yield "frames", bytes.fromhex(frame["wire"])
    for refusal in vectors("refusals"):
        yield "frames", bytes.fromhex(refusal["wire"])
    for item in vectors("objects"):
        yield "cose", bytes.fromhex(item["signed"])
        if item["type"] in OBJECTS:
            yield "objects", bytes([OBJECTS.index(item["type"])]) + bytes.fromhex(item["payload"])
    for entry in vectors("ledger"):
        yield "cose", bytes.fromhex(entry["signed"])
        yield "objects", bytes([OBJECTS.index("Entry")]) + bytes.fromhex(entry["payload"])
    for root in vectors("roots"):
        yield "root", bytes.fromhex(root["signed"])
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
