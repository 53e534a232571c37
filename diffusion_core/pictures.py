"""Pictures that commands write, where matplotlib is installed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from diffusion_core.errors import UnmaskError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ChartError(UnmaskError):
    """No picture can be made; the message says what to do."""

    code: ClassVar[str] = "chart"


def save_picture(figure: Figure, path: Path) -> None:
    """Write ``figure`` as a PNG file; it is whole or not there.

    Raises:
        ChartError: the file cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(suffix=".png", dir=path.parent)
        os.close(handle)
        try:
            figure.savefig(name, dpi=110)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ChartError(f"--plot {path}: {error.strerror}") from None
