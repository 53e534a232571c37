"""What can be wrong with sources and corpora."""

from __future__ import annotations

from typing import ClassVar

from diffusion_core.errors import UnmaskError


class CorpusError(UnmaskError):
    """A source or a corpus cannot be used; the message names it and says what to change."""

    code: ClassVar[str] = "corpus"


class LicenceRefused(CorpusError):
    """A source stands under a licence that is not on the list, or its licence cannot be told."""

    code: ClassVar[str] = "licence_refused"
