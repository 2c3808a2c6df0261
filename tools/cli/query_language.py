r"""The language of `kvorum query`: `vms where host.cluster.name = prod and memory_mib >= 8GiB`. Pure.

    query      = COLLECTION [ "where" condition { "and" condition } ]
    condition  = ATTRIBUTE operator value | ATTRIBUTE [ "not" ] "in" list | ATTRIBUTE "is" [ "not" ] "null"
    operator   = "=" "!=" ">" ">=" "<" "<=" "~=" "like"
    list       = "(" value { "," value } ")"
    value      = a word, or anything between ' or " (\ before a sign takes it as it is)

Becomes the conditions of the HTTP API, which knows the attributes; here only the form is checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

QUERY_MAX = 8000
_COLLECTION = re.compile(r"[a-z]+(-[a-z]+)*")
_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_SIGNS = ("!?=", "?=", "~=", "!=", ">=", "<=", "=", ">", "<")
_WORD = re.compile(r"[^\s'\"(),]+")


class QueryError(Exception):
    """The query can't be read; the text says what is wrong and where."""


@dataclass(frozen=True, slots=True)
class Query:
    """A collection, and conditions as the API takes them."""

    plural: str
    conditions: tuple[str, ...] = ()


def parse_query(text: str) -> Query:
    """Return what a text asks.

    Raises:
        QueryError: it isn't a query; the message shows the place.
    """
    if len(text) > QUERY_MAX:
        raise QueryError(f"a query has at most {QUERY_MAX} characters")
    reader = _Reader(text)
    plural = reader.take(_COLLECTION, "a collection such as vms or hosts")
    if reader.at_end():
        return Query(plural)
    if not reader.word("where"):
        raise reader.error("'where' is expected here")
    conditions = [_condition(reader)]
    while not reader.at_end():
        if not reader.word("and"):
            hint = ": 'or' doesn't exist, 'in' takes several values" if reader.next_is("or") else ""
            raise reader.error(f"'and' or the end is expected here{hint}")
        conditions.append(_condition(reader))
    return Query(plural, tuple(conditions))


def _condition(reader: _Reader) -> str:
    attribute = reader.take(_ATTRIBUTE, "an attribute such as name or host.name")
    if reader.word("is"):
        negated = "!" if reader.word("not") else ""
        if not reader.word("null"):
            raise reader.error("'null' or 'not null' is expected here")
        return f"{attribute} {negated}is:null"
    if reader.word("not"):
        if not reader.word("in"):
            raise reader.error("'in' is expected here")
        return f"{attribute}!?={_list(reader)}"
    if reader.word("in"):
        return f"{attribute}?={_list(reader)}"
    if reader.word("like"):
        return f"{attribute}~={reader.value()}"
    for sign in _SIGNS:
        if reader.sign(sign):
            listed = sign in ("?=", "!?=")
            return f"{attribute}{sign}{_list(reader) if listed else reader.value()}"
    raise reader.error("an operator is expected here: = != > >= < <= ~= in, not in, is null")


def _list(reader: _Reader) -> str:
    """Read values in brackets, or a single one, or several without brackets after `?=`."""
    bracket = reader.sign("(")
    values = [reader.value()]
    while reader.sign(","):
        values.append(reader.value())
    if bracket and not reader.sign(")"):
        raise reader.error("',' or ')' is expected here")
    return ",".join(value.replace("\\", "\\\\").replace(",", "\\,") for value in values)


class _Reader:
    """Goes through a text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def at_end(self) -> bool:
        self._skip()
        return self._at == len(self._text)

    def take(self, pattern: re.Pattern[str], what: str) -> str:
        self._skip()
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self.error(f"{what} is expected here")
        self._at = found.end()
        return found[0]

    def word(self, word: str) -> bool:
        """Go past a word, in letters of either case, if it comes next."""
        found = self.next_is(word)
        self._at += len(word) if found else 0
        return found

    def next_is(self, word: str) -> bool:
        self._skip()
        end = self._at + len(word)
        following = self._text[end : end + 1]
        ends = not following.isalnum() and following != "_"
        return ends and self._text[self._at : end].lower() == word

    def sign(self, sign: str) -> bool:
        self._skip()
        if not self._text.startswith(sign, self._at):
            return False
        self._at += len(sign)
        return True

    def value(self) -> str:
        self._skip()
        quote = self._text[self._at : self._at + 1]
        if quote in ("'", '"'):
            return self._quoted(quote)
        return self.take(_WORD, "a value (in quotes, if it has spaces)")

    def _quoted(self, quote: str) -> str:
        start, signs = self._at, list[str]()
        self._at += 1
        while self._at < len(self._text):
            sign = self._text[self._at]
            self._at += 1
            if sign == quote:
                return "".join(signs)
            if sign == "\\" and self._at < len(self._text):
                sign = self._text[self._at]
                self._at += 1
            signs.append(sign)
        self._at = start
        raise self.error("this quote is never closed")

    def _skip(self) -> None:
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1

    def error(self, what: str) -> QueryError:
        before, after = self._text[max(0, self._at - 60) : self._at], self._text[self._at :][:60]
        return QueryError(f"{what} (character {self._at + 1}): {before}<HERE>{after}")
