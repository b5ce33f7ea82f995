"""A simulated acquirer that speaks ISO 8583 over TLS, written with pyiso8583.

It shares no code with hubd: message formats come from pyiso8583's own
specifications, changed where the three sample dialects differ, so that both
ends of the line are not by the same hand. It keeps a book of its own: one line
for each payment, by what an acquirer knows a repeat; in ascii and ebcdic RRN and
terminal, in bcd STAN, terminal and field 7 (of a reversal, what field 90 says).

  iso8583_acquirer.py serve --dialect ascii|bcd|ebcdic --cert F --key F [--client-ca F]
      prints {"port": ..., "control": ...}; ends when its standard input ends
  iso8583_acquirer.py golden DIR
      decodes DIR/<dialect>-*.hex and encodes them again to the same bytes

The control port takes one JSON object a line and answers with one:
  {"do": "set", "mode": ..., "code": ...}   how to behave from now on
  {"do": "book"}                            the book
  {"do": "echo"}                            asks every hub for an echo (0800)
  {"do": "cut"}                             hangs up on every hub
Modes: normal; unheard (books and does not answer); deaf (neither); refuse (the
sign-on); shut (hangs up before the sign-on).
"""

import argparse
import base64
import contextlib
import copy
import json
import pathlib
import socket
import ssl
import struct
import sys
import threading

import iso8583
from iso8583.specs import default_ascii

APPROVED = "00"


# ---- the three dialects -----------------------------------------------------


def variable(spec, field, digits, longest, data=None, length=None):
    spec[field].update(len_type=digits, max_len=longest)
    if data:
        spec[field]["data_enc"] = data
    if length:
        spec[field]["len_enc"] = length


def ascii_spec():
    spec = copy.deepcopy(default_ascii)
    spec["h"]["max_len"] = 0
    for field, longest in (("46", 64), ("47", 64), ("48", 999), ("60", 60), ("61", 999), ("62", 999), ("63", 999)):
        variable(spec, field, 3, longest)
    variable(spec, "90", 0, 42)
    return spec


NUMERIC = "3 4 5 6 7 9 10 11 12 13 14 15 18 19 22 23 24 25 32 33 49 50 51 53 60 70 90".split()


def bcd_spec():
    spec = ascii_spec()
    for field in ("t", "p", "1"):
        spec[field]["data_enc"] = "b"
    for field in spec:
        if field not in ("h", "t", "p", "1") and spec[field]["len_type"]:
            # Two digits of length in one byte, three in two.
            spec[field]["len_enc"] = "bcd"
            spec[field]["len_type"] = {2: 1, 3: 2}[spec[field]["len_type"]]
    for field in NUMERIC:
        spec[field].update(data_enc="b", len_count="nibbles", left_pad="0")
    variable(spec, "48", 2, 64, "b")
    variable(spec, "60", 2, 10)
    variable(spec, "62", 2, 999, "b")
    variable(spec, "63", 2, 999, "b")
    return spec


def ebcdic_spec():
    spec = ascii_spec()
    for field in spec:
        spec[field]["data_enc"] = "cp500"
        spec[field]["len_enc"] = "cp500"
    for field in ("p", "1"):
        spec[field]["data_enc"] = "b"
    variable(spec, "48", 3, 64)
    variable(spec, "62", 2, 999, "b", "b")
    variable(spec, "63", 2, 999, "b", "b")
    return spec


class Dialect:
    def __init__(self, spec, width, inclusive, tpdu=None):
        self.spec, self.width, self.inclusive, self.tpdu = spec, width, inclusive, tpdu

    def frame(self, message):
        encoded, _ = iso8583.encode(message, self.spec)
        if self.tpdu:
            # Back where it came from: the two addresses change places.
            encoded = bytearray(self.tpdu[:1] + self.tpdu[3:] + self.tpdu[1:3]) + encoded
        own = self.width if self.inclusive else 0
        length = len(encoded) + own
        head = b"%04d" % length if self.width == 4 else struct.pack(">H", length)
        return head + bytes(encoded)

    def size(self, head):
        length = int(head) if self.width == 4 else struct.unpack(">H", head)[0]
        return length - (self.width if self.inclusive else 0)

    def read(self, body):
        if self.tpdu:
            assert body[:5] == self.tpdu, f"TPDU {body[:5].hex()}"
            body = body[5:]
        message, _ = iso8583.decode(body, self.spec)
        return message


DIALECTS = {
    "ascii": lambda: Dialect(ascii_spec(), 4, False),
    "bcd": lambda: Dialect(bcd_spec(), 2, False, bytes.fromhex("6000010000")),
    "ebcdic": lambda: Dialect(ebcdic_spec(), 2, True),
}


def payment_id(name, message):
    text = message.get("48", "")
    if name == "ascii":
        assert text[:4] == "PI36", text
        text = text[4:]
    return text.replace("-", "").lower()


def sealed_card(name, message):
    text = message.get("62", "") + message.get("63", "")
    return base64.b64decode(text, validate=True).hex() if name == "ascii" else text.lower()


def deferred(name, message):
    return message.get("60") == ("5206" if name == "bcd" else "DEFERRED")


# ---- the acquirer -----------------------------------------------------------


class Acquirer:
    def __init__(self, name):
        self.name, self.dialect = name, DIALECTS[name]()
        self.lock = threading.Lock()
        self.mode, self.code = "normal", APPROVED
        self.book, self.faults, self.signed_on, self.echoes = {}, [], 0, 0
        self.hubs, self.answered_echoes, self.stan = [], 0, 900000

    def answer(self, message):
        """The answer to a message of a hub, or None for silence."""
        mti = message["t"]
        answer = {key: message[key] for key in ("7", "11") if key in message}
        answer["t"] = mti[:2] + str(int(mti[2]) + 1) + "0"
        if mti == "0800":
            return self.network(message, answer)
        if mti == "0810":
            self.answered_echoes += message.get("39") == APPROVED
            return None
        for key in ("3", "4", "12", "13", "37", "41", "42", "49"):
            if key in message:
                answer[key] = message[key]
        if self.mode == "deaf":
            return None
        if self.name == "bcd":
            sent = message["90"][10:20] if mti[:3] == "042" else message["7"]
            key = "/".join((message["11"], sent, message["41"]))
        else:
            key = "/".join((message["37"], message["41"]))
        if mti[:3] == "042":
            answer["39"] = self.reverse(key, message)
        else:
            self.pay(key, message, answer)
        return None if self.mode == "unheard" else answer

    def network(self, message, answer):
        answer["70"] = message["70"]
        if message["70"] == "001":
            self.signed_on += 1
            answer["39"] = "58" if self.mode == "refuse" else APPROVED
        else:
            self.echoes += 1
            answer["39"] = APPROVED
        return None if self.mode == "deaf" and message["70"] != "001" else answer

    def pay(self, key, message, answer):
        line = self.book.setdefault(key, {"mtis": [], "code": None, "reversed": False, "charges": 0})
        line["mtis"].append(message["t"])
        if "amount" in line and line["amount"] != int(message["4"]):
            self.faults.append(f"{key}: another amount under the same references")
            answer["39"] = "94"
            return
        if "amount" in line and line["sent"] != message["7"]:
            self.faults.append(f"{key}: field 7 changed between repeats")
        if "amount" in line and line["payment_id"] != payment_id(self.name, message):
            self.faults.append(f"{key}: another payment under the same references")
        line.update(
            amount=int(message["4"]),
            currency=message["49"],
            merchant=message["42"],
            acquirer=message.get("32", ""),
            entry_mode=message["22"],
            payment_id=payment_id(self.name, message),
            sealed_card=sealed_card(self.name, message),
            order_id=message.get("47", ""),
            sent=message["7"],
        )
        line["deferred"] = line.get("deferred", False) or deferred(self.name, message)
        if line["reversed"]:
            answer["39"] = "R1"
            return
        if line["code"] in (None, "91", "96"):
            # Not decided finally before.
            line["code"] = self.code
            line["charges"] += self.code == APPROVED
            line["first"] = message["t"]
        answer["39"] = line["code"]
        if line["code"] == APPROVED:
            answer["38"] = f"{len(self.book):06d}"

    def reverse(self, key, message):
        line = self.book.setdefault(key, {"mtis": [], "code": None, "reversed": False, "charges": 0})
        line["mtis"].append(message["t"])
        original = message["90"]
        line["original"] = original
        if original[4:10] != message["11"]:
            self.faults.append(f"{key}: field 90 names trace number {original[4:10]}")
        if "sent" in line:
            if original[10:20] != line["sent"]:
                self.faults.append(f"{key}: field 90 says {original[10:20]}, was sent {line['sent']}")
            if original[:4] not in (line["mtis"][0], line["mtis"][0][:3] + "0"):
                self.faults.append(f"{key}: field 90 names {original[:4]}, was {line['mtis'][0]}")
        known = "amount" in line
        line["reversed"] = True
        return APPROVED if known else "25"

    # ---- the line

    def serve(self, connection):
        try:
            with connection:
                self.converse(connection)
        except (OSError, ValueError, EOFError) as error:
            print(f"a hub is gone: {error!r}", file=sys.stderr)
        except Exception as error:  # whatever the hub did wrong goes on record
            with self.lock:
                self.faults.append(repr(error))
        finally:
            with self.lock:
                if connection in self.hubs:
                    self.hubs.remove(connection)

    def converse(self, connection):
        with self.lock:
            if self.mode == "shut":
                return
            self.hubs.append(connection)
        while True:
            size = self.dialect.size(exactly(connection, self.dialect.width))
            body = exactly(connection, size)
            with self.lock:
                answer = self.answer(self.dialect.read(body))
                if answer:
                    connection.sendall(self.dialect.frame(answer))

    def echo(self):
        with self.lock:
            for connection in self.hubs:
                self.stan += 1
                message = {"t": "0800", "7": "0921141320", "11": str(self.stan), "70": "301"}
                connection.sendall(self.dialect.frame(message))

    def control(self, request):
        if request["do"] == "echo":
            self.echo()
        with self.lock:
            if request["do"] == "set":
                self.mode = request.get("mode", self.mode)
                self.code = request.get("code", self.code)
            if request["do"] == "cut" or self.mode == "shut":
                for connection in self.hubs:
                    # One that has hung up by itself stands here for a moment.
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
            return {
                "book": list(self.book.values()),
                "faults": self.faults,
                "signed_on": self.signed_on,
                "echoes": self.echoes,
                "answered_echoes": self.answered_echoes,
            }


def exactly(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError("hung up")
        data += part
    return data


def accept_all(listener, handle):
    while True:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            # A handshake that failed.
            print(f"not a hub: {error}", file=sys.stderr)
            continue
        threading.Thread(target=handle, args=(connection,), daemon=True).start()


def serve(arguments):
    acquirer = Acquirer(arguments.dialect)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.cert, arguments.key)
    if arguments.client_ca:
        context.load_verify_locations(arguments.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    plain = socket.create_server(("127.0.0.1", 0))
    hubs = context.wrap_socket(plain, server_side=True)
    control = socket.create_server(("127.0.0.1", 0))

    def operator(connection):
        with connection, connection.makefile("rw") as stream:
            for line in stream:
                print(json.dumps(acquirer.control(json.loads(line))), file=stream, flush=True)

    threading.Thread(target=accept_all, args=(hubs, acquirer.serve), daemon=True).start()
    threading.Thread(target=accept_all, args=(control, operator), daemon=True).start()
    ports = {"port": plain_port(hubs), "control": plain_port(control)}
    print(json.dumps(ports), flush=True)
    sys.stdin.read()


def plain_port(listener):
    return listener.getsockname()[1]


def golden(folder):
    count = 0
    for name, make in DIALECTS.items():
        dialect = make()
        for path in sorted(pathlib.Path(folder).glob(f"{name}-*.hex")):
            frame = bytes.fromhex("".join(path.read_text().split()))
            assert dialect.size(frame[: dialect.width]) == len(frame) - dialect.width, path
            body = frame[dialect.width :]
            header, body = (body[:5], body[5:]) if dialect.tpdu else (b"", body)
            message, _ = iso8583.decode(body, dialect.spec)
            again, _ = iso8583.encode(message, dialect.spec)
            assert again == body, f"{path}: encodes differently"
            count += 1
    print(json.dumps({"checked": count}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("--dialect", choices=DIALECTS, required=True)
    serving.add_argument("--cert", required=True)
    serving.add_argument("--key", required=True)
    serving.add_argument("--client-ca")
    checking = commands.add_parser("golden")
    checking.add_argument("folder")
    arguments = parser.parse_args()
    if arguments.command == "serve":
        serve(arguments)
    else:
        golden(arguments.folder)


if __name__ == "__main__":
    main()
