"""Read a rules folder into one immutable :class:`Rulebook`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

from reportlabel.errors import ConfigError
from reportlabel.rulebook.models import (
    Anatomy,
    AssertionRules,
    ContextRules,
    Finding,
    LabelSet,
    NormaliseRules,
    PrimaryTumour,
    SectionRules,
)
from reportlabel.rulebook.read_yaml import Document, parse, read_yaml


@dataclass(frozen=True)
class FindingFile:
    """A finding, the region folder it stands in, and its file (for line numbers)."""

    finding: Finding
    region: str
    document: Document


@dataclass(frozen=True)
class Rulebook:
    """Everything that stands in ``rules/``: data, no behaviour.

    Attributes:
        folder: where it was read from.
        files: finding id -> file, in order of region and id.
        label_sets: label-set id -> label set.
        sha256: hash over the names and bytes of all files that labels depend on, in order; stored with every label.
    """

    folder: Path
    files: dict[str, FindingFile]
    anatomy: Anatomy
    assertion: AssertionRules
    sections: SectionRules
    normalise: NormaliseRules
    context: ContextRules
    primary_tumour: PrimaryTumour
    label_sets: dict[str, LabelSet]
    label_set_documents: dict[str, Document]
    anatomy_document: Document
    sha256: str

    @cached_property
    def findings(self) -> dict[str, Finding]:
        return {finding_id: file.finding for finding_id, file in self.files.items()}

    @cached_property
    def default_sites(self) -> dict[str, str | None]:
        """Region -> the site a finding has when the report names none."""
        return {region.id: region.default_site for region in self.anatomy.regions}

    @cached_property
    def site_parents(self) -> dict[str, frozenset[str]]:
        """Site -> itself and every site it lies in."""
        within = {site.id: site.within for site in self.anatomy.sites}
        parents: dict[str, frozenset[str]] = {}

        def climb(site: str, seen: frozenset[str]) -> frozenset[str]:
            if site in parents:
                return parents[site]
            if site in seen:
                raise ConfigError(f"{self.anatomy_document.path}: site '{site}' lies within itself")
            result = frozenset({site}).union(*(climb(parent, seen | {site}) for parent in within.get(site, [])))
            parents[site] = result
            return result

        for site in within:
            climb(site, frozenset())
        return parents


def rules_folder() -> Path:
    """The rules that came with the package: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "rules", package.parent / "rules"):
        if (folder / "assertion.yaml").is_file():
            return folder
    raise ConfigError("the rules folder is missing from this installation; install reportlabel again")


def load_rules(folder: Path | None = None) -> Rulebook:
    """Read and validate a rules folder (default: the one that came with the package).

    Raises:
        ConfigError: names file, line and key of every unknown key, wrong type or duplicate id.
    """
    folder = rules_folder() if folder is None else folder
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such rules folder")
    paths = sorted(folder.rglob("*.yaml"))
    anatomy_document = _read(folder / "anatomy.yaml")
    label_set_documents = {
        path.stem: read_yaml(path)
        for path in paths
        if path.parent.name == "label_sets" and path.parent.parent == folder
    }
    return Rulebook(
        folder=folder,
        files=_read_findings(folder),
        anatomy=parse(anatomy_document, Anatomy),
        assertion=parse(_read(folder / "assertion.yaml"), AssertionRules),
        sections=parse(_read(folder / "sections.yaml"), SectionRules),
        normalise=parse(_read(folder / "normalise.yaml"), NormaliseRules),
        context=parse(_read(folder / "context.yaml"), ContextRules),
        primary_tumour=parse(_read(folder / "staging" / "primary_tumour.yaml"), PrimaryTumour),
        label_sets={name: _label_set(document) for name, document in label_set_documents.items()},
        label_set_documents=label_set_documents,
        anatomy_document=anatomy_document,
        sha256=_sha256(folder, paths),
    )


def find_label_set(rules: Rulebook, name: str) -> LabelSet:
    """The label set of that name.

    Raises:
        ConfigError: there is none; suggests the nearest and lists all.
    """
    if name in rules.label_sets:
        return rules.label_sets[name]
    near = get_close_matches(name, rules.label_sets, n=1, cutoff=0.4)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise ConfigError(f"unknown label set '{name}'.{hint} There are: {', '.join(sorted(rules.label_sets))}")


def _read(path: Path) -> Document:
    if not path.is_file():
        raise ConfigError(f"{path}: missing; a rules folder needs this file")
    return read_yaml(path)


def _read_findings(folder: Path) -> dict[str, FindingFile]:
    files: dict[str, FindingFile] = {}
    for path in sorted((folder / "findings").glob("*/*.yaml")):
        document = read_yaml(path)
        finding = parse(document, Finding)
        line = document.line(("id",))
        if finding.id != path.stem:
            raise ConfigError(f"{path}:{line}: id '{finding.id}' must equal the file name '{path.stem}'")
        if finding.id in files:
            other = files[finding.id].document.path
            raise ConfigError(f"{path}:{line}: finding '{finding.id}' is also defined in {other}")
        files[finding.id] = FindingFile(finding=finding, region=path.parent.name, document=document)
    if not files:
        raise ConfigError(f"{folder}: holds no findings (findings/<region>/<finding>.yaml)")
    return files


def _label_set(document: Document) -> LabelSet:
    label_set = parse(document, LabelSet)
    if label_set.id != document.path.stem:
        line = document.line(("id",))
        raise ConfigError(f"{document.path}:{line}: id '{label_set.id}' must equal the file name")
    return label_set


# what studies, exports, reviews and training do, and what pages and messages say; no label of a report depends on it
_NOT_OF_LABELS = frozenset(
    {
        "deidentify.yaml",
        "deliverables.yaml",
        "dicom",
        "display.yaml",
        "export.yaml",
        "ingest/report_table.yaml",
        "protocols",
        "review.yaml",
        "review_screen.yaml",
        "train.yaml",
    }
)


def _sha256(folder: Path, paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        relative = path.relative_to(folder)
        if relative.parts[0] in _NOT_OF_LABELS or relative.as_posix() in _NOT_OF_LABELS:
            continue
        digest.update(relative.as_posix().encode())
        digest.update(b"\0")
        digest.update(path.read_bytes())
        digest.update(b"\0")
    return digest.hexdigest()
