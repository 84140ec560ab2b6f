"""Documents of the extended storage of SS-MIX2: CDA R2 (XML) and forms of plain text.

What comes out
    radiology report   a ReportRow; findings, impression and addendum are put together as `ris_csv.report_text` does,
                       and sections that are none of them follow under their own title
    pathology report   a RecordRow: diagnosis, findings and addendum without headings, the specimen as its name
    operation record   a RecordRow for each line of the operation's name, with its code and side

A document whose one section holds all of it, and a form of plain text, is taken whole: of a radiology report it is the
text as it stands; of the others its headings tell the parts. Names, addresses and signatures are not read at all. The
request of the clinician is no part of a report that has sections. XML is read without network, entities and DTD.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from lxml import etree  # type: ignore[import-untyped]

from reportlabel.ingest import ssmix2_storage as storage
from reportlabel.ingest.codes import fee_code_system, k_code, narrow, study_uid
from reportlabel.ingest.dates import parse_moment
from reportlabel.ingest.dpc import fee_items
from reportlabel.ingest.ris_csv import report_text
from reportlabel.ingest.rows import RecordRow, ReportRow, Row
from reportlabel.ingest.ssmix2_storage import Item, Ssmix2Options, Stored
from reportlabel.rulebook.models import Strict

__all__ = ["DocumentRules", "document_rows", "kind_of"]

DocumentKind = Literal["radiology", "pathology", "operation"]

_HL7 = "{urn:hl7-org:v3}"
_BLOCKS = frozenset(_HL7 + name for name in ("paragraph", "item", "tr", "caption", "list", "table", "thead", "tbody"))
_CELLS = frozenset(_HL7 + name for name in ("td", "th"))
_LINE_END = re.compile(r"[ \t]*(?:\r\n|\r|\n)[ \t]*")
_HEADING = re.compile(
    r"\s*(?:[【\[［＜<〈《]\s*([^】\]］＞>〉》\n]{1,20}?)\s*[】\]］＞>〉》]\s*[:：]?|[■●◆・]?\s*([^\s:：]{1,20}?)\s*(?:[:：]|$))"
)
_CODE = re.compile(r"(?<![A-Za-z0-9])[A-Z]\d{3}(?:-\d)?(?: ?\d{1,3})?(?: ?[ァ-ヶ]{1,2}(?![ァ-ヿ]))?(?![A-Za-z0-9])")
_INTEGER = re.compile(r"\d{1,6}", re.ASCII)


class Part(Strict):
    """A part of a document: LOINC of its section, and its headings."""

    codes: list[str]
    titles: list[str]


class RadiologyParts(Strict):
    """Parts of a radiology report."""

    findings: Part
    impression: Part
    addendum: Part
    not_read: Part


class PathologyParts(Strict):
    """Parts of a pathology report."""

    specimen: Part
    diagnosis: Part
    findings: Part
    addendum: Part
    not_read: Part


class OperationParts(Strict):
    """Parts of an operation record."""

    name: Part
    diagnosis: Part
    findings: Part
    not_read: Part


class Parts(Strict):
    """Parts of each kind of document."""

    radiology: RadiologyParts
    pathology: PathologyParts
    operation: OperationParts


class Loinc(Strict):
    """LOINC of each kind of document."""

    radiology: list[str]
    pathology: list[str]
    operation: list[str]


class Plain(Strict):
    """Documents of text: the line that ends the head, and the labels of the head."""

    head_ends: str
    patient_id: list[str]
    exam_at: list[str]
    modality: list[str]
    accession: list[str]
    study_uid: list[str]
    confirmed: list[str]
    reported: list[str]
    version: list[str]
    number: list[str]
    taken: list[str]
    operated: list[str]


class DocumentRules(Strict):
    """``documents`` of rules/ingest/ssmix2.yaml."""

    loinc: Loinc
    preliminary: list[str]
    amended: list[str]
    parts: Parts
    whole: list[str]
    heading: str
    sides: dict[str, Literal["right", "left", "bilateral"]]
    plain: Plain


class Section(NamedTuple):
    """A section: LOINC, title and text."""

    code: str
    title: str
    text: str


@dataclass(frozen=True)
class Document:
    """What a document says, of either form.

    ``sections`` are empty where ``whole`` holds the text; ``facility``: of the custodian; ``set_id``: the same for all
    versions of the document; ``number``: the department's own (pathology).
    """

    title: str
    sections: tuple[Section, ...] = ()
    whole: str = ""
    facility: str = ""
    set_id: str | None = None
    version: int | None = None
    confirmed_at: datetime | None = None
    happened_at: datetime | None = None
    accession: str | None = None
    uid: str | None = None
    modality: str | None = None
    number: str | None = None


def kind_of(stored: Stored, options: Ssmix2Options, rules: DocumentRules) -> DocumentKind | None:
    """The kind of document that a place holds; None: one that is not read."""
    if stored.type in options.documents:
        return options.documents[stored.type]
    kinds: tuple[tuple[DocumentKind, list[str]], ...] = (
        ("radiology", rules.loinc.radiology),
        ("pathology", rules.loinc.pathology),
        ("operation", rules.loinc.operation),
    )
    return next((kind for kind, codes in kinds if stored.loinc in codes), None)


def document_rows(data: bytes, item: Item, kind: DocumentKind, rules: DocumentRules) -> Iterator[Row]:
    """The rows of one document."""
    row_kind = {"radiology": "report", "pathology": "pathology", "operation": "surgery"}[kind]
    beginning = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:5]
    is_xml = beginning.startswith(b"<") or data[:2] in (b"\xff\xfe", b"\xfe\xff")
    document = _cda(data, item, kind, rules) if is_xml else _plain(data, item, rules)
    if isinstance(document, str):
        yield item.quarantined(None, row_kind, document)
        return
    site = item.site(document.facility)
    if site is None:
        yield item.quarantined(None, "file", storage.NO_SITE)
        return
    rows = {"radiology": _report, "pathology": _pathology, "operation": _operations}[kind]
    found = list(rows(document, item, site, rules))
    yield from found or [item.quarantined(None, row_kind, storage.NO_TEXT)]


# --- rows -------------------------------------------------------------------------------------------------------------


def _status(document: Document, rules: DocumentRules) -> str:
    title = narrow(document.title)
    if any(word in title for word in rules.preliminary):
        return "preliminary"
    return "amended" if any(word in title for word in rules.amended) else "final"


def _certainty(document: Document, rules: DocumentRules) -> str:
    status = _status(document, rules)
    return "corrected" if status == "amended" else status


def _day(item: Item) -> datetime | None:
    """The day of the path."""
    return parse_moment(item.stored.day)


def _report(document: Document, item: Item, site: str, rules: DocumentRules) -> Iterator[Row]:
    text = document.whole
    if document.sections:
        parts, others = _sorted(document.sections, _known(rules, "radiology"))
        text = report_text(parts.get("findings", ""), parts.get("impression", ""), parts.get("addendum", ""))
        text = "\n".join(filter(None, (text, *(f"{rules.heading.format(one.title)}\n{one.text}" for one in others))))
    if not text:
        return
    yield ReportRow(
        site=site,
        patient_id=item.patient_id,
        text=text,
        version=document.version,
        status=_status(document, rules),
        report_number=document.set_id,
        study_instance_uid=document.uid,
        accession_number=document.accession,
        exam_at=document.happened_at or _day(item),
        modality=document.modality,
        confirmed_at=document.confirmed_at,
    )


def _pathology(document: Document, item: Item, site: str, rules: DocumentRules) -> Iterator[Row]:
    parts = _parts(document, rules, "pathology")
    texts = (parts.get(name, "") for name in ("diagnosis", "findings", "addendum", "other"))
    text = "\n".join(filter(None, texts))
    start = document.happened_at or _day(item)
    if not text or start is None:
        if text:
            yield item.quarantined(None, "pathology", storage.NO_DATE)
        return
    yield RecordRow(
        site=site,
        patient_id=item.patient_id,
        kind="pathology",
        start_at=start,
        reported_at=document.confirmed_at,
        code_system="local" if document.number else None,
        code=document.number,
        name=_one_line(parts.get("specimen", "")) or None,
        text=text,
        certainty=_certainty(document, rules),
        number=document.set_id or document.number,
    )


def _operations(document: Document, item: Item, site: str, rules: DocumentRules) -> Iterator[Row]:
    parts = _parts(document, rules, "operation")
    text = "\n".join(filter(None, (parts.get(name, "") for name in ("diagnosis", "findings", "other")))) or None
    start = document.happened_at or _day(item)
    lines = [line for line in map(_one_line, parts.get("name", "").split("\n")) if line]
    if start is None:
        yield item.quarantined(None, "surgery", storage.NO_DATE)
        return
    number = document.set_id
    for place, line in enumerate(lines or ([""] if text else []), start=1):
        name, code, side = _operation(line, rules)
        yield RecordRow(
            site=site,
            patient_id=item.patient_id,
            kind="surgery",
            start_at=start,
            reported_at=document.confirmed_at,
            code_system=fee_code_system(code) if code else None,
            code=code,
            name=name or None,
            text=text,
            certainty=_certainty(document, rules),
            side=side,
            number=number if number is None or place == 1 else f"{number}-{place}",
        )


def _operation(line: str, rules: DocumentRules) -> tuple[str, str | None, str | None]:
    """Name, code of the fee schedule and side of an operation: ``胸腔鏡下肺切除術 K513 2(右)``."""
    found = next(reversed(list(_CODE.finditer(line))), None)  # the code stands behind the name
    code = k_code(found[0], items=fee_items()) if found else None
    name, rest = line, line
    if found and code:
        name, rest = line[: found.start()].rstrip(" ,、(["), line[found.end() :]
    said = re.findall(r"[(\[]\s*([^()\[\]]{1,3}?)\s*[)\]]", rest)
    side = next((rules.sides[one] for one in said if one in rules.sides), None)
    if side and not code:
        name = re.sub(r"\s*[(\[][^()\[\]]{1,3}[)\]]\s*$", "", name)
    return name, code, side


def _one_line(text: str) -> str:
    return " ".join(narrow(text).split())


# --- parts ------------------------------------------------------------------------------------------------------------


def _known(rules: DocumentRules, kind: DocumentKind) -> Mapping[str, Part]:
    parts: Strict = {
        "radiology": rules.parts.radiology,
        "pathology": rules.parts.pathology,
        "operation": rules.parts.operation,
    }[kind]
    return dict(parts)


def _parts(document: Document, rules: DocumentRules, kind: DocumentKind) -> dict[str, str]:
    """The texts of the parts; ``other`` is what has no part of its own."""
    known = _known(rules, kind)
    sections = document.sections or _cut(document.whole, known)
    parts, others = _sorted(sections, known)
    rest = "\n".join(f"{one.title}\n{one.text}" if one.title else one.text for one in others)
    return {**parts, "other": rest} if rest else parts


def _sorted(sections: tuple[Section, ...], known: Mapping[str, Part]) -> tuple[dict[str, str], list[Section]]:
    """Texts by part, and the sections that are none."""
    parts: dict[str, str] = {}
    others: list[Section] = []
    for section in sections:
        if not section.text:
            continue
        name = _part_of(section, known)
        if name is None:
            others.append(section)
        elif name != "not_read":
            parts[name] = f"{parts[name]}\n{section.text}" if name in parts else section.text
    return parts, others


def _part_of(section: Section, known: Mapping[str, Part]) -> str | None:
    by_code = next((name for name, part in known.items() if section.code in part.codes), None)
    if by_code is not None:
        return by_code
    title = narrow(section.title)
    return next((name for name, part in known.items() if title in map(narrow, part.titles)), None)


def _cut(text: str, known: Mapping[str, Part]) -> tuple[Section, ...]:
    """A whole document at the lines that are known headings; what stands before the first has no title."""
    titles = {narrow(title) for part in known.values() for title in part.titles}
    sections: list[tuple[str, list[str]]] = [("", [])]
    for line in text.split("\n"):
        found = _HEADING.match(line)
        title = narrow(found[1] or found[2]) if found else ""
        if found and title in titles:
            sections.append((title, [line[found.end() :].strip()]))
        else:
            sections[-1][1].append(line)
    return tuple(Section("", title, "\n".join(lines).strip()) for title, lines in sections)


# --- CDA --------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _parser() -> Any:
    return etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        huge_tree=False,
        load_dtd=False,
        dtd_validation=False,
        remove_comments=True,
        remove_pis=True,
    )


def _cda(data: bytes, item: Item, kind: DocumentKind, rules: DocumentRules) -> Document | str:
    """What a CDA document says, or why it is not used."""
    try:
        root = etree.fromstring(data, _parser())
    except (etree.XMLSyntaxError, ValueError):
        return storage.BROKEN_XML
    if root.getroottree().docinfo.doctype:
        return storage.BROKEN_XML
    if root.tag != f"{_HL7}ClinicalDocument":
        return storage.NOT_A_DOCUMENT
    patients = [one.get("extension", "").strip() for one in _all(root, "recordTarget", "patientRole", "id")]
    if not any(patients):
        return storage.NO_PATIENT
    if item.stored.patient_id not in patients:
        return storage.DIFFERENT_PATIENT
    sections = tuple(_sections(root))
    whole = ""
    if not sections:
        inside = root.find(f"{_HL7}component/{_HL7}nonXMLBody/{_HL7}text")
        if (
            inside is None
            or inside.get("representation") == "B64"
            or inside.get("mediaType", "text/plain") != "text/plain"
        ):
            return storage.NO_TEXT
        whole = _narrative(inside)
    elif len(sections) == 1 and sections[0].code in rules.whole:
        whole, sections = sections[0].text, ()
    orders = [one for one in _all(root, "inFulfillmentOf", "order", "id") if one.get("extension")]
    numbers = [one.get("extension", "").strip() for one in orders]
    accession = next((one for one in numbers if not _same_number(one, item.stored.order)), None)
    if root_of := item.options.accession_root:
        accession = next((one.get("extension") for one in orders if one.get("root") == root_of), None)
    events = _all(root, "documentationOf", "serviceEvent", "id")
    uids = (study_uid(one.get("root")) for one in events if not one.get("extension"))
    time = root.find(f"{_HL7}documentationOf/{_HL7}serviceEvent/{_HL7}effectiveTime")
    low = time.find(f"{_HL7}low") if time is not None else None
    signed = root.find(f"{_HL7}legalAuthenticator/{_HL7}time")
    confirmed = signed if signed is not None and signed.get("value") else root.find(f"{_HL7}effectiveTime")
    version = _value(root.find(f"{_HL7}versionNumber"))
    set_id = root.find(f"{_HL7}setId")
    custodian = _all(root, "custodian", "assignedCustodian", "representedCustodianOrganization", "id")
    return Document(
        title=root.findtext(f"{_HL7}title") or "",
        sections=sections,
        whole=whole,
        facility=custodian[0].get("extension", "") if custodian else "",
        set_id=(set_id.get("extension") or None) if set_id is not None else None,
        version=int(version) if _INTEGER.fullmatch(version) else None,
        confirmed_at=parse_moment(_value(confirmed)),
        happened_at=parse_moment(_value(low) or _value(time)),
        accession=accession if kind == "radiology" else None,
        uid=next(filter(None, uids), None),
        number=accession if kind == "pathology" else None,
    )


def _all(root: Any, *names: str) -> list[Any]:
    found: list[Any] = root.findall("/".join(_HL7 + name for name in names))
    return found


def _value(element: Any) -> str:
    value: str = "" if element is None else element.get("value", "")
    return value.strip()


def _same_number(one: str, other: str) -> bool:
    """Whether two numbers are the same but for zeros before them."""
    return one == other or (one.isdigit() and one.lstrip("0") == other.lstrip("0"))


def _sections(root: Any) -> Iterator[Section]:
    """The sections that have a text, also those in sections, in the order of the document."""
    for section in root.iterfind(f"{_HL7}component/{_HL7}structuredBody//{_HL7}section"):
        text = section.find(f"{_HL7}text")
        code = section.find(f"{_HL7}code")
        written = _narrative(text) if text is not None else ""
        if written:
            title = " ".join((section.findtext(f"{_HL7}title") or "").split())
            yield Section("" if code is None else code.get("code", ""), title, written)


class _Lines:
    """The lines of a narrative block.

    ``fresh``: nothing stands on the last one yet; ``soft``: it was begun by a line end of the file, not by an element,
    so that one before or after a br counts once.
    """

    def __init__(self) -> None:
        self.lines = [""]
        self.fresh = True
        self.soft = False

    def add(self, text: str | None) -> None:
        if not text:
            return
        text = _LINE_END.sub("\n", text)
        if not text.strip(" \t\n"):
            if self.fresh or "\n" in text:
                return
        elif self.fresh:
            text = text.removeprefix("\n")
        first, *rest = text.split("\n")
        self.lines[-1] += first
        self.lines += rest
        self.fresh = not self.lines[-1]
        self.soft = self.fresh and bool(rest)

    def end(self) -> None:
        if not self.soft:
            self.lines.append("")
        self.fresh, self.soft = True, False


def _narrative(element: Any) -> str:
    """The text of a narrative block: br, paragraphs, items and rows end lines; cells are parted by a tab."""
    lines = _Lines()
    _walk(element, lines)
    return "\n".join(line.rstrip() for line in lines.lines).strip("\n \t")


def _walk(element: Any, lines: _Lines) -> None:
    lines.add(element.text)
    for child in element:
        tag = child.tag
        if tag == f"{_HL7}br":
            lines.end()
        elif tag in _BLOCKS:
            if not lines.fresh:
                lines.end()
            before = len(lines.lines)
            _walk(child, lines)
            if not lines.fresh or len(lines.lines) == before:
                lines.end()
        else:
            if tag in _CELLS and child.getprevious() is not None:
                lines.lines[-1] += "\t"
            _walk(child, lines)
        lines.add(child.tail)


# --- plain text -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _label(labels: tuple[str, ...]) -> re.Pattern[str]:
    names = "|".join(re.escape(one) for one in sorted(labels, key=len, reverse=True))
    return re.compile(rf"(?:^|[\s　])(?:{names})[ 　]*[:：][ 　]*([^\n]*?)[ ]*(?:　|\t|  |$)", re.MULTILINE)


def _plain(data: bytes, item: Item, rules: DocumentRules) -> Document | str:
    """What a form of text says, or why it is not used."""
    text = _decoded(data)
    if text is None:
        return storage.NOT_A_DOCUMENT if b"\0" in data or data.startswith(b"%PDF") else storage.BAD_ENCODING
    lines = text.replace("\r\n", "\n").replace("\r", "\n").strip("\n\x1a ").split("\n")
    border = re.compile(rules.plain.head_ends)
    end = next((at for at, line in enumerate(lines) if border.fullmatch(line.strip())), None)
    if end is None:
        return storage.NO_HEAD
    head, body = "\n".join(lines[:end]), "\n".join(lines[end + 1 :]).strip()

    def said(labels: list[str]) -> str:
        found = _label(tuple(labels)).search(head)
        return found[1].strip() if found else ""

    labels = rules.plain
    patient_id = narrow(said(labels.patient_id))
    if patient_id and patient_id != item.stored.patient_id:
        return storage.DIFFERENT_PATIENT
    version = _INTEGER.search(narrow(said(labels.version)))
    happened = (said(one) for one in (labels.exam_at, labels.taken, labels.operated))
    number = said(labels.number) or None
    return Document(
        title=lines[0],
        whole=body,
        version=int(version[0]) if version else None,
        confirmed_at=parse_moment(said(labels.confirmed) or said(labels.reported)),
        happened_at=parse_moment(next(filter(None, happened), "")),
        accession=said(labels.accession) or None,
        uid=study_uid(said(labels.study_uid)),
        modality=narrow(said(labels.modality)).upper() or None,
        number=number,
    )


def _decoded(data: bytes) -> str | None:
    """UTF-8, else cp932."""
    if b"\0" in data:
        return None
    for encoding in ("utf-8-sig", "cp932"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None
