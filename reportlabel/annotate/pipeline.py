"""The steps of annotation as spaCy components, so that components of your own can stand between them.

    text -> normalise -> sentences -> findings -> assertion -> attributes -> context -> doc.spans["findings"]

Every component publishes its part of what :class:`~reportlabel.annotate.annotator.Annotator` works out, and the last
one joins the sentences. It reads what stands in ``doc.spans["findings"]`` by then: a finding that was dropped hands
nothing on to later sentences, and a status that was changed counts. Untouched, the mentions are those of the batch
path.
"""

# No postponed annotations here: spaCy validates the configuration of a component by the types of its factory.

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span

from reportlabel.annotate import context
from reportlabel.annotate.annotator import Annotator
from reportlabel.annotate.attached import (
    FINDINGS,
    FOUND,
    SECTIONS,
    Record,
    add_finding,
    mentions_of,
    needed,
    record_of,
    register_extensions,
    sentences_of,
    set_sentences,
    take_findings,
)
from reportlabel.annotate.attributes import longest_diameter
from reportlabel.annotate.sections import Sentence
from reportlabel.annotate.sentence import Analysis, Found
from reportlabel.annotate.tokenizer import FugashiTokenizer
from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import load_rules

__all__ = ["COMPONENTS", "FugashiTokenizer", "add_finding", "load", "mentions_of"]

COMPONENTS = (
    "reportlabel_normalise",
    "reportlabel_sentences",
    "reportlabel_findings",
    "reportlabel_assertion",
    "reportlabel_attributes",
    "reportlabel_context",
)

register_extensions()


def load(*, rules: Path | None = None, region: str | None = None) -> Language:
    """A spaCy pipeline that finds, in Japanese radiology reports, what the rules know.

    Args:
        rules: a rules folder (default: the one that came with the package).
        region: region of ``rules/anatomy.yaml`` whose default site holds where a report names none.

    Returns:
        The pipeline; results are ``doc.spans["findings"]`` with ``span._.status`` and the other columns of the
        mentions table. Offsets of the characters are ``span._.start`` and ``span._.end``; the span itself covers
        whole tokens.

    Raises:
        ConfigError: wrong rules or unknown region.
    """
    nlp = spacy.blank("xx", config={"nlp": {"tokenizer": {"@tokenizers": "reportlabel.fugashi.v1"}}})
    folder = None if rules is None else str(rules.resolve())
    for name in COMPONENTS:
        own = {"region": region} if name == "reportlabel_context" else {}
        nlp.add_pipe(name, config={"rules": folder, **own})
    return nlp


# --- what the components share


class Engine:
    """An annotator that several components share. A copy in another process is built from the rules again."""

    def __init__(self, rules: str | None) -> None:
        self.rules = rules
        self.annotator = Annotator(load_rules(None if rules is None else Path(rules)))

    def __reduce__(self) -> tuple[type["Engine"], tuple[str | None]]:
        return Engine, (self.rules,)

    def analyses(self, doc: Doc, sentences: list[Sentence]) -> list[Analysis]:
        """What each sentence says by itself. The annotator remembers sentences, so asking again costs little."""
        normalised: str = needed(doc, "normalised", by="reportlabel_normalise")
        return [
            self.annotator.analysis(normalised[sentence.start : sentence.end], sentence.topic) for sentence in sentences
        ]


_engines: WeakKeyDictionary[Language, dict[str | None, Engine]] = WeakKeyDictionary()


def _engine(nlp: Language, rules: str | None) -> Engine:
    engines = _engines.setdefault(nlp, {})
    if rules not in engines:
        engines[rules] = Engine(rules)
    return engines[rules]


# --- the components, in order


class Normalise:
    """Sets ``doc._.normalised``: the text in the spelling of the rules, of the same length."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, doc: Doc) -> Doc:
        self.engine.annotator.make_room()
        doc._.normalised = self.engine.annotator.normaliser(doc.text)
        return doc


class Sentences:
    """Sets ``doc._.sentences``, the starts of sentences, and ``doc.spans["sections"]`` (the label is the section)."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, doc: Doc) -> Doc:
        normalised: str = needed(doc, "normalised", by="reportlabel_normalise")
        sentences = self.engine.annotator.split(normalised)
        set_sentences(doc, sentences)
        starts = {_covered(doc, start, start + 1).start for start in _starts(normalised, sentences)}
        _start_sentences(doc, {0, *starts})
        doc.spans[SECTIONS] = [_covered(doc, start, end, label=section) for start, end, section in _sections(sentences)]
        return doc


def _start_sentences(doc: Doc, starts: set[int]) -> None:
    """Mark the tokens that begin a sentence, all at once: one by one, spaCy looks at the whole text each time."""
    if len(doc):
        flags = np.fromiter((1 if at in starts else -1 for at in range(len(doc))), dtype=np.int64, count=len(doc))
        doc.from_array(["SENT_START"], flags.astype(np.uint64))  # type: ignore[arg-type] # one attribute, one column


def _covered(doc: Doc, start: int, end: int, *, label: str = "") -> Span:
    span = doc.char_span(start, end, label=label, alignment_mode="expand")
    assert span is not None
    return span


def _starts(text: str, sentences: list[Sentence]) -> Iterator[int]:
    """Where sentences begin, and the headings between them."""
    at = 0
    for sentence in sentences:
        between = text[at : sentence.start]
        if between and not between.isspace():
            yield at + len(between) - len(between.lstrip())
        yield sentence.start
        at = sentence.end
    rest = text[at:]
    if rest and not rest.isspace():
        yield at + len(rest) - len(rest.lstrip())


def _sections(sentences: list[Sentence]) -> Iterator[tuple[int, int, str]]:
    """Runs of sentences in the same section."""
    run: list[Sentence] = []
    for sentence in sentences:
        if run and run[0].section != sentence.section:
            yield run[0].start, run[-1].end, run[0].section
            run = []
        run.append(sentence)
    if run:
        yield run[0].start, run[-1].end, run[0].section


class Findings:
    """Sets ``doc.spans["findings"]``: everything a sentence states something of, with finding, rule and section."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, doc: Doc) -> Doc:
        sentences = sentences_of(doc)
        if FINDINGS not in doc.spans:
            doc.spans[FINDINGS] = []
        analyses = self.engine.analyses(doc, sentences)
        for number, (sentence, analysis) in enumerate(zip(sentences, analyses, strict=True)):
            for index, found in enumerate(analysis.found):
                start, end = sentence.start + found.start, sentence.start + found.end
                add_finding(
                    doc,
                    start,
                    end,
                    found.finding,
                    status=None,
                    temporality=None,
                    rule_id=found.rule_id,
                    section=sentence.section,
                    sentence=number,
                    found=index,
                )
        return doc


class Assertion:
    """Sets status, temporality and cue of every finding that has no status yet."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, doc: Doc) -> Doc:
        for record, _, found in _found_in(doc, self.engine):
            if record["status"] is None:
                record.update(status=found.status, temporality=found.temporality, cue=found.cue or None)
        return doc


class Attributes:
    """Sets size, count, change and image reference of every finding, as far as its own sentence gives them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, doc: Doc) -> Doc:
        normalised: str = needed(doc, "normalised", by="reportlabel_normalise")
        for record, sentence, found in _found_in(doc, self.engine):
            record.update(
                size_mm=self._size(normalised[sentence.start : sentence.end], found),
                count=found.count,
                change=found.change,
                image_ref=found.image,
            )
        return doc

    def _size(self, sentence: str, found: Found) -> float | None:
        if found.size is None:
            return None
        start, end = found.size
        return longest_diameter(sentence[start:end], self.engine.annotator.grammar.attributes)


def _found_in(doc: Doc, engine: Engine) -> Iterator[tuple[Record, Sentence, Found]]:
    """The findings of the rules that still stand, each with its sentence and what that says of it."""
    sentences = sentences_of(doc)
    analyses = engine.analyses(doc, sentences)
    for span in doc.spans.get(FINDINGS, ()):
        record = record_of(span)
        if record is not None and record[FOUND] is not None:
            yield record, sentences[record["sentence"]], analyses[record["sentence"]].found[record[FOUND]]


class Context:
    """Joins the sentences: sites handed on, sizes given later, generic words resolved at their sites.

    Findings that a component of yours added keep what it gave them; only their temporality follows the section.
    """

    def __init__(self, engine: Engine, region: str | None) -> None:
        self.engine = engine
        self.region = region
        regions = [known.id for known in engine.annotator.rules.anatomy.regions]
        if region is not None and region not in regions:
            raise ConfigError(f"unknown region '{region}'; rules/anatomy.yaml has {', '.join(sorted(regions))}")

    def __reduce__(self) -> tuple[type["Context"], tuple[Engine, str | None]]:
        return Context, (self.engine, self.region)

    def __call__(self, doc: Doc) -> Doc:
        normalised: str = needed(doc, "normalised", by="reportlabel_normalise")
        sentences = sentences_of(doc)
        kept: list[dict[int, Record]] = [{} for _ in sentences]
        joined: list[Record] = []
        for record in take_findings(doc):
            if record["status"] is None:
                raise ConfigError("a finding has no status: put 'reportlabel_assertion' before 'reportlabel_context'")
            if record[FOUND] is None:
                joined.append(record | {"temporality": self._temporality(record)})
            else:
                kept[record["sentence"]][record[FOUND]] = record
        analyses = [
            replace(analysis, found=tuple(self._as_it_stands(analysis, number, records)))
            for number, (analysis, records) in enumerate(zip(self.engine.analyses(doc, sentences), kept, strict=True))
        ]
        own = len(joined)
        joined += self._in_context(normalised, sentences, analyses, kept)
        for record in sorted(joined, key=_place) if own else joined:
            add_finding(doc, **record)
        return doc

    def _as_it_stands(self, analysis: Analysis, number: int, records: dict[int, Record]) -> Iterator[Found]:
        """The findings of a sentence without those that were dropped, with the values that were changed.

        The annotator hands ``rule_id`` through; here it carries which record a row comes from.
        """
        grammar = self.engine.annotator.grammar
        for index, found in enumerate(analysis.found):
            # the head of a compound stands in for it, and goes with it
            if index not in records or (found.stands_in and index - 1 not in records):
                continue
            record = records[index]
            finding, status = record["finding"], record["status"]
            renamed, changed = finding != found.finding, (finding, status) != (found.finding, found.status)
            yield replace(
                found,
                finding=finding,
                status=status,
                carrier=finding in grammar.carriers and status != "absent" if changed else found.carrier,
                inherits=finding in grammar.inherits if renamed else found.inherits,
                handed=found.place if renamed else found.handed,
                rule_id=f"{number}/{index}",
                temporality=record["temporality"] or found.temporality,
                cue=record["cue"] or "",
                size=None if record["size_mm"] is None else found.size,
                count=record["count"],
                change=record["change"],
                image=record["image_ref"],
            )

    def _in_context(
        self,
        normalised: str,
        sentences: list[Sentence],
        analyses: list[Analysis],
        kept: list[dict[int, Record]],
    ) -> Iterator[Record]:
        annotator = self.engine.annotator
        # The annotator's own context knows findings by identity, and these copies end with the report.
        joiner = context.Context(annotator.rules, annotator.grammar)
        rows = joiner.rows(
            "",
            normalised,
            normalised,
            sentences=sentences,
            analyses=analyses,
            default_site=annotator.default_site(self.region),
        )
        for row in rows:
            values = row._asdict()
            number, index = row.rule_id.split("/")
            record = kept[int(number)][int(index)]
            # what a component has set by hand stays
            given = {name: record[name] for name in _GIVEN if record[name] is not None}
            yield record | {name: values[name] for name in record.keys() & values.keys()} | given | {FOUND: None}

    def _temporality(self, record: Record) -> str | None:
        asserts = {section.id: section.asserts for section in self.engine.annotator.rules.sections.sections}
        temporality: str | None = {"none": "hypothetical", "past": "past"}.get(
            asserts.get(record["section"], "current"), record["temporality"]
        )
        return temporality


_GIVEN = ("rule_id", "site", "side", "lobe", "size_mm")


def _place(record: Record) -> tuple[int, int]:
    return record["sentence"], record["start"]


# --- the factories: what a configuration names


@Language.factory("reportlabel_normalise", default_config={"rules": None}, assigns=["doc._.normalised"])
def make_normalise(nlp: Language, name: str, rules: str | None) -> Normalise:  # noqa: ARG001 - spaCy passes the name
    """Factory of :class:`Normalise`."""
    return Normalise(_engine(nlp, rules))


@Language.factory(
    "reportlabel_sentences",
    default_config={"rules": None},
    requires=["doc._.normalised"],
    assigns=["doc._.sentences", "token.is_sent_start"],
)
def make_sentences(nlp: Language, name: str, rules: str | None) -> Sentences:  # noqa: ARG001 - spaCy passes the name
    """Factory of :class:`Sentences`."""
    return Sentences(_engine(nlp, rules))


@Language.factory(
    "reportlabel_findings",
    default_config={"rules": None},
    requires=["doc._.normalised", "doc._.sentences"],
    assigns=[
        "doc.spans",
        *(f"span._.{name}" for name in ("start", "end", "finding", "rule_id", "section", "sentence")),
    ],
)
def make_findings(nlp: Language, name: str, rules: str | None) -> Findings:  # noqa: ARG001 - spaCy passes the name
    """Factory of :class:`Findings`."""
    return Findings(_engine(nlp, rules))


@Language.factory(
    "reportlabel_assertion",
    default_config={"rules": None},
    requires=["doc.spans", "span._.finding"],
    assigns=["span._.status", "span._.temporality", "span._.cue"],
)
def make_assertion(nlp: Language, name: str, rules: str | None) -> Assertion:  # noqa: ARG001 - spaCy passes the name
    """Factory of :class:`Assertion`."""
    return Assertion(_engine(nlp, rules))


@Language.factory(
    "reportlabel_attributes",
    default_config={"rules": None},
    requires=["doc.spans", "span._.finding"],
    assigns=["span._.size_mm", "span._.count", "span._.change", "span._.image_ref"],
)
def make_attributes(nlp: Language, name: str, rules: str | None) -> Attributes:  # noqa: ARG001 - spaCy passes the name
    """Factory of :class:`Attributes`."""
    return Attributes(_engine(nlp, rules))


@Language.factory(
    "reportlabel_context",
    default_config={"rules": None, "region": None},
    requires=["doc.spans", "span._.status", "span._.temporality", "span._.size_mm"],
    assigns=["span._.site", "span._.side", "span._.lobe"],
)
def make_context(nlp: Language, name: str, rules: str | None, region: str | None) -> Context:  # noqa: ARG001 - spaCy passes the name
    """Factory of :class:`Context`."""
    return Context(_engine(nlp, rules), region)
