"""What the pipeline attaches to a spaCy ``Doc``: the normalised text, the sentences, and the findings.

Two findings may cover the same tokens (one word that stands for two organs), and spaCy keeps custom attributes by
token span. The attributes of a finding are therefore kept by the id of its span, and read and written through
``span._``. Everything is plain data, so that a ``Doc`` can be stored or sent to another process.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from typing import Any

from spacy.tokens import Doc, Span

from reportlabel.annotate.annotator import Row
from reportlabel.annotate.sections import BODY, Sentence
from reportlabel.errors import ConfigError
from reportlabel.schema import MENTIONS

FINDINGS = "findings"
SECTIONS = "sections"
_RECORDS = "reportlabel_findings"
_OFFSETS = ("start", "end")
_COLUMNS = tuple(name for name in MENTIONS if name not in ("report_id", "surface"))
# Which finding of its sentence a record is, until the sentences are joined; nothing that a user needs.
FOUND = "found"

Record = dict[str, Any]


def register_extensions() -> None:
    """Register ``doc._.normalised``, ``doc._.sentences`` and the ``span._`` attributes; again does nothing.

    Raises:
        ConfigError: another package has registered one of the names.
    """
    for name in ("normalised", "sentences"):
        if not Doc.has_extension(name):
            Doc.set_extension(name, default=None)
    for name in _COLUMNS:
        if not Span.has_extension(name):
            Span.set_extension(name, getter=partial(_read, name=name), setter=partial(_write, name=name))
        elif getattr(getattr(Span.get_extension(name)[2], "func", None), "__module__", None) != __name__:
            raise ConfigError(
                f"the spaCy attribute 'span._.{name}' is already registered by something else; "
                "load reportlabel first, or give the other attribute another name"
            )


def _read(span: Span, *, name: str) -> Any:
    record = record_of(span)
    if record is None:
        return None
    return span.label_ if name == "finding" else record[name]


def _write(span: Span, value: Any, *, name: str) -> None:
    record = record_of(span)
    if record is None:
        raise ValueError(f"'span._.{name}' can be set on findings only; make one with add_finding")
    if name in _OFFSETS:
        raise ValueError(f"'span._.{name}' cannot be changed; drop the span and add another one with add_finding")
    if name == "finding":
        span.label_ = value
    else:
        record[name] = value


def set_sentences(doc: Doc, sentences: list[Sentence]) -> None:
    """Keep the sentences of a report."""
    doc._.sentences = [tuple(sentence) for sentence in sentences]


def sentences_of(doc: Doc) -> list[Sentence]:
    """The sentences of a report.

    Raises:
        ConfigError: no component has found them yet.
    """
    return [Sentence(*sentence) for sentence in needed(doc, "sentences", by="reportlabel_sentences")]


def needed(doc: Doc, name: str, *, by: str) -> Any:
    """The attribute ``doc._.<name>``, or an error that says which component must come before."""
    value = doc._.get(name)
    if value is None:
        raise ConfigError(f"a component needs 'doc._.{name}': put '{by}' before it in the pipeline")
    return value


def add_finding(doc: Doc, start: int, end: int, finding: str, *, status: str | None = "present", **fields: Any) -> Span:
    """Add a finding to ``doc.spans["findings"]``; its span covers every token that the characters touch.

    Args:
        start, end: code points of the report, end exclusive.
        finding: its id; also the label of the span.
        fields: any other column of the mentions table.

    Raises:
        ValueError: offsets outside the text or an unknown column.
    """
    unknown = fields.keys() - {*_COLUMNS, FOUND}
    if unknown:
        raise ValueError(f"unknown column '{min(unknown)}'; there are {', '.join(_COLUMNS)}")
    records = doc.user_data.setdefault(_RECORDS, {})
    span = _span(doc, start, end, finding, f"finding-{len(records)}")
    records[span.id_] = _record(doc, start, end, finding) | {"status": status} | fields
    if FINDINGS not in doc.spans:
        doc.spans[FINDINGS] = []
    doc.spans[FINDINGS].append(span)
    return span


def _span(doc: Doc, start: int, end: int, label: str, span_id: str) -> Span:
    span = doc.char_span(start, end, label=label, span_id=span_id, alignment_mode="expand") if start < end else None
    if span is None:
        raise ValueError(f"a finding cannot lie at {start}-{end}: not in the text, or empty")
    return span


def _record(doc: Doc, start: int, end: int, finding: str) -> Record:
    record: Record = dict.fromkeys((*_COLUMNS, FOUND))
    number, section = _sentence_at(doc, start)
    record.update(
        start=start, end=end, finding=finding, temporality="current", rule_id="", section=section, sentence=number
    )
    return record


def _sentence_at(doc: Doc, at: int) -> tuple[int, str]:
    sentences = doc._.sentences or []
    number = max(0, bisect_right(sentences, at, key=_start) - 1)
    return number, sentences[number][2] if sentences else BODY


def _start(sentence: tuple[int, ...]) -> int:
    return sentence[0]


def record_of(span: Span) -> Record | None:
    """All attributes of a finding; ``None`` for any other span."""
    record: Record | None = span.doc.user_data.get(_RECORDS, {}).get(span.id_)
    return record


def take_findings(doc: Doc) -> list[Record]:
    """Take all findings off the report."""
    taken = [_record_or_usual(span) for span in doc.spans.get(FINDINGS, ())]
    doc.user_data.pop(_RECORDS, None)
    doc.spans[FINDINGS] = []
    return taken


def _record_or_usual(span: Span) -> Record:
    """The attributes of a finding; a span that was made by hand gets the usual ones."""
    record = record_of(span)
    if record is None:
        record = _record(span.doc, span.start_char, span.end_char, span.label_) | {"status": "present"}
    return record | {"finding": span.label_}


def mentions_of(doc: Doc, *, report_id: str = "") -> list[Row]:
    """The findings of a report as rows of the mentions table, equal to those of ``Annotator.mentions``."""
    text = doc.text
    rows = []
    for span in doc.spans.get(FINDINGS, ()):
        values = _record_or_usual(span)
        values |= {"report_id": report_id, "surface": text[values["start"] : values["end"]]}
        rows.append(Row(**{name: values[name] for name in MENTIONS}))
    return rows
