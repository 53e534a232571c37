"""Pull a checkpoint's file from a model hub, resuming where an earlier attempt stopped. No torch.

huggingface_hub resolves the file (``HF_ENDPOINT`` and the user's login count) and announces its size and sha256;
the bytes are fetched here, because a download of the library's starts at zero after its process was stopped.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from diffusion_core.checkpoints.atomic import require_space
from diffusion_core.checkpoints.partial_file import PartialFile
from diffusion_core.checkpoints.registry import HubSource
from diffusion_core.checkpoints.sources import Progress, SourceUnreachable
from diffusion_core.errors import CheckpointError

ATTEMPTS_WITHOUT_PROGRESS = 5
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """What the hub says of a file: where it is, how long it is, its sha256 (or "") and the commit it is from."""

    url: str
    headers: dict[str, str] = field(repr=False)
    size_bytes: int
    sha256: str
    commit: str


def pull_from_hub(source: HubSource, folder: Path, progress: Progress) -> tuple[Path, HubFile]:
    """Fetch the file of ``source`` into ``folder`` and verify it.

    Returns:
        The finished file and what the hub said of it.

    Raises:
        SourceUnreachable: the hub cannot be reached, or the connection broke too often.
        CheckpointError: no such file, no access, wrong content (the file is removed), or no space.
    """
    progress(0, 0, f"asking the hub for {source.repo}")
    remote = _resolve(source)
    # The hash in the name: what was fetched of another version of the file is never continued.
    path = folder / f"{source.file}.{remote.sha256[:16]}.partial"
    with PartialFile(path) as partial:

        def report(what: str) -> Callable[[int], None]:
            return lambda _: progress(partial.size, remote.size_bytes, what)

        partial.resume_bytes(remote.size_bytes, report("verifying what is already here"))
        require_space(folder, remote.size_bytes - partial.size)
        fetch_file(remote, partial, report(f"fetching {source.file}"))
        partial.verify(remote.sha256, f"{source.file} from {source.repo}")
    return path, remote


def _resolve(source: HubSource) -> HubFile:
    what = f"{source.file} of {source.repo}"
    with hub_errors(what):
        import huggingface_hub

        endpoint = os.environ.get("HF_ENDPOINT") or None
        url = huggingface_hub.hf_hub_url(source.repo, source.file, revision=source.revision, endpoint=endpoint)
        metadata = huggingface_hub.get_hf_file_metadata(url, endpoint=endpoint, timeout=TIMEOUT_SECONDS)
        token = huggingface_hub.get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    announced = metadata.etag or ""
    if not re.fullmatch(r"[0-9a-f]{64}", announced) or metadata.size is None:
        raise CheckpointError(f"the hub announces no size or sha256 for {what}, so it cannot be verified")
    if source.sha256 is not None and announced != source.sha256:
        raise CheckpointError(f"the hub has another {what} than expected: sha256 {announced}, not {source.sha256}")
    commit = metadata.commit_hash or source.revision
    return HubFile(url=url, headers=headers, size_bytes=metadata.size, sha256=announced, commit=commit)


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn what huggingface_hub raises while it asks for ``what`` into :class:`CheckpointError`."""
    try:
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    except ImportError:
        raise CheckpointError(
            "the hub needs the package huggingface-hub: run `pip install 'unmask[engine]'`, or choose --source index"
        ) from None
    try:
        yield
    except OfflineModeIsEnabled:
        raise SourceUnreachable("the hub is switched off by HF_HUB_OFFLINE") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise _http_error(status, what) from None
    except (OSError, LocalEntryNotFoundError) as error:
        raise SourceUnreachable(f"the hub cannot be reached: {type(error).__name__}") from None
    except Exception as error:
        # huggingface_hub's HTTP library differs between its versions: its connection errors are known by base name.
        if _is_connection_error(error):
            raise SourceUnreachable(f"the hub cannot be reached: {type(error).__name__}") from None
        raise


def _is_connection_error(error: Exception) -> bool:
    return any(base.__name__ in ("TransportError", "ConnectionError") for base in type(error).__mro__)


def _http_error(status: int, what: str) -> CheckpointError | SourceUnreachable:
    match status:
        case 404:
            return CheckpointError(f"the hub has no {what}")
        case 401 | 403:
            return CheckpointError(f"the hub refuses access to {what} (status {status}): log in with `hf auth login`")
        case _:
            return SourceUnreachable(f"the hub answers with status {status} for {what}")


def fetch_file(remote: HubFile, partial: PartialFile, on_bytes: Callable[[int], None]) -> None:
    """Append the missing bytes; a broken connection is resumed while something still comes."""
    left = ATTEMPTS_WITHOUT_PROGRESS
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT_SECONDS) as client:
        while partial.size < remote.size_bytes:
            before = partial.size
            try:
                _fetch_once(client, remote, partial, on_bytes)
                reason = "it closed the connection early"
            except httpx.TransportError as error:
                reason = type(error).__name__
            left = ATTEMPTS_WITHOUT_PROGRESS if partial.size > before else left - 1
            if left == 0:
                raise SourceUnreachable(
                    f"the connection to the hub broke {ATTEMPTS_WITHOUT_PROGRESS} times without progress ({reason}); "
                    "run the same command again to resume"
                )
            if partial.size < remote.size_bytes:
                time.sleep(min(0.2 * 2 ** (ATTEMPTS_WITHOUT_PROGRESS - left), 5.0))


def _fetch_once(client: httpx.Client, remote: HubFile, partial: PartialFile, on_bytes: Callable[[int], None]) -> None:
    headers = {**remote.headers, "Accept-Encoding": "identity"}
    if partial.size:
        headers["Range"] = f"bytes={partial.size}-"
    with client.stream("GET", remote.url, headers=headers) as response:
        if response.status_code not in (200, 206):
            error = _http_error(response.status_code, "this file")
            if response.status_code in (408, 429) or response.status_code >= 500:
                raise httpx.TransportError(str(error))  # worth another attempt
            raise error
        if response.status_code == 200 and partial.size:
            partial.restart()  # the server ignored the range and sends everything
        if response.status_code == 206:
            _check_range(response.headers.get("Content-Range", ""), partial.size)
        partial.append(_bounded(response.iter_bytes(), remote.size_bytes - partial.size), on_bytes)


def _check_range(content_range: str, start: int) -> None:
    if not re.match(rf"bytes {start}-", content_range):
        raise CheckpointError(f"the hub sent another range than asked for: {content_range[:80]!r}, not from {start}")


def _bounded(chunks: Iterator[bytes], most: int) -> Iterator[bytes]:
    for chunk in chunks:
        most -= len(chunk)
        if most < 0:
            raise CheckpointError("the hub sends more bytes than it announced")
        yield chunk
