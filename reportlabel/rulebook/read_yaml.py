"""YAML with line numbers, so that an error can name file, line and key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from reportlabel.errors import ConfigError

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Document:
    """One YAML file: its data and the line of every key and list item."""

    path: Path
    data: Any
    lines: dict[Location, int] = field(default_factory=dict)

    def line(self, location: Location) -> int:
        """The line (from 1) of the nearest enclosing key of ``location``."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def read_yaml(path: Path) -> Document:
    """Read one YAML file.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or repeats a key; names file and line.
    """
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.CSafeLoader(text)
        try:
            node = loader.get_single_node()
            lines: dict[Location, int] = {}
            data = None if node is None else _construct(loader, node, (), lines, path)
        finally:
            loader.dispose()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__}); rule files are UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line, column = _place(text, error.position)
        raise ConfigError(
            f"{path}:{line}: not valid YAML: character {column} of the line is a control character (or another that "
            "text files do not hold); delete it"
        ) from error
    except RecursionError:
        problem = f"{path}: not valid YAML: lists or keys stand too deeply in one another"
    else:
        return Document(path=path, data=data, lines=lines)
    raise ConfigError(problem)  # outside the handler: its traceback is a thousand calls


def _place(text: str, position: int) -> tuple[int, int]:
    """Line and character in it, both from 1, of a position that PyYAML counts in bytes of UTF-8."""
    before = text.encode()[:position].decode(errors="ignore")
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _construct(
    loader: yaml.CSafeLoader, node: yaml.Node, location: Location, lines: dict[Location, int], path: Path
) -> Any:
    lines[location] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            # as it is written: YAML 1.1 reads the key no as a truth value
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in mapping:
                raise ConfigError(f"{path}:{line}: key '{key}' is written twice")
            mapping[key] = _construct(loader, value_node, (*location, key), lines, path)
            lines[(*location, key)] = line
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, (*location, at), lines, path) for at, item in enumerate(node.value)]
    if node.tag == "tag:yaml.org,2002:bool" and node.value.lower() not in ("true", "false"):
        return str(node.value)  # YAML 1.1 reads the English words no, on, yes as truth values
    try:
        return loader.construct_object(node, deep=True)
    except ValueError as error:  # of a date, as 2023-02-30
        problem = str(error)
    line = node.start_mark.line + 1
    raise ConfigError(
        f"{path}:{line}: no date, time or number that there is ({problem}); correct it, or put it in quotes"
    )


def parse(document: Document, model: type[Model]) -> Model:
    """Validate a document against a model.

    Raises:
        ConfigError: one line an error, each naming file, line and key.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError("\n".join(_problems(document, error))) from error


def _problems(document: Document, error: ValidationError) -> list[str]:
    problems = []
    for problem in error.errors():
        location: Location = tuple(problem["loc"])
        # Validators put type names into the path (e.g. 'function-before[...]'); only real keys have lines.
        key = ".".join(str(part) for part in location)
        if problem["type"] == "extra_forbidden":
            message = f"unknown key '{location[-1]}'"
        else:
            message = f"{key}: {problem['msg']}"
        problems.append(f"{document.path}:{document.line(location)}: {message}")
    return problems
