"""Texts without identifiers: what is masked, and what only looks as if it had to be."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportlabel.deidentify.dates import DatePolicy, Policy
from reportlabel.deidentify.offsets import maps_of
from reportlabel.deidentify.text import Deidentifier, KnownNames, mask_table
from reportlabel.deidentify.text_rules import ProfileName, TextRules, load_text_rules
from reportlabel.errors import ConfigError, InputError

DAY = date(2024, 3, 1)
KEY = b"a key that nobody may know......"
Make = Callable[..., Deidentifier]


@pytest.fixture(scope="module")
def make() -> Make:
    rules = load_text_rules()

    @cache
    def made(
        policy: Policy = "relative", known: KnownNames | None = None, profile: ProfileName = "pseudonymised"
    ) -> Deidentifier:
        return Deidentifier(rules, known=known, date_policy=DatePolicy(policy, key=KEY), profile=profile)

    return made


@pytest.fixture(scope="module")
def relative(make: Make) -> Deidentifier:
    return make()


# --- the rules of notes/protocols.md section 9, with what each must leave alone


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        # 1, 8: numbers of patients, exams, specimens, slips
        ("ID：12345678", "ID：［番号］"),
        ("ＩＤ ０１２３４５６ 検査番号 １００００４６９０００", "ＩＤ ［番号］ 検査番号 ［番号］"),
        ("カルテ番号 00-1234-5", "カルテ番号 ［番号］"),
        ("病理番号 S23-01234", "病理番号 ［番号］"),
        ("組織診（H23-4567）でAdenocarcinoma", "組織診（［番号］）でAdenocarcinoma"),
        ("伝票番号：A-20391", "伝票番号：［番号］"),
        ("1.2.392.200036.9116.2.5.1 のシリーズ", "［番号］ のシリーズ"),
        ("轟　三郎殿 87654321", "［人名］殿 ［番号］"),
        # 2: names before titles, which stay
        ("主治医の田中先生に連絡しました。", "主治医の［人名］先生に連絡しました。"),
        ("呼吸器内科山本先生へ報告済。", "呼吸器内科［人名］先生へ報告済。"),
        ("外科　小鳥遊 太郎先生と協議。", "外科　［人名］先生と協議。"),
        ("本日、轟木先生に電話連絡。", "本日、［人名］先生に電話連絡。"),
        ("山田太郎先生、佐々木先生", "［人名］先生、［人名］先生"),
        ("一ノ瀬医師より", "［人名］医師より"),
        ("髙橋Ｄｒ．に口頭報告", "［人名］Ｄｒ．に口頭報告"),
        ("いとう先生、ﾀﾅｶ先生、スミス先生、Smith先生", "［人名］先生、［人名］先生、［人名］先生、［人名］先生"),
        ("⻑瀬先生、⻄村Dr.に報告", "［人名］先生、［人名］Dr.に報告"),
        ("佐藤教授、鈴木部長", "［人名］教授、［人名］部長"),
        ("Dr.日下部と協議", "Dr.［人名］と協議"),
        ("Dr. Smith に確認", "Dr. ［人名］ に確認"),
        ("患者：雪乃　花子（ユキノ　ハナコ）様", "患者：［人名］（［人名］）様"),
        ("患者：百目鬼様\n氏名：八月一日　太郎", "患者：［人名］様\n氏名：［人名］"),
        ("小林様 肺がん検診", "［人名］様 肺がん検診"),
        # 3: signatures
        ("…を認めます。\n（葛西）", "…を認めます。\n（［人名］）"),
        ("…を認めます。（葛西）", "…を認めます。（［人名］）"),
        ("…を認めます。\n葛西／鷹取", "…を認めます。\n［人名］／［人名］"),
        ("読影医：宇佐美 稔\n【追記】変更なし。", "読影医：［人名］\n【追記】変更なし。"),
        ("（読影：安西 徹）", "（読影：［人名］）"),
        ("文責 日下部", "文責 ［人名］"),
        ("検者：藤堂、宍戸", "検者：［人名］、［人名］"),
        ("診療放射線技師：綾小路 清", "診療放射線技師：［人名］"),
        ("Reported by: T. Sato", "Reported by: ［人名］"),
        ("No effusion.\n(Tanaka)", "No effusion.\n(［人名］)"),
        # 4: institutions
        ("東北大学病院より紹介。", "［施設］より紹介。"),
        ("湊ヶ浜大学医学部附属病院にて", "［施設］にて"),
        ("ひだまり診療所、みどり坂クリニック", "［施設］、［施設］"),
        ("先月にのぞみクリニックで撮影。", "先月に［施設］で撮影。"),
        ("桜台がん検診センターで施行された", "［施設］で施行された"),
        ("国立がん研究センター中央病院で治療", "［施設］で治療"),
        ("紹介元の東雲病院に", "紹介元の［施設］に"),
        ("白樺脳神経外科からの紹介。", "［施設］からの紹介。"),
        ("さくら内科から紹介", "［施設］から紹介"),
        ("CT at Shinonome Central Hospital", "CT at ［施設］"),
        # 5: dates
        ("2023年8月15日のCTと比較", "［検査の199日前］のCTと比較"),
        ("前回（２０２３－０８－１５）", "前回（［検査の199日前］）"),
        ("20230815のCT", "［検査の199日前］のCT"),
        ("令和5年8月のCT、H26.5.17のMRI", "［検査の約7か月前］のCT、［検査の3576日前］のMRI"),
        ("R5.3のCTと比べ", "［検査の約12か月前］のCTと比べ"),
        ("3/12のCTと比べ", "［検査の355日前］のCTと比べ"),
        ("2015年に手術", "［検査の約9年前］に手術"),
        ("令和6年3月1日撮影", "［検査当日］撮影"),
        ("2024年3月の検査、2024年に手術", "［検査と同じ月］の検査、［検査と同じ年］に手術"),
        ("2024/3/11予定、2024年5月予定、2026年", "［検査の10日後］予定、［検査の約2か月後］予定、［検査の約2年後］"),
        ("生年月日：S20.5.6", "生年月日：78歳"),
        ("1945年5月6日生まれの男性", "78歳の男性"),
        # 7: telephone, postal code, address
        ("TEL 03-1234-5678", "TEL ［電話］"),
        ("（ＰＨＳ ６１８５）、内線5678", "（［電話］）、［電話］"),
        ("090-1234-5678まで", "［電話］まで"),
        ("〒980-8574 宮城県仙台市青葉区星陵町1-1", "〒［郵便番号］ ［住所］"),
        ("東京都多摩野市日の出6丁目3番1号第二桜荘7号室", "［住所］"),
        ("大阪市北区中之島5-3-1に住む。横浜市在住", "［住所］に住む。［住所］在住"),
        # 9: relatives, occupation, place of work
        ("妻の花子さん同席。長男（太郎）に説明", "妻の［人名］さん同席。長男（［人名］）に説明"),
        ("職業：大工。喫煙歴あり", "職業：［職業］。喫煙歴あり"),
        ("株式会社山田製作所に勤務。青葉小学校教諭", "［勤務先］に勤務。［勤務先］教諭"),
        # 10: addresses on the net
        ("https://example.co.jp/a?b=c を参照", "［URL］ を参照"),
        ("test@example.com へ", "［メール］ へ"),
    ],
)
def test_what_identifies_is_masked(relative: Deidentifier, text: str, masked: str) -> None:
    assert relative.mask(text, exam_day=DAY).text == masked


@pytest.mark.parametrize(
    "text",
    [
        # measurements, codes and series are no numbers of persons
        "10mm、3.5×2.1cm、1.2cm、T1bN0M0、SUVmax 5.3、CT値 -120HU、b=1000",
        "CA19-9 1234567 U/mL、PSA 12.3、HbA1c 6.5、eGFR 45.2",
        "Series 3/12、image 45/120、12/35枚目、Se5/Im23",
        "L4/5、C5/6、Th11/12の圧迫骨折、#5/6 のリンパ節、左5/6肋骨骨折、S5/6に嚢胞、S8.2、S2.5cm",
        "1-1-1. 所見\n2. 結論\n(1) 肺",
        # persons who gave a name to a disease, a sign, a method
        "クローン病、橋本病、川崎病、菊池病、高安動脈炎、バセドウ氏病、ホジキンリンパ腫、ワルダイエル氏輪",
        "Couinaud分類S8、Billroth II法再建、Bosniak分類III、Vater乳頭、Crohn's disease、Hodgkin lymphoma",
        "モリソン窩、ダグラス窩、トライツ靱帯、キーンベック病、太田母斑、田原結節",
        "診断：橋本病の所見です。\n診断：明らかな悪性所見なし。",
        # 様, 殿, 氏, Dr and 先生 that are no titles of somebody
        "結節様陰影。すりガラス様の濃度。石灰化様構造。索状様、嚢胞様。同様の所見。一様に造影。周堤様の立ち上がり",
        "腎：結石様エコー（-）。\n目的：腺腫様甲状腺腫",
        "左殿部に腫瘤。殿筋内。両氏名欄",
        "消化器内科の先生に連絡。主治医先生へ。担当医師に報告。読影医師2名で確認。当直医師へ。放射線技師が撮影。検査技師",
        "患者様へ説明。患者さんは車椅子。chest drain留置中、drainage tube",
        "\n骨転移を認めます。\n（既知）",
        "骨転移を認めます。\n（右）",
        "術者：不明\n主治医：不在\n撮影：仰臥位\n担当：外科\n患者：高齢女性\n主治医 変更なし\n確認：済",
        "母 肺癌、父：胃癌、姉 健在",
        # institutions that are nobody's
        "当院、他院、前医、近医、貴院、他病院、大学病院、総合病院、救命救急センター、健診センター、がんセンター、近くの医院、この病院で、かかりつけの医院",
        "当院整形外科で施行。消化器外科からの紹介。近医整形外科より紹介。泌尿器科受診",
        "the referring hospital, an outside clinic, our university hospital",
        # fractions, stages, scores are no dates
        "上1/3、2/3以上、1/2の範囲、リンパ節転移（2/15）、T2/3、ステージ3/4、GCS 14/15、MMSE 12/30、R5.3mm",
        "生後6か月、6月齢、3年前、5年生存、生検、生理、2回",
        "肺の上区、下区域、S4区域、78歳女性、80歳代",
        "アスベスト工場で勤務、造船所勤務歴、小学校の時に",
    ],
)
def test_what_only_looks_so_is_left_alone(make: Make, text: str) -> None:
    assert make("mask", profile="anonymised").mask(text, exam_day=DAY).text == text


def test_real_reports_are_left_alone(make: Make) -> None:
    reports = Path(__file__).resolve().parents[4] / "shared" / "real_reports" / "reports.csv"
    if not reports.is_file():
        pytest.skip("../shared/real_reports is not here")
    deidentifier = make("keep", profile="anonymised")
    masked = [span for text in pl.read_csv(reports)["text"] for span in deidentifier.mask(text, exam_day=DAY).spans]
    assert masked == []


# --- dates


def test_dates_are_kept_but_birth_dates_are_not(make: Make) -> None:
    kept = make("keep")
    assert kept.mask("前回 2023/8/15 と比較").text == "前回 2023/8/15 と比較"
    assert kept.mask("生年月日 1945/5/6").text == "生年月日 ［生年月日］"
    assert kept.mask("20230815のCT、12345678").text == "20230815のCT、［番号］"


def test_shifted_dates_keep_their_form_and_their_distances(make: Make) -> None:
    shifting = make("shift")
    days = shifting.date_policy.shift_of("P-1")
    masked = shifting.mask("２０２３年８月１５日、2023-08-05、R5.8.15、20230815", patient="P-1", exam_day=DAY)
    first, second = date(2023, 8, 15) + days, date(2023, 8, 5) + days
    wide = f"{first.year}年{first.month}月{first.day}日".translate(str.maketrans("0123456789", "０１２３４５６７８９"))
    era = f"R{first.year - 2018}.{first.month}.{first.day}"
    assert masked.text == f"{wide}、{second:%Y-%m-%d}、{era}、{first:%Y%m%d}"
    assert shifting.mask("2023/8/15", patient="P-2").text != shifting.mask("2023/8/15", patient="P-1").text
    with pytest.raises(ConfigError, match="give the patient"):
        shifting.mask("2023/8/15")


def test_a_shift_over_the_change_of_an_era(make: Make) -> None:
    shifting = make("shift")
    patient = next(f"P-{n}" for n in range(200) if shifting.date_policy.shift_of(f"P-{n}") < timedelta(days=-30))
    days = shifting.date_policy.shift_of(patient)
    moved = date(2019, 5, 10) + days
    assert (
        shifting.mask("令和元年5月10日", patient=patient).text
        == f"平成{moved.year - 1988}年{moved.month}月{moved.day}日"
    )


@given(st.text(max_size=8))
def test_a_shift_is_never_nothing(patient: str) -> None:
    policy = DatePolicy("shift", key=KEY, largest_shift=3)
    assert 1 <= abs(policy.shift_of(patient).days) <= 3


def test_dates_that_cannot_be_counted_become_tokens(make: Make) -> None:
    assert make("relative").mask("2023/8/15、3/12のCT").text == "［日付］、［日付］のCT"
    assert make("mask").mask("2023/8/15", exam_day=DAY).text == "［日付］"


def test_great_ages_are_hidden_in_the_anonymised_profile_only(make: Make) -> None:
    text = "92歳男性、89歳、100才、生年月日 1930/1/1"
    assert make("keep").mask(text, exam_day=DAY).text == "92歳男性、89歳、100才、生年月日 94歳"
    hidden = make("keep", profile="anonymised").mask(text, exam_day=DAY).text
    assert hidden == "90歳以上男性、89歳、90歳以上、生年月日 90歳以上"


@pytest.mark.parametrize(
    "wrong", [{"kind": "move"}, {"kind": "shift"}, {"kind": "shift", "key": KEY, "largest_shift": 0}]
)
def test_a_wrong_policy_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        DatePolicy(**wrong)  # type: ignore[arg-type]


# --- what the hospital knows


@pytest.fixture(scope="module")
def known() -> KnownNames:
    patients = pl.DataFrame(
        {
            "patient_id": ["00012", "1234567"],
            "name": ["薔薇園　菫", "凸凹　正"],
            "kana": ["バラゾノ　スミレ", None],
            "roman": ["BARAZONO^SUMIRE", ""],
            "address": ["架空県仮市無町1-2", None],
            "phone": [None, "1-23"],
        }
    )
    return KnownNames.from_tables(patients, staff=["蘆屋 満", None], identifiers=[("id", "ZQ0077"), ("id", None)])


@pytest.mark.parametrize(
    "name",
    [
        "薔薇園　菫",
        "薔薇園菫",
        "薔薇園 菫",
        "薔薇園\n菫",
        "バラゾノスミレ",
        "ﾊﾞﾗｿﾞﾉ ｽﾐﾚ",
        "ばらぞのすみれ",
        "Sumire Barazono",
        "BARAZONO, Sumire",
        "barazono^sumire",
        "蘆屋満",
        "凸凹正",
    ],
)
def test_known_names_are_masked_wherever_they_stand(make: Make, known: KnownNames, name: str) -> None:
    masked = make("keep", known).mask(f"所見は{name}と同じ。")
    assert masked.text == "所見は［人名］と同じ。"
    assert masked.spans[0].rule == "known.person"


def test_known_surnames_alone_are_masked_in_signatures_only(make: Make, known: KnownNames) -> None:
    deidentifier = make("keep", known)
    assert deidentifier.mask("薔薇園の所見。\n（蘆屋）").text == "薔薇園の所見。\n（［人名］）"


def test_known_numbers_and_addresses_are_masked(make: Make, known: KnownNames) -> None:
    deidentifier = make("keep", known)
    assert deidentifier.mask("架空県仮市無町１－２の人、zq0077、00012").text == "［住所］の人、［番号］、［番号］"
    assert deidentifier.mask("100012、zq00771、1-23").text == "100012、zq00771、1-23", "no inside of a longer number"


def test_known_names_are_not_shown(known: KnownNames) -> None:
    assert repr(known) == "KnownNames(5 persons, 5 identifiers)"


# --- spans, tokens, tables


PIECES = (
    *("田中先生", "（葛西）", "\n", "。", "右肺に結節", "TEL 03-1234-5678", "2023/8/15", "東雲病院", "様", "Dr.", " "),
    *("ID 12345678", "ｶﾞ", "㎜", "1945年生", "文責", "：", "［人名］", "12", "/", "佐藤", "と", "令和", "S20.5.6"),
    *("\u3099", "𠮷野家", "\r\n", "\0"),
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sampled_from(["keep", "relative", "shift", "mask"]))
def test_the_offsets_fit_every_text(make: Make, text: str, policy: Policy) -> None:
    masked = make(policy).mask(text, patient="P-1", exam_day=DAY)
    at_old = at_new = 0
    for piece in masked.offsets.pieces:
        assert text[at_old : piece.old_start] == masked.text[at_new : piece.new_start]
        at_old, at_new = piece.old_end, piece.new_end
    assert text[at_old:] == masked.text[at_new:]
    assert [(span.start, span.end) for span in masked.spans] == [(old, end) for old, end, _, _ in masked.offsets.pieces]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_text_can_be_masked(relative: Deidentifier, text: str) -> None:
    relative.mask(text, exam_day=DAY)


def test_a_masked_text_stays_as_it_is(relative: Deidentifier) -> None:
    text = "ID：12345678\n東雲病院（TEL 03-1234-5678）の田中先生。2023/8/15のCT。92歳。\n文責 日下部\n（葛西）"
    once = relative.mask(text, exam_day=DAY).text
    assert relative.mask(once, exam_day=DAY).text == once


def test_a_label_span_survives(relative: Deidentifier) -> None:
    text = "東雲病院の田中先生へ。右肺に結節を認めます。\n（葛西）"
    masked = relative.mask(text)
    start = text.index("結節")
    new = masked.offsets.to_new(start, start + 2)
    assert masked.text[slice(*new)] == "結節" and masked.offsets.to_old(*new) == (start, start + 2)


def test_names_broken_by_a_line_wrap_are_found(relative: Deidentifier) -> None:
    text = "右肺上葉に結節を認めますので詳しい検査をお願いしたく小鳥\n遊先生に連絡しました。"
    assert (
        relative.mask(text).text == "右肺上葉に結節を認めますので詳しい検査をお願いしたく［人名］先生に連絡しました。"
    )


def test_a_table(make: Make) -> None:
    table = pl.DataFrame(
        {
            "report_id": ["R-1", "R-2", "R-3"],
            "text": ["（葛西）", None, "結節。"],
            "who": ["P-1", "P-2", "P-3"],
            "day": [DAY, DAY, None],
        }
    )
    made = mask_table(table, make("shift"), patient_column="who", day_column="day")
    assert made.table["text"].to_list() == ["（［人名］）", None, "結節。"]
    assert made.table.columns == table.columns and made.counts == {"person": 1}
    assert maps_of(made.offsets, ["R-1"])["R-1"].to_new(0, 4) == (0, 6)
    with pytest.raises(InputError, match="lacks column 'nobody'"):
        mask_table(table, make(), patient_column="nobody")
    with pytest.raises(InputError, match="twice"):
        mask_table(pl.concat([table, table]), make())
    assert mask_table(table.clear(), make()).offsets.height == 0


def test_it_can_be_sent_to_another_process(relative: Deidentifier) -> None:
    again = pickle.loads(pickle.dumps(relative))
    assert again.mask("轟木先生").text == "［人名］先生"


def test_an_unknown_profile_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match="no de-identification profile"):
        make("keep", profile="secret")


# --- the rule file


def test_a_wrong_rule_file_is_named_with_its_line(tmp_path: Path) -> None:
    from reportlabel.rulebook.load import rules_folder

    right = (rules_folder() / "deidentify.yaml").read_text(encoding="utf-8")
    path = tmp_path / "deidentify.yaml"
    for old, new, said in (
        ("phones:\n", "phones:\n  colour: [red]\n", "unknown key 'colour'"),
        ("  person: ［人名］\n", "", "tokens lacks person"),
        ("  person: ［人名］\n", "  person: ［施設］\n", "same token"),
        ("佐藤 さとう sato,", "佐藤 さとう,", "its reading"),
        ("pathology: '", "pathology: '(", "is no regular expression"),
    ):
        assert old in right
        path.write_text(right.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(ConfigError, match=said):
            load_text_rules(tmp_path)
    path.unlink()
    with pytest.raises(ConfigError, match="missing"):
        load_text_rules(tmp_path)


@pytest.mark.parametrize(
    ("path", "word", "text", "found"),
    [
        ("names.honorifics", "さん", "妻の花子さんと来院。", "花子"),
        ("names.signed", "記", "所見なし。\n（葛西）記", "葛西"),
        ("institutions.practices", "クリニック", "白樺皮膚科クリニックからの紹介。", "白樺皮膚科クリニック"),
        ("addresses.numbers.sure", "丁目", "横浜市本町3丁目に転居。", "横浜市本町3丁目"),
        ("addresses.numbers.rooms", "号室", "千葉県桜市本町3-5メゾン桜201号室に転居。", "号室"),
        ("addresses.numbers.between", "の", "千葉県桜市本町3の5の7に転居。", "の7"),
        ("addresses.parts", "村", "桜村在住。", "桜村"),
        ("addresses.postal_labels", "郵便番号", "郵便番号150-0001", "150-0001"),
        ("ids.number_words", "番号", "内線番号1234へ連絡。", "1234"),
        ("work.after_label", "は", "職業は農業。", "農業"),
    ],
)
def test_a_word_counts_because_it_stands_in_the_rules(path: str, word: str, text: str, found: str) -> None:
    def hides(rules: TextRules) -> bool:
        made = Deidentifier(rules, date_policy=DatePolicy("mask")).mask(text, exam_day=DAY)
        start = text.index(found)
        hidden = {at for span in made.spans for at in range(span.start, span.end)}
        return hidden.issuperset(range(start, start + len(found)))

    rules = load_text_rules()
    assert hides(rules)
    assert not hides(_without(rules, path.split("."), word))


def _without(model: Any, path: list[str], word: str) -> Any:
    if not path:
        assert word in model
        return [one for one in model if one != word]
    return model.model_copy(update={path[0]: _without(getattr(model, path[0]), path[1:], word)})


def test_a_month_is_none_before_the_words_of_the_rules(relative: Deidentifier) -> None:
    assert relative.mask("3月間の経過。", exam_day=DAY).text == "3月間の経過。"
    rules = _without(load_text_rules(), ["dates", "not_after_month"], "間")
    made = Deidentifier(rules, date_policy=DatePolicy("mask"))
    assert made.mask("3月間の経過。", exam_day=DAY).text == "［日付］間の経過。"
