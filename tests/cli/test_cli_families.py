"""Families on the command line: named where the files do not show them, for a folder and for what is pulled."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.family_fixtures import fixture_folder
from helpers.unmask_process import Unmask

POSITION = ("--line", 1, "--character", 4)


def test_a_family_is_named_for_a_pull_and_for_a_folder(tmp_path: Path) -> None:
    unmask, folder = Unmask(tmp_path / "home"), fixture_folder("a2d-qwen3-bd3lm")
    file = tmp_path / "program.py"
    file.write_bytes(b"def f(a):\n    \n")
    ambiguous = unmask.run("pull", "mine", "--path", folder)
    assert ambiguous.code == 1 and "--family a2d-qwen3-bd3lm" in " ".join(ambiguous.err.split())
    unknown = unmask.run("pull", "mine", "--path", folder, "--family", "nothing")
    assert unknown.code == 1 and "family 'nothing' is unknown" in " ".join(unknown.err.split())
    pulled = unmask.run("pull", "mine", "--path", folder, "--family", "a2d-qwen3-bd3lm")
    assert pulled.code == 0, pulled.err
    receipt = json.loads((Path(pulled.out.decode().strip()) / "receipt.json").read_text())
    assert receipt["family"] == "a2d-qwen3-bd3lm"
    try:
        arguments = ("complete", file, *POSITION, "--max-tokens", 8, "--json")
        named = unmask.run(*arguments, "--model", folder, "--family", "a2d-qwen3-bd3lm")
        assert named.code == 0, named.err
        assert named.json["policy"] == "confidence"
        by_name = unmask.run(*arguments, "--model", "mine")
        assert by_name.code == 0, by_name.err
        assert by_name.json["text"] == named.json["text"]
        silent = unmask.run(*arguments, "--model", folder)
        assert silent.code == 1 and "--family" in silent.err
    finally:
        unmask.run("stop")
