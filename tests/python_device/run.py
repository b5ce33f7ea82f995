"""Tries a hub with a payment device that was written from docs/protocol.md alone.

  run.py --hubd FILE --hubctl FILE --sim FILE [--vectors FOLDER] [--must-differ]

Starts a gateway and a hub on loopback, plays what is in the files beside this
one, and prints what was tried and what came. Exit code 1 if anything differs.
With --must-differ every expectation is a wrong one and each check must say so:
exit code 1 if one does not.
"""

import argparse
import asyncio
import logging
import pathlib
import sys
import tempfile

import allowance
import arrival
import card
import description
import hub_keys
import ledger
import messages as m
import misuse
import own_keys
import payments
import reasons
import terms
import vectors
from device import Device
from shop import Shop
from table import Table

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "protocol" / "vectors"


async def play(table: Table, shop: Shop, golden: vectors.Vectors) -> None:
    vectors.read_all(table, golden)
    card.read_here(table, golden.frames)
    await arrival.discovery(table, shop)
    first = await arrival.enrolment(table, shop)
    await arrival.session(table, shop, first)
    await payments.online(table, shop, first)
    await terms.online(table, shop, first)
    await terms.malformed(table, first)
    await terms.version_2(table, shop, first)
    await card.sealed(table, shop, first)

    sender = golden.device()
    await sender.enrol(shop.code())
    await vectors.send_refusals(table, golden, sender, m.read_code(shop.code()))
    await vectors.send_texts(table, sender, golden)
    await sender.connection.leave()

    receipts = await payments.outage(table, shop, first)
    await payments.standing(table, shop, first)
    await at_the_till(table, shop, first)
    await payments.stopping(table, shop, first)
    ledger.check(table, shop, receipts)
    if shop.hub is None:
        shop.start_hub()
        await asyncio.to_thread(shop.wait_for, "online")
    await own_keys.change(table, shop)
    await hub_keys.change(table, shop)


async def at_the_till(table: Table, shop: Shop, device: Device) -> None:
    """What wire version 3 adds, in a second outage, under policies of its own."""
    await allowance.given(table, shop, 22)
    found = await misuse.misused(table, shop, 23)
    await device.connect()
    phone = await description.before(table, shop)
    await asyncio.to_thread(shop.stop_gateway)
    await asyncio.to_thread(shop.wait_for, "offline")
    await misuse.quarantined(table, shop, found)
    await asyncio.to_thread(shop.install_policy, 24)
    await terms.offline(table, device)
    await terms.supervised(table, shop, device, 30)
    await description.attested(table, shop, 31, *phone)
    await device.connect()
    await reasons.new_and_old(table, shop, device, 33)
    await asyncio.to_thread(shop.start_gateway)
    await asyncio.to_thread(shop.wait_for, "online")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for program in ("hubd", "hubctl", "sim"):
        parser.add_argument(f"--{program}", required=True)
    parser.add_argument("--vectors", type=pathlib.Path, default=VECTORS)
    parser.add_argument("--must-differ", action="store_true")
    given = parser.parse_args()
    logging.getLogger("quic").setLevel(logging.CRITICAL)  # hang-ups are what is tried here
    table = Table(given.must_differ)
    with tempfile.TemporaryDirectory(prefix="python-device-") as dir:
        with Shop(given.hubd, given.hubctl, given.sim, pathlib.Path(dir)) as shop:
            try:
                asyncio.run(play(table, shop, vectors.Vectors(given.vectors)))
            except BaseException:
                table.print()
                print(*(pathlib.Path(dir) / "hubd.log").read_text().splitlines()[-20:], sep="\n", file=sys.stderr)
                raise
    table.print()
    return 1 if table.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
