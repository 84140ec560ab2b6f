"""What pydantic cannot see in the bank: ids that lead nowhere, slots that nothing fills, findings without a label."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from reportlabel.synth.bank import Bank, CompiledExam, Sentence, Step, compile_sentence, labels_of
from reportlabel.synth.template import IDENTIFIER, JUDGED, VALUE, TemplateError

_ALWAYS = frozenset(
    {"age", "sexja", "disease", "prior_date", "interval", "exam", "judge", "judge_", "changed", "prior", "trend"}
)
_REQUEST = frozenset({"agent", "ml"})


def bank_problems(bank: Bank, label_ids: Mapping[str, Collection[str]]) -> list[str]:
    """Everything that is wrong with the bank, a line each: file and key, then the problem.

    Args:
        label_ids: label set -> the ids of its labels.
    """
    predicates = {*bank.styles.predicates, *(f"{name}_" for name in bank.styles.continuing)}
    problems = [
        f"exams/{name}.yaml: {problem}"
        for name, exam in bank.exams.items()
        for problem in _exam_problems(bank, exam, label_ids, predicates)
    ]
    for name, course in bank.courses.items():
        problems += [f"courses/{name}.yaml: {problem}" for problem in _step_problems(bank, course.steps)]
        problems += [f"courses/{name}.yaml: id is {course.id}"] if course.id != name else []
    problems += [f"records/{problem}" for problem in _record_problems(bank)]
    return problems


def _exam_problems(
    bank: Bank, exam: CompiledExam, label_ids: Mapping[str, Collection[str]], predicates: Collection[str]
) -> Iterator[str]:
    kind = exam.kind
    yield from (f"unknown label set {name}" for name in kind.label_sets if name not in label_ids)
    if len(bank.exams) > 1:
        yield from (f"compare_with: unknown exam {name}" for name in kind.compare_with if name not in bank.exams)
    if kind.modality not in bank.sites.machines:
        yield f"no machine for modality {kind.modality} in sites.yaml"
    for finding, entry in kind.gold.items():
        for name, labels in [*entry.items(), *entry.get("denies", {}).items()]:
            if name == "denies":
                continue
            if name not in kind.label_sets:
                yield f"gold.{finding}: {name} is no label set of this exam"
            yield from (
                f"gold.{finding}: {label} is no label of {name}"
                for label in labels
                if label not in label_ids.get(name, ())
            )
    known = _ALWAYS | set(predicates)
    for state, variants in exam.findings.items():
        where = f"findings.{state}"
        if state not in bank.states:
            yield f"{where}: unknown state"
            continue
        if variants.entry.group not in kind.groups:
            yield f"{where}: unknown group {variants.entry.group}"
        slots = known | bank.states[state].attributes
        sentences = [
            *variants.first, *variants.follow, *variants.known, *variants.impression_first,
            *variants.impression_follow, *variants.impression_known,
        ]  # fmt: skip
        for sentence in sentences:
            yield from (
                f"{where}: {problem}"
                for problem in _sentence_problems(kind.label_sets, exam, sentence, slots, label_ids)
            )
        for finding in variants.entry.truth:
            if (
                kind.label_sets
                and not any(_known_labels(exam, finding, name, label_ids) for name in kind.label_sets)
                and finding not in kind.gold
            ):
                yield f"{where}: truth {finding} is no label and not in gold"
    for remark in kind.remarks:
        yield from (
            f"remarks: unknown state {state}" for state in [*remark.unless, *remark.when] if state not in bank.states
        )
        if remark.group not in kind.groups:
            yield f"remarks: unknown group {remark.group}"
    frames = [*exam.normal_findings, *exam.normal_impression, *exam.advice]
    for sentence in [
        *frames,
        *(sentence for remarks in exam.remarks.values() for one in remarks for sentence in one.say),
    ]:
        yield from (
            f"remarks: {problem}" for problem in _sentence_problems(kind.label_sets, exam, sentence, known, label_ids)
        )
    for sentence in [
        *exam.techniques,
        *exam.techniques_contrast,
        *(one for many in exam.indications.values() for one in many),
    ]:
        yield from (f"unknown slot {{{slot}}} in: {sentence.source}" for slot in sentence.slots - known - _REQUEST)


def _known_labels(
    exam: CompiledExam, finding: str, label_set: str, label_ids: Mapping[str, Collection[str]]
) -> list[str]:
    return [label for label in labels_of(exam.kind, finding, label_set) if label in label_ids.get(label_set, ())]


def _sentence_problems(
    label_sets: Sequence[str],
    exam: CompiledExam,
    sentence: Sentence,
    slots: Collection[str],
    label_ids: Mapping[str, Collection[str]],
) -> Iterator[str]:
    yield from (f"unknown slot {{{slot}}} in: {sentence.source}" for slot in sorted(sentence.slots - set(slots)))
    judged = any(status == JUDGED for status, _ in sentence.marks)
    if judged != bool(sentence.slots & {"judge", "judge_"}):
        yield f"[~…] and {{judge}} go together: {sentence.source}"
    for status, finding in sentence.marks:
        if status == IDENTIFIER or finding in exam.kind.gold or not label_sets:
            continue
        if not any(finding in label_ids.get(name, ()) for name in label_sets):
            what = "value" if status == VALUE else "finding"
            yield f"{what} {finding} is no label of {', '.join(label_sets)} and not in gold: {sentence.source}"


def _step_problems(bank: Bank, steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        states = [*step.begin, *step.change, *step.end, *step.prove]
        froms = [str(given["from"]) for given in step.begin.values() if given and "from" in given]
        panels = [step.labs] if isinstance(step.labs, str) else list(step.labs) if isinstance(step.labs, list) else []
        asked: list[tuple[str, Collection[str], Sequence[str]]] = [
            ("state", bank.states, [*states, *froms]),
            ("exam", bank.exams, [step.exam] if step.exam else []),
            ("pathology", bank.pathology, step.pathology),
            ("diagnosis", bank.diagnosis, [*step.diagnose, *step.suspect, *step.resolve]),
            ("surgery", bank.surgery, step.surgery),
            ("physiology", bank.physiology, step.physiology),
            ("drug", bank.medication, [*step.start, *step.stop]),
            ("panel", bank.laboratory.panels, panels),
        ]
        for what, known, names in asked:
            yield from (f"unknown {what} {name}" for name in names if name not in known)
        if isinstance(step.labs, dict):
            for name, level in step.labs.items():
                analyte = bank.laboratory.analytes.get(name)
                if analyte is None or level not in analyte.values:
                    yield f"labs: unknown analyte or level {name}: {level}"
        slots = _ALWAYS
        for source in step.reason:
            try:
                unknown = compile_sentence(source).slots - slots
            except TemplateError as error:
                yield str(error)
                continue
            yield from (f"unknown slot {{{slot}}} in reason: {source}" for slot in unknown)
        for inner in (step.steps, step.otherwise, *(branch.steps for branch in step.one_of)):
            yield from _step_problems(bank, inner)


def _record_problems(bank: Bank) -> Iterator[str]:
    always = {"age", "size", "size_mm", "count"}
    for name, specimen in bank.pathology.items():
        sources = [*specimen.diagnosis, *specimen.findings, *specimen.addendum]
        yield from (
            f"pathology.yaml: {name}: {problem}" for problem in _about_problems(bank, specimen.about, sources, always)
        )
    for name, operation in bank.surgery.items():
        yield from (
            f"surgery.yaml: {name}: {problem}"
            for problem in _about_problems(bank, operation.about, operation.notes, always)
        )
    for panel, levels in bank.laboratory.panels.items():
        for name, level in levels.items():
            analyte = bank.laboratory.analytes.get(name)
            if analyte is None or level not in analyte.values:
                yield f"laboratory.yaml: panel {panel}: unknown analyte or level {name}: {level}"
    for name, analyte in bank.laboratory.analytes.items():
        if len(analyte.jlac10) != 17:
            yield f"laboratory.yaml: {name}: JLAC10 codes have 17 characters"
    for chronic in bank.background.chronic.values():
        yield from (
            f"background.yaml: unknown diagnosis {one}" for one in chronic.diagnoses if one not in bank.diagnosis
        )
        yield from (f"background.yaml: unknown drug {one}" for one in chronic.drugs if one not in bank.medication)


def _about_problems(bank: Bank, about: str | None, sources: Sequence[str], always: Collection[str]) -> Iterator[str]:
    state = bank.states.get(about) if about else None
    if about and state is None:
        yield f"unknown state {about}"
    slots = set(always) | (state.attributes if state else frozenset())
    for source in sources:
        try:
            sentence = compile_sentence(source)
        except TemplateError as error:
            yield str(error)
            continue
        yield from (f"unknown slot {{{slot}}} in: {source}" for slot in sorted(sentence.slots - slots))
