"""Sentences with slots, choices and marked findings: the language in which the phrase bank is written.

    {slot}            a value: an attribute of the lesion, a word list of the file, a predicate of the reader
    <a|b|c>           one of these
    {=P/Q/R}          by register: polite, plain, terse
    [id phrase]       a finding, present;  [?id …] uncertain;  [-id …] absent;  [~id …] as the {judge} after it says
    [=id text]        a value label (a grade, a category)
    [@kind text]      something that identifies

A template is read once and written many times, so it is compiled into nested tuples.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

REGISTERS = ("polite", "plain", "terse")
PRESENT, UNCERTAIN, ABSENT, VALUE, IDENTIFIER = "present", "uncertain", "absent", "value", "identifier"
JUDGED = "judged"
_STATUS = {"?": UNCERTAIN, "-": ABSENT, "~": JUDGED, "=": VALUE, "@": IDENTIFIER}
_ID = re.compile(r"[a-z][a-z0-9_]*")


class TemplateError(ValueError):
    """A template that cannot be read; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Text:
    """Words as they stand."""

    text: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A value that is known only when the sentence is written."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several sequences."""

    options: tuple[Sequence_, ...]


@dataclass(frozen=True, slots=True)
class ByRegister:
    """Words by register: polite, plain, terse."""

    forms: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Marked:
    """A marked expression: a finding with its status, a value or an identifier."""

    id: str
    status: str
    body: Sequence_


Node = Text | Slot | Choice | ByRegister | Marked
Sequence_ = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled sentence, with what it can say."""

    source: str
    body: Sequence_
    slots: frozenset[str]
    marks: frozenset[tuple[str, str]]
    """(status, id) of every marked expression."""

    def ids(self, *statuses: str) -> frozenset[str]:
        """The ids marked with one of these statuses."""
        return frozenset(id_ for status, id_ in self.marks if status in statuses)


def compile_template(source: str, words: Mapping[str, Sequence[str]]) -> Template:
    """Read a template.

    Args:
        words: the word lists of the file; a slot of that name becomes a choice of its words.

    Raises:
        TemplateError: an unclosed or empty bracket, an id that is none, a word list that uses itself.
    """
    body = _Reader(source, words).read()
    nodes = list(_walk(body))
    return Template(
        source=source,
        body=body,
        slots=frozenset(node.name for node in nodes if isinstance(node, Slot)),
        marks=frozenset((node.status, node.id) for node in nodes if isinstance(node, Marked)),
    )


def _walk(body: Sequence_) -> Iterator[Node]:
    for node in body:
        yield node
        if isinstance(node, Marked):
            yield from _walk(node.body)
        elif isinstance(node, Choice):
            for option in node.options:
                yield from _walk(option)


class _Reader:
    """Recursive descent over one template."""

    def __init__(self, source: str, words: Mapping[str, Sequence[str]], inside: frozenset[str] = frozenset()) -> None:
        self._source = source
        self._words = words
        self._inside = inside
        self._at = 0

    def read(self) -> Sequence_:
        body = self._sequence("")
        if self._at < len(self._source):
            raise self._error(f"{self._source[self._at]!r} closes nothing")
        return body

    def _sequence(self, stops: str) -> Sequence_:
        nodes: list[Node] = []
        plain = self._at
        while self._at < len(self._source):
            char = self._source[self._at]
            if char in "|>]}":
                if char not in stops:
                    raise self._error(f"{char!r} closes nothing")
                break
            if char not in "<[{":
                self._at += 1
                continue
            self._keep(nodes, plain)
            self._at += 1
            nodes.extend({"<": self._choice, "[": self._marked, "{": self._slot}[char]())
            plain = self._at
        self._keep(nodes, plain)
        return tuple(nodes)

    def _keep(self, nodes: list[Node], plain: int) -> None:
        if self._at > plain:
            nodes.append(Text(self._source[plain : self._at]))

    def _choice(self) -> list[Node]:
        options = [self._sequence("|>")]
        while self._take("|"):
            options.append(self._sequence("|>"))
        self._close(">")
        return [Choice(tuple(options))]

    def _marked(self) -> list[Node]:
        status = _STATUS.get(self._source[self._at : self._at + 1], PRESENT)
        self._at += status != PRESENT
        name = _ID.match(self._source, self._at)
        if name is None or self._source[name.end() : name.end() + 1] != " ":
            raise self._error("a bracket begins with a finding id and a blank")
        self._at = name.end() + 1
        body = self._sequence("]")
        self._close("]")
        if not body:
            raise self._error("a bracket without words")
        return [Marked(name.group(), status, body)]

    def _slot(self) -> list[Node]:
        end = self._source.find("}", self._at)
        if end < 0:
            raise self._error("'{' is not closed")
        inner = self._source[self._at : end]
        self._at = end + 1
        if inner.startswith("="):
            forms = inner[1:].split("/")
            if len(forms) != len(REGISTERS):
                raise self._error("{=polite/plain/terse} has three forms")
            return [ByRegister((forms[0], forms[1], forms[2]))]
        if not _ID.fullmatch(inner):
            raise self._error(f"{{{inner}}} is no slot")
        if inner not in self._words:
            return [Slot(inner)]
        if inner in self._inside:
            raise self._error(f"the word list {inner} uses itself")
        inside = self._inside | {inner}
        options = tuple(_Reader(word, self._words, inside).read() for word in self._words[inner])
        return [Choice(options)]

    def _take(self, char: str) -> bool:
        found = self._source.startswith(char, self._at)
        self._at += found
        return found

    def _close(self, char: str) -> None:
        if not self._take(char):
            raise self._error(f"{char!r} is missing")

    def _error(self, problem: str) -> TemplateError:
        return TemplateError(f"{problem}, at character {self._at + 1} of: {self._source}")


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Mark:
    """A marked expression as it was written: offsets in the text so far."""

    start: int
    end: int
    id: str
    status: str
    surface: str
    state: str | None
    side: str | None
    size_mm: float | None


@dataclass(slots=True)
class Pen:
    """Writes templates one after another into one text and keeps where the marked expressions stand.

    Attributes:
        value_of: gives the words of a slot; called in the order of the text.
        register: index into REGISTERS.
        firm: how {judge} decides for the sentence that is being written.
        used: slots that the sentence has used.
    """

    chance: random.Random
    value_of: Callable[[str], str]
    register: int = 0
    firm: bool = True
    state: str | None = None
    pieces: list[str] = field(default_factory=list)
    length: int = 0
    marks: list[Mark] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def text(self) -> str:
        """All that was written."""
        return "".join(self.pieces)

    def put(self, words: str) -> None:
        """Write words as they stand."""
        self.pieces.append(words)
        self.length += len(words)

    def write(self, body: Sequence_) -> None:
        """Write a compiled sequence."""
        for node in body:
            kind = type(node)
            if kind is Text:
                self.put(node.text)  # type: ignore[union-attr]
            elif kind is Slot:
                self.used.add(node.name)  # type: ignore[union-attr]
                self.put(self.value_of(node.name))  # type: ignore[union-attr]
            elif kind is Choice:
                options = node.options  # type: ignore[union-attr]
                self.write(options[int(self.chance.random() * len(options))])
            elif kind is ByRegister:
                self.put(node.forms[self.register])  # type: ignore[union-attr]
            else:
                self._mark(node)  # type: ignore[arg-type]

    def _mark(self, node: Marked) -> None:
        start, piece = self.length, len(self.pieces)
        self.write(node.body)
        status = node.status
        if status == JUDGED:
            status = PRESENT if self.firm else UNCERTAIN
        surface = "".join(self.pieces[piece:])
        if surface:
            self.marks.append(Mark(start, self.length, node.id, status, surface, self.state, None, None))
