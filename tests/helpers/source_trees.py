"""Small sources for corpus tests: Python modules, licence texts, archives, wheels and git repositories."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

MIT = """MIT License

Copyright (c) 2020 Someone

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction.
"""
BSD_2 = """Redistributions of source code must retain the above copyright notice, this list of conditions and the
following disclaimer. Redistributions in binary form must reproduce the above copyright notice."""
BSD_3 = BSD_2 + "\nNeither the name of the holder may be used to endorse or promote products derived from this."
APACHE = "Apache License\nVersion 2.0, January 2004\nhttp://www.apache.org/licenses/"
GPL = "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007"
MPL = "Mozilla Public License Version 2.0"
ISC = (
    "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby "
    "granted, provided that the above copyright notice and this permission notice appear in all copies."
)


def make_module(name: str, num_functions: int = 4) -> str:
    """A module unlike that of any other name."""
    lines = [f'"""Things about {name}."""', "", "from __future__ import annotations", "", "import math", ""]
    for number in range(num_functions):
        lines += [
            "",
            f"def {name}_area_{number}(width_{name}: float, height_{number}: float) -> float:",
            f'    """The {name} area number {number}."""',
            f"    total_{name} = width_{name} * height_{number} + {len(name) * 37 + number}",
            f"    if total_{name} > {number}:",
            f"        total_{name} = math.sqrt(total_{name}) - {number}",
            f"    return round(total_{name}, {number})",
            "",
        ]
    return "\n".join(lines)


def write_tree(folder: Path, files: Mapping[str, str]) -> Path:
    """Write text files below a folder."""
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder


def write_sdist(
    path: Path, name: str, files: Mapping[str, str], *, licence: str = MIT, expression: str = "MIT"
) -> Path:
    """A source distribution, with a link and a path that would leave its folder when unpacked."""
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\nLicense-Expression: {expression}\n\n"
    members = {**{f"{name}-1.0/{p}": text for p, text in files.items()}, f"{name}-1.0/PKG-INFO": metadata}
    members |= {f"{name}-1.0/LICENSE": licence, f"{name}-1.0/../../escaped.py": make_module("escaped")}
    with tarfile.open(path, "w:gz") as archive:
        for member, text in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
        link = tarfile.TarInfo(f"{name}-1.0/link.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def write_wheel(folder: Path, name: str, files: Mapping[str, str], *, licence: str = MIT) -> Path:
    """A pure Python wheel that pip accepts."""
    info = f"{name}-1.0.dist-info"
    members = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nLicense: MIT\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/licenses/LICENSE": licence,
    }
    members[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*members, f"{info}/RECORD"])
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
    return path


def make_repository(folder: Path, files: Mapping[str, str], *, licence: str = MIT) -> Path:
    """A git repository with one commit."""
    write_tree(folder, {**files, "LICENSE": licence})
    identity = {"NAME": "Someone", "EMAIL": "someone@example.org", "DATE": "2024-01-01T00:00:00Z"}
    extra = {f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in identity.items()}
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "First"]):
        subprocess.run(
            ["git", "-C", str(folder), *arguments], check=True, env={**os.environ, **extra}, capture_output=True
        )
    return folder
