"""The annotation guide for readers, in Japanese: what each finding means, with its words and examples from the rules.

``python -m reportlabel.review.guide docs/review-guide.ja.md`` writes it. Labels of several label sets that mean the
same share one entry. An example is shown only where the rules give its label the value that stands beside it, in every
label set of the entry.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from rich.console import Console

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ExitCode, ReportLabelError
from reportlabel.export.atomic import AtomicText, check_writable
from reportlabel.flow import label_batch
from reportlabel.review.config import Screen, load_screen
from reportlabel.review.settings import GuideSection, GuideWords, load_settings
from reportlabel.rulebook.load import Rulebook, find_label_set, load_rules
from reportlabel.rulebook.models import Compose, Finding, LabelEntry, LabelSet, Value

FILE = "docs/review-guide.ja.md"


@dataclass(frozen=True)
class Topic:
    """One entry of the guide: a label, the label sets that have it, and where it stands on the screen."""

    entry: LabelEntry
    label_sets: tuple[str, ...]
    region: str


def review_guide(
    rules: Rulebook, words: GuideWords, screen: Screen, *, label_sets: Sequence[str] = (), file: str = FILE
) -> str:
    """The guide as Markdown; the same rules give the same text.

    Args:
        label_sets: ids of those to explain; none: all.
        file: named as the place of the page.

    Raises:
        ConfigError: an unknown label set.
    """
    chosen = {name: find_label_set(rules, name) for name in label_sets or rules.label_sets}
    topics = topics_of(chosen, rules, screen)
    examples = _examples(topics, chosen, rules, words)
    lines = [f"# {words.title}", "", words.made_by.replace("{file}", file), ""]
    for section in words.general:
        lines += [f"## {section.heading}", "", *(f"- {point}" for point in section.text), ""]
        lines += _general_examples(section, rules, words, screen)
    lines += [f"## {words.findings}", ""]
    for region in screen.regions:
        here = [topic for topic in topics if topic.region == region.id]
        if here:
            lines += [f"### {region.name}", ""]
        for topic in here:
            lines += _topic(topic, examples[topic.entry.id, topic.label_sets], rules, words, screen)
    return "\n".join(lines).rstrip() + "\n"


def topics_of(label_sets: Mapping[str, LabelSet], rules: Rulebook, screen: Screen) -> list[Topic]:
    """The labels, alike ones of several label sets together, in order of the label sets."""
    known = [region.id for region in screen.regions]
    alike: dict[tuple[object, ...], tuple[LabelEntry, list[str], str]] = {}
    for name, label_set in label_sets.items():
        for entry in label_set.findings:
            file = rules.files.get(entry.any_of[0])
            region = file.region if file is not None and file.region in known else known[-1]
            same = (tuple(entry.any_of), tuple(entry.at), tuple(entry.denied_by), entry.none_of_others)
            # what none of the others means depends on the label set
            key = (*same, name if entry.none_of_others else None)
            alike.setdefault(key, (entry, [], region))[1].append(name)
    return [Topic(entry, tuple(names), region) for entry, names, region in alike.values()]


def _general_examples(section: GuideSection, rules: Rulebook, words: GuideWords, screen: Screen) -> list[str]:
    rows = []
    for one in section.examples:
        label_set = find_label_set(rules, one.label_set)
        name = next((entry.name.ja for entry in label_set.findings if entry.id == one.finding), one.finding)
        rows.append(f"| {_cell(one.text)} | {name} | {screen.status_name(one.status)} |")
    return [f"| {words.example} | {words.label} | {words.status} |", "|---|---|---|", *rows, ""] if rows else []


_Told = dict[Value, list[str]]


def _examples(
    topics: Sequence[Topic], label_sets: Mapping[str, LabelSet], rules: Rulebook, words: GuideWords
) -> dict[tuple[str, tuple[str, ...]], _Told]:
    """Topic -> status -> texts of examples whose label has that status in all of its label sets.

    Those that are written for a label stand in front of those that it has from its findings.
    """
    annotator = Annotator(rules)
    offered = {(topic.entry.id, topic.label_sets): _offered(topic, rules, words) for topic in topics}
    given = {
        name: _values(
            sorted({text for topic in topics if name in topic.label_sets for text, _ in offered[_key(topic)]}),
            annotator,
            label_set,
        )
        for name, label_set in label_sets.items()
    }
    told: dict[tuple[str, tuple[str, ...]], _Told] = {}
    for topic in topics:
        ids = {name: _own(name, topic.entry, rules).id for name in topic.label_sets}
        fitting = told[_key(topic)] = {}
        for text, status in offered[_key(topic)]:
            some = fitting.setdefault(status, [])
            if text not in some and all(given[name][text, label] == status for name, label in ids.items()):
                some.append(text)
    return told


def _key(topic: Topic) -> tuple[str, tuple[str, ...]]:
    return topic.entry.id, topic.label_sets


def _offered(topic: Topic, rules: Rulebook, words: GuideWords) -> list[tuple[str, Value]]:
    """Text and status: examples written for the label, then those of its findings."""
    ids = {(name, _own(name, topic.entry, rules).id) for name in topic.label_sets}
    written = [(one.text, one.status) for one in words.examples if (one.label_set, one.finding) in ids]
    return written + [(one.text, one.status) for name in topic.entry.any_of for one in rules.findings[name].examples]


def _values(texts: Sequence[str], annotator: Annotator, label_set: LabelSet) -> dict[tuple[str, str], str]:
    """(text, label) -> its value, each text a report of its own."""
    if not texts:
        return {}
    reports = pl.DataFrame({"report_id": [str(number) for number in range(len(texts))], "text": texts})
    labels = label_batch(reports, annotator, label_set).labels
    return {(texts[int(row[0])], row[1]): row[2] for row in labels.select("report_id", "finding", "value").rows()}


def _topic(topic: Topic, examples: _Told, rules: Rulebook, words: GuideWords, screen: Screen) -> list[str]:
    entry = topic.entry
    concepts = [rules.findings[one] for one in entry.any_of]
    sets = words.separator.join(_label_of(name, entry, rules) for name in topic.label_sets)
    lines = [f"#### {entry.name.ja}", "", f"- {words.in_sets}：{sets}"]
    if len(concepts) > 1:
        names = dict.fromkeys(_name(one) for one in concepts)
        lines.append(f"- {words.any_of}：{words.separator.join(names)}")
    if entry.at:
        lines.append(f"- {words.at}：{_sites(entry.at, rules, words)}")
    terms = [term.text for one in concepts for term in one.terms if term.means is None]
    lines += _listed(words.terms, terms, words)
    composed = [line for one in concepts for part in one.compose if (line := _composed(part, rules, words))]
    if composed:
        composed = list(dict.fromkeys(composed))
        lines += [f"- {words.composed}", *(f"    - {line}" for line in composed)]
    lines += _listed(words.exclude, [text for one in concepts for text in one.exclude], words)
    implied = [name for one in concepts for name in one.implied_by]
    lines += _listed(words.implied_by, [_name(rules.findings[one]) for one in implied if one in rules.findings], words)
    lines += _listed(
        words.denied_by, [_name(rules.findings[one]) for one in entry.denied_by if one in rules.findings], words
    )
    if entry.none_of_others:
        lines.append(f"- {words.else_absent if entry.else_absent else words.none_of_others}")
    remarks = [words.remarks.get(name, {}).get(_own(name, entry, rules).id) for name in topic.label_sets]
    lines += [f"- {one}" for one in dict.fromkeys(remarks) if one]
    rows = [
        f"| {screen.status_name(status.id)} | {_cell(text)} |"
        for status in screen.statuses
        for text in examples.get(status.id, [])[: words.most_examples]
    ]
    lines.append("")
    if rows:
        lines += [f"| {words.status} | {words.example} |", "|---|---|", *rows, ""]
    return lines


def _own(name: str, entry: LabelEntry, rules: Rulebook) -> LabelEntry:
    """The label of a label set that means the same as ``entry``."""
    same = (entry.any_of, entry.at, entry.denied_by, entry.none_of_others)
    labels = rules.label_sets[name].findings
    return next(one for one in labels if (one.any_of, one.at, one.denied_by, one.none_of_others) == same)


def _label_of(name: str, entry: LabelEntry, rules: Rulebook) -> str:
    """Label set and id of the label in it, with its name where it has another one there."""
    own = _own(name, entry, rules)
    other = f"「{own.name.ja}」" if own.name.ja != entry.name.ja else ""
    return f"{rules.label_sets[name].name.ja}{other} `{own.id}`"


def _listed(heading: str, texts: Sequence[str], words: GuideWords) -> list[str]:
    shown = list(dict.fromkeys(texts))
    if not shown:
        return []
    rest = len(shown) - words.most_terms
    line = words.separator.join(_cell(text) for text in shown[: words.most_terms])
    return [f"- {heading}：{line}" + (f"（{words.more.replace('{number}', str(rest))}）" if rest > 0 else "")]


def _composed(part: Compose, rules: Rulebook, words: GuideWords) -> str | None:
    if part.finding not in rules.findings:
        return None
    hidden = {site for one in words.not_shown if one.finding == part.finding for site in one.at}
    shown = [site for site in part.at if site not in hidden]
    if not shown:
        return None
    sites = _sites(shown, rules, words)
    if part.unsited:
        sites += words.separator + words.unsited
    return words.composed_of.replace("{finding}", _name(rules.findings[part.finding])).replace("{sites}", sites)


def _sites(ids: Sequence[str], rules: Rulebook, words: GuideWords) -> str:
    """Names of sites; the first word of a site that has no name."""
    known = {site.id: site for site in rules.anatomy.sites}
    names = []
    for one in ids:
        site = known.get(one)
        names.append(site.name.ja if site and site.name else site.terms[0].text if site and site.terms else one)
    return words.separator.join(dict.fromkeys(names))


def _name(finding: Finding) -> str:
    return finding.name.ja


def _cell(text: str) -> str:
    """Text of the rules as Markdown: on one line, its marks as they are."""
    plain = " ".join(text.split("\n"))
    for mark in "\\|*_`[]<>":
        plain = plain.replace(mark, "\\" + mark)
    return plain


def main(arguments: list[str] | None = None) -> int:
    """Write the guide; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m reportlabel.review.guide", description="Write the review guide.")
    parser.add_argument("out", type=Path, help=f"the file to write: {FILE}")
    parser.add_argument("--rules", type=Path, help="another rules folder")
    parser.add_argument("--label-set", action="append", default=[], help="only this label set; may be repeated")
    options = parser.parse_args(arguments)
    try:
        check_writable(options.out)
        rules = load_rules(options.rules)
        words = load_settings(rules.folder / "review.yaml").guide
        text = review_guide(
            rules, words, load_screen(rules.folder), label_sets=options.label_set, file=options.out.as_posix()
        )
        with AtomicText(options.out) as file:
            file.write(text)
    except ReportLabelError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
        return int(error.exit_code)
    return int(ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main())
