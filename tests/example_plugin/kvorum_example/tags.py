"""The system tag of the example: `example::oem::TEXT` is a text that the guest finds in its firmware tables."""

from __future__ import annotations

from dataclasses import replace

from core.errors import InvalidError
from nodeagent.compute.domain_spec import DomainSpec


class OemString:
    """`example::oem::TEXT`, as many as one likes. In the guest: `dmidecode -t 11`."""

    kinds = ("vm",)
    many = True
    description = "an OEM string, as the guest reads it"

    def check(self, value: str) -> None:
        """Refuse what can't be one."""
        if len(value) > 60:
            raise InvalidError("an OEM string has 60 characters at most: shorten it")

    def shape(self, value: str, spec: DomainSpec) -> DomainSpec:
        """Give it to the guest."""
        return replace(spec, oem_strings=(*spec.oem_strings, value))
