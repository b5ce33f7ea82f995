"""Reasons that came with wire version 3, and what is said instead to requests without terms."""

import messages as m
from device import Device
from payments import NO_CVM, TAP
from people import terms
from shop import Shop
from table import Table
from terms import decided

D, F = m.DECLINED, m.FALLBACK
TAPPED = {"entry": TAP, "verification": NO_CVM}
STAFF = "[staff]\nexposure_ceiling = {}\nconsecutive_limit = {}\nconsecutive_lower_limit = {}\n"
ATTESTATION = """
[attestation]
classes = ["terminal"]
max_age_minutes = 1440
[[attestation.verifier]]
name = "Acme"
key = "8a875fff1eb38451577acd5afee405456568dd7c89e090863a0557bc7af49f17"
"""
MODEL = '[[model]]\nvendor = "Acme"\nmodel = "Tap 3"\ncertification = ["mpoc"]\n'
SCORE = "[score]\n{}_from = 50\n[score.new_card]\npoints = 50\n"
ODD = """
[anomaly]
tighten_percent = 50
fade_points_per_hour = 1
[anomaly.{}]
stop = 1
[anomaly.{}]
points = 50
"""
# Decision, reason, what older devices are told; and the policy: the end of the file, or keys of a section.
CASES = [
    (D, 220, 213, '[hours]\ntime_zone = "UTC0"\n', {}),
    (D, 221, 214, MODEL, {}),
    (D, 222, 214, ATTESTATION, {}),
    (D, 230, 213, "", {"offline": 'transaction_types = ["refund"]'}),
    (D, 305, 311, '[[card.exception]]\ntoken = "tok_305"\n', {}),
    (D, 312, 311, "", {"card": 'countries = ["BE"]'}),
    (D, 313, 311, "", {"card": 'bins_denied = ["497000"]'}),
    (F, 331, 330, "", {"card": "contactless_consecutive_limit = 0"}),
    (D, 423, 422, STAFF.format(100, 80, 80), {}),
    (D, 523, 522, STAFF.format(99999, 0, 0), {}),
    (D, 530, 520, "", {"card": "window_count = 1\nwindow_minutes = 60"}),
    (D, 531, 521, "", {"class.terminal": "device_window_count = 1\ndevice_window_minutes = 60"}),
    (D, 540, 420, SCORE.format("decline"), {}),
    (F, 620, 330, "", {"card": "consecutive_lower_limit = 0"}),
    (F, 621, 330, "", {"class.terminal": "device_consecutive_lower_limit = 0"}),
    (F, 622, 330, "", {"store": "consecutive_lower_limit = 0"}),
    (F, 623, 330, STAFF.format(99999, 80, 0), {}),
    (F, 630, 330, SCORE.format("verify"), {}),
    (D, 218, 213, ODD.format("store", "sequence_reused"), {}),
    (D, 219, 214, ODD.format("device", "clock_skew") + "minutes = 5\n", {}),
]
NEW = [case[1] for case in CASES]


async def new_and_old(table: Table, shop: Shop, device: Device, version: int) -> None:
    """The same payments with terms and without, under a policy for each reason. The gateway is gone."""
    area = "reasons, with terms and without"
    for at, (decision, new, old, more, sections) in enumerate(CASES):
        shop.install_policy(version + at, more, sections)
        fields = {"token": f"tok_{new}"} | (TAPPED if decision == F else {})
        if new in (218, 219, 530, 531):  # what came before is what stands against the next
            await decided(device, 100, terms=terms(), **fields)
        if new == 218:
            device.sequence -= 1
        if new in (218, 219):
            await decided(device, 100, terms=terms(), clock=0 if new == 219 else None, **fields)
        got = (await decided(device, 500, terms=terms(), **fields), await decided(device, 500, **fields))
        if new in (540, 630):
            receipt = await device.pay(device.payment(500, terms=terms(), **fields))
            points = receipt.get(17, {}).get(1, 0), sum(part[2] for part in receipt.get(17, {}).get(2, []))
            table.check(area, f"{new}: the score on the receipt is the sum of its parts", True, points[0] == points[1] > 0)
        table.check(area, f"{new}, and {old}", ((decision, new, m.SALE), (decision, old, 0)), got)
