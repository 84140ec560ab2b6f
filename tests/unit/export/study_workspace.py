"""A small workspace of a study, with its linkage store and refusals, as hand-overs and destruction find it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from reportlabel.deidentify.linkage import LinkageStore, make_key_file, patient_key
from reportlabel.export.hand_over import Handed, Request, hand_over
from reportlabel.govern import Governance, StudyOfWorkspace, claim, open_store, shipped_of, study_of
from reportlabel.protocol import load_protocol
from reportlabel.rulebook.models import LabelSet
from reportlabel.schema import EXAM_LABELS, EXAMS, WORKSPACE
from reportlabel.store import Workspace
from tests.unit.export.exam_tables import SMALL, label_row

DAY = date(2026, 5, 1)
PATIENTS = 30
RARE, COMMON = "nodule", "effusion"
"""`RARE` is present in two patients, `COMMON` in all."""


class World:
    """A workspace of an overlay of jmid with thirty patients, an exam and labels of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "keys").mkdir()
        path = folder / "our_jmid.yaml"
        path.write_text(
            "extends: jmid\nid: our_jmid\ncohort:\n  sites:\n    - {id: aoba, name: {ja: 青葉, en: Aoba}}\n",
            encoding="utf-8",
        )
        self.under = Governance(
            protocol=load_protocol(str(path)),
            today=DAY,
            staging=folder / "staging",
            linkage=folder / "safe",
            key=make_key_file(folder / "keys" / "study.key"),
            actor="night",
            purpose="labels",
            refusals=None,  # type: ignore[arg-type]
            id_width=8,
        )
        self.workspace = Workspace.open(folder / "workspace", WORKSPACE, create=True, parts=2)
        self.store: LinkageStore = open_store(self.under, self.workspace.folder)
        claim(self.workspace, self.under, self.store)
        ids = [f"0000{number:04}" for number in range(PATIENTS)]
        self.codes = self.store.issue("patient", [patient_key("aoba", one) for one in ids], actor="a", purpose="p")
        exams = self.store.issue("exam", [f"x{one}" for one in ids], actor="a", purpose="p")
        self.id_of = dict(zip(self.codes["code"], ids, strict=True))
        self.exams = pl.DataFrame(
            [
                dict.fromkeys(EXAMS)
                | {
                    "exam_id": exam, "patient_id": code, "site": "aoba", "modality_class": "CT", "sex": "F",
                    "started_at": datetime(2024, 3, 1), "age_years": 60, "study_instance_uid": f"2.25.{number}",
                }
                for number, (exam, code) in enumerate(zip(exams["code"], self.codes["code"], strict=True))
            ],
            schema=EXAMS,
        )  # fmt: skip
        labels: list[dict[str, Any]] = []
        for number, exam in enumerate(exams["code"]):
            labels.append(label_row(exam, SMALL.id, COMMON, "present"))
            labels.append(label_row(exam, SMALL.id, RARE, "present" if number < 2 else "absent"))
            labels.append(label_row(exam, SMALL.id, "normal", "absent"))
            labels.append(label_row(exam, SMALL.id, "size", "12.0", p=None))
        self.workspace.replace_part("exams", 0, self.exams)
        self.workspace.replace_part("labels", 0, pl.DataFrame(labels, schema=EXAM_LABELS))
        for name in WORKSPACE:
            if not self.workspace.exists(name):
                self.workspace.replace(name, pl.DataFrame(schema=WORKSPACE[name]))
        self.workspace.take_snapshot("run", datetime(2026, 4, 30))
        self.refuse()

    @property
    def study(self) -> StudyOfWorkspace:
        found = study_of(self.workspace.folder)
        assert found is not None
        return found

    def refuse(self, *ids: str) -> Path:
        """The list of refusals as a spreadsheet leaves it: without zeros in front."""
        path = self.folder / "refusals.csv"
        rows = [f"aoba,{one.lstrip('0') or '0'},2026-04-20,all_research,,patient" for one in ids]
        path.write_text("\n".join(["site,patient_id,received,scope,study,requester", *rows, ""]), encoding="utf-8")
        return path

    def request(self, **changes: Any) -> Request:
        given = {"recipient": "institution", "purpose": "diagnostic_ai", "refusals": self.folder / "refusals.csv"}
        return Request(**{**given, "key": self.under.key, "actor": "researcher", **changes})

    def hand(self, name: str = "out", *, to: str | None = "parquet", today: date = DAY, **changes: Any) -> Handed:
        options = changes.pop("options", None)
        images = changes.pop("images", None)
        return hand_over(
            self.workspace,
            self.study,
            self.request(**changes),
            self.folder / "given" / name,
            versions=self.workspace.versions(),
            today=today,
            to=to,
            as_of="0",
            label_sets=only_small,
            options=options,
            images=images,
        )

    def ledger(self) -> pl.DataFrame:
        return shipped_of(self.store, actor="test", purpose="test")


def only_small(_labels: pl.LazyFrame) -> Sequence[LabelSet]:
    return [SMALL]
