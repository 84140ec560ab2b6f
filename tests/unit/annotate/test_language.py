"""The language of reports: what a sentence says of a finding, case by case.

Each case is (text, finding id, status); status ``not_mentioned`` means that no current statement is made.
"""

from __future__ import annotations

import pytest

from reportlabel.annotate.annotator import Annotator

LISTS = [
    ("縦隔・肺門リンパ節の有意な腫大や胸水を認めません。", "lymphadenopathy", "absent"),
    ("縦隔・肺門リンパ節の有意な腫大や胸水を認めません。", "pleural_effusion", "absent"),
    ("胸水、心嚢水、腹水は認められない。", "pleural_effusion", "absent"),
    ("胸水、心嚢水、腹水は認められない。", "pericardial_effusion", "absent"),
    ("胸水、心嚢水、腹水は認められない。", "ascites", "absent"),
    ("肺野に結節や浸潤影、無気肺など指摘できません。", "lung_nodule", "absent"),
    ("肺野に結節や浸潤影、無気肺など指摘できません。", "consolidation", "absent"),
    ("肺野に結節や浸潤影、無気肺など指摘できません。", "atelectasis", "absent"),
    ("明らかな結節、腫瘤、浸潤影等はみられません。", "lung_mass", "absent"),
    ("胸水(-)、リンパ節腫大(-)、結節(+)。", "pleural_effusion", "absent"),
    ("胸水(-)、リンパ節腫大(-)、結節(+)。", "lung_nodule", "present"),
    ("胸水－、気胸－、無気肺＋", "atelectasis", "present"),
    ("胸水および心嚢液の貯留は認めず、気胸もありません。", "pericardial_effusion", "absent"),
    ("胸水および心嚢液の貯留は認めず、気胸もありません。", "pneumothorax", "absent"),
    ("肝転移、副腎転移、骨転移なし。", "adrenal_metastasis", "absent"),
    ("肝、副腎、骨に転移は認めません。", "adrenal_metastasis", "absent"),
    ("肝、副腎、骨に転移は認めません。", "bone_metastasis", "absent"),
    ("胆石や胆嚢壁肥厚、胆管拡張は見られない。", "gallbladder_wall_thickening", "absent"),
]

CONTRAST = [
    ("右下葉に結節を認めるが、胸水は認めない。", "lung_nodule", "present"),
    ("右下葉に結節を認めるが、胸水は認めない。", "pleural_effusion", "absent"),
    ("気腫性変化を認めますが間質性変化はみられません。", "emphysema", "present"),
    ("気腫性変化を認めますが間質性変化はみられません。", "interstitial_lung_disease", "absent"),
    ("胸水はなく、右上葉に浸潤影がある。", "consolidation", "present"),
    ("胸水はなく、右上葉に浸潤影がある。", "pleural_effusion", "absent"),
    ("結節は認めないものの、すりガラス影を認める。", "ground_glass_opacity", "present"),
    ("リンパ節は腫大していないが、胸水は増加している。", "lymphadenopathy", "absent"),
    ("リンパ節は腫大していないが、胸水は増加している。", "pleural_effusion", "present"),
    ("胆石あり、胆嚢炎なし。", "gallstone", "present"),
    ("胆石あり、胆嚢炎なし。", "cholecystitis", "absent"),
]

HEDGE = [
    ("右上葉に腫瘤を認め、肺癌を疑います。", "lung_mass", "present"),
    ("右上葉に腫瘤を認め、肺癌を疑います。", "lung_cancer", "uncertain"),
    ("左下葉の結節は転移の可能性があります。", "lung_nodule", "present"),
    ("左下葉の結節は転移の可能性があります。", "pulmonary_metastasis", "uncertain"),
    ("肺癌を疑う腫瘤を認めます。", "lung_mass", "present"),
    ("肺癌を疑う腫瘤を認めます。", "lung_cancer", "uncertain"),
    ("腫大リンパ節を認め転移が疑われる。", "lymphadenopathy", "present"),
    ("腫大リンパ節を認め転移が疑われる。", "lymph_node_metastasis", "uncertain"),
    ("肺炎疑い。", "pneumonia", "uncertain"),
    ("右下葉に浸潤影あり、肺炎疑い。", "consolidation", "present"),
    ("肺炎でしょうか。", "pneumonia", "uncertain"),
    ("肺炎像か?", "pneumonia", "uncertain"),
    ("肺癌?", "lung_cancer", "uncertain"),
    ("胸膜浸潤が示唆される。", "pleural_or_chest_wall_invasion", "uncertain"),
    ("肺癌が鑑別に挙がります。", "lung_cancer", "uncertain"),
    ("鑑別として肺癌が挙げられる。", "lung_cancer", "uncertain"),
    ("肝腫瘤を認め、肝細胞癌または転移を考慮する。", "liver_metastasis", "uncertain"),
    ("胸膜浸潤にはご留意ください。", "pleural_or_chest_wall_invasion", "uncertain"),
    ("少量の胸水がありそうです。", "pleural_effusion", "uncertain"),
    ("肺癌と考えます。", "lung_cancer", "present"),
    ("肺癌として矛盾しません。", "lung_cancer", "present"),
    ("肺癌に矛盾しない所見です。", "lung_cancer", "present"),
    ("肺癌に合致する所見。", "lung_cancer", "present"),
    ("肺癌としてよい。", "lung_cancer", "present"),
    ("肺癌と思われます。", "lung_cancer", "present"),
    ("肺癌に相当する病変です。", "lung_cancer", "present"),
    ("肺癌としても矛盾はありません。", "lung_cancer", "present"),
]

DOUBLE_NEGATION = [
    ("転移は否定できません。", "metastasis", "uncertain"),
    ("肺転移も否定はできない。", "pulmonary_metastasis", "uncertain"),
    ("肺転移を除外できない。", "pulmonary_metastasis", "uncertain"),
    ("肺転移の可能性は否定できず、経過観察が望まれます。", "pulmonary_metastasis", "uncertain"),
    ("肺転移の可能性を完全には否定できない。", "pulmonary_metastasis", "uncertain"),
    ("肺転移でないとは言い切れない。", "pulmonary_metastasis", "uncertain"),
    ("肺転移がないとは言えません。", "pulmonary_metastasis", "uncertain"),
    ("肺転移とは言えません。", "pulmonary_metastasis", "absent"),
    ("胸膜浸潤は否定的です。", "pleural_or_chest_wall_invasion", "absent"),
    ("肺転移の可能性は低いと考えます。", "pulmonary_metastasis", "absent"),
    ("肺癌の可能性は低く、炎症を疑う。", "lung_cancer", "absent"),
    ("肺転移は考えにくい。", "pulmonary_metastasis", "absent"),
    ("肺転移を疑う所見はありません。", "pulmonary_metastasis", "absent"),
    ("肺転移を積極的に疑う所見は指摘できません。", "pulmonary_metastasis", "absent"),
    ("骨転移を示唆する骨硬化像や骨破壊は認めない。", "bone_metastasis", "absent"),
    ("胸膜浸潤はなさそうです。", "pleural_or_chest_wall_invasion", "absent"),
    ("胸水ははっきりしません。", "pleural_effusion", "absent"),
    ("リンパ節腫大は明らかではありません。", "lymphadenopathy", "absent"),
    ("有意なリンパ節腫大は指摘出来ません。", "lymphadenopathy", "absent"),
    ("肺炎よりは肺癌を考えます。", "lung_cancer", "present"),
    ("肺炎よりは肺癌を考えます。", "pneumonia", "uncertain"),
    ("肺癌よりも肺炎を疑います。", "lung_cancer", "uncertain"),
]

KNOWN = [
    ("既知の肺癌です。", "lung_cancer", "present"),
    ("ご指摘の肺癌は増大しています。", "lung_cancer", "present"),
    ("既知の胆石を認めます。", "gallstone", "present"),
    ("指摘されている右上葉の結節は著変ありません。", "lung_nodule", "present"),
    ("既知の胸水は消失しています。", "pleural_effusion", "absent"),
]

CHANGE = [
    ("結節は増大しています。", "lung_nodule", "present"),
    ("結節の増大は認めません。", "lung_nodule", "present"),
    ("右上葉結節、著変なし。", "lung_nodule", "present"),
    ("右上葉の結節は前回と比較し著変を認めません。", "lung_nodule", "present"),
    ("胸水は前回より減少しています。", "pleural_effusion", "present"),
    ("胸水は消失しました。", "pleural_effusion", "absent"),
    ("前回みられた右胸水は消失しています。", "pleural_effusion", "absent"),
    ("前回認めた結節は今回指摘できません。", "lung_nodule", "absent"),
    ("前回は胸水を認めていました。", "pleural_effusion", "not_mentioned"),
    ("腫瘤に造影効果は認めません。", "lung_mass", "present"),
    ("結節に石灰化は認めない。", "lung_nodule", "present"),
    ("すりガラス影が新たに出現しています。", "ground_glass_opacity", "present"),
    ("この腫瘤以外に結節は認めません。", "lung_mass", "present"),
    ("この腫瘤以外に結節は認めません。", "lung_nodule", "absent"),
]

PAST_AND_PLANNED = [
    ("胆摘後です。", "gallstone", "not_mentioned"),
    ("胆嚢摘出後。", "cholecystitis", "not_mentioned"),
    ("胆石術後です。", "gallstone", "not_mentioned"),
    ("肺癌術後です。", "lung_cancer", "not_mentioned"),
    ("右肺癌術後、再発所見なし。", "lung_cancer", "not_mentioned"),
    ("肺炎の既往あり。", "pneumonia", "not_mentioned"),
    ("転移検索目的のCTです。", "metastasis", "not_mentioned"),
    ("肺転移除外目的。", "pulmonary_metastasis", "not_mentioned"),
    ("肺癌精査目的で撮影しました。", "lung_cancer", "not_mentioned"),
    ("骨転移の有無について評価。", "bone_metastasis", "not_mentioned"),
    ("【依頼目的】肺癌疑い、胸水精査\n【所見】胸水を認めません。", "lung_cancer", "not_mentioned"),
    ("【依頼目的】肺癌疑い、胸水精査\n【所見】胸水を認めません。", "pleural_effusion", "absent"),
    ("臨床診断：肺炎\n所見：右下葉に浸潤影を認めます。", "pneumonia", "not_mentioned"),
    ("臨床診断：肺炎\n所見：右下葉に浸潤影を認めます。", "consolidation", "present"),
    ("肺癌とした場合、T1bです。", "lung_cancer", "not_mentioned"),
    ("胸水が増加する場合は再検ください。", "pleural_effusion", "not_mentioned"),
    ("CTでは微小な肺転移は検出できないことがあります。", "pulmonary_metastasis", "not_mentioned"),
    ("副腎転移は撮像範囲外のため評価できません。", "adrenal_metastasis", "not_mentioned"),
    ("肺癌の可能性があり精査をお願いします。", "lung_cancer", "uncertain"),
]

BLANKET = [
    ("その他、異常を認めません。", "pleural_effusion", "not_mentioned"),
    ("撮像範囲の腹部臓器に異常なし。", "gallstone", "not_mentioned"),
    ("膵に異常なし。", "pancreatic_mass", "not_mentioned"),
    ("CPA sharp.", "pleural_effusion", "absent"),
    ("両側CP angle sharp。", "pleural_effusion", "absent"),
    ("肺野清。", "lung_opacity", "absent"),
    ("CTR 45%。", "cardiomegaly", "absent"),
    ("CTR=58%と拡大。", "cardiomegaly", "present"),
    ("心拡大なし。", "cardiomegaly", "absent"),
]

ENGLISH = [
    ("s/o lung cancer", "lung_cancer", "uncertain"),
    ("r/o pneumonia", "pneumonia", "uncertain"),
    ("c/w pneumonia", "pneumonia", "present"),
    ("No pleural effusion or pneumothorax.", "pleural_effusion", "absent"),
    ("No pleural effusion or pneumothorax.", "pneumothorax", "absent"),
    ("w/o pleural effusion", "pleural_effusion", "absent"),
    ("pleural effusion: n.p.", "pleural_effusion", "absent"),
    ("右下葉にGGO(+)", "ground_glass_opacity", "present"),
    ("両肺にbullaあり", "emphysema", "present"),
    ("liver metastasis s/o", "liver_metastasis", "uncertain"),
    ("Gallstone is seen. No ascites.", "gallstone", "present"),
    ("Gallstone is seen. No ascites.", "ascites", "absent"),
    ("左下葉にpartsolidGGNを認めます。", "ground_glass_nodule", "present"),
]

LAYOUT = [
    ("右上葉に腫瘤を認めます。肺癌\nを否定できません。", "lung_cancer", "uncertain"),
    (
        "右肺尖部に長径50mm大の不整な腫瘤を認め、周囲にはスピクラ様の毛羽立ちと胸膜陥\n入を伴っており、肺癌を疑いま\nす。",
        "lung_cancer",
        "uncertain",
    ),
    ("胸水なし\nリンパ節腫大なし\n右下葉に結節あり", "lymphadenopathy", "absent"),
    ("胸水なし\nリンパ節腫大なし\n右下葉に結節あり", "lung_nodule", "present"),
    ("・胸水：なし\n・結節：あり", "pleural_effusion", "absent"),
    ("・胸水：なし\n・結節：あり", "lung_nodule", "present"),
    ("肝：SOLなし\n胆：結石(+)\n膵：n.p.", "gallstone", "present"),
    ("肝：SOLなし\n胆：結石(+)\n膵：n.p.", "liver_mass", "absent"),
    ("【肝】S8に12mm大の腫瘤を認めます。\n【胆嚢】結石なし。", "liver_mass", "present"),
    ("【肝】S8に12mm大の腫瘤を認めます。\n【胆嚢】結石なし。", "gallstone", "absent"),
    ("1. 胆石\n2. 脂肪肝の疑い", "gallstone", "present"),
    ("1. 胆石\n2. 脂肪肝の疑い", "fatty_liver", "uncertain"),
    ("<診断>\n＃１　肺炎\n＃２　左胸水", "pneumonia", "present"),
    ("肺尖部に⼤きな腫瘤があり、⻑径は12mmです。", "lung_mass", "present"),
]

SITES = [
    ("皮膚、肝、右副腎に多発腫瘤があり、転移と考えます。", "liver_metastasis", "present"),
    ("皮膚、肝、右副腎に多発腫瘤があり、転移と考えます。", "adrenal_metastasis", "present"),
    ("肝S8に腫瘤を認めます。転移を疑います。", "liver_metastasis", "uncertain"),
    ("甲状腺右葉に結節を認めます。", "lung_nodule", "not_mentioned"),
    ("左副腎に腫瘤を認めます。", "liver_mass", "not_mentioned"),
    ("胸椎に溶骨性変化があり、転移を疑います。", "bone_metastasis", "uncertain"),
    ("右肺門リンパ節が腫大しており、転移と考えます。", "lymph_node_metastasis", "present"),
    ("腫瘤は胸壁に浸潤しています。", "pleural_or_chest_wall_invasion", "present"),
    ("腫瘤は大動脈に浸潤している可能性があります。", "mediastinal_invasion", "uncertain"),
    ("腫瘤は胸膜に接しており、浸潤は否定できません。", "pleural_or_chest_wall_invasion", "uncertain"),
    ("縦隔浸潤を示唆する所見はありません。", "mediastinal_invasion", "absent"),
    ("右上葉に浸潤影を認めます。", "pleural_or_chest_wall_invasion", "not_mentioned"),
    ("目立ちます。立ち上がりは急峻です。", "lung_nodule", "not_mentioned"),
]

ALL = [
    *LISTS,
    *CONTRAST,
    *HEDGE,
    *DOUBLE_NEGATION,
    *KNOWN,
    *CHANGE,
    *PAST_AND_PLANNED,
    *BLANKET,
    *ENGLISH,
    *LAYOUT,
    *SITES,
]


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator()


@pytest.mark.parametrize(("text", "finding", "status"), ALL)
def test_status(annotator: Annotator, text: str, finding: str, status: str) -> None:
    statuses = {
        row.status
        for row in annotator.mentions(text, region="chest")
        if row.finding == finding and row.temporality == "current"
    }
    strongest = next((value for value in ("present", "uncertain", "absent") if value in statuses), "not_mentioned")
    assert strongest == status
