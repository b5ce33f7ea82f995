"""The hub's ledger, whole and damaged, before ledger_verify.py."""

import gzip
import json
import pathlib
import random
import shutil
import struct
import subprocess
import uuid

import cbor2

import ledger_verify
import misuse
import reasons
import vectors
from shop import Shop
from table import Table, group

AREA = "the ledger"
ENTRY, MARK, FOOTER = 0, 1, 2
WRONG = "wrong"


def outcome(folder: pathlib.Path, key: bytes, receipts=(), keys="") -> object:
    """How many entries hold, or that it is wrong."""
    try:
        return ledger_verify.verify(folder, key, receipts, keys).signed
    except Exception:  # signatures, CBOR and the checks each have a kind of their own
        return WRONG


def records(data: bytes):
    """Kind, beginning and end of every record of a segment."""
    at = 92
    while at + 8 <= len(data) and (word := int.from_bytes(data[at : at + 4], "little")):
        kind, end = word >> 30, at + 8 + (word & 0x3FFFFFFF)
        yield kind, at, end
        if kind == FOOTER:  # a seal comes after it
            return
        at = end


def sealed_again(data: bytes, at: int, end: int, change: int) -> bytes:
    """One byte of the entry at `at` changed, and all checksums made to fit."""
    out = bytearray(data)
    out[end - 1] ^= change
    out[at + 4 : at + 8] = ledger_verify.crc32c(out[at : at + 4] + out[at + 8 : end])
    _, mark, mark_end = next(record for record in records(data) if record[0] == MARK and record[1] >= end)
    group, length = struct.unpack_from("<II", out, mark + 8)
    out[mark + 20 : mark + 24] = ledger_verify.crc32c(out[group : group + length])
    out[mark + 4 : mark + 8] = ledger_verify.crc32c(out[mark : mark + 4] + out[mark + 8 : mark_end])
    return bytes(out)


def opened(table: Table, shop: Shop, folder: pathlib.Path) -> list:
    """Every event, its number and its fields, by the keys that the hub's owner discloses."""
    file, other = shop.dir / "disclosed.jsonl", shop.dir / "one.jsonl"
    of_hub = [shop.hubctl, "ledger", "disclose", "--dir", shop.hub_dir]
    subprocess.run(list(map(str, [*of_hub, "--all", file])), check=True, capture_output=True)
    keys = file.read_text()
    ledger = ledger_verify.verify(folder, shop.signing_key, keys=keys)
    events = ledger.events[1:]
    table.check(AREA, "with all keys disclosed no event stays unread", 0, events.count(None))
    unread = ledger_verify.verify(folder, shop.signing_key).events[1:]
    unread = [at for at, event in enumerate(unread, 1) if event is None]
    table.check(AREA, "without a key all verify, and what is encrypted stays unread", sorted(ledger.keys), unread)
    # Whoever gets the keys of one payment reads that one.
    id = next(event[1][1] for event in events if event[0] == 11)
    subprocess.run(list(map(str, [*of_hub, "--payment", uuid.UUID(bytes=id), other])), check=True, capture_output=True)
    of_one = ledger_verify.verify(folder, shop.signing_key, keys=other.read_text())
    read = {event[1][1] for at, event in enumerate(of_one.events) if at in of_one.keys}
    own = {at for at, event in enumerate(ledger.events) if event and event[0] in range(10, 20) and event[1][1] == id}
    table.check(AREA, "the keys of one payment open its entries and no other", ({id}, own), (read, set(of_one.keys)))
    moved = [json.loads(line) for line in other.read_text().splitlines()]
    moved = "\n".join(json.dumps({**line, "sequence": line["sequence"] - 1}) for line in moved)
    table.check(AREA, "a key opens no other entry", WRONG, outcome(folder, shop.signing_key, keys=moved))
    return events


def new_events(table: Table, events: list) -> None:
    """What wire version 3 has added to the ledger."""
    described = [event[1] for event in events if event[0] == 22]
    table.check(
        AREA,
        "devices that described themselves, with a word and without",
        [False, True],
        sorted({3 in fields for fields in described}),
    )
    decided = [
        (vectors.pay_type(event[1][3]), event[1][4]) for event in events if event[0] == 11 and 3 in event[1]
    ]
    lifted = [record[9][1] for _, record in decided if 9 in record]
    table.check(AREA, "what supervisors lifted", [620], lifted)
    outcomes = []
    for reason in reasons.NEW:
        signed_as = sorted({signed_as for signed_as, record in decided if record[2] == reason})
        outcomes.append((f"reason {reason}, with terms and without", 2, len(signed_as)))
    group(table, AREA, outcomes)


def allowances(table: Table, events: list) -> None:
    """What devices approved by themselves."""
    by_number = {number: [] for number in (11, 90, 91, 92, 93, 94, 95)}
    for number, fields in events:
        by_number.get(number, []).append(fields)
    synced = {fields[1]: fields[4] for fields in by_number[11] if 10 in fields[4]}
    shown = [cbor2.loads(cbor2.loads(fields[4]).value[2]) for fields in by_number[93]]
    table.check(AREA, "misuse: each once", list(misuse.KINDS), [fields[3] for fields in by_number[93]])
    refused = [(fields[3], fields[2]) for fields in by_number[94]]
    unusable = [(3008, by_number[93][-1][4])]
    table.check(AREA, "misuse: what the hub refused is a link by its receipt alone", unusable, refused)
    kinds, shown = misuse.KINDS[:-1], shown[:-1]
    kept = [(synced[receipt[4]][1], synced[receipt[4]][10]) for receipt in shown]
    expected = [(2, 9 if kind == misuse.NOT_GIVEN else 1) for kind in kinds]
    table.check(AREA, "misuse: its payments are approved, under which allowance", expected, kept)
    spent = {cbor2.loads(cbor2.loads(fields[2]).value[2])[4] for fields in by_number[91]}
    outside = [kind for kind, receipt in zip(kinds, shown, strict=True) if receipt[4] not in spent]
    expected = [misuse.FORKED, misuse.REUSED, misuse.NOT_GIVEN]
    table.check(AREA, "misuse: what is no link of an open chain", expected, outside)
    table.check(
        AREA,
        "all others are, and one that the hub had declined",
        (3, 1),
        (len(set(synced) - spent), len(spent - set(synced))),
    )
    ends = tuple(sum(key in fields for fields in by_number[92]) for key in (3, 4))
    table.check(AREA, "allowances given, returned, and given up", (18, 16, 1), (len(by_number[90]), *ends))
    at_risk = [(fields[3], fields[4]) for fields in by_number[95]]
    whole = [(fields[1][4], fields[1][5]) for fields in by_number[90]][0]
    # Of the copied one 300 were synced; the other had been returned.
    expected = [(2 * whole[0] - 300, 2 * whole[1] - 1), whole]
    table.check(AREA, "what two ends of an allowance may still bring", expected, at_risk)


class Copies:
    """Damaged copies of a ledger, one at a time."""

    def __init__(self, table: Table, whole: pathlib.Path, key: bytes):
        self.table, self.whole, self.key = table, whole, key

    def tried(self, damage, key=None, receipts=()) -> object:
        copy = self.whole.with_name("damaged")
        shutil.copytree(self.whole, copy)
        try:
            damage(copy)
            return outcome(copy, key or self.key, receipts)
        finally:
            shutil.rmtree(copy)

    def all_wrong(self, what: str, damages: list) -> None:
        found = sum(self.tried(damage) == WRONG for damage in damages)
        self.table.check(AREA, f"{what}: found wrong", (len(damages), len(damages)), (len(damages), found))


def replaced(file: str, data: bytes):
    return lambda copy: (copy / file).write_bytes(data)


def flipped(file: str, data: bytes, at: int):
    return replaced(file, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def check(table: Table, shop: Shop, receipts: list[bytes]) -> None:
    """The hub must have stopped, and have filled a segment."""
    key, whole, chance = shop.signing_key, shop.dir / "whole", random.Random(1)
    shutil.copytree(shop.hub_dir / "ledger", whole)
    files = [shop.dir / f"receipt-{number}" for number in range(len(receipts))]
    for file, receipt in zip(files, receipts, strict=True):
        file.write_bytes(receipt)
    command = [shop.hubctl, "ledger", "verify", "--json", "--dir", whole, "--key", key.hex()]
    for file in files:
        command += ["--receipt", file]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    said = json.loads(done.stdout)
    entries = outcome(whole, key, receipts)
    table.check(
        AREA, "ledger_verify.py finds as many entries as hubctl, and those of the receipts", said["entries"], entries
    )
    table.check(
        AREA,
        "hubctl finds the receipts that were kept here",
        (True, len(files)),
        (said["verified"], len(said["receipts"])),
    )
    table.check(AREA, "segments", 2, len(list(whole.glob("*.seg"))))

    events = opened(table, shop, whole)
    new_events(table, events)
    allowances(table, events)

    copies = Copies(table, whole, key)
    first, last = [path.name for path in sorted(whole.glob("*.seg"))]
    one, two = (whole / first).read_bytes(), (whole / last).read_bytes()

    def archive(copy):
        (copy / "archive").mkdir()
        (copy / "archive" / f"{first}.gz").write_bytes(gzip.compress((copy / first).read_bytes(), 1))
        (copy / first).unlink()

    table.check(
        AREA, "with the first segment compressed in archive/", said["entries"], copies.tried(archive, receipts=receipts)
    )
    table.check(
        AREA,
        "under another hub's key",
        WRONG,
        copies.tried(lambda _: None, bytes.fromhex("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c")),
    )
    table.check(AREA, "without its first segment", WRONG, copies.tried(lambda copy: (copy / first).unlink()))
    table.check(AREA, "the last segment twice", WRONG, copies.tried(replaced("00000003.seg", two)))

    written = len(two.rstrip(b"\0"))
    small = [(last, two, at) for at in [chance.randrange(written) for _ in range(12)]]
    large = [(first, one, at) for at in [chance.randrange(len(one)) for _ in range(3)]]
    copies.all_wrong("one bit, anywhere in what is written", [flipped(*each) for each in small + large])
    copies.all_wrong("one bit, in the room behind it", [flipped(last, two, chance.randrange(written, len(two)))])
    cuts = [
        replaced(first, one[:-1]),
        replaced(first, one[:-20]),
        replaced(last, two[: written - 1]),
        replaced(last, b""),
    ]
    copies.all_wrong("cut in the midst of something", cuts)
    places = [(at, end) for kind, at, end in records(two) if kind == ENTRY]
    places = chance.sample(places, 120)
    forged = [replaced(last, sealed_again(two, at, end, 1)) for at, end in places]
    copies.all_wrong("an entry changed, with checksums that fit", forged)

    # Of the segment with the receipts: nothing after the first group. That is a
    # ledger as it once was, so only a receipt can tell.
    end = next(end for kind, _, end in records(one) if kind == MARK)
    before = sum(kind == ENTRY and at < end for kind, at, _ in records(one))

    def cut_cleanly(copy):
        (copy / first).write_bytes(one[:end])
        (copy / last).unlink()

    table.check(AREA, "cut after its first group: good as far as it goes", before, copies.tried(cut_cleanly))
    table.check(AREA, "the same, with a receipt in hand", WRONG, copies.tried(cut_cleanly, receipts=receipts[:1]))
