#!/usr/bin/env bash
# The shipped unit under a real systemd: a small Debian boots in a container of
# its own, without a network, and hubd is set up in it by the words of
# systemd/hubd.service and docs/keys.md.
#
#   tests/systemd/run.sh BIN_DIR CACHE_DIR
#
# BIN_DIR holds hubd and hubctl. Needs root, debootstrap and systemd-nspawn;
# the Debian is fetched once into CACHE_DIR.
set -euo pipefail
cd "$(dirname "$0")/../.."

bin=$(realpath "$1")
mkdir -p "$2"
cache=$(realpath "$2")
work=$(mktemp -d)
leader=

# ---- the machine -----------------------------------------------------------

# Stops the container, by its leader's id alone, and takes everything away.
end() {
    if [[ -n $leader ]]; then
        # SIGRTMIN+4 to the first process is systemd's "power off".
        kill -s RTMIN+4 "$leader" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 "$nspawn" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$nspawn" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap end EXIT

fetch_debian() {
    local image=$cache/bookworm
    [[ -e $image.done ]] && return
    rm -rf "$image"
    local mirror
    mirror=$(apt-get indextargets --format '$(SITE)' | head -1)
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates bookworm "$image" "$mirror" >"$work/debootstrap" 2>&1 || {
        tail -5 "$work/debootstrap"
        exit 1
    }
    touch "$image.done"
}

boot() {
    cp -a "$cache/bookworm" "$work/root"
    rm -f "$work/root/etc/machine-id"
    systemd-nspawn -q -D "$work/root" --register=no --keep-unit --boot \
        --machine="hubd-$$" --private-network </dev/null >"$work/console" 2>&1 &
    nspawn=$!
    for _ in $(seq 300); do
        leader=$(pgrep -P "$nspawn" || true)
        if [[ -n $leader ]] && is_up; then
            return
        fi
        sleep 0.1
    done
    tail -20 "$work/console"
    fail "the container did not come up"
}

is_up() {
    local state
    # It exits with 1 when some unit of the container's own has failed.
    state=$(inside systemctl is-system-running 2>/dev/null) || true
    [[ $state == running || $state == degraded ]]
}

inside() {
    nsenter -t "$leader" -m -u -i -n -p -C -- "$@"
}

# ---- what is tried ---------------------------------------------------------

fail() {
    echo "FAILED: $1" >&2
    [[ -n $leader ]] && inside journalctl -u hubd --no-pager -n 20 >&2 || true
    exit 1
}

# Waits until a command succeeds: 30 s at the most.
until_true() {
    local what=$1
    shift
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "$what"
}

said() { # of hubctl, JSON
    inside hubctl --json "$@"
}

main_pid() {
    inside systemctl show -P MainPID hubd
}

runs_anew() { # other than this pid
    local now
    now=$(main_pid)
    [[ $now != 0 && $now != "$1" ]] && inside systemctl is-active -q hubd
}

set_up() {
    install -m 755 "$bin/hubd" "$bin/hubctl" "$work/root/usr/bin/"
    install -m 644 systemd/hubd.service "$work/root/etc/systemd/system/"
    install -m 644 systemd/hubd.sysusers "$work/root/usr/lib/sysusers.d/hubd.conf"
    inside systemctl daemon-reload
    inside systemd-sysusers hubd.conf
    inside install -d -m 0700 -o hubd -g hubd /var/lib/hubd
    inside hubd init --dir /var/lib/hubd --store "Épicerie du Port" --gateway https://gateway.invalid >/dev/null
    inside systemctl -q enable --now hubd || fail "the unit does not start"
    # Ready means that hubctl is answered.
    said status >/dev/null || fail "a hub that is ready does not answer"
    echo "the unit starts, and is ready when the hub answers"
}

a_killed_hub_comes_back() {
    local pid
    pid=$(main_pid)
    inside sh -c "kill -9 $pid"
    until_true "a killed hub is not started again" runs_anew "$pid"
    echo "a killed hub is started again"
}

# WatchdogSec is 30; a shorter one shows the same.
a_hub_that_hangs_is_ended_and_comes_back() {
    inside mkdir -p /run/systemd/system/hubd.service.d
    inside sh -c 'printf "[Service]\nWatchdogSec=2\n" > /run/systemd/system/hubd.service.d/watchdog.conf'
    inside systemctl daemon-reload
    inside systemctl restart hubd
    local pid
    pid=$(main_pid)
    inside sh -c "kill -STOP $pid"
    until_true "a hub that hangs is not started again" runs_anew "$pid"
    inside rm -r /run/systemd/system/hubd.service.d
    inside systemctl daemon-reload
    inside systemctl restart hubd
    echo "a hub that hangs is ended by the watchdog and started again"
}

a_hub_with_a_wrong_configuration_is_not_tried_again() {
    inside cp -p /var/lib/hubd/hubd.toml /root/hubd.toml
    inside sh -c 'echo "nonsense = 1" >> /var/lib/hubd/hubd.toml'
    inside systemctl restart hubd 2>/dev/null && fail "a wrong configuration is taken"
    sleep 3 # longer than RestartSec
    [[ $(inside systemctl show -P NRestarts hubd) == 0 ]] || fail "a wrong configuration is tried again and again"
    [[ $(inside systemctl show -P ExecMainStatus hubd) == 78 ]] || fail "the exit code is not 78"
    inside cp -p /root/hubd.toml /var/lib/hubd/hubd.toml
    inside systemctl reset-failed hubd
    inside systemctl start hubd || fail "the mended configuration is not taken"
    echo "a wrong configuration is not tried again and again"
}

encrypt() { # the file, the credential
    inside systemd-creds encrypt --name="$2" "$1" "/etc/credstore.encrypted/$2" 2>/dev/null
}

# Whether a line of a key that was copied out of the machine is in a file of it.
on_the_disk() {
    local text
    text=$(grep -v '^-' "$work/$1" | head -1)
    [[ ${#text} -ge 32 ]] && grep -rqF -- "$text" "$work/root/var" "$work/root/etc"
}

# As the head of systemd/hubd.service says.
keys_are_encrypted_credentials() {
    inside install -d -m 0700 /etc/credstore.encrypted
    inside mkdir -p /etc/systemd/system/hubd.service.d
    local key lines="[Service]\n"
    for key in hub-signing.key hub-tls.key hub-vault.key; do
        cp "$work/root/var/lib/hubd/keys/$key" "$work/$key"
        on_the_disk "$key" || fail "$key is not found where it is in clear"
        encrypt "/var/lib/hubd/keys/$key" "$key" || fail "systemd-creds cannot encrypt $key"
        inside shred -u "/var/lib/hubd/keys/$key"
        lines+="LoadCredentialEncrypted=$key\n"
    done
    inside sh -c "printf '$lines' > /etc/systemd/system/hubd.service.d/override.conf"
    inside systemctl daemon-reload
    inside systemctl restart hubd || fail "the hub does not start with encrypted credentials"
    said status >/dev/null || fail "the hub does not answer"
    # Nothing on the disk of the machine holds a key in clear.
    for key in hub-signing.key hub-tls.key hub-vault.key; do
        on_the_disk "$key" && fail "$key is on the disk in clear"
    done
    echo "the hub starts with encrypted credentials, and no key is on the disk in clear"
}

# As docs/keys.md says.
the_signing_key_changes_by_credentials() {
    inside hubctl keygen /run/hub-signing.next.key >/dev/null
    encrypt /run/hub-signing.next.key hub-signing.next.key || fail "systemd-creds cannot encrypt the next key"
    inside sh -c 'echo LoadCredentialEncrypted=hub-signing.next.key >> /etc/systemd/system/hubd.service.d/override.conf'
    inside systemctl daemon-reload
    inside systemctl restart hubd
    said keys rotate signing >/dev/null || fail "the signing key does not change"
    inside systemctl restart hubd || fail "the hub does not start with both keys"
    encrypt /run/hub-signing.next.key hub-signing.key
    inside shred -u /run/hub-signing.next.key
    inside rm /etc/credstore.encrypted/hub-signing.next.key
    inside sed -i /next/d /etc/systemd/system/hubd.service.d/override.conf
    inside systemctl daemon-reload
    inside systemctl restart hubd || fail "the hub does not start with the new key alone"
    inside systemctl stop hubd
    inside hubctl ledger verify >/dev/null || fail "the ledger does not verify after the change"
    inside systemctl start hubd
    echo "the signing key changes by encrypted credentials, and the ledger verifies"
}

fetch_debian
boot
set_up
a_killed_hub_comes_back
a_hub_that_hangs_is_ended_and_comes_back
a_hub_with_a_wrong_configuration_is_not_tried_again
keys_are_encrypted_credentials
the_signing_key_changes_by_credentials
