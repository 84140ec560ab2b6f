"""The tables of the two skin studies: nine items a picture, and pictures by clinical and by pathological diagnosis.

    diagnoses = record_diagnoses(records, annotator, rules)
    links = link_records_to_images(images, records, rules)
    made = nine_items(images, records, links, diagnoses, protocol, rules)
    index = diagnosis_index(images, links, diagnoses, role="pathological")
    apart = disagreements(images, links, diagnoses)

Where the hospital has no table of its pictures, `images_of_exams` makes one from exams and what their reports say.

Tables are those after de-identification. A picture and a record belong together by patient and by days; where the
record names the site of another lesion of the patient, and not that of this one, they do not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from reportlabel.annotate.annotator import Annotator
from reportlabel.consent.cohort import keep_complete
from reportlabel.errors import ConfigError, InputError
from reportlabel.export.deliverable_rules import SkinRules
from reportlabel.export.study_folder import about, check_permission, need_columns, write_tables
from reportlabel.images.sets import REGIONS, teacher_sets
from reportlabel.protocol import Permission, Protocol

__all__ = [
    "DIAGNOSES",
    "DISAGREEMENTS",
    "IMAGES",
    "INDEX",
    "LINKS",
    "NINE",
    "PICTURES",
    "NineItems",
    "diagnosis_index",
    "disagreements",
    "images_of_exams",
    "link_records_to_images",
    "nine_items",
    "record_diagnoses",
    "write_indexes",
    "write_nine_items",
]

IMAGES = pl.Schema(
    {
        "image_id": pl.String,
        "site": pl.String,
        "patient_id": pl.String,
        "lesion_id": pl.String,
        "kind": pl.String,
        "captured_on": pl.Date,
        "nationality": pl.String,
        "age_years": pl.Int32,
        "sex": pl.String,
        "melanoma_history": pl.String,
        "lesion_site": pl.String,
        "lesion_size_mm": pl.Float64,
        "diagnosis": pl.String,
        "device": pl.String,
    }
)
"""One row a picture, as the hospital knows it; what it does not know is null. ``kind``: of the kinds of the
protocol."""

PICTURES = pl.Schema([*IMAGES.items(), ("exam_id", pl.String())])
"""The columns that the hospital's own table of pictures may have; exams by the codes of the study. ``image_id`` alone
is needed."""

NINE = (
    "nationality",
    "age_years",
    "sex",
    "melanoma_history",
    "lesion_site",
    "lesion_size_mm",
    "diagnosis",
    "device",
    "pathology_done",
)
"""The nine items: nationality is japanese or other, melanoma_history and pathology_done are yes or no."""

DIAGNOSES = pl.Schema({"record_id": pl.String, "diagnosis": pl.String})
"""What a record says is there: the id of a finding, else the category of its ICD-10 code (L40)."""

LINKS = pl.Schema(
    {
        "image_id": pl.String,
        "record_id": pl.String,
        "role": pl.String,
        "day": pl.Date,
        "delta_days": pl.Int32,
        "linked_by": pl.String,
    }
)
"""A picture and a record of its patient. ``role``: clinical or pathological. ``delta_days``: from the picture to the
record. ``linked_by``: lesion where the record names its site, else patient."""

INDEX = pl.Schema(
    [
        ("diagnosis", pl.String()),
        ("patients", pl.Int64()),
        ("images", pl.Int64()),
        ("image_ids", pl.List(pl.String())),
    ]
)
"""One row a diagnosis."""

DISAGREEMENTS = pl.Schema(
    [
        ("image_id", pl.String()),
        ("patient_id", pl.String()),
        ("lesion_id", pl.String()),
        ("clinical", pl.List(pl.String())),
        ("pathological", pl.List(pl.String())),
    ]
)
"""Pictures whose clinical and pathological diagnoses have none in common."""

Role = Literal["clinical", "pathological"]
_ROLES: dict[str, Role] = {"diagnosis": "clinical", "pathology": "pathological"}
_PERSON = ["site", "patient_id"]


# --- pictures ---------------------------------------------------------------------------------------------------------


def images_of_exams(
    exams: pl.DataFrame,
    reports: pl.DataFrame,
    mentions: pl.DataFrame,
    rules: SkinRules,
    *,
    given: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The pictures of the exams of a study, with what is known of each.

    What the hospital's table of pictures holds stands; the rest comes from the exam (day, age, sex, kind) and from its
    last report: the site and the size that it names most often for what is there. What nobody says is null.

    Args:
        exams: of the study; ``kind`` where there is such a column. mentions: the mentions table of a workspace.
        given: one row a picture: image_id, any other columns of PICTURES; without exam_id the image_id is the exam.
            None: one picture an exam, of the same id.

    Returns:
        Columns of PICTURES, sorted by picture. Pictures of exams that are not in ``exams`` are left out.

    Raises:
        InputError: a column is missing or unknown, of another type, or a picture stands twice.
    """
    need_columns(exams, ("exam_id", *_PERSON, "started_at", "age_years", "sex"), name="exams")
    last = reports.sort("version", maintain_order=True).unique("exam_id", keep="last", maintain_order=True)
    told = mentions.filter(pl.col("status").is_in(["present", "uncertain"])).join(
        last.select("report_id", "exam_id"), on="report_id", how="inner"
    )
    of_lesion = pl.any_horizontal(pl.col("site").str.starts_with(one) for one in rules.lesion_sites)
    said = (
        told.with_columns(
            lesion_site=pl.when(of_lesion).then(pl.concat_str("side", "site", separator=" ", ignore_nulls=True))
        )
        .group_by("exam_id")
        .agg(
            pl.col("lesion_site").drop_nulls().mode().sort().first(),
            lesion_size_mm=pl.col("size_mm").drop_nulls().mode().max(),
        )
    )
    known = exams.join(said, on="exam_id", how="left").select(
        "exam_id",
        *_PERSON,
        "age_years",
        "sex",
        "lesion_site",
        "lesion_size_mm",
        captured_on=pl.col("started_at").dt.date(),
        kind=pl.col("kind") if "kind" in exams.columns else pl.lit(None, dtype=pl.String),
    )
    own = known.select("exam_id", image_id="exam_id") if given is None else _pictures(given)
    rows = own.join(known, on="exam_id", how="inner", suffix="_known")
    filled = [
        pl.coalesce(name, f"{name}_known").alias(name)
        if f"{name}_known" in rows.columns
        else pl.col(name)
        if name in rows.columns
        else pl.lit(None, dtype=kind).alias(name)
        for name, kind in IMAGES.items()
        if name not in _PERSON
    ]
    # whose picture it is says the exam alone
    person = [pl.col(f"{name}_known" if f"{name}_known" in rows.columns else name).alias(name) for name in _PERSON]
    return rows.select("exam_id", *person, *filled).select(*IMAGES, "exam_id").sort("image_id")


def _pictures(given: pl.DataFrame) -> pl.DataFrame:
    need_columns(given, ("image_id",), name="images")
    schema = PICTURES
    if unknown := [name for name in given.columns if name not in schema]:
        raise InputError(f"images: unknown columns {', '.join(unknown)}; known: {', '.join(schema)}")
    if wrong := [name for name in given.columns if given.schema[name] not in (schema[name], pl.Null)]:
        raise InputError(f"images: of another type than they should be: {', '.join(wrong)}")
    if given["image_id"].null_count() or given["image_id"].n_unique() < given.height:
        raise InputError("images: a picture has no id, or stands twice; each needs one of its own (S11)")
    table = given.cast({name: schema[name] for name in given.columns})
    return table if "exam_id" in table.columns else table.with_columns(exam_id="image_id")


# --- records and pictures (T3, S8) ------------------------------------------------------------------------------------


def record_diagnoses(records: pl.DataFrame, annotator: Annotator, rules: SkinRules) -> pl.DataFrame:
    """The diagnoses that records of diagnosis and pathology say are there.

    Name and text are read like a report, so what is denied is none; a diagnosis that is only suspected is none.
    Where no finding is recognised, the category of an ICD-10 code of the skin stands for it.

    Args:
        records: the records table.
        annotator: of the rulebook whose findings ``rules.diagnoses`` names.

    Returns:
        Columns of DIAGNOSES, sorted, each once.

    Raises:
        ConfigError: ``rules`` names a finding that does not exist. InputError: a column is missing.
    """
    need_columns(records, ("record_id", "kind", "code_system", "code", "name", "text", "certainty"), name="records")
    usable = records.filter(pl.col("kind").is_in(list(_ROLES)), pl.col("certainty").ne_missing("suspected"))
    texts = usable.select(
        report_id="record_id",
        text=pl.concat_str(pl.col("name").fill_null(""), pl.lit("\n"), pl.col("text").fill_null("")),
    )
    wanted = list(rules.diagnoses)
    if unknown := [one for one in (*wanted, *rules.unspecific) if one not in annotator.rules.findings]:
        raise ConfigError(f"rules/deliverables.yaml: skin: there is no finding '{unknown[0]}'")
    read = (
        annotator.annotate(texts, region="skin")
        .filter(pl.col("finding").is_in(wanted), pl.col("status") == "present", pl.col("temporality") == "current")
        .select(record_id="report_id", diagnosis="finding")
    )
    by_code = {code: finding for finding in wanted for code in annotator.rules.findings[finding].codes.icd10}
    plain = pl.col("code").str.replace_all(r"[.\s]", "").str.to_uppercase()
    coded = (
        usable.filter(
            pl.col("code_system").str.to_uppercase().str.replace_all(r"[^A-Z0-9]", "").str.starts_with("ICD10"),
            plain.str.contains(r"^[A-Z][0-9]{2}"),
            pl.any_horizontal(plain.str.starts_with(prefix) for prefix in rules.diagnosis_codes),
        )
        .join(read, on="record_id", how="anti")
        .with_columns(code=plain)
    )
    codes = [_finding_of(code, by_code) for code in coded["code"].to_list()]
    from_code = coded.select("record_id", pl.Series("diagnosis", codes, dtype=pl.String))
    found = pl.concat([read.cast(DIAGNOSES), from_code.cast(DIAGNOSES)]).unique().sort("record_id", "diagnosis")
    others = pl.col("diagnosis").n_unique().over("record_id") > 1
    return found.filter(~(pl.col("diagnosis").is_in(list(rules.unspecific)) & others))


def _finding_of(code: str, by_code: dict[str, str]) -> str:
    """The finding of the longest code that this one begins with, else its category."""
    fitting = [known for known in by_code if code.startswith(known.replace(".", ""))]
    return by_code[max(fitting, key=len)] if fitting else code[:3]


def link_records_to_images(images: pl.DataFrame, records: pl.DataFrame, rules: SkinRules) -> pl.DataFrame:
    """Which records of diagnosis and pathology belong to which picture (T3).

    A specimen of another organ belongs to none, unless it names the site of the lesion.

    Args:
        images: columns of IMAGES. records: the records table; ``body_site`` as ids of sites, or as it was written.

    Returns:
        Columns of LINKS, sorted by picture, role and distance.
    """
    need_columns(images, ("image_id", *_PERSON, "captured_on", "lesion_site"), name="images")
    whole = images.filter(pl.col("captured_on").is_not_null())
    dated = records.filter(pl.col("kind").is_in(list(_ROLES)), pl.col("start_at").is_not_null()).select(
        "record_id",
        *_PERSON,
        role=pl.col("kind").replace_strict(_ROLES),
        day=pl.col("start_at").dt.date(),
        organ="body_site",
        words=pl.concat_str(*(pl.col(name).fill_null("") for name in ("body_site", "name", "text")), separator="\n"),
    )
    sites = images.group_by(_PERSON).agg(sites=pl.col("lesion_site").drop_nulls().unique())
    found = (
        whole.select("image_id", *_PERSON, "captured_on", "lesion_site")
        .join(dated, on=_PERSON, how="inner")
        .join(sites, on=_PERSON, how="left")
        .with_columns(delta_days=(pl.col("day") - pl.col("captured_on")).dt.total_days())
        .filter(
            pl.when(pl.col("role") == "pathological")
            .then(pl.col("delta_days").is_between(-rules.pathology.before, rules.pathology.after))
            .otherwise(pl.col("delta_days").is_between(-rules.clinical.before, rules.clinical.after))
        )
    )
    linked_by = [
        _linked_by(own, others, words, of_skin=role == "clinical" or _of_skin(organ, words, rules))
        for own, others, words, role, organ in found.select(
            "lesion_site", "sites", "words", "role", "organ"
        ).iter_rows()
    ]
    return (
        found.with_columns(pl.Series("linked_by", linked_by, dtype=pl.String))
        .filter(pl.col("linked_by").is_not_null())
        .sort("image_id", "role", pl.col("delta_days").abs(), "record_id")
        .select(list(LINKS))
        .cast(LINKS)
    )


def _of_skin(organ: str | None, words: str, rules: SkinRules) -> bool:
    """Whether a specimen is of the skin: its organ is, or a word of it says so where the organ is no id."""
    if organ and organ.isascii():
        return "skin" in organ.split(";")
    return any(_plain(one) in _plain(words) for one in rules.specimen_words)


def _linked_by(own: str | None, sites: Iterable[str] | None, words: str, *, of_skin: bool) -> str | None:
    text = _plain(words)
    if own and _plain(own) and _plain(own) in text:
        return "lesion"
    if not of_skin:
        return None
    others = [_plain(site) for site in sites or () if site != own]
    # without a site of its own the picture may show any lesion
    return None if own and any(site and site in text for site in others) else "patient"


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).lower().split())


# --- shinshu_skin: nine items (S2, S3, S8) ----------------------------------------------------------------------------


@dataclass(frozen=True)
class NineItems:
    """The table of the data set.

    Attributes:
        table: image_id, patient_id, lesion_id, kind and the nine items: pictures that have all of them, of persons who
            have at least one such picture.
        evidence: image_id, item, record_id: the record that an item was worked out from; it stays in the hospital.
        attrition: columns of reportlabel.consent.attrition.ATTRITION: persons, one step an item.
        excluded: site, patient_id, step, reason, number: persons that are out.
        counts: persons_in, persons_out, images_in, images_out, images_incomplete, images_of_incomplete_persons;
            persons_expected, complete_expected where the protocol names them.
    """

    table: pl.DataFrame
    evidence: pl.DataFrame
    attrition: pl.DataFrame
    excluded: pl.DataFrame
    counts: dict[str, int]


def nine_items(
    images: pl.DataFrame,
    records: pl.DataFrame,
    links: pl.DataFrame,
    diagnoses: pl.DataFrame,
    protocol: Protocol,
    rules: SkinRules,
) -> NineItems:
    """The nine items of every picture (S3), and the persons who have them all (S2).

    Diagnosis and earlier melanoma are taken from the picture's own row where it has them, else from records: the
    diagnosis from the nearest pathological record that has one, else from the nearest clinical one; an earlier
    melanoma from any record before the day of the picture. Without any record of the patient it is not known. Whether
    there is a pathological examination is always worked out from the links (S8).

    Args:
        images: columns of IMAGES. links: of `link_records_to_images`. diagnoses: of `record_diagnoses`.

    Raises:
        InputError: a column is missing or a picture stands twice.
    """
    need_columns(images, IMAGES, name="images")
    twice = images.height - images["image_id"].n_unique()
    if twice:
        raise InputError(f"images: {twice} ids stand twice; each picture needs one of its own (S11)")
    rows, evidence = _worked_out(images, records, links, diagnoses, rules)
    whole = pl.all_horizontal(pl.col(name).is_not_null() for name in NINE)
    lacking = pl.sum_horizontal(pl.col(name).is_null().cast(pl.Int32) for name in NINE)
    persons = rows.sort(lacking, "image_id").unique(_PERSON, keep="first", maintain_order=True).sort(_PERSON)
    complete = keep_complete(persons.select(*_PERSON, *NINE), protocol)
    of_complete = rows.join(complete.kept.select(_PERSON), on=_PERSON, how="semi")
    table = of_complete.filter(whole).sort("image_id")
    counts = {
        "persons_in": persons.height,
        "persons_out": complete.kept.height,
        "images_in": images.height,
        "images_out": table.height,
        "images_incomplete": of_complete.height - table.height,
        "images_of_incomplete_persons": rows.height - of_complete.height,
    }
    planned = {"persons_expected": protocol.cohort.expected, "complete_expected": protocol.cohort.complete_expected}
    return NineItems(
        table.select("image_id", "patient_id", "lesion_id", "kind", *NINE),
        evidence.sort("image_id", "item"),
        complete.attrition,
        complete.excluded,
        counts | {name: number for name, number in planned.items() if number is not None},
    )


def _worked_out(
    images: pl.DataFrame, records: pl.DataFrame, links: pl.DataFrame, diagnoses: pl.DataFrame, rules: SkinRules
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The pictures with all nine items, and the records behind the items that were worked out."""
    nearest = links.with_columns(far=pl.col("delta_days").abs()).sort(
        "image_id", pl.col("role") != "pathological", pl.col("linked_by") != "lesion", "far", "record_id"
    )
    pathology = nearest.filter(pl.col("role") == "pathological").unique("image_id", keep="first", maintain_order=True)
    diagnosed = (
        nearest.join(diagnoses, on="record_id", how="inner")
        .filter(pl.col("diagnosis").is_in(list(rules.diagnoses)))
        .unique("image_id", keep="first", maintain_order=True)
    )
    melanoma = rules.melanoma_history
    known = records.filter(pl.col("kind").is_in(list(_ROLES))).select(_PERSON).unique()
    earlier = (
        records.filter(pl.col("kind").is_in(list(melanoma.kinds)))
        .join(diagnoses.filter(pl.col("diagnosis").is_in(list(melanoma.findings))), on="record_id", how="semi")
        .select("record_id", *_PERSON, day=pl.col("start_at").dt.date())
        .join(images.select("image_id", *_PERSON, "captured_on"), on=_PERSON, how="inner")
        .filter(pl.col("day") < pl.col("captured_on"))
        .sort("image_id", "day", "record_id")
        .unique("image_id", keep="first", maintain_order=True)
    )
    had = pl.col("image_id").is_in(earlier["image_id"].implode())
    has_records = pl.struct(_PERSON).is_in(known.select(pl.struct(_PERSON).alias("who"))["who"].implode())
    rows = images.join(diagnosed.select("image_id", read="diagnosis"), on="image_id", how="left").with_columns(
        nationality=pl.Series([_nationality(one, rules) for one in images["nationality"].to_list()], dtype=pl.String),
        sex=pl.when(pl.col("sex").is_in(["F", "M"])).then("sex"),
        age_years=pl.when(pl.col("age_years").is_between(0, 130)).then("age_years"),
        lesion_size_mm=pl.when((pl.col("lesion_size_mm") > 0) & pl.col("lesion_size_mm").is_finite()).then(
            "lesion_size_mm"
        ),
        melanoma_history=pl.when(pl.col("melanoma_history").is_in(["yes", "no"]))
        .then("melanoma_history")
        .when(had)
        .then(pl.lit("yes"))
        .when(has_records)
        .then(pl.lit("no")),
        diagnosis=pl.coalesce(_filled("diagnosis"), "read"),
        lesion_site=_filled("lesion_site"),
        device=_filled("device"),
        pathology_done=pl.when(pl.col("image_id").is_in(pathology["image_id"].implode()))
        .then(pl.lit("yes"))
        .otherwise(pl.lit("no")),
    )
    own = images.select("image_id", given="diagnosis", history="melanoma_history")
    evidence = pl.concat(
        some.select("image_id", item=pl.lit(item), record_id="record_id")
        for item, some in (
            ("pathology_done", pathology),
            ("diagnosis", diagnosed.join(own.filter(_filled("given").is_null()), on="image_id", how="semi")),
            ("melanoma_history", earlier.join(own.filter(_filled("history").is_null()), on="image_id", how="semi")),
        )
    )
    return rows.drop("read"), evidence


def _filled(name: str) -> pl.Expr:
    return pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name))


def _nationality(value: str | None, rules: SkinRules) -> str | None:
    """japanese, other, or None where it is not known; any country that is not Japan is other."""
    said = _plain(value or "")
    words = rules.nationality
    if not said or said in {_plain(one) for one in words.unknown}:
        return None
    return "japanese" if said in {_plain(one) for one in words.japanese} else "other"


# --- tohoku_skin: indexes (T4) ----------------------------------------------------------------------------------------


def diagnosis_index(images: pl.DataFrame, links: pl.DataFrame, diagnoses: pl.DataFrame, *, role: Role) -> pl.DataFrame:
    """Pictures by clinical or by pathological diagnosis; a picture stands under each of its diagnoses.

    Returns:
        Columns of INDEX, the most frequent first; pictures without a diagnosis of this role under null.
    """
    of_image = (
        links.filter(pl.col("role") == role)
        .join(diagnoses, on="record_id", how="inner")
        .select("image_id", "diagnosis")
        .unique()
    )
    return (
        images.select("image_id", *_PERSON)
        .join(of_image, on="image_id", how="left")
        .group_by("diagnosis")
        .agg(
            patients=pl.struct(_PERSON).n_unique(),
            images=pl.len(),
            image_ids=pl.col("image_id").sort(),
        )
        .cast(INDEX)
        .sort(pl.col("diagnosis").is_null(), -pl.col("images"), "diagnosis")
    )


def disagreements(images: pl.DataFrame, links: pl.DataFrame, diagnoses: pl.DataFrame) -> pl.DataFrame:
    """Pictures whose clinical and pathological diagnoses have none in common.

    Returns:
        Columns of DISAGREEMENTS, sorted by patient and picture.
    """
    found = (
        links.join(diagnoses, on="record_id", how="inner")
        .group_by("image_id", "role")
        .agg(pl.col("diagnosis").unique().sort())
    )
    both = (
        found.filter(pl.col("role") == "clinical")
        .select("image_id", clinical="diagnosis")
        .join(
            found.filter(pl.col("role") == "pathological").select("image_id", pathological="diagnosis"),
            on="image_id",
            how="inner",
        )
    )
    return (
        both.filter(pl.col("clinical").list.set_intersection("pathological").list.len() == 0)
        .join(images.select("image_id", "patient_id", "lesion_id"), on="image_id", how="inner")
        .select(list(DISAGREEMENTS))
        .cast(DISAGREEMENTS)
        .sort("patient_id", "image_id")
    )


# --- files ------------------------------------------------------------------------------------------------------------


def write_nine_items(
    out: Path, made: NineItems, *, protocol: Protocol, permission: Permission, rules_sha256: str | None = None
) -> None:
    """A folder with the nine-item table, its attrition and the manifest; evidence and excluded persons stay inside.

    Raises:
        RefusedError: the permission is for something else. ConfigError: the folder cannot be written.
    """
    check_permission(protocol, permission, kinds=("exam_table",))
    said = about(protocol, permission, counts=made.counts, rules_sha256=rules_sha256)
    write_tables(out, {"nine_items": made.table, "attrition": made.attrition}, said=said)


def write_indexes(
    out: Path,
    images: pl.DataFrame,
    links: pl.DataFrame,
    diagnoses: pl.DataFrame,
    *,
    protocol: Protocol,
    permission: Permission,
    regions: pl.DataFrame | None = None,
    salt: str = "reportlabel",
    rules_sha256: str | None = None,
) -> None:
    """A folder with both indexes, the disagreements, the links they rest on (days from the picture, no dates), the
    marked and the unmarked set with the splits by patient (T5), manifest.

    Args:
        regions: columns of `reportlabel.images.sets.REGIONS`; None: no picture is marked. salt: of the splits.

    Raises:
        RefusedError: the permission is for something else. ConfigError: the folder cannot be written.
    """
    check_permission(protocol, permission, kinds=("index",))
    tables = {
        "by_clinical_diagnosis": diagnosis_index(images, links, diagnoses, role="clinical"),
        "by_pathological_diagnosis": diagnosis_index(images, links, diagnoses, role="pathological"),
        "disagreements": disagreements(images, links, diagnoses),
        "links": links.join(diagnoses, on="record_id", how="inner").drop("day"),
        "sets": teacher_sets(images, pl.DataFrame(schema=REGIONS) if regions is None else regions, salt=salt),
    }
    counts = {
        "images": images.height,
        "patients": images.select(_PERSON).unique().height,
        "disagreements": tables["disagreements"].height,
        "labelled": int((tables["sets"]["set"] == "labelled").sum()),
    }
    write_tables(out, tables, said=about(protocol, permission, counts=counts, rules_sha256=rules_sha256))
