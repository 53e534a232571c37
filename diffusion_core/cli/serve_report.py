"""What `unmask serve` would use, and what could be set: as TOML that it reads itself."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

_WIDTH = 44


def render_example(sections: Mapping[str, type]) -> str:
    """A configuration file with every setting of every table at its default, commented out."""
    lines = ["# Settings of `unmask serve --config FILE`. A flag wins over the environment, this over the file."]
    for section, cls in sections.items():
        lines += ["", f"[{section}]"]
        lines += [f"# {line}".rstrip() for line in inspect.cleandoc(cls.__doc__ or "").replace("``", "`").splitlines()]
        lines.append("")
        lines += [f"# {_assign(setting.name, setting.default)}" for setting in _settings(cls)]
    return "\n".join(lines) + "\n"


def render_settings(
    section: str, config: Any, *, flags: Mapping[str, Any], table: Mapping[str, Any], file: Path | None
) -> str:
    """One table of what is in force, each line with where it comes from; secrets are not shown."""
    lines = [f"[{section}]"]
    for setting in _settings(type(config)):
        name, variable = setting.name, f"UNMASK_{section}_{setting.name}".upper()
        value = getattr(config, name)
        if flags.get(name) is not None:
            source = "flag"
        elif variable in os.environ:
            source = variable
        else:
            source = str(file) if name in table else "default"
        shown = f"# {name} is set" if not setting.repr and value else _assign(name, value)
        lines.append(f"{shown:<{_WIDTH}}  # {source}")
    return "\n".join(lines) + "\n"


def _settings(cls: type) -> list[Field[Any]]:
    return list(fields(cls))


def _assign(name: str, value: object) -> str:
    return f"{name} = {_as_toml(value)}"


def _as_toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_as_toml, value))}]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
