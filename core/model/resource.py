"""What every resource has in common, and the rules a name must keep.

All resource types of `core.model` derive from `Resource`; the store keeps them by kind and id.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, ClassVar

import msgspec

from core.attributes import CLUSTER, attribute
from core.errors import InvalidError

DESCRIPTION_LENGTH_MAX = 1000
NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


class OnDelete(StrEnum):
    """What becomes of a resource when one that its relation points to is deleted.

    `REFUSE`: it forbids that. `ALONG`: it goes too. `DETACH`: it stays and loses the id. `KEEP`: the id stays as a
    memory of what was.
    """

    REFUSE = "refuse"
    ALONG = "along"
    DETACH = "detach"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Relation:
    """What an attribute that holds ids means: `field` names resources of the kind `target`.

    From here the relation is called `name`, from the target `reverse`, always a plural: n things point to one target,
    or with `many`, when the attribute is a list of ids, to n. In a list of structs, `field` is `list.attribute`.
    `on_delete` is what becomes of this end when the target is deleted. `required`: there is always a target.
    `unique`: of a target at most one thing has this relation to it. `maximum` bounds the targets of one thing.
    All of it is enforced where transactions are made (`raftstate.relation_guards`), but for memories (`KEEP`).
    """

    field: str
    target: str
    name: str
    reverse: str
    many: bool = False
    on_delete: OnDelete = OnDelete.REFUSE
    required: bool = False
    unique: bool = False
    maximum: int | None = None

    def __post_init__(self) -> None:
        detaches = self.on_delete is OnDelete.DETACH
        assert not (detaches and "." in self.field), "an id within a struct can't be detached"
        assert not (detaches and self.required), "what needs a target can't be detached from it"
        assert self.many or self.maximum is None, "a single id has one target at most"

    @property
    def cardinality(self) -> str:
        """How many things have how many targets, e.g. `n:1`."""
        return f"{'1' if self.unique else 'n'}:{'n' if self.many else '1'}"


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """Identity of a thing in the cluster.

    `revision` is the log index of the last write (0: not stored yet); it is set when read, never stored.
    `created_ms` is Unix time in milliseconds, for people only.
    `SEALED` has the attributes that are sealed with the secrets key (docs/secrets.md), and the name that each is sealed under,
    in which `{id}` stands for the resource's id: what isn't listed is lost when the key is changed.
    `INDEXED` names the scalar attributes that queries search by; name, revision and every `*_id` but `NOT_INDEXED`
    ones are in any case.
    `BY_DECLARATION`: the API creates, changes and deletes it by what is declared alone, as it does types of plug-ins.
    `PLURAL` is the API's collection; kinds without one are the cluster's own business. `RELATIONS` says what every
    `*_id` and `*_ids` means, `NOT_RELATIONS` which of them point to no resource. `SECRET` attributes are never shown
    and never searched by; `UNSEARCHED` ones, `struct.attribute`, are shown, but too long to be kept a second time.
    """

    INDEXED: ClassVar[tuple[str, ...]] = ()
    PLURAL: ClassVar[str] = ""
    RELATIONS: ClassVar[tuple[Relation, ...]] = ()
    NOT_RELATIONS: ClassVar[frozenset[str]] = frozenset()
    NOT_INDEXED: ClassVar[frozenset[str]] = frozenset()
    SECRET: ClassVar[frozenset[str]] = frozenset()
    UNSEARCHED: ClassVar[frozenset[str]] = frozenset()
    BY_DECLARATION: ClassVar[bool] = False
    SEALED: ClassVar[dict[str, str]] = {}

    id: Annotated[
        str, attribute("A UUID, or a name where the kind says so; never changes.", by=CLUSTER)
    ]
    name: Annotated[
        str,
        attribute(
            "What people call it, unique among its kind; of records of the cluster the same as the id."
        ),
    ]
    revision: Annotated[
        int, attribute("Log index of its last change; guards the next one.", by=CLUSTER)
    ] = 0
    created_ms: Annotated[
        int, attribute("When it was made, by the clock of the host that was asked.", by=CLUSTER)
    ] = 0

    def is_leaving(self) -> bool:
        """Tell whether it may be gone soon without its deletion being fenced, so that nothing new should be related to it."""
        return False

    def check(self) -> None:
        """Raise InvalidError when its attributes don't fit together. Called before a user's change is stored."""

    def claims(self) -> tuple[str, ...]:
        """Return the strings that no other resource may hold at the same time."""
        return (f"{kind_of(self)}.name/{self.name}",)


class Tagged(Resource, frozen=True, kw_only=True):
    """A resource that users may tag (`core.model.tags`); `tags` are sorted."""

    tags: Annotated[
        tuple[str, ...],
        attribute(
            "Names and `key=value` pairs, to find it by, to limit rights, to change what it does."
        ),
    ] = ()


def kind_of(resource: Resource | type[Resource]) -> str:
    """Return the store's name of a resource type, e.g. `port-group`."""
    return _kind_of(resource if isinstance(resource, type) else type(resource))


@cache
def _kind_of(type_: type[Resource]) -> str:
    tag = type_.__struct_config__.tag
    assert isinstance(tag, str), "every resource type has a tag such as vm.v1"
    return tag.rsplit(".", 1)[0]


def key_of(resource: Resource) -> str:
    """Return the guard key `kind/id` of a resource."""
    return f"{kind_of(resource)}/{resource.id}"


def check_name(name: str, what: str) -> str:
    """Return the name, or say why it cannot be one.

    Raises:
        InvalidError: not 1 to 63 characters of a-z, 0-9, '-' and '.', starting and ending with a letter or digit.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidError(
            f"{what} name {name[:80]!r} is not allowed: use 1 to 63 of a-z, 0-9, '-' and '.', "
            "starting and ending with a letter or digit"
        )
    return name
