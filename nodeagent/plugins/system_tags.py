"""System tags: `namespace::name::value`, whose pattern the product or a plug-in has registered, and what they change.

The API refuses one that nobody registered or whose value makes no sense. When a VM is started, each of its system tags may
shape what the guest sees of its machine; a plug-in's failure there leaves the tag without effect and never keeps a VM down.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Protocol

from core.errors import FatalError, InvalidError, PermanentError, PlatformError
from core.model import check_tag, is_system, system_parts
from nodeagent.compute.domain_spec import DomainSpec, check_spec
from nodeagent.plugins.contained import contained
from nodeagent.plugins.loading import Group, instance_of

log = logging.getLogger(__name__)

SYSTEM_TAGS_GROUP = "kvorum.system_tags"
SMBIOS_TEXT_MAX = 60

NoteFailure = Callable[[str, str, str], None]
"""Called with a group, a name and why something of a plug-in failed."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}\.[a-z][a-z0-9-]{0,30}", re.ASCII)


class SystemTag(Protocol):
    """What a pattern `namespace::name` means; registered by an entry point `namespace.name`.

    `kinds` are the kinds of resources that may carry it, `many` whether one may carry several.
    """

    kinds: tuple[str, ...]
    many: bool
    description: str

    def check(self, value: str) -> None:
        """Raise InvalidError, which says what to write, when the value makes no sense. Quick and without I/O."""
        ...

    def shape(self, value: str, spec: DomainSpec) -> DomainSpec:
        """Return the spec of a VM that is about to start, changed in its SMBIOS texts. Quick, without I/O."""
        ...


class SmbiosText:
    """A text that the guest reads in its firmware tables (SMBIOS), e.g. by `dmidecode` or Windows' WMI."""

    kinds: tuple[str, ...] = ("vm",)
    many = False

    def __init__(self, description: str, put: Callable[[DomainSpec, str], DomainSpec]) -> None:
        self.description = description
        self._put = put

    def check(self, value: str) -> None:
        """See `SystemTag.check`."""
        if len(value) > SMBIOS_TEXT_MAX:
            raise InvalidError(
                f"{self.description}: at most {SMBIOS_TEXT_MAX} characters, {value[:20]!r}… has {len(value)}"
            )

    def shape(self, value: str, spec: DomainSpec) -> DomainSpec:
        """See `SystemTag.shape`."""
        return self._put(spec, value)


OWN: Mapping[str, SystemTag] = {
    "smbios.serial": SmbiosText(
        "the system's serial number, as the guest reads it",
        lambda spec, value: replace(spec, smbios_serial=value),
    ),
    "smbios.family": SmbiosText(
        "the system's family, as the guest reads it",
        lambda spec, value: replace(spec, smbios_family=value),
    ),
}


class SystemTags:
    """All patterns that this agent knows."""

    def __init__(self, note_failure: NoteFailure = lambda group, name, why: None) -> None:
        self._tags: dict[str, SystemTag] = dict(OWN)
        self._note_failure = note_failure

    def group(self) -> Group:
        """Return how plug-ins add to them."""
        return Group(SYSTEM_TAGS_GROUP, "system tag", _load, self._accept, tuple(OWN), _NAME, _RULE)

    @property
    def many(self) -> frozenset[str]:
        """The patterns `namespace::name` of which a resource may carry several."""
        return frozenset(_pattern(name) for name, tag in self._tags.items() if tag.many)

    def patterns(self) -> dict[str, str]:
        """Return what each pattern means."""
        return {_pattern(name): tag.description for name, tag in sorted(self._tags.items())}

    def check(self, kind: str, tag: str) -> str:
        """Return a tag that a resource of the kind may be given, whatever its form.

        Raises:
            InvalidError: it may not; the message says what to do.
        """
        check_tag(tag)
        if not is_system(tag):
            return tag
        namespace, name, value = system_parts(tag)
        known = self._tags.get(f"{namespace}.{name}")
        if known is None:
            raise InvalidError(
                f"system tag {namespace}::{name} is not known here: there are {', '.join(self.patterns())}; "
                "a plug-in can add others ('kvorum plugin list')"
            )
        if kind not in known.kinds:
            raise InvalidError(
                f"{namespace}::{name} is for {', '.join(known.kinds)}, not for {kind}"
            )
        try:
            contained(f"system tag {namespace}::{name}", known.check, value)
        except PermanentError as error:
            self._note_failure(SYSTEM_TAGS_GROUP, f"{namespace}.{name}", error.message)
            raise
        return tag

    def shape(self, spec: DomainSpec, tags: Iterable[str]) -> DomainSpec:
        """Return a VM's spec as its system tags want it. One that is unknown here, or fails, has no effect."""
        for tag in tags:
            if not is_system(tag):
                continue
            namespace, name, value = system_parts(tag)
            if (known := self._tags.get(f"{namespace}.{name}")) is None:
                log.warning("a system tag is unknown here", extra={"vm": spec.vm_id, "tag": tag})
                continue
            what = f"system tag {namespace}::{name}"
            try:
                spec = _only_smbios(spec, contained(what, known.shape, value, spec))
            except PlatformError as error:
                log.warning("a system tag has no effect", extra={"vm": spec.vm_id, "tag": tag})
                self._note_failure(SYSTEM_TAGS_GROUP, f"{namespace}.{name}", error.message)
        return spec

    def _accept(self, name: str, loaded: object) -> None:
        self._tags[name] = loaded  # type: ignore[assignment]  # checked by _load


_RULE = "is namespace.name, each 1 to 31 of a-z, 0-9 and '-', beginning with a letter"


def _load(plugin: EntryPoint) -> object:
    made = instance_of(
        plugin, "a system tag", ("check", "shape"), kinds=tuple, many=bool, description=str
    )
    if not all(isinstance(kind, str) for kind in getattr(made, "kinds", ())):
        raise FatalError(f"{plugin.value}: kinds must be names of kinds, such as ('vm',)")
    return made


def _pattern(name: str) -> str:
    return name.replace(".", "::")


def _only_smbios(before: DomainSpec, after: object) -> DomainSpec:
    """Take over nothing but what the guest reads of its machine: never its disks, its cards or who it is.

    Raises:
        InvalidError: it is no spec, or a value can't be given to libvirt.
    """
    if not isinstance(after, DomainSpec):
        raise InvalidError(f"it returned {type(after).__name__} instead of the spec")
    return check_spec(
        replace(
            before,
            smbios_serial=after.smbios_serial,
            smbios_family=after.smbios_family,
            oem_strings=after.oem_strings,
        )
    )
