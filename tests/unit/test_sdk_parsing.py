"""The client's parsers: addresses, event streams, problem documents, tolerant views."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConflictError, InvalidError, UnauthenticatedError, UnavailableError
from tools.sdk.client import path_of
from tools.sdk.endpoints import LOCAL_SOCKET, Endpoint, parse_endpoints
from tools.sdk.items import Item
from tools.sdk.problems import ServerError, error_of
from tools.sdk.sse import MESSAGE_BYTES_MAX, Decoder, Message
from tools.sdk.tasks import task_of


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("h1", "https://h1:7443"),
        ("10.0.0.1:8443", "https://10.0.0.1:8443"),
        ("https://h1.example:7443/", "https://h1.example:7443"),
        ("[fd00::1]:7443", "https://[fd00::1]:7443"),
        ("fd00::1", "https://[fd00::1]:7443"),
    ],
)
def test_an_address_is_understood(text, url):
    (endpoint,) = parse_endpoints(text)
    assert endpoint.base_url == url
    assert not endpoint.local


def test_several_addresses_keep_their_order_without_doubles():
    assert [str(e) for e in parse_endpoints("h2, h1,,h2:7443")] == [
        "https://h2:7443",
        "https://h1:7443",
    ]


def test_without_an_address_the_agent_of_this_host_is_meant():
    assert parse_endpoints(" ") == (Endpoint(socket_path=LOCAL_SOCKET),)
    assert parse_endpoints("unix:/x.sock") == (Endpoint(socket_path="/x.sock"),)


@pytest.mark.parametrize(
    "text",
    [
        "http://h1",
        "h1:0",
        "h1:99999",
        "h1:ssh",
        "a b",
        "user@h1",
        "h1/v1",
        "unix:x",
        "[::1",
        ":7443",
    ],
)
def test_a_wrong_address_is_refused(text):
    with pytest.raises(InvalidError, match="address"):
        parse_endpoints(text)


STREAM = b': hello\nid: 7\nevent: vm-started\ndata: {"a":\ndata: 1}\n\nid: 9\r\ndata: x\r\n\r\ndata: y\n\nid: 11\n\n'
MESSAGES = [Message("7", '{"a":\n1}'), Message("9", "x"), Message("9", "y")]


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM)), max_size=8))
def test_an_event_stream_reads_the_same_however_it_is_cut(cuts):
    places = [0, *sorted(cuts), len(STREAM)]
    decoder = Decoder()
    found = []
    for start, end in pairwise(places):
        found += decoder.feed(STREAM[start:end])
    assert found == MESSAGES
    assert decoder.last_id == "11"


def test_a_line_without_end_is_refused():
    decoder = Decoder()
    with pytest.raises(ValueError, match="too long"):
        decoder.feed(b"x" * (MESSAGE_BYTES_MAX + 1))


def test_a_problem_document_becomes_the_error_it_means():
    body = b'{"title":"conflict","code":"name-taken","detail":"web1\\nexists","future":{}}'
    error = error_of(409, body)
    assert isinstance(error, ConflictError)
    assert (error.code, error.message) == ("name-taken", "web1 exists")
    assert isinstance(error_of(401, b"{}"), UnauthenticatedError)
    assert isinstance(error_of(503, b""), UnavailableError)
    assert isinstance(error_of(418, b"teapot"), InvalidError)


def test_an_answer_that_is_no_problem_document_still_makes_a_sentence():
    error = error_of(500, b"<html>")
    assert isinstance(error, ServerError)
    assert error.message == "the agent answered 500"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_a_view_never_fails_whatever_a_field_holds(value):
    item = Item({"x": value})
    item.text("x"), item.integer("x"), item.number("x"), item.flag("x"), item.texts("x")
    item.item("x"), item.items("x")
    assert 0 <= task_of(Item({"progress": value})).progress <= 100


def test_names_are_quoted_into_one_part_of_the_path():
    assert path_of("vms", "a/b?c") == "/v1/vms/a%2Fb%3Fc"
    for name in ("", ".", ".."):
        with pytest.raises(InvalidError):
            path_of("vms", name)
