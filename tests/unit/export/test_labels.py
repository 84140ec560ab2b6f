"""Each format holds what the canonical table holds, and every doubt of the input is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reportlabel.errors import ConfigError, InputError
from reportlabel.export import labels as module
from reportlabel.export.csv_columns import column_order, load_columns
from reportlabel.export.features import LeakageError
from reportlabel.export.labels import Exported, export_labels
from reportlabel.export.manifest import read_manifest, verify_manifest
from reportlabel.export.options import FORMATS, export_options
from reportlabel.export.teacher import TEACHER
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import LabelSet
from reportlabel.rulebook.read_yaml import parse, read_yaml
from tests.unit.export import exam_tables
from tests.unit.export.exam_tables import SMALL

EXAMS = exam_tables.exams(120, patients=60)
CHEXPERT, CT_RATE = (
    parse(read_yaml(rules_folder() / "label_sets" / f"{name}.yaml"), LabelSet) for name in ("chexpert_14", "ct_rate_18")
)
LABELS = exam_tables.labels(EXAMS, SMALL, CHEXPERT, CT_RATE)
IMAGES = exam_tables.images(EXAMS.head(100))


def export(out: Path, *sets: LabelSet, to: str = "parquet", labels: pl.DataFrame = LABELS, **more: Any) -> Exported:
    return export_labels(labels, EXAMS, label_sets=sets or (SMALL,), to=to, out=out, **more)


def canonical(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out / "labels.parquet")


def cell(table: pl.DataFrame, exam_id: str, finding: str) -> dict[str, Any]:
    [row] = table.filter((pl.col("exam_id") == exam_id) & (pl.col("finding") == finding)).to_dicts()
    return row


# --- the canonical table


def test_the_canonical_table_holds_every_label_once(tmp_path: Path) -> None:
    done = export(tmp_path / "out", SMALL, CHEXPERT)
    table = canonical(done.folder)
    assert table.schema == TEACHER
    asked = LABELS.filter(pl.col("label_set") != "ct_rate_18")
    assert done.labels == table.height == asked.height
    assert done.labels_of_other_sets == LABELS.height - asked.height
    key = ["exam_id", "label_set", "finding"]
    same = ["value", "p_present", "conflict", "n_votes", "method", "review_state", "evidence", "rules_hash"]
    assert table.select(key + same).sort(key).equals(asked.select(key + same).sort(key))
    assert sum(done.exams.values()) == EXAMS.height
    assert table.group_by("patient_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert set(table["split"]) == {"train", "validation", "test"}
    assert table["images"].null_count() == table.height
    # sorted by label set, split, exam and label
    first = table.filter(pl.col("exam_id") == table["exam_id"][0])["finding"].to_list()
    assert first[:14] == [entry.id for entry in CHEXPERT.findings]
    assert verify_manifest(done.folder) == []


def test_the_parquet_has_the_plain_string_type(tmp_path: Path) -> None:
    import pyarrow.parquet

    export(tmp_path / "out")
    path = tmp_path / "out" / "labels.parquet"
    assert "string_view" not in str(pyarrow.parquet.read_schema(path))
    assert pyarrow.parquet.read_metadata(path).metadata[b"rules_sha256"] == b"a" * 64


def test_a_lazy_table_gives_the_same(tmp_path: Path) -> None:
    votes = exam_tables.votes(EXAMS, SMALL)
    more: dict[str, Any] = {"label_sets": [SMALL, CHEXPERT], "to": "parquet", "options": export_options(features=True)}
    one = export_labels(LABELS, EXAMS, votes=votes, out=tmp_path / "one", **more)
    lazy = export_labels(LABELS.lazy(), EXAMS, votes=votes.lazy(), out=tmp_path / "lazy", **more)
    assert replace(one, folder=lazy.folder) == lazy
    assert (one.folder / "manifest.json").read_bytes() == (lazy.folder / "manifest.json").read_bytes()


def test_batches_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path / "one", SMALL, to="monai", images=IMAGES)
    monkeypatch.setattr("reportlabel.export.teacher.BATCH_EXAMS", 7)
    export(tmp_path / "many", SMALL, to="monai", images=IMAGES)
    assert canonical(tmp_path / "one").equals(canonical(tmp_path / "many"))
    for name in ("small.json", "card.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


@pytest.mark.parametrize("to", FORMATS)
def test_the_same_tables_give_the_same_bytes(tmp_path: Path, to: str) -> None:
    if to == "datasets":
        pytest.importorskip("datasets", reason="datasets is not installed")
    sets = (CT_RATE,) if to == "ct-rate" else (SMALL, CHEXPERT)
    votes = exam_tables.votes(EXAMS, SMALL)
    options = export_options(features=True)
    export(tmp_path / "one", *sets, to=to, images=IMAGES, votes=votes, options=options)
    export_labels(
        LABELS.reverse(),
        EXAMS.sample(fraction=1, shuffle=True, seed=1),
        label_sets=sets[::-1],
        to=to,
        out=tmp_path / "two",
        images=IMAGES,
        votes=votes.reverse(),
        options=options,
    )
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) >= 4
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_the_manifest_says_what_was_asked(tmp_path: Path) -> None:
    options = export_options(uncertain={"nodule": "zeros"}, hold_out_sites=["north"])
    done = export(tmp_path / "out", options=options, images=IMAGES, protocol="study7", as_of="12")
    manifest = read_manifest(done.folder)
    assert manifest is not None
    assert manifest["options"]["uncertain"] == {"nodule": "zeros"}
    assert manifest["protocol"] == "study7" and manifest["as_of"] == "12"
    assert manifest["label_sets"] == [{"id": "small", "findings": ["effusion", "nodule", "normal"], "values": ["size"]}]
    assert manifest["counts"]["exams_without_image"] == done.exams_without_image == 20
    assert {file["path"]: file.get("rows") for file in manifest["files"]} == {
        "labels.parquet": EXAMS.height * 4,
        "card.md": None,
    }


# --- CheXpert


PUBLIC_CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


def test_chexpert_has_the_public_columns_and_all_four_states(tmp_path: Path) -> None:
    export(tmp_path / "out", CHEXPERT, to="chexpert", images=IMAGES)
    place, table = tmp_path / "out" / "chexpert_14", canonical(tmp_path / "out")
    seen = set()
    sexes = dict(zip(EXAMS["exam_id"], EXAMS["sex"], strict=True))
    for split, name in (("train", "train.csv"), ("validation", "valid.csv"), ("test", "test.csv")):
        lines = (place / name).read_text().splitlines()
        assert lines[0] == PUBLIC_CHEXPERT
        rows = pl.read_csv(place / name, infer_schema=False)
        for row in rows.iter_rows(named=True):
            exam_id = row["Path"][len("images/") :].split("_")[0]
            known = cell(table, exam_id, "pleural_effusion")
            assert known["split"] == split
            code = {"present": "1", "absent": "0", "uncertain": "-1", "not_mentioned": None}[known["value"]]
            assert row["Pleural Effusion"] == code
            assert row["Sex"] == {"M": "Male", "F": "Female"}.get(sexes[exam_id] or "", "Unknown")
            assert row["AP/PA"] is None
            seen.add(code)
    assert seen == {"1", "0", "-1", None}


def test_chexpert_targets_stand_beside(tmp_path: Path) -> None:
    export(tmp_path / "out", SMALL, to="chexpert", options=export_options(not_mentioned="ignore"))
    place, table = tmp_path / "out" / "small", canonical(tmp_path / "out")
    targets = pl.read_csv(place / "targets.csv")
    assert targets.columns == [
        *("Path", "exam_id", "patient_id", "site", "split"),
        *("effusion", "nodule", "normal"),
        *("weight: effusion", "weight: nodule", "weight: normal"),
    ]
    assert targets.height == EXAMS.height
    for row in targets.iter_rows(named=True):
        for finding in ("effusion", "nodule", "normal"):
            known = cell(table, row["exam_id"], finding)
            assert row[finding] == known["policy_value"]
            assert row[f"weight: {finding}"] == pytest.approx(known["sample_weight"])
            assert row["Path"] == known["study_instance_uid"]
    # silence is kept apart from absence in the states, whatever is done with the target
    states = pl.concat([pl.read_csv(place / name) for name in ("train.csv", "valid.csv", "test.csv")])
    for finding in ("effusion", "nodule"):
        silent = table.filter((pl.col("finding") == finding) & (pl.col("value") == "not_mentioned")).height
        assert states[finding].null_count() == silent


def test_the_public_names_are_those_of_the_label_sets() -> None:
    columns = load_columns()
    assert ",".join(columns.chexpert.columns.values()) == PUBLIC_CHEXPERT.split("AP/PA,")[1]
    for label_set, names in ((CHEXPERT, columns.chexpert.columns), (CT_RATE, columns.ct_rate.columns)):
        assert {entry.id: entry.name.en.lower() for entry in label_set.findings} == {
            finding: name.lower() for finding, name in names.items()
        }
    assert column_order(columns.ct_rate.columns, CT_RATE) == list(range(18))
    with pytest.raises(ConfigError, match="do not name the same findings"):
        column_order(columns.ct_rate.columns, CHEXPERT)


def test_wrong_headers_are_named_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "export.yaml").write_text("chexpert:\n  lable_set: x\nct_rate: {}\n")
    with pytest.raises(ConfigError, match=r"export\.yaml:2: unknown key 'lable_set'"):
        load_columns(tmp_path)


# --- CT-RATE


PUBLIC_CT_RATE = (
    "VolumeName,Medical material,Arterial wall calcification,Cardiomegaly,Pericardial effusion,"
    "Coronary artery wall calcification,Hiatal hernia,Lymphadenopathy,Emphysema,Atelectasis,Lung nodule,Lung opacity,"
    "Pulmonary fibrotic sequela,Pleural effusion,Mosaic attenuation pattern,Peribronchial thickening,Consolidation,"
    "Bronchiectasis,Interlobular septal thickening"
)


def test_ct_rate_has_the_public_columns_and_only_0_and_1(tmp_path: Path) -> None:
    export(tmp_path / "out", CT_RATE, to="ct-rate", images=IMAGES)
    out, table = tmp_path / "out", canonical(tmp_path / "out")
    volumes = pl.read_csv(out / "volumes.csv")
    assert volumes.height == 200 and volumes["exam_id"].n_unique() == 100
    of_volume = dict(zip(volumes["VolumeName"], volumes["exam_id"], strict=True))
    rows = 0
    for name in ("train", "valid", "test"):
        assert (out / f"{name}_predicted_labels.csv").read_text().splitlines()[0] == PUBLIC_CT_RATE
        cells, masks = (pl.read_csv(out / f"{name}_{kind}.csv") for kind in ("predicted_labels", "mask"))
        assert cells["VolumeName"].equals(masks["VolumeName"])
        rows += cells.height
        for column, finding in (("Lung nodule", "lung_nodule"), ("Emphysema", "emphysema")):
            for volume, value, mask in zip(cells["VolumeName"], cells[column], masks[column], strict=True):
                known = cell(table, of_volume[volume], finding)
                assert mask == known["loss_mask"]
                assert value == (known["value"] == "present")  # 0.4 of an uncertain one is less than one half
    assert rows == volumes.height


def test_ct_rate_without_images_is_named_by_study(tmp_path: Path) -> None:
    export(tmp_path / "out", CT_RATE, to="ct-rate", options=export_options(uncertain={"*": "ones"}))
    volumes = pl.read_csv(tmp_path / "out" / "volumes.csv", infer_schema=False)
    assert set(volumes["VolumeName"]) == set(EXAMS["study_instance_uid"])


def test_volumes_must_be_told_apart_by_their_names(tmp_path: Path) -> None:
    same = IMAGES.with_columns(pl.format("{}/scan.nii.gz", pl.col("row")).alias("path"))
    with pytest.raises(InputError, match="file name of their own"):
        export(tmp_path / "out", CT_RATE, to="ct-rate", images=same)
    assert list(tmp_path.iterdir()) == []


# --- MONAI


def test_the_datalist_has_a_row_an_image(tmp_path: Path) -> None:
    export(tmp_path / "out", to="monai", images=IMAGES)
    found, table = json.loads((tmp_path / "out" / "small.json").read_text()), canonical(tmp_path / "out")
    assert found["label_names"] == ["effusion", "nodule", "normal"]
    items = [(split, item) for split in ("training", "validation", "test") for item in found[split]]
    assert len(items) == IMAGES.height
    for split, item in items:
        for at, finding in enumerate(found["label_names"]):
            known = cell(table, item["exam_id"], finding)
            assert known["split"] == {"training": "train"}.get(split, split)
            assert item["label"][at] == (known["policy_value"] if known["loss_mask"] else 0.0)
            assert item["mask"][at] == known["loss_mask"]
            assert item["weight"][at] == known["sample_weight"]
            assert found["states"][item["state"][at]] == known["value"]
        assert item["values"] == {"size": cell(table, item["exam_id"], "size")["value"]}
        assert item["image"] in {one["path"] for one in known["images"]}


def test_monai_reads_the_datalist(tmp_path: Path) -> None:
    data = pytest.importorskip("monai.data", reason="monai is not installed")
    export(tmp_path / "out", to="monai", images=IMAGES)
    for key in ("training", "validation", "test"):
        items = data.load_decathlon_datalist(
            str(tmp_path / "out" / "small.json"), is_segmentation=False, data_list_key=key, base_dir=str(tmp_path)
        )
        assert items and items[0]["image"].startswith(str(tmp_path / "images"))
        assert len(items[0]["label"]) == len(items[0]["mask"]) == 3


# --- datasets


def test_datasets_gives_everything_back(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    done = export(tmp_path / "out", to="datasets", images=IMAGES)
    found, table = datasets.load_from_disk(str(tmp_path / "out" / "small")), canonical(tmp_path / "out")
    assert list(found) == ["train", "validation", "test"]
    features = found["train"].features
    assert features["findings"].feature.names == ["effusion", "nodule", "normal"]
    assert features["nodule"].names == ["present", "uncertain", "absent", "not_mentioned"]
    for split, rows in found.items():
        assert rows.num_rows
        for row in rows:
            for at, finding in enumerate(features["findings"].feature.names):
                known = cell(table, row["exam_id"], finding)
                assert known["split"] == split
                assert features[finding].int2str(row[finding]) == known["value"]
                assert row["soft"][at] == pytest.approx(known["p_present"])
                assert row["mask"][at] == known["loss_mask"]
                assert row["target"][at] == pytest.approx(known["policy_value"] or 0.0)
                assert row["weight"][at] == pytest.approx(known["sample_weight"])
            assert row["size"] == cell(table, row["exam_id"], "size")["value"]
    assert verify_manifest(done.folder) == []


def test_a_finding_may_not_be_called_like_a_column(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="datasets is not installed")
    one = exam_tables.label_set("odd", exam_tables.entry("image"))
    with pytest.raises(ConfigError, match="a dataset has a column image of its own"):
        export(tmp_path / "out", one, to="datasets", labels=exam_tables.labels(EXAMS, one))


def test_a_missing_package_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'reportlabel\[train\]'"):
        export(tmp_path / "out", to="datasets")
    assert list(tmp_path.iterdir()) == []


# --- features


def test_features_are_of_the_exported_labels_and_known_at_reading(tmp_path: Path) -> None:
    votes = pl.concat([exam_tables.votes(EXAMS, SMALL), exam_tables.votes(EXAMS, CHEXPERT)])
    done = export(tmp_path / "out", votes=votes, options=export_options(features=True))
    features = pl.read_parquet(tmp_path / "out" / "features.parquet")
    wanted = votes.filter(
        (pl.col("label_set") == "small")
        & (pl.col("kind") == "record")
        & pl.col("available_at_reading").fill_null(False)
    )
    assert features.height == done.features == wanted.height > 0
    assert set(features["kind"]) == {"record"} and features["available_at_reading"].all()
    assert not (export(tmp_path / "none", votes=votes).folder / "features.parquet").exists()


def test_the_writer_checks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "input_features", lambda votes: votes.collect())
    votes = exam_tables.votes(EXAMS, SMALL)
    with pytest.raises(LeakageError):
        export(tmp_path / "out", votes=votes, options=export_options(features=True))
    assert list(tmp_path.iterdir()) == []


# --- refusals


def changed(**columns: pl.Expr) -> pl.DataFrame:
    first = pl.int_range(pl.len()) == 0
    small = LABELS.filter((pl.col("label_set") == "small") & (pl.col("finding") == "nodule"))
    one = small.with_columns(
        pl.when(first).then(what).otherwise(pl.col(name)).alias(name) for name, what in columns.items()
    )
    return pl.concat([LABELS.filter((pl.col("label_set") == "small") & (pl.col("finding") != "nodule")), one])


CANARY = "山田太郎の右肺に結節"


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (lambda: changed(value=pl.lit(CANARY)), "1 labels have a value that is none of"),
        (lambda: changed(value=pl.lit(None)), "1 labels have"),
        (lambda: changed(p_present=pl.lit(1.5)), "1 labels have a p_present outside"),
        (lambda: changed(p_present=pl.lit(float("nan"))), "1 labels have a p_present outside"),
        (lambda: changed(review_state=pl.lit(CANARY)), "1 labels have a review_state"),
        (lambda: changed(exam_id=pl.lit(CANARY)), "the labels of 1 exams are of an exam that is not there"),
        (lambda: changed(finding=pl.lit(CANARY)), "1 labels are not in the label sets"),
        (
            lambda: pl.concat([LABELS, LABELS.filter(pl.col("label_set") == "small").head(1)]),
            "2 labels are there twice",
        ),
        (lambda: changed().slice(1), "1 exams lack labels"),
        (lambda: LABELS.filter(pl.col("label_set") != "small"), "there are no labels of small"),
        (
            lambda: changed(
                evidence=pl.lit(
                    [{"function_id": "rule", "kind": "rule", "value": "present", "evidence": CANARY}],
                    dtype=LABELS.schema["evidence"],
                )
            ),
            "1 labels have evidence that is neither offsets nor a record id",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused_without_a_word_of_theirs(
    tmp_path: Path, labels: Callable[[], pl.DataFrame], told: str
) -> None:
    with pytest.raises(InputError, match=told) as error:
        export(tmp_path / "out", labels=labels())
    assert CANARY not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_exams_must_be_there_once(tmp_path: Path) -> None:
    twice = pl.concat([EXAMS, EXAMS.head(1)])
    with pytest.raises(InputError, match="2 exams have an exam_id that is there twice"):
        export_labels(LABELS, twice, label_sets=[SMALL], to="parquet", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"to": "excel"}, "--to excel: there are parquet"),
        ({"to": "ct-rate"}, "--to ct-rate holds the label set ct_rate_18"),
        ({"options": export_options(features=True)}, "--features needs the votes table"),
        ({"options": export_options(hold_out_sites=["east"])}, "--hold-out-site east"),
        ({"options": export_options(uncertain={"nodul": "ones"})}, "did you mean 'nodule'"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, more: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        export(tmp_path / "out", **more)
    assert list(tmp_path.iterdir()) == []


def test_label_sets_are_named_once_and_safely(tmp_path: Path) -> None:
    for sets, told in (((SMALL, SMALL), "twice"), ((SMALL.model_copy(update={"id": "../x"}),), "name of a file")):
        with pytest.raises(ConfigError, match=told):
            export(tmp_path / "out", *sets)
    with pytest.raises(ConfigError, match="no label set"):
        export_labels(LABELS, EXAMS, label_sets=[], to="parquet", out=tmp_path / "out")


@pytest.mark.parametrize("to", ["chexpert", "monai", "parquet"])
def test_a_label_set_that_fits_no_exam_is_told_and_harmless(tmp_path: Path, to: str) -> None:
    other = exam_tables.label_set("other", exam_tables.entry("fracture"))
    done = export(tmp_path / "out", SMALL, other, to=to)
    assert done.empty_label_sets == ("other",)
    assert verify_manifest(done.folder) == []
