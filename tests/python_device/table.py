"""What was tried, what was to come, and what came."""

import asyncio
import collections

import device
import wire
from cose import Fault

# TLS alert 49, as QUIC shows it.
ACCESS_DENIED = ("transport", 0x100 + 49)


class Table:
    def __init__(self, must_differ: bool = False):
        self.rows: list[tuple[str, str, object, object, bool]] = []
        self.must_differ = must_differ

    def check(self, area: str, what: str, expected, got) -> None:
        if self.must_differ:
            expected = other_than(expected)
        self.rows.append((area, what, expected, got, type(expected) is type(got) and expected == got))

    def wrong(self) -> list[tuple]:
        """The rows that are not as they must be."""
        return [row for row in self.rows if row[4] == self.must_differ]

    def print(self) -> None:
        areas = collections.Counter(row[0] for row in self.rows)
        for area, count in areas.items():
            print(f"\n{area} ({count})")
            for _, what, expected, got, same in [row for row in self.rows if row[0] == area]:
                mark = "ok" if same else "DIFFERS"
                got = show(got) if same else f"{show(got)}, not {show(expected)}"
                print(f"  {mark:8}{what[:84]:86}{got}")
        print(f"\n{len(self.rows)} checks, {sum(not row[4] for row in self.rows)} differ")


def other_than(value):
    """A value that must not come, to see that the checks can fail."""
    if type(value) is bool:
        return not value
    if type(value) is int:
        return value + 1
    if type(value) in (tuple, list):
        return type(value)([*value[:-1], other_than(value[-1])])
    return value + (b"\1" if type(value) is bytes else "?")


def show(value) -> str:
    if type(value) is bytes:
        return value.hex()[:32]
    if type(value) is tuple:
        return " ".join(map(show, value))
    return {True: "yes", False: "no"}[value] if type(value) is bool else str(value)


def group(table: Table, area: str, outcomes: list[tuple[str, int, object]]) -> None:
    """One row a number for outcomes that are as expected, one each for others."""
    right = collections.Counter()
    names = {}
    for name, expected, got in outcomes:
        if table.must_differ or got != expected:
            table.check(area, name, expected, got)
        else:
            right[expected] += 1
            names.setdefault(expected, name)
    for number, count in sorted(right.items()):
        rest = "" if count == 1 else f", and {count - 1} more"
        table.check(area, names[number] + rest, (count, number), (right[number], number))


async def refusal(awaitable) -> object:
    """The number of the refusal that this ends with, or what came instead."""
    try:
        got = await awaitable
    except device.Refused as error:
        return error.number
    except wire.Closed as error:
        return error.why
    except Fault as error:
        return f"the device refuses what came: {error}"
    except asyncio.TimeoutError:
        return "nothing came"
    return f"accepted: {show(got)}"[:60]


def number_of(what, *given) -> int:
    """The number of the fault that this meets, 0 for none."""
    try:
        what(*given)
    except Fault as fault:
        return fault.number
    return 0
