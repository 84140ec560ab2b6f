"""The votes of a workspace as compact arrays, label by label.

A case is an exam and a label set that fits it: one row of the scope. The text votes of a case and label are one
statement by one author and collapse into one function, `rule`; the votes of any other function (one BERT model, one
record rule) collapse likewise, the first value in the label set's precedence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from reportlabel.aggregate.label_model import OUTCOMES, SILENT, Function, Integers
from reportlabel.errors import InputError
from reportlabel.rulebook.models import LabelSet

TEXT = "rule"
KINDS = ("rule", "bert", "record", "reader")
UNCERTAIN = OUTCOMES.index("uncertain")

_PART = 500_000  # votes coded at a time, so that joins stay small
Small = npt.NDArray[np.int8]


VoteTables = Callable[[], Iterable[pl.DataFrame]]
"""Gives the tables of votes; may be called again."""


@dataclass(frozen=True)
class Label:
    """One label of a label set and its place in the order of the set."""

    label_set: str
    finding: str
    position: int


@dataclass(frozen=True)
class Ballot:
    """What the functions say about one label.

    Attributes:
        cases: (spoken,) numbers of the cases with a vote, ascending.
        functions: in the order of their ids.
        said: (spoken, functions) an index into OUTCOMES or SILENT.
        confidence: (spoken, functions) of the vote; 0 where there is none.
    """

    label: Label
    cases: Integers
    functions: tuple[Function, ...]
    said: Small
    confidence: npt.NDArray[np.float32]

    def denies(self) -> npt.NDArray[np.bool_]:
        """(spoken,) whether some function says absent."""
        return np.asarray((self.said == OUTCOMES.index("absent")).any(axis=1))

    def of_text(self) -> Small:
        """(spoken,) what the report says, SILENT where it says nothing."""
        for number, function in enumerate(self.functions):
            if function.kind == TEXT:
                return self.said[:, number]
        return np.full(len(self.cases), SILENT, dtype=np.int8)


def labels_of(label_sets: Mapping[str, LabelSet]) -> list[Label]:
    """All labels that are a status, in the order of the sets; sizes and sides are no matter of votes."""
    return [
        Label(name, entry.id, position)
        for name, label_set in label_sets.items()
        for position, entry in enumerate(label_set.findings)
    ]


class Ballots:
    """All votes, coded by case, label and function, sorted by label.

    Args:
        votes: gives the tables of votes, columns of `reportlabel.schema.EXAM_VOTES`, one after the other; it is called
            twice, and only one table is in memory at a time.
        scope: exam_id, label_set; a case is the number of its row.
        labels: of the label sets of the scope.

    Raises:
        InputError: a vote is about no case or label of the scope, or has an unknown value or kind, or no confidence
            between 0 and 1; says how many.
    """

    def __init__(
        self, votes: VoteTables, scope: pl.DataFrame, labels: Sequence[Label], label_sets: Mapping[str, LabelSet]
    ) -> None:
        self._labels = labels
        self._label_sets = label_sets
        self._places = _Places(scope, labels)
        table = _functions_of(votes)
        self._functions = list(table.select("function_id", "kind", "group").iter_rows())
        codes = {value: number for number, value in enumerate(OUTCOMES)}
        pieces = [
            (
                *self._places.of(one),
                _function_numbers(one, table),
                one["value"].replace_strict(codes, return_dtype=pl.Int8).to_numpy(),
                one["confidence"].cast(pl.Float32).to_numpy(),
            )
            for one in votes()
        ]
        kinds = (np.uint32, np.uint16, np.uint32, np.int8, np.float32)
        columns = [
            np.concatenate([np.zeros(0, dtype=kind), *(piece[at] for piece in pieces)]) for at, kind in enumerate(kinds)
        ]
        self.case, self.label, self._function, self._said, self._confidence = columns
        self._order = np.argsort(self.label, kind="stable").astype(np.uint32)
        self._bounds = np.searchsorted(self.label[self._order], np.arange(len(labels) + 1))

    def places(self, votes: pl.DataFrame) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
        """Number of the case and of the label of each vote."""
        return self._places.of(votes)

    def of(self, number: int) -> Ballot:
        """The ballot of a label, by its number in ``labels``."""
        rows = self._order[self._bounds[number] : self._bounds[number + 1]]
        label = self._labels[number]
        cases, case = np.unique(self.case[rows], return_inverse=True)
        present, function = np.unique(self._function[rows], return_inverse=True)
        said, confidence = _collapse(
            case.reshape(-1).astype(np.int64) * len(present) + function.reshape(-1),
            self._said[rows],
            self._confidence[rows],
            len(cases) * len(present),
            [OUTCOMES.index(value) for value in self._label_sets[label.label_set].precedence],
        )
        said = said.reshape(len(cases), len(present))
        functions = []
        for code, column in zip(present, said.T, strict=True):
            function_id, kind, group = self._functions[code]
            one_way = len(np.unique(column[column != SILENT])) < 2
            functions.append(Function(function_id, kind, group, one_way))
        return Ballot(label, cases.astype(np.int64), tuple(functions), said, confidence.reshape(said.shape))


def _function_id() -> pl.Expr:
    return pl.when(pl.col("kind") == TEXT).then(pl.lit(TEXT)).otherwise("function_id").alias("function_id")


def _collapse(
    cell: Integers, said: Small, confidence: npt.NDArray[np.float32], cells: int, precedence: Sequence[int]
) -> tuple[Small, npt.NDArray[np.float32]]:
    """One value a cell (case and function): the first in precedence.

    Its confidence is the highest of its votes. Votes for uncertain count in it where the value is present, so that a
    vote for present never takes away what a doubt has lent.
    """
    strength = np.zeros(len(OUTCOMES), dtype=np.int8)
    strength[list(precedence)] = np.arange(len(precedence), 0, -1)
    strongest = np.full(cells, -1, dtype=np.int8)
    np.maximum.at(strongest, cell, strength[said])
    of_strength = np.full(len(OUTCOMES) + 1, SILENT, dtype=np.int8)
    of_strength[strength] = np.arange(len(OUTCOMES))
    value = np.where(strongest < 0, np.int8(SILENT), of_strength[strongest])
    counts = (said == value[cell]) | ((said == UNCERTAIN) & (value[cell] > UNCERTAIN))
    highest = np.zeros(cells, dtype=np.float32)
    np.maximum.at(highest, cell[counts], confidence[counts])
    return value, highest


def _check(votes: pl.DataFrame) -> None:
    wrong = votes.select(
        value=(~pl.col("value").is_in(OUTCOMES)).fill_null(True).sum(),
        kind=(~pl.col("kind").is_in(KINDS)).fill_null(True).sum(),
        confidence=(~pl.col("confidence").is_between(0, 1)).fill_null(True).sum(),
        function_id=pl.col("function_id").is_null().sum(),
    ).row(0, named=True)
    for column, number in wrong.items():
        if number:
            raise InputError(f"votes: {number} rows have no valid {column}; run the vote stage again")


def _functions_of(votes: VoteTables) -> pl.DataFrame:
    """Number, id, kind and group of every function, in the order of ids."""
    found = [pl.DataFrame(schema={"function_id": pl.String, "kind": pl.String, "group": pl.String})]
    for one in votes():
        _check(one)
        found.append(one.group_by(_function_id(), "kind").agg(pl.col("group").min()))
    return (
        pl.concat(found)
        .group_by("function_id", "kind")
        .agg(pl.col("group").min())
        .sort("function_id", "kind")
        .with_columns(pl.when(pl.col("kind") != TEXT).then("group").alias("group"))
        .with_row_index("function")
    )


def _function_numbers(votes: pl.DataFrame, functions: pl.DataFrame) -> npt.NDArray[np.uint32]:
    return (
        votes.select("kind", _function_id())
        .join(functions, on=["function_id", "kind"], how="left", maintain_order="left")["function"]
        .to_numpy()
    )


class _Places:
    """Finds the case and the label of votes."""

    def __init__(self, scope: pl.DataFrame, labels: Sequence[Label]) -> None:
        self._cases = scope.select("exam_id", "label_set").with_row_index("case")
        self._known = pl.DataFrame(
            {
                "label_set": [label.label_set for label in labels],
                "finding": [label.finding for label in labels],
                "label": np.arange(len(labels), dtype=np.uint16),
            },
            schema={"label_set": pl.String, "finding": pl.String, "label": pl.UInt16},
        )

    def of(self, votes: pl.DataFrame) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16]]:
        """Number of the case and of the label of each vote.

        Raises:
            InputError: a vote is about no case or label of the scope; says how many.
        """
        case = np.zeros(len(votes), dtype=np.uint32)
        label = np.zeros(len(votes), dtype=np.uint16)
        unknown = 0
        for start in range(0, len(votes), _PART):
            part = (
                votes.slice(start, _PART)
                .lazy()
                .select("exam_id", "label_set", "finding")
                .join(self._cases.lazy(), on=["exam_id", "label_set"], how="left", maintain_order="left")
                .join(self._known.lazy(), on=["label_set", "finding"], how="left", maintain_order="left")
                .select("case", "label")
                .collect()
            )
            here = slice(start, start + len(part))
            unknown += part.select((pl.col("case").is_null() | pl.col("label").is_null()).sum()).item()
            case[here] = part["case"].fill_null(0).to_numpy()
            label[here] = part["label"].fill_null(0).to_numpy()
        if unknown:
            raise InputError(
                f"votes: {unknown} rows are about an exam, label set or label outside the scope; "
                "run the vote stage again with the same rules and scope"
            )
        return case, label
