"""What a study holds of one patient, for the answer to a request for disclosure.

It says which tables, how many rows and which hand-overs; never what stands in them, and no date of the workspace, since
those may be moved. Only the custodian asks, and every question is logged as a lookup.
"""

from __future__ import annotations

import polars as pl

from reportlabel.deidentify.linkage import LinkageStore, patient_key
from reportlabel.govern import shipped_of
from reportlabel.schema import WORKSPACE
from reportlabel.store import Workspace

__all__ = ["HOLDINGS", "holdings"]

HOLDINGS = pl.Schema({"what": pl.String, "rows": pl.Int64})
"""``what``: a table, a kind of records (``records: lab``), or a hand-over (bundle, recipient, day)."""

_KEYS = ("exam_id", "report_id", "record_id")


def holdings(
    workspace: Workspace,
    store: LinkageStore,
    *,
    site: str,
    patient_id: str,
    custodian: str,
    actor: str,
    purpose: str,
) -> pl.DataFrame:
    """Columns of `HOLDINGS`; no row where the study has no code of the patient.

    Args:
        patient_id: as the archive has it (`reportlabel.ingest.codes.patient_number`).

    Raises:
        ConfigError: ``custodian`` is not the store's, or actor or purpose is missing.
    """
    who = {"actor": actor, "purpose": purpose}
    code = store.codes_of("patient", [patient_key(site, patient_id)], **who)["code"][0]
    store.lookup([] if code is None else [code], custodian=custodian, **who)
    if code is None:
        return pl.DataFrame(schema=HOLDINGS)
    theirs = pl.col("patient_id") == code
    exams = workspace.read("exams", columns=["exam_id", "patient_id"]).filter(theirs)["exam_id"]
    records = workspace.read("records", columns=["record_id", "patient_id", "kind"]).filter(theirs)
    reports = workspace.read("reports", columns=["report_id", "exam_id"])
    keys = {
        "exam_id": exams,
        "record_id": records["record_id"],
        "report_id": reports.filter(pl.col("exam_id").is_in(exams.implode()))["report_id"],
    }
    rows: list[tuple[str, int]] = []
    for name, schema in WORKSPACE.items():
        key = next((one for one in _KEYS if one in schema), None)
        if name == "records" or key is None:
            continue
        held = workspace.read(name, columns=[key])
        rows.append((name, held.filter(pl.col(key).is_in(keys[key].implode())).height))
    kinds = records.group_by("kind").len().sort("kind")
    rows += [(f"records: {kind}", count) for kind, count in kinds.iter_rows()]
    handed = shipped_of(store, **who).filter(pl.col("patient_code") == code).sort("shipped_on", "bundle")
    rows += [
        (f"handed over: {bundle} to {recipient} on {day}", 1)
        for bundle, recipient, day in handed.select("bundle", "recipient", "shipped_on").iter_rows()
    ]
    return pl.DataFrame(rows, schema=HOLDINGS, orient="row").filter(pl.col("rows") > 0)
