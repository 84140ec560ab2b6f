"""`python -m reportlabel.synth.preview chest_ct --n 20`: reports of one kind of exam, for who edits the bank.

Marked expressions are shown as ``[finding phrase]`` with ``?`` for uncertain and ``-`` for absent.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console

from reportlabel.rulebook.load import load_rules
from reportlabel.synth.bank import BANK, Bank, load_bank
from reportlabel.synth.check import bank_problems
from reportlabel.synth.compose import Composed, Lesion, Prior, Request, compose
from reportlabel.synth.simulate import simulate
from reportlabel.synth.template import ABSENT, UNCERTAIN, Mark

_BEGIN, _END = "<!-- samples -->", "<!-- end of samples -->"
_SIGNS = {UNCERTAIN: "?", ABSENT: "-"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print reports of one kind of exam, or with --check what is wrong with the bank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exam", nargs="?")
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--plain", action="store_true", help="without marks")
    parser.add_argument("--class", dest="modality_class", help="reports of the hospital's patients: CT, MRI, US, …")
    parser.add_argument("--samples", type=Path, help="write the samples of every class into this page")
    parser.add_argument("--normal", action="store_true", help="only states that people have anyway")
    chosen = parser.parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    bank = load_bank(BANK, chosen.exam)
    if chosen.check:
        rules = load_rules()
        ids = label_ids_of(rules.label_sets)
        for problem in bank_problems(bank, ids):
            console.print(problem)
    if chosen.samples:
        page = chosen.samples.read_text(encoding="utf-8")
        chosen.samples.write_text(with_samples(page, bank), encoding="utf-8")
    if chosen.modality_class:
        for number, (kind, text) in enumerate(sample(bank, chosen.modality_class, n=chosen.n, seed=chosen.seed), 1):
            console.print(f"--- {number}  {kind}\n{text}")
    if chosen.exam:
        for number in range(chosen.n):
            composed = preview(bank, chosen.exam, seed=chosen.seed, number=number, ill=not chosen.normal)
            console.print(f"--- {number + 1}  {'/'.join(composed.reported)}  [request: {composed.indication}]")
            console.print(composed.text if chosen.plain else marked(composed.text, composed.marks))


def sample(bank: Bank, modality_class: str, *, n: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Kind of exam and text of n reports of a modality class: one a patient, of the patients of a hospital in turn."""
    number = found = 0
    while found < n:
        number += 1
        file = simulate(bank, seed=seed, number=number)
        kinds = {exam.exam_id: exam for exam in file.exams}
        fits = [one for one in file.reports if kinds[one.exam_id].modality_class == modality_class]
        if fits:
            found += 1
            report = fits[number % len(fits)]
            yield kinds[report.exam_id].kind, report.text


def with_samples(page: str, bank: Bank) -> str:
    """A page of the documentation with twenty reports of every modality class between its marks."""
    before, _, rest = page.partition(_BEGIN)
    after = rest.partition(_END)[2]
    parts = []
    for modality_class in ("CT", "MRI", "US", "XR", "RF", "XA", "NM"):
        reports = [
            f"({number}) {kind}\n{text}"
            for number, (kind, text) in enumerate(sample(bank, modality_class, n=20, seed=7), 1)
        ]
        parts.append(f"### {modality_class}\n\n```text\n" + "\n\n".join(reports) + "\n```\n")
    return f"{before}{_BEGIN}\n" + "\n".join(parts) + f"{_END}{after}"


def label_ids_of(label_sets: object) -> dict[str, set[str]]:
    """Label set -> ids of its findings and values."""
    ids: dict[str, set[str]] = {}
    for name, one in dict(label_sets).items():  # type: ignore[call-overload]
        ids[name] = {entry.id for entry in one.findings} | {entry.id for entry in getattr(one, "values", [])}
    return ids


def marked(text: str, marks: Sequence[Mark]) -> str:
    """The text with its marks in brackets."""
    for mark in sorted(marks, key=lambda one: -one.start):
        sign = _SIGNS.get(mark.status, "")
        text = f"{text[: mark.start]}[{sign}{mark.id} {text[mark.start : mark.end]}]{text[mark.end :]}"
    return text


def preview(bank: Bank, exam_id: str, *, seed: int = 0, number: int = 0, ill: bool = True) -> Composed:
    """One report of a made-up patient."""
    chance = random.Random(f"preview {exam_id} {seed} {number}")  # noqa: S311 - nothing here is secret
    exam = bank.exams[exam_id]
    sex = chance.choice(exam.kind.sexes)
    age = int(min(94, max(24, chance.gauss(64, 15))))
    site = chance.choice(bank.sites.sites)
    when = datetime(2015, 1, 5, 10) + timedelta(days=chance.randrange(3900))
    states = [
        name
        for name in exam.findings
        if sex in bank.states[name].sexes and chance.random() < bank.states[name].prevalence(sex, age)
    ]
    if ill:
        possible = [name for name in exam.findings if sex in bank.states[name].sexes]
        states += chance.sample(possible, k=min(len(possible), chance.choice((0, 1, 1, 2))))
    lesions = []
    for name in dict.fromkeys(states):
        state = bank.states[name]
        attributes = dict(chance.choice(state.at)) if state.at else {}
        attributes |= {key: chance.choice(words) for key, words in state.draw.items()}
        size = None if state.size is None else state.size[0] + (state.size[1] - state.size[0]) * chance.random() ** 1.6
        count = None if state.count is None else chance.randint(*state.count)
        lesions.append(Lesion(name, attributes, when, size=size, count=count, proven=chance.random() < 0.2))
    prior = None
    if chance.random() < 0.5:
        sizes = {
            one.state: None if one.size is None else round(one.size * chance.choice((1, 1, 0.7, 1.3)))
            for one in lesions
        }
        before = when - timedelta(days=chance.choice((7, 31, 92, 180, 366)))
        prior = Prior(before, exam.kind.name.ja, {name: size for name, size in sizes.items() if chance.random() < 0.8})
    people = {
        "patient": "見本　花子", "patient_kana": "ミホン　ハナコ", "patient_id": "00012345", "accession": "10000012345",
        "reader": site.readers[0].name, "reader_family": site.readers[0].name.split()[0], "doctor_family": "見本",
        "second_family": "手本", "hospital": "見本医院", "phone": "042-000-0000", "extension": "PHS 6001",
        "earlier": "先月",
    }  # fmt: skip
    return compose(
        bank,
        Request(
            exam=exam, when=when, site=site, reader=chance.choice(site.readers), second=site.readers[0], sex=sex,
            age=age, disease="精査中の疾患" if prior else "", reason=(), contrast=("造影剤", 100.0)
            if chance.random() < exam.kind.contrast else None, lesions=lesions, prior=prior, people=people,
        ),
        chance,
    )  # fmt: skip


if __name__ == "__main__":
    main()
