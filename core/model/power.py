"""Management boards: what can take the power from a host, and so prove that it is off.

Written by operators (address, log-in) and by the leader, who asks every board now and then (`nodeagent.services.bmc_checks`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from core.attributes import CLUSTER, attribute
from core.model.resource import OnDelete, Relation, Tagged

IPMI_PORT = 623
REDFISH_PORT = 443


class BmcProtocol(StrEnum):
    """What a board speaks: IPMI 2.0 (RMCP+) by UDP, or Redfish (DMTF DSP0266) by HTTPS."""

    IPMI = "ipmi"
    REDFISH = "redfish"


class BmcState(StrEnum):
    """Whether a board can be relied on. `OK`: it said "on" when it was asked last while its host held its lease."""

    UNCHECKED = "unchecked"
    OK = "ok"
    FAULT = "fault"


class Bmc(Tagged, tag="bmc.v1", frozen=True, kw_only=True):
    """A host's management board (baseboard management controller), spoken to by IPMI 2.0 or Redfish; id = host id, name = host name.

    Its word that the host is off is proof enough to start the host's VMs elsewhere. So it is believed only while `state`
    is `ok`: a board that says "off" of a host that is certainly on belongs to another machine. No two hosts have one board.
    A Redfish service may speak for several machines: then address, port and `system` together are the board.

    An agent from before Redfish takes such a board for one that speaks IPMI at `port`: nothing answers there by UDP, so it
    is a fault to that agent, never "off".
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
    port: Annotated[
        int, attribute("Port: UDP with `ipmi`, TCP with `redfish`.", least=1, most=65_535)
    ] = IPMI_PORT
    cipher_suite: Annotated[
        int, attribute("Cipher suite of RMCP+: 17 (SHA-256) or 3 (SHA-1).", least=1, most=17)
    ] = 17
    state: Annotated[BmcState, attribute("Whether its word is relied on.", by=CLUSTER)] = (
        BmcState.UNCHECKED
    )
    why: Annotated[str, attribute("What was wrong when it was asked last.", by=CLUSTER)] = ""

    protocol: Annotated[BmcProtocol, attribute("What the board speaks.")] = BmcProtocol.IPMI
    fingerprint: Annotated[
        str,
        attribute(
            "SHA-256 of the board's certificate, in hexadecimal: nothing is told to a board that shows another one. "
            "`redfish` only."
        ),
    ] = ""
    system: Annotated[
        str, attribute("Id of the host's machine in its Redfish service. `redfish` only.")
    ] = ""

    def claims(self) -> tuple[str, ...]:
        board = f"{self.address.lower()}:{self.port}" + (f"/{self.system}" if self.system else "")
        return (f"bmc.name/{self.name}", f"bmc.address/{board}")
