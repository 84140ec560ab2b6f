"""A patient's life in the hospital: courses of disease become exams, reports, records and the truth behind them.

Every patient has a stream of chance of their own, from the seed and their number. So any patient can be made alone, in
any process, and comes out the same.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from reportlabel.synth.bank import Bank, Course, Reader, SiteFile, State, Step, compile_sentence, labels_of
from reportlabel.synth.compose import Composed, Lesion, Prior, Request, compose, written_date
from reportlabel.synth.patient import (
    Canary,
    Exam,
    GoldLabel,
    GoldMention,
    GoldRecord,
    GoldState,
    IdentifierSpan,
    Identity,
    PatientFile,
    Record,
    Refusal,
    Report,
    Stay,
)
from reportlabel.synth.template import ABSENT, PRESENT, UNCERTAIN, VALUE, Mark, Pen, Sequence_

FIRST_DAY = datetime(2010, 1, 4)
LAST_DAY = datetime(2025, 12, 31, 23, 59)
_STRENGTH = {PRESENT: 2, UNCERTAIN: 1, ABSENT: 0}


def simulate(bank: Bank, *, seed: int, number: int) -> PatientFile:
    """All of patient ``number`` of the hospital that ``seed`` makes."""
    return _Life(bank, seed, number).live()


@dataclass(frozen=True, slots=True)
class _Due:
    """A step at its time, with the course it belongs to."""

    when: datetime
    order: int
    step: Step
    course: Course


@dataclass(slots=True)
class _Life:
    """One patient on the way through time."""

    bank: Bank
    seed: int
    number: int
    chance: random.Random = field(init=False)
    file: PatientFile = field(init=False)
    site: SiteFile = field(init=False)
    course: Course = field(init=False)
    lesions: dict[str, Lesion] = field(default_factory=dict)
    upcoming: list[tuple[datetime, str]] = field(default_factory=list)
    reported: dict[str, Prior] = field(default_factory=dict)
    open_diagnoses: dict[str, int] = field(default_factory=dict)
    open_drugs: dict[str, int] = field(default_factory=dict)
    disease_known: bool = False
    height: float = 0.0
    weight: float = 0.0

    def __post_init__(self) -> None:
        self.chance = random.Random(f"reportlabel {self.seed} {self.number}")  # noqa: S311 - nothing here is secret

    # --- one step after another

    def live(self) -> PatientFile:
        chance, bank = self.chance, self.bank
        self.site = chance.choices(bank.sites.sites, weights=[one.weight for one in bank.sites.sites])[0]
        self.course = _any_course(bank, chance)
        sex = chance.choices(list(self.course.sex), weights=list(self.course.sex.values()))[0]
        age = _age(self.course, chance)
        start = FIRST_DAY + timedelta(days=chance.random() * (LAST_DAY - FIRST_DAY).days * 0.97, hours=9)
        due = list(_expand(self.course, self.course.steps, start, chance))
        if chance.random() < bank.background.second_course:
            due += self._second_course(sex, age, start)
        due = sorted((one for one in due if one.when <= LAST_DAY), key=lambda one: (one.when, one.order))
        identity = _identity(bank, self.site, self.number, sex, start, age, chance)
        self.file = PatientFile(number=self.number, identity=identity, disease=self.course.disease)
        self.height = chance.gauss(167 if sex == "M" else 154, 6.5)
        self.weight = max(34.0, (self.height / 100) ** 2 * chance.gauss(22.8, 3.2))
        self._draw_incidental(sex, due)
        self._draw_chronic(age, due)
        for one in due:
            self._do(one)
        self._refuse(due)
        self._know()
        self.file.records.sort(key=lambda record: (record.start_at, record.record_id))
        return self.file

    def _second_course(self, sex: str, age: float, start: datetime) -> list[_Due]:
        course = _any_course(self.bank, self.chance)
        if course is self.course or not course.sex.get(sex, 0) or not course.age.min <= age <= course.age.max:  # type: ignore[call-overload]
            return []
        begin = start + timedelta(days=self.chance.uniform(-700, 900))
        return list(_expand(course, course.steps, max(begin, FIRST_DAY), self.chance))

    def _draw_incidental(self, sex: str, due: Sequence[_Due]) -> None:
        """Which common states the patient has from the beginning, and which come while they are followed."""
        if not due:
            return
        young, old = self._age(due[0].when), self._age(due[-1].when)
        taken: set[str] = set()
        own = {state for one in due for state in one.step.begin}
        for name, state, most in _incidental(self.bank):
            draw = self.chance.random()
            if draw >= most or sex not in state.sexes or name in own or taken & set(state.opposes):
                continue
            if draw < state.prevalence(sex, young):
                taken.add(name)
                self._begin(name, {}, due[0].when)
            elif draw < state.prevalence(sex, old):
                taken.add(name)
                span = (due[-1].when - due[0].when).total_seconds()
                self.upcoming.append((due[0].when + timedelta(seconds=span * self.chance.random()), name))
        self.upcoming.sort()

    def _draw_chronic(self, age: float, due: Sequence[_Due]) -> None:
        if not due:
            return
        when = due[0].when - timedelta(days=self.chance.uniform(100, 2500))
        for one in self.bank.background.chronic.values():
            if self.chance.random() >= _share(one.share, age):
                continue
            for name in one.diagnoses:
                self._diagnose(name, when, certainty="confirmed")
            if one.drugs and self.chance.random() < 0.8:
                self._start_drug(self.chance.choice(one.drugs), when + timedelta(days=1), stays=True)

    def _age(self, when: datetime) -> float:
        return (when.date() - self.file.identity.birth_date).days / 365.25

    def _do(self, due: _Due) -> None:
        step, when = due.step, due.when
        while self.upcoming and self.upcoming[0][0] <= when:
            began, name = self.upcoming.pop(0)
            self._begin(name, {}, began)
        for name, lesion in list(self.lesions.items()):
            if lesion.fades_at is not None and lesion.fades_at <= when:
                del self.lesions[name]
        for name, given in step.begin.items():
            self._begin(name, given or {}, when)
        for name, given in step.change.items():
            self._change(name, given)
        for name in step.end:
            self.lesions.pop(name, None)
        if step.exam is not None:
            self._examine(step, when, due.course)
        for name in step.prove:
            if name in self.lesions:
                self.lesions[name].proven = True
        for name in step.diagnose:
            self._diagnose(name, when, certainty="confirmed")
            self.disease_known = self.disease_known or due.course is self.course
        for name in step.suspect:
            self._diagnose(name, when, certainty="suspected")
        for name in step.resolve:
            self._resolve(name, when)
        self._records_of(step, when)
        if step.admit is not None:
            self._admit(step, when, due.course)

    # --- states

    def _begin(self, name: str, given: Mapping[str, Any], when: datetime) -> None:
        state = self.bank.states[name]
        if self.file.identity.sex not in state.sexes or any(other in self.lesions for other in state.opposes):
            return
        attributes = dict(self.chance.choice(state.at)) if state.at else {}
        attributes |= {key: self.chance.choice(words) for key, words in state.draw.items()}
        source = self.lesions.get(str(given.get("from", "")))
        if source is not None:
            attributes |= {key: words for key, words in source.attributes.items() if key in attributes}
        size = _number(state.size, self.chance)
        if source is not None and source.size is not None and size is not None:
            size = source.size
        lesion = Lesion(name, attributes, when, size=size, count=None)
        if state.count is not None:
            lesion.count = self.chance.randint(*state.counts.get(attributes.get("extent", ""), state.count))
        if state.fades is not None:
            lesion.fades_at = when + timedelta(days=self.chance.uniform(*state.fades))
        self._remove(state.removes, lesion)
        self.lesions[name] = lesion
        self._change(name, {key: value for key, value in given.items() if key != "from"})

    def _remove(self, names: Sequence[str], gone: Lesion) -> None:
        """What lay in an organ that was taken out goes with it: same side, and same lobe where there are lobes."""
        for name in names:
            lesion = self.lesions.get(name)
            if lesion is not None and all(
                lesion.attributes.get(key) == words for key, words in gone.attributes.items() if key in ("side", "lobe")
            ):
                del self.lesions[name]

    def _change(self, name: str, given: Mapping[str, Any]) -> None:
        lesion = self.lesions.get(name)
        if lesion is None:
            return
        for key, value in given.items():
            if key == "size":
                lesion.size = _changed_number(lesion.size, value, self.chance)
            elif key == "count":
                count = _changed_number(lesion.count, value, self.chance)
                lesion.count = None if count is None else max(1, round(count))
            else:
                words = self.chance.choice(value) if isinstance(value, list) else value
                lesion.attributes[key] = str(words)

    # --- exams and reports

    def _examine(self, step: Step, when: datetime, course: Course) -> None:
        bank, chance = self.bank, self.chance
        exam = bank.exams[str(step.exam)]
        kind = exam.kind
        sex = self.file.identity.sex
        if sex not in kind.sexes:
            return
        when = _moment(when, step.setting, chance)
        count = len(self.file.exams)
        serial = self.number * 1000 + count
        exam_id, report_id = f"E{serial:010d}", f"R{serial:010d}"
        accession = f"{10_000_000_000 + serial * 7 % 90_000_000_000}"
        reader, second = _two_readers(self.site, chance)
        contrast = self._contrast(kind.contrast, kind.modality)
        doctor = _doctor(self.site.id, bank, chance)
        department = course.department if course.department in self.site.departments else self.site.departments[0]
        priors = [self.reported[name] for name in kind.compare_with if name in self.reported]
        prior = max(priors, key=lambda one: one.when, default=None)
        read = chance.random() >= bank.noise.report_missing
        composed = compose(
            bank,
            Request(
                exam=exam if contrast else bank.plain_exams.get(kind.id, exam),
                when=when,
                site=self.site,
                reader=reader,
                second=second,
                sex=sex,
                age=int(self._age(when)),
                disease=self.course.disease if self.disease_known else "",
                reason=step.reason,
                contrast=contrast,
                lesions=list(self.lesions.values()),
                prior=prior,
                people=self._people(reader, second, doctor, accession, when),
            ),
            chance,
        )
        machine = chance.choice(bank.sites.machines[kind.modality])
        dose = bank.sites.doses.get(kind.id, bank.sites.doses.get(kind.modality, {}))
        body_known = chance.random() >= bank.noise.body_unknown
        self.file.exams.append(
            Exam(
                exam_id=exam_id,
                site=self.site.id,
                kind=kind.id,
                modality=kind.modality,
                modality_class=kind.modality_class,
                body_part=kind.body_part,
                jj1017=kind.jj1017,
                order_name=chance.choice(kind.orders),
                accession_number=accession,
                order_number=f"{serial * 11 % 10**15:015d}",
                study_instance_uid=f"1.2.392.299999.{self.site.facility_code}.{when:%Y%m%d}.{serial}",
                started_at=when,
                protocol_name=kind.name.en,
                department=department,
                requesting_doctor=doctor,
                technologist=_doctor(self.site.id, bank, chance),
                manufacturer=machine.maker,
                model=machine.model,
                station=machine.station,
                indication=composed.indication,
                diagnosis=self.course.disease if self.disease_known else "",
                setting=step.setting,
                age_years=int(self._age(when)),
                height_cm=round(self.height, 1) if body_known else None,
                weight_kg=round(self.weight + chance.gauss(0, 1.5), 1) if body_known else None,
                contrast_agent=contrast[0] if contrast else None,
                contrast_ml=contrast[1] if contrast else None,
                ctdi_vol=_dose(dose.get("ctdi_vol"), chance),
                dlp=_dose(dose.get("dlp"), chance),
                tracer=chance.choice(kind.tracer) if kind.tracer else None,
                dose_mbq=_dose(bank.sites.tracer_dose.get(kind.modality), chance) if kind.tracer else None,
                report_id=report_id if read else None,
            )
        )
        self._truth(exam_id, composed)
        if not read:
            self._label(exam_id, None, kind.id, None)
            return
        self.reported[kind.id] = Prior(when, kind.name.ja, composed.reported)
        self._report(composed, exam_id, report_id, when, reader, second, kind.id)

    def _contrast(self, share: float, modality: str) -> tuple[str, float] | None:
        agents = self.bank.styles.agents.get(modality)
        if agents is None or self.chance.random() >= share:
            return None
        if modality == "MR":
            return self.chance.choice(agents), float(round(self.weight * 0.1 + 3))
        return self.chance.choice(agents), float(self.chance.choice((80, 90, 95, 100, 100, 120, 135)))

    def _people(self, reader: Reader, second: Reader, doctor: str, accession: str, when: datetime) -> Mapping[str, str]:
        """Everything that a text could say and that identifies."""
        identity, known = self.file.identity, self.bank.identifiers
        code = known.area_codes[self.site.id][0]
        return _Lazy(
            {
                "patient": identity.name,
                "patient_kana": identity.kana,
                "patient_id": identity.patient_id,
                "accession": accession,
                "reader": reader.name,
                "reader_family": reader.name.split()[0],
                "second_family": second.name.split()[0],
                "doctor_family": doctor.split(maxsplit=1)[0],
                "hospital": known.other_hospitals[self.number % len(known.other_hospitals)],
                "phone": f"{code}-{3000 + self.number % 6000:04d}-{self.number * 37 % 10000:04d}",
                "extension": f"PHS {6000 + self.number % 900}",
            },
            earlier=lambda: written_date(when - timedelta(days=20), self.site.dates, self.bank, self.chance),
        )

    def _report(
        self,
        composed: Composed,
        exam_id: str,
        report_id: str,
        when: datetime,
        reader: Reader,
        second: Reader,
        kind: str,
    ) -> None:
        chance, noise = self.chance, self.bank.noise
        confirmed = when + timedelta(minutes=round(chance.lognormvariate(5.2, 1.2)) + 10)
        version = 1
        text, marks = composed.text, composed.marks

        def add(status: str, at: datetime, words: str) -> None:
            nonlocal version
            findings = composed.sections.get("findings", (0, len(words)))
            impression = composed.sections.get("impression", (0, 0))
            tail = words[len(composed.text) :]
            self.file.reports.append(
                Report(
                    report_id=report_id,
                    exam_id=exam_id,
                    version=version,
                    status=status,
                    confirmed_at=at,
                    reader=reader.name,
                    second_reader=second.name if status != "preliminary" and chance.random() < 0.6 else None,
                    text=words,
                    findings_text=words[slice(*findings)] + tail,
                    impression_text=words[slice(*impression)],
                )
            )
            version += 1

        if chance.random() < noise.report_preliminary:
            end = composed.sections.get("findings", (0, len(text)))[1]
            add("preliminary", confirmed, text[:end])
            confirmed += timedelta(hours=round(chance.uniform(2, 70)))
        add("final", confirmed, text)
        if chance.random() < noise.report_amended:
            text, marks = self._amended(composed, kind)
            confirmed += timedelta(hours=round(chance.uniform(3, 400)))
            add("amended", confirmed, text)
        for mark in marks:
            self.file.gold_mentions.append(
                GoldMention(
                    report_id, mark.start, mark.end, mark.id, mark.status, mark.surface, mark.state, mark.side,
                    mark.size_mm,
                )
            )  # fmt: skip
        for mark in composed.identifiers:
            self.file.identifier_spans.append(
                IdentifierSpan(report_id, mark.start, mark.end, mark.id, text[mark.start : mark.end])
            )
        self._label(exam_id, report_id, kind, composed, marks)

    def _amended(self, composed: Composed, kind: str) -> tuple[str, list[Mark]]:
        """The text with an addendum: a lesion that was missed, or a remark without findings."""
        bank, chance = self.bank, self.chance
        exam = bank.exams[kind]
        missed = [lesion for lesion in composed.missed if lesion.state in exam.findings]
        pen = Pen(chance, str, register=chance.randrange(3))
        pen.length = len(composed.text)
        pen.put("\n")
        sources = bank.styles.missed_addendum if missed else bank.styles.addenda
        pen.write(_compiled(chance.choice(sources)))
        if missed:
            lesion = missed[0]
            entry = exam.findings[lesion.state]
            sentence = min(entry.first, key=lambda one: len(one.source))
            words = dict(lesion.attributes)
            size = f"{max(1, round(lesion.size))}mm" if lesion.size is not None else ""
            words |= {"size": size, "size_mm": size[:-2], "count": str(lesion.count or "")}
            register = ("polite", "plain", "terse")[pen.register]
            styles = bank.styles
            words |= {name: chance.choice(forms[register]) for name, forms in styles.predicates.items()}
            words |= {f"{name}_": chance.choice(forms) for name, forms in styles.continuing.items()}
            words |= {"judge": words["utagau"], "judge_": words["utagau_"]}
            pen.value_of = lambda name: words.get(name, "")
            pen.firm, pen.state = False, lesion.state
            pen.write(sentence.body)
        text = composed.text + pen.text()
        return text, [*composed.marks, *pen.marks]

    # --- gold

    def _truth(self, exam_id: str, composed: Composed) -> None:
        sides = self.bank.styles.sides
        for lesion in self.lesions.values():
            words = lesion.attributes
            place = " ".join(words[key] for key in ("lobe", "segment", "place", "level", "pole") if key in words)
            self.file.gold_states.append(
                GoldState(
                    exam_id=exam_id,
                    patient_id=self.file.identity.patient_id,
                    state=lesion.state,
                    side=sides.get(words.get("side", "")),
                    place=place,
                    size_mm=None if lesion.size is None else round(lesion.size, 1),
                    stage=words.get("stage", ""),
                    reported=lesion.state in composed.reported,
                    known=lesion.proven,
                )
            )

    def _label(
        self,
        exam_id: str,
        report_id: str | None,
        kind_id: str,
        composed: Composed | None,
        marks: Sequence[Mark] = (),
    ) -> None:
        """The labels that the report speaks of, and those that are true of the patient."""
        exam = self.bank.exams[kind_id]
        kind = exam.kind
        for label_set in kind.label_sets:
            values: dict[str, str] = {}
            for mark in marks:
                if mark.status == VALUE:
                    values[mark.id] = _greatest(values.get(mark.id), unicodedata.normalize("NFKC", mark.surface))
                    continue
                denied = mark.status == ABSENT
                for label in labels_of(kind, mark.id, label_set, denied=denied):
                    now = values.get(label)
                    if now is None or _STRENGTH.get(mark.status, -1) > _STRENGTH.get(now, -1):
                        values[label] = mark.status
            if composed is not None:
                _special(values, label_set, composed)
            true = {
                label
                for state in self.lesions
                if state in kind.findings
                for finding in kind.findings[state].truth
                for label in labels_of(kind, finding, label_set)
            }
            for label in sorted(values.keys() | true):
                self.file.gold_labels.append(
                    GoldLabel(
                        exam_id=exam_id,
                        report_id=report_id,
                        label_set=label_set,
                        finding=label,
                        value=values.get(label, "not_mentioned"),
                        truth=PRESENT if label in true else None,
                    )
                )

    # --- records

    def _records_of(self, step: Step, when: datetime) -> None:
        bank = self.bank
        day = _moment(when, "outpatient", self.chance)
        for name in step.pathology:
            self._pathology(name, day)
        for name in step.surgery:
            operation = bank.surgery[name]
            notes = self._words(operation.notes, operation.about, day)
            self._record(
                "surgery", day, code_system=operation.k_code[:1], code=operation.k_code, name=operation.name,
                text=notes, body_site=operation.organ, side=self._side(operation.about),
                reported_at=day + timedelta(hours=6), codes={"receipt": operation.receipt_code},
                end_at=day + timedelta(minutes=round(self.chance.uniform(40, 320))),
            )  # fmt: skip
        for name in step.physiology:
            self._measure(name, day)
        self._laboratory(step.labs, day)
        for name in step.start:
            self._start_drug(name, day)
        for name in step.stop:
            self._stop_drug(name, day)

    def _pathology(self, name: str, day: datetime) -> None:
        specimen, chance = self.bank.pathology[name], self.chance
        diagnosis = self._words(specimen.diagnosis, specimen.about, day)
        findings = self._words(specimen.findings, specimen.about, day)
        side = self._side(specimen.about)
        details = {"specimen": specimen.specimen, "method": specimen.method, "diagnosis": diagnosis}
        details |= {"findings": findings} if findings else {}
        certainty = "final"
        wrong = side in ("right", "left") and chance.random() < self.bank.noise.record_contradicting
        if wrong:
            side = "left" if side == "right" else "right"
        if specimen.addendum and chance.random() < self.bank.noise.record_amended * 4:
            details["addendum"] = self._words(specimen.addendum, specimen.about, day)
            certainty = "corrected"
        number = f"{self.site.id[:1].upper()}{day:%y}-{(self.number * 37 + len(self.file.records)) % 1_000_000:06d}"
        record = self._record(
            "pathology", day, code_system="local", code=number,
            name=specimen.specimen, text="\n".join(filter(None, (diagnosis, findings))), body_site=specimen.organ,
            side=side, certainty=certainty, reported_at=day + timedelta(days=chance.uniform(2, 11)), details=details,
        )  # fmt: skip
        if wrong and record is not None:
            self.file.gold_records.append(GoldRecord(record, "contradicting", specimen.about))

    def _words(self, sources: Sequence[str], about: str | None, when: datetime) -> str:
        if not sources:
            return ""
        lesion = self.lesions.get(about or "")
        words: dict[str, str] = dict(lesion.attributes) if lesion else {}
        size = lesion.size if lesion else None
        millimetres = max(1, round(size if size is not None else self.chance.uniform(6, 24)))
        words |= {"size": f"{millimetres}mm", "size_mm": str(millimetres)}
        words |= {"age": str(int(self._age(when))), "count": str(lesion.count or 1) if lesion else "1"}
        if about:
            words = _fallback(self.bank.states.get(about), self.chance) | words
        pen = Pen(self.chance, lambda name: words.get(name, ""), register=1)
        pen.write(_compiled(self.chance.choice(sources)))
        return pen.text()

    def _side(self, about: str | None) -> str | None:
        lesion = self.lesions.get(about or "")
        return self.bank.styles.sides.get(lesion.attributes.get("side", "")) if lesion else None

    def _measure(self, name: str, day: datetime) -> None:
        test, chance = self.bank.physiology[name], self.chance
        details: dict[str, str] = {}
        for quantity, (low, high, unit) in test.values.items():
            places = 0 if high >= 20 else 2 if high < 3 else 1
            details[quantity] = f"{chance.uniform(low, high):.{places}f} {unit}".strip()
        self._record(
            "physiology", day, code_system="JLAC10", code=test.code, name=test.name,
            text=self._words(test.findings, None, day), details=details,
            reported_at=day + timedelta(hours=chance.uniform(1, 40)),
        )  # fmt: skip

    def _laboratory(self, asked: list[str] | dict[str, str] | str, day: datetime) -> None:
        laboratory = self.bank.laboratory
        levels: dict[str, tuple[str, str]] = {}
        if isinstance(asked, dict):
            levels = {name: (level, "") for name, level in asked.items()}
        else:
            for panel in [asked] if isinstance(asked, str) else asked:
                levels |= {name: (level, panel) for name, level in laboratory.panels[panel].items()}
        sex = self.file.identity.sex
        known = day + timedelta(minutes=round(self.chance.uniform(35, 160)))
        for name, (level, panel) in levels.items():
            analyte = laboratory.analytes[name]
            low, high = analyte.sex_ranges.get(sex, (analyte.low, analyte.high))  # type: ignore[call-overload]
            least, most = analyte.values[level]
            value = round(self.chance.uniform(least, most), analyte.decimals)
            flag = "H" if high is not None and value > high else "L" if low is not None and value < low else ""
            self._record(
                "lab", day, code_system="JLAC10", code=analyte.jlac10, name=analyte.name, value=value,
                unit=analyte.unit, low=low, high=high, flag=flag, certainty="final", reported_at=known,
                codes={"panel": panel} if panel else {},
            )  # fmt: skip

    def _diagnose(self, name: str, when: datetime, *, certainty: str) -> None:
        disease = self.bank.diagnosis[name]
        if name in self.open_diagnoses:
            if certainty == "suspected" or self.file.records[self.open_diagnoses[name]].certainty == "confirmed":
                return
            self._resolve(name, when)
        place = len(self.file.records)
        record = self._record(
            "diagnosis", when, code_system="ICD-10", code=disease.icd10, name=disease.name, certainty=certainty,
            codes={"MEDIS": disease.byomei, "exchange": disease.exchange}, can_be_lost=False,
        )  # fmt: skip
        if record is not None:
            self.open_diagnoses[name] = place

    def _resolve(self, name: str, when: datetime) -> None:
        place = self.open_diagnoses.pop(name, None)
        if place is not None:
            record = self.file.records[place]
            outcome = "recovered" if record.certainty == "confirmed" else "changed"
            self.file.records[place] = replace(record, end_at=when, details={**record.details, "outcome": outcome})

    def _start_drug(self, name: str, when: datetime, *, stays: bool = False) -> None:
        drug, chance = self.bank.medication[name], self.chance
        days = chance.randint(300, 2400) if stays else chance.randint(*drug.days)
        place = len(self.file.records)
        record = self._record(
            "medication", when, code_system="YJ", code=drug.yj, name=drug.name, end_at=when + timedelta(days=days),
            codes={"HOT9": drug.hot9, "receipt": drug.receipt_code}, can_be_lost=False,
            details={"dose": drug.dose, "unit": drug.unit, "usage": drug.usage, "route": drug.route},
        )  # fmt: skip
        if record is not None:
            self.open_drugs[name] = place

    def _stop_drug(self, name: str, when: datetime) -> None:
        place = self.open_drugs.pop(name, None)
        if place is not None:
            self.file.records[place] = replace(self.file.records[place], end_at=when)

    def _record(
        self,
        kind: str,
        start: datetime,
        *,
        code_system: str,
        code: str,
        name: str,
        text: str = "",
        value: float | None = None,
        unit: str = "",
        low: float | None = None,
        high: float | None = None,
        flag: str = "",
        certainty: str = "final",
        body_site: str = "",
        side: str | None = None,
        end_at: datetime | None = None,
        reported_at: datetime | None = None,
        codes: dict[str, str] | None = None,
        details: dict[str, str] | None = None,
        can_be_lost: bool = True,
    ) -> str | None:
        """Keep a record, unless it is lost on the way; now and then it comes late or twice. Returns its id."""
        chance, noise, gold = self.chance, self.bank.noise, self.file.gold_records
        fate = chance.random() if can_be_lost else 1.0
        if fate < noise.record_missing:
            gold.append(GoldRecord("", f"missing {kind}", name))
            return None
        record_id = f"K{self.number * 10_000 + len(self.file.records):011d}"
        fate -= noise.record_missing
        if fate < noise.record_late and reported_at is not None:
            reported_at += timedelta(days=chance.uniform(20, 120))
            gold.append(GoldRecord(record_id, "late", None))
        record = Record(
            record_id=record_id,
            kind=kind,
            site=self.site.id,
            patient_id=self.file.identity.patient_id,
            start_at=start,
            end_at=end_at,
            reported_at=reported_at.replace(microsecond=0) if reported_at else None,
            code_system=code_system,
            code=code,
            name=name,
            text=text,
            value=value,
            unit=unit,
            reference_low=low,
            reference_high=high,
            flag=flag,
            certainty=certainty,
            body_site=body_site,
            side=side,
            doctor=_doctor(self.site.id, self.bank, chance),
            codes=codes or {},
            details=details or {},
        )
        self.file.records.append(record)
        if noise.record_late <= fate < noise.record_late + noise.record_duplicated:
            again = f"K{self.number * 10_000 + len(self.file.records):011d}"
            self.file.records.append(replace(record, record_id=again))
            gold.append(GoldRecord(again, "duplicated", record_id))
        return record_id

    def _admit(self, step: Step, when: datetime, course: Course) -> None:
        assert step.admit is not None
        days = round(self.chance.uniform(*step.admit))
        before = min(days, self.chance.randint(0, 2))
        diagnoses = [record.record_id for record in self.file.records if record.kind == "diagnosis"]
        self.file.stays.append(
            Stay(
                stay_id=f"S{self.number * 100 + len(self.file.stays):010d}",
                site=self.site.id,
                admitted=(when - timedelta(days=before)).date(),
                discharged=(when + timedelta(days=days - before)).date(),
                department=course.department,
                main_diagnosis=diagnoses[-1] if diagnoses else "",
            )
        )

    # --- refusals, canaries

    def _refuse(self, due: Sequence[_Due]) -> None:
        known, chance = self.bank.identifiers.refusals, self.chance
        if not due or chance.random() >= known.share:
            return
        requester = chance.choice(known.requesters)
        study = chance.choice(known.studies) if chance.random() < 0.5 else None
        received = due[0].when + timedelta(days=chance.uniform(0, 1500))
        self.file.refusals.append(
            Refusal(
                patient_id=self.file.identity.patient_id,
                site=self.site.id,
                received=min(received, LAST_DAY).date(),
                scope="study" if study else "all_research",
                study=study,
                requester=requester,
                case=chance.choice(known.cases) if requester != "patient" else None,
            )
        )

    def _know(self) -> None:
        """The canaries of the patient: whatever of this appears in an output has leaked."""
        one = self.file.identity
        values = [
            ("name", one.name), ("kana", one.kana), ("roman", one.roman), ("address", one.address),
            ("phone", one.phone), ("postal_code", one.postal_code), ("patient_id", one.patient_id),
            ("birth_date", one.birth_date.isoformat()),
        ]  # fmt: skip
        values += [("accession_number", exam.accession_number) for exam in self.file.exams]
        values += [("order_number", exam.order_number) for exam in self.file.exams]
        values += [("study_instance_uid", exam.study_instance_uid) for exam in self.file.exams]
        values += [("pathology_number", record.code) for record in self.file.records if record.kind == "pathology"]
        self.file.canaries = [Canary(kind, value, one.patient_id) for kind, value in values]


# --- drawing ----------------------------------------------------------------------------------------------------------


class _Lazy(dict[str, str]):
    """Slots of which some are worked out only when a sentence uses them."""

    def __init__(self, known: Mapping[str, str], **later: Any) -> None:
        super().__init__(known)
        self._later = later

    def get(self, key: str, default: str = "") -> str:  # type: ignore[override]
        return str(self._later[key]()) if key in self._later else super().get(key, default)


def _special(values: dict[str, str], label_set: str, composed: Composed) -> None:
    """Labels that follow from others: a normal study beside a finding is none; the primary tumour has values."""
    for normal in ("no_finding", "normal_study"):
        if normal == "no_finding" and label_set != "chexpert_14":
            continue
        others = any(value in (PRESENT, UNCERTAIN) for name, value in values.items() if name != normal)
        if normal == "no_finding":
            values[normal] = PRESENT if values.get(normal) == PRESENT and not others else ABSENT
        elif label_set == "pet_ct" and values.get("abnormal_uptake") in (PRESENT, UNCERTAIN):
            values[normal] = ABSENT
    if label_set == "lung_ct":
        primary = composed.primary
        values["primary_size_mm"] = "not_mentioned" if primary.size_mm is None else f"{primary.size_mm:g}"
        values["primary_side"] = primary.side or "not_mentioned"
        values["primary_lobe"] = primary.lobe or "not_mentioned"


def _greatest(known: str | None, value: str) -> str:
    """Of two grades or categories of one report the higher counts."""
    numbers = known is not None and known.isdigit() and value.isdigit()
    return known if numbers and known is not None and int(known) > int(value) else value


def _expand(
    course: Course, steps: Sequence[Step], start: datetime, chance: random.Random, order: int = 0
) -> Iterator[_Due]:
    """The steps of a course at their times, all choices made."""
    clock = [start]

    def walk(these: Sequence[Step]) -> Iterator[_Due]:
        for step in these:
            if step.chance < 1 and chance.random() >= step.chance:
                yield from walk(step.otherwise)
                continue
            times = chance.randint(*step.repeat) if step.repeat else 1
            for _ in range(times):
                clock[0] += timedelta(days=chance.uniform(*step.after))
                yield _Due(clock[0], len(clock), step, course)
                yield from walk(step.steps)
                if step.one_of:
                    branch = chance.choices(step.one_of, weights=[one.weight for one in step.one_of])[0]
                    yield from walk(branch.steps)

    for number, due in enumerate(walk(steps), start=order):
        yield replace(due, order=number)


@cache
def _course_weights(bank: Bank) -> tuple[list[Course], list[float]]:
    courses = list(bank.courses.values())
    weights, total = [], 0.0
    for course in courses:
        total += course.weight
        weights.append(total)
    return courses, weights


def _any_course(bank: Bank, chance: random.Random) -> Course:
    courses, weights = _course_weights(bank)
    return chance.choices(courses, cum_weights=weights)[0]


def _age(course: Course, chance: random.Random) -> float:
    for _ in range(20):
        age = chance.gauss(course.age.mean, course.age.sd)
        if course.age.min <= age <= course.age.max:
            return age
    return course.age.mean


@cache
def _incidental(bank: Bank) -> tuple[tuple[str, State, float], ...]:
    """States that people have without a course, with the highest share at any age."""
    return tuple(
        (name, state, max(share for ages in state.incidental.values() for share in ages.values()))
        for name, state in bank.states.items()
        if state.incidental
    )


def _share(shares: Mapping[int, float], age: float) -> float:
    """In line between the ages given; nobody below the first."""
    return State(incidental={"M": dict(shares)}).prevalence("M", age)


def _number(span: tuple[float, float] | None, chance: random.Random) -> float | None:
    """Small sizes are commoner than large ones."""
    if span is None:
        return None
    low, high = span
    return float(low + (high - low) * chance.random() ** 1.6)


def _changed_number(now: float | None, value: Any, chance: random.Random) -> float | None:
    if isinstance(value, str) and value.startswith("x"):
        return None if now is None else now * float(value[1:])
    if isinstance(value, list):
        if isinstance(value[0], str):
            return None if now is None else now * chance.uniform(float(value[0][1:]), float(value[1][1:]))
        return chance.uniform(float(value[0]), float(value[1]))
    return float(value)


def _moment(when: datetime, setting: str, chance: random.Random) -> datetime:
    """Working days and hours, but for emergencies."""
    day = datetime(when.year, when.month, when.day)
    if setting == "emergency":
        return day + timedelta(minutes=int(chance.random() * 1440))
    while day.weekday() >= 5 and setting != "inpatient":
        day += timedelta(days=1)
    return day + timedelta(minutes=510 + int(chance.random() * 500))


def _dose(span: tuple[float, float] | None, chance: random.Random) -> float | None:
    return round(chance.uniform(*span), 1) if span else None


def _two_readers(site: SiteFile, chance: random.Random) -> tuple[Reader, Reader]:
    first = int(chance.random() * len(site.readers))
    second = (first + 1 + int(chance.random() * (len(site.readers) - 1))) % len(site.readers)
    return site.readers[first], site.readers[second]


@cache
def _doctors(site: str, bank: Bank) -> tuple[str, ...]:
    chance = random.Random(f"doctors {site}")  # noqa: S311 - nothing here is secret
    known = bank.identifiers
    names = []
    for _ in range(40):
        sex = chance.choice(("M", "F"))
        names.append(f"{chance.choice(known.surnames)[0]} {chance.choice(known.given_names[sex])[0]}")  # type: ignore[index]
    return tuple(names)


def _doctor(site: str, bank: Bank, chance: random.Random) -> str:
    names = _doctors(site, bank)
    return names[int(chance.random() * len(names))]


def staff(bank: Bank) -> list[Canary]:
    """Names and places that identify without being a patient's: doctors, readers, hospitals."""
    found = []
    for one in bank.sites.sites:
        found += [Canary("hospital", one.name, None), Canary("hospital", one.english, None)]
        found += [Canary("address", one.address, None), Canary("phone", one.phone, None)]
        found += [Canary("doctor", reader.name, None) for reader in one.readers]
        found += [Canary("doctor", name, None) for name in _doctors(one.id, bank)]
    found += [Canary("hospital", name, None) for name in bank.identifiers.other_hospitals]
    return list(dict.fromkeys(found))


def _identity(
    bank: Bank, site: SiteFile, number: int, sex: str, first: datetime, age: float, chance: random.Random
) -> Identity:
    known = bank.identifiers
    family = known.surnames[int(chance.random() * len(known.surnames))]
    given = chance.choice(known.given_names[sex])  # type: ignore[index]
    born = first.date() - timedelta(days=round(age * 365.25 + chance.random() * 0.9))
    area = chance.choice(known.area_codes[site.id])
    street = (
        f"{chance.choice(known.streets)}{chance.randint(1, 6)}丁目{chance.randint(1, 30)}番{chance.randint(1, 20)}号"
    )
    return Identity(
        # an odd factor that is no multiple of five permutes all numbers of eight digits, so that none comes twice
        patient_id=f"{(number * 7_654_321 + 1_234_567) % 100_000_000:08d}",
        site=site.id,
        name=f"{family[0]}　{given[0]}",
        kana=f"{family[1]}　{given[1]}",
        roman=f"{family[2]}^{given[2]}",
        sex=sex,
        birth_date=born,
        postal_code=f"{chance.randint(100, 399)}-{chance.randint(1, 9999):04d}",
        address=f"{chance.choice(known.places[site.id])}{street}{chance.choice(known.buildings)}",
        phone=f"{area}-{chance.randint(200, 999):03d}-{chance.randint(0, 9999):04d}",
    )


def _fallback(state: State | None, chance: random.Random) -> dict[str, str]:
    """Attributes for a record about a lesion that is gone: what was taken out is described all the same."""
    if state is None:
        return {}
    words = dict(chance.choice(state.at)) if state.at else {}
    return words | {key: chance.choice(options) for key, options in state.draw.items()}


@cache
def _compiled(source: str) -> Sequence_:
    return compile_sentence(source).body
