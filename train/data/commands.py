"""`unmask data`: add sources to a manifest, collect them, build a corpus, show what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffusion_core.cli.output import open_console
from diffusion_core.errors import ConfigError

if TYPE_CHECKING:
    from train.data.build import BuildConfig
    from train.data.corpus import Counts
    from train.data.manifest import SourceEntry
    from train.data.sources import CollectedSource

Sources = Annotated[
    Path | None,
    typer.Option("--sources", metavar="FOLDER", file_okay=False, help="Collected sources. Default: in the cache."),
]
Clones = Annotated[
    Path | None,
    typer.Option(
        "--clones", metavar="FOLDER", file_okay=False, help="Git clones, OWNER/NAME.git. Default: in SOURCES."
    ),
]
EvalData = Annotated[
    Path | None,
    typer.Option("--eval-data", metavar="FOLDER", file_okay=False, help="Evaluation sets. Default: UNMASK_EVAL_DATA."),
]
SkipFailed = Annotated[bool, typer.Option("--skip-failed", help="Go on without sources that cannot be collected.")]


def register(app: typer.Typer) -> None:
    """Add the group ``data``."""
    group = typer.Typer(no_args_is_help=True, help="Corpora: collect sources with their licences, build, inspect.")
    for command in (add, collect, build, show):
        group.command()(command)
    app.add_typer(group, name="data")


def add(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="A package (NAME or NAME==VERSION), `stdlib`, a repository (URL or path), an archive, a folder.",
        ),
    ],
    manifest: Annotated[
        Path, typer.Option("--manifest", metavar="FILE", dir_okay=False, help="Written; made if missing.")
    ],
    licence: Annotated[
        str, typer.Option("--licence", metavar="SPDX", help="Licence of folders of your own; others state theirs.")
    ] = "",
    clones: Clones = None,
) -> None:
    """Resolve each SOURCE and write it into a manifest, with version, licence, hash and size.

    A source under a licence that is not on the list is refused; the others are still added.
    """
    from diffusion_core.config import cache_folder
    from train.data.errors import CorpusError
    from train.data.manifest import read_manifest, write_manifest
    from train.data.requested import parse_request
    from train.data.sources import resolve_source

    console = open_console()
    entries = {entry.label: entry for entry in (read_manifest(manifest) if manifest.exists() else ())}
    failed = 0
    for text in sources:
        try:
            found = resolve_source(parse_request(text, licence), clones or cache_folder() / "sources" / "clones")[0]
        except (CorpusError, ConfigError) as error:
            console.print(f"not added: {error}", style="red", markup=False)
            failed += 1
            continue
        older = [
            label for label, entry in entries.items() if (entry.kind, entry.name) == (found.kind, found.name)
        ]  # fmt: skip
        for label in older:
            del entries[label]
        entries[found.label] = found
        console.print(f"added: {found.label}, {found.licence}, {found.num_bytes / 1e6:.2f} MB", markup=False)
    if entries:
        write_manifest(manifest, tuple(entries.values()), _read_note(manifest))
    if failed:
        raise typer.Exit(1)


def _read_note(manifest: Path) -> str:
    """The comment that a manifest begins with."""
    if not manifest.exists():
        return ""
    lines: list[str] = []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


def collect(
    manifests: Annotated[list[str], typer.Argument(metavar="MANIFEST...", help="Paths, or names of our own ones.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", file_okay=False, help="Where collected files go.")],
    clones: Clones = None,
) -> None:
    """Fetch and check every source of the manifests. What is there already is kept, so it can be called again."""
    entries = _read_entries(manifests)
    found, failed = _collect(entries, out, clones)
    size = sum(source.entry.num_bytes for source in found)
    open_console().print(f"{len(found)} of {len(entries)} sources, {size / 1e6:.1f} MB, in {out}", markup=False)
    if failed:
        raise typer.Exit(1)


def build(
    targets: Annotated[
        list[str], typer.Argument(metavar="RECIPE|MANIFEST...", help="A corpus recipe, or manifests (.toml).")
    ],
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", file_okay=False, help="The corpus; replaced if there.")
    ],
    sources: Sources = None,
    clones: Clones = None,
    eval_data: EvalData = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe.")
    ] = None,
    skip_failed: SkipFailed = False,
) -> None:
    """Make a corpus: collect, drop copies and evaluation texts, cut holes, find edits; then show what it holds."""
    from diffusion_core.config import cache_folder
    from train.data.build import build_corpus
    from train.data.corpus import MANIFEST_FILE
    from train.data.corpus_recipes import change_fields
    from train.data.decontaminate import find_eval_files, index_eval_files
    from train.data.errors import CorpusError

    config, manifests = _read_targets(targets)
    config = change_fields(config, settings or ())
    if out.exists() and any(out.iterdir()) and not (out / MANIFEST_FILE).exists():
        raise ConfigError(f"--out {out} holds other files; name an empty folder or an earlier corpus")
    evaluation = index_eval_files(find_eval_files(eval_data))
    entries = _read_entries(manifests)
    found, failed = _collect(entries, sources or cache_folder() / "sources", clones)
    if failed and not skip_failed:
        raise CorpusError(
            f"{failed} of {len(entries)} sources could not be collected (see above); --skip-failed goes on"
        )
    with show_stages() as report:
        counts = build_corpus(found, evaluation, out, config, report)
    print_counts(counts)


def show(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", file_okay=False, help="A folder made by `build`.")],
) -> None:
    """Show what a corpus holds, by language, kind and licence."""
    from train.data.corpus import open_corpus, read_counts

    open_corpus(corpus)
    print_counts(read_counts(corpus))


def _read_targets(targets: Sequence[str]) -> tuple[BuildConfig, list[str]]:
    """The configuration and the manifests: those of a recipe, or the given ones with the default configuration."""
    from train.data.build import BuildConfig
    from train.data.corpus_recipes import find_recipe

    if all(target.endswith(".toml") for target in targets):
        return BuildConfig(name="+".join(Path(target).stem for target in targets)), list(targets)
    if len(targets) > 1:
        raise ConfigError("name one recipe, or manifests only (paths that end in .toml)")
    config = find_recipe(targets[0])
    return config, list(config.manifests)


def _read_entries(manifests: Sequence[str]) -> list[SourceEntry]:
    from train.data.manifest import find_manifest, read_manifest

    entries: dict[tuple[str, str], SourceEntry] = {}
    for name in manifests:
        for entry in read_manifest(find_manifest(name)):
            entries.setdefault((entry.kind.value, entry.label), entry)
    return list(entries.values())


def _collect(entries: Sequence[SourceEntry], folder: Path, clones: Path | None) -> tuple[list[CollectedSource], int]:
    """The sources that could be collected, and how many could not; each failure is printed."""
    from train.data.errors import CorpusError
    from train.data.sources import collect_all

    console = open_console()
    found: list[CollectedSource] = []
    failed = 0
    with show_stages() as report:
        for number, (entry, source) in enumerate(collect_all(entries, folder, clones or folder / "clones"), start=1):
            report("collecting", number, len(entries))
            if isinstance(source, CorpusError):
                failed += 1
                console.print(f"{entry.label}: {source}", style="red", markup=False)
            else:
                found.append(source)
    return found, failed


@contextmanager
def show_stages() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar with rate and remaining time on stderr; on a file, one line for each stage."""
    console = open_console()
    if not console.is_terminal:
        seen: set[str] = set()

        def report_line(stage: str, done: int, total: int) -> None:
            if stage not in seen:
                seen.add(stage)
                console.print(f"{stage}: {total}", markup=False)

        yield report_line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, int] = {}

        def report_bar(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = int(bar.add_task(stage, total=total))
            bar.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield report_bar


def print_counts(counts: Counts) -> None:
    """Tables by language, by kind and by licence, and what was left out."""
    from rich.table import Table

    console = open_console(stderr=False)
    for place, title in ((1, "language"), (2, "kind"), (3, "licence")):
        table = Table(title=f"by {title}", title_justify="left")
        table.add_column(title)
        for split in ("train", "held out"):
            table.add_column(f"{split}: examples", justify="right")
            table.add_column("characters to write", justify="right")
        for name in sorted({key[place] for key in counts.examples}):
            cells: list[str] = []
            for split in ("train", "held_out"):
                keys = [key for key in counts.examples if key[0] == split and key[place] == name]
                cells += [f"{sum(c[key] for key in keys):,}" for c in (counts.examples, counts.characters)]
            table.add_row(name, *cells)
        console.print(table)
    if counts.left_out:
        table = Table(title="left out", title_justify="left")
        table.add_column("reason")
        table.add_column("number", justify="right")
        for reason, number in sorted(counts.left_out.items()):
            table.add_row(reason, f"{number:,}")
        console.print(table)
