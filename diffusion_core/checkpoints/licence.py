"""Licences that restrict what may be done with weights: named before anything is fetched, accepted or not. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffusion_core.checkpoints.families.family import Family
from diffusion_core.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class LicenceTerms:
    """A licence that must be accepted: its ``id``, ``text`` with what it restricts, and where it can be read."""

    id: str
    text: str
    url: str


# Shows terms to somebody and says whether they were accepted.
AskLicence = Callable[[str, LicenceTerms], bool]


def refuse_all(name: str, terms: LicenceTerms) -> bool:
    """An :data:`AskLicence` where there is nobody to ask."""
    return False


def terms_of(family: Family) -> LicenceTerms | None:
    """What must be accepted before a checkpoint of that family is used; None: nothing."""
    if not family.licence_must_be_accepted:
        return None
    return LicenceTerms(id=family.licence.split(" ", 1)[0], text=family.licence, url=family.licence_url)


def require_acceptance(name: str, family: Family, given: str, ask: AskLicence) -> str:
    """The licence's id once it is accepted: by ``given``, which names it, or by whoever ``ask`` asks; "" without one.

    Raises:
        CheckpointError: not accepted, or ``given`` names another licence.
    """
    terms = terms_of(family)
    if terms is None:
        if given and given.lower() != family.licence.split(" ", 1)[0].lower():
            raise CheckpointError(f"the licence of {name} is {family.licence}, not {given}")
        return ""
    if given:
        if given.lower() != terms.id.lower():
            raise CheckpointError(f"the licence of {name} is {terms.text}, not {given}: --accept-licence {terms.id}")
        return terms.id
    if not ask(name, terms):
        raise CheckpointError(
            f"the licence of {name} was not accepted: {terms.text}. Read {terms.url}; if you accept it, run "
            f"`unmask pull {name} --accept-licence {terms.id}`"
        )
    return terms.id
