"""(a) Precedence and weighted majority: what to believe where nothing was learned from reviewed exams.

The score (log-odds) of a case and label begins with what the report says, ``report`` of aggregate.yaml. The other
functions add to it:

- Functions of one group, given or found, speak with one voice: of its votes for present the strongest counts, of those
  for absent and for uncertain likewise. The report is not part of a group here. A vote weighs
  ``weights[kind][value]`` times its confidence.
- The voices for present and absent add up to r. The report's statement moves by r; where it leaves the finding open,
  by what r exceeds ``report.steady``.
- Voices for uncertain, by what they exceed the same group's voice for present, then lift the score by their sum, no
  further than ``uncertain_up_to``.
- A vote for present of a group of ``never_alone`` (diagnoses) counts as one for uncertain unless a function outside
  these groups says present too.

A vote for present therefore never lowers the probability, and one for absent never raises it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reportlabel.aggregate.ballots import TEXT, UNCERTAIN, Ballot
from reportlabel.aggregate.label_model import ABSENT, OUTCOMES, SILENT, Floats, Integers
from reportlabel.aggregate.settings import AggregateSettings

Flags = npt.NDArray[np.bool_]

_PRESENT = OUTCOMES.index("present")


def weigh(ballot: Ballot, settings: AggregateSettings, *, groups: Integers) -> Floats:
    """(spoken,) uncalibrated probability of each case that has a vote.

    Args:
        groups: (functions,) number of the group of each function.
    """
    report = settings.report
    decided, doubted = _others(ballot, settings, groups)
    text = ballot.of_text()
    begin = np.array([report.silent, report.absent, report.uncertain, report.present])[text - SILENT]
    held = np.where(text == UNCERTAIN, report.steady, 0.0)
    score = begin + np.sign(decided) * np.maximum(np.abs(decided) - held, 0.0)
    score = np.maximum(score, np.minimum(score + doubted, settings.uncertain_up_to))
    return _probability(score, settings)


def unspoken(settings: AggregateSettings) -> float:
    """Uncalibrated probability of a case without any vote."""
    return float(_probability(np.array([settings.report.silent]), settings)[0])


def supported(ballot: Ballot, settings: AggregateSettings) -> Flags:
    """(spoken,) whether a function outside the groups that never stand alone says present or uncertain."""
    able = np.array([function.group not in settings.never_alone for function in ballot.functions], dtype=bool)
    return np.asarray((ballot.said[:, able] >= UNCERTAIN).any(axis=1))


def contradicted(ballot: Ballot, settings: AggregateSettings) -> Flags:
    """(spoken,) whether one function says present and another absent.

    Groups that never stand alone do not count: where others say the same the contradiction is theirs, else it is only
    a diagnosis that the exam does not bear out.
    """
    able = np.array([function.group not in settings.never_alone for function in ballot.functions], dtype=bool)
    said = ballot.said[:, able]
    return np.asarray((said == _PRESENT).any(axis=1) & (said == ABSENT).any(axis=1))


def _others(ballot: Ballot, settings: AggregateSettings, groups: Integers) -> tuple[Floats, Floats]:
    """Sum of the voices for present less those for absent, and sum of what the voices for uncertain add to it."""
    spoken = len(ballot.cases)
    together: dict[tuple[int, bool], list[int]] = {}
    sure = np.zeros(spoken, dtype=bool)  # someone outside never_alone says present
    for number, function in enumerate(ballot.functions):
        weak = function.group in settings.never_alone
        if not weak:
            sure |= ballot.said[:, number] == _PRESENT
        if function.kind != TEXT:
            together.setdefault((int(groups[number]), weak), []).append(number)
    decided, doubted = np.zeros(spoken), np.zeros(spoken)
    for (_, weak), members in together.items():
        against, doubt, for_it = (_voice(ballot, members, value, settings) for value in range(len(OUTCOMES)))
        counts = np.where(sure, for_it, 0.0) if weak else for_it
        decided += counts + against
        doubted += np.maximum(doubt, for_it) - counts
    return decided, doubted


def _voice(ballot: Ballot, members: list[int], value: int, settings: AggregateSettings) -> Floats:
    """The strongest vote of a group for a value: what it adds, 0 where nobody votes so."""
    voice = np.zeros(len(ballot.cases))
    for number in members:
        weight = float(getattr(getattr(settings.weights, ballot.functions[number].kind), OUTCOMES[value]))
        votes = np.where(ballot.said[:, number] == value, ballot.confidence[:, number] * weight, 0.0)
        voice = np.minimum(voice, votes) if value == ABSENT else np.maximum(voice, votes)
    return voice


def _probability(score: Floats, settings: AggregateSettings) -> Floats:
    limits = settings.limits
    return np.asarray(np.clip(0.5 * (1 + np.tanh(score / 2)), limits.lowest, limits.highest))
