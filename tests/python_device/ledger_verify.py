"""ledger_verify.py HUB-SIGNING.PUB FOLDER [RECEIPT]...: verifies a hub's ledger by its first public key.

The folder holds segments (.seg) and archives (.seg.gz, or a folder of them) as docs/ledger.md has them: every entry,
link, sequence, commit and checksum must hold. A committed receipt's entry must be in there."""

import gzip
import pathlib
import struct
import sys
from hashlib import sha256

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TABLE = list(range(256))
for _ in range(8):
    TABLE = [crc >> 1 ^ 0x82F63B78 * (crc & 1) for crc in TABLE]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def must(holds, why):
    if not holds:
        raise ValueError(why)


def opened(signed, aad, key):
    protected, _, payload, signature = cbor2.loads(signed).value
    must(protected == cbor2.dumps({1: -19, 4: sha256(key).digest()[:16]}), "signed by another key")
    must(signed == cbor2.dumps(cbor2.CBORTag(18, [protected, {}, payload, signature])), "another form of COSE_Sign1")
    Ed25519PublicKey.from_public_bytes(key).verify(signature, cbor2.dumps(["Signature1", protected, aad, payload]))
    return payload


class Ledger:
    def __init__(self, key):
        self.key, self.hub, self.digests, self.signed, self.number, self.next = key, None, [bytes(32)], 0, 0, None

    def entry(self, data, format):
        payload = opened(data, b"hub-ledger-entry/1", self.key) if format == 1 else data
        place = list(cbor2.loads(payload).values())[:2]
        must(place == [len(self.digests), self.digests[-1]] and not self.next, f"no entry {len(self.digests)} here")
        self.digests.append(sha256(payload).digest())
        if (event := cbor2.loads(payload)[5])[0] == 120:  # another key from the next group on
            change = cbor2.loads(cbor2.loads(by_new := opened(event[1][1], b"hub-key-change/1", self.key)).value[2])
            must([change[1], change[3], change[5]] == [self.hub, self.key, place[0]], "a change of another key")
            self.next = opened(by_new, b"hub-key-change/1", change[4]) and change[4]

    def segment(self, data):
        magic, format, zero, number, hub, first, previous, crc = struct.unpack_from("<8sHHI32sQ32s4s", data)
        must((magic, zero, crc) == (b"HUBLEDG1", 0, crc32c(data[:88])) and format in (1, 2), "no header of a segment")
        self.hub, self.number = self.hub or hub, self.number + 1
        place = self.hub, self.number, len(self.digests), self.digests[-1]
        must((hub, number, first, previous) == place, f"another segment than {self.number} of this hub")
        at, group, stated = 92, 92, format == 1
        while at + 8 <= len(data) and (word := int.from_bytes(data[at : at + 4], "little")):
            end = at + 8 + (word & 0x3FFFFFFF)
            kind, body, last = word >> 30, data[at + 8 : end], len(self.digests) - 1
            must(end <= len(data) and data[at + 4 : at + 8] == crc32c(data[at : at + 4] + body), f"damage at {at}")
            if kind == 0:  # an entry
                self.entry(body, format)
            elif kind == 3:  # what the hub signed over a group
                commit = list(cbor2.loads(opened(body, b"hub-ledger-commit/1", self.key)).values())[:4]
                must(commit == [hub, self.signed + 1, last, self.digests[-1]], "a commit over other entries")
                stated = True
            elif kind == 1:  # the mark that ends a group
                mark = group, at - group, last - self.signed, crc32c(data[group:at]), last, b"CMIT"
                must(stated and body == struct.pack("<III4sQ4s", *mark), f"mark at {at} of another group")
                self.signed, group, stated, self.key, self.next = last, end, format == 1, self.next or self.key, None
            else:  # the footer, and the seal after it
                footer = list(cbor2.loads(opened(body, b"hub-segment-footer/1", self.key)).values())
                must(footer == [first, last, self.digests[-1], last - first + 1, sha256(data[:at]).digest()], "footer")
                seal = struct.pack("<I", at)
                must(group == at and data[end:] == seal + crc32c(seal) + b"SEAL", "seal")
                return
            at = end
        must(group == at and not data[at:].strip(b"\0"), f"bytes from {at} on that nothing signed covers")


def verify(folder, key, receipts=()):
    """How many entries hold. Any exception says that the ledger does not."""
    files = [*pathlib.Path(folder).glob("*.seg*"), *pathlib.Path(folder).glob("archive/*.seg.gz")]
    ledger = Ledger(key)
    for file in sorted(files, key=lambda file: file.name):
        ledger.segment(gzip.open(file).read() if file.suffix == ".gz" else file.read_bytes())
    must(ledger.signed > 0, "no entries")
    for fields in (cbor2.loads(cbor2.loads(receipt)[1]) for receipt in receipts):
        must(ledger.digests[fields[12] :][:1] == [fields[13]], f"no entry {fields[12]} of a receipt")
    return ledger.signed


if __name__ == "__main__":
    given = [pathlib.Path(path).read_bytes() for path in sys.argv[3:]]
    print(verify(sys.argv[2], bytes.fromhex(pathlib.Path(sys.argv[1]).read_text()), given), "entries hold")
