"""`check_rules`: each kind of problem, with its file and line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

from reportlabel.rulebook.check import Problem, check_rules
from reportlabel.rulebook.load import load_rules

if TYPE_CHECKING:
    from conftest import Rules


def problems(rules: Rules) -> list[Problem]:
    return check_rules(load_rules(rules.folder))


def places(found: Iterable[Problem], rules: Rules) -> list[tuple[str, str, int]]:
    return [
        (problem.code, str(problem.path.relative_to(rules.folder).with_suffix("")), problem.line) for problem in found
    ]


def test_clean_rules_have_no_problem(rules: Rules) -> None:
    assert problems(rules) == []


@pytest.mark.parametrize(
    "keys",
    [
        {"terms": ["x線"], "implied_by": ["ascitis"]},
        {"terms": ["x線"], "denial_of": ["ascitis"]},
        {"compose": [{"finding": "ascitis", "at": ["liver"]}]},
    ],
)
def test_unknown_finding(rules: Rules, keys: dict[str, Any]) -> None:
    rules.finding("abdomen/other", **keys)
    [problem] = problems(rules)
    assert places([problem], rules) == [
        ("unknown_finding", "findings/abdomen/other", rules.line_of("findings/abdomen/other", "ascitis"))
    ]
    assert problem.message == "unknown finding 'ascitis'; did you mean 'ascites'?"


@pytest.mark.parametrize(
    ("name", "key"),
    [("context", key) for key in ("carriers", "inherits", "targets", "unsized", "transparent")]
    + [("staging/primary_tumour", key) for key in ("diagnosis", "lesions", "alone", "parts")],
)
def test_unknown_finding_in_lists(rules: Rules, name: str, key: str) -> None:
    rules.edit(name, lambda data: data[key].extend(["cyst", "nonesuch"]))
    assert places(problems(rules), rules) == [("unknown_finding", name, rules.line_of(name, "nonesuch"))]


def test_unknown_finding_site_and_region_of_a_label_set(rules: Rules) -> None:
    def break_it(data: dict[str, Any]) -> None:
        data["region"] = "abdomin"
        data["findings"][0]["any_of"] = ["liver_cist"]
        data["findings"][0]["at"] = ["liver", "spleen_x"]

    rules.edit("label_sets/small", break_it)
    name = "label_sets/small"
    assert places(problems(rules), rules) == [
        ("unknown_region", name, rules.line_of(name, "abdomin")),
        ("unknown_finding", name, rules.line_of(name, "liver_cist")),
        ("unknown_site", name, rules.line_of(name, "spleen_x")),
    ]


@pytest.mark.parametrize(
    "keys",
    [
        {"terms": [{"text": "x線", "at": ["lever"]}]},
        {"compose": [{"finding": "cyst", "at": ["lever"]}]},
        {"terms": ["x線"], "examples": [{"text": "x線", "status": "absent", "site": "lever"}] * 8},
    ],
)
def test_unknown_site_of_a_finding(rules: Rules, keys: dict[str, Any]) -> None:
    rules.finding("abdomen/other", **keys)
    found = problems(rules)
    assert {problem.code for problem in found} == {"unknown_site"}
    assert found[-1].line == rules.line_of("findings/abdomen/other", "lever")
    assert found[0].message == "unknown site 'lever'; did you mean 'liver'?"


def test_unknown_sites_of_the_anatomy(rules: Rules) -> None:
    def break_it(data: dict[str, Any]) -> None:
        data["regions"][1]["default_site"] = "site_a"
        data["sites"][2]["within"] = ["site_b"]
        data["sites"][2]["terms"] = [{"text": "腎", "within": ["site_c"]}]
        data["nodal_regions"] = ["site_d"]

    rules.edit("anatomy", break_it)
    wanted = sorted(rules.line_of("anatomy", f"site_{letter}") for letter in "abcd")
    assert places(problems(rules), rules) == [("unknown_site", "anatomy", line) for line in wanted]


def test_unknown_region_folder(rules: Rules) -> None:
    rules.finding("thorax/pneumothorax", terms=["気胸"])
    assert places(problems(rules), rules) == [("unknown_region", "findings/thorax/pneumothorax", 1)]


def test_finding_implied_by_itself(rules: Rules) -> None:
    rules.finding("abdomen/a_sign", terms=["徴候甲"], implied_by=["c_sign"])
    rules.finding("abdomen/b_sign", terms=["徴候乙"], implied_by=["a_sign"])
    rules.finding("abdomen/c_sign", terms=["徴候丙"], implied_by=["b_sign"])
    [problem] = problems(rules)
    assert places([problem], rules) == [
        ("cycle", "findings/abdomen/a_sign", rules.line_of("findings/abdomen/a_sign", "implied_by"))
    ]
    assert problem.message == "implied by itself: a_sign -> c_sign -> b_sign -> a_sign"


def test_site_within_itself(rules: Rules) -> None:
    rules.edit("anatomy", lambda data: data["sites"][0].update(within=["kidney"]))
    [problem] = problems(rules)
    assert (problem.code, problem.message) == ("cycle", "lies within itself: abdomen -> kidney -> abdomen")


def test_a_term_of_two_findings(rules: Rules) -> None:
    rules.finding("abdomen/other", terms=["貯留液", "腹水"])
    [problem] = problems(rules)
    assert places([problem], rules) == [
        ("duplicate_term", "findings/abdomen/other", rules.line_of("findings/abdomen/other", "- 腹水"))
    ]
    assert "ascites" in problem.message
    assert f"ascites.yaml:{rules.line_of('findings/abdomen/ascites', '- 腹水')}" in problem.message


def test_a_term_of_two_findings_is_found_through_spelling_and_width(rules: Rules) -> None:
    rules.finding("abdomen/a_tumour", terms=["肝癌", "HCC疑診"])
    rules.finding("abdomen/b_tumour", terms=["肝がん", "ＨＣＣ疑診"])
    assert [problem.code for problem in problems(rules)] == ["duplicate_term", "duplicate_term"]


def test_findings_may_share_a_term_where_all_but_one_are_limited_to_sites(rules: Rules) -> None:
    rules.finding("abdomen/a_fluid", terms=[{"text": "腹水", "at": ["kidney"]}])
    rules.finding("abdomen/b_fluid", terms=[{"text": "腹水", "at": ["liver"]}])
    assert problems(rules) == []


@pytest.mark.parametrize("words", [["肝癌", "肝がん"], ["part solid", "part-solid"], ["肝癌", "肝癌"]])
def test_a_word_twice_in_one_finding(rules: Rules, words: list[str]) -> None:
    rules.finding("abdomen/other", terms=words)
    assert [problem.code for problem in problems(rules)] == ["repeated_term"]


def test_an_exclusion_twice_in_one_finding(rules: Rules) -> None:
    rules.finding("abdomen/other", terms=["石灰"], exclude=["石灰沈着", "石灰沈着"])
    assert [problem.code for problem in problems(rules)] == ["repeated_term"]


def test_a_blank_term(rules: Rules) -> None:
    rules.finding("abdomen/other", terms=["石灰", "　"])
    assert "empty_term" in {problem.code for problem in problems(rules)}


def test_a_term_over_the_end_of_a_sentence_can_never_be_found(rules: Rules) -> None:
    rules.finding("abdomen/other", terms=["石灰", "石灰。沈着"])
    [problem] = problems(rules)
    assert problem.code == "shadowed_term"
    assert problem.line == rules.line_of("findings/abdomen/other", "沈着")
    assert problem.message == "term '石灰。沈着' can never be found; it is read as '石灰' (other)"


@pytest.mark.parametrize("term", ["腹水なし", "腹水は認めません", "腹水疑い", "腹水の可能性"])
def test_a_term_with_its_own_denial_or_hedge(rules: Rules, term: str) -> None:
    rules.finding("abdomen/ascites", terms=["腹水", term])
    [problem] = problems(rules)
    assert places([problem], rules) == [
        ("term_hides_cue", "findings/abdomen/ascites", rules.line_of("findings/abdomen/ascites", term))
    ]


@pytest.mark.parametrize(
    "term",
    [
        {"text": "腹水なし", "means": "absent"},  # a normal statement
        "膵は描出されず",  # what is denied is no finding
        "腹水貯留",
    ],
)
def test_terms_that_hide_no_cue(rules: Rules, term: Any) -> None:
    rules.finding("abdomen/ascites", terms=["腹水", term])
    assert problems(rules) == []


def test_a_finding_of_a_normal_study_may_deny(rules: Rules) -> None:
    rules.finding("general/normal_study", terms=["異常所見", "異常所見なし"])
    assert [problem.code for problem in problems(rules)] == ["term_hides_cue"]
    entry = {"id": "no_finding", "name": {"ja": "正常", "en": "Normal"}, "any_of": ["normal_study"]}
    rules.edit("label_sets/small", lambda data: data["findings"].append({**entry, "none_of_others": True}))
    assert problems(rules) == []


def test_an_exclusion_without_a_term_in_it(rules: Rules) -> None:
    rules.finding("abdomen/other", terms=["石灰"], exclude=["石灰岩", "花崗岩"])
    [problem] = problems(rules)
    assert places([problem], rules) == [
        ("useless_exclusion", "findings/abdomen/other", rules.line_of("findings/abdomen/other", "花崗岩"))
    ]


def test_an_exclusion_that_is_a_term(rules: Rules) -> None:
    rules.finding("abdomen/other", terms=["石灰"], exclude=["肝嚢胞"])
    [problem] = problems(rules)
    assert problem.code == "useless_exclusion"
    assert "liver_cyst" in problem.message


def test_an_exclusion_against_a_word_inside_another_is_useful(rules: Rules) -> None:
    """A short kana word is also kept out by MeCab, but only as far as MeCab knows the other word."""
    rules.finding("abdomen/other", terms=["ブラ"], exclude=["ブラシ"])
    assert problems(rules) == []


def test_nothing_gives_the_finding(rules: Rules) -> None:
    rules.finding("abdomen/other")
    assert places(problems(rules), rules) == [("no_words", "findings/abdomen/other", 1)]


def test_a_site_of_a_finding_without_words(rules: Rules) -> None:
    rules.finding("abdomen/empty", implied_by=["ascites"])
    rules.finding("abdomen/other", compose=[{"finding": "empty", "at": ["liver"]}])
    assert [problem.code for problem in problems(rules)] == ["unreachable_compose"]


def test_examples_are_too_few(rules: Rules) -> None:
    examples = [{"text": "石灰あり。", "status": "present"}, {"text": "石灰なし。", "status": "absent"}]
    rules.finding("abdomen/other", terms=["石灰"], examples=(examples * 4)[:7])
    rules.finding("abdomen/without", terms=["石膏"], examples=None)
    assert places(problems(rules), rules) == [
        ("few_examples", "findings/abdomen/other", rules.line_of("findings/abdomen/other", "examples")),
        ("few_examples", "findings/abdomen/without", 1),
    ]


@pytest.mark.parametrize(("others", "codes"), [(2, ["one_sided_examples"]), (3, [])])
def test_a_third_of_the_examples_is_not_present(rules: Rules, others: int, codes: list[str]) -> None:
    examples = [{"text": f"例{at}", "status": "not_mentioned" if at < others else "present"} for at in range(9)]
    rules.finding("abdomen/other", terms=["石灰"], examples=examples)
    assert [problem.code for problem in problems(rules)] == codes


@pytest.mark.parametrize("key", ["findings", "values"])
def test_a_label_twice_in_a_label_set(rules: Rules, key: str) -> None:
    rules.edit("label_sets/small", lambda data: data[key].append({**data[key][-1], "id": "ascites"}))
    [problem] = problems(rules)
    assert places([problem], rules) == [
        ("duplicate_label", "label_sets/small", rules.line_of("label_sets/small", "- id: ascites"))
    ]


@pytest.mark.parametrize("value_of", ["liver_cyst.colour", "nonesuch.count", "primary_tumour.mood"])
def test_a_value_that_nothing_computes(rules: Rules, value_of: str) -> None:
    rules.edit("label_sets/small", lambda data: data["values"][0].update(value_of=value_of))
    [problem] = problems(rules)
    assert places([problem], rules) == [
        ("unknown_value", "label_sets/small", rules.line_of("label_sets/small", value_of))
    ]
    assert value_of in problem.message


def test_a_cue_with_two_effects(rules: Rules) -> None:
    rules.edit("assertion", lambda data: data["phrases"].append({"effect": "hedge", "terms": ["新語甲", "認めない"]}))
    codes = [problem.code for problem in problems(rules)]
    assert codes == ["duplicate_cue"]


def test_a_cue_may_differ_before_and_behind_a_finding(rules: Rules) -> None:
    extra = [
        {"effect": "hedge", "terms": ["新語甲"]},
        {"effect": "deny", "terms": ["新語甲"], "direction": "before"},
    ]
    rules.edit("assertion", lambda data: data["phrases"].extend(extra))
    assert problems(rules) == []


def test_a_verb_of_an_unknown_class(rules: Rules) -> None:
    verb = {"stem": "観", "class": "ichidam", "effect": "affirm", "negative": "deny"}
    rules.edit("assertion", lambda data: data["verbs"].append(verb))
    [problem] = problems(rules)
    assert places([problem], rules) == [
        ("unknown_verb_class", "assertion", rules.line_of("assertion", "class: ichidam"))
    ]
    assert "did you mean 'ichidan'?" in problem.message


def test_a_spelling_of_two_families(rules: Rules) -> None:
    rules.edit("normalise", lambda data: data["spellings"].append(["ガン", "がん"]))
    [problem] = problems(rules)
    assert places([problem], rules) == [("overlapping_spellings", "normalise", rules.line_of("normalise", "がん"))]


@pytest.mark.parametrize(("source", "target"), [("㍉", "ミリ"), ("ﾐﾘ", "粍"), ("囊", "頚")])
def test_characters_are_replaced_one_by_one(rules: Rules, source: str, target: str) -> None:
    rules.edit("normalise", lambda data: data["characters"].update({source: target}))
    [problem] = problems(rules)
    assert problem.code == "wrong_character"
    assert problem.line == rules.line_of("normalise", f"{source}: ")


def test_problems_are_sorted(rules: Rules) -> None:
    rules.finding("abdomen/b_other")
    rules.finding("abdomen/a_other", implied_by=["nonesuch", "nonesuch2"])
    rules.edit("label_sets/small", lambda data: data.update(region="nowhere"))
    found = problems(rules)
    assert len(found) == 4
    assert found == sorted(found)
