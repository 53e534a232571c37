from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from train.data.synthetic.patches import Patch, Span, apply_patches, are_compatible, hull


@st.composite
def texts_with_patches(draw: st.DrawFn) -> tuple[str, list[Patch]]:
    text = draw(st.text(max_size=60))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8, unique=True)))
    pairs = list(zip(cuts[::2], cuts[1::2], strict=False))
    return text, [Patch(start, end, draw(st.text(max_size=5))) for start, end in pairs]


@given(texts_with_patches(), st.randoms())
def test_patches_change_their_own_characters_only(made, shuffler) -> None:
    text, patches = made
    assert are_compatible(patches)
    shuffled = patches[:]
    shuffler.shuffle(shuffled)
    result = apply_patches(text, shuffled)
    assert len(result) == len(text) + sum(patch.growth for patch in patches)
    if patches:
        changed = hull(patches)
        kept = len(text) - changed.end
        assert result[: changed.start] == text[: changed.start]
        assert result[len(result) - kept :] == text[changed.end :]


@given(texts_with_patches())
def test_patches_can_be_undone(made) -> None:
    text, patches = made
    undo, shift = [], 0
    for patch in sorted(patches):
        start = patch.start + shift
        undo.append(Patch(start, start + len(patch.text), text[patch.start : patch.end]))
        shift += patch.growth
    if are_compatible(undo):
        assert apply_patches(apply_patches(text, patches), undo) == text


def test_overlapping_patches_and_two_insertions_at_one_place_do_not_go_together() -> None:
    assert not are_compatible([Patch(0, 3, "a"), Patch(2, 4, "b")])
    assert not are_compatible([Patch(2, 2, "a"), Patch(2, 2, "b")])
    assert are_compatible([Patch(0, 2, "a"), Patch(2, 4, "b")])


def test_spans() -> None:
    assert len(Span(2, 5)) == 3
    assert Span(0, 5).contains(Span(5, 5))
    assert not Span(0, 5).overlaps(Span(5, 6))
