"""Keeps what an evaluation has found so far, so that a run can be stopped anywhere and taken up again.

Beside the result file ``OUT`` lies ``OUT.partial.jsonl`` while a run is unfinished: the settings, then one line for
each fact as soon as it is known (a reference's verdict, an answer, an answer's verdict). A kill can cost the
answer that was being made, nothing else. ``OUT`` itself is written once, atomically, at the end.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, ClassVar

from diffusion_core.errors import UnmaskError


class ResultsError(UnmaskError):
    """A result file belongs to other settings, is damaged, or is being written by another run."""

    code: ClassVar[str] = "results"


Facts = dict[str, dict[str, Any]]


class ResultStore:
    """Facts by key, on disk as they come when there is a file.

    ``references`` (by the hash of the program) says how a reference ended; ``answers`` (by task id) holds the fields
    of an answer, ``verdicts`` (by task id) those that its execution added.
    """

    def __init__(self, out: Path | None, settings: Mapping[str, Any]) -> None:
        self.references: Facts = {}
        self.answers: Facts = {}
        self.verdicts: Facts = {}
        self._facts = {"references": self.references, "answers": self.answers, "verdicts": self.verdicts}
        self._out = out
        self._settings = dict(settings)
        self._stream: IO[str] | None = None

    @property
    def partial(self) -> Path | None:
        """The file of an unfinished run."""
        return self._out.with_name(self._out.name + ".partial.jsonl") if self._out else None

    def open(self, *, overwrite: bool = False) -> None:
        """Take up what earlier runs with the same settings left.

        Raises:
            ResultsError: the file holds results of other settings, is no such file, or another run is writing it.
        """
        if self._out is None or self.partial is None:
            return
        try:
            self._stream = self.partial.open("a+", encoding="utf-8", newline="\n")
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsError(f"{self._out}: another run is writing these results") from None
        except OSError as error:
            raise ResultsError(f"{self.partial}: cannot be written: {error.strerror}") from None
        if overwrite:
            self._stream.truncate(0)
        else:
            if self._out.exists():
                self._take_finished(self._out)
            self._take_partial(self.partial)
        if self.partial.stat().st_size == 0:
            self._append({"settings": self._settings})

    def _take_finished(self, out: Path) -> None:
        try:
            document = json.loads(out.read_text(encoding="utf-8"))
            settings, items, references = document["settings"], document["items"], document["references"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ResultsError(
                f"{out}: exists and holds no results of this command: choose another file or give --overwrite"
            ) from None
        self._check_settings(out, settings)
        for item in (part for whole in items for part in whole.get("tries", [whole])):
            verdict = item.pop("verdict")
            self.answers[item["task_id"]] = item
            self.verdicts[item["task_id"]] = {"passed": item.pop("passed"), **verdict}
        self.references.update(references)

    def _take_partial(self, partial: Path) -> None:
        assert self._stream is not None
        content = partial.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]
        if len(complete) != len(content):  # killed in the middle of a line
            self._stream.truncate(len(complete))
        for number, line in enumerate(complete.splitlines(), start=1):
            try:
                fact = json.loads(line)
                if number == 1:
                    self._check_settings(partial, fact["settings"])
                else:
                    self._facts[fact["about"]][fact["key"]] = fact["fields"]
            except (ValueError, KeyError, TypeError):
                raise ResultsError(f"{partial}, line {number}: is damaged; remove it or give --overwrite") from None

    def _check_settings(self, path: Path, found: Any) -> None:
        if found == self._settings:
            return
        names = sorted({*found, *self._settings}) if isinstance(found, dict) else []
        differing = [
            f"{name} was {found.get(name)!r}, is {self._settings.get(name)!r}"
            for name in names
            if found.get(name) != self._settings.get(name)
        ]
        raise ResultsError(
            f"{path}: holds results of other settings ({'; '.join(differing)}): choose another file or give --overwrite"
        )

    def check_covered(self, task_ids: set[str]) -> None:
        """Refuse to drop earlier results that are not part of this run's selection.

        Raises:
            ResultsError: there are some.
        """
        foreign = self.answers.keys() - task_ids
        if foreign:
            raise ResultsError(
                f"{self._out}: holds {len(foreign)} results outside this selection of items: "
                "choose another file or give --overwrite"
            )

    def add(self, about: str, key: str, fields: dict[str, Any]) -> None:
        """Remember a fact: ``about`` is ``references``, ``answers`` or ``verdicts``."""
        self._facts[about][key] = fields
        self._append({"about": about, "key": key, "fields": fields})

    def _append(self, fact: dict[str, Any]) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps(fact) + "\n")
            self._stream.flush()

    def finish(self, report: Mapping[str, Any]) -> None:
        """Write the result file in one step and drop the partial one."""
        if self._out is None or self.partial is None:
            return
        document = {**report, "settings": self._settings, "references": self.references}
        temporary = self._out.with_name(f".{self._out.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            temporary.replace(self._out)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ResultsError(f"{self._out}: cannot be written: {error.strerror}") from None
        self.partial.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Release the file; what was found stays on disk."""
        if self._stream is None or self.partial is None:
            return
        if self.partial.exists() and self.partial.stat().st_size == 0:
            self.partial.unlink()  # opened, and then refused
        self._stream.close()
        self._stream = None
