"""A resource type as a plug-in brings one: licences of programs, and the VMs that use them. This file is all of it."""

from enum import StrEnum
from typing import Annotated, ClassVar

from core.attributes import attribute
from core.errors import InvalidError
from core.model import OnDelete, Relation, Resource


class Tier(StrEnum):
    """What a licence includes."""

    BASIC = "basic"
    FULL = "full"


class Licence(Resource, tag="licence.v1", frozen=True, kw_only=True):
    """A licence of a program; goes along with the VM that uses it, and keeps the image from being deleted."""

    PLURAL: ClassVar[str] = "licences"
    INDEXED: ClassVar[tuple[str, ...]] = ("product",)
    RELATIONS: ClassVar[tuple[Relation, ...]] = (
        Relation(
            "vm_id",
            target="vm",
            name="vm",
            reverse="licences",
            on_delete=OnDelete.ALONG,
            unique=True,
        ),
        Relation(
            "image_ids", target="image", name="images", reverse="licences", many=True, maximum=2
        ),
    )

    product: Annotated[str, attribute("The program that it is for.", length_max=100)]
    seats: Annotated[int, attribute("How many people may use it.", least=1, most=1000)] = 1
    tier: Annotated[Tier, attribute("What it includes.")] = Tier.BASIC
    codes: Annotated[tuple[str, ...], attribute("Codes of its options.", count_max=8)] = ()
    trial: Annotated[bool, attribute("Whether it ends by itself.")] = False
    vm_id: Annotated[str, attribute("The VM that uses it; empty: none.")] = ""
    image_ids: Annotated[tuple[str, ...], attribute("Images that it came with.")] = ()

    def check(self) -> None:
        """Refuse what no such licence can be."""
        if self.trial and self.seats > 10:
            raise InvalidError("a trial has 10 seats at most")
