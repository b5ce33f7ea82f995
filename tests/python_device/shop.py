"""A hub and its gateway as processes on loopback, ended by their own ids."""

import json
import pathlib
import re
import socket
import subprocess
import time
import urllib.request

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PATIENCE_S = 60


def free_port() -> int:
    """A port that the system gave a moment ago; the hub keeps it over restarts."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what: str, ask):
    """What `ask` gives once it gives something."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if (answer := ask()) is not None:
            return answer
        time.sleep(0.05)
    raise TimeoutError(f"waited in vain for {what}")


class Shop:
    def __init__(self, hubd: str, hubctl: str, sim: str, dir: pathlib.Path):
        self.hubd, self.hubctl, self.sim = hubd, hubctl, sim
        self.dir, self.hub_dir, self.gateway_dir = dir, dir / "hub", dir / "gateway"
        self.gateway = self.hub = None
        self.gateway_at = "127.0.0.1:0"
        self.pay_port, self.enrol_port = free_port(), free_port()
        self.start_gateway()
        made = self._output(
            [hubd, "init", "--json", "--dir", self.hub_dir, "--gateway", f"https://{self.gateway_at}"]
            + ["--gateway-ca", self.gateway_dir / "gateway-ca.pem", "--interface", "lo"]
            + ["--gateway-credential", self.gateway_dir / "gateway.credential"]
            + ["--listen", f"127.0.0.1:{self.pay_port}", "--enrol-listen", f"127.0.0.1:{self.enrol_port}"]
        )
        self.hub_id = bytes.fromhex(json.loads(made)["hub_id"])
        self.signing_key = bytes.fromhex((self.hub_dir / "hub-signing.pub").read_text())
        file = self.hub_dir / "hubd.toml"
        text = file.read_text().replace('probe_interval = "5s"', 'probe_interval = "100ms"')
        text = text.replace('deadline = "3s"', 'deadline = "8s"')  # others use the processors too
        file.write_text(
            text.replace("segment_mib = 16", "segment_mib = 1").replace("reserve_mib = 64", "reserve_mib = 16")
        )
        self.start_hub()
        self.wait_for("online")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (self.hub, self.gateway):
            if process is not None:
                process.kill()
                process.wait()

    @staticmethod
    def _output(command) -> str:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE_S)
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def _start(self, name: str, command) -> subprocess.Popen:
        log = open(self.dir / f"{name}.log", "ab")
        return subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_gateway(self) -> None:
        log = self.dir / "gateway.log"
        log.write_text("")
        self.gateway = self._start(
            "gateway", [self.sim, "gateway", "--dir", self.gateway_dir, "--listen", self.gateway_at]
        )
        said = lambda: re.search(r"^gateway +https://(\S+)$.*^control +(\S+)$", log.read_text(), re.M | re.S)  # noqa: E731
        self.gateway_at, self.control = until("the gateway", said).groups()

    def stop_gateway(self) -> None:
        self.gateway.terminate()
        self.gateway.wait(PATIENCE_S)
        self.gateway = None

    def faults(self, **faults) -> None:
        """What goes wrong at the gateway from now on."""
        body = json.dumps(faults).encode()
        request = urllib.request.Request(f"{self.control}/control/faults", body, {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()

    def start_hub(self) -> None:
        self.hub = self._start("hubd", [self.hubd, "run", "--dir", self.hub_dir])

    def kill_hub(self) -> None:
        self.hub.kill()
        self.hub.wait()
        self.hub = None

    def stop_hub(self) -> int:
        self.hub.terminate()
        code = self.hub.wait(PATIENCE_S)
        self.hub = None
        return code

    def ctl(self, *args) -> dict:
        return json.loads(self._output([self.hubctl, "--dir", self.hub_dir, "--json", *args]))

    def wait_for(self, wan: str) -> None:
        """Until the hub knows how it stands to the gateway."""

        def stands():
            try:
                return True if self.ctl("status")["wan"] == wan else None
            except RuntimeError:
                return None

        until(f"the hub to be {wan}", stands)

    def install_policy(
        self, version: int, more: str = "", sections: dict[str, str] | None = None, card: int = 15000
    ) -> None:
        """The sample policy under another version: keys put at the head of sections, and so much at its end.

        Without its detector, so that each reason is shown by itself.
        """
        toml, signed = self.dir / "policy.toml", self.dir / "policy.cose"
        sample, _, _ = (self.hub_dir / "policy.toml").read_text().partition("\n[anomaly]\n")
        text = sample.replace("\nversion = 1", f"\nversion = {version}")
        for section, keys in (sections or {}).items():
            text = re.sub(rf"^\[{re.escape(section)}\].*$", rf"\g<0>\n{keys}", text, count=1, flags=re.M)
        text = text.replace("\nexposure_ceiling = 15000\n", f"\nexposure_ceiling = {card}\n")
        toml.write_text(f"{text}\n{more}")
        key = self.hub_dir / "keys" / "policy-local.key"
        signed.unlink(missing_ok=True)
        self._output([self.hubctl, "policy", "sign", "--key", key, toml, signed])
        self.ctl("policy", "install", signed)

    def keygen(self, name: str) -> tuple[Ed25519PrivateKey, str]:
        """A new key, and its public half for a policy."""
        file = self.dir / f"{name}.key"
        public = self.ctl("keygen", file)["public_key"]
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(file.read_text())), public

    def book(self, id: bytes) -> dict:
        """What the gateway knows of a payment."""
        with urllib.request.urlopen(f"{self.control}/control/book", timeout=PATIENCE_S) as answer:
            known = {each["payment_id"].replace("-", ""): each for each in json.load(answer)}
        return known.get(id.hex(), {})

    def code(self, device_class: str = "terminal") -> str:
        return self.ctl("enrol", "--class", device_class)["code"]
