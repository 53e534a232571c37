"""Which languages other than Python can be run here, and how.

Commands as in amazon-science/mxeval (``mxeval/execution.py``). A language whose tools are not installed is not run, and
the item is counted as not run: never as failed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

from diffusion_core.eval.runners import render_runner

# A virtual machine sizes itself by the computer, not by the sandbox.
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:CompressedClassSpaceSize=64m", "-XX:ReservedCodeCacheSize=64m")
_JVM_OF_TOOL = tuple(f"-J{flag}" for flag in _JVM)


@dataclass(frozen=True, slots=True)
class Toolchain:
    """``commands`` are run one after the other in the folder that holds ``file``; their first words are the tools.

    The exit codes of the first ``num_lenient`` do not count.
    """

    file: str
    commands: tuple[tuple[str, ...], ...]
    num_lenient: int = 0

    @property
    def missing(self) -> str:
        """The first tool that is not installed; empty where all are."""
        return next((command[0] for command in self.commands if not _is_own(command) and not _find(command[0])), "")

    def render_program(self, source: str) -> str:
        """The sandbox's program that compiles and runs ``source``."""
        commands = [[command[0] if _is_own(command) else _find(command[0]), *command[1:]] for command in self.commands]
        files = {self.file: source}
        return render_runner("toolchain_files", files=files, commands=commands, num_lenient=self.num_lenient)


def find_missing(language: str, source: str) -> str:
    """What the tests of ``source`` need and this machine lacks, a tool or a module; empty where nothing is missing.

    Without this, items whose tests load a library that is not there would all count as failed.
    """
    if missing := TOOLCHAINS[language].missing:
        return missing
    if language not in _MODULES:
        return ""
    pattern, probe = _MODULES[language]
    names = sorted(set(pattern.findall(source)))
    return next((name for name in names if not probe or not _runs(*(word.format(name) for word in probe))), "")


@cache
def _runs(*command: str) -> bool:
    """Whether a command ends well where the sandbox would run it: away from any project, with nothing of the user's."""
    tool = _find(command[0])
    try:
        done = subprocess.run(  # noqa: S603 - our own program that asks whether a module is there
            [tool, *command[1:]], cwd="/", env={"PATH": os.defpath}, capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


# By language: the modules that a source names, and the command that finds out whether one is there (none: it never is).
_NODE = (re.compile(r"""(?:require\(|from )\s*["']([\w@/-]+)["']"""), ("node", "-e", "require.resolve('{}')"))
_MODULES: dict[str, tuple[re.Pattern[str], tuple[str, ...]]] = {
    "javascript": _NODE,
    "typescript": _NODE,
    "perl": (re.compile(r"^use ([A-Z]\w*(?:::\w+)*)", re.MULTILINE), ("perl", "-M{}", "-e", "1")),
    "go": (re.compile(r"^\s*(?:import\s+)?(?:\w+\s+)?\"(\w+\.\w+/[^\"]+)\"", re.MULTILINE), ()),
    "csharp": (re.compile(r"^using ((?!System\b)[A-Z][\w.]*)\s*;", re.MULTILINE), ()),
}


def _is_own(command: tuple[str, ...]) -> bool:
    """Whether the command is what an earlier one has built."""
    return command[0].startswith("./")


def _find(tool: str) -> str:
    return shutil.which(tool) or ""


TOOLCHAINS = {
    "cpp": Toolchain("main.cpp", (("g++", "main.cpp", "-o", "main"), ("./main",))),
    "go": Toolchain("main.go", (("go", "run", "main.go"),)),
    "java": Toolchain("main.java", (("javac", *_JVM_OF_TOOL, "main.java"), ("java", *_JVM, "-cp", ".", "Main"))),
    "javascript": Toolchain("main.js", (("node", "main.js"),)),
    "kotlin": Toolchain(
        "main.kt",
        (
            ("kotlinc", *_JVM_OF_TOOL, "main.kt", "-include-runtime", "-d", "main.jar"),
            ("java", *_JVM, "-jar", "main.jar"),
        ),
    ),
    "perl": Toolchain("main.pl", (("perl", "main.pl"),)),
    "php": Toolchain("main.php", (("php", "main.php"),)),
    "ruby": Toolchain("main.rb", (("ruby", "main.rb"),)),
    "scala": Toolchain(
        "main.scala",
        (("scalac", *_JVM_OF_TOOL, "main.scala", "-d", "."), ("scala", *_JVM_OF_TOOL, "-cp", ".", "Main")),
    ),
    "swift": Toolchain("main.swift", (("swiftc", "main.swift", "-o", "main"), ("./main",))),
    # tsc reports type errors by its exit code and writes the program all the same; types are not what is scored.
    "typescript": Toolchain(
        "main.ts",
        (("tsc", "main.ts", "--target", "es5", "--lib", "es2016"), ("node", "main.js")),
        num_lenient=1,
    ),
    "csharp": Toolchain("main.cs", (("mcs", "main.cs", "-out:main.exe"), ("mono", "main.exe"))),
}  # fmt: skip
