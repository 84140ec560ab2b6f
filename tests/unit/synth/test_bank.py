"""The bank holds together, belongs to the generator, and says things that the rules do not know."""

import re
from pathlib import Path

import pytest

from reportlabel.annotate.lexicon import normal_term
from reportlabel.annotate.normalise import Normaliser
from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import load_rules
from reportlabel.synth.bank import BANK, State, load_bank
from reportlabel.synth.check import bank_problems
from reportlabel.synth.preview import label_ids_of, preview
from reportlabel.synth.simulate import simulate

PATIENTS = 250


@pytest.fixture(scope="module")
def phrases() -> set[str]:
    bank = load_bank()
    return {
        mention.surface
        for number in range(PATIENTS)
        for mention in simulate(bank, seed=11, number=number).gold_mentions
    }


def test_nothing_leads_nowhere() -> None:
    assert bank_problems(load_bank(), label_ids_of(load_rules().label_sets)) == []


def test_seven_modality_classes_and_every_label_set() -> None:
    kinds = [exam.kind for exam in load_bank().exams.values()]
    assert {"CT", "MRI", "US", "XR", "RF", "XA", "NM"} <= {kind.modality_class for kind in kinds}
    assert {name for kind in kinds for name in kind.label_sets} == set(load_rules().label_sets)


def test_every_exam_is_part_of_a_course() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (BANK / "courses").glob("*.yaml"))
    assert set(re.findall(r"exam: (\w+)", text)) == set(load_bank().exams)


def test_a_fifth_of_the_finding_expressions_are_no_terms_of_the_rules(phrases: set[str]) -> None:
    rules = load_rules()
    normaliser = Normaliser.from_rules(rules.normalise)
    terms = {normal_term(term.text, normaliser) for one in rules.findings.values() for term in one.terms}
    unknown = [phrase for phrase in phrases if normal_term(phrase, normaliser) not in terms]
    assert len(phrases) > 600
    assert len(unknown) / len(phrases) > 0.2


@pytest.mark.parametrize("exam", sorted(load_bank().exams))
def test_every_exam_can_be_reported_in_all_its_states(exam: str) -> None:
    for number in range(25):
        composed = preview(load_bank(), exam, number=number)
        assert composed.text.strip()
        assert not re.search(r"[{}<>|\[\]]", composed.text)
        for mark in composed.marks:
            assert composed.text[mark.start : mark.end] == mark.surface


def test_prevalence_is_in_line_between_the_ages_given() -> None:
    state = State(incidental={"M": {40: 0.0, 60: 0.2, 80: 0.4}})
    assert [round(state.prevalence("M", age), 3) for age in (30, 40, 50, 60, 70, 95)] == [0, 0, 0.1, 0.2, 0.3, 0.4]
    assert state.prevalence("F", 70) == 0


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("styles.yaml", "sections:", "chapters:", r"styles.yaml:\d+: unknown key 'chapters'"),
        ("noise.yaml", "report_slip: 0.06", "report_slip: 6", r"noise.yaml:\d+: report_slip"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, file: str, old: str, new: str, said: str) -> None:
    for path in BANK.rglob("*.yaml"):
        target = tmp_path / path.relative_to(BANK)
        target.parent.mkdir(parents=True, exist_ok=True)
        if "exams" not in path.parts and "courses" not in path.parts:
            target.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    changed = (tmp_path / file).read_text(encoding="utf-8")
    assert old in changed
    (tmp_path / file).write_text(changed.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        load_bank(tmp_path)
