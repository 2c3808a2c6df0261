"""Management boards: what can take the power from a host, and so prove that it is off.

Written by operators (address, log-in) and by the leader, who asks every board now and then (`nodeagent.services.bmc_checks`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from core.attributes import CLUSTER, attribute
from core.model.resource import OnDelete, Relation, Tagged

IPMI_PORT = 623


class BmcState(StrEnum):
    """Whether a board can be relied on. `OK`: it said "on" when it was asked last while its host held its lease."""

    UNCHECKED = "unchecked"
    OK = "ok"
    FAULT = "fault"


class Bmc(Tagged, tag="bmc.v1", frozen=True, kw_only=True):
    """A host's management board (baseboard management controller), spoken to by IPMI 2.0; id = host id, name = host name.

    Its word that the host is off is proof enough to start the host's VMs elsewhere. So it is believed only while `state`
    is `ok`: a board that says "off" of a host that is certainly on belongs to another machine. No two hosts have one board.
    """

    PLURAL: ClassVar[str] = "bmcs"
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "host_id",
            target="host",
            name="host",
            reverse="bmcs",
            required=True,
            unique=True,
            on_delete=OnDelete.ALONG,
        ),
    )
    SECRET: ClassVar[frozenset[str]] = frozenset({"sealed_password"})
    SEALED: ClassVar[dict[str, str]] = {"sealed_password": "bmc/{id}"}

    host_id: Annotated[str, attribute("The host whose power it switches.")]
    address: Annotated[str, attribute("IP address or name of the board.", length_max=253)]
    user: Annotated[str, attribute("Who logs in.", length_max=64)]
    sealed_password: Annotated[bytes, attribute("The password, sealed.", by=CLUSTER)]
    port: Annotated[int, attribute("UDP port.", least=1, most=65_535)] = IPMI_PORT
    cipher_suite: Annotated[
        int, attribute("Cipher suite of RMCP+: 17 (SHA-256) or 3 (SHA-1).", least=1, most=17)
    ] = 17
    state: Annotated[BmcState, attribute("Whether its word is relied on.", by=CLUSTER)] = (
        BmcState.UNCHECKED
    )
    why: Annotated[str, attribute("What was wrong when it was asked last.", by=CLUSTER)] = ""

    def claims(self) -> tuple[str, ...]:
        return (f"bmc.name/{self.name}", f"bmc.address/{self.address.lower()}:{self.port}")
