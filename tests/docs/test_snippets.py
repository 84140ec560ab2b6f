"""Every shell command and Python snippet of README.md and docs/ runs, and what it is said to print is what it prints.

A Markdown file is run from top to bottom in one folder with small sample files, so that a snippet can use what an
earlier one wrote. Comments directly above a block, visible in the source, say what is not the usual:

    <!-- not run: REASON -->     the block is not run
    <!-- exit code: N -->        the block ends with this code instead of 0
    <!-- output -->              this text block is the standard output of the block before; a line … is any lines

In Python the output stands in the block itself, as ``# Out:`` comments.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = ("bash", "python")
SHOWN = ("text", "yaml", "csv", "json")

REPORTS = """\
report_id,text
r1,"右上葉S2に24×18mmの結節を認め、肺癌を疑います。胸水は認めません。"
r2,"肺野に異常を認めません。胆石を認めます。"
r3,"左下葉の無気肺は前回と著変ありません。"
r4,"【所見】
右肺上葉の胸膜直下に辺縁がやや不整で境界の明瞭な⻑径１２㎜大の結
節を認めます。
胸水なし"
"""
GOLD = """\
report_id,finding,status
r1,nodule_or_mass,present
r1,lung_cancer,uncertain
r1,pleural_effusion,absent
r2,gallstone,present
r3,atelectasis,present
r4,nodule_or_mass,present
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text without indentation, the line it begins on, the comments above it."""

    language: str
    text: str
    line: int
    marks: tuple[str, ...]

    def mark(self, name: str) -> str | None:
        """What stands behind ``name`` in the comments above; ``""`` where there is nothing behind it."""
        for mark in self.marks:
            key, _, value = mark.partition(":")
            if key.strip() == name:
                return value.strip()
        return None


_FENCE = re.compile(
    r"(?P<marks>(?:^[ ]*<!--[^\n]*?-->[ ]*\n)*)^(?P<indent>[ ]*)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^[ ]*```[ ]*$",
    re.MULTILINE | re.DOTALL,
)


def blocks(markdown: str) -> list[Block]:
    """The fenced blocks of a Markdown text, in order."""
    return [
        Block(
            language=match["language"],
            text=textwrap.dedent(match["text"]),
            line=markdown.count("\n", 0, match.start("language")) + 1,
            marks=tuple(re.findall(r"<!--\s*(.*?)\s*-->", match["marks"])),
        )
        for match in _FENCE.finditer(markdown)
    ]


def run_document(markdown: str, folder: Path, *, name: str) -> int:
    """Run a document in a folder; returns how many blocks ran. Raises AssertionError naming document and line."""
    for file, content in (("reports.csv", REPORTS), ("gold.csv", GOLD), ("REPORTS.csv", REPORTS), ("GOLD.csv", GOLD)):
        (folder / file).write_text(content, encoding="utf-8")
    ran = 0
    printed: str | None = None
    for block in blocks(markdown):
        where = f"{name}:{block.line}"
        assert block.language in RUN + SHOWN, f"{where}: a block says what it is: one of {', '.join(RUN + SHOWN)}"
        if block.mark("output") is not None:
            assert printed is not None, f"{where}: there is no command that this could be the output of"
            assert_output(printed, block.text, where=where)
            continue
        printed = None
        if block.language not in RUN:
            continue
        reason = block.mark("not run")
        if reason is not None:
            assert len(reason) > 5, f"{where}: say why the block is not run"
            continue
        printed = run_block(block, folder, where=where)
        ran += 1
    return ran


def run_block(block: Block, folder: Path, *, where: str) -> str:
    """The standard output of a block."""
    if block.language == "python":
        command = [sys.executable, "-c", block.text]
    else:
        command = ["bash", "-euo", "pipefail", "-c", block.text]
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        cwd=folder,
        env=environment(folder),
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=240,
    )
    wanted = int(block.mark("exit code") or 0)
    # a block may end with an error that the reader is told of, never with one of its own: it would hide what is shown
    assert "Traceback (most recent call last)" not in done.stderr or not wanted, f"{where}: {done.stderr[-3000:]}"
    assert done.returncode == wanted, f"{where}: exit code {done.returncode}, not {wanted}\n{done.stderr[-3000:]}"
    if block.language == "python":
        said = re.findall(r"^# Out: ?(.*)$", block.text, re.MULTILINE)
        if said:
            assert_output(done.stdout, "\n".join(said), where=where)
    return done.stdout


def environment(folder: Path) -> dict[str, str]:
    """The environment of a user who has installed the command."""
    commands = Path(sys.executable).parent
    if not (commands / "reportlabel").exists():
        # a checkout on the path, not installed
        commands = folder / ".commands"
        commands.mkdir(exist_ok=True)
        command = commands / "reportlabel"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reportlabel "$@"\n')
        command.chmod(0o755)
    path = os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]])
    plain = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "PYTEST_CURRENT_TEST")}
    return plain | {"PATH": path, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONUTF8": "1"}


def assert_output(printed: str, said: str, *, where: str) -> None:
    """What was printed is what is said; a line of … stands for any lines."""
    pattern = "\n".join(
        r"(?:.*\n)*?.*" if line.strip() == "…" else re.escape(line.rstrip()) for line in said.strip("\n").split("\n")
    )
    lines = "\n".join(line.rstrip() for line in printed.strip("\n").split("\n"))
    assert re.fullmatch(pattern, lines), f"{where}: it prints\n{lines}\nand not\n{said}"


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_snippets_of(document: Path, tmp_path: Path) -> None:
    markdown = document.read_text(encoding="utf-8")
    ran = run_document(markdown, tmp_path, name=document.name)
    to_run = [block for block in blocks(markdown) if block.language in RUN]
    assert ran or all(block.mark("not run") for block in to_run)


# --- the tester tested


@pytest.mark.parametrize(
    ("markdown", "told"),
    [
        ("```python\nprint(1 + 1)\n# Out: 3\n```\n", "doc:1: it prints\n2\nand not\n3"),
        ("```python\nprint(1)\nprint(2)\n# Out: 1\n```\n", "it prints"),
        ("```bash\necho two\n```\n\n<!-- output -->\n```text\nthree\n```\n", "doc:6: it prints\ntwo"),
        ("```bash\nreportlabel no-such-command\n```\n", "exit code 2"),
        ("```bash\nfalse | true\n```\n", "exit code 1"),
        ("<!-- exit code: 1 -->\n```bash\ntrue\n```\n", "exit code 0, not 1"),
        ("<!-- exit code: 1 -->\n```bash\npython -c '1 / 0'\n```\n", "ZeroDivisionError"),
        ("```python\nraise SystemExit('broken')\n```\n", "broken"),
        ("<!-- not run: -->\n```bash\ntrue\n```\n", "say why"),
        ("```\nreportlabel label\n```\n", "says what it is"),
        ("```console\n$ reportlabel\n```\n", "says what it is"),
        ("<!-- output -->\n```text\nno command\n```\n", "there is no command"),
        ("- a list\n\n  ```bash\n  exit 7\n  ```\n", "exit code 7"),
    ],
)
def test_what_is_wrong_fails(markdown: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as error:
        run_document(markdown, tmp_path, name="doc")
    # pytest indents the lines of a message
    assert told in re.sub(r"\n +", "\n", str(error.value))


def test_what_is_right_passes(tmp_path: Path) -> None:
    markdown = """
```bash
echo one; echo two; echo three; head -n 1 reports.csv > header.txt
```

<!-- output -->
```text
one
…
three
```

```python
print(open("header.txt").read().strip())
# Out: report_id,text
```

<!-- not run: only for the test -->
```bash
exit 1
```
"""
    assert run_document(markdown, tmp_path, name="doc") == 2
