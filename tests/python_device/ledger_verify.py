"""ledger_verify.py HUB-SIGNING.PUB FOLDER [KEYS.jsonl] [RECEIPT]...: verifies a hub's ledger by its first public key.

The folder holds segments (.seg) and archives (.seg.gz, or a folder of them) as docs/ledger.md has them: every entry,
link, sequence, commit and checksum must hold, and a committed receipt's entry be in there. Encrypted entries are read
and printed for which KEYS has a key (`hubctl ledger disclose`)."""
import gzip, json, pathlib, struct, sys  # noqa: E401
from hashlib import sha256
import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

TABLE = list(range(256))
for _ in range(8):
    TABLE = [crc >> 1 ^ 0x82F63B78 * (crc & 1) for crc in TABLE]


def crc32c(data, crc=0xFFFFFFFF):
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def must(holds, why):
    if not holds:
        raise ValueError(why)


def opened(signed, aad, key):
    protected, (payload, signature) = cbor2.dumps({1: -19, 4: sha256(key).digest()[:16]}), cbor2.loads(signed).value[2:]
    must(signed == cbor2.dumps(cbor2.CBORTag(18, [protected, {}, payload, signature])), "another key or another form")
    Ed25519PublicKey.from_public_bytes(key).verify(signature, cbor2.dumps(["Signature1", protected, aad, payload]))
    return payload


class Ledger:
    def __init__(self, key, keys=""):
        self.key, self.hub, self.digests, self.signed, self.number, self.next = key, None, [bytes(32)], 0, 0, None
        self.keys = {each["sequence"]: bytes.fromhex(each["key"]) for each in map(json.loads, keys.splitlines())}
        self.events = [None]  # by sequence; None where it is encrypted and there is no key to it

    def entry(self, data, format):
        entry = cbor2.loads(payload := opened(data, b"hub-ledger-entry/1", self.key) if format == 1 else data)
        must((entry[1], entry[2], self.next) == (len(self.digests), self.digests[-1], None), f"no {entry[1]} here")
        self.digests.append(sha256(payload).digest())
        if not (event := entry.get(5)) and (key := self.keys.get(entry[1])):
            aad, nonce = cbor2.dumps({at: entry[at] for at in (1, 2, 3, 4)}), bytes(4) + entry[6][16:24]
            event = cbor2.loads(ChaCha20Poly1305(key).decrypt(nonce, entry[6][24:], aad))
        self.events.append(event)
        if event and event[0] == 120:  # another key from the next group on
            change = cbor2.loads(cbor2.loads(by_new := opened(event[1][1], b"hub-key-change/1", self.key)).value[2])
            must([change[1], change[3], change[5]] == [self.hub, self.key, entry[1]], "a change of another key")
            self.next = opened(by_new, b"hub-key-change/1", change[4]) and change[4]

    def segment(self, data):
        magic, format, zero, number, hub, first, previous, crc = struct.unpack_from("<8sHHI32sQ32s4s", data)
        must((magic, zero, crc) == (b"HUBLEDG1", 0, crc32c(data[:88])) and format in (1, 2), "no header of a segment")
        self.hub, self.number = self.hub or hub, self.number + 1
        place = self.hub, self.number, len(self.digests), self.digests[-1]
        must((hub, number, first, previous) == place, f"another segment than {self.number} of this hub")
        at, group, stated = 92, 92, format == 1
        while at + 8 <= len(data) and (word := int.from_bytes(data[at : at + 4], "little")):
            kind, last = word >> 30, len(self.digests) - 1
            body = data[at + 8 : (end := at + 8 + (word & 0x3FFFFFFF))]
            must(end <= len(data) and data[at + 4 : at + 8] == crc32c(data[at : at + 4] + body), f"damage at {at}")
            if kind == 0:  # an entry
                self.entry(body, format)
            elif kind == 3:  # what the hub signed over a group
                commit = list(cbor2.loads(opened(body, b"hub-ledger-commit/1", self.key)).values())[:4]
                must(stated := commit == [hub, self.signed + 1, last, self.digests[-1]], "a commit over other entries")
            elif kind == 1:  # the mark that ends a group
                mark = group, at - group, last - self.signed, crc32c(data[group:at]), last, b"CMIT"
                must(stated and body == struct.pack("<III4sQ4s", *mark), f"mark at {at} of another group")
                self.signed, group, stated, self.key, self.next = last, end, format == 1, self.next or self.key, None
            else:  # the footer, and the seal after it
                footer = list(cbor2.loads(opened(body, b"hub-segment-footer/1", self.key)).values())
                must(footer == [first, last, self.digests[-1], last - first + 1, sha256(data[:at]).digest()], "footer")
                seal = struct.pack("<I", at)
                return must(group == at and data[end:] == seal + crc32c(seal) + b"SEAL", "seal")
            at = end
        must(group == at and not data[at:].strip(b"\0"), f"bytes from {at} on that nothing signed covers")


def verify(folder, key, receipts=(), keys=""):
    """The ledger, if it holds. Any exception says that it does not."""
    files, ledger = [*folder.glob("*.seg*"), *folder.glob("archive/*.seg.gz")], Ledger(key, keys)
    for file in sorted(files, key=lambda file: file.name):
        ledger.segment(gzip.open(file).read() if file.suffix == ".gz" else file.read_bytes())
    must(ledger.signed > 0, "no entries")
    for fields in (cbor2.loads(cbor2.loads(receipt)[1]) for receipt in receipts):
        must(ledger.digests[fields[12] :][:1] == [fields[13]], f"no entry {fields[12]} of a receipt")
    return ledger


if __name__ == "__main__":
    public, folder, *given = map(pathlib.Path, sys.argv[1:])
    keys = "".join(file.read_text() for file in given if file.suffix == ".jsonl")
    receipts = (file.read_bytes() for file in given if file.suffix != ".jsonl")
    ledger = verify(folder, bytes.fromhex(public.read_text()), receipts, keys)
    print(*((at, ledger.events[at]) for at in sorted(ledger.keys)), f"{ledger.signed} entries hold", sep="\n")
