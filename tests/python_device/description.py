"""What a device says it is, what a verifier says of it, and what that leads to."""

import asyncio

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import messages as m
import people
from device import Device
from payments import TAP
from people import now_ms, terms
from shop import Shop
from table import Table, refusal
from terms import decided

CDCVM = 5
MODELS = """
[[model]]
class = "softpos"
vendor = "Acme"
model = "Tap 3"
os_version = "14"
app_version = "2.4"
certification = ["mpoc"]

[[model]]
class = "terminal"
vendor = "Acme"
model = "*"
certification = ["pts"]

[attestation]
classes = ["softpos"]
max_age_minutes = 1440
stale_minutes = 240
stale_percent = 50

[[attestation.verifier]]
name = "Acme"
key = "{verifier}"
"""


async def before(table: Table, shop: Shop) -> tuple[Device, Ed25519PrivateKey, str]:
    """A device whose policy says nothing of verifiers, and a verifier to be named in the next."""
    phone = Device("Tél 1")
    await phone.enrol(shop.code("softpos"))
    await phone.connect()
    area = "describing"
    verifier, public = shop.keygen("verifier")
    word = people.attestation(verifier, phone.identity)
    table.check(
        area, "under a policy without verifiers no word counts", False, await phone.describe(phone.description(), word)
    )
    for what, expected, description in [
        ("of another device", 3005, phone.description(device=bytes(32))),
        ("signed by another", 2003, Device("other").description(device=phone.identity)),
        ("signed as another type", 2004, None),
        ("a vendor without a letter", 3005, phone.description(vendor="")),
        ("a model of 65 bytes", 3005, phone.description(model="a" * 65)),
        ("a model that turns the direction of writing", 3005, phone.description(model="Tap\u202e3")),
        ("a vendor that is a card number", 3006, phone.description(vendor="4111111111111111")),
        ("an operating system that is a card number", 3006, phone.description(os="4111111111111111")),
        ("a version of three numbers", 1005, phone.description(app_version=(2, 4, 10))),
        ("a version beyond 32 bits", 1005, phone.description(os_version=(2**32, 0, 0, 0))),
        ("a certification that is not assigned", 1005, phone.description(certification=6)),
    ]:
        if description is None:
            description = people.attestation(phone.signing_key, phone.identity)
        table.check(area, f"{what}: refused", expected, await refusal(phone.describe(description)))
    return phone, verifier, public


async def attested(
    table: Table, shop: Shop, version: int, phone: Device, verifier: Ed25519PrivateKey, public: str
) -> None:
    """The gateway is gone."""
    (stranger, other), own = shop.keygen("other-verifier"), phone.identity
    shop.install_policy(version, MODELS.format(verifier=public))
    area = "models and attestation"
    now = now_ms() // 1000
    tapped = {"entry": TAP, "verification": CDCVM}
    at = iter(range(1000))

    async def pays(amount=500, said=terms(staff="anna"), **fields) -> tuple:
        fields = tapped | {"token": f"tok_{phone.name[-1]}_{next(at)}"} | fields
        return (await decided(phone, amount, terms=said, **fields))[:2]

    another = Device("Tél 2")
    await another.enrol(shop.code("softpos"))
    await another.connect()
    got = await decided(another, 500, token="tok_undescribed", terms=terms(), **tapped)
    table.check(area, "a device that does not say what it is", (m.DECLINED, 221), got[:2])
    got = await decided(another, 500, token="tok_undescribed", **tapped)
    table.check(area, "the same, without terms", (m.DECLINED, 214), got[:2])
    await another.connection.leave()

    table.check(area, "the word from before this policy does not count now", (m.DECLINED, 222), await pays())
    described = phone.description()
    table.check(area, "described, without a word", False, await phone.describe(described))
    table.check(area, "described, without a word: offline", (m.DECLINED, 222), await pays())
    table.check(area, "the same, without terms", (m.DECLINED, 214), await pays(said=None))
    for what, counts, word in [
        ("a word by a key that the policy does not name", False, people.attestation(stranger, own)),
        ("a word on another device", False, people.attestation(verifier, another.identity)),
        ("a word that the device signed itself", False, people.attestation(phone.signing_key, own)),
        (
            "a word older than the policy takes, by itself good",
            True,
            people.attestation(verifier, own, at_s=now - 86460),
        ),
        ("a word from the future", False, people.attestation(verifier, own, at_s=now + 360)),
        ("a word signed as another type", False, people.override(verifier, bytes(16), own, 1)),
        ("a long word that is none", False, bytes(8000)),
    ]:
        table.check(area, what, counts, await refusal_or(phone.describe(described, word)))
        table.check(area, f"{what}: offline", (m.DECLINED, 222), await pays())
    for what, counts, word, paid, amount in [
        ("5 hours old", True, people.attestation(verifier, own, at_s=now - 18000), (m.OFFLINE, 0), 2500),
        ("5 hours old, above half", True, people.attestation(verifier, own, at_s=now - 18000), (m.DECLINED, 410), 2501),
        ("affirming", True, people.attestation(verifier, own, at_s=now - 60), (m.OFFLINE, 0), 2501),
        ("an older one after it", True, people.attestation(verifier, own, at_s=now - 18000), (m.OFFLINE, 0), 2501),
        ("a warning", True, people.attestation(verifier, own, m.WARNING, at_s=now - 50), (m.DECLINED, 410), 2501),
        ("nothing can be said", True, people.attestation(verifier, own, 0, at_s=now - 40), (m.DECLINED, 222), 500),
        ("affirming again", True, people.attestation(verifier, own, at_s=now - 30), (m.OFFLINE, 0), 500),
        (
            "contraindicated",
            True,
            people.attestation(verifier, own, m.CONTRAINDICATED, at_s=now - 20),
            (m.DECLINED, 222),
            500,
        ),
        ("affirming, the last", True, people.attestation(verifier, own, at_s=now - 10), (m.OFFLINE, 0), 500),
        ("without a word, after it", False, None, (m.OFFLINE, 0), 500),
    ]:
        table.check(area, f"a word: {what}", counts, await refusal_or(phone.describe(described, word)))
        table.check(area, f"a word: {what}: offline", paid, await pays(amount))
    shop.kill_hub()
    shop.start_hub()
    await asyncio.to_thread(shop.wait_for, "offline")
    await phone.connect()
    table.check(area, "after a restart: offline", (m.OFFLINE, 0), await pays())
    table.check(area, "a PIN on its glass", (m.DECLINED, 322), await pays(verification=3, entry=1))
    table.check(area, "the same, without terms", (m.DECLINED, 214), await pays(said=None, verification=3, entry=1))
    last = people.attestation(verifier, own, at_s=now - 5)
    await phone.describe(phone.description(model="Tap 2"), last)
    table.check(area, "another model: offline", (m.DECLINED, 221), await pays())
    await phone.describe(phone.description(app_version=(2, 3, 9, 0)), last)
    table.check(area, "an older app: offline", (m.DECLINED, 221), await pays())
    await phone.describe(phone.description(certification=1), last)
    table.check(area, "certified as something else: offline", (m.DECLINED, 221), await pays())
    ahead = people.attestation(verifier, own, at_s=now_ms() // 1000 + 240)
    table.check(area, "a word 4 minutes ahead", True, await phone.describe(described, ahead))
    await phone.describe(phone.description(app_version=(2, 10, 0, 0)))
    table.check(area, "a newer app: offline", (m.OFFLINE, 0), await pays())
    shop.install_policy(version + 1, MODELS.format(verifier=other))
    table.check(area, "its verifier is not named any more: offline", (m.DECLINED, 222), await pays())


async def refusal_or(awaitable) -> object:
    """What came, or the number of the refusal."""
    got = []

    async def noted():
        got.append(await awaitable)

    number = await refusal(noted())
    return got[0] if got else number
