"""The labelling screen of a label set: Label Studio's configuration XML, made from the rules.

Left: what is doubtful, the report with coloured words, the linked records under it. Right: one row a finding, grouped
by region, with one key for each status. `controls` says which answers the screen can give; tasks and annotations are
checked against it in both directions, because the server checks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from xml.etree import ElementTree

from pydantic import Field

from reportlabel.errors import ConfigError
from reportlabel.rulebook.display import DisplayWords, load_display, named
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet, Strict, Value
from reportlabel.rulebook.read_yaml import Document, parse, read_yaml

SCREEN_FILE = "review_screen.yaml"
REPORT = "rl_report"
SPAN = "rl_span"
SPAN_FINDING = "rl_span_finding"
OUTCOME = "rl_outcome"
COMMENT = "rl_comment"
_PREFIX = "rl_"
SETTLED = "settled"
Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]


class StatusKeys(Strict):
    """A status: the modifier keys before the key of a finding, the key that marks words, its colours."""

    id: Value
    modifier: Literal["", "shift", "alt", "alt+shift"]
    span_key: str | None = None
    colour: Colour
    background: Colour


class Named(Strict):
    """An id and its word on the screen."""

    id: str
    name: str


class Outcome(Strict):
    """What a reader says of the exam as a whole."""

    id: Literal["settled", "second_look", "unfit"]
    name: str
    key: str


class Keys(Strict):
    """Keys that findings get: letters first, further ones where these do not suffice."""

    letters: list[Annotated[str, Field(pattern=r"^[a-z]$")]]
    further: list[Annotated[str, Field(pattern=r"^[a-z0-9]$")]]


class Doubtful(Strict):
    """Which findings stand in the box on top."""

    below: Annotated[float, Field(ge=0, le=1)]
    at_most: Annotated[int, Field(ge=1)]


class Texts(Strict):
    """The sentences of the screen; those in braces are filled in (in ``keys`` and ``instruction`` by `load_screen`)."""

    span_finding: str
    span_finding_missing: str
    check_first: str
    nothing_doubtful: str
    reason: str
    disagreement: str
    certainty: str
    conflict: str
    records: str
    no_records: str
    evidence_for: str
    same_day: str
    before: str
    after: str
    not_yet_known: str
    values: str
    keys: str
    outcome: str
    outcome_missing: str
    comment: str
    missing: str
    unread: str
    doubtful_first: str
    done: str
    instruction: str


class ScreenFile(Strict):
    """``rules/review_screen.yaml``. ``values``: key of a label that is no status -> ids of its values."""

    statuses: Annotated[list[StatusKeys], Field(min_length=4, max_length=4)]
    regions: list[Named]
    keys: Keys
    values: dict[str, list[str]]
    outcomes: Annotated[list[Outcome], Field(min_length=1)]
    doubtful: Doubtful
    kinds: list[Named]
    sources: dict[str, str]
    sexes: dict[str, str]
    units: dict[str, str]
    texts: Texts


class Screen(ScreenFile):
    """The screen with what its statuses and values are called."""

    words: DisplayWords

    def status_name(self, value: str) -> str:
        """The word of a status; another value as it is."""
        return named(self.words.statuses, value).ja

    def value_name(self, value: str) -> str:
        """The word of a side, a lobe or a status; another value as it is."""
        sides_and_lobes = (self.words.sides, self.words.lobes)
        known = next((names for names in sides_and_lobes if value in names), self.words.statuses)
        return named(known, value).ja


def load_screen(rules_folder: Path) -> Screen:
    """Read ``review_screen.yaml`` and the words of ``display.yaml`` of a rules folder.

    Raises:
        ConfigError: names file, line and key of what is wrong.
    """
    path = rules_folder / SCREEN_FILE
    document = read_yaml(path)
    screen = parse(document, ScreenFile)
    used = [one.span_key for one in screen.statuses if one.span_key] + [one.key for one in screen.outcomes]
    keys = [*used, *screen.keys.letters, *screen.keys.further]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ConfigError(f"{path}: keys are given twice: {', '.join(twice)}")
    for name, ids in (
        ("statuses", [one.id for one in screen.statuses]),
        ("modifiers", [one.modifier for one in screen.statuses]),
        ("outcomes", [one.id for one in screen.outcomes]),
    ):
        if len(set(ids)) < len(ids):
            raise ConfigError(f"{path}: {name} has something twice")
    if SETTLED not in {one.id for one in screen.outcomes}:
        raise ConfigError(f"{path}: outcomes needs {SETTLED}, or no exam could ever be settled")
    words = load_display(rules_folder)
    outcomes = "　".join(f"{one.key}＝{one.name.partition('（')[0]}" for one in screen.outcomes)
    names = {str(status): name.ja for status, name in words.statuses.items()} | {"outcomes": outcomes}
    filled = {key: _filled(document, key, text, names) for key, text in screen.texts if key in ("keys", "instruction")}
    texts = screen.texts.model_copy(update=filled)
    return Screen.model_validate({**screen.model_dump(exclude={"texts"}), "texts": texts, "words": words})


def _filled(document: Document, key: str, text: str, names: Mapping[str, str]) -> str:
    try:
        return text.format(**names)
    except (KeyError, IndexError, ValueError) as error:
        line = document.line(("texts", key))
        raise ConfigError(
            f"{document.path}:{line}: texts.{key}: in braces only {', '.join(names)} may stand"
        ) from error


@dataclass(frozen=True)
class Control:
    """One question of the screen.

    Attributes:
        id: of the label. name: shown. kind: status, choice (of a closed list) or text (typed in).
        answers: what may be stored, in order of the screen; empty for text. key: of a status.
        region: group on the screen; empty for values.
    """

    id: str
    name: str
    kind: Literal["status", "choice", "text"]
    answers: tuple[str, ...]
    key: str = ""
    region: str = ""


def controls(label_set: LabelSet, rules: Rulebook, screen: Screen) -> tuple[Control, ...]:
    """The questions of a label set in the order of the screen: findings grouped by region, then values.

    A finding stands with the region of its first finding of the rules; the region of the label set comes first.

    Raises:
        ConfigError: the label set has more findings than there are keys, or an id that the screen needs itself.
    """
    ids = [entry.id for entry in label_set.findings] + [value.id for value in label_set.values]
    taken = [one for one in ids if one.startswith(_PREFIX)]
    if taken:
        raise ConfigError(f"label set '{label_set.id}': ids must not begin with {_PREFIX}: {', '.join(taken)}")
    keys = hotkeys([entry.id for entry in label_set.findings], screen, label_set=label_set.id)
    order = [label_set.region, *(region.id for region in screen.regions)]

    def _region(finding: str) -> str:
        file = rules.files.get(finding)
        return file.region if file is not None and file.region in order else order[-1]

    asked = [
        Control(
            entry.id,
            entry.name.ja,
            "status",
            tuple(status.id for status in screen.statuses),
            keys[entry.id],
            _region(entry.any_of[0]),
        )
        for entry in label_set.findings
    ]
    asked.sort(key=lambda one: order.index(one.region))
    for value in label_set.values:
        known = screen.values.get(value.value_of, screen.values.get(value.value_of.partition(".")[2], []))
        answers = (*known, "not_mentioned") if known else ()
        asked.append(Control(value.id, value.name.ja, "choice" if known else "text", answers))
    return tuple(asked)


def hotkeys(ids: Sequence[str], screen: Screen, *, label_set: str) -> dict[str, str]:
    """Label id -> its key: the first free letter of the id, else the first free key.

    Raises:
        ConfigError: there are more labels than keys.
    """
    free = [*screen.keys.letters, *screen.keys.further]
    if len(ids) > len(free):
        raise ConfigError(f"label set '{label_set}' has {len(ids)} findings, and the review screen {len(free)} keys")
    keys: dict[str, str] = {}
    # initials of words first, over all labels, so that they are easy to keep in mind
    for letters in (lambda label: [word[0] for word in label.split("_") if word], list):
        for label in ids:
            if label in keys:
                continue
            letter = next((one for one in letters(label) if one in free and one in screen.keys.letters), None)
            if letter is not None:
                keys[label] = letter
                free.remove(letter)
    for label in ids:
        if label not in keys:
            keys[label] = free.pop(0)
    return {label: keys[label] for label in ids}


# --- the XML


def labelling_config(label_set: LabelSet, rules: Rulebook, screen: Screen) -> str:
    """The configuration XML of the screen of a label set.

    Raises:
        ConfigError: see `controls`.
    """
    asked = controls(label_set, rules, screen)
    root = ElementTree.Element("View")
    _add(root, "Style").text = _style(screen, asked)
    grid = _add(root, "View", className="rl-grid")
    _left(_add(grid, "View", className="rl-left"), asked, screen)
    _right(_add(grid, "View", className="rl-right"), asked, screen)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


def _add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, attributes)


def _left(left: ElementTree.Element, asked: Sequence[Control], screen: Screen) -> None:
    texts = screen.texts
    _add(left, "Header", value="$summary", size="5")
    _add(_add(left, "View", className="rl-check"), "HyperText", name="rl_check", value="$check_html", inline="true")
    # one line, so that the report does not jump when words are chosen
    spans = _add(left, "View", className="rl-spans")
    labels = _add(spans, "Labels", name=SPAN, toName=REPORT, showInline="true")
    for status in screen.statuses:
        if status.span_key is not None:
            _add(
                labels,
                "Label",
                value=screen.status_name(status.id),
                alias=status.id,
                background=status.colour,
                hotkey=status.span_key,
            )
    which = _add(
        _add(spans, "View", className="rl-span-finding"),
        "Taxonomy",
        name=SPAN_FINDING,
        toName=REPORT,
        perRegion="true",
        required="true",
        requiredMessage=texts.span_finding_missing,
        placeholder=texts.span_finding,
        leafsOnly="true",
        minWidth="260px",
        dropdownWidth="320px",
    )
    for one in asked:
        _add(which, "Choice", value=one.name, alias=one.id)
    _add(_add(left, "View", className="rl-report"), "Text", name=REPORT, value="$text", granularity="symbol")
    panel = _panel(left, texts.records)
    _add(
        _add(panel, "View", className="rl-records"),
        "HyperText",
        name="rl_records",
        value="$records_html",
        inline="true",
    )


def _right(right: ElementTree.Element, asked: Sequence[Control], screen: Screen) -> None:
    texts = screen.texts
    _add(_add(right, "View", className="rl-keys"), "Header", value=texts.keys, size="6")
    names = {region.id: region.name for region in screen.regions}
    groups: dict[str, list[Control]] = {}
    for one in asked:
        groups.setdefault(names.get(one.region, one.region) if one.kind == "status" else texts.values, []).append(one)
    for heading, members in groups.items():
        panel = _add(_panel(right, heading), "View", className="rl-rows")
        for one in members:
            _row(panel, one, screen)
    panel = _panel(right, texts.outcome)
    row = _add(panel, "View", className="rl-outcome")
    outcome = _add(
        row,
        "Choices",
        name=OUTCOME,
        toName=REPORT,
        choice="single-radio",
        showInline="true",
        required="true",
        requiredMessage=texts.outcome_missing,
    )
    for one_outcome in screen.outcomes:
        _add(
            outcome,
            "Choice",
            value=f"{one_outcome.name} [{one_outcome.key}]",
            alias=one_outcome.id,
            hotkey=one_outcome.key,
        )
    _add(
        _add(panel, "View", className="rl-comment"),
        "TextArea",
        name=COMMENT,
        toName=REPORT,
        rows="2",
        maxSubmissions="1",
        editable="true",
        placeholder=texts.comment,
    )


def _panel(parent: ElementTree.Element, heading: str) -> ElementTree.Element:
    # one Collapse a panel: of several panels in one, only the first opens
    return _add(_add(parent, "Collapse", bordered="false", open="true"), "Panel", value=heading)


def _row(panel: ElementTree.Element, one: Control, screen: Screen) -> None:
    row = _add(panel, "View", className=f"rl-row rl-{one.kind} rl-f-{one.id}")
    shown = f"{one.name} [{one.key}]" if one.key else one.name
    _add(_add(row, "View", className="rl-name"), "Header", value=shown, size="6")
    missing = screen.texts.missing.format(finding=one.name)
    if one.kind == "text":
        _add(
            row,
            "TextArea",
            name=one.id,
            toName=REPORT,
            rows="1",
            maxSubmissions="1",
            editable="true",
            placeholder=screen.status_name("not_mentioned"),
        )
        return
    choices = _add(
        row,
        "Choices",
        name=one.id,
        toName=REPORT,
        choice="single-radio",
        showInline="true",
        required="true",
        requiredMessage=missing,
    )
    if one.kind == "status":
        for status in screen.statuses:
            hotkey = f"{status.modifier}+{one.key}" if status.modifier else one.key
            _add(choices, "Choice", value=screen.status_name(status.id), alias=status.id, hotkey=hotkey)
        return
    # no key of its own, and in a menu none of Label Studio's automatic keys, which would collide
    choices.attrib.update(choice="single", layout="select")
    for answer in one.answers:
        _add(choices, "Choice", value=screen.value_name(answer), alias=answer)


_STYLE = """
.lsf-sidepanels__wrapper_align_right{display:none}
.lsf-sidepanels{padding-right:0!important}
.rl-grid{display:grid;grid-template-columns:minmax(0,1fr) minmax(560px,600px);gap:16px;align-items:start}
.rl-left{position:sticky;top:0;max-height:calc(100vh - 130px);overflow-y:auto}
.rl-check td,.rl-records td:last-child{white-space:nowrap}
.rl-check td:last-child{white-space:normal}
.rl-check{border:1px solid #d97706;border-radius:4px;padding:4px 8px;margin-bottom:6px}
.rl-spans{display:flex;gap:16px;align-items:center;min-height:40px;position:sticky;top:0;background:inherit;z-index:1}
.rl-spans .lsf-labels{margin:0}
.rl-report .lsf-htx-richtext{font-size:16px;line-height:2}
.rl-right .ant-collapse-header{padding:4px 8px!important}
.rl-right .ant-collapse-content-box{padding:2px 8px 6px!important}
.rl-keys h4{font-size:12px;margin:0 0 4px 8px!important;font-weight:400;color:#6b7280}
.rl-rows{display:flex;flex-direction:column}
.rl-row{display:grid;grid-template-columns:220px 1fr;align-items:center;min-height:30px;padding:0 4px 0 8px}
.rl-row{border-left:4px solid transparent}
.rl-row .rl-name h4{font-size:13px;margin:0!important;font-weight:600}
.rl-row .lsf-choices{margin:0;display:flex;flex-wrap:nowrap}
.rl-row .lsf-choice{margin:0 10px 0 0;white-space:nowrap}
.rl-row .lsf-choice label{font-size:13px}
.rl-row sup,.rl-outcome sup{display:none}
"""


def _style(screen: Screen, asked: Sequence[Control]) -> str:
    rows = [
        f".rl-status:has(.lsf-choice:nth-child({at}) .ant-radio-checked)"
        f"{{background:{status.background};border-left-color:{status.colour}}}"
        for at, status in enumerate(screen.statuses, start=1)
        if status.id != "not_mentioned"
    ]
    # what the box on top names as doubtful comes first in its group, with a frame
    doubtful = [
        f".rl-grid:has(.{doubt_class(one.id)}) .rl-f-{one.id}{{order:-1;outline:2px solid #d97706;outline-offset:-2px}}"
        for one in asked
    ]
    return "\n".join([_STYLE, *rows, *doubtful, ""])


def doubt_class(label: str) -> str:
    """The class of a line in the box on top; the screen moves the row of that label up."""
    return f"rl-doubt-{label}"


def names_of(asked: Sequence[Control]) -> Mapping[str, str]:
    """Label id -> name on the screen."""
    return {one.id: one.name for one in asked}
