"""The linkage store: codes, keys, places, looking up, destroying."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reportlabel.deidentify.audit import CODE, entries, verify
from reportlabel.deidentify.linkage import (
    EnvironmentKey,
    KeyFile,
    LinkageStore,
    Passphrase,
    make_key_file,
    refuse_overlap,
)
from reportlabel.errors import ConfigError, InputError

IDS = [f"7000{number:04}" for number in range(50)]
WHO = {"actor": "batch", "purpose": "study codes"}
ASK = {"custodian": "the custodian", "actor": "a.n.other", "purpose": "incidental finding"}


@pytest.fixture(autouse=True)
def no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test takes the power away."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def key(tmp_path: Path) -> KeyFile:
    (tmp_path / "keys").mkdir()
    return make_key_file(tmp_path / "keys" / "study.key")


def make(folder: Path, key: KeyFile | EnvironmentKey | Passphrase, study: str = "study_a") -> LinkageStore:
    return LinkageStore.create(
        folder, study=study, key_source=key, custodian="the custodian", workspace=None, actor="admin", purpose="set up"
    )


@pytest.fixture
def store(tmp_path: Path, key: KeyFile) -> LinkageStore:
    store = make(tmp_path / "linkage", key)
    store.issue("patient", IDS, **WHO)
    return store


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


# --- codes


def test_codes_are_random_unique_and_stable(store: LinkageStore, tmp_path: Path, key: KeyFile) -> None:
    codes = store.issue("patient", IDS, **WHO)
    assert codes["original"].to_list() == IDS
    assert codes["code"].n_unique() == len(IDS)
    assert all(CODE.fullmatch(code) and code.startswith("P-") for code in codes["code"])
    again = LinkageStore.open(store.folder, key_source=key, study="study_a", workspace=None)
    more = again.issue("patient", ["new", *reversed(IDS), "new"], **WHO)
    assert more["original"].to_list() == ["new", *reversed(IDS)]
    assert dict(more.iter_rows()).items() >= dict(codes.iter_rows()).items()
    other = make(tmp_path / "other", key, study="study_b").issue("patient", IDS, **WHO)
    assert not set(other["code"]) & set(codes["code"])
    assert store.counts() == {"patient": 51, "exam": 0, "report": 0, "record": 0}, "another opener's codes are seen"


def test_kinds_have_codes_of_their_own(store: LinkageStore) -> None:
    exams = store.issue("exam", IDS[:3], **WHO)
    assert all(code.startswith("E-") for code in exams["code"])
    assert store.codes_of("exam", IDS[2:4], **WHO)["code"].to_list() == [exams["code"][2], None]
    assert store.counts()["exam"] == 3


def test_a_code_that_is_taken_is_drawn_again(store: LinkageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = store.issue("patient", IDS[:1], **WHO)["code"][0]
    drawn = iter([[taken, "P-0000000001"], ["P-0000000001"], ["P-0000000002"]])
    monkeypatch.setattr("reportlabel.deidentify.linkage._draw", lambda kind, count: pl.Series("code", next(drawn)))
    assert store.issue("patient", ["x", "y"], **WHO)["code"].to_list() == ["P-0000000001", "P-0000000002"]


@pytest.mark.parametrize("wrong", [["a", ""], ["a", None], ["  "]])
def test_an_empty_id_is_an_error(store: LinkageStore, wrong: list[str]) -> None:
    with pytest.raises(InputError, match="1 ids of kind patient are empty"):
        store.issue("patient", wrong, **WHO)


def test_no_ids_give_no_codes(store: LinkageStore) -> None:
    assert store.issue("exam", [], **WHO).height == 0


# --- looking up


def test_a_lookup_needs_the_custodian_and_is_logged(store: LinkageStore) -> None:
    code = store.issue("patient", IDS[7:8], **WHO)["code"][0]
    found = store.lookup([code], **ASK)
    assert found.rows() == [("patient", code, IDS[7])]
    last = json.loads(store.log.path.read_bytes().splitlines()[-1])
    assert last["action"] == "lookup" and last["records"] == [code] and last["purpose"] == "incidental finding"
    with pytest.raises(ConfigError, match="only the custodian"):
        store.lookup([code], custodian="somebody", actor="x", purpose="y")
    assert json.loads(store.log.path.read_bytes().splitlines()[-1])["action"] == "lookup refused"
    for missing in ("actor", "purpose"):
        with pytest.raises(ConfigError, match=missing):
            store.lookup([code], **{**ASK, missing: ""})
    assert store.problems() == []
    assert not any(original.encode() in store.log.path.read_bytes() for original in IDS)


def test_unknown_codes_are_counted_not_shown(store: LinkageStore) -> None:
    with pytest.raises(InputError, match="1 of 1 codes") as refused:
        store.lookup([IDS[0]], **ASK)
    assert IDS[0] not in str(refused.value)


def test_what_is_forgotten_is_gone(store: LinkageStore) -> None:
    code = store.issue("patient", IDS[:1], **WHO)["code"][0]
    assert store.forget([code, code], **ASK) == 1
    with pytest.raises(InputError):
        store.lookup([code], **ASK)
    assert store.issue("patient", IDS[:1], **WHO)["code"][0] != code
    assert store.problems() == []


# --- encryption


def test_the_disk_holds_no_id_and_no_code_in_clear(store: LinkageStore) -> None:
    content = bytes_of(store.folder)
    assert not any(original.encode() in content for original in IDS)
    assert not any(code.encode() in content for code in store.issue("patient", IDS, **WHO)["code"])
    if os.name == "posix":
        assert store.folder.stat().st_mode & 0o077 == 0
        secret = [path for path in store.folder.rglob("*") if path.suffix != ".head"]
        assert all(path.stat().st_mode & 0o077 == 0 for path in secret)


def test_a_wrong_key_fails_loudly(store: LinkageStore, tmp_path: Path) -> None:
    other = make_key_file(tmp_path / "keys" / "other.key")
    with pytest.raises(ConfigError, match="wrong key"):
        LinkageStore.open(store.folder, key_source=other, workspace=None)
    with pytest.raises(ConfigError, match="not with a passphrase"):
        LinkageStore.open(store.folder, key_source=Passphrase(ask=lambda: "x" * 20), workspace=None)


@pytest.mark.parametrize("name", ["linkage.key", "codes.bin"])
def test_an_altered_byte_is_found(store: LinkageStore, key: KeyFile, name: str) -> None:
    path = store.folder / name
    whole = path.read_bytes()
    for at in {0, 9, 13, 40, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ConfigError, match="altered"):
            LinkageStore.open(store.folder, key_source=key, workspace=None).counts()
    path.write_bytes(whole[:-20])
    with pytest.raises(ConfigError, match="altered"):
        LinkageStore.open(store.folder, key_source=key, workspace=None).counts()


def test_an_altered_custodian_is_found(store: LinkageStore, key: KeyFile) -> None:
    path = store.folder / "linkage.key"
    path.write_bytes(path.read_bytes().replace(b"the custodian", b"the intruders"))
    with pytest.raises(ConfigError, match="altered"):
        LinkageStore.open(store.folder, key_source=key, workspace=None)


def test_an_older_copy_put_back_is_found(store: LinkageStore) -> None:
    path = store.folder / "codes.bin"
    older = path.read_bytes()
    store.issue("patient", ["new"], **WHO)
    assert store.problems() == []
    path.write_bytes(older)
    assert any("older copy" in problem for problem in store.problems())


ORDINARY: list[tuple[str, Callable[[LinkageStore], object]]] = [
    ("lookup", lambda store: store.codes_of("patient", IDS, **WHO)),
    ("issue", lambda store: store.issue("exam", IDS, **WHO)),
    ("put", lambda store: store.put("shipped", pl.DataFrame({"code": ["P-000002"]}), **WHO)),
]


@pytest.fixture
def kept(store: LinkageStore, tmp_path: Path) -> Path:
    """A copy of the store with a table, before whatever else happens to it."""
    store.put("shipped", pl.DataFrame({"code": ["P-000001"]}), **WHO)
    shutil.copytree(store.folder, tmp_path / "kept")
    return tmp_path / "kept"


def opened(folder: Path, key: KeyFile) -> LinkageStore:
    return LinkageStore.open(folder, key_source=key, workspace=None)


def give_back(kept: Path, folder: Path, *names: str) -> None:
    for name in names:
        shutil.copy(kept / name, folder / name)


LOG = ("audit.jsonl", "audit.jsonl.head")


def test_log_and_head_deleted_together_are_found(store: LinkageStore, key: KeyFile) -> None:
    for name in LOG:
        (store.folder / name).unlink()
    assert store.problems()
    again = opened(store.folder, key)
    for _, use in ORDINARY:
        with pytest.raises(ConfigError, match="ends at line 0, and the store remembers line 2"):
            use(again)
    assert not (store.folder / "audit.jsonl").exists(), "no new log is begun"
    (store.folder / "state.bin").unlink()
    with pytest.raises(ConfigError, match=r"state.bin: is gone"):
        opened(store.folder, key)
    assert any("state.bin: is gone" in problem for problem in store.problems())


@pytest.mark.parametrize(("_word", "use"), ORDINARY)
@pytest.mark.parametrize("names", [LOG, ("state.bin",), ("audit.jsonl",), ("audit.jsonl.head",)])
def test_an_older_log_or_state_put_back_is_found(
    store: LinkageStore, kept: Path, key: KeyFile, names: tuple[str, ...], _word: str, use: Callable[..., object]
) -> None:
    use(store)
    give_back(kept, store.folder, *names)
    assert store.problems()
    with pytest.raises(ConfigError, match=r"remembers line|does not fit its head|older copy"):
        opened(store.folder, key).issue("patient", ["new"], **WHO)


def test_older_and_missing_tables_are_found(store: LinkageStore, kept: Path, key: KeyFile) -> None:
    store.add("shipped", pl.DataFrame({"code": ["P-000002"]}), **WHO)
    path = store.folder / "tables" / "shipped.bin"
    newest = path.read_bytes()
    give_back(kept, store.folder, "tables/shipped.bin")
    for said, refused in (("older copy", "older copy"), ("is gone", "is gone")):
        assert [problem for problem in store.problems() if "tables/shipped.bin: is" in problem and said in problem]
        again = opened(store.folder, key)
        assert again.tables() == ["shipped"]
        with pytest.raises(ConfigError, match=refused):
            again.get("shipped", **WHO)
        with pytest.raises(ConfigError, match=refused):
            again.add("shipped", pl.DataFrame({"code": ["P-000003"]}), **WHO)
        path.unlink(missing_ok=True)
    path.write_bytes(newest)
    assert store.problems() == [] and store.get("shipped", **WHO).height == 2
    (store.folder / "tables" / "other.bin").write_bytes(newest)
    assert any("other.bin: was not written by this store" in problem for problem in store.problems())


def test_older_codes_are_not_read(store: LinkageStore, kept: Path, key: KeyFile) -> None:
    store.issue("patient", ["new"], **WHO)
    give_back(kept, store.folder, "codes.bin")
    again = opened(store.folder, key)
    for use in (
        again.counts,
        lambda: again.issue("patient", ["new"], **WHO),
        lambda: again.lookup(["P-000001"], **ASK),
    ):
        with pytest.raises(ConfigError, match="older copy"):
            use()


def test_an_older_key_put_back_is_found(store: LinkageStore, kept: Path, key: KeyFile, tmp_path: Path) -> None:
    new = make_key_file(tmp_path / "keys" / "new.key")
    store.change_key(new, **ASK)
    assert opened(store.folder, new).problems() == []
    give_back(kept, store.folder, "linkage.key")
    with pytest.raises(ConfigError, match=r"linkage.key: is not what this store wrote last"):
        opened(store.folder, key)
    assert any("linkage.key: is not what was written last" in problem for problem in store.problems())


def test_a_whole_folder_put_back_is_told_by_a_copy_of_the_head_alone(
    store: LinkageStore, kept: Path, key: KeyFile
) -> None:
    store.lookup(store.issue("patient", IDS[:1], **WHO)["code"], **ASK)
    head = store.log.head()
    older = opened(kept, key)
    assert older.problems() == []
    assert any("copy of the head" in problem for problem in verify(older.log.path, head=head))


def test_every_mixture_of_two_states_is_found(store: LinkageStore, kept: Path, key: KeyFile, tmp_path: Path) -> None:
    for _, use in ORDINARY:
        use(store)
    names = ["codes.bin", "state.bin", "tables/shipped.bin", *LOG]
    for size in range(1, len(names)):
        for some in itertools.combinations(names, size):
            mixed = tmp_path / "mixed"
            shutil.copytree(store.folder, mixed)
            give_back(kept, mixed, *some)
            assert opened(mixed, key).problems(), some
            shutil.rmtree(mixed)


USES: list[tuple[str, Callable[[LinkageStore, Path], object]]] = [
    *((word, lambda store, _, use=use: use(store)) for word, use in ORDINARY),
    ("first put", lambda store, _: store.put("offsets", pl.DataFrame({"a": [1]}), **WHO)),
    ("forget", lambda store, _: store.forget(store.issue("patient", IDS[:1], **WHO)["code"], **ASK)),
    ("change_key", lambda store, keys: store.change_key(make_key_file(keys / "new.key"), **ASK)),
]


def opens(folder: Path, keys: Path) -> KeyFile:
    """The key that opens a store: after the change of the key the new one."""
    for path in sorted(keys.iterdir()):
        with contextlib.suppress(ConfigError):
            opened(folder, KeyFile(path))
            return KeyFile(path)
    raise AssertionError("no key opens the store")


@pytest.mark.parametrize("hard_links", [True, False])
@pytest.mark.parametrize(("_word", "use"), USES)
def test_a_program_killed_at_any_write_leaves_an_honest_store(
    store: LinkageStore, kept: Path, key: KeyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    hard_links: bool, _word: str, use: Callable[[LinkageStore, Path], object],
) -> None:  # fmt: skip
    left: list[Path] = []

    def before(real: Callable[..., Any]) -> Callable[..., Any]:
        def stopped(*given: Any, **named: Any) -> Any:
            left.append(tmp_path / f"left {len(left)}")
            shutil.copytree(store.folder, left[-1])  # what is there if the program is killed now
            return real(*given, **named)

        return stopped

    def no_link(*_: object) -> None:
        raise OSError(1, "not here")

    with monkeypatch.context() as patched:
        if not hard_links:
            patched.setattr(os, "link", no_link)
        for name in ("replace", "fsync", "unlink", *(["link"] if hard_links else [])):
            patched.setattr(os, name, before(getattr(os, name)))
        use(store, tmp_path / "keys")
    assert len(left) > 10
    finished = []
    for folder in left:
        source = opens(folder, tmp_path / "keys")
        again = opened(folder, source)
        assert again.problems() == [], folder.name
        again.issue("patient", [IDS[0], "another"], **WHO)
        finished.append({name: again.get(name, **WHO).height for name in again.tables()})
        assert again.problems() == [] and opened(folder, source).problems() == [], folder.name
        stopped = [line for line in entries(again.log.path) if line.action == "write stopped"]
        assert len(stopped) <= 1 and all(line.details["line"] == line.seq - 1 for line in stopped)
    assert finished[0]["shipped"] == 1 and finished[-1] == dict.fromkeys(store.tables(), 1)


def test_a_process_that_was_killed_leaves_an_honest_store(store: LinkageStore, key: KeyFile) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from reportlabel.deidentify import linkage\n"
        "def killed(path, content, real=linkage.write_private):\n"
        "    os.kill(os.getpid(), signal.SIGKILL) if path.name == 'codes.bin' else real(path, content)\n"
        "linkage.write_private = killed\n"
        "key = linkage.KeyFile(Path(sys.argv[2]))\n"
        "store = linkage.LinkageStore.open(Path(sys.argv[1]), key_source=key, workspace=None)\n"
        "store.issue('patient', ['new'], actor='a', purpose='b')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, store.folder, key.path], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.problems() == []
    assert store.codes_of("patient", ["new"], **WHO)["code"].to_list() == [None], "what was killed did not happen"
    last = entries(store.log.path)[-3:]
    assert [line.action for line in last] == ["issue", "write stopped", "codes_of"]
    assert last[1].details == {"line": last[0].seq, "file": "codes.bin"}
    assert store.issue("patient", ["new"], **WHO)["code"].null_count() == 0
    assert store.problems() == []


def test_a_store_of_an_earlier_format_is_refused_with_the_reason(store: LinkageStore, key: KeyFile) -> None:
    path = store.folder / "linkage.key"
    path.write_bytes(path.read_bytes().replace(b'"format": 2', b'"format": 1'))
    with pytest.raises(ConfigError, match="has format 1 of the linkage store"):
        opened(store.folder, key)


def test_files_of_two_stores_cannot_be_swapped(store: LinkageStore, tmp_path: Path, key: KeyFile) -> None:
    other = make(tmp_path / "other", key)
    (store.folder / "codes.bin").write_bytes((other.folder / "codes.bin").read_bytes())
    with pytest.raises(ConfigError, match="another store"):
        LinkageStore.open(store.folder, key_source=key, workspace=None).counts()


def test_tables_beside_the_codes(store: LinkageStore, key: KeyFile) -> None:
    table = pl.DataFrame({"report_id": ["R-000001"], "old_start": [3]})
    store.put("offsets_00", table, **WHO)
    assert store.get("offsets_00", **WHO).equals(table)
    assert b"R-000001" not in bytes_of(store.folder)
    with pytest.raises(InputError, match="no table 'offsets_01'"):
        store.get("offsets_01", **WHO)
    with pytest.raises(ConfigError, match="small letters"):
        store.put("../codes", table, **WHO)
    (store.folder / "tables" / "offsets_01.bin").write_bytes((store.folder / "tables" / "offsets_00.bin").read_bytes())
    with pytest.raises(ConfigError, match="altered"):
        store.get("offsets_01", **WHO)


def test_derived_keys_are_stable_and_differ(store: LinkageStore, tmp_path: Path, key: KeyFile) -> None:
    again = LinkageStore.open(store.folder, key_source=key, workspace=None)
    assert store.uid_key == again.uid_key and store.date_key == again.date_key
    other = make(tmp_path / "other", key)
    assert len({store.uid_key, store.date_key, other.uid_key, other.date_key}) == 4


# --- keys


def test_a_key_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = EnvironmentKey("STUDY_KEY")
    with pytest.raises(ConfigError, match="STUDY_KEY is not set"):
        make(tmp_path / "a", source)
    monkeypatch.setenv("STUDY_KEY", "not a key")
    with pytest.raises(ConfigError, match="holds no key") as refused:
        make(tmp_path / "a", source)
    assert "not a key" not in str(refused.value)
    monkeypatch.setenv("STUDY_KEY", "0f" * 32)
    make(tmp_path / "a", source).issue("patient", IDS, **WHO)
    assert LinkageStore.open(tmp_path / "a", key_source=source, workspace=None).counts()["patient"] == 50
    monkeypatch.setenv("STUDY_KEY", "1f" * 32)
    with pytest.raises(ConfigError, match="wrong key"):
        LinkageStore.open(tmp_path / "a", key_source=source, workspace=None)


def test_a_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Passphrase("STUDY_PHRASE", n=2**14)
    monkeypatch.setenv("STUDY_PHRASE", "short")
    with pytest.raises(ConfigError, match="at least 12"):
        make(tmp_path / "a", source)
    monkeypatch.setenv("STUDY_PHRASE", "正しい馬の電池とホチキスの針")
    make(tmp_path / "a", source)
    assert LinkageStore.open(tmp_path / "a", key_source=source, workspace=None).study == "study_a"
    with pytest.raises(ConfigError, match="wrong key"):
        LinkageStore.open(tmp_path / "a", key_source=Passphrase(ask=lambda: "x" * 14), workspace=None)
    with pytest.raises(ConfigError, match="power of two"):
        make(tmp_path / "b", Passphrase(ask=lambda: "x" * 14, n=2**10))


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")
def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path, key: KeyFile) -> None:
    key.path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        make(tmp_path / "a", key)


def test_a_key_file_is_never_overwritten(key: KeyFile) -> None:
    with pytest.raises(ConfigError, match="never overwritten"):
        make_key_file(key.path)


def test_another_key(store: LinkageStore, key: KeyFile, tmp_path: Path) -> None:
    new = make_key_file(tmp_path / "keys" / "new.key")
    store.change_key(new, **ASK)
    assert LinkageStore.open(store.folder, key_source=new, workspace=None).counts()["patient"] == 50
    with pytest.raises(ConfigError, match="wrong key"):
        LinkageStore.open(store.folder, key_source=key, workspace=None)


# --- places


@pytest.mark.parametrize("place", ["workspace", "workspace/in/side", "."])
@pytest.mark.parametrize("word", ["workspace", "export"])
def test_overlapping_places_are_refused(tmp_path: Path, key: KeyFile, place: str, word: str) -> None:
    other = tmp_path / "data" / "workspace"
    other.mkdir(parents=True)
    given = {"workspace": other} if word == "workspace" else {"workspace": None, "exports": [other]}
    with pytest.raises(ConfigError, match=word):
        LinkageStore.create(
            tmp_path / "data" / place,
            study="s",
            key_source=key,
            custodian="c",
            **WHO,  # type: ignore[arg-type]
            **given,
        )
    assert list(other.iterdir()) == []


def test_a_link_does_not_help(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (tmp_path / "elsewhere").symlink_to(workspace, target_is_directory=True)
    with pytest.raises(ConfigError, match="lies in the workspace"):
        refuse_overlap(tmp_path / "elsewhere" / "linkage", [("workspace", workspace)])


def test_a_store_that_was_moved_into_the_workspace_is_refused(
    store: LinkageStore, key: KeyFile, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="workspace"):
        LinkageStore.open(store.folder, key_source=key, workspace=tmp_path)
    (tmp_path / "workspace.json").write_text("{}")
    with pytest.raises(ConfigError, match="lies in the workspace"):
        LinkageStore.open(store.folder, key_source=key, workspace=None)


def test_the_key_does_not_lie_with_what_it_opens(tmp_path: Path) -> None:
    (tmp_path / "linkage").mkdir()
    inside = make_key_file(tmp_path / "linkage" / "study.key")
    with pytest.raises(ConfigError, match="keep it elsewhere"):
        make(tmp_path / "linkage", inside)


def test_another_study_is_refused(store: LinkageStore, key: KeyFile) -> None:
    with pytest.raises(ConfigError, match="another study"):
        LinkageStore.open(store.folder, key_source=key, study="study_b", workspace=None)


def test_what_is_no_store_is_refused(tmp_path: Path, key: KeyFile) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    with pytest.raises(ConfigError, match="holds something"):
        make(tmp_path / "other", key)
    with pytest.raises(ConfigError, match="is no linkage store"):
        LinkageStore.open(tmp_path / "other", key_source=key, workspace=None)


# --- the end


def test_after_destroy_nothing_can_be_linked(store: LinkageStore, key: KeyFile) -> None:
    store.put("offsets", pl.DataFrame({"a": [1]}), **WHO)
    for name in (".linkage.key.before", ".codes.bin.partial"):  # what a killed program leaves
        (store.folder / name).write_bytes((store.folder / "linkage.key").read_bytes())
    before = {path.name: path.read_bytes() for path in store.folder.rglob("*") if path.is_file()}
    codes = store.issue("patient", IDS, **WHO)["code"].to_list()
    certificate = store.destroy(**ASK)
    assert certificate.state == "done" and certificate.counts["patient"] == 50
    assert [file["name"] for file in certificate.files] == [
        "linkage.key",
        ".linkage.key.before",
        "codes.bin",
        ".codes.bin.partial",
        "state.bin",
        "tables/offsets.bin",
    ]
    for use in (
        lambda: store.lookup(codes[:1], **ASK),
        lambda: store.issue("patient", IDS, **WHO),
        lambda: store.get("offsets", **WHO),
        lambda: LinkageStore.open(store.folder, key_source=key, workspace=None),
    ):
        with pytest.raises((ConfigError, InputError)):
            use()
    left = {path.name for path in store.folder.rglob("*") if path.is_file()}
    assert left == {"audit.jsonl", "audit.jsonl.head", "audit.jsonl.lock", ".lock", "certificate.json"}
    assert verify(store.log.path) == []
    said = json.loads((store.folder / "certificate.json").read_text(encoding="utf-8"))
    assert said["actor"] == ASK["actor"] and said["purpose"] == ASK["purpose"] and said["finished_at_utc"]
    assert not any(original in json.dumps(said) for original in IDS)
    # copies of the encrypted files alone, without the wrapped data key, stay shut
    (store.folder / "certificate.json").unlink()
    (store.folder / "codes.bin").write_bytes(before["codes.bin"])
    with pytest.raises(ConfigError, match="is no linkage store"):
        LinkageStore.open(store.folder, key_source=key, workspace=None)


def test_only_the_custodian_destroys(store: LinkageStore) -> None:
    with pytest.raises(ConfigError, match="only the custodian"):
        store.destroy(custodian="somebody", actor="x", purpose="y")
    assert store.counts()["patient"] == 50


def test_a_destruction_that_was_stopped_is_finished(
    store: LinkageStore, key: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.unlink

    def stopped(path: Path, missing_ok: bool = False) -> None:
        if path.name == "codes.bin":
            raise KeyboardInterrupt
        real(path, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", stopped)
        with pytest.raises(KeyboardInterrupt):
            store.destroy(**ASK)
    assert not (store.folder / "linkage.key").exists(), "the key goes first"
    with pytest.raises(ConfigError, match="was destroyed"):
        LinkageStore.open(store.folder, key_source=key, workspace=None)
    assert not (store.folder / "codes.bin").exists()
    assert json.loads((store.folder / "certificate.json").read_text(encoding="utf-8"))["state"] == "done"


# --- at once


def test_two_programs_issue_one_code_each(store: LinkageStore, key: KeyFile, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from reportlabel.deidentify.linkage import KeyFile, LinkageStore\n"
        "store = LinkageStore.open(Path(sys.argv[1]), key_source=KeyFile(Path(sys.argv[2])), workspace=None)\n"
        "for start in range(0, 40, 4):\n"
        "    store.issue('exam', [str(n) for n in range(start, start + 8)], actor='a', purpose='b')\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, store.folder, key.path]) for _ in range(2)]
    assert [one.wait(timeout=60) for one in running] == [0, 0]
    codes = store.codes_of("exam", [str(n) for n in range(44)], **WHO)["code"]
    assert codes.null_count() == 0 and codes.n_unique() == 44
    assert store.problems() == []
