#!/bin/bash
# Install or upgrade Kvorum on a Debian 12 host. packaging/README.md explains what it does and what it leaves alone.
#
# usage: packaging/install.sh [--dry-run]
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=/opt/kvorum
dry=
case "${1-}" in
    "") ;;
    --dry-run) dry=yes ;;
    *) echo "usage: packaging/install.sh [--dry-run]" >&2; exit 2 ;;
esac
fail() { echo "install: $*" >&2; exit 1; }
run() { if [ -n "$dry" ]; then echo "+ $*"; else "$@"; fi; }

[ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "run as root"
[ -x /usr/bin/python3 ] && /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    fail "/usr/bin/python3 is not Python 3.11: this needs Debian 12"
[ -n "$dry" ] || [ -d /run/systemd/system ] || fail "systemd is not running here"
[ -e /dev/watchdog ] || echo "install: no /dev/watchdog: 'modprobe softdog' gives one; without it a lost host's VMs wait for you"

# What a host needs is above the line "# dev".
mapfile -t packages < <(sed '/^# dev/,$d; s/#.*//' packaging/debian-packages.txt | tr -s ' \t' '\n' | sed '/^$/d')
run apt-get -qq update
run env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}"

# The new tree is complete before it takes the place of the old one.
run rm -rf "$prefix/lib.new" "$prefix/lib.old"
run install -d -m 755 "$prefix/lib.new"
run cp -a core raftstate netfabric storage ha nodeagent tools kvorum_sdk docs pyproject.toml README.md LICENSE "$prefix/lib.new/"
[ ! -d "$prefix/lib" ] || run mv "$prefix/lib" "$prefix/lib.old"
run mv "$prefix/lib.new" "$prefix/lib"
[ -x "$prefix/venv/bin/python" ] || run /usr/bin/python3 -m venv --system-site-packages "$prefix/venv"
run "$prefix/venv/bin/python" -m pip install --quiet --require-hashes -r requirements.lock
run "$prefix/venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation -e "$prefix/lib"
run ln -sfn "$prefix/venv/bin/kvorum" /usr/local/bin/kvorum

run install -d /etc/libvirt/hooks
run install -m 755 ha/guard/qemu_hook_ask.py /etc/libvirt/hooks/qemu_hook_ask.py # before who needs it
run install -m 755 ha/guard/qemu_hook.sh /etc/libvirt/hooks/qemu
# Where AppArmor confines QEMU, it may also use the sockets that a migration comes in by.
profile=/etc/apparmor.d/local/abstractions/libvirt-qemu
rule='/run/kvorum/migrate/** rw,'
if [ -f "$profile" ] && ! grep -qF "$rule" "$profile"; then
    run sh -c "echo '$rule' >>'$profile'"
fi
run install -m 644 packaging/modules-load.d/kvorum.conf /etc/modules-load.d/kvorum.conf
while read -r module; do
    run modprobe "$module" # at the next boot systemd does it
done < <(grep -v '^#' packaging/modules-load.d/kvorum.conf)
run install -m 644 packaging/systemd/* /etc/systemd/system/
run systemctl daemon-reload
run systemctl disable --quiet --now serf.service
run systemctl enable --quiet libvirtd.service
run systemctl restart libvirtd.service # it looks for hooks when it starts; guests don't notice
run systemctl enable --quiet --now kvorum-guard.service kvorum-serf.path
run systemctl enable --quiet kvorum-agent.service
run systemctl enable --quiet --now libvirt-guests.service kvorum-host-shutdown.service
# An upgrade restarts the agent; guests and the guard go on. A new guard takes over at the next boot of the host.
run systemctl restart kvorum-agent.service
[ -n "$dry" ] || echo "installed. Next: 'kvorum init' on the first host, 'kvorum join TOKEN' on the others."
