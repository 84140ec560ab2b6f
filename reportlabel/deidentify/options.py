"""Options that the commands around the linkage store share, and what they print with.

A key or passphrase is never the value of an option: values of options stand in the history of the shell and in the list
of processes. Options name the variable or the file that holds it.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reportlabel.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from reportlabel.deidentify.linkage import KeySource, LinkageStore

__all__ = [
    "KEY_VARIABLE",
    "Actor",
    "AskPassphrase",
    "IdWidth",
    "KeyEnv",
    "KeyFileOption",
    "PassphraseEnv",
    "Persons",
    "ProtocolName",
    "Purpose",
    "WorkspaceApart",
    "key_source",
    "login",
    "open_store",
    "read_persons",
    "say",
    "show",
]

KEY_VARIABLE = "REPORTLABEL_LINKAGE_KEY"
"""Holds the custodian's key where no option says otherwise."""

KeyFileOption = Annotated[Path | None, typer.Option("--key-file", help="File with the custodian's key.")]
KeyEnv = Annotated[
    str | None, typer.Option("--key-env", help=f"Variable with the custodian's key; default: {KEY_VARIABLE}.")
]
PassphraseEnv = Annotated[str | None, typer.Option("--passphrase-env", help="Variable with the passphrase.")]
AskPassphrase = Annotated[bool, typer.Option("--ask-passphrase", help="Ask for the passphrase.")]
ProtocolName = Annotated[str, typer.Option("--protocol", help="A protocol of the package, or a .yaml file.")]
Actor = Annotated[str | None, typer.Option("--actor", help="Who does it, for the audit log; default: the login name.")]
Purpose = Annotated[str, typer.Option("--purpose", help="Why, for the audit log.")]
WorkspaceApart = Annotated[
    Path | None, typer.Option("--workspace", help="The workspace, from which the store must lie apart.")
]
Persons = Annotated[
    Path | None,
    typer.Option("--persons", help="Who is the same person in several hospitals: site, patient_id, person."),
]
IdWidth = Annotated[
    int | None, typer.Option("--id-width", help="Digits of the hospital's patient ids, where leading zeros were lost.")
]


def login() -> str:
    """The login name of who runs the command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a user
        raise ConfigError("the login name is not known; say who does this with --actor") from None


def key_source(
    key_file: Path | None, key_env: str | None, passphrase_env: str | None, ask_passphrase: bool, *, new: bool = False
) -> KeySource:
    """Where the custodian's key comes from. Raises `ConfigError`: more than one place is named.

    Args:
        new: a passphrase that is asked for is asked for twice.
    """
    from reportlabel.deidentify.linkage import EnvironmentKey, KeyFile, Passphrase

    named = [one for one in (key_file, key_env, passphrase_env, ask_passphrase or None) if one is not None]
    if len(named) > 1:
        raise ConfigError("give one of --key-file, --key-env, --passphrase-env and --ask-passphrase")
    if key_file is not None:
        return KeyFile(key_file)
    if passphrase_env is not None:
        return Passphrase(passphrase_env)
    if ask_passphrase:
        return Passphrase(
            ask=lambda: str(typer.prompt("passphrase", hide_input=True, confirmation_prompt=new, err=True))
        )
    return EnvironmentKey(key_env or KEY_VARIABLE)


def open_store(
    folder: Path, source: KeySource, *, study: str | None, workspace: Path | None, exports: Sequence[Path] = ()
) -> LinkageStore:
    """Open the linkage store of a study; see `LinkageStore.open`."""
    from reportlabel.deidentify.linkage import LinkageStore

    return LinkageStore.open(folder, key_source=source, study=study, workspace=workspace, exports=exports)


def read_persons(path: Path | None) -> pl.DataFrame | None:
    """The table of who is the same person in several hospitals: site, patient_id, person; CSV or Parquet.

    Raises:
        InputError: it cannot be read or lacks a column.
    """
    import polars as pl
    from polars.exceptions import PolarsError

    from reportlabel.errors import InputError

    if path is None:
        return None
    try:
        is_parquet = path.suffix.lower() in (".parquet", ".pq")
        table = pl.read_parquet(path) if is_parquet else pl.read_csv(path, infer_schema=False)
    except (PolarsError, OSError) as error:
        raise InputError(f"{path}: cannot be read as CSV in UTF-8 or Parquet ({type(error).__name__})") from None
    names = ("site", "patient_id", "person")
    if missing := [name for name in names if name not in table.columns]:
        raise InputError(f"{path}: lacks the column {', '.join(missing)}")
    return table.select(pl.col(name).cast(pl.String) for name in names)


# --- printing ---------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """One line on standard output, as it is."""
    typer.echo(text)


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """A table on standard output; null is –."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=max(120, Console().width))
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*("–" if cell is None else escape(str(cell)) for cell in row))
    console.print(table)
