"""From proposals to examples: verified, selected, worded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Generic

from train.data.examples import EditExample, ExampleKind, Origin
from train.data.instructions import join_instructions, word_instruction
from train.data.synthetic.patches import Patch, Span, apply_patches, are_compatible, hull
from train.data.synthetic.proposal import Proposal, Rewrite, Source
from train.data.synthetic.python_source import PythonSource
from train.data.synthetic.regions import Region, choose_selection
from train.data.synthetic.selection import find_regions
from train.data.synthetic.tree_source import TreeSource
from train.data.synthetic.verify import is_sound

MAX_SELECTION_CHARACTERS = 2_400
MAX_INSTRUCTION_CHARACTERS = 600
PAIR_SHARE = 0.12
NUM_SECONDS_TRIED = 6
EXCERPT_SHARE = 0.45
PROPOSALS_TRIED = 4

Named = tuple[str, Proposal]


@dataclass(frozen=True)
class EditMaker(Generic[Source]):
    """Makes edits of one file.

    Args:
        file: the parsed file.
        excerpts: small programs cut from it, each a file of its own.
        rewrites: the kinds to choose from.
        origin: of the file.
    """

    file: Source
    excerpts: Sequence[Source]
    rewrites: Sequence[Rewrite[Source]]
    origin: Origin

    def make(self, generator: Random, limit: int) -> list[EditExample]:
        """At most ``limit`` edits, each of another kind; rare kinds are tried first."""
        examples: list[EditExample] = []
        for rewrite in order_by_weight(self.rewrites, generator):
            if len(examples) >= limit:
                break
            example = self._first_sound(rewrite, generator)
            if example is not None:
                examples.append(example)
        return examples

    def _first_sound(self, rewrite: Rewrite[Source], generator: Random) -> EditExample | None:
        """An example of that rewrite, from the file or from one of its excerpts."""
        sources: list[Source] = [self.file, *self.excerpts]
        if self.excerpts and generator.random() < EXCERPT_SHARE:
            sources = [*generator.sample(self.excerpts, len(self.excerpts)), self.file]
        for source in sources:
            is_excerpt = source is not self.file
            for proposal in islice(rewrite.propose(source, generator), PROPOSALS_TRIED):
                named = [(rewrite.name, proposal)]
                if generator.random() < PAIR_SHARE:
                    pair = named + self._second(source, named[0], generator)
                    example = build_example(source, pair, self.origin, generator, is_excerpt=is_excerpt)
                    if example is not None:
                        return example
                example = build_example(source, named, self.origin, generator, is_excerpt=is_excerpt)
                if example is not None:
                    return example
        return None

    def _second(self, source: Source, first: Named, generator: Random) -> list[Named]:
        """Another rewrite near the first one, for an instruction that asks for both; a list of one or none."""
        regions = _regions(source, hull(first[1].patches), generator)
        near = next(
            (
                part.span
                for part in reversed(regions)
                if part.kind != "lines" and len(part.span) <= MAX_SELECTION_CHARACTERS
            ),
            None,
        )
        if near is None:
            return []
        for other in generator.sample(self.rewrites, min(NUM_SECONDS_TRIED, len(self.rewrites))):
            if other.name == first[0]:
                continue
            for second in islice(other.propose(source, generator), PROPOSALS_TRIED):
                patches = [*first[1].patches, *second.patches]
                is_near = near.contains(hull(second.patches)) and are_compatible(patches)
                if is_near and not second.changes_comments_only:
                    return [(other.name, second)]
        return []


def build_example(
    source: PythonSource | TreeSource,
    named: Sequence[Named],
    origin: Origin,
    generator: Random,
    *,
    is_excerpt: bool = False,
) -> EditExample | None:
    """The example of one or two proposals to a file; None where it is not sound or nothing can be selected.

    What restored proposals change, the user starts with; what the others change is the answer.
    """
    proposals = [proposal for _, proposal in named]
    backward = [patch for proposal in proposals if proposal.is_restored for patch in proposal.patches]
    forward = [patch for proposal in proposals if not proposal.is_restored for patch in proposal.patches]
    if not are_compatible([*backward, *forward]):
        return None
    changed = hull([*backward, *forward])
    needs_file = any(proposal.needs_file for proposal in proposals)
    regions = [part for part in _regions(source, changed, generator) if part.kind == "file" or not needs_file]

    def fits(span: Span) -> bool:
        sizes = [_size_after(span, side) for side in (backward, forward)]
        is_seen = bool(source.text[span.start : span.end].strip())
        return span.contains(changed) and is_seen and min(sizes) > 0 and max(sizes) <= MAX_SELECTION_CHARACTERS

    selection = choose_selection(regions, fits, generator, prefers_file=is_excerpt)
    if selection is None:
        return None
    before, after = apply_patches(source.text, backward), apply_patches(source.text, forward)
    if not is_sound(source, before, after, proposals, changed):
        return None
    start = selection.start
    ends = [start + _size_after(selection, side) for side in (backward, forward)]
    assert before[:start] == after[:start], "an edit reaches out of its selection"
    assert before[ends[0] :] == after[ends[1] :], "an edit reaches out of its selection"
    instruction = _word(proposals, generator)
    if len(instruction) > MAX_INSTRUCTION_CHARACTERS or not before[start : ends[0]].strip():
        return None
    return EditExample(
        kind=ExampleKind.EDIT_SYNTHETIC,
        before=before,
        start=start,
        end=ends[0],
        edited=after[start : ends[1]],
        instruction=instruction,
        rewrite="+".join(name for name, _ in named),
        origin=origin,
    )


def order_by_weight(rewrites: Sequence[Rewrite[Source]], generator: Random) -> list[Rewrite[Source]]:
    """A random order in which a rewrite of weight 2 comes first twice as often as one of weight 1."""
    return sorted(rewrites, key=lambda rewrite: -(generator.random() ** (1 / rewrite.weight)))


def _regions(source: PythonSource | TreeSource, changed: Span, generator: Random) -> list[Region]:
    if isinstance(source, PythonSource):
        return find_regions(source, changed, generator)
    return source.find_regions(changed, generator)


def _size_after(span: Span, patches: Sequence[Patch]) -> int:
    return len(span) + sum(patch.growth for patch in patches)


def _word(proposals: Sequence[Proposal], generator: Random) -> str:
    sentences = [word_instruction(proposal.wordings, proposal.slots, generator) for proposal in proposals]
    return sentences[0] if len(sentences) == 1 else join_instructions(sentences[0], sentences[1], generator)
