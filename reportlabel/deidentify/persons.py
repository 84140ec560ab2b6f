"""Names of persons that no table lists, found by where they stand: before titles, after labels, as signatures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from reportlabel.deidentify.characters import KANA, KANJI, KANJI_RUN, LATIN_NAME, Hit, View
from reportlabel.deidentify.dates import any_of
from reportlabel.deidentify.text_rules import NameWords
from reportlabel.deidentify.words import Dictionary

__all__ = ["PersonFinder"]

_KANA_RUN = rf"{KANA}{{2,}}(?:[・=]{KANA}{{2,}})*"
_BETWEEN = r"[ \t　]{1,2}"
_JAPANESE = rf"{KANJI_RUN}(?:{_BETWEEN}(?:{KANJI_RUN}|{KANA}{{2,6}}|[ぁ-ゖ]{{2,6}}(?![ぁ-ゖ])))?"
_NAME = rf"(?:{_JAPANESE}|{_KANA_RUN}(?:{_BETWEEN}{_KANA_RUN})?|{LATIN_NAME})"
_MORE = r"[ \t]*[/・、,&][ \t]*"
_READING = re.compile(rf"[ \t]?\((?P<n>{KANA}+(?:[ \t・]{KANA}+)?|[ぁ-ゖー]+(?:[ \t・][ぁ-ゖー]+)?|{LATIN_NAME})\)")
_LONGEST_NAME = 5
_TAIL_LINES = 3


class PersonFinder:
    """Finds names in normalised text. ``surnames``: family names that the hospital's tables know, normalised."""

    def __init__(
        self, words: NameWords, fold: Callable[[str], str], dictionary: Dictionary, surnames: frozenset[str]
    ) -> None:
        self._dictionary = dictionary
        listed = words.family_names
        self._kanji = frozenset(fold(name.kanji) for name in listed) | surnames
        self._kana = frozenset(fold(name.kana) for name in listed)
        self._roman = frozenset(fold(name.roman) for name in listed) | frozenset(
            name for name in surnames if name.isascii()
        )
        self._roles = [fold(word) for word in (*words.roles, *words.departments)]
        self._role_before = re.compile(any_of(self._roles) + r"[ \t　]?")
        self._role_inside = re.compile(any_of(word for word in self._roles if len(word) > 1))
        self._only_roles = re.compile(f"(?:{any_of(self._roles)}|[ \t　])*")
        self._not_names = frozenset(fold(word) for word in words.not_names)
        self._eponyms = frozenset(fold(word) for word in words.eponyms)
        self._eponym_after = re.compile(any_of(fold(word) for word in words.eponyms_before))
        sure = [fold(word) for word in words.titles]
        honorifics = [fold(word) for word in words.honorifics]
        unsure = [*honorifics, *(fold(word) for word in words.titles_of_names)]
        self._sure_titles = frozenset(sure)
        self._not_title = {
            fold(title): re.compile(any_of(fold(word) for word in after))
            for title, after in words.not_a_title_before.items()
        }
        self._title_behind = re.compile(rf"[ \t　]?{any_of([*sure, *unsure])}$")
        latin_end = r"(?![a-z])"
        self._title = re.compile(
            rf"(?:(?P<kanji>{KANJI_RUN}(?:{_BETWEEN}(?:{KANJI_RUN}|{KANA}{{2,6}}))?)|(?P<kana>{_KANA_RUN}(?:{_BETWEEN}{_KANA_RUN})?)"
            rf"|(?<![a-z])(?P<latin>{LATIN_NAME})|(?P<hiragana>[ぁ-ゖー]{{2,10}}))"
            rf"[ \t　]?(?P<title>{any_of([*sure, *unsure])}){latin_end}"
        )
        self._before = re.compile(
            rf"(?<![a-z]){any_of(fold(word) for word in words.titles_before)}(?![a-z])[ \t]?(?P<name>{_NAME})"
        )
        strong = [fold(word) for word in words.labels]
        weak = [fold(word) for word in words.weak_labels]
        self._label_before = re.compile(rf"{any_of([*strong, *weak])}[ \t]*[:=]$")
        names = rf"(?P<names>{_NAME}(?:{_MORE}{_NAME})*)"
        self._label = re.compile(
            rf"(?<![a-z])(?P<label>{any_of(strong)})(?:[ \t]*(?P<sep>[:=/])[ \t]*|[ \t　]+|(?=[^a-z])){names}"
        )
        self._weak_label = re.compile(rf"(?<![a-z])(?P<label>{any_of(weak)})[ \t]*[:=][ \t]*{names}")
        self._relative = re.compile(
            rf"{any_of(fold(word) for word in words.relatives)}[のはが、:( \t]{{0,2}}"
            rf"(?P<name>{KANJI}{{1,3}}|{KANA}{{2,5}})"
            rf"(?={any_of(honorifics)}|[)」、。\s,]|$)"
        )
        labels = rf"(?:{any_of([*strong, *weak])}[ \t]*[:/=]?[ \t]*)?"
        signed = any_of(fold(word) for word in words.signed)
        self._signature = re.compile(
            rf"^[ \t・*※\-]*(?P<open>[(<〈]?){labels}{names}(?P<close>[)>〉]?){signed}?[ \t]*$", re.MULTILINE
        )
        self._trailing = re.compile(rf"[。.)\]][ \t]*\({labels}{names}\)[ \t]*$", re.MULTILINE)
        self._one = re.compile(_NAME)

    def find(self, view: View, *, whole_lines: bool) -> Iterator[Hit]:
        """Names with what stands in brackets behind them (the reading), in no order.

        In: ``whole_lines``, whether the lines are those of the report, so that a name alone on a line is a signature.
        """
        for hit in self._found(view.text, whole_lines=whole_lines):
            yield hit
            at = hit.end
            reading = _READING.match(view.text, at)
            if reading is not None:
                yield hit._replace(start=reading.start("n"), end=reading.end("n"), rule="person.reading")

    def _found(self, text: str, *, whole_lines: bool) -> Iterator[Hit]:
        yield from self._before_titles(text)
        for match in self._before.finditer(text):
            span = self._trimmed(text, *match.span("name"))
            if span is not None and not self._common(text[slice(*span)]):
                yield Hit(*span, "person", "person", "person.after_title")
        for match in self._label.finditer(text):
            sure = match["sep"] is not None or text[match.end("label")] in " \t　"
            yield from self._listed(text, match, "person.label", sure=sure, colon=match["sep"] is not None)
        for match in self._weak_label.finditer(text):
            yield from self._listed(text, match, "person.weak_label", sure=False, colon=True)
        for match in self._relative.finditer(text):
            if self._dictionary.is_given_name(match["name"]) and match["name"] not in self._not_names:
                yield Hit(*match.span("name"), "person", "person", "person.relative")
        if whole_lines:
            yield from self._signatures(text)

    # --- before titles

    def _before_titles(self, text: str) -> Iterator[Hit]:
        match = self._title.search(text)
        while match is not None:
            span = self._before_title(text, match)
            if span is not None:
                yield Hit(*span, "person", "person", "person.title")
            match = self._title.search(
                text, max(match.start() + 1, match.start("title") if span is None else match.end())
            )

    def _before_title(self, text: str, match: re.Match[str]) -> tuple[int, int] | None:
        title = match["title"]
        other = self._not_title.get(title)
        if other is not None and other.match(text, match.end()):
            return None
        sure = title in self._sure_titles
        group = next(name for name in ("kanji", "kana", "latin", "hiragana") if match[name] is not None)
        start, end = match.span(group)
        run = text[start:end]
        if group == "hiragana":
            known = next((size for size in range(len(run), 1, -1) if run[-size:] in self._kana), None)
            return None if known is None else (end - known, end)
        if group in ("kana", "latin"):
            if run in self._not_names or (not sure and not self._known_foreign(run)):
                return None
            return start, end
        span = self._trimmed(text, start, end)
        if span is None:
            return None
        run = text[slice(*span)]
        if sure:
            return None if run in self._not_names else span
        if self.is_person(run) and (len(run) > 1 or self._starts_line(text, span[0])):
            return span
        # a full name at the start of a line, or somebody alone on a line or behind a label: 患者：百目鬼様
        two = re.search(r"[ \t　]", run) is not None and self._starts_line(text, span[0])
        joined = re.sub(r"[ \t　]", "", run)
        if (two or self._stands_alone(text, span[0], match.end())) and not self._common(joined):
            return span
        return None

    def _known_foreign(self, run: str) -> bool:
        """A name in kana or Latin letters that is more than a word with a title-like sign behind it."""
        parts = re.split(r"[ \t　・=^,.]+", run)
        if any(part in self._eponyms for part in parts):
            return False
        hiragana = "".join(chr(ord(c) - 0x60) if "ァ" <= c <= "ヶ" else c for c in parts[0])
        return parts[0] in self._roman or hiragana in self._kana or self._dictionary.is_full_name(parts[0])

    def _starts_line(self, text: str, start: int) -> bool:
        before = text[:start].rstrip(" \t　")
        return not before or before[-1] in "\n:(、。とや/"

    def _stands_alone(self, text: str, start: int, end: int) -> bool:
        before, after = text[:start].rstrip(" \t　"), text[end:].lstrip(" \t　)")
        if self._label_before.search(before[-24:]):
            return True
        return (not before or before[-1] == "\n") and (not after or after[0] == "\n")

    # --- after labels

    def _listed(self, text: str, match: re.Match[str], rule: str, *, sure: bool, colon: bool) -> Iterator[Hit]:
        for one in self._one.finditer(text, *match.span("names")):
            span = self._trimmed(text, *one.span())
            if span is None:
                continue
            run = text[slice(*span)]
            if self._is_eponym(text, *span):
                continue
            if run.isascii():
                good = run not in self._not_names and ((colon and sure) or run.split(" ")[0] in self._roman)
            elif sure:
                good = not self._common(run)
            else:
                good = self.is_person(run) or (colon and self._dictionary.is_proper(run))
            if not good:
                return
            yield Hit(*span, "person", "person", rule)

    # --- signatures

    def _signatures(self, text: str) -> Iterator[Hit]:
        for match in self._trailing.finditer(text):
            for one in self._one.finditer(text, *match.span("names")):
                if self.is_person(one[0]) or self._roman_name(one[0]):
                    yield Hit(*one.span(), "person", "person", "person.trailing")
        last = len(text.rstrip())
        for match in self._signature.finditer(text):
            spans = [one.span() for one in self._one.finditer(text, *match.span("names"))]
            spans = [(start, self._before_its_title(text, start, end)) for start, end in spans]
            runs = [text[start:end] for start, end in spans]
            if any(run in self._not_names or self._only_roles.fullmatch(run) for run in runs):
                continue
            named = [self.is_person(run) or self._roman_name(run) or self._kana_name(run) for run in runs]
            bracketed = match["open"] != "" and match["close"] != ""
            several = len(runs) > 1
            if not any(named):
                proper = [self._dictionary.is_proper(run) for run in runs if not run.isascii()]
                doubtful = match.end() >= last and (bracketed != several) and "、" not in match["names"]
                if not (any(proper) and (bracketed or several)) and not doubtful:
                    continue
            for (start, end), run, sure in zip(spans, runs, named, strict=True):
                if sure or (len(run) <= _LONGEST_NAME + 1 and not run.isascii() and not self._common(run)):
                    yield Hit(start, end, "person", "person" if sure else "doubt", "person.signature")

    # --- what a run of characters is

    def is_person(self, run: str) -> bool:
        """A family name of the list, the tables or the dictionary, alone or with a given name."""
        if run in self._not_names or self._only_roles.fullmatch(run):
            return False
        parts = re.split(r"[ \t　]+", run)
        if len(parts) > 1:
            return len(parts[1]) <= 4 and (self._is_family(parts[0]) or self._is_given(parts[1], sure=True))
        if self._is_family(run):
            return True
        for size in (3, 2, 4, 1):
            rest = run[size:]
            if (
                rest
                and run[:size] in self._kanji
                and (size > 1 or len(rest) > 1)
                and self._is_given(rest, sure=size == 1)
            ):
                return True
        return self._dictionary.is_full_name(run)

    def _is_family(self, run: str) -> bool:
        return run in self._kanji or self._dictionary.is_family_name(run)

    def _is_given(self, run: str, *, sure: bool) -> bool:
        if len(run) > 3 or run in self._not_names or self._only_roles.fullmatch(run) or self._eponym_after.match(run):
            return False
        if self._dictionary.is_given_name(run) or self._dictionary.is_full_name(run):
            return True
        return not sure and not self._dictionary.is_deed_or_state(run) and len(run) == 1

    def _roman_name(self, run: str) -> bool:
        return run.isascii() and any(part in self._roman for part in re.split(r"[ .,^]+", run))

    def _kana_name(self, run: str) -> bool:
        parts = re.split(r"[ \t　]+", run)
        if not re.fullmatch(f"{KANA}+", parts[0]):
            return False
        return "".join(chr(ord(c) - 0x60) if "ァ" <= c <= "ヶ" else c for c in parts[0]) in self._kana

    def _common(self, run: str) -> bool:
        """Surely no name: a word of the list, only what somebody is, or a word for something done."""
        if run in self._not_names or self._only_roles.fullmatch(run):
            return True
        return not self.is_person(run) and self._dictionary.is_deed_or_state(run)

    def _is_eponym(self, text: str, start: int, end: int) -> bool:
        run = text[start:end]
        if run in self._eponyms and run not in self._roman:
            return True
        return bool(self._eponym_after.match(text, end)) and (run in self._eponyms or self.is_person(run))

    def _trimmed(self, text: str, start: int, end: int) -> tuple[int, int] | None:
        """The span without what somebody is in front of it (主治医有村 -> 有村); None if nothing is left."""
        end = self._before_its_title(text, start, end)
        if not text[start:end].isascii():
            while start < end and not self.is_person(text[start:end]):
                role = self._role_before.match(text, start, end)
                if role is None:
                    break
                # a single kanji may begin the name: 名取, 両角
                if len(role[0].rstrip()) == 1 and role.end() < end and not self.is_person(text[role.end() : end]):
                    break
                start = role.end()
            if start < end and not self.is_person(text[start:end]):
                for role in list(self._role_inside.finditer(text, start, end)):
                    start = role.end()
            while start < end and text[start] in " \t　":
                start += 1
            run = text[start:end]
            blank = re.search(r"[ \t　]+", run)
            if blank is not None and not self.is_person(run):
                rest = run[blank.end() :]
                first = run[: blank.start()]
                if self.is_person(rest) or self._common(first) or len(first) > _LONGEST_NAME:
                    start += blank.end()
            elif blank is None and len(run) > _LONGEST_NAME:
                start = self._last_name(text, start, end)
        return (start, end) if start < end else None

    def _before_its_title(self, text: str, start: int, end: int) -> int:
        """The end moved in front of a title that the run took with it: 田中先生 -> 田中."""
        title = self._title_behind.search(text, start, end)
        return end if title is None or title.start() == start else title.start()

    def _last_name(self, text: str, start: int, end: int) -> int:
        """Where a name at the end of a long run of kanji begins; the run itself where none is seen."""
        for size in range(_LONGEST_NAME, 1, -1):
            if end - size > start and self.is_person(text[end - size : end]):
                return end - size
        return start
