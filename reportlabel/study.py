"""What a run works with: the rules, compiled once, and the label sets that are asked for."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from reportlabel.annotate.annotator import Annotator
from reportlabel.ingest.assemble import AssemblyRules, load_assembly_rules
from reportlabel.rulebook.exams import ExamReader, load_exam_rules
from reportlabel.rulebook.linked import LinkedRules, load_linked
from reportlabel.rulebook.load import Rulebook, find_label_set, load_rules
from reportlabel.rulebook.models import LabelSet
from reportlabel.vote.bert import Classifier, classifier_version, load_classifier
from reportlabel.vote.records import text_reader


@dataclass(frozen=True)
class Study:
    """The rules of a run.

    Attributes:
        label_sets: the label sets to fill, by id.
        records: whether linked records vote.
        classifier: folder of the sentence classifier that votes; None: none does.
    """

    rules: Rulebook
    exam_reader: ExamReader
    assembly: AssemblyRules
    linked: LinkedRules
    label_sets: Mapping[str, LabelSet]
    records: bool
    classifier: Path | None = None

    @cached_property
    def annotator(self) -> Annotator:
        """Reads reports; building it takes a second, so it is made where it is first needed."""
        return Annotator(self.rules)

    @cached_property
    def record_reader(self) -> Annotator:
        """Reads texts of records, with words of its own."""
        return text_reader(self.annotator, self.linked)

    @cached_property
    def extractor(self) -> Classifier | None:
        """Reads sentences, where the study has a classifier; its files are checked when it is loaded."""
        return None if self.classifier is None else load_classifier(self.classifier)

    @cached_property
    def classifier_version(self) -> str | None:
        """Id and hash of the classifier, as labels name it; None: the study has none."""
        return None if self.classifier is None else classifier_version(self.classifier)

    def forget_readers(self) -> None:
        """Let go of the readers of texts and of what they remember, some hundred megabytes; they can be made again."""
        self.__dict__.pop("annotator", None)
        self.__dict__.pop("record_reader", None)
        self.__dict__.pop("extractor", None)
        gc.unfreeze()
        gc.collect()


def load_study(
    folder: Path | None = None,
    *,
    label_sets: Sequence[str] = (),
    records: bool = True,
    classifier: Path | None = None,
) -> Study:
    """Read a rules folder (default: the one that came with the package).

    Args:
        label_sets: ids of the label sets to fill; none: all.
        classifier: folder of a sentence classifier (`reportlabel.vote.bert.models_folder` has some) that votes too.

    Raises:
        ConfigError: wrong rules, or an unknown label set.
    """
    rules = load_rules(folder)
    chosen = {name: find_label_set(rules, name) for name in label_sets} or dict(rules.label_sets)
    return Study(
        rules=rules,
        exam_reader=load_exam_rules(rules.folder),
        assembly=load_assembly_rules(rules.folder),
        linked=load_linked(rules.folder),
        label_sets=chosen,
        records=records,
        classifier=classifier,
    )
