"""Workflow definitions: XML files that name steps, say how patient to be with each, and may contain each other.

Read once at the agent's start, the product's and those of plug-ins. The schema for editors and authors is
`nodeagent/workflows/workflow.xsd`; the standard library has no validator for it, so this module checks the same by
hand, and a test keeps the two in step. A definition may come from a plug-in: whatever a DOCTYPE could bring in
(entities, external files) is refused, and a file is small.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from xml.parsers import expat

from core.errors import FatalError, InvalidError, PlatformError, TemporaryError

FILE_BYTES_MAX = 64 << 10
STEPS_MAX = 100
DESCRIPTION_LENGTH_MAX = 200
NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
NUMBER = re.compile(r"[1-9][0-9]{0,4}")
NUMBER_MAX = {
    "timeout-s": 86_400,
    "attempts": 100,
    "pause-s": 3_600,
    "weight": 1_000,
    "length-max": 500,
}
INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
TEXT_LENGTH_MAX = 500
INPUTS_MAX = 20
RUN_ON = ("vm",)

TEMPORARY_S = 20.0
PAUSE_S_MAX = 60.0


class Retry(StrEnum):
    """Which failures of a step are worth another try: none, those that may pass by themselves, or any."""

    NEVER = "never"
    TEMPORARY = "temporary"
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRule:
    """A step in a workflow. `timeout_s` bounds all its tries and pauses together, and each undo; None: no bound.

    Without `attempts` it is tried for 20 seconds. Without `pause_s` the error says how long to wait; with it the
    pause doubles from try to try, up to a minute. `weight` is the step's share of the progress.
    """

    ref: str
    timeout_s: float | None = None
    retry: Retry = Retry.TEMPORARY
    attempts: int | None = None
    pause_s: float | None = None
    weight: int = 1

    def pause_after(self, error: PlatformError, *, tries: int, spent_s: float) -> float | None:
        """Return how long to wait before the next try, or None to give up."""
        # Somebody else wrote the same record at the same moment: looking again is all that it takes.
        passes = isinstance(error, TemporaryError) or error.code == "conflict-guard"
        if self.retry is Retry.NEVER or (self.retry is Retry.TEMPORARY and not passes):
            return None
        if self.pause_s is not None:
            pause_s = max(self.pause_s, min(self.pause_s * 2 ** min(tries - 1, 12), PAUSE_S_MAX))
        else:
            pause_s = error.retry_after_s if isinstance(error, TemporaryError) else 1.0
        if self.attempts is not None:
            return pause_s if tries < self.attempts else None
        return pause_s if spent_s + pause_s < TEMPORARY_S else None


class InputType(StrEnum):
    """What an input takes: any text, a whole number, or yes and no."""

    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An argument that people give when they run a workflow. `length_max` counts characters of a text."""

    name: str
    type: InputType = InputType.TEXT
    required: bool = False
    default: str = ""
    length_max: int = TEXT_LENGTH_MAX
    description: str = ""

    def checked(self, value: str) -> str:
        """Return the argument as steps get it; a flag is `yes` or empty.

        Raises:
            InvalidError: it isn't of the type, or too long.
        """
        match self.type:
            case InputType.FLAG:
                if value not in ("yes", "no"):
                    raise InvalidError(f"argument {self.name!r} is yes or no")
                return value if value == "yes" else ""
            case InputType.NUMBER:
                if not INTEGER.fullmatch(value):
                    raise InvalidError(f"argument {self.name!r} is a whole number")
            case InputType.TEXT:
                if len(value) > self.length_max or not all(c.isprintable() for c in value):
                    raise InvalidError(
                        f"argument {self.name!r} has at most {self.length_max} characters, all of them printable"
                    )
        return value


@dataclass(frozen=True, slots=True)
class Definition:
    """A workflow as its XML file tells it; a nested workflow is a part that is a definition itself.

    `run_on` is the kind of resource that people may run it on, empty when they may not; `inputs` are what they give.
    """

    name: str
    parts: tuple[StepRule | Definition, ...]
    description: str = ""
    run_on: str = ""
    inputs: tuple[Input, ...] = ()

    def arguments(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the arguments of a run, each input once.

        Raises:
            InvalidError: one isn't known, is missing or is wrong; the message says which there are.
        """
        known = {one.name: one for one in self.inputs}
        for name in given:
            if name not in known:
                raise InvalidError(
                    f"workflow {self.name!r} takes no argument {name[:60]!r}: {_nearby(known)}"
                )
        missing = [one.name for one in self.inputs if one.required and not given.get(one.name)]
        if missing:
            raise InvalidError(f"workflow {self.name!r} needs the argument {missing[0]!r}")
        return {
            one.name: one.checked(given[one.name]) if given.get(one.name) else one.default
            for one in self.inputs
        }

    def walk(self, inside: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], StepRule]]:
        """Yield every step in its order, with the names of the nested workflows around it, outermost first."""
        for part in self.parts:
            match part:
                case StepRule():
                    yield inside, part
                case Definition():
                    yield from part.walk((*inside, part.name))

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of all steps in their order; each occurs once, so a journal line names one."""
        return tuple(rule.ref for _, rule in self.walk())

    @property
    def rules(self) -> dict[str, StepRule]:
        """The rules of all steps by name."""
        return {rule.ref: rule for _, rule in self.walk()}


@dataclass(frozen=True, slots=True)
class Source:
    """A definition's text and the file it is from, for messages."""

    file: str
    text: str


@dataclass(slots=True)
class _Element:
    file: str
    line: int
    tag: str
    attributes: dict[str, str]
    children: list[_Element] = field(default_factory=list)

    def error(self, message: str) -> FatalError:
        return FatalError(f"{self.file}, line {self.line}: {message}")


ROOT_ATTRIBUTES = {"name": True, "description": False, "run-on": False}
STEP_ATTRIBUTES = {
    "ref": True,
    "timeout-s": False,
    "retry": False,
    "attempts": False,
    "pause-s": False,
    "weight": False,
}
NESTED_ATTRIBUTES = {"ref": True}
INPUT_ATTRIBUTES = {
    "name": True,
    "type": False,
    "required": False,
    "default": False,
    "length-max": False,
    "description": False,
}


def parse_definitions(
    sources: Iterable[Source], known_steps: frozenset[str]
) -> dict[str, Definition]:
    """Return workflows by name.

    Raises:
        FatalError: not the schema, a name used twice, an unknown step or workflow, or workflows that contain each
            other. The message names file and line and says what is allowed.
    """
    roots: dict[str, _Element] = {}
    for source in sources:
        root = _read(source)
        _check(root)
        name = root.attributes["name"]
        if name in roots:
            raise root.error(f"workflow {name!r} is defined in {roots[name].file} already")
        roots[name] = root
    linked = {name: _link(name, roots, known_steps, ()) for name in roots}
    for name, definition in linked.items():
        _check_steps(roots[name], definition.steps)
    return linked


def _read(source: Source) -> _Element:
    """Return the tree of a file with its lines; expat is told to stop at whatever isn't plain elements."""
    data = source.text.encode()
    if len(data) > FILE_BYTES_MAX:
        raise FatalError(f"{source.file}: a workflow definition has at most {FILE_BYTES_MAX} bytes")
    parser = expat.ParserCreate("utf-8")
    open_: list[_Element] = [_Element(source.file, 0, "", {})]

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = _Element(source.file, parser.CurrentLineNumber, tag, attributes)
        open_[-1].children.append(element)
        open_.append(element)
        if len(open_) > 3:
            raise element.error(f"<{tag}> can't be inside <{open_[-2].tag}>: that has no content")

    def doctype(*_: object) -> None:
        here = _Element(source.file, parser.CurrentLineNumber, "", {})
        raise here.error("a workflow definition has no DOCTYPE and no entities: remove it")

    def text(content: str) -> None:
        if content.strip():
            raise open_[-1].error(
                f"text in <{open_[-1].tag}>: only <step>, <workflow> and <input> belong here"
            )

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _tag: open_.pop()
    parser.StartDoctypeDeclHandler = doctype
    parser.CharacterDataHandler = text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        why = expat.ErrorString(error.code)
        raise FatalError(f"{source.file}, line {error.lineno}: this is not XML: {why}") from None
    return open_[0].children[0]


def _check(root: _Element) -> None:
    """Hold a file to the schema; what it refers to is looked at later."""
    if root.tag != "workflow":
        raise root.error(f"the root is <{root.tag}>, it must be <workflow>")
    _check_attributes(root, ROOT_ATTRIBUTES)
    if not root.children:
        raise root.error("a workflow has at least one <step> or <workflow>")
    for child in root.children:
        match child.tag:
            case "step":
                _check_attributes(child, STEP_ATTRIBUTES)
            case "workflow":
                _check_attributes(child, NESTED_ATTRIBUTES)
            case "input":
                _check_attributes(child, INPUT_ATTRIBUTES)
            case _:
                raise child.error(
                    f"<{child.tag}> is unknown: use <step> or <workflow>, and <input> for what people give"
                )


def _check_attributes(element: _Element, allowed: Mapping[str, bool]) -> None:
    for name in allowed:
        if allowed[name] and name not in element.attributes:
            raise element.error(f"<{element.tag}> needs the attribute {name!r}")
    for name, value in element.attributes.items():
        if name not in allowed:
            raise element.error(
                f"<{element.tag}> has no attribute {name!r}: allowed are {', '.join(allowed)}"
            )
        _check_value(element, name, value)


def _check_value(element: _Element, name: str, value: str) -> None:
    if name in ("name", "ref") and not NAME.fullmatch(value):
        raise element.error(
            f"{name} {value[:80]!r} is not allowed: use 1 to 63 of a-z, 0-9 and '-', beginning with a letter"
        )
    if name == "retry" and value not in frozenset(Retry):
        raise element.error(f"retry {value[:80]!r} is unknown: use {', '.join(Retry)}")
    if name == "type" and value not in frozenset(InputType):
        raise element.error(f"type {value[:80]!r} is unknown: use {', '.join(InputType)}")
    if name == "required" and value not in ("yes", "no"):
        raise element.error(f"required {value[:80]!r} is not allowed: use yes or no")
    if name == "run-on" and value not in RUN_ON:
        raise element.error(f"run-on {value[:80]!r} is not allowed: use {', '.join(RUN_ON)}")
    if name in ("description", "default") and len(value) > DESCRIPTION_LENGTH_MAX:
        raise element.error(f"a {name} has at most {DESCRIPTION_LENGTH_MAX} characters")
    if name in NUMBER_MAX and not (NUMBER.fullmatch(value) and int(value) <= NUMBER_MAX[name]):
        raise element.error(
            f"{name} {value[:80]!r} is not allowed: use a whole number from 1 to {NUMBER_MAX[name]}"
        )


def _link(
    name: str,
    roots: Mapping[str, _Element],
    known_steps: frozenset[str],
    inside: tuple[str, ...],
) -> Definition:
    parts: list[StepRule | Definition] = []
    for child in roots[name].children:
        if child.tag == "input":
            continue
        ref = child.attributes["ref"]
        if child.tag == "step":
            if ref not in known_steps:
                raise child.error(f"step {ref!r} is unknown here: {_nearby(known_steps)}")
            parts.append(_rule(child.attributes))
            continue
        if ref not in roots:
            raise child.error(f"workflow {ref!r} is unknown here: {_nearby(roots)}")
        if ref in (*inside, name):
            raise child.error(f"workflow {ref!r} contains itself")
        parts.append(_link(ref, roots, known_steps, (*inside, name)))
    attributes = roots[name].attributes
    return Definition(
        name,
        tuple(parts),
        attributes.get("description", ""),
        attributes.get("run-on", ""),
        _inputs(roots[name]),
    )


def _inputs(root: _Element) -> tuple[Input, ...]:
    """Return a workflow's inputs.

    Raises:
        FatalError: a name occurs twice, a default doesn't fit, there are too many, or nobody could give them.
    """
    inputs: dict[str, Input] = {}
    for child in (child for child in root.children if child.tag == "input"):
        given = child.attributes
        made = Input(
            name=given["name"],
            type=InputType(given.get("type", InputType.TEXT)),
            required=given.get("required") == "yes",
            length_max=int(given.get("length-max", TEXT_LENGTH_MAX)),
            description=given.get("description", ""),
        )
        if made.name in inputs:
            raise child.error(f"input {made.name!r} is there twice")
        if "run-on" not in root.attributes:
            raise child.error("only a workflow with run-on has inputs: nobody could give them")
        if default := given.get("default", ""):
            try:
                made = replace(made, default=made.checked(default))
            except InvalidError as error:
                raise child.error(f"the default doesn't fit: {error.message}") from None
        inputs[made.name] = made
    if len(inputs) > INPUTS_MAX:
        raise root.error(f"a workflow has at most {INPUTS_MAX} inputs")
    return tuple(inputs.values())


def _rule(attributes: Mapping[str, str]) -> StepRule:
    numbers = {name: int(attributes[name]) for name in NUMBER_MAX if name in attributes}
    return StepRule(
        ref=attributes["ref"],
        timeout_s=numbers.get("timeout-s"),
        retry=Retry(attributes.get("retry", Retry.TEMPORARY)),
        attempts=numbers.get("attempts"),
        pause_s=numbers.get("pause-s"),
        weight=numbers.get("weight", 1),
    )


def _check_steps(root: _Element, steps: Sequence[str]) -> None:
    name = root.attributes["name"]
    if not steps:
        raise root.error("a workflow has at least one <step> or <workflow>")
    if len(steps) > STEPS_MAX:
        raise root.error(f"workflow {name!r} has more than {STEPS_MAX} steps")
    twice = next((step for step in steps if steps.count(step) > 1), "")
    if twice:
        raise root.error(
            f"workflow {name!r} names step {twice!r} twice, nested workflows included: "
            "the journal could not tell one from the other"
        )


def _nearby(names: Iterable[str]) -> str:
    return f"known are {', '.join(sorted(names)) or 'none'}"
