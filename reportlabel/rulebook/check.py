"""Problems of a rules folder that each file alone does not show: wrong references, duplicates, words without effect.

Whether a word has an effect is not guessed from its letters: it is looked up in the compiled words, by the functions
that read reports.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import polars as pl

from reportlabel.annotate.annotator import Annotator
from reportlabel.annotate.lexicon import Entry, Lexicon, build_lexicon, conjugate, normal_term
from reportlabel.annotate.match import Hits, find
from reportlabel.annotate.normalise import Normaliser
from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import FindingFile, Rulebook
from reportlabel.rulebook.models import Effect, LabelSet, NormaliseRules
from reportlabel.rulebook.read_yaml import Document, Location, read_yaml
from reportlabel.schema import MENTIONS
from reportlabel.vote.values import value_labels

MIN_EXAMPLES = 8
MIN_OTHER_SHARE = 1 / 3
"""The least share of examples whose status is not ``present``."""


@dataclass(frozen=True, order=True, slots=True)
class Problem:
    """One problem and where it stands; ``line`` counts from 1."""

    path: Path
    line: int
    code: str
    message: str


def check_rules(rules: Rulebook) -> list[Problem]:
    """All problems of a rulebook, in order of files and lines; a clean one gives none.

    Words are looked up only where all of them can be compiled: a verb of an unknown class, a broken character table or
    a site within itself comes alone.
    """
    documents = _documents(rules)
    problems = {
        *_compile_problems(rules, documents),
        *_site_cycles(rules),
    }
    if not problems:
        problems = {*_word_problems(rules), *_cue_problems(rules, documents["assertion"])}
    return sorted(
        {
            *problems,
            *_reference_problems(rules, documents),
            *_finding_cycles(rules),
            *_spelling_problems(rules.normalise, documents["normalise"]),
            *_finding_problems(rules),
            *_label_set_problems(rules),
        }
    )


def _documents(rules: Rulebook) -> dict[str, Document]:
    names = {
        "assertion": "assertion.yaml",
        "context": "context.yaml",
        "normalise": "normalise.yaml",
        "primary_tumour": "staging/primary_tumour.yaml",
    }
    return {name: read_yaml(rules.folder / file) for name, file in names.items()}


def _problem(document: Document, location: Location, code: str, message: str) -> Problem:
    return Problem(document.path, document.line(location), code, message)


# --- what keeps the words from being compiled ---------------------------------------------------------------------


def _compile_problems(rules: Rulebook, documents: Mapping[str, Document]) -> Iterator[Problem]:
    characters = rules.normalise.characters
    for source, target in characters.items():
        where = (documents["normalise"], ("characters", source), "wrong_character")
        if len(source) != 1 or len(target) != 1:
            yield _problem(*where, f"'{source}' -> '{target}': each side must be one character, so that offsets stay")
        elif characters.get(target, target) != target:
            yield _problem(*where, f"'{source}' -> '{target}', which is itself replaced by '{characters[target]}'")
    for at, verb in enumerate(rules.assertion.verbs):
        if verb.paradigm not in rules.assertion.paradigms:
            message = f"verb '{verb.stem}': unknown class '{verb.paradigm}'" + _nearest(
                verb.paradigm, rules.assertion.paradigms
            )
            yield _problem(documents["assertion"], ("verbs", at, "class"), "unknown_verb_class", message)


# --- references ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reference:
    """An id that is used, and where."""

    kind: str
    name: str
    document: Document
    location: Location


def _reference_problems(rules: Rulebook, documents: Mapping[str, Document]) -> Iterator[Problem]:
    known: dict[str, Collection[str]] = {
        "finding": rules.files.keys(),
        "site": {site.id for site in rules.anatomy.sites},
        "region": {region.id for region in rules.anatomy.regions},
    }
    for reference in _references(rules, documents):
        if reference.name not in known[reference.kind]:
            message = f"unknown {reference.kind} '{reference.name}'{_nearest(reference.name, known[reference.kind])}"
            yield _problem(reference.document, reference.location, f"unknown_{reference.kind}", message)


def _references(rules: Rulebook, documents: Mapping[str, Document]) -> Iterator[_Reference]:
    for file in rules.files.values():
        yield from _references_of_finding(file)
    yield from _references_of_anatomy(rules)
    for name, label_set in rules.label_sets.items():
        yield from _references_of_label_set(label_set, rules.label_set_documents[name])
    context, tumour = rules.context, rules.primary_tumour
    lists: dict[str, dict[str, list[str]]] = {
        "context": {
            "carriers": context.carriers,
            "inherits": context.inherits,
            "targets": context.targets,
            "unsized": context.unsized,
            "transparent": context.transparent,
        },
        "primary_tumour": {
            "diagnosis": tumour.diagnosis,
            "lesions": tumour.lesions,
            "alone": tumour.alone,
            "parts": tumour.parts,
        },
    }
    for document, keys in lists.items():
        for key, findings in keys.items():
            yield from _listed("finding", findings, documents[document], (key,))


def _references_of_finding(file: FindingFile) -> Iterator[_Reference]:
    finding, document = file.finding, file.document
    yield _Reference("region", file.region, document, ("id",))
    yield from _listed("finding", finding.implied_by, document, ("implied_by",))
    yield from _listed("finding", finding.denial_of, document, ("denial_of",))
    for number, term in enumerate(finding.terms):
        yield from _listed("site", term.at, document, ("terms", number, "at"))
    for number, compose in enumerate(finding.compose):
        yield _Reference("finding", compose.finding, document, ("compose", number, "finding"))
        yield from _listed("site", compose.at, document, ("compose", number, "at"))
    for number, example in enumerate(finding.examples):
        if example.site is not None:
            yield _Reference("site", example.site, document, ("examples", number, "site"))


def _references_of_anatomy(rules: Rulebook) -> Iterator[_Reference]:
    anatomy, document = rules.anatomy, rules.anatomy_document
    for number, region in enumerate(anatomy.regions):
        if region.default_site is not None:
            yield _Reference("site", region.default_site, document, ("regions", number, "default_site"))
    for number, site in enumerate(anatomy.sites):
        yield from _listed("site", site.within, document, ("sites", number, "within"))
        for at, term in enumerate(site.terms):
            yield from _listed("site", term.within, document, ("sites", number, "terms", at, "within"))
    yield from _listed("site", anatomy.nodal_regions, document, ("nodal_regions",))


def _references_of_label_set(label_set: LabelSet, document: Document) -> Iterator[_Reference]:
    yield _Reference("region", label_set.region, document, ("region",))
    for number, entry in enumerate(label_set.findings):
        yield from _listed("finding", entry.any_of, document, ("findings", number, "any_of"))
        yield from _listed("site", entry.at, document, ("findings", number, "at"))


def _listed(kind: str, names: Sequence[str], document: Document, location: Location) -> Iterator[_Reference]:
    for at, name in enumerate(names):
        yield _Reference(kind, name, document, (*location, at))


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


# --- cycles -------------------------------------------------------------------------------------------------------


def _finding_cycles(rules: Rulebook) -> Iterator[Problem]:
    implied = {finding_id: finding.implied_by for finding_id, finding in rules.findings.items()}
    for cycle in _cycles_of(implied):
        yield _problem(rules.files[cycle[0]].document, ("implied_by",), "cycle", f"implied by itself: {_path(cycle)}")


def _site_cycles(rules: Rulebook) -> Iterator[Problem]:
    within = {site.id: site.within for site in rules.anatomy.sites}
    numbers = {site.id: number for number, site in enumerate(rules.anatomy.sites)}
    for cycle in _cycles_of(within):
        location = ("sites", numbers[cycle[0]], "within")
        yield _problem(rules.anatomy_document, location, "cycle", f"lies within itself: {_path(cycle)}")


def _path(cycle: Sequence[str]) -> str:
    return " -> ".join((*cycle, cycle[0]))


def _cycles_of(graph: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """The shortest cycle through each node, given once: from its alphabetically first node."""
    for node in graph:
        cycle = _way_back(node, graph)
        if cycle and node == min(cycle):
            yield cycle


def _way_back(node: str, graph: Mapping[str, Sequence[str]]) -> list[str]:
    came_from: dict[str, str] = {}
    waiting = [node]
    for at in waiting:  # grows while it is walked: breadth first
        for target in graph.get(at, ()):
            if target == node:
                return _walked(at, node, came_from)
            if target not in came_from:
                came_from[target] = at
                waiting.append(target)
    return []


def _walked(end: str, start: str, came_from: Mapping[str, str]) -> list[str]:
    steps = [end]
    while steps[-1] != start:
        steps.append(came_from[steps[-1]])
    return steps[::-1]


# --- terms and exclusions -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Looker:
    """Looks words up as reports are read."""

    annotator: Annotator

    @property
    def lexicon(self) -> Lexicon:
        return self.annotator.grammar.lexicon

    def normal(self, text: str) -> str:
        return normal_term(text, self.annotator.normaliser)

    def in_report(self, text: str) -> Iterator[Hits]:
        """What a report of this text alone gives, sentence by sentence."""
        for sentence in self.annotator.sentences(text):
            yield self.in_word(text[sentence.start : sentence.end], self.lexicon)

    def in_word(self, text: str, lexicon: Lexicon) -> Hits:
        return find(self.normal(text), lexicon, self.annotator.words)

    def in_any_context(self, text: str, lexicon: Lexicon) -> Hits:
        """As ``in_word``, without the veto of MeCab, whose words depend on what stands around the text."""
        return find(self.normal(text), lexicon, lambda _: [])


def _word_problems(rules: Rulebook) -> Iterator[Problem]:
    looker = _Looker(Annotator(rules))
    yield from _duplicates(rules, looker.lexicon)
    yield from _repeats(rules, looker)
    yield from _shadowed(rules, looker)
    yield from _hidden_cues(rules, looker)
    yield from _useless_exclusions(
        rules, looker, terms=build_lexicon(_without_exclusions(rules), looker.annotator.normaliser)
    )


def _without_exclusions(rules: Rulebook) -> Rulebook:
    files = {
        name: replace(file, finding=file.finding.model_copy(update={"exclude": []}))
        for name, file in rules.files.items()
    }
    return replace(rules, files=files)


def _duplicates(rules: Rulebook, lexicon: Lexicon) -> Iterator[Problem]:
    """The same literal, after normalisation and spelling families, in two terms.

    Two findings may share it where at most one of them takes it at any site: the others hold only at theirs.
    """
    locations: dict[str, Location] = {}
    for finding_id, file in rules.files.items():
        for number, term in enumerate(file.finding.terms):
            locations.setdefault(f"{finding_id}/{term.text}", ("terms", number))

    def problem(entry: Entry, other: Entry, code: str, message: str) -> Problem:
        elsewhere = rules.files[other.name].document
        where = f"{elsewhere.path.name}:{elsewhere.line(locations[other.rule_id])}"
        return _problem(
            rules.files[entry.name].document, locations[entry.rule_id], code, message + f" '{_text(other)}' ({where})"
        )

    for entries in lexicon.entries:
        first_of: dict[str, Entry] = {}
        for entry in entries:
            if entry.kind != "finding":
                continue
            first = first_of.setdefault(entry.name, entry)
            if first.rule_id != entry.rule_id:
                yield problem(entry, first, "repeated_term", f"term '{_text(entry)}' is the same word as")
        unlimited = [entry for entry in first_of.values() if not entry.at]
        for entry in unlimited[1:]:
            first = unlimited[0]
            yield problem(entry, first, "duplicate_term", f"term '{_text(entry)}' is also one of {first.name}:")


def _text(entry: Entry) -> str:
    return entry.rule_id.partition("/")[2]


def _repeats(rules: Rulebook, looker: _Looker) -> Iterator[Problem]:
    """Terms and exclusions that are blank or stand twice in one file, letter by letter."""
    for file in rules.files.values():
        for key, words in (("terms", [term.text for term in file.finding.terms]), ("exclude", file.finding.exclude)):
            for number, word in enumerate(words):
                where = (file.document, (key, number))
                if not looker.normal(word):
                    yield _problem(*where, "empty_term", f"'{word}' holds no letters")
                elif word in words[:number]:
                    line = file.document.line((key, words.index(word)))
                    yield _problem(*where, "repeated_term", f"'{word}' stands already in line {line}")


def _shadowed(rules: Rulebook, looker: _Looker) -> Iterator[Problem]:
    """Terms that even a report of this one word does not give: sentence ends, headings or other words take them."""
    for finding_id, file in rules.files.items():
        for number, term in enumerate(file.finding.terms):
            found = [hit.entry for hits in looker.in_report(term.text) for hit in hits.findings]
            if f"{finding_id}/{term.text}" not in {entry.rule_id for entry in found}:
                instead = f"; it is read as {_listed_names(found)}" if found else ""
                message = f"term '{term.text}' can never be found{instead}"
                yield _problem(file.document, ("terms", number), "shadowed_term", message)


def _listed_names(entries: Iterable[Entry]) -> str:
    return ", ".join(dict.fromkeys(f"'{_text(entry)}' ({entry.name})" for entry in entries))


def _hidden_cues(rules: Rulebook, looker: _Looker) -> Iterator[Problem]:
    """Terms that hold the finding and its denial or hedge: inside a term the cue is not seen, and it would affirm.

    A denial of something else may well be a finding (an organ is not seen). Normal statements deny; so do the findings
    that say that a study is normal.
    """
    effects = {looker.normal(cue.text): cue.effect for cue in _cues(rules) if not cue.before}
    clause_ends = tuple(looker.normal(word) for word in rules.assertion.clause_ends)
    normal = {
        finding
        for label_set in rules.label_sets.values()
        for entry in label_set.findings
        if entry.none_of_others
        for finding in entry.any_of
    }
    for finding_id, file in rules.files.items():
        for number, term in enumerate(file.finding.terms):
            text = looker.normal(term.text)
            start = _start_of_cue(text, effects)
            if finding_id in normal or term.means is not None or effects.get(text[start:]) not in ("deny", "hedge"):
                continue
            if any(
                hit.entry.name == finding_id
                and start - hit.end <= _PARTICLE
                and not text[: hit.end].endswith(clause_ends)  # a cause (not seen, for gas)
                for hit in looker.in_word(text[:start], looker.lexicon).findings
            ):
                message = f"term '{term.text}' hides the cue '{text[start:]}' ({effects[text[start:]]})"
                yield _problem(file.document, ("terms", number), "term_hides_cue", message)


_PARTICLE = 1
"""The most characters between a finding and its denial."""


def _start_of_cue(text: str, cues: Collection[str]) -> int:
    """Where the longest cue begins in which the text ends; the length of the text where it ends in none."""
    return next((at for at in range(1, len(text)) if text[at:] in cues and not _LATIN.match(text, at - 1)), len(text))


_LATIN = re.compile(r"[a-z0-9]{2}")


def _useless_exclusions(rules: Rulebook, looker: _Looker, *, terms: Lexicon) -> Iterator[Problem]:
    """Exclusions in which nothing would be found without them, and those that are a term: the term goes first."""
    for file in rules.files.values():
        for number, text in enumerate(file.finding.exclude):
            hits = looker.in_any_context(text, terms).findings
            whole = [hit for hit in hits if hit.end - hit.start == len(looker.normal(text))]
            if whole:
                message = f"exclusion '{text}' is a term of {whole[0].entry.name}, which goes first"
            elif not hits:
                message = f"exclusion '{text}' holds no term of any finding"
            else:
                continue
            yield _problem(file.document, ("exclude", number), "useless_exclusion", message)


# --- cues and spellings -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cue:
    """One form of a word of assertion, and where it stands."""

    text: str
    effect: Effect
    location: Location
    before: bool = False
    adjacent: bool = False


def _cues(rules: Rulebook) -> Iterator[_Cue]:
    assertion = rules.assertion
    for number, phrase in enumerate(assertion.phrases):
        for at, text in enumerate(phrase.terms):
            location = ("phrases", number, "terms", at)
            yield _Cue(text, phrase.effect, location, before=phrase.direction == "before", adjacent=phrase.adjacent)
    for number, verb in enumerate(assertion.verbs):
        for text, effect, _ in conjugate(verb, assertion.paradigms[verb.paradigm]):
            yield _Cue(text, effect, ("verbs", number))


def _cue_problems(rules: Rulebook, document: Document) -> Iterator[Problem]:
    """One literal with two effects in the same direction: which of them holds would be chance."""
    normaliser = Normaliser.from_rules(rules.normalise)
    first_of: dict[tuple[str, bool, bool], _Cue] = {}
    for cue in _cues(rules):
        first = first_of.setdefault((normal_term(cue.text, normaliser), cue.before, cue.adjacent), cue)
        if first.effect != cue.effect:
            line = document.line(first.location)
            message = f"cue '{cue.text}' is {cue.effect} here and {first.effect} in line {line}"
            yield _problem(document, cue.location, "duplicate_cue", message)


def _spelling_problems(normalise: NormaliseRules, document: Document) -> Iterator[Problem]:
    """A spelling of two families would be exchanged for members of one of them only."""
    first_of: dict[str, Location] = {}
    for number, family in enumerate(normalise.spellings):
        for at, member in enumerate(family):
            location = ("spellings", number, at)
            first = first_of.setdefault(member, location)
            if first != location:
                message = f"spelling '{member}' stands already in line {document.line(first)}"
                yield _problem(document, location, "overlapping_spellings", message)


# --- findings and label sets --------------------------------------------------------------------------------------


def _finding_problems(rules: Rulebook) -> Iterator[Problem]:
    for file in rules.files.values():
        finding, document = file.finding, file.document
        if not (finding.terms or finding.compose or finding.implied_by or finding.denial_of):
            yield _problem(document, ("id",), "no_words", "neither terms nor compose: nothing can give this finding")
        for number, compose in enumerate(finding.compose):
            generic = rules.findings.get(compose.finding)
            if generic is not None and not generic.terms:
                message = f"'{compose.finding}' has no terms, so nothing can be found of it at a site"
                yield _problem(document, ("compose", number, "finding"), "unreachable_compose", message)
        examples = finding.examples
        others = sum(example.status != "present" for example in examples)
        if len(examples) < MIN_EXAMPLES:
            message = f"{len(examples)} examples; a finding needs at least {MIN_EXAMPLES}"
            yield _problem(document, ("examples",), "few_examples", message)
        if examples and others < len(examples) * MIN_OTHER_SHARE:
            message = f"{others} of {len(examples)} examples are not 'present'; at least a third must be"
            yield _problem(document, ("examples",), "one_sided_examples", message)


def _label_set_problems(rules: Rulebook) -> Iterator[Problem]:
    for name, label_set in rules.label_sets.items():
        document = rules.label_set_documents[name]
        first_of: dict[str, Location] = {}
        places: list[tuple[str, Location]] = [
            *((entry.id, ("findings", number, "id")) for number, entry in enumerate(label_set.findings)),
            *((entry.id, ("values", number, "id")) for number, entry in enumerate(label_set.values)),
        ]
        for label, location in places:
            first = first_of.setdefault(label, location)
            if first != location:
                message = f"label '{label}' stands already in line {document.line(first)}"
                yield _problem(document, location, "duplicate_label", message)
        for number, value in enumerate(label_set.values):
            try:
                alone = label_set.model_copy(update={"values": [value]})
                value_labels(pl.Series(dtype=pl.String), pl.DataFrame(schema=MENTIONS), alone, rules)
            except ConfigError as error:
                yield _problem(document, ("values", number, "value_of"), "unknown_value", str(error))
