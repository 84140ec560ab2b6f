"""What a sentence classifier says, and what becomes of it beside the rules."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from reportlabel.aggregate.combine import aggregate
from reportlabel.aggregate.settings import load_settings
from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError
from reportlabel.flow import label_batch
from reportlabel.schema import EXAM_VOTES, MENTIONS, VOTES
from reportlabel.vote.bert import (
    PREDICTIONS,
    BertExtractor,
    added_mentions,
    bert_exam_votes,
    bert_votes,
    classifier_version,
    default_model,
    load_classifier,
    model_text,
    read_card,
    report_sentences,
    with_confidence,
)
from reportlabel.vote.report import report_votes

pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")

KNOWN = "右肺上葉に結節を認めます。胸水は認めません。肺癌を疑います。"


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator()


@pytest.fixture(scope="module")
def extractor() -> BertExtractor:
    loaded = load_classifier(default_model())
    assert isinstance(loaded, BertExtractor)
    return loaded


def table(*texts: str) -> pl.DataFrame:
    return pl.DataFrame({"report_id": [f"r{at}" for at in range(len(texts))], "text": list(texts)})


def predicted(*rows: tuple[str, int, int, int, str, str, float]) -> pl.DataFrame:
    return pl.DataFrame([(*row, "x") for row in rows], schema=PREDICTIONS, orient="row")


# --- reading


def test_plain_sentences_are_read(annotator: Annotator, extractor: BertExtractor) -> None:
    said = extractor.read(table(KNOWN), region="chest", annotator=annotator)
    assert said.schema == PREDICTIONS
    status = dict(said.select("finding", "status").iter_rows())
    assert status["lung_nodule"] == "present"
    assert status["pleural_effusion"] == "absent"
    assert status["lung_cancer"] == "uncertain"
    assert said["confidence"].is_between(extractor.card.mention_from / 3, 1).all()


def test_the_evidence_is_the_sentence_as_it_stands(annotator: Annotator, extractor: BertExtractor) -> None:
    text = "【所見】\n右肺上葉の胸膜直下に辺縁がやや不整で境界の明瞭な⻑径１２㎜大の結\n節が認められます。\n胸水なし"
    said = extractor.read(table(text), region="chest", annotator=annotator)
    (nodule,) = said.filter(pl.col("finding") == "lung_nodule").to_dicts()
    assert text[nodule["start"] : nodule["end"]] == nodule["surface"]
    assert nodule["surface"].startswith("右肺上葉") and nodule["surface"].endswith("結\n節が認められます。")


def test_what_was_asked_is_not_read(annotator: Annotator) -> None:
    sentences = report_sentences(table("【依頼目的】肺癌疑い\n【所見】結節を認めます。"), annotator)
    assert sentences["text"].to_list() == ["結節を認めます。"]


def test_width_wraps_and_digits_make_no_difference(annotator: Annotator) -> None:
    texts = ["径12mm大の結節。", "径３４㎜大の結 節。"]
    assert len({model_text(annotator.normaliser(text)) for text in texts}) == 1


def test_a_sentence_is_read_once(annotator: Annotator) -> None:
    extractor = BertExtractor.load(default_model())
    reports = table(KNOWN, KNOWN, f"{KNOWN}胆石を認めます。")
    first = extractor.read(reports, region="chest", annotator=annotator)
    assert extractor.n_read == 4
    again = extractor.read(reports, region="chest", annotator=annotator)
    assert extractor.n_read == 4 and first.equals(again)


def test_company_does_not_change_what_is_said(annotator: Annotator, extractor: BertExtractor) -> None:
    texts = [KNOWN, "肝に嚢胞を認めます。", "結節。" * 30, "両肺に" + "径12mm大、" * 40 + "結節を認めます。"]
    together = BertExtractor.load(default_model()).read(table(*texts), region="chest", annotator=annotator)
    for at, text in enumerate(texts):
        alone = BertExtractor.load(default_model()).read(table(text), region="chest", annotator=annotator)
        own = together.filter(pl.col("report_id") == f"r{at}")
        assert own.select("start", "finding", "status").equals(alone.select("start", "finding", "status"))


def test_another_region_is_read_without_one(annotator: Annotator, extractor: BertExtractor) -> None:
    assert extractor.read(table(KNOWN), region="knee", annotator=annotator).height > 0


def test_nothing_gives_nothing(annotator: Annotator, extractor: BertExtractor) -> None:
    for reports in (table(), table(""), table("\n\n")):
        assert extractor.read(reports.cast(pl.String), region="chest", annotator=annotator).is_empty()


# --- the folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(default_model(), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_an_altered_file_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name}: SHA-256 is [0-9a-f]+…, model.yaml says .*; the file was altered"):
        load_classifier(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(ConfigError, match=r"model\.onnx: missing"):
        load_classifier(folder)
    with pytest.raises(ConfigError, match=r"model\.yaml: missing; a model folder holds"):
        load_classifier(folder.parent)
    with pytest.raises(ConfigError, match=r"model\.yaml: missing"):
        classifier_version(folder.parent)


def test_a_wrong_entry_names_file_and_line(folder: Path) -> None:
    path = folder / "model.yaml"
    path.write_text(f"{path.read_text(encoding='utf-8')}thershold: 0.5\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"model.yaml:\d+"):
        read_card(folder)


def test_the_version_changes_with_the_model(folder: Path) -> None:
    before = classifier_version(folder)
    assert before.startswith("model@")
    with (folder / "model.yaml").open("a", encoding="utf-8") as stream:
        stream.write("# another\n")
    assert classifier_version(folder) != before


# --- votes


def test_votes_have_their_own_group(annotator: Annotator) -> None:
    label_set = annotator.rules.label_sets["lung_ct"]
    said = predicted(
        ("r0", 0, 0, 5, "lung_nodule", "uncertain", 0.9),
        ("r0", 1, 5, 9, "lung_nodule", "present", 0.7),
        ("r0", 2, 9, 12, "lung_nodule", "present", 0.8),
    )
    votes = bert_votes(said, label_set, annotator.rules, model="m")
    assert votes.schema == VOTES
    (vote,) = votes.filter(pl.col("finding") == "nodule_or_mass").to_dicts()
    assert (vote["function_id"], vote["group"], vote["kind"]) == ("bert/m", "bert", "bert")
    assert (vote["value"], vote["confidence"], vote["evidence"]) == ("present", 0.8, "9-12")


def test_the_model_adds_what_the_rules_do_not_mention(annotator: Annotator) -> None:
    label_set = annotator.rules.label_sets["lung_ct"]
    reports = table("胸水は認めません。")
    mentions = annotator.annotate(reports, region="chest")
    said = predicted(
        ("r0", 0, 0, 9, "pleural_effusion", "present", 0.99),
        ("r0", 0, 0, 9, "lung_nodule", "present", 0.95),
        ("r0", 0, 0, 9, "emphysema", "present", 0.6),
    )
    added = added_mentions(said, mentions, label_set, annotator.rules, model="m", add_from=0.5, beside_from=0.9)
    assert added.schema == MENTIONS
    assert added["finding"].to_list() == ["lung_nodule"]
    assert added["rule_id"].to_list() == ["bert/m"]
    elsewhere = predicted(("r0", 1, 9, 18, "emphysema", "present", 0.6))  # a sentence in which the rules found nothing
    more = added_mentions(elsewhere, mentions, label_set, annotator.rules, model="m", add_from=0.5, beside_from=0.9)
    assert more["finding"].to_list() == ["emphysema"]


def test_a_label_of_the_model_alone_has_its_probability(annotator: Annotator) -> None:
    class Sure:
        card = BertExtractor.load(default_model()).card

        def read(self, reports: pl.DataFrame, *, region: str | None, annotator: Annotator) -> pl.DataFrame:
            return predicted(
                ("r0", 0, 0, 9, "lung_nodule", "present", 0.98), ("r0", 0, 0, 9, "emphysema", "absent", 0.99)
            )

    done = label_batch(table("胸水は認めません。"), annotator, annotator.rules.label_sets["lung_ct"], extractor=Sure())
    of = {row["finding"]: row for row in done.labels.to_dicts()}
    assert (of["nodule_or_mass"]["value"], of["nodule_or_mass"]["p_present"]) == ("present", 0.98)
    assert (of["emphysema"]["value"], of["emphysema"]["p_present"]) == ("absent", pytest.approx(0.01))
    assert (of["pleural_effusion"]["value"], of["pleural_effusion"]["p_present"]) == ("absent", 0.0)
    assert with_confidence(done.labels, predicted(), annotator.rules.label_sets["lung_ct"], annotator.rules).equals(
        done.labels
    )


def test_rules_against_model_is_a_conflict(annotator: Annotator, extractor: BertExtractor) -> None:
    label_sets = {"lung_ct": annotator.rules.label_sets["lung_ct"]}
    reports = pl.DataFrame({"report_id": ["r0"], "exam_id": ["e0"], "text": ["胸水は認めません。"]})
    scope = pl.DataFrame({"exam_id": ["e0"], "label_set": ["lung_ct"]})
    rules = report_votes(reports, scope=scope, label_sets=label_sets, rules=annotator.rules, annotator=annotator).votes
    own = bert_exam_votes(reports, scope=scope, label_sets=label_sets, annotator=annotator, extractor=extractor)
    assert own.schema == EXAM_VOTES and set(own["group"]) == {"bert"}

    def conflict(model: pl.DataFrame) -> bool:
        done = aggregate(
            pl.concat([rules, model]),
            scope,
            exams=pl.DataFrame({"exam_id": ["e0"], "patient_id": ["p0"], "modality_class": ["CT"]}),
            label_sets=label_sets,
            readings=pl.DataFrame(schema=dict.fromkeys(["exam_id", "label_set", "finding", "value"], pl.String)),
            settings=load_settings(annotator.rules.folder / "aggregate.yaml"),
        )
        return bool(done.labels.filter(pl.col("finding") == "pleural_effusion")["conflict"].item())

    assert not conflict(own)
    assert conflict(own.with_columns(value=pl.lit("present")))


def test_labelling_with_a_model_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    (tmp_path / "reports.csv").write_text("report_id,text\n1,右肺に結節を認めます。\n", encoding="utf-8")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from reportlabel.label import label_file\n"
        "from reportlabel.vote.bert import default_model\n"
        "folder = Path(sys.argv[1])\n"
        "label_file(folder / 'reports.csv', label_set='lung_ct', out=folder / 'out.parquet', model=default_model())\n"
        "print(' '.join({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"torch", "transformers", "datasets", "onnx", "spacy"})
    assert {"onnxruntime", "tokenizers"} <= loaded
    assert (tmp_path / "out.parquet").is_file()
