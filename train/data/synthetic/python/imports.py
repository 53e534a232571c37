"""Put imports in order: sort them, add the one that is missing, remove one that is not used."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_SORT_WORDINGS = (
    "Sort the imports",
    "sort imports",
    "Put the imports in alphabetical order",
    "Order the import statements alphabetically",
    "Apply isort to the imports",
    "The imports are not sorted",
    "Tidy up the order of the imports",
    "Sort the import block at the top of the file",
    "Sort imports within their groups",
)
_MISSING_WORDINGS = (
    "Add the missing import of {name}",
    "Import {name}",
    "NameError: name {name_text} is not defined",
    "{name} is not imported",
    "Fix the missing import",
    "add import for {name}",
    "Fix the NameError: {name} is used but never imported",
    "{name} is undefined, import it from {module}",
    "Add {line}",
)
_UNUSED_WORDINGS = (
    "Remove the unused import {name}",
    "Remove unused imports",
    "{name} is imported but not used",
    "drop the import of {name}",
    "Clean up the imports",
    "Delete imports that are not needed",
    "F401: {name_text} imported but unused",
    "The import of {name} is left over, remove it",
    "Get rid of the unused import",
)
_SPARE_MODULES = (
    "os",
    "sys",
    "re",
    "json",
    "time",
    "math",
    "random",
    "logging",
    "itertools",
    "functools",
    "collections",
    "datetime",
    "copy",
    "shutil",
)


def propose_sort(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Runs of at least three sorted imports, shown in another order."""
    runs = [run for run in _runs(source) if len(run) >= 3 and source.functions]
    generator.shuffle(runs)
    for run in runs:
        lines = [source.text[source.lines(node).start : source.lines(node).end] for node in run]
        if lines != sorted(
            lines, key=lambda line: (line.split()[0] == "from", line.split()[1].lower())
        ) and lines != sorted(lines):
            continue
        mixed = lines[:]
        generator.shuffle(mixed)
        if mixed != lines:
            span = source.block_lines([*run])
            yield Proposal(
                patches=(Patch(span.start, span.end, "".join(mixed)),), wordings=_SORT_WORDINGS, is_restored=True
            )


def propose_missing(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Imports of one name that the file uses."""
    nodes = [node for run in _runs(source) for node in run if len(node.names) == 1 and source.functions]
    generator.shuffle(nodes)
    for node in nodes:
        alias = node.names[0]
        bound = alias.asname or alias.name.split(".")[0]
        uses = [name for name in source.nodes(ast.Name) if name.id == bound]
        if not uses or (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            continue
        span = source.lines(node)
        line = source.segment(node)
        module = ("." * node.level + (node.module or "")) if isinstance(node, ast.ImportFrom) else alias.name
        wordings = _MISSING_WORDINGS if isinstance(node, ast.ImportFrom) and alias.asname is None else tuple(
            wording for wording in _MISSING_WORDINGS if "{module}" not in wording
        )  # fmt: skip
        yield Proposal(
            patches=(Patch(span.start, span.end, ""),),
            wordings=wordings,
            slots={"name": bound, "name_text": f"'{bound}'", "module": module, "line": line},
            is_restored=True,
        )


def propose_unused(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """A plain import of the standard library that nothing uses, put among the others."""
    runs = list(_runs(source))
    spare = [name for name in _SPARE_MODULES if name not in source.identifiers]
    if not runs or not spare or not source.functions:
        return
    run = runs[0] if not isinstance(runs[0][0], ast.ImportFrom) or runs[0][0].module != "__future__" else runs[-1]
    for name in generator.sample(spare, min(3, len(spare))):
        node = generator.choice(run)
        start = source.lines(node).start
        yield Proposal(
            patches=(Patch(start, start, f"import {name}\n"),),
            wordings=_UNUSED_WORDINGS,
            slots={"name": name, "name_text": f"'{name}'"},
            is_restored=True,
        )


def _runs(source: PythonSource) -> Iterator[list[ast.Import | ast.ImportFrom]]:
    """Imports of the module that stand on consecutive lines of their own."""
    run: list[ast.Import | ast.ImportFrom] = []
    for node in source.tree.body:
        is_import = isinstance(node, ast.Import | ast.ImportFrom) and source.has_own_lines(node)
        if run and (not is_import or source.lines(run[-1]).end != source.lines(node).start):
            yield run
            run = []
        if isinstance(node, ast.Import | ast.ImportFrom) and is_import:
            run.append(node)
    if run:
        yield run


REWRITES = (
    Rewrite(name="sort_imports", propose=propose_sort, weight=0.25),
    Rewrite(name="missing_import", propose=propose_missing, weight=0.15),
    Rewrite(name="unused_import", propose=propose_unused, weight=0.1),
)
