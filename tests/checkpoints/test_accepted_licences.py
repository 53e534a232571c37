"""Licences that restrict use are named and accepted, also for a folder; free ones ask nobody."""

from __future__ import annotations

import pytest
from helpers.family_fixtures import fixture_folder

from diffusion_core.checkpoints.describe import describe
from diffusion_core.checkpoints.families.recognise import FAMILIES, find_family
from diffusion_core.checkpoints.licence import refuse_all, require_acceptance, terms_of
from diffusion_core.checkpoints.pull import pull
from diffusion_core.checkpoints.registry import find_entry
from diffusion_core.errors import CheckpointError


def test_a_folder_of_a_restricted_family_is_asked_for_as_well() -> None:
    with pytest.raises(CheckpointError, match="the licence of mine was not accepted"):
        pull("mine", source="path", path=fixture_folder("coda"))
    pull("mine", source="path", path=fixture_folder("coda"), ask=lambda name, terms: True)
    found = describe("mine")
    assert found.accepted_licence == "CC-BY-NC-4.0" and found.family == "coda" and found.licence_must_be_accepted


def test_a_free_licence_asks_nobody() -> None:
    pull("free", source="path", path=fixture_folder("sdar"), ask=refuse_all)
    assert describe("free").accepted_licence == ""
    with pytest.raises(CheckpointError, match="the licence of x is MIT, not GPL"):
        require_acceptance("x", find_family("sdar"), "GPL", refuse_all)
    assert require_acceptance("x", find_family("sdar"), "mit", refuse_all) == ""


def test_the_licences_that_are_known_to_restrict_use_are_marked() -> None:
    marked = {family.name: terms_of(family) for family in FAMILIES.values() if terms_of(family) is not None}
    assert {name: terms.id for name, terms in marked.items() if terms} == {
        "coda": "CC-BY-NC-4.0", "diffucoder": "apple-amlr",
    }  # fmt: skip
    for family in FAMILIES.values():
        restricts = any(word in family.licence.lower() for word in ("-nc", "research", "non-commercial", "amlr"))
        assert restricts == family.licence_must_be_accepted


def test_a_repository_is_a_name_too() -> None:
    assert find_entry("ByteDance-Seed/Stable-DiffCoder-8B-Instruct").name == "stable-diffcoder-8b"
    assert find_entry("bytedance-seed/stable-diffcoder-8b-instruct").name == "stable-diffcoder-8b"
    with pytest.raises(CheckpointError, match="unknown"):
        find_entry("nobody/nothing")
