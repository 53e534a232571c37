"""How often the next edit is where it is expected, counted over histories of git repositories.

    python -m bench.calibrate_next_edit REPO... [--held-out REPO...] [--max-files N] [--write]

A commit that changes a file in several places is replayed: each place in turn is the user's edit, with those above it
made already. A candidate is right if the commit turned that very line into that very text. ``--write`` puts the
tallies into the package; with ``--held-out`` they are tested on other repositories. Repositories may be bare.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from lsp_server.next_edit import confidence as confidence_module
from lsp_server.next_edit.candidates import Candidate, find_candidates
from lsp_server.next_edit.confidence import Tally, confidence
from lsp_server.next_edit.line_change import LineChange, change_between

PATTERNS = ("*.py", "*.js", "*.ts", "*.tsx", "*.go", "*.rs", "*.java", "*.c", "*.cc", "*.cpp", "*.h")
MAX_BYTES = 120_000
MAX_HUNKS = 40
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True)
class Judged:
    """A candidate, whether the commit made that change, and its rank among those of its edit."""

    candidate: Candidate
    is_right: bool
    edit: int


def changed_files(repo: Path, max_files: int, seed: int = 0) -> Iterator[tuple[list[str], list[str]]]:
    """Old and new lines of a random sample of the files that commits modified."""
    log = ["git", "-C", str(repo), "log", "--no-merges", "--diff-filter=M", "--raw", "--no-abbrev", "--format="]
    raw = subprocess.run([*log, "--", *PATTERNS], capture_output=True, text=True, check=True).stdout
    pairs = [line.split()[2:4] for line in raw.splitlines() if line.startswith(":")]
    random.Random(seed).shuffle(pairs)
    command = ["git", "-C", str(repo), "cat-file", "--batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as git:
        assert git.stdin is not None and git.stdout is not None
        for pair in pairs[:max_files]:
            texts = []
            for blob in pair:
                git.stdin.write(f"{blob}\n".encode())
                git.stdin.flush()
                header = git.stdout.readline().split()
                texts.append(git.stdout.read(int(header[2]) + 1)[:-1] if len(header) == 3 else b"")
            if all(0 < len(text) < MAX_BYTES for text in texts):
                old, new = (text.decode(errors="replace").split("\n") for text in texts)
                yield old, new


def replay(old: list[str], new: list[str], first_edit: int) -> Iterator[Judged]:
    """Every place of a commit's file as the user's edit, and what would have been expected next."""
    hunks = [code for code in SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if code[0] != "equal"]
    if not 2 <= len(hunks) <= MAX_HUNKS:
        return
    earlier: list[LineChange] = []
    for number, (_, a1, a2, b1, b2) in enumerate(hunks):
        change = change_between(old[a1:a2], new[b1:b2])
        if change is None:
            continue
        state = [*new[:b2], *old[a2:]]
        for candidate in find_candidates(state, range(b1, b2), change, earlier):
            at = candidate.line - b2 + a2  # in the old text; places above are done already
            later = next((code for code in hunks[number + 1 :] if code[1] <= at < code[2]), None)
            is_right = later is not None and candidate.text in new[later[3] : later[4]]
            yield Judged(candidate, is_right, first_edit + number)
        earlier.append(change)


def judge(repos: Iterable[Path], max_files: int) -> list[Judged]:
    """All candidates of the sampled files."""
    judged: list[Judged] = []
    for repo in repos:
        for old, new in changed_files(repo, max_files):
            judged += replay(old, new, len(judged) * 1000)
    return judged


def tally(judged: Iterable[Judged]) -> dict[str, Tally]:
    """Counts by kind of place."""
    seen, right = Counter[str](), Counter[str]()
    for one in judged:
        seen[one.candidate.key] += 1
        right[one.candidate.key] += one.is_right
    return {key: Tally(seen[key], right[key]) for key in sorted(seen)}


def measure(judged: list[Judged], tallies: dict[str, Tally]) -> list[dict[str, float]]:
    """Precision of what would be offered (the best place of an edit) at several thresholds."""
    by_edit: defaultdict[int, list[Judged]] = defaultdict(list)
    for one in judged:
        by_edit[one.edit].append(one)
    offers = []
    for found in by_edit.values():
        best = max(found, key=lambda one: confidence(one.candidate.key, tallies))
        offers.append((confidence(best.candidate.key, tallies), best.is_right))
    return [
        {
            "threshold": threshold,
            "edits": len(offers),
            "offered": sum(value >= threshold for value, _ in offers),
            "right": sum(is_right for value, is_right in offers if value >= threshold),
        }
        for threshold in THRESHOLDS
    ]


def repo_name(repo: Path) -> str:
    """The folder that says what a repository is."""
    parts = [part for part in repo.resolve().parts if part not in {"repo", ".git"}]
    return parts[-1].replace("+", "/")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repos", nargs="+", type=Path)
    parser.add_argument("--held-out", nargs="*", type=Path, default=[])
    parser.add_argument("--max-files", type=int, default=3000, help="of each repository")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    judged = judge(arguments.repos, arguments.max_files)
    tallies = tally(judged)
    print(f"{len(judged)} places, {sum(one.is_right for one in judged)} right")
    for key, counts in sorted(tallies.items(), key=lambda item: -item[1].num_seen)[:25]:
        print(f"  {key:50} {counts.num_right:5} of {counts.num_seen:5}")
    parts = {"the same repositories": judged}
    if arguments.held_out:
        parts["held out"] = judge(arguments.held_out, arguments.max_files)
    for name, part in parts.items():
        print(name)
        for row in measure(part, tallies):
            share = row["right"] / row["offered"] if row["offered"] else 0.0
            print(f"  from {row['threshold']:.1f}: {row['offered']:5} of {row['edits']} edits, {share:.3f} right")
    if arguments.write:
        heads = {
            repo_name(repo): subprocess.run(
                ["git", "-C", str(repo), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
            ).stdout.strip()
            for repo in arguments.repos
        }
        path = Path(confidence_module.__file__).with_name("calibration.json")
        numbers = {key: [entry.num_seen, entry.num_right] for key, entry in tallies.items()}
        path.write_text(json.dumps({"repositories": heads, "tallies": numbers}, indent=1) + "\n")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
