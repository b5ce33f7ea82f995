"""A payment as it was signed, and what a hub signs about it."""

import dataclasses

import cose
import messages as m
from cose import Fault, sha256


@dataclasses.dataclass
class Payment:
    """A request as it was signed, kept until there is an answer."""

    id: bytes
    amount: int
    currency: str
    kind: int | None  # the transaction type; None without terms
    signed: bytes
    salt: bytes
    blob: bytes

    def frame(self) -> bytes:
        return m.frame(2, {1: self.signed, 2: {1: self.salt, 2: self.blob}})


def leads_to(leaf: bytes, index: int, count: int, path: list[bytes], root: bytes) -> bool:
    """RFC 9162 §2.1.3.2."""
    if index >= count:
        return False
    at, last, digest = index, count - 1, leaf
    for step in path:
        if last == 0:
            return False
        if at % 2 or at == last:
            digest = sha256(b"\1", step, digest)
            while at % 2 == 0 and at != 0:
                at, last = at >> 1, last >> 1
        else:
            digest = sha256(b"\1", digest, step)
        at, last = at >> 1, last >> 1
    return last == 0 and digest == root


def read_receipt(
    committed: bytes, hub: bytes, signing_key: bytes, device: bytes, payment: Payment = None, grammar=m.receipt
) -> dict:
    """The receipt, if it is good, checked in the order of docs/protocol.md."""
    parts = m.read(m.committed_receipt, committed)  # 1: holds the path to its bound
    encoded, index, path = parts[1], parts[2], parts[3]
    commit = m.read(m.commit, cose.verify(parts[4], m.COMMIT, signing_key))  # 2
    receipt = m.read(grammar, encoded)
    count, root = commit.get(5, {1: 0, 2: b""}).values()
    if not leads_to(sha256(b"\0", encoded), index, count, path, root):  # 3
        raise Fault(2004, "the receipt is not in the commit")
    if receipt[1] != commit[1] or not commit[2] <= receipt[12] <= commit[3]:  # 4
        raise Fault(2004, "the commit is not over this receipt's entry")
    if receipt[12] == commit[3] and receipt[13] != commit[4]:
        raise Fault(2004, "another entry than the commit's last")
    if receipt[1] != hub or receipt[2] != device:  # 5
        raise Fault(2004, "a receipt of another hub, or for another device")
    if payment is not None:
        if receipt[3] != payment.id or receipt[4] != sha256(payment.signed):  # 6, 7
            raise Fault(2004, "a receipt for another request")
        if (receipt[5], receipt[6], receipt.get(16)) != (payment.amount, payment.currency, payment.kind):  # 8
            raise Fault(2004, "a receipt over another amount, or for another kind of payment")
    return receipt


def read_status(signed: bytes, hub: bytes, signing_key: bytes) -> dict:
    status = m.read(m.status, cose.verify(signed, m.STATUS, signing_key))
    if status[1] != hub:
        raise Fault(2004, "another hub's status")
    return status
