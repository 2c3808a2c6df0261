"""Workflow definitions: what the schema says, what the agent's own check says, and that they say the same."""

import re
from importlib import resources
from xml.etree import ElementTree

import pytest

from core.errors import ConflictError, FatalError, InvalidError, TemporaryError
from core.workflow_definition import Definition, Retry, Source, StepRule, parse_definitions
from nodeagent.workflows.registry import DEFINITIONS_PACKAGE, STEPS, load_registry

KNOWN = frozenset("abcde")


def parse(*texts: str, known=KNOWN) -> dict[str, Definition]:
    return parse_definitions([Source(f"f{n}.xml", text) for n, text in enumerate(texts)], known)


def xml(name: str, *children: str) -> str:
    return f'<workflow name="{name}">\n' + "\n".join(children) + "\n</workflow>"


def runnable(*children: str) -> str:
    return xml('w" run-on="vm', *children)


def step(ref: str) -> str:
    return f'<step ref="{ref}"/>'


def nested(ref: str) -> str:
    return f'<workflow ref="{ref}"/>'


def test_a_definition_lists_its_steps_in_order():
    assert parse(xml("w", step("b"), step("a")))["w"].steps == ("b", "a")


def test_a_step_says_how_patient_to_be_with_it():
    text = (
        '<workflow name="w" description="Some work."><!-- a comment is fine -->'
        '<step ref="a" timeout-s="30" retry="any" attempts="5" pause-s="2" weight="7"/>'
        '<step ref="b"/></workflow>'
    )
    definition = parse(text)["w"]
    assert definition.description == "Some work."
    assert definition.rules["a"] == StepRule(
        ref="a", timeout_s=30, retry=Retry.ANY, attempts=5, pause_s=2, weight=7
    )
    assert definition.rules["b"] == StepRule(ref="b")


def test_people_give_what_a_workflow_declares_and_nothing_else():
    w = parse(
        runnable(
            '<input name="note" required="yes" length-max="5" description="what to note"/>',
            '<input name="times" type="number" default="3"/>',
            '<input name="force" type="flag"/>',
            step("a"),
        )
    )["w"]
    assert w.arguments({"note": "x"}) == {"note": "x", "times": "3", "force": ""}
    assert w.arguments({"note": "x", "times": "-7", "force": "yes"}) == {
        "note": "x", "times": "-7", "force": "yes",
    }  # fmt: skip
    assert w.arguments({"note": "x", "force": "no"})["force"] == ""
    for given, complaint in (
        ({}, "needs the argument 'note'"),
        ({"note": ""}, "needs the argument 'note'"),
        ({"note": "123456"}, "at most 5"),
        ({"note": "a\nb"}, "printable"),
        ({"note": "x", "times": "1.5"}, "whole number"),
        ({"note": "x", "times": "٣"}, "whole number"),
        ({"note": "x", "force": "maybe"}, "yes or no"),
        ({"note": "x", "other": "y"}, "takes no argument 'other': known are force, note, times"),
    ):
        with pytest.raises(InvalidError, match=complaint):
            w.arguments(given)


def test_nested_workflows_stay_a_tree_in_whatever_order_the_files_come():
    texts = [
        xml("outer", step("a"), nested("inner"), step("e")),
        xml("inner", step("b"), nested("innermost")),
        xml("innermost", step("c"), step("d")),
    ]
    for order in (texts, texts[::-1]):
        outer = parse(*order)["outer"]
        assert outer.steps == ("a", "b", "c", "d", "e")
        assert [(inside, rule.ref) for inside, rule in outer.walk()] == [
            ((), "a"),
            (("inner",), "b"),
            (("inner", "innermost"), "c"),
            (("inner", "innermost"), "d"),
            ((), "e"),
        ]


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["<workflow"], "f0.xml, line 1: this is not XML"),
        ([""], "f0.xml, line 1: this is not XML"),
        (['<workflow name="w">\n<step ref="a"/>'], "line 2: this is not XML"),
        (['<workflow><step ref="a"/></workflow>'], "line 1: <workflow> needs the attribute 'name'"),
        ([xml("", step("a"))], "name '' is not allowed"),
        ([xml("Wrong", step("a"))], "use 1 to 63 of a-z"),
        (["<flow name='w'/>"], "root is <flow>"),
        (['<workflow name="w"/>'], "at least one"),
        ([xml("w", step("a")), xml("w", step("b"))], "f1.xml, line 1: .*defined in f0.xml already"),
        ([xml("w", step("a"), step("z"))], "f0.xml, line 3: step 'z' is unknown here: known are a, b"),
        ([xml("w", "<stage ref='a'/>")], "<stage> is unknown: use <step> or <workflow>"),
        ([xml("w", "<step/>")], "needs the attribute 'ref'"),
        ([xml("w", '<step ref="a" tries="2"/>')], "no attribute 'tries': allowed are ref, timeout-s"),
        ([xml("w", '<workflow ref="v" retry="any"/>')], "no attribute 'retry': allowed are ref$"),
        ([xml("w", '<step ref="a" retry="often"/>')], "use never, temporary, any"),
        ([xml("w", '<step ref="a" timeout-s="0"/>')], "whole number from 1 to 86400"),
        ([xml("w", '<step ref="a" attempts="101"/>')], "from 1 to 100"),
        ([xml("w", '<step ref="a" pause-s="1.5"/>')], "from 1 to 3600"),
        ([xml("w", '<step ref="a" weight="-1"/>')], "from 1 to 1000"),
        ([xml("w", step("a"), "<input/>")], "needs the attribute 'name'"),
        ([xml("w", step("a"), '<input name="i"/>')], "only a workflow with run-on has inputs"),
        ([runnable('<input name="i"/>')], "at least one <step>"),
        ([runnable('<input name="i"/>', '<input name="i"/>', step("a"))], "'i' is there twice"),
        ([runnable('<input name="i" type="number" default="x"/>', step("a"))], "whole number"),
        ([runnable('<input name="i" length-max="2" default="abc"/>', step("a"))], "at most 2"),
        ([runnable(*(f'<input name="i{n}"/>' for n in range(21)), step("a"))], "at most 20 inputs"),
        ([xml("w", "do something")], "text in <workflow>"),
        ([xml("w", '<step ref="a"><step ref="b"/></step>')], "can't be inside <step>"),
        ([xml("w", nested("other"))], "workflow 'other' is unknown here: known are w"),
        ([xml("w", nested("w"))], "contains itself"),
        ([xml("v", nested("w")), xml("w", nested("v"))], "contains itself"),
        ([xml("w", step("a"), step("a"))], "twice"),
        ([xml("w", step("a"), nested("v")), xml("v", step("a"))], "twice"),
        ([f'<workflow name="w" description="{"x" * 201}">{step("a")}</workflow>'], "at most 200"),
        ([f"<!--{'x' * 70_000}-->{xml('w', step('a'))}"], "at most 65536 bytes"),
    ],
)  # fmt: skip
def test_a_broken_definition_is_refused_with_its_place_and_what_is_allowed(texts, complaint):
    with pytest.raises(FatalError, match=complaint):
        parse(*texts)


BOMB = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "head",
    [
        f'<!DOCTYPE workflow [<!ENTITY l0 "lol">{BOMB}]>',
        '<!DOCTYPE workflow [<!ENTITY x SYSTEM "file:///etc/shadow">]>',
        '<!DOCTYPE workflow SYSTEM "http://192.0.2.1/evil.dtd">',
        '<!DOCTYPE workflow [<!ENTITY % p SYSTEM "file:///etc/shadow"> %p;]>',
        "<!DOCTYPE workflow>",
    ],
)
def test_nothing_is_expanded_or_fetched_for_a_definition(head):
    for body in (xml("w", step("a")), xml("w", "&l9;"), xml("w", "&x;")):
        with pytest.raises(FatalError, match="no DOCTYPE and no entities"):
            parse(head + "\n" + body)


def test_an_entity_without_a_declaration_is_not_xml():
    with pytest.raises(FatalError, match="not XML"):
        parse(xml("w", '<step ref="&x;"/>'))


# -- the schema


XS = "{http://www.w3.org/2001/XMLSchema}"


class Schema:
    """As much of XSD as `workflow.xsd` uses; whatever else it may use some day fails here."""

    def __init__(self) -> None:
        text = (resources.files("nodeagent.workflows") / "workflow.xsd").read_text("utf-8")
        root = ElementTree.fromstring(text)
        self.types = {t.get("name"): t for t in root if t.tag != f"{XS}element"}
        (self.root,) = (e for e in root if e.tag == f"{XS}element")

    def allows(self, text: str) -> bool:
        try:
            document = ElementTree.fromstring(text)
        except ElementTree.ParseError:
            return False
        return document.tag == self.root.get("name") and self._fits(
            document, self.types[self.root.get("type")]
        )

    def _fits(self, element, type_) -> bool:
        attributes = {a.get("name"): a for a in type_.findall(f"{XS}attribute")}
        needed = {name for name, a in attributes.items() if a.get("use") == "required"}
        choices = {e.get("name"): e for e in type_.iterfind(f"{XS}choice/{XS}element")}
        texts = [element.text, *(child.tail for child in element)]
        return (
            needed <= set(element.keys()) <= set(attributes)
            and all(
                self._is(value, self.types[attributes[name].get("type")])
                for name, value in element.items()
            )
            and not any(text and text.strip() for text in texts)
            and bool(choices) == bool(len(element))
            and all(
                child.tag in choices
                and self._fits(child, self.types[choices[child.tag].get("type")])
                for child in element
            )
        )

    def _is(self, value: str, type_) -> bool:
        (restriction,) = type_
        one_of = [f.get("value") for f in restriction if f.tag == f"{XS}enumeration"]
        if one_of:
            return value in one_of
        for facet in restriction:
            match facet.tag.removeprefix(XS), facet.get("value"):
                case "pattern", pattern:
                    if not re.fullmatch(pattern, value):
                        return False
                case "maxLength", length:
                    if len(value) > int(length):
                        return False
                case "maxInclusive", most:
                    if int(value) > int(most):
                        return False
                case other:
                    raise AssertionError(f"teach this test {other}")
        return True


VALUES = {
    "name": ["w", "w-2", "", "W", "2w", "w" * 63, "w" * 64, "a b"],
    "description": ["", "x" * 200, "x" * 201],
    "ref": ["a", "", "A", "-a"],
    "timeout-s": ["1", "86400", "86401", "0", "-1", "1.5", "", "01", "99999", "x"],
    "retry": ["never", "temporary", "any", "Any", ""],
    "attempts": ["1", "100", "101", "0"],
    "pause-s": ["1", "3600", "3601", "0"],
    "weight": ["1", "1000", "1001", "0"],
    "run-on": ["vm", "host", ""],
    "type": ["text", "number", "flag", "Text", ""],
    "required": ["yes", "no", "true", ""],
    "default": ["", "x" * 200, "x" * 201],
    "length-max": ["1", "500", "501", "0", "x"],
    "id": ["1"],
}


def documents() -> list[str]:
    """Every attribute at every place with every value, and some odd shapes."""
    found = []
    for attribute, values in VALUES.items():
        name = "" if attribute == "name" else 'name="w"'
        ref = "" if attribute == "ref" else 'ref="a"'
        for value in values:
            given = f'{attribute}="{value}"'
            found += [
                f'<workflow {name} {given}><step ref="a"/></workflow>',
                f'<workflow name="w"><step {ref} {given}/></workflow>',
            ]
            inputs = "" if attribute == "name" else 'name="i"'
            found.append(
                f'<workflow name="w" run-on="vm"><input {inputs} {given}/><step ref="a"/></workflow>'
            )
            if attribute != "ref":
                found.append(f'<workflow name="w"><workflow ref="v" {given}/></workflow>')
    return [
        *found,
        '<workflow name="w"/>',
        '<workflow><step ref="a"/></workflow>',
        '<workflow name="w"><step/></workflow>',
        '<workflow name="w">text</workflow>',
        '<workflow name="w"><step ref="a"/>text</workflow>',
        '<workflow name="w"><stage ref="a"/></workflow>',
        '<workflow name="w"><step ref="a">text</step></workflow>',
        '<workflow name="w"><step ref="a"><step ref="b"/></step></workflow>',
        '<workflow name="w"><workflow ref="v"><step ref="a"/></workflow></workflow>',
        '<step ref="a"/>',
    ]


@pytest.mark.parametrize("document", documents())
def test_the_agent_allows_what_the_schema_allows_and_nothing_else(document):
    inner = '<workflow name="v"><step ref="b"/></workflow>'
    try:
        parse(document, inner)
    except FatalError:
        allowed = False
    else:
        allowed = True
    assert allowed == Schema().allows(document)


def test_every_shipped_definition_keeps_the_schema():
    schema = Schema()
    files = [f for f in resources.files(DEFINITIONS_PACKAGE).iterdir() if f.name.endswith(".xml")]
    assert files
    for file in files:
        assert schema.allows(file.read_text("utf-8")), file.name


def test_every_shipped_definition_loads_is_described_and_every_step_is_used():
    definitions = load_registry([]).definitions
    assert set(definitions) == {
        "create-vm",
        "delete-snapshot",
        "delete-vm",
        "migrate-vm",
        "reboot-vm",
        "revert-snapshot",
        "start-vm",
        "stop-vm",
        "take-snapshot",
    }
    assert {ref for d in definitions.values() for ref in d.steps} == set(STEPS)
    assert all(d.description for d in definitions.values())


def test_every_step_is_known_to_the_journal_by_its_name_in_the_definitions():
    for name, make in STEPS.items():
        assert make(None).name == name


# -- pauses


def test_without_a_rule_what_may_pass_is_tried_for_twenty_seconds_as_the_error_asks():
    rule, error = StepRule(ref="a"), TemporaryError("away", retry_after_s=2.5)
    assert rule.pause_after(error, tries=1, spent_s=0) == 2.5
    assert rule.pause_after(error, tries=7, spent_s=17) == 2.5
    assert rule.pause_after(error, tries=8, spent_s=17.5) is None
    assert rule.pause_after(ConflictError("no"), tries=1, spent_s=0) is None


def test_a_pause_of_its_own_doubles_up_to_a_minute_and_attempts_are_counted():
    rule = StepRule(ref="a", retry=Retry.ANY, attempts=9, pause_s=3)
    pauses = [rule.pause_after(ConflictError("no"), tries=n, spent_s=1e6) for n in range(1, 10)]
    assert pauses == [3, 6, 12, 24, 48, 60, 60, 60, None]
    long = StepRule(ref="a", attempts=3, pause_s=600)
    assert long.pause_after(TemporaryError("away"), tries=2, spent_s=0) == 600


def test_a_step_that_is_never_tried_again_fails_at_once():
    rule = StepRule(ref="a", retry=Retry.NEVER, attempts=5)
    assert rule.pause_after(TemporaryError("away"), tries=1, spent_s=0) is None
