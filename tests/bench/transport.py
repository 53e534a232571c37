"""Files for a machine that nothing can be fetched from, in pieces: cut here, joined and checked there.

    python -m bench.transport cut ROOT NAME [NAME ...] --to out/pieces --piece-mib 24
    python -m bench.transport join FOLDER [FOLDER ...] --to ROOT

``cut`` takes files and folders below ROOT and writes ``out/pieces/000``, ``001``, ..., each a folder to be carried over
in one go. ``join`` finds the pieces in the folders given, in any order, writes every file below ROOT and compares its
SHA-256; it says which pieces are still missing, and nothing is written before all are there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
INDEX = "index.json"  # travels in every piece's folder


def files_below(root: Path, names: Sequence[str]) -> Iterator[Path]:
    """All files that ``names`` stand for, in a fixed order."""
    for name in names:
        path = root / name
        if not path.exists():
            raise SystemExit(f"{path} does not exist")
        yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def cut(root: Path, names: Sequence[str], target: Path, piece_bytes: int) -> int:
    """Write the pieces; their number."""
    index: list[dict[str, Any]] = []
    target.mkdir(parents=True, exist_ok=True)
    number, free, out = -1, 0, None
    for path in files_below(root, names):
        digest, parts = hashlib.sha256(), list[list[int]]()
        with path.open("rb") as file:
            while True:
                if free == 0:
                    number, free = number + 1, piece_bytes
                    if out is not None:
                        out.close()
                    folder = target / f"{number:03d}"
                    folder.mkdir(exist_ok=True)
                    out = (folder / "data").open("wb")
                assert out is not None
                block = file.read(min(free, MIB))
                if not block:
                    break
                if not parts or parts[-1][0] != number:
                    parts.append([number, out.tell(), 0])
                parts[-1][2] += len(block)
                out.write(block)
                digest.update(block)
                free -= len(block)
        index.append({"path": str(path.relative_to(root)), "parts": parts, "sha256": digest.hexdigest()})
    if out is not None:
        out.close()
    for folder in sorted(target.glob("[0-9]*")):
        (folder / INDEX).write_text(json.dumps({"pieces": number + 1, "files": index}), encoding="utf-8")
    return number + 1


def join(folders: Sequence[Path], root: Path) -> list[str]:
    """Write all files below ``root``; their paths."""
    found = {folder.name: folder for given in folders for folder in (given, *given.glob("[0-9]*"))}
    pieces = {int(name): folder for name, folder in found.items() if name.isdigit() and (folder / "data").is_file()}
    if not pieces:
        raise SystemExit("no piece is there: name the folders that hold 000, 001, ...")
    index = json.loads((next(iter(pieces.values())) / INDEX).read_text(encoding="utf-8"))
    if missing := [f"{n:03d}" for n in range(index["pieces"]) if n not in pieces]:
        raise SystemExit(f"pieces are missing: {', '.join(missing)}")
    for entry in index["files"]:
        path, digest = root / entry["path"], hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            for number, start, length in entry["parts"]:
                with (pieces[number] / "data").open("rb") as data:
                    data.seek(start)
                    block = data.read(length)
                digest.update(block)
                out.write(block)
        if digest.hexdigest() != entry["sha256"]:
            raise SystemExit(f"{path} came over damaged: its SHA-256 is not the one it had")
    return [entry["path"] for entry in index["files"]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Cut or join."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cutting = commands.add_parser("cut")
    cutting.add_argument("root", type=Path)
    cutting.add_argument("names", nargs="+")
    cutting.add_argument("--to", type=Path, required=True)
    cutting.add_argument("--piece-mib", type=float, default=24)
    joining = commands.add_parser("join")
    joining.add_argument("folders", nargs="+", type=Path)
    joining.add_argument("--to", type=Path, required=True)
    args = parser.parse_args(arguments)
    if args.command == "cut":
        print(f"{cut(args.root, args.names, args.to, max(1, int(args.piece_mib * MIB)))} pieces in {args.to}")
    else:
        print("\n".join(join(args.folders, args.to)), file=sys.stderr)


if __name__ == "__main__":
    main()
