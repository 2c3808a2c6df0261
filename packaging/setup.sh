#!/bin/bash
# Install what building and testing need: Debian packages, .venv, the project itself. Every make target runs it.
#
# Safe to repeat; with nothing to do it takes a fraction of a second and touches nothing. It starts and enables no
# service: the lab runs its own libvirtd and serf in namespaces, and a product host is installed by install.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
list=packaging/debian-packages.txt

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

[ "$(. /etc/os-release && echo "$ID $VERSION_ID")" = "debian 12" ] || fail "this needs Debian 12"

# --- Debian packages -------------------------------------------------------------------------------------------
mapfile -t wanted < <(sed 's/#.*//' "$list" | tr -s ' \t' '\n' | sed '/^$/d')
mapfile -t missing < <(comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort -u))
if [ "${#missing[@]}" -gt 0 ]; then
    say "installing Debian packages: ${missing[*]}"
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "run as root once, so that these can be installed"
        as_root=(sudo)
    fi
    # Without this file the packages would start their services where an init system runs.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
        trap '"${as_root[@]}" rm -f "$policy"' EXIT
    fi
    apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
    install=("${apt[@]}" install -y --no-install-recommends "${missing[@]}")
    log=$(mktemp)
    "${apt[@]}" update >"$log" 2>&1 || say "apt-get update failed, trying with the lists at hand"
    "${install[@]}" >"$log" 2>&1 || { tail -20 "$log" >&2; fail "apt-get install failed"; }
    rm -f "$log"
    # Installing enables units for the next boot; the lab doesn't want them, a product host enables its own.
    if command -v systemctl >/dev/null; then
        for unit in libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket \
            libvirt-guests.service virtlogd.socket virtlogd-admin.socket virtlockd.socket \
            virtlockd-admin.socket serf.service dnsmasq.service etcd.service; do
            case " ${missing[*]} " in *" libvirt-daemon-system "* | *" serf "* | *" dnsmasq-base "* | *" etcd-server "*)
                "${as_root[@]}" systemctl --quiet disable "$unit" >/dev/null 2>&1 || true ;;
            esac
        done
    fi
fi

# --- virtual environment ---------------------------------------------------------------------------------------
# /usr/bin/python3 and system packages on purpose: Debian's libvirt binding fits Debian's libvirt.
stamp=.venv/.setup-stamp
now=$(cat requirements-dev.lock pyproject.toml packaging/setup.sh | sha256sum; pwd)
if [ ! -x .venv/bin/python ] || [ "$(cat "$stamp" 2>/dev/null)" != "$now" ]; then
    exec 9<packaging/setup.sh && flock 9  # two make runs at once: one installs, the other waits
    say "preparing .venv"
    [ -x .venv/bin/python ] || /usr/bin/python3 -m venv --system-site-packages .venv
    pip=(.venv/bin/python -m pip --disable-pip-version-check install --quiet)
    log=$(mktemp)
    { "${pip[@]}" --require-hashes -r requirements-dev.lock &&
        "${pip[@]}" --no-deps --no-build-isolation -e .; } >"$log" 2>&1 ||
        { tail -20 "$log" >&2; fail "pip install failed"; }
    rm -f "$log"
    printf '%s' "$now" >"$stamp"
fi
