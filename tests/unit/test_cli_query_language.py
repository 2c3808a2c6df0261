"""The query language of the command: what it becomes for the API, and where it says a mistake is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftstate.state.query import Op
from raftstate.state.query_text import split, split_list
from tools.cli.query_language import Query, QueryError, parse_query


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("vms", []),
        ("vms where name=web1", ["name=web1"]),
        ("vms  WHERE name = web1 AND cpus >= 2", ["name=web1", "cpus>=2"]),
        ("vms where a.b.c!=x and d<1 and e<=2 and f>3", ["a.b.c!=x", "d<1", "e<=2", "f>3"]),
        ("vms where name ~= web* and name like 'a b?'", ["name~=web*", "name~=a b?"]),
        ("vms where name in (a, 'b,c', \"d\")", [r"name?=a,b\,c,d"]),
        ("vms where name not in (a)", ["name!?=a"]),
        ("vms where name ?= a,b and x !?= c", ["name?=a,b", "x!?=c"]),
        ("vms where host is null and x is not null", ["host is:null", "x !is:null"]),
        ("vms where description = ''", ["description="]),
        ("vms where name = x=y", ["name=x=y"]),
        (r"vms where name = 'it\'s \\'", [r"name=it's " + "\\"]),
        ("vms where android = and and inside = in", ["android=and", "inside=in"]),
        ("vms where created_ms > 2026-11-24T16:00:00Z", ["created_ms>2026-11-24T16:00:00Z"]),
        ("vms\nwhere\tname = 'ü 😀'", ["name=ü 😀"]),
    ],
)
def test_what_is_written_becomes_conditions_of_the_api(text, conditions):
    assert parse_query(text) == Query("vms", tuple(conditions))


@pytest.mark.parametrize(
    ("text", "says", "place"),
    [
        ("", "a collection", 1),
        ("42", "a collection", 1),
        ("vms name=x", "'where'", 5),
        ("vms where", "an attribute", 10),
        ("vms where = x", "an attribute", 11),
        ("vms where name", "an operator", 15),
        ("vms where name x", "an operator", 16),
        ("vms where name =", "a value", 17),
        ("vms where name = , x", "a value", 18),
        ("vms where name = a b", "'and' or the end", 20),
        ("vms where name = a and", "an attribute", 23),
        ("vms where name = a or x = b", "'or' doesn't exist", 20),
        ("vms where name = 'a", "never closed", 18),
        ("vms where name in (a", "',' or ')'", 21),
        ("vms where name in ()", "a value", 20),
        ("vms where name not x", "'in' is expected", 20),
        ("vms where name is x", "'null'", 19),
        ("vms where name is not x", "'null'", 23),
    ],
)
def test_a_mistake_is_shown_at_its_place(text, says, place):
    with pytest.raises(QueryError) as refused:
        parse_query(text)
    assert says in str(refused.value)
    assert f"(character {place}): {text[: place - 1]}<HERE>{text[place - 1 :]}" in str(
        refused.value
    )


def test_an_endless_query_is_refused():
    with pytest.raises(QueryError, match="at most"):
        parse_query("vms where name = " + "x" * 8000)


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@given(st.text(max_size=20), st.lists(st.text(max_size=5), min_size=1, max_size=3))
def test_any_value_in_quotes_reaches_the_agent_as_it_is(value, several):
    listed = ", ".join(map(quoted, several))
    query = parse_query(f"vms where a = {quoted(value)} and b in ({listed})")
    equal, among = query.conditions
    assert split(equal) == ("a", Op.EQ, value)
    name, op, texts = split(among)
    assert (name, op, split_list(texts)) == ("b", Op.IN, several)


@given(st.text(max_size=60))
def test_any_text_is_a_query_or_a_mistake(text):
    said = "<HERE>"
    try:
        parse_query(f"vms where {text}")
    except QueryError as error:
        said = str(error)
    assert "<HERE>" in said
