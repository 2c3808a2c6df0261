"""The files of one port group's DHCP and DNS service (dnsmasq).

Called by `netfabric.dhcp`; pure. The plan holds only checked values, yet every value is taken apart here and
written anew, so that nothing a user wrote can become a line of configuration.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.errors import InvalidError
from netfabric.names import checked_ip4, checked_mac, service_mac
from netfabric.plan import Endpoint, PortGroupPlan
from netfabric.port_group import check_domain

LEASE_TIME = "12h"
INTERFACE = "eth0"


@dataclass(frozen=True, slots=True)
class DhcpFiles:
    """Texts of all files. A change of `config` needs a restart, of the others a SIGHUP."""

    config: str
    leases: str
    names: str


@dataclass(frozen=True, slots=True)
class DhcpPaths:
    """Where the service's files are, all in one directory."""

    directory: Path

    @property
    def config(self) -> Path:
        """Return the configuration."""
        return self.directory / "dnsmasq.conf"

    @property
    def leases(self) -> Path:
        """Return who gets which address, from the store."""
        return self.directory / "reservations"

    @property
    def names(self) -> Path:
        """Return the names DNS answers, from the store."""
        return self.directory / "names"

    @property
    def given(self) -> Path:
        """Return the leases dnsmasq has given; dnsmasq writes it."""
        return self.directory / "leases"

    @property
    def pid(self) -> Path:
        """Return the process id; dnsmasq writes it."""
        return self.directory / "pid"


def dhcp_files(plan: PortGroupPlan, paths: DhcpPaths, user: str) -> DhcpFiles:
    """Return the files for a port group; the service runs as `user`.

    Raises:
        InvalidError: a value of the plan is not what it should be.
    """
    check_domain(plan.domain)
    return DhcpFiles(
        config=_config(plan, paths, user),
        leases=_lines(
            f"{checked_mac(e.mac)},{checked_ip4(e.ip, 'NIC address')}" for e in plan.endpoints
        ),
        names=_lines(_name_line(endpoint, plan.domain) for endpoint in plan.endpoints),
    )


def namespace_commands(plan: PortGroupPlan) -> str:
    """Return `ip -batch` lines that set up the service's card in its namespace. Safe to repeat."""
    prefix = ipaddress.IPv4Network(plan.cidr).prefixlen
    service = checked_ip4(plan.service_ip, "service address")
    return _lines(
        [
            "link set dev lo up",
            f"link set dev {INTERFACE} address {service_mac(plan.vni)} mtu {int(plan.mtu)} addrgenmode none",
            f"address flush dev {INTERFACE}",
            f"address add {service}/{prefix} dev {INTERFACE}",
            f"link set dev {INTERFACE} up",
        ]
    )


def stale_leases(given: str, endpoints: Iterable[Endpoint]) -> bool:
    """Tell whether dnsmasq holds an address for a MAC that it no longer belongs to, which would keep the new
    owner from getting it. `given` is dnsmasq's lease file."""
    owners = {endpoint.ip: endpoint.mac for endpoint in endpoints}
    return any(
        len(fields) >= 3 and owners.get(fields[2], fields[1]) != fields[1]
        for fields in (line.split() for line in given.splitlines())
    )


def without_stale(given: str, endpoints: Iterable[Endpoint]) -> str:
    """Return the lease file without such leases."""
    known = tuple(endpoints)
    return _lines(line for line in given.splitlines() if not stale_leases(line, known))


def _config(plan: PortGroupPlan, paths: DhcpPaths, user: str) -> str:
    network = ipaddress.IPv4Network(plan.cidr)
    service = checked_ip4(plan.service_ip, "service address")
    gateway = f",{checked_ip4(plan.gateway, 'gateway')}" if plan.gateway else ""
    servers = plan.dns or (str(service),)
    dns = ",".join(str(checked_ip4(server, "DNS server")) for server in servers)
    for path in (paths.config, paths.leases, paths.names, paths.given, paths.pid):
        if not str(path).isprintable() or " " in str(path):
            raise InvalidError(
                f"directory {str(path.parent)!r} cannot be used: it has odd characters"
            )
    return _lines(
        [
            "# Written by the Kvorum agent; changes are overwritten.",
            f"user={user}",
            f"pid-file={paths.pid}",
            f"interface={INTERFACE}",
            "except-interface=lo",
            "bind-interfaces",
            "no-resolv",
            "no-poll",
            "no-hosts",
            f"addn-hosts={paths.names}",
            f"domain={plan.domain}",
            f"local=/{plan.domain}/",
            "domain-needed",
            "bogus-priv",
            f"dhcp-range={network[0]},static,{network.netmask},{LEASE_TIME}",
            f"dhcp-hostsfile={paths.leases}",
            f"dhcp-leasefile={paths.given}",
            "dhcp-lease-max=1000000",
            "dhcp-authoritative",
            "no-ping",
            "quiet-dhcp",
            f"dhcp-option=option:router{gateway}",
            f"dhcp-option=option:dns-server,{dns}",
            f"dhcp-option-force=option:mtu,{int(plan.mtu)}",
        ]
    )


def _name_line(endpoint: Endpoint, domain: str) -> str:
    """Return the address with its full and its short name. DHCP takes the guest's host name from here too: in
    a reservation a name such as `12h` or `ignore` would mean something else."""
    check_domain(endpoint.name)
    return f"{checked_ip4(endpoint.ip, 'NIC address')} {endpoint.name}.{domain} {endpoint.name}"


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
