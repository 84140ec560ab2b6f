"""The spaCy pipeline: the mentions of the batch path, room for components of the user's own, and storage."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

import reportlabel
from reportlabel.annotate.annotator import Annotator
from reportlabel.annotate.attached import register_extensions
from reportlabel.annotate.pipeline import COMPONENTS, add_finding, mentions_of
from reportlabel.annotate.tokenizer import FugashiTokenizer
from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import rules_folder
from reportlabel.schema import MENTIONS

ROOT = Path(__file__).resolve().parents[3]
REAL_REPORTS = ROOT.parent / "shared" / "real_reports" / "reports.csv"
REPORT = """【所見】
右肺上葉S2に長径12㎜大の結節を認めます。増大しています(Se3 Im45)。
肝・副腎転移を認めません。両側に胸水を認めますが、腹水はありません。
【依頼目的】
肺癌の疑い。"""


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator()


@pytest.fixture(scope="module")
def nlp() -> Language:
    return reportlabel.load(region="chest")


@pytest.fixture
def own(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> Language:
    """A pipeline of its own for tests that change it; compiling the rules again would only take time."""
    engine = nlp.get_pipe("reportlabel_context").engine
    monkeypatch.setattr("reportlabel.annotate.pipeline.Engine", lambda _: engine)
    return reportlabel.load(region="chest")


def found(doc: Doc) -> dict[str, str]:
    return {span._.finding: span._.status for span in doc.spans["findings"]}


# --- the same as the batch path


def test_real_reports_have_the_mentions_of_the_batch_path(nlp: Language, annotator: Annotator) -> None:
    if not REAL_REPORTS.is_file():
        pytest.skip(f"{REAL_REPORTS} is not here")
    reports = pl.read_csv(REAL_REPORTS)
    total = 0
    for report_id, text in reports.select("report_id", "text").iter_rows():
        doc = nlp(text)
        expected = annotator.mentions(text, report_id=report_id, region="chest")
        assert doc.text == text
        assert mentions_of(doc, report_id=report_id) == expected
        total += len(expected)
    assert reports.height == 54
    assert total > 400


def test_every_column_of_the_mentions_table_is_an_attribute(nlp: Language, annotator: Annotator) -> None:
    doc = nlp(REPORT)
    rows = annotator.mentions(REPORT, region="chest")
    assert rows
    for span, row in zip(doc.spans["findings"], rows, strict=True):
        values = row._asdict()
        for name in MENTIONS.names():
            if name not in ("report_id", "surface"):
                assert span._.get(name) == values[name]
        assert span.label_ == values["finding"]


def test_offsets_are_exact_and_spans_cover_whole_tokens(nlp: Language) -> None:
    doc = nlp(REPORT)
    for span in doc.spans["findings"]:
        assert span.start_char <= span._.start < span._.end <= span.end_char
    # two findings on the same characters keep attributes of their own
    texts = [doc.text[span._.start : span._.end] for span in doc.spans["findings"]]
    assert "胸水" in texts


def test_two_findings_on_the_same_tokens_keep_their_own_attributes(nlp: Language) -> None:
    doc = nlp("結節。")
    first = add_finding(doc, 0, 2, "one", status="present", side="left")
    second = add_finding(doc, 0, 2, "two", status="absent", side="right")
    assert (first.start, first.end) == (second.start, second.end)
    assert (first._.status, first._.side) == ("present", "left")
    assert (second._.status, second._.side) == ("absent", "right")


def test_sections_and_sentences(nlp: Language) -> None:
    doc = nlp(REPORT)
    assert [span.label_ for span in doc.spans["sections"]] == ["findings", "indication"]
    assert [sentence.text.strip() for sentence in doc.sents] == [
        "【所見】",
        "右肺上葉S2に長径12㎜大の結節を認めます。",
        "増大しています(Se3 Im45)。",
        "肝・副腎転移を認めません。",
        "両側に胸水を認めますが、腹水はありません。",
        "【依頼目的】",
        "肺癌の疑い。",
    ]
    asked = [span for span in doc.spans["findings"] if span._.section == "indication"]
    assert asked
    assert all(span._.temporality == "hypothetical" for span in asked)


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\x00", "\ud800", "\u3000", "。", "【所見】", "結節"])
def test_texts_of_almost_nothing(nlp: Language, annotator: Annotator, text: str) -> None:
    doc = nlp(text)
    assert len(doc.text) == len(text)
    assert mentions_of(doc) == annotator.mentions(text, region="chest")


# --- the tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "右肺に結節を認めます。",
        "a  b   c\n\n d",
        "  leading and trailing  ",
        "NUL\x00の後の胸水\x00",
        "\x01\x1f\x7f\x85制御文字\u2028\u200b",
        "\t\r\n\v\f",
        "ﾌﾟﾗｰｸ ㎜ 😀 e\u0301 が",
        " " * 70_000 + "結節",
        "結" * 70_000,
    ],
)
def test_the_text_of_a_doc_is_the_text(nlp: Language, text: str) -> None:
    assert nlp.make_doc(text).text == text


def test_a_lone_surrogate_keeps_its_place(nlp: Language) -> None:
    doc = nlp("胸水\ud800を認めます。\udfff")
    assert doc.text == "胸水\ufffdを認めます。\ufffd"


def test_the_tokenizer_has_a_pipe(nlp: Language) -> None:
    assert isinstance(nlp.tokenizer, FugashiTokenizer)
    docs = list(nlp.tokenizer.pipe(["右肺に結節", "胸水なし"]))
    assert [doc.text for doc in docs] == ["右肺に結節", "胸水なし"]
    assert [token.text for token in docs[1]] == ["胸水", "なし"]


# --- components of the user's own


def test_a_component_that_adds_an_attribute(own: Language) -> None:
    if not Span.has_extension("urgent"):
        Span.set_extension("urgent", getter=is_urgent)
    if not Doc.has_extension("urgent"):
        Doc.set_extension("urgent", default=False)
    own.add_pipe("test_urgent", last=True)
    doc = own("左気胸を認めます。胸水は認めません。")
    assert doc._.urgent
    assert {span._.finding: span._.urgent for span in doc.spans["findings"]} == {
        "pneumothorax": True,
        "pleural_effusion": False,
    }
    assert not own("胸水を認めます。")._.urgent


def is_urgent(span: Span) -> bool:
    return span._.finding == "pneumothorax" and span._.status == "present"


@Language.component("test_urgent", requires=["span._.status"], assigns=["doc._.urgent"])
def mark_urgent(doc: Doc) -> Doc:
    doc._.urgent = any(span._.urgent for span in doc.spans["findings"])
    return doc


def test_a_finding_dropped_before_context_hands_nothing_on(own: Language) -> None:
    text = "左肺下葉に腫瘤を認めます。長径は12mmです。リンパ節に転移を認めます。"
    before = own(text)
    assert [span._.lobe for span in before.spans["findings"] if span._.size_mm == 12.0] == ["lower"]
    own.add_pipe("test_drop_masses", before="reportlabel_context")
    after = own(text)
    assert 0 < len(after.spans["findings"]) < len(before.spans["findings"])
    assert not any(span._.size_mm or span.text == "腫瘤" for span in after.spans["findings"])
    assert not any(own.analyze_pipes()["problems"].values())


@Language.component("test_drop_masses", requires=["span._.finding"])
def drop_masses(doc: Doc) -> Doc:
    doc.spans["findings"] = [span for span in doc.spans["findings"] if span._.finding != "mass"]
    return doc


def test_a_status_changed_before_context_counts(own: Language) -> None:
    own.add_pipe("test_doubt_everything", before="reportlabel_context")
    doc = own("右肺上葉に結節を認めます。胸水を認めません。")
    assert doc.spans["findings"]
    assert {span._.status for span in doc.spans["findings"]} == {"uncertain"}
    assert all(span._.cue == "by hand" for span in doc.spans["findings"])


@Language.component("test_doubt_everything")
def doubt_everything(doc: Doc) -> Doc:
    for span in doc.spans["findings"]:
        span._.status = "uncertain"
        span._.cue = "by hand"
    return doc


def test_what_a_component_sets_by_hand_stays(own: Language) -> None:
    own.add_pipe("test_place_by_hand", before="reportlabel_context")
    doc = own("右肺上葉に8mmの結節を認めます。")
    span = doc.spans["findings"][0]
    assert (span._.side, span._.size_mm, span._.rule_id) == ("left", 30.0, "mine/1")


@Language.component("test_place_by_hand")
def place_by_hand(doc: Doc) -> Doc:
    for span in doc.spans["findings"]:
        span._.side, span._.size_mm, span._.rule_id = "left", 30.0, "mine/1"
    return doc


@pytest.mark.parametrize("place", [{"before": "reportlabel_context"}, {"last": True}])
def test_a_component_that_adds_findings(own: Language, place: dict[str, str | bool]) -> None:
    own.add_pipe("test_add_devices", **place)
    text = "胸水を認めます。\nペースメーカー留置。無気肺を認めます。"
    doc = own(text)
    row = next(row for row in mentions_of(doc) if row.finding == "my_pacemaker")
    values = row._asdict()
    assert values["surface"] == "ペースメーカー"
    assert values["status"] == "present"
    assert values["temporality"] == "current"
    assert (values["section"], values["sentence"]) == ("findings", 1)
    assert {"pleural_effusion", "atelectasis"} <= found(doc).keys()


@Language.component("test_add_devices", assigns=["doc.spans"])
def add_devices(doc: Doc) -> Doc:
    at = doc.text.find("ペースメーカー")
    add_finding(doc, at, at + len("ペースメーカー"), "my_pacemaker")
    return doc


def test_a_span_made_by_hand_is_a_finding(own: Language) -> None:
    own.add_pipe("test_append_span", before="reportlabel_context")
    doc = own("【依頼目的】異物の精査。")
    row = mentions_of(doc)[0]._asdict()
    assert (row["finding"], row["status"], row["temporality"]) == ("foreign_body", "present", "hypothetical")


@Language.component("test_append_span")
def append_span(doc: Doc) -> Doc:
    at = next(token.i for token in doc if token.text.startswith("異"))
    doc.spans["findings"] = [Span(doc, at, at + 1, label="foreign_body")]
    return doc


def test_another_assertion_can_take_the_place_of_the_rules(own: Language) -> None:
    own.replace_pipe("reportlabel_assertion", "test_deny_everything")
    assert set(found(own("右肺に結節を認めます。")).values()) == {"absent"}


@Language.component("test_deny_everything", assigns=["span._.status", "span._.temporality", "span._.cue"])
def deny_everything(doc: Doc) -> Doc:
    for span in doc.spans["findings"]:
        span._.status = "absent"
    return doc


def test_without_attributes_there_are_none(own: Language) -> None:
    own.disable_pipe("reportlabel_attributes")
    doc = own("右肺上葉に8mmの結節を認めます。")
    span = doc.spans["findings"][0]
    assert (span._.size_mm, span._.count, span._.lobe) == (None, None, "upper")


# --- what goes wrong


def test_a_wrong_order_is_found() -> None:
    nlp = spacy.blank("xx")
    for name in ("reportlabel_normalise", "reportlabel_findings", "reportlabel_context", "reportlabel_assertion"):
        nlp.add_pipe(name)
    problems = nlp.analyze_pipes()["problems"]
    assert problems["reportlabel_normalise"] == []
    assert problems["reportlabel_findings"] == ["doc._.sentences"]
    assert set(problems["reportlabel_context"]) == {"span._.status", "span._.temporality", "span._.size_mm"}


def test_the_usual_order_has_no_problem(nlp: Language) -> None:
    assert tuple(nlp.pipe_names) == COMPONENTS
    assert not any(nlp.analyze_pipes()["problems"].values())


@pytest.mark.parametrize(
    ("missing", "needed"),
    [
        ("reportlabel_normalise", "reportlabel_normalise"),
        ("reportlabel_sentences", "reportlabel_sentences"),
        ("reportlabel_assertion", "reportlabel_assertion"),
    ],
)
def test_a_missing_component_is_named(own: Language, missing: str, needed: str) -> None:
    own.disable_pipe(missing)
    with pytest.raises(ConfigError, match=needed):
        own("右肺に結節を認めます。")


def test_an_unknown_region_is_an_error() -> None:
    with pytest.raises(ConfigError, match="unknown region 'chset'"):
        reportlabel.load(region="chset")


def test_a_missing_rules_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such rules folder"):
        reportlabel.load(rules=tmp_path / "nowhere")


def test_attributes_are_set_on_findings_only(nlp: Language) -> None:
    doc = nlp("右肺に結節を認めます。")
    assert doc[0:1]._.status is None
    with pytest.raises(ValueError, match="add_finding"):
        doc[0:1]._.status = "absent"
    with pytest.raises(ValueError, match="cannot be changed"):
        doc.spans["findings"][0]._.start = 0


@pytest.mark.parametrize(("start", "end"), [(3, 3), (4, 2), (0, 99), (-1, 2)])
def test_a_finding_must_lie_in_the_text(nlp: Language, start: int, end: int) -> None:
    with pytest.raises(ValueError, match="cannot lie at"):
        add_finding(nlp("右肺に結節。"), start, end, "nodule")


def test_an_unknown_column_is_an_error(nlp: Language) -> None:
    with pytest.raises(ValueError, match="unknown column 'colour'"):
        add_finding(nlp("右肺に結節。"), 0, 2, "nodule", colour="red")


def test_an_attribute_of_someone_else_is_not_overwritten() -> None:
    getter = Span.get_extension("lobe")
    Span.remove_extension("lobe")
    try:
        Span.set_extension("lobe", default=None)
        with pytest.raises(ConfigError, match=r"span\._\.lobe"):
            register_extensions()
    finally:
        Span.set_extension("lobe", getter=getter[2], setter=getter[3], force=True)
    register_extensions()


# --- storage and processes


def test_a_saved_pipeline_gives_the_same(nlp: Language, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "pipeline")
    again = spacy.load(tmp_path / "pipeline")
    assert again.pipe_names == nlp.pipe_names
    assert mentions_of(again(REPORT)) == mentions_of(nlp(REPORT))
    assert again.config["components"]["reportlabel_context"]["region"] == "chest"


def test_a_pipeline_with_other_rules_keeps_them(tmp_path: Path) -> None:
    folder = rules_folder()
    nlp = reportlabel.load(rules=folder)
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path)
    assert again.config["components"]["reportlabel_findings"]["rules"] == str(folder)


def test_stored_documents_keep_their_findings(nlp: Language) -> None:
    doc = nlp(REPORT)
    stored = DocBin(store_user_data=True, docs=[doc]).to_bytes()
    again = next(iter(DocBin().from_bytes(stored).get_docs(nlp.vocab)))
    assert mentions_of(again) == mentions_of(doc)
    assert again.spans["findings"][0]._.status == doc.spans["findings"][0]._.status


def test_components_can_be_sent_to_a_process(nlp: Language) -> None:
    pipes = pickle.loads(pickle.dumps([pipe for _, pipe in nlp.pipeline]))
    assert len({id(pipe.engine) for pipe in pipes}) == 1
    doc = nlp.make_doc(REPORT)
    for pipe in pipes:
        doc = pipe(doc)
    assert mentions_of(doc) == mentions_of(nlp(REPORT))


def test_two_processes_give_the_same(nlp: Language) -> None:
    texts = [REPORT, "", "左気胸を認めます。", "胸水\x00なし", *(f"右肺に{n}mmの結節を認めます。" for n in range(20))]
    docs = list(nlp.pipe(texts, n_process=2, batch_size=4))
    assert [doc.text for doc in docs] == texts
    assert [mentions_of(doc) for doc in docs] == [mentions_of(nlp(text)) for text in texts]
    assert not multiprocessing.active_children()


def test_the_installed_names_are_those_of_the_factories() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert tuple(declared["spacy_factories"]) == COMPONENTS
    for name, target in (*declared["spacy_factories"].items(), *declared["spacy_tokenizers"].items()):
        module, _, attribute = target.partition(":")
        assert callable(getattr(import_module(module), attribute)), name


def test_spacy_finds_a_saved_pipeline_by_itself(nlp: Language, tmp_path: Path) -> None:
    from importlib.metadata import entry_points

    if not any(point.name in COMPONENTS for point in entry_points(group="spacy_factories")):
        pytest.skip("reportlabel is not installed, so that spaCy cannot see its entry points")
    nlp.to_disk(tmp_path)
    program = (
        "import sys, spacy; doc = spacy.load(sys.argv[1])('右肺に結節を認めます。'); "
        "print(doc.spans['findings'][0]._.status)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "present", done.stderr
