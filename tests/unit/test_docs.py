"""Hold the documents to the tree: links lead somewhere, every requirement has its row, named tests exist."""

import ast
import re
import shlex
from dataclasses import dataclass

import pytest

from tests import tidy
from tests.tidy import ROOT
from tools.cli.parser import Root, UsageError

# How many requirements each area has; ids run from 1.
REQUIREMENTS = {
    "ARC": 12, "RES": 5, "CPU": 1, "MEM": 1, "DEV": 3, "STO": 4, "DST": 10, "NET": 7, "VM": 6,
    "BM": 3, "SNP": 5, "BAK": 6, "MON": 5, "HA": 7, "SEC": 7, "API": 3, "UI": 1,
}  # fmt: skip
STATES = {"done", "partly", "not yet"}
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "packaging/**/*.md", "changes/*.md")
    for path in ROOT.glob(pattern)
)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\[[^\]\n]+\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Feature:
    """One row of docs/features.md."""

    id: str
    state: str
    text: str
    tests: tuple[str, ...]


def features() -> list[Feature]:
    rows = []
    for line in (ROOT / "docs/features.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and re.fullmatch(r"[A-Z]+-\d+", cells[0]):
            tests = tuple(t.split("::")[0] for t in re.findall(r"`(tests/[^`]+)`", cells[4]))
            rows.append(Feature(cells[0], cells[2], cells[3], tests))
    return rows


def slug(heading: str) -> str:
    """Return the anchor that a renderer makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    return {slug(m) for m in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def test_every_requirement_has_one_row_in_order():
    wanted = [f"{area}-{n}" for area, count in REQUIREMENTS.items() for n in range(1, count + 1)]
    assert [f.id for f in features()] == wanted


@pytest.mark.parametrize("feature", features(), ids=lambda f: f.id)
def test_a_feature_claims_only_what_a_test_shows(feature):
    assert feature.state in STATES
    missing = [t for t in feature.tests if not (ROOT / t).exists()]
    assert not missing, f"no such test: {missing}"
    if feature.state == "not yet":
        assert not feature.tests, "a test, but not yet?"
    else:
        assert feature.tests, "name the test that shows it"
    if feature.state == "partly":
        assert feature.text, "say what is missing"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    broken = []
    for target in LINK.findall(CODE.sub("", path.read_text())):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = (path.parent / name).resolve() if name else path
        if not there.exists() or (
            anchor and there.suffix == ".md" and anchor not in anchors(there.read_text())
        ):
            broken.append(target)
    assert not broken


def test_glossary_is_in_alphabetical_order_and_says_each_term_once():
    text = (ROOT / "docs/glossary.md").read_text()
    terms = [t.lower() for t in re.findall(r"^\*\*([^*]+)\*\*", text, re.MULTILINE)]
    assert len(terms) > 30
    assert terms == sorted(set(terms))


def test_every_document_is_reachable_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        for target in LINK.findall(CODE.sub("", path.read_text())):
            there = (path.parent / target.partition("#")[0]).resolve()
            if there.is_dir():
                waiting += there.glob("*.md")
            elif there.suffix == ".md":
                waiting.append(there)
    unreachable = {p for p in DOCUMENTS if p.parent.name != "changes"} - seen
    assert not unreachable


def test_change_fragments_are_named_by_kind():
    names = [p.name for p in (ROOT / "changes").glob("*") if p.name != "README.md"]
    bad = [
        n for n in names if not re.fullmatch(r"[a-z0-9-]+\.(feature|fix|breaking|security)\.md", n)
    ]
    assert not bad


def test_make_targets_that_documents_name_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        m
        for path in DOCUMENTS
        for m in re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", path.read_text(), re.MULTILINE)
        for m in m
        if m
    }
    assert named <= targets, named - targets


def commands() -> list[str]:
    """Return every `kvorum …` line of a code block, without prompt and comment."""
    found = []
    for path in DOCUMENTS:
        for block in re.findall(
            r"^```[a-z]*\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL
        ):
            for line in block.splitlines():
                shown = re.fullmatch(
                    r"(?:\w+# )?(kvorum (?:'[^']*'|[^#|>'])+?)\s*(?:[#|>].*)?", line
                )
                if shown:
                    found.append(shown[1])
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_commands_in_documents_are_understood(command):
    try:
        args = Root().parse(shlex.split(command)[1:])
    except UsageError as error:
        pytest.fail(str(error))
    assert hasattr(args, "run")


def test_seven_commands_lead_from_nothing_to_a_vm():
    block = re.search(
        r"```\n(h1# kvorum init\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert block
    lines = block[1].splitlines()
    assert len(lines) <= 7
    assert "kvorum vm create" in lines[-1]


def texts() -> list[str]:
    """Return every string of the product, with … for what is filled in."""
    found = []
    for source in tidy.sources(*tidy.PACKAGES):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_messages_that_troubleshooting_explains_exist():
    """So that someone who searches for the message they met finds it, word for word."""
    rows = (ROOT / "docs/troubleshooting.md").read_text().splitlines()
    quoted = [m[1] for row in rows if (m := re.match(r"\| `([^`]+)` \|", row))]
    assert len(quoted) > 20
    known = "\n".join(texts())
    missing = [message for message in quoted if message not in known]
    assert not missing


def error_codes() -> set[str]:
    """Every code that an error of the product can have: class attributes `code`, arguments `code=`."""
    found = set()
    for source in tidy.sources(*(package for package in tidy.PACKAGES if package != "tools")):
        for node in ast.walk(source.tree):
            match node:
                case ast.ClassDef(body=body):
                    values = [
                        a.value
                        for a in body
                        if isinstance(a, ast.Assign) and ast.unparse(a.targets[0]) == "code"
                    ]
                case ast.keyword(arg="code" | "error_code", value=value):
                    values = [value]
                case _:
                    continue
            found |= {
                v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)
            }
    return found


def test_every_code_of_an_error_is_explained_and_no_other():
    text = (ROOT / "docs/api.md").read_text().partition("## Errors")[2]
    rows = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    explained = set(re.findall(r"`([a-z-]+)`", " ".join((*rows, text.rpartition("\n\n")[2]))))
    from_rejections = {
        "conflict-guard",
        "conflict-claim",
        "conflict-room",
    }  # put together from the reason
    assert error_codes() | from_rejections == explained
