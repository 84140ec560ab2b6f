"""Messages of the standardised storage of SS-MIX2 (HL7 2.5, ISO-2022-JP): segments in, rows out.

What comes out
    ADT-00          a PatientRow; name, address, phone, insurance and allergies are not read at all
    PPR-01          diagnoses: ICD-10, suspected where PRB-13 or a modifier says so, ended only where PRB-14 says so too
    OML-11          results of the laboratory; ``<0.5`` is the value 0.5 with the text ``<0.5``
    OMG-11          an ExamRow a study, with weight, height and what was given for it (also from files beside it)
    OMG-13          physiology: what the reader said, then the measured values, as one text
    OMP-01, OMP-02  drugs as they were ordered, one row an order and drug: start, end, and the amount of a day
    OMP-11, OMP-12  drugs as they were given

What messages do not say: operations and texts of pathology and radiology (see `reportlabel.ingest.ssmix2_documents`),
the time of an exam beyond its day, unless OBR-7 or the registration of the same day (ORC-9) has one, and doses.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, Self

from pydantic import model_validator

from reportlabel.ingest import ssmix2_storage as storage
from reportlabel.ingest.codes import icd10, jlac10_system, measure, narrow, study_uid
from reportlabel.ingest.dates import age_on, is_blank, parse_day, parse_moment
from reportlabel.ingest.rows import ExamRow, PatientRow, Quarantined, RecordRow, Row
from reportlabel.ingest.ssmix2_segments import (
    Segment,
    component,
    decoded,
    field_of,
    free_text,
    is_day,
    name_of,
    number_of,
    plain,
)
from reportlabel.ingest.ssmix2_storage import Item
from reportlabel.rulebook.models import Strict

__all__ = ["MessageRules", "message_rows"]

Holds = Literal[
    "patient",
    "diagnoses",
    "results",
    "exams",
    "orders",
    "physiology",
    "prescriptions",
    "administrations",
    "nothing",
]

_BEGINNING = b"MSH|^~\\&|"
_FRAME = b"\x0b\x1c\x1a\r\n\t \0"
_EVENT = re.compile(r"[A-Z]{3}\^[A-Z0-9]{3}(?:\^.*)?", re.ASCII)
_VALUE_TYPE = re.compile(r"[A-Z][A-Z0-9]{1,2}", re.ASCII)


class DataType(Strict):
    """The messages that a data type may hold, and what is read of them."""

    events: list[str]
    holds: Holds


class Suspected(Strict):
    """What says that a disease is only suspected."""

    codes: list[str]
    words: list[str]


class Observed(Strict):
    """Which OBX is meant: the beginnings of its code, or its name."""

    codes: list[str]
    names: list[str]


class MessageRules(Strict):
    """``messages`` of rules/ingest/ssmix2.yaml."""

    types: dict[str, DataType]
    sexes: dict[str, str]
    utf8: list[str]
    cancelled_orders: list[str]
    not_given: list[str]
    deleted_problems: list[str]
    result_states: dict[str, Literal["final", "preliminary", "corrected"]]
    deleted_results: list[str]
    code_systems: dict[Literal["YJ", "HOT9", "receipt", "JLAC10", "ICD-10", "MEDIS"], list[str]]
    normal_flags: list[str]
    grades: dict[str, float]
    suspected: Suspected
    still_ill: list[str]
    sides: dict[str, Literal["right", "left", "bilateral"]]
    weight: Observed
    height: Observed
    began: Observed
    drugs: Observed
    beside_exam: list[str]
    contrast: list[str]
    activity: list[str]
    tracer: list[str]
    millilitres: list[str]
    jj1017_modalities: dict[str, str]
    impressions: list[str]
    durations: dict[str, float]
    units: dict[str, str]

    @model_validator(mode="after")
    def _known_types(self) -> Self:
        if unknown := sorted(set(self.beside_exam) - set(self.types)):
            raise ValueError(f"beside_exam: no data type {', '.join(unknown)}")
        return self


class Code(NamedTuple):
    """A coded name. ``system`` is one of those that records have."""

    code: str
    name: str
    system: str


class Substance(NamedTuple):
    """What was given for an exam."""

    name: str
    amount: float | None
    unit: str


def message_rows(
    data: bytes, item: Item, rules: MessageRules, *, beside: Callable[[], Iterable[tuple[Item, bytes]]] = tuple
) -> Iterator[Row]:
    """The rows of one message.

    Args:
        beside: files of the same order; asked for only where the message is of an exam.
    """
    opened = _opened(data, item, rules)
    yield from (item.quarantined(None, "file", fault) for fault in opened.faults)
    if not opened.usable:
        return
    site = item.site(component(field_of(opened.segments[0], 3), 1))  # MSH-4: MSH-1 is the separator
    if site is None:
        yield item.quarantined(None, "file", storage.NO_SITE)
        return
    holds = rules.types[item.stored.type].holds
    reader = _Reader(item, rules, site, opened.segments, opened.person)
    if holds == "patient":
        yield from reader.patient()
    elif holds == "diagnoses":
        yield from reader.diagnoses()
    elif holds == "results":
        yield from reader.results()
    elif holds == "exams":
        others = ((one, _opened(content, one, rules)) for one, content in beside())
        yield from reader.exams([one.segments for _, one in others if one.usable])
    elif holds == "physiology":
        yield from reader.physiology()
    elif holds == "prescriptions":
        yield from reader.prescriptions()
    elif holds == "administrations":
        yield from reader.administrations()
    yield from reader.summary()


# --- messages --------------------------------------------------------------------------------------------------------


class _Opened(NamedTuple):
    """A message, and what is wrong with it. ``usable``: its rows can be read."""

    segments: list[Segment]
    person: Segment
    faults: list[str]
    usable: bool


def _refused(*faults: str) -> _Opened:
    return _Opened([], [], list(faults), False)


def _opened(data: bytes, item: Item, rules: MessageRules) -> _Opened:
    """The segments of a message that is what and of whom its path says."""
    data = data.removeprefix(b"\xef\xbb\xbf").strip(_FRAME)
    if not data.startswith(_BEGINNING):
        return _refused(storage.NOT_HL7)
    text = decoded(data, utf8=rules.utf8)
    if text is None:
        return _refused(storage.BAD_ENCODING)
    lines = text.split("\r") if "\r" in text else text.split("\n")
    segments = [line.strip("\n").split("|") for line in lines if line.strip("\n")]
    event = field_of(segments[0], 8)
    if not _EVENT.fullmatch(event):
        beside = any(_EVENT.fullmatch(field_of(segments[0], at)) for at in (6, 7, 9, 10))
        return _refused(storage.SHIFTED if beside else storage.NOT_HL7)
    faults: list[str] = []
    if "^".join(event.split("^")[:2]) not in rules.types[item.stored.type].events:
        faults.append(storage.WRONG_TYPE)
    people = [one for one in segments if one[0] == "PID" and len(one) > 1]
    if not people:
        return _refused(*faults, storage.NO_PATIENT)
    person = people[0]
    if fault := next(filter(None, (_patient_fault(one, item) for one in people)), ""):
        faults.append(fault)
    usable = not faults
    if not is_day(field_of(person, 7)) and any(is_day(field_of(person, at)) for at in (6, 8, 9)):
        faults.append(storage.SHIFTED_BIRTH)
    return _Opened(segments, person, faults, usable)


def _patient_fault(person: Segment, item: Item) -> str:
    """Why a PID is not that of the patient of the path, or nothing."""
    wanted = item.stored.patient_id
    said = [one.split("^", 1)[0].strip() for one in field_of(person, 3).split("~")]
    if wanted in said:
        return ""
    if any(wanted == component(field_of(person, at), 1) for at in (2, 4, 5)):
        return storage.SHIFTED
    return storage.DIFFERENT_PATIENT if any(said) else storage.NO_PATIENT


# --- rows -------------------------------------------------------------------------------------------------------------


@dataclass
class _Order:
    """What stands together in an order: ORC and what follows until the next, by name of the segment; ``row`` of ORC."""

    row: int
    control: Segment = field(default_factory=list)
    request: Segment = field(default_factory=list)
    others: dict[str, list[tuple[int, Segment]]] = field(default_factory=dict)

    def first(self, name: str) -> Segment:
        """The first segment of a name that has fields, or none."""
        return next((one for _, one in self.others.get(name, ())), [])

    def all(self, name: str) -> list[tuple[int, Segment]]:
        """All segments of a name."""
        return self.others.get(name, [])


@dataclass
class _Reader:
    item: Item
    rules: MessageRules
    site: str
    segments: list[Segment]
    person: Segment
    counts: Counter[str] = field(default_factory=Counter)

    def summary(self) -> Iterator[Quarantined]:
        """What of the message was not used, and how often."""
        for reason, count in sorted(self.counts.items()):
            yield self.item.quarantined(None, self.rules.types[self.item.stored.type].holds, reason, count=count)

    def patient(self) -> Iterator[Row]:
        """Sex and birth date."""
        birth = parse_day(field_of(self.person, 7)) if not is_blank(field_of(self.person, 7)) else None
        if self._sex() or birth:
            yield PatientRow(self.site, self.item.patient_id, self._sex(), birth)

    def diagnoses(self) -> Iterator[Row]:
        """The last that is said of each diagnosis."""
        problems: dict[str, tuple[int, Segment, list[Segment]]] = {}
        parts: list[Segment] = []
        for row, segment in self._rows():
            if segment[0] == "PRB":
                parts = []
                key = component(field_of(segment, 4), 1) or f"row {row}"
                problems.pop(key, None)
                problems[key] = (row, segment, parts)
            elif segment[0] == "ZPR":
                parts.append(segment)
        for row, segment, modifiers in problems.values():
            if field_of(segment, 1) in self.rules.deleted_problems:
                self.counts[storage.DELETED] += 1
            else:
                yield self._diagnosis(row, segment, modifiers)

    def results(self) -> Iterator[Row]:
        """Results with what they were made of and when."""
        specimen: Segment = []
        request: Segment = []
        control: Segment = []
        for row, segment in self._rows():
            match segment[0]:
                case "SPM":
                    specimen, request, control = segment, [], []
                case "OBR":
                    request, control = segment, []
                case "ORC":
                    control = segment
                case "OBX":
                    found = self._result(row, segment, specimen, request, control)
                    if found is not None:
                        yield found

    def exams(self, beside: Iterable[list[Segment]]) -> Iterator[Row]:
        """An exam a study: what was ordered as a whole, its acts, and what was given."""
        studies: dict[tuple[str | None, str | None], list[_Order]] = {}
        key: tuple[str | None, str | None] = (None, None)
        loose: list[_Order] = []
        for order in self._orders():
            if self._is_cancelled(order.control) or field_of(order.request, 25) in self.rules.deleted_results:
                self.counts[storage.DELETED] += 1
                continue
            study = order.first("IPC")
            key = (study_uid(component(field_of(study, 3), 1)), component(field_of(study, 1), 1) or None)
            (studies.setdefault(key, []) if any(key) else loose).append(order)
        if not studies and any(one.request for one in loose):
            studies[(None, None)] = []
        others = [
            order for segments in beside for order in self._orders(segments) if not self._is_cancelled(order.control)
        ]
        for (uid, accession), orders in studies.items():
            yield self._exam(uid, accession, [*orders, *loose], others)

    def physiology(self) -> Iterator[Row]:
        """A record an examination."""
        for order in self._orders(begins="OBR"):
            if order.request:
                yield from self._examination(order)

    def prescriptions(self) -> Iterator[Row]:
        """The drugs of each order; of a mixture its parts."""
        for order in self._orders(begins="RXE"):
            whole, parts = order.first("RXE"), order.all("RXC")
            if not whole and not parts:
                continue
            if self._is_cancelled(order.control):
                self.counts[storage.DELETED] += 1
                continue
            start, end, fault = self._course(order.first("TQ1"))
            drugs = [(row, one, 2, 3, 4) for row, one in parts] or [
                (row, one, 2, 3, 5) for row, one in order.all("RXE")
            ]
            for row, segment, code, amount, unit in drugs:
                if fault:
                    yield self.item.quarantined(row, "medication", fault)
                    continue
                daily = [] if parts else field_of(segment, 19).split("^", 1)
                value, named = number_of(field_of(segment, amount)), field_of(segment, unit)
                if daily and number_of(daily[0]) is not None:
                    value, named = number_of(daily[0]), daily[1].replace("&", "^") if len(daily) > 1 else named
                yield self._drug(row, field_of(segment, code), start, end, value, named)

    def administrations(self) -> Iterator[Row]:
        """The drugs that were given."""
        for row, segment in self._rows():
            if segment[0] != "RXA":
                continue
            if field_of(segment, 20) in self.rules.not_given or field_of(segment, 21) == "D":
                self.counts[storage.DELETED] += 1
                continue
            start, fault = self._moment(segment, 3)
            if fault:
                yield self.item.quarantined(row, "medication", fault)
                continue
            end, _ = self._moment(segment, 4)
            value = number_of(field_of(segment, 6))
            yield self._drug(row, field_of(segment, 5), start or self._day(), end, value, field_of(segment, 7))

    # --- parts of messages

    def _rows(self) -> Iterator[tuple[int, Segment]]:
        """The segments with fields, and their numbers from 1."""
        return ((row, one) for row, one in enumerate(self.segments, start=1) if len(one) > 1)

    def _orders(self, segments: list[Segment] | None = None, *, begins: str = "OBR") -> Iterator[_Order]:
        """Orders: each begins with ORC, or with another segment where one of these is there already."""
        order = _Order(0)
        for row, segment in enumerate(self.segments if segments is None else segments, start=1):
            name = segment[0]
            if len(segment) < 2:
                continue
            if name == "ORC" or (name == begins and name in order.others):
                if order.row:
                    yield order
                order = _Order(row)
            if name == "ORC":
                order.control = segment
            elif name == "OBR":
                order.request = segment
            order.row = order.row or row
            order.others.setdefault(name, []).append((row, segment))
        if order.row:
            yield order

    def _is_cancelled(self, control: Segment) -> bool:
        return field_of(control, 1) in self.rules.cancelled_orders

    def _sex(self) -> str | None:
        return self.rules.sexes.get(component(field_of(self.person, 8), 1))

    def _day(self) -> datetime | None:
        """The day of the path."""
        return parse_moment(self.item.stored.day)

    def _moment(self, segment: Segment, number: int, *, partial: bool = False) -> tuple[datetime | None, str]:
        """A time, or why what is written is none; neither where nothing is written."""
        written = field_of(segment, number).partition("~")[0].partition("^")[0].strip()
        if is_blank(written):
            return None, ""
        moment = parse_moment(written, partial=partial)
        if moment is not None:
            return moment, ""
        beside = any(is_day(field_of(segment, at)) for at in (number - 1, number + 1))
        return None, storage.SHIFTED if beside else storage.BAD_DATE

    def _first_moment(self, *places: tuple[Segment, int], partial: bool = False) -> tuple[datetime | None, str]:
        """The first time that is written, or why it is none."""
        for segment, number in places:
            moment, fault = self._moment(segment, number, partial=partial)
            if moment is not None or fault:
                return moment, fault
        return None, ""

    def _code(self, written: str, *systems: str) -> Code | None:
        """A coded name: of its two triplets the one whose system comes first, else the first that has a code."""
        parts = [plain(one) for one in written.partition("~")[0].split("^")]
        found = []
        for at in (0, 3):
            code, name, said = (*parts[at : at + 3], "", "", "")[:3]
            if code or name:
                system = _system_of(self.rules, said.upper())
                found.append(Code(narrow(code), name_of(name), system if system in systems else ""))
        for system in systems:
            for one in found:
                if one.system == system and one.code:
                    return one if one.name else one._replace(name=next((two.name for two in found if two.name), ""))
        return found[0] if found else None

    def _is(self, written: str, observed: Observed) -> bool:
        """Whether a coded name is that of an observation."""
        found = self._code(written)
        return found is not None and (found.code.startswith(tuple(observed.codes)) or found.name in observed.names)

    def _unit(self, written: str) -> str | None:
        """A unit of drugs by its name."""
        code, name = component(written, 1), component(written, 2)
        return self.rules.units.get(code.upper()) or name_of(name or code) or None

    # --- PPR-01

    def _diagnosis(self, row: int, segment: Segment, modifiers: list[Segment]) -> RecordRow | Quarantined:
        start, fault = self._first_moment((segment, 7), (segment, 16), (segment, 2), partial=True)
        if start is None:
            return self.item.quarantined(row, "diagnosis", fault or storage.NO_DATE)
        disease = self._code(field_of(segment, 3), "MEDIS")
        shown = name_of(field_of(segment, 17))
        codes = [icd10(component(one, 1)) for one in field_of(segment, 10).split("~")]
        code = next(filter(None, codes), None)
        name = disease.name if disease and disease.name else shown
        if code is None and not name and not (disease and disease.code):
            return self.item.quarantined(row, "diagnosis", storage.NO_CODE)
        said = list(self._modifiers(modifiers))
        suspected = field_of(segment, 13).strip() == "1" or any(self._says_suspected(one) for one in said)
        suspected = suspected or shown.endswith(tuple(self.rules.suspected.words))
        suspected = suspected or name.endswith(tuple(self.rules.suspected.words))
        system = "ICD-10" if code else (disease.system or "local") if disease and disease.code else None
        return RecordRow(
            site=self.site,
            patient_id=self.item.patient_id,
            kind="diagnosis",
            start_at=start,
            end_at=self._end_of_disease(segment, start),
            code_system=system,
            code=code or (disease.code or None if disease else None),
            name=name or None,
            certainty="suspected" if suspected else "confirmed",
            side=next((self.rules.sides[one.name] for one in said if one.name in self.rules.sides), None),
            number=component(field_of(segment, 4), 1) or None,
        )

    def _modifiers(self, segments: list[Segment]) -> Iterator[Code]:
        for segment in segments:
            for written in segment[2:]:
                for one in written.split("~"):
                    if one and (found := self._code(one)) is not None:
                        yield found

    def _says_suspected(self, one: Code) -> bool:
        return one.code in self.rules.suspected.codes or one.name in self.rules.suspected.words

    def _end_of_disease(self, segment: Segment, start: datetime) -> datetime | None:
        """PRB-9, only where PRB-14 says that it ended."""
        outcome = component(field_of(segment, 14), 1)
        if not outcome or outcome in self.rules.still_ill:
            return None
        end, _ = self._moment(segment, 9, partial=True)
        return self._after(start, end)

    def _after(self, start: datetime | None, end: datetime | None) -> datetime | None:
        """An end that is none before its start; those that are, are counted."""
        if start is not None and end is not None and end.date() < start.date():
            self.counts[storage.BAD_END] += 1
            return None
        return end

    # --- OML-11

    def _result(
        self, row: int, segment: Segment, specimen: Segment, request: Segment, control: Segment
    ) -> RecordRow | Quarantined | None:
        """A result; nothing where there is none (counted)."""
        kind = field_of(segment, 2)
        if kind and not _VALUE_TYPE.fullmatch(kind):
            return self.item.quarantined(row, "lab", storage.SHIFTED)
        certainty = self._certainty(field_of(segment, 11))
        written = field_of(segment, 5)
        if certainty is None or not written.strip("^~ "):
            deleted = field_of(segment, 11) in self.rules.deleted_results
            self.counts[storage.DELETED if deleted else storage.NO_VALUE] += 1
            return None
        code = self._code(field_of(segment, 3), "JLAC10")
        if code is None:
            return self.item.quarantined(row, "lab", storage.NO_CODE)
        start, fault = self._first_moment((segment, 14), (specimen, 17), (request, 7))
        start = start or (None if fault else self._day())
        if start is None:
            return self.item.quarantined(row, "lab", fault or storage.NO_DATE)
        reported, _ = self._first_moment((request, 22), (control, 9), (self.segments[0], 6))
        value, text = self._value(kind, written)
        unit = field_of(segment, 6)
        flag = narrow(component(field_of(segment, 8), 1))
        return RecordRow(
            site=self.site,
            patient_id=self.item.patient_id,
            kind="lab",
            start_at=start,
            reported_at=reported,
            code_system=jlac10_system(code.code) if code.code else None,
            code=code.code or None,
            name=code.name or None,
            text=text,
            value=value,
            unit=name_of(component(unit, 1) or component(unit, 2)) or None,
            flag=None if flag in self.rules.normal_flags else flag or None,
            certainty=certainty,
        )

    def _certainty(self, state: str) -> str | None:
        """Of a result; None where its state says that there is none."""
        return self.rules.result_states.get(state) if state else "final"

    def _value(self, kind: str, written: str) -> tuple[float | None, str | None]:
        """Number and text of a result. An inequality is in the text, and so is a grade as it was written."""
        if kind == "SN":
            sign, number, *rest = (*(plain(one) for one in written.split("^")), "", "")
            text = " ".join(filter(None, (f"{sign}{number}", *rest)))
        elif kind in ("CWE", "CE"):
            text = component(written, 2) or component(written, 1)
        else:
            text = free_text(written)
        grade = self.rules.grades.get(narrow(text))
        if grade is not None:
            return grade, text
        found = measure(text) if "\n" not in text else None
        if found is not None and not found.unit and math.isfinite(found.value):
            return found.value, text if found.sign else None
        return None, text or None

    # --- OMG-11

    def _exam(
        self, uid: str | None, accession: str | None, orders: list[_Order], others: list[_Order]
    ) -> ExamRow | Quarantined:
        acts = [one for one in orders if field_of(one.control, 1) == "CH"] or orders
        row = next((one.row for one in orders), 1)
        started_at, fault = self._started_at(orders)
        if fault:
            return self.item.quarantined(row, "exam", fault)
        services = [code for one in acts if (code := self._code(field_of(one.request, 4))) is not None]
        names = list(dict.fromkeys(one.name for one in services if one.name))
        birth = parse_day(field_of(self.person, 7)) if started_at else None
        given = list(self._given([*orders, *others]))
        contrast = [one for one in given if self._is_contrast(one)]
        amounts = [one.amount for one in contrast if one.amount and one.unit in self._volumes]
        observed = [one for order in (*orders, *others) for one in order.all("OBX")]
        return ExamRow(
            site=self.site,
            patient_id=self.item.patient_id,
            study_instance_uid=uid,
            accession_number=accession,
            started_at=started_at,
            modality=self._modality(orders, services),
            order_name=" / ".join(names) or None,
            contrast_agent=contrast[0].name if contrast else None,
            contrast_ml=sum(amounts) or None,
            tracer=next((one.name for one in given if self._is_tracer(one)), None),
            age_years=age_on(started_at.date(), birth) if started_at and birth else None,
            sex=self._sex(),
            height_cm=self._measured(observed, self.rules.height),
            weight_kg=self._measured(observed, self.rules.weight),
        )

    def _started_at(self, orders: list[_Order]) -> tuple[datetime | None, str]:
        """When the exam began: OBR-7; where it is a day only, the time said to be the beginning, else ORC-9."""
        day: datetime | None = None
        for order in orders:
            found, fault = self._moment(order.request, 7)
            if fault:
                return None, fault
            if found is not None and len(field_of(order.request, 7).strip()) > 8:
                return found, ""
            day = day or found
        day = day or self._day()
        said = [
            parse_moment(component(field_of(segment, 5), 1))
            for order in orders
            for _, segment in order.all("OBX")
            if self._is(field_of(segment, 3), self.rules.began)
        ]
        said += [self._moment(order.control, 9)[0] for order in orders]
        return next((one for one in said if one and day and one.date() == day.date()), day), ""

    def _modality(self, orders: list[_Order], services: list[Code]) -> str | None:
        for order in orders:
            if said := component(field_of(order.first("IPC"), 5), 1):
                return said.upper()
        return next((self.rules.jj1017_modalities.get(one.code[:1]) for one in services if one.code), None)

    def _measured(self, observed: list[tuple[int, Segment]], which: Observed) -> float | None:
        for _, segment in observed:
            if self._is(field_of(segment, 3), which) and (value := number_of(field_of(segment, 5))):
                return value
        return None

    def _given(self, orders: list[_Order]) -> Iterator[Substance]:
        """Drugs of ZE2, of OBX of a drug, and of RXA."""
        for order in orders:
            for _, segment in order.all("ZE2"):
                yield self._substance(field_of(segment, 3), field_of(segment, 4), field_of(segment, 5))
            for _, segment in order.all("OBX"):
                if self._is(field_of(segment, 3), self.rules.drugs):
                    parts = [*field_of(segment, 5).split("^"), "", "", "", ""]
                    yield self._substance("^".join(parts[:3]), parts[3], parts[4].replace("&", "^"))
            for _, segment in order.all("RXA"):
                if field_of(segment, 20) not in self.rules.not_given and field_of(segment, 21) != "D":
                    yield self._substance(field_of(segment, 5), field_of(segment, 6), field_of(segment, 7))

    def _substance(self, written: str, amount: str, unit: str) -> Substance:
        code = self._code(written)
        return Substance(code.name if code else "", number_of(amount), component(unit, 1).upper())

    def _is_tracer(self, one: Substance) -> bool:
        return bool(one.name) and (one.unit in self.rules.activity or _holds(one.name, self.rules.tracer))

    def _is_contrast(self, one: Substance) -> bool:
        return bool(one.name) and not self._is_tracer(one) and _holds(one.name, self.rules.contrast)

    @property
    def _volumes(self) -> set[str]:
        return {one.upper() for one in self.rules.millilitres}

    # --- OMG-13

    def _examination(self, order: _Order) -> Iterator[Row]:
        request = order.request
        certainty = self._certainty(field_of(request, 25))
        if certainty is None:
            self.counts[storage.DELETED] += 1
            return
        start, fault = self._moment(request, 7)
        start = start or (None if fault else self._day())
        code = self._code(field_of(request, 4), "JLAC10")
        if start is None or code is None:
            reason = storage.NO_CODE if code is None else fault or storage.NO_DATE
            yield self.item.quarantined(order.row, "physiology", reason)
            return
        words: list[str] = []
        measured: list[tuple[str, float | None, str, str]] = []
        for _, segment in order.all("OBX"):
            kind, written = field_of(segment, 2), field_of(segment, 5)
            if not written or field_of(segment, 11) in self.rules.deleted_results:
                continue
            part = field_of(segment, 3).partition("^")[0].rpartition("&")[2]
            if part in self.rules.impressions or kind in ("TX", "FT"):
                words.append(free_text(written))
            elif kind in ("NM", "SN", "ST", "CWE", "CE"):
                value, text = self._value(kind, written)
                named = self._code(field_of(segment, 3))
                unit = name_of(component(field_of(segment, 6), 1))
                shown = text if text is not None or value is None else f"{value:g}"
                measured.append((named.name or named.code if named else "", value, unit, shown or ""))
        line = "; ".join(f"{name} {shown} {unit}".strip() for name, _, unit, shown in measured)
        reported, _ = self._first_moment((request, 22), (order.control, 9), (self.segments[0], 6))
        single = measured[0] if len(measured) == 1 else None
        yield RecordRow(
            site=self.site,
            patient_id=self.item.patient_id,
            kind="physiology",
            start_at=start,
            reported_at=reported,
            code_system=jlac10_system(code.code) if code.code else None,
            code=code.code or None,
            name=code.name or None,
            text="\n".join(filter(None, (*words, line))) or None,
            value=single[1] if single else None,
            unit=single[2] or None if single else None,
            certainty=certainty,
            number=component(field_of(request, 2), 1) or None,
        )

    # --- drugs

    def _course(self, timing: Segment) -> tuple[datetime | None, datetime | None, str]:
        """Start and end of a prescription: TQ1-7 and TQ1-8, or so many days after the start as TQ1-6 says."""
        start, fault = self._moment(timing, 7)
        if fault:
            return None, None, fault
        start = start or self._day()
        end, _ = self._moment(timing, 8)
        amount, _, unit = field_of(timing, 6).partition("~")[0].partition("^")
        length = number_of(amount)
        days = self.rules.durations.get(unit.partition("&")[0].partition("^")[0])
        if end is None and start is not None and length is not None and days is not None:
            end = start + timedelta(days=min(length * days, 3660))
        return start, end, "" if start else storage.NO_DATE

    def _drug(
        self, row: int, written: str, start: datetime | None, end: datetime | None, value: float | None, unit: str
    ) -> RecordRow | Quarantined:
        code = self._code(written, "YJ", "HOT9", "receipt")
        if code is None:
            return self.item.quarantined(row, "medication", storage.NO_CODE)
        if start is None:
            return self.item.quarantined(row, "medication", storage.NO_DATE)
        return RecordRow(
            site=self.site,
            patient_id=self.item.patient_id,
            kind="medication",
            start_at=start,
            end_at=self._after(start, end),
            code_system=(code.system or "local") if code.code else None,
            code=code.code or None,
            name=code.name or None,
            value=value,
            unit=self._unit(unit) if value is not None else None,
            certainty="final",
        )


def _system_of(rules: MessageRules, said: str) -> str:
    return next((system for system, names in rules.code_systems.items() if said in names), "")


def _holds(name: str, parts: list[str]) -> bool:
    folded = name.casefold()
    return any(narrow(part).casefold() in folded for part in parts)
