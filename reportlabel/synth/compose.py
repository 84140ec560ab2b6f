"""From what a patient has to the text of a report, with the place of every finding in it.

A reader sees most of what there is, says it in the words of the phrase bank and of their own habits, denies some of
what is not there, and sums up. What is missed stays true of the patient; what is denied although it is there is an
error of the report, as in life.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache

from reportlabel.synth.bank import Bank, CompiledExam, Layout, Reader, Sentence, SiteFile, Variants, compile_sentence
from reportlabel.synth.template import ABSENT, IDENTIFIER, REGISTERS, VALUE, Mark, Pen

_COMPARING = frozenset({"changed", "prior", "prior_date", "interval", "trend"})
_TRENDS = ("better", "better", "same", "worse")
_MOST_IN_IMPRESSION = 6
_SEEN_AGAIN = 0.3  # what was seen before is missed more rarely, by this factor


@dataclass(slots=True)
class Lesion:
    """A state of one patient, as it is now."""

    state: str
    attributes: dict[str, str]
    began: datetime
    size: float | None = None
    count: int | None = None
    proven: bool = False
    fades_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Prior:
    """The earlier exam with which this one is compared: what was reported then, with sizes."""

    when: datetime
    name: str
    sizes: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Request:
    """What is read: the exam and the people around it."""

    exam: CompiledExam
    when: datetime
    site: SiteFile
    reader: Reader
    second: Reader
    sex: str
    age: int
    disease: str
    reason: Sequence[str]
    contrast: tuple[str, float] | None
    lesions: Sequence[Lesion]
    prior: Prior | None
    people: Mapping[str, str]
    """Slots that identify: patient, patient_kana, patient_id, accession, doctor_family, hospital, phone, …"""


@dataclass(frozen=True, slots=True)
class Primary:
    """Size, side and lobe of the primary tumour, as far as the report gives them."""

    size_mm: float | None = None
    side: str | None = None
    lobe: str | None = None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A mention that may be of the primary tumour; the state of the greatest weight is it."""

    weight: float
    mark: Mark
    lobe: str | None


@dataclass(slots=True)
class Composed:
    """A finished report.

    Attributes:
        sections: section -> start and end of its words in the text.
        marks: findings and values; identifiers: marks of what identifies.
        reported: states that the reader saw, with the size that was written.
        primary: what the report says of the primary tumour.
    """

    text: str
    indication: str
    sections: dict[str, tuple[int, int]]
    marks: list[Mark]
    identifiers: list[Mark]
    reported: dict[str, int | None]
    primary: Primary
    missed: list[Lesion] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Sighting:
    """A lesion that the reader saw, with what will be said of it."""

    lesion: Lesion
    variants: Variants
    size: int | None
    short: int
    prior_size: int | None
    seen_before: bool
    firm: bool
    trend: str
    attributes: Mapping[str, str]


class Dictation:
    """One report being written: gives the words of slots."""

    def __init__(self, bank: Bank, request: Request, chance: random.Random) -> None:
        self.bank = bank
        self.request = request
        self.chance = chance
        registers = request.reader.registers
        register = chance.choices(list(registers), weights=list(registers.values()))[0]
        self.predicates = _favourites(bank, request.reader.name, register)
        self.register = register
        self.pen = Pen(chance, self.value, register=REGISTERS.index(register))
        self.sighting: _Sighting | None = None
        self.attributes: Mapping[str, str] = {}

    def value(self, name: str) -> str:
        """The words of a slot."""
        words = self.attributes.get(name)
        if words is not None:
            return words
        options = self.predicates.get(name)
        if options is not None:
            return options[int(self.chance.random() * len(options))]
        return self._computed(name)

    def _computed(self, name: str) -> str:
        sighting, request, styles = self.sighting, self.request, self.bank.styles
        if name in ("judge", "judge_"):
            return self.value(("kangaeru" if self.pen.firm else "utagau") + name[5:])
        if sighting is not None and sighting.size is not None:
            if name == "size":
                return self._size(sighting.size, sighting.short)
            if name == "size_mm":
                return str(sighting.size)
            if name == "prior":
                return self._size(sighting.prior_size or sighting.size, sighting.short)
            if name == "changed":
                return self._changed(sighting.size, sighting.prior_size or sighting.size)
        if name == "trend":
            forms = styles.trends[sighting.trend if sighting else "same"][self.register]
            return forms[int(self.chance.random() * len(forms))]
        if name == "count" and sighting is not None and sighting.lesion.count is not None:
            return str(sighting.lesion.count)
        if name == "prior_date":
            return self._date(request.prior.when if request.prior else request.when)
        if name == "interval":
            return _interval(request.prior.when if request.prior else request.when, request.when, styles.intervals)
        return {
            "age": str(request.age),
            "sexja": styles.sexes[request.sex],  # type: ignore[index]
            "disease": request.disease,
            "exam": request.prior.name if request.prior else request.exam.kind.name.ja,
            "agent": request.contrast[0] if request.contrast else "",
            "ml": f"{request.contrast[1]:g}" if request.contrast else "",
        }.get(name, request.people.get(name, ""))

    def _size(self, size: int, short: int) -> str:
        own = self.chance.random() < 0.6 and not self._measured()
        forms = self.bank.styles.sizes[self.request.reader.sizes if own else "plain"]
        form = forms[int(self.chance.random() * len(forms))]
        centimetres = f"{size / 10:.1f}" if size % 10 else f"{size // 10}"
        return form.replace("{n}", str(size)).replace("{m}", str(short)).replace("{c}", centimetres)

    def _measured(self) -> bool:
        """Whether the words before already say what is measured (最大, 約, 径)."""
        last = next((piece for piece in reversed(self.pen.pieces) if piece), "")
        return last.endswith(tuple(self.bank.styles.measured))

    def _changed(self, size: int, before: int) -> str:
        much = max(2, round(0.15 * before))
        kind = "larger" if size >= before + much else "smaller" if size <= before - much else "same"
        forms = self.bank.styles.changed[kind][self.register]
        return forms[int(self.chance.random() * len(forms))]

    def _date(self, when: datetime) -> str:
        return written_date(when, self.request.site.dates, self.bank, self.chance)


@cache
def _favourites(bank: Bank, reader: str, register: str) -> Mapping[str, tuple[str, ...]]:
    """The predicates of a reader in a register: everybody knows about half of them and has one they use most."""
    chance = random.Random(f"{reader} {register}")  # noqa: S311 - nothing here is secret
    chosen: dict[str, tuple[str, ...]] = {}
    for name, forms in bank.styles.predicates.items():
        distinct = list(dict.fromkeys(forms[register]))
        some = chance.sample(distinct, k=max(1, min(len(distinct), 1 + len(distinct) // 2)))
        chosen[name] = tuple([some[0]] * 2 + some)
    for name, words in bank.styles.continuing.items():
        distinct = list(dict.fromkeys(words))
        some = chance.sample(distinct, k=max(1, 1 + len(distinct) // 2))
        chosen[f"{name}_"] = tuple(some)
    return chosen


def written_date(when: datetime, style: str, bank: Bank, chance: random.Random) -> str:
    """A date as a site writes it: western or by era."""
    forms = bank.styles.dates[style]
    form = forms[int(chance.random() * len(forms))]
    era = next(one for one in bank.styles.eras if when.date() >= one.from_)
    return form.format(
        y=when.year, m=when.month, d=when.day, e=era.name, el=era.letter, ey=when.year - era.from_.year + 1
    )


def _interval(before: datetime, now: datetime, forms: Mapping[str, str]) -> str:
    days = max(1, (now - before).days)
    if days < 14:
        return forms["days"].format(n=days)
    if days < 60:
        return forms["weeks"].format(n=round(days / 7))
    if days < 700:
        return forms["months"].format(n=round(days / 30.4))
    return forms["years"].format(n=round(days / 365.25))


# --- what is said -----------------------------------------------------------------------------------------------------


def compose(bank: Bank, request: Request, chance: random.Random) -> Composed:
    """Write one report."""
    dictation = Dictation(bank, request, chance)
    sightings, missed = _look(request, chance)
    findings = _plan_findings(request, sightings, chance)
    said = {label for sentence, _ in findings for label in sentence.positive}
    impression = _plan_impression(request, sightings, chance, said)
    layout_name = request.reader.layouts[int(chance.random() * len(request.reader.layouts))]
    layout = bank.styles.layouts[layout_name]
    if "impression" not in layout.heads:
        impression = []
    return _write(dictation, layout, findings, impression, sightings, missed)


def _look(request: Request, chance: random.Random) -> tuple[list[_Sighting], list[Lesion]]:
    seen: list[_Sighting] = []
    missed: list[Lesion] = []
    before = request.prior.sizes if request.prior else {}
    for lesion in request.lesions:
        variants = request.exam.findings.get(lesion.state)
        if variants is None:
            continue
        again = lesion.state in before
        share = variants.entry.seen
        if chance.random() >= (1 - (1 - share) * _SEEN_AGAIN if again else share):
            missed.append(lesion)
            continue
        size = None if lesion.size is None else max(1, round(lesion.size + chance.gauss(0, 0.6)))
        if size is not None and not again and chance.random() < 0.25 and size > 12:
            size = 5 * round(size / 5)
        seen.append(
            _Sighting(
                lesion=lesion,
                variants=variants,
                size=size,
                short=max(1, round((size or 1) * chance.uniform(0.6, 0.95))),
                prior_size=before.get(lesion.state),
                seen_before=again,
                firm=lesion.proven or chance.random() < variants.entry.sure,
                trend=_TRENDS[int(chance.random() * len(_TRENDS))],
                attributes=lesion.attributes,
            )
        )
    return seen, missed


def _variant(
    sighting: _Sighting, known: tuple[Sentence, ...], follow: tuple[Sentence, ...], first: tuple[Sentence, ...]
) -> tuple[Sentence, ...]:
    """The sentences that fit: proven, seen before, or new. Nothing is compared where nothing was seen before."""
    if sighting.lesion.proven and known:
        fit = known if sighting.seen_before else tuple(one for one in known if not one.slots & _COMPARING)
        return fit or first
    if sighting.seen_before and follow:
        return follow
    return first


_Planned = list[tuple[Sentence, _Sighting | None]]


def _plan_findings(request: Request, sightings: Sequence[_Sighting], chance: random.Random) -> _Planned:
    exam = request.exam
    planned: _Planned = []
    if not sightings and exam.normal_findings and chance.random() < 0.55:
        return [(_one(exam.normal_findings, chance), None)]
    states = {sighting.lesion.state for sighting in sightings}
    spoken: list[tuple[str, Sentence, _Sighting]] = []
    for sighting in sorted(sightings, key=lambda one: -one.variants.entry.weight * (0.7 + 0.6 * chance.random())):
        variants = sighting.variants
        options = _variant(sighting, variants.known, variants.follow, variants.first)
        spoken.append((variants.entry.group, _one(options, chance), sighting))
    positive = {label for _, sentence, _ in spoken for label in sentence.positive}
    negative = {label for _, sentence, _ in spoken for label in sentence.negative}
    verbose = request.reader.verbose
    for group in exam.kind.groups:
        planned.extend((sentence, sighting) for own, sentence, sighting in spoken if own == group)
        for remark in exam.remarks[group]:
            if remark.unless & states or (remark.when and not remark.when & states):
                continue
            if chance.random() >= remark.chance * verbose:
                continue
            sentence = _one(remark.say, chance)
            if sentence.negative & (positive | negative) or sentence.positive & (negative | positive):
                continue
            positive |= sentence.positive
            negative |= sentence.negative
            planned.append((sentence, None))
    if not planned and exam.normal_findings:
        planned.append((_one(exam.normal_findings, chance), None))
    if exam.advice and sightings and chance.random() < 0.2 * verbose:
        planned.append((_one(exam.advice, chance), None))
    return planned


def _plan_impression(
    request: Request, sightings: Sequence[_Sighting], chance: random.Random, said: set[str]
) -> _Planned:
    worth = sorted(
        (sighting for sighting in sightings if sighting.variants.entry.weight > 0),
        key=lambda sighting: -sighting.variants.entry.weight,
    )
    planned: _Planned = []
    most = min(_MOST_IN_IMPRESSION, 2 + int(chance.random() * 5))
    for sighting in worth[:most]:
        variants = sighting.variants
        options = _variant(sighting, variants.impression_known, variants.impression_follow, variants.impression_first)
        if options:
            planned.append((_one(options, chance), sighting))
    if not planned and request.exam.normal_impression:
        sentence = _one(request.exam.normal_impression, chance)
        if not said - sentence.positive or not sentence.positive:
            planned.append((sentence, None))
    return planned


def _one(options: Sequence[Sentence], chance: random.Random) -> Sentence:
    return options[int(chance.random() * len(options))]


# --- how it is set ----------------------------------------------------------------------------------------------------


def _write(
    dictation: Dictation,
    layout: Layout,
    findings: _Planned,
    impression: _Planned,
    sightings: Sequence[_Sighting],
    missed: list[Lesion],
) -> Composed:
    bank, request, chance, pen = dictation.bank, dictation.request, dictation.chance, dictation.pen
    styles = bank.styles
    sections: dict[str, tuple[int, int]] = {}
    primary: list[_Candidate] = []
    if chance.random() < request.site.headers:
        pen.write(_sentence(_pick(styles.headers, chance)).body)
    order = list(styles.sections)
    if layout.first:
        order.remove(layout.first)
        order.insert(0, layout.first)
    indication = _indication(dictation)
    breaks = chance.random()
    for section in order:
        head = layout.heads.get(section)
        if head is None or (section == "impression" and not impression):
            continue
        if pen.length and not pen.pieces[-1].endswith("\n"):
            pen.put("\n")
        pen.put(head)
        if section == "findings":
            if head:
                pen.put("\n" if not layout.inline or len(findings) > 1 else "")
            start = pen.length
            _write_findings(dictation, findings, breaks, primary)
        elif section == "impression":
            many = len(impression) > 1
            if head:
                pen.put("\n" if not layout.inline or many else "" if not head.isascii() else " ")
            start = pen.length
            _write_impression(dictation, impression, layout, primary)
        else:
            pen.put("" if layout.inline and not head.isascii() else " " if layout.inline else "\n")
            start = pen.length
            if section == "indication":
                pen.put(indication)
            elif not _write_frame(dictation, section):
                pen.put("-")
        sections[section] = (start, pen.length)
    _sign(dictation)
    return _finish(dictation, sections, sightings, missed, indication, primary)


def _write_findings(dictation: Dictation, planned: _Planned, breaks: float, primary: list[_Candidate]) -> None:
    pen = dictation.pen
    group = None
    for number, (sentence, sighting) in enumerate(planned):
        own = sighting.variants.entry.group if sighting else group
        if number and not pen.pieces[-1].endswith("\n") and (breaks < 0.3 or (breaks < 0.85 and own != group)):
            pen.put("\n")
        group = own
        _say(dictation, sentence, sighting, primary)


def _write_impression(dictation: Dictation, planned: _Planned, layout: Layout, primary: list[_Candidate]) -> None:
    pen, chance = dictation.pen, dictation.chance
    bullets = dictation.bank.styles.numbers.get(layout.bullet)
    bullet = _pick(bullets, chance) if bullets and len(planned) > 1 else ""
    wrong_side = chance.random() < dictation.bank.noise.report_wrong_side
    for number, (sentence, sighting) in enumerate(planned, start=1):
        if number > 1:
            pen.put("\n")
        pen.put(bullet.replace("{n}", str(number)))
        if sighting is not None and wrong_side:
            swapped = _swapped(sighting.attributes, dictation.bank.styles.opposite)
            _say(dictation, sentence, replace(sighting, attributes=swapped), primary)
        else:
            _say(dictation, sentence, sighting, primary)


def _swapped(attributes: Mapping[str, str], opposite: Mapping[str, str]) -> Mapping[str, str]:
    return {name: opposite.get(words, words) if name == "side" else words for name, words in attributes.items()}


def _say(dictation: Dictation, sentence: Sentence, sighting: _Sighting | None, primary: list[_Candidate]) -> None:
    """Write a sentence; its marks get state, side and size as far as the sentence names them."""
    pen, styles = dictation.pen, dictation.bank.styles
    dictation.sighting = sighting
    dictation.attributes = sighting.attributes if sighting else {}
    pen.firm = sighting.firm if sighting else dictation.chance.random() < 0.5
    pen.state = sighting.lesion.state if sighting else None
    pen.used.clear()
    first = len(pen.marks)
    pen.write(sentence.body)
    if sighting is None:
        return
    side = styles.sides.get(sighting.attributes.get("side", "")) if "side" in pen.used else None
    sized = False
    for mark in pen.marks[first:]:
        if mark.status in (ABSENT, VALUE, IDENTIFIER):
            continue
        mark.side = side
        if not sized and sighting.size is not None and pen.used & {"size", "size_mm"}:
            mark.size_mm = float(sighting.size)
        if not sized and sighting.variants.entry.primary:
            lobe = sighting.attributes.get("lobe", "") if pen.used & {"lobe", "segment"} else ""
            primary.append(_Candidate(sighting.variants.entry.weight, mark, styles.lobes.get(lobe)))
        sized = True


def _indication(dictation: Dictation) -> str:
    request, styles = dictation.request, dictation.bank.styles
    sources: Sequence[str] = request.reason
    if not sources:
        kind = "follow" if request.prior is not None and request.disease else "routine"
        known = request.exam.kind.indications
        sources = known.get(kind) or known.get("routine") or styles.requests
    source = _pick(sources, dictation.chance)
    dictation.attributes, dictation.sighting = {}, None
    pen = Pen(dictation.chance, dictation.value, register=2)
    pen.write(_sentence(source).body)
    return pen.text()


def _write_frame(dictation: Dictation, section: str) -> bool:
    """Technique or comparison; False where there is nothing to say."""
    request, styles, chance = dictation.request, dictation.bank.styles, dictation.chance
    dictation.attributes, dictation.sighting = {}, None
    if section == "comparison":
        source = _pick(styles.comparison if request.prior else styles.no_comparison, chance)
        dictation.pen.write(_sentence(source).body)
        return True
    exam = request.exam
    options = exam.techniques_contrast if request.contrast and exam.techniques_contrast else exam.techniques
    if options:
        dictation.pen.write(_one(options, chance).body)
    return bool(options)


def _sign(dictation: Dictation) -> None:
    """Sometimes the reader signs or says whom they called."""
    styles, noise, chance, pen = dictation.bank.styles, dictation.bank.noise, dictation.chance, dictation.pen
    dictation.attributes, dictation.sighting = {}, None
    for share, sources in ((noise.report_call, styles.calls), (noise.report_signature, styles.signatures)):
        if chance.random() < share:
            pen.put("\n")
            pen.write(_sentence(_pick(sources, chance)).body)


@cache
def _sentence(source: str) -> Sentence:
    return compile_sentence(source)


def _pick(options: Sequence[str], chance: random.Random) -> str:
    return options[int(chance.random() * len(options))]


# --- what keyboards do to it ------------------------------------------------------------------------------------------


def _finish(
    dictation: Dictation,
    sections: dict[str, tuple[int, int]],
    sightings: Sequence[_Sighting],
    missed: list[Lesion],
    indication: str,
    primary: list[_Candidate],
) -> Composed:
    bank, request, chance, pen = dictation.bank, dictation.request, dictation.chance, dictation.pen
    text = pen.text()
    edits: list[tuple[int, int, str]] = []
    if chance.random() < bank.noise.report_slip:
        edits = _slip(text, bank, chance)
    if request.reader.wrap is not None and chance.random() < 0.8:
        text, sections = _edited(text, edits, pen.marks, sections)
        edits = _wraps(text, request.reader.wrap)
    text, sections = _edited(text, edits, pen.marks, sections)
    for habit in request.reader.habits:
        if chance.random() < 0.85:
            text = text.translate(_table(bank, habit))
    for mark in pen.marks:
        mark.surface = text[mark.start : mark.end]
    return Composed(
        text=text,
        indication=indication,
        sections=sections,
        marks=[mark for mark in pen.marks if mark.status != IDENTIFIER],
        identifiers=[mark for mark in pen.marks if mark.status == IDENTIFIER],
        reported={sighting.lesion.state: sighting.size for sighting in sightings},
        primary=_primary(primary),
        missed=missed,
    )


def _primary(candidates: Sequence[_Candidate]) -> Primary:
    """The first size, side and lobe that the report gives of the weightiest candidate."""
    if not candidates:
        return Primary()
    state = max(candidates, key=lambda one: one.weight).mark.state
    own = [one for one in candidates if one.mark.state == state]
    return Primary(
        size_mm=next((one.mark.size_mm for one in own if one.mark.size_mm is not None), None),
        side=next((one.mark.side for one in own if one.mark.side is not None), None),
        lobe=next((one.lobe for one in own if one.lobe is not None), None),
    )


@cache
def _table(bank: Bank, habit: str) -> dict[int, int]:
    characters = bank.styles.character_sets[habit]
    return str.maketrans(characters.from_, characters.to)


def _slip(text: str, bank: Bank, chance: random.Random) -> list[tuple[int, int, str]]:
    """One slip, where the text has a word that can slip."""
    slips = [(right, wrong) for right, wrong in bank.styles.slips if right in text]
    if not slips:
        return []
    right, wrong = slips[int(chance.random() * len(slips))]
    places = []
    at = text.find(right)
    while at >= 0:
        places.append(at)
        at = text.find(right, at + 1)
    at = places[int(chance.random() * len(places))]
    return [(at, at + len(right), wrong)]


def _wraps(text: str, width: int) -> list[tuple[int, int, str]]:
    """Line breaks where a terminal breaks: after so many characters, and no full stop or comma begins a line."""
    edits = []
    start = 0
    for line in text.split("\n"):
        at = width
        while at < len(line):
            cut = at + 1 if line[at] in "。、）)，．" else at
            if cut < len(line):
                edits.append((start + cut, start + cut, "\n"))
            at = cut + width
        start += len(line) + 1
    return edits


def _edited(
    text: str, edits: Sequence[tuple[int, int, str]], marks: Sequence[Mark], sections: Mapping[str, tuple[int, int]]
) -> tuple[str, dict[str, tuple[int, int]]]:
    """Apply edits in order of place; marks and sections move along.

    What is put in at the first character of a mark stands before it, at its end after it.
    """
    if not edits:
        return text, dict(sections)
    pieces, last, shifts = [], 0, [0]
    for start, end, words in edits:
        pieces += [text[last:start], words]
        last = end
        shifts.append(shifts[-1] + len(words) - (end - start))
    pieces.append(text[last:])
    starts, ends = [edit[0] for edit in edits], [edit[1] for edit in edits]

    def moved(start: int, end: int) -> tuple[int, int]:
        return start + shifts[bisect_right(ends, start)], end + shifts[bisect_left(starts, end)]

    for mark in marks:
        mark.start, mark.end = moved(mark.start, mark.end)
    return "".join(pieces), {name: moved(*span) for name, span in sections.items()}
