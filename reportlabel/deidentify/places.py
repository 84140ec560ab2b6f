"""Hospitals and practices, addresses, places of work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from reportlabel.deidentify.characters import DASH, KANA, KANJI, Hit, View
from reportlabel.deidentify.dates import any_of
from reportlabel.deidentify.text_rules import AddressWords, TextRules
from reportlabel.deidentify.words import Dictionary

__all__ = ["PlaceFinder"]

_LETTER = f"(?:{KANJI}|{KANA}|[a-z0-9・ヶヵ&])"
_STEM = re.compile(f"{_LETTER}+$")
_HIRAGANA = re.compile("[ぁ-ゖー]{1,8}$")
_CUT = re.compile(r"[\s。、.,:;()\[\]「」『』【】<>〈〉《》/]$|^$")
_NOUNS = frozenset({"名詞", "接頭辞", "接尾辞", "記号", "補助記号"})
_LINKS = frozenset({"助詞", "助動詞", "接続詞", "連体詞", "代名詞"})
_LEAST_HIRAGANA = 3
_LONGEST = 24


class PlaceFinder:
    """Finds places in normalised text."""

    def __init__(self, rules: TextRules, fold: Callable[[str], str], dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        words, names, work = rules.institutions, rules.names, rules.work
        practices = [fold(word) for word in words.practices]
        suffixes = [*(fold(word) for word in words.suffixes), *practices]
        self._institution = re.compile(rf"{any_of(suffixes)}(?!{KANA})")
        departments = [fold(word) for word in names.departments]
        self._department = re.compile(
            rf"{any_of(departments)}{any_of(practices)}?(?={any_of(fold(word) for word in words.departments_need)})"
        )
        generic = [*(fold(word) for word in (*words.generic, *words.own)), *suffixes]
        self._generic = re.compile(f"{any_of(generic)}*")
        in_names = (word for word in words.generic if len(word) > 1 and re.fullmatch("[ぁ-ゖー]+", word))
        self._generic_hiragana = re.compile(f"{any_of(in_names)}$")
        self._inside = re.compile(f"{any_of([*generic, *departments, *(fold(word) for word in names.roles)])}*")
        self._role = re.compile(any_of(fold(word) for word in names.roles if len(word) > 1))
        self._latin = re.compile(
            rf"(?<![a-z])(?P<words>(?:[a-z][a-z'.\-]* ){{1,5}}){any_of(fold(word) for word in words.latin_suffixes)}"
            rf"(?: of (?P<of>[a-z'\-]+))?(?![a-z])"
        )
        self._latin_generic = frozenset(fold(word) for word in words.latin_generic)
        self._compile_addresses(rules.addresses, fold)
        company = any_of(fold(word) for word in work.companies)
        run = rf"(?:{KANJI}|{KANA}|[a-z0-9・ヶ&])"
        self._company = re.compile(rf"{company}[ \t]?{run}{{1,16}}|{run}{{1,16}}[ \t]?{company}")
        self._workplace = re.compile(any_of(fold(word) for word in work.suffixes))
        self._work_generic = re.compile(f"{any_of(fold(word) for word in (*work.generic, *work.suffixes))}*")
        labels = any_of(fold(word) for word in work.labels)
        occupations = any_of(fold(word) for word in work.occupation_labels)
        said = rf"(?:[ \t]*[:=]|{any_of(fold(word) for word in work.after_label)})[ \t]*(?P<n>[^\n。、,;)]{{1,30}})"
        self._labelled_work = re.compile(rf"{labels}{said}")
        self._occupation = re.compile(rf"{occupations}{said}")

    def _compile_addresses(self, words: AddressWords, fold: Callable[[str], str]) -> None:
        def one_of(*lists: Sequence[str]) -> str:
            return any_of(fold(word) for some in lists for word in some)

        numbers = words.numbers
        prefecture = one_of(words.prefectures)
        any_letter, letter = rf"(?:{KANJI}|{KANA}|[ぁ-ゖヶ])", rf"(?:{KANJI}|{KANA}|ヶ)"
        cities, parts = one_of(words.cities), one_of(words.parts)
        city, municipality = one_of(words.cities, words.parts), one_of(words.cities, words.counties, words.parts)
        place = one_of(words.cities, words.counties, words.parts, words.prefecture_suffixes)
        street = rf"{any_letter}{{0,10}}?"
        counted = one_of(numbers.sure, numbers.before_number, numbers.further, numbers.rooms)
        number = rf"\d{{1,4}}(?:{counted}|{DASH}|{one_of(numbers.between)}(?=\d))?"
        sure = rf"\d{{1,4}}(?:{one_of(numbers.sure)}|{one_of(numbers.before_number)}\d)"
        house = rf"(?:{street}(?:{number}){{1,5}}){{1,2}}"
        building = rf"(?:[ \t]?(?:{KANJI}|{KANA}|[a-zぁ-ゖ]){{2,14}}\d{{1,4}}{one_of(numbers.rooms, numbers.houses)})?"
        self._address = re.compile(
            rf"{prefecture}{any_letter}{{1,8}}?{municipality}(?:{any_letter}{{1,6}}?{parts})?(?:{house}{building})?"
            rf"|{letter}{{1,8}}{city}{street}{sure}(?:{number}){{0,4}}{building}"
            rf"|{letter}{{1,6}}{cities}{street}\d{{1,4}}{DASH}\d{{1,4}}(?:{DASH}\d{{1,4}})?{building}"
        )
        self._living = re.compile(rf"(?:{prefecture}|{letter}{{1,6}}{place})+(?={one_of(words.living)})")
        self._labelled_address = re.compile(rf"{one_of(words.labels)}[ \t]*[:=][ \t]*(?P<n>[^\n。]{{2,60}})")
        self._postal = re.compile(
            rf"{one_of(words.postal_labels)}[ \t:]{{0,3}}(?P<n>\d{{3}}{DASH}?\d{{4}})(?!\d)"
            rf"|(?<![\d.\-])(?P<m>\d{{3}}{DASH}\d{{4}})(?=[ \t\n]{{0,3}}(?:{prefecture}|{KANJI}{{1,6}}{municipality}))"
        )

    def find(self, view: View, stored: str) -> Iterator[Hit]:
        """Everything of these kinds, in no order. In: the stored text as well, for its capitals."""
        text = view.text
        for match in self._institution.finditer(text):
            start = self._stem(text, match.start(), self._generic)
            if start is not None:
                yield Hit(start, match.end(), "hospital", "place", "hospital.suffix")
        for match in self._department.finditer(text):
            start = self._stem(text, match.start(), self._inside)
            if start is not None:
                yield Hit(start, match.end(), "hospital", "place", "hospital.department")
        yield from self._latin_institutions(view, stored)
        for match in self._address.finditer(text):
            yield Hit(*match.span(), "address", "form", "address.form")
        for match in self._living.finditer(text):
            yield Hit(*match.span(), "address", "form", "address.living")
        for match in self._labelled_address.finditer(text):
            yield Hit(*match.span("n"), "address", "labelled", "address.label")
        for match in self._postal.finditer(text):
            yield Hit(*match.span("n" if match["n"] else "m"), "postal", "form", "postal")
        for match in self._company.finditer(text):
            yield Hit(*match.span(), "workplace", "place", "workplace.company")
        for match in self._workplace.finditer(text):
            start = self._stem(text, match.start(), self._work_generic)
            if start is not None:
                yield Hit(start, match.end(), "workplace", "place", "workplace.suffix")
        for match in self._labelled_work.finditer(text):
            yield Hit(*match.span("n"), "workplace", "labelled", "workplace.label")
        for match in self._occupation.finditer(text):
            yield Hit(*match.span("n"), "occupation", "labelled", "occupation.label")

    def _stem(self, text: str, end: int, generic: re.Pattern[str]) -> int | None:
        """Where the name in front of ``end`` begins; None where there is none but words that anything may be called."""
        found = _STEM.search(text, max(0, end - _LONGEST), end)
        start = end if found is None else found.start()
        # what is said of somebody in front of the name: 前医東雲病院
        for role in self._role.finditer(text, start, end):
            if not generic.fullmatch(text, role.end(), end):
                start = role.end()
        reach = self._with_hiragana(text, start, end)
        if reach < start and (more := _STEM.search(text, max(0, reach - _LONGEST), reach)) is not None:
            reach = self._with_hiragana(text, more.start(), end)  # 桜台 before がん検診センター
        start = reach
        while start < end and text[start] in "・ー":
            start += 1
        return None if generic.fullmatch(text, start, end) else start

    def _with_hiragana(self, text: str, start: int, end: int) -> int:
        """The start moved over hiragana that belong to the name: ひだまり診療所, みどり坂クリニック."""
        found = _HIRAGANA.search(text, max(0, start - 8), start)
        if found is None:
            return start
        listed = self._generic_hiragana.search(text, found.start(), start)
        if listed is not None:
            return listed.start()
        # from the last mark on, so that the dictionary sees the words in front as well
        lowest = max(0, start - _LONGEST)
        first = next((at + 1 for at in range(start - 1, lowest - 1, -1) if _CUT.match(text[at])), lowest)
        after = text[end : end + 6].split("\n", maxsplit=1)[0]
        words = self._dictionary.words(text[first:end] + after)
        borders = [first]
        for word in words:
            borders.append(borders[-1] + len(word.surface))
        reach = start
        for at in range(len(words) - 1, -1, -1):
            if borders[at] >= start:
                continue
            if borders[at] < found.start():
                break
            # a longer verb or adverb in hiragana is what names are made of: のぞみ, さくら
            if words[at].pos not in _NOUNS and (words[at].pos in _LINKS or len(words[at].surface) < _LEAST_HIRAGANA):
                break
            reach = borders[at]
        return reach

    def _latin_institutions(self, view: View, stored: str) -> Iterator[Hit]:
        for match in self._latin.finditer(view.text):
            start = at = match.end("words")
            for word in reversed(match["words"].split()):
                at = view.text.rindex(word, match.start(), at)
                if not stored[view.span(at, at + 1)[0]].isupper() and word != "of":
                    break
                if word not in self._latin_generic:
                    start = at
            named = match["of"] is not None and stored[view.span(match.start("of"), match.end("of"))[0]].isupper()
            if start < match.end("words") or named:
                yield Hit(start, match.end() if named else match.end(0), "hospital", "place", "hospital.latin")
