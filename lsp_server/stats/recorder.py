"""What the language server notes while it runs, on its event loop; a thread writes it down now and then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lsprotocol.types import Position, TextDocumentContentChangeEvent, TextDocumentContentChangePartial

from diffusion_core.requests import Timings
from lsp_server.positions import Encoding
from lsp_server.snapshot import Snapshot
from lsp_server.stats.latencies import bucket_of
from lsp_server.stats.place import Place, share_kept, whole_change
from lsp_server.stats.records import DROP, EDIT, LATENCY, Count, Fate
from lsp_server.stats.store import Store, StoreError

logger = logging.getLogger(__name__)

FLUSH_S = 10.0
SURVIVAL_S = (30.0, 300.0)
MAX_OFFERS = 256
MAX_WATCHED = 64
NUM_RECENT = 4  # alternatives are offered together
MAX_UNWRITTEN = 10_000


@dataclass
class _Offer:
    """A suggestion in an editor's hands: where it would stand, its text, and its row."""

    uri: str
    text: str
    fate: Fate
    num_taken: int = 0

    def take(self, num_chars: int) -> None:
        """So many characters of it were accepted, all in all."""
        more = max(0, min(num_chars, len(self.text)) - self.num_taken)
        self.num_taken += more
        self.fate.num_accepted += more


@dataclass(eq=False)
class _Watched:
    """An accepted text that is looked at again later."""

    uri: str
    text: str
    place: Place
    fate: Fate


class Recorder:
    """Statistics of one session. Every method returns at once; unknown ids are ignored.

    ``snapshot_of`` gives the present text of a document.
    """

    def __init__(
        self,
        store: Store,
        snapshot_of: Callable[[str], Snapshot | None],
        *,
        survival_s: tuple[float, float] = SURVIVAL_S,
        flush_s: float = FLUSH_S,
    ) -> None:
        self._store, self._snapshot_of = store, snapshot_of
        self._survival_s, self._flush_s = survival_s, flush_s
        self._is_enabled = False  # until the settings are known
        self._editor_tells_shown = False
        self._offers: OrderedDict[str, _Offer] = OrderedDict()
        self._watched: list[_Watched] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._dirty: dict[str, Fate] = {}
        self._counts: Counter[Count] = Counter()
        self._flusher: asyncio.Task[None] | None = None
        self._has_complained = False

    def set_enabled(self, enabled: bool) -> None:
        """Begin or end to record; what was not written down yet is dropped at the end."""
        self._is_enabled = enabled
        if not enabled:
            self._offers.clear()
            self._watched.clear()
            self._dirty.clear()
            self._counts.clear()

    # Suggestions

    def offered(self, suggestion_id: str, uri: str, text: str, *, language: str, model: str) -> None:
        """A suggestion was sent. What remains of the last one after typing along is the same suggestion still."""
        if not self._is_enabled or suggestion_id in self._offers:
            return
        fate = self._continued(uri, text)
        if fate is None:
            fate = Fate(
                id=suggestion_id, time=time.time(), language=language, model=model, num_chars=len(text),
                num_lines=text.count("\n") + 1, is_shown=False if self._editor_tells_shown else None,
            )  # fmt: skip
            self._touch(fate)
        self._offers[suggestion_id] = _Offer(uri, text, fate)
        while len(self._offers) > MAX_OFFERS:
            self._offers.popitem(last=False)

    def shown(self, suggestion_id: str) -> None:
        """The editor drew it."""
        self._editor_tells_shown = True
        self._mark(suggestion_id, is_shown=True)

    def dismissed(self, suggestion_id: str) -> None:
        """The user sent it away."""
        self._mark(suggestion_id, is_dismissed=True)

    def partly_accepted(self, suggestion_id: str, num_units: int) -> None:
        """The first ``num_units`` UTF-16 units of it were taken, all in all."""
        offer = self._offers.get(suggestion_id)
        if offer is not None and num_units > 0:
            units = offer.text.encode("utf-16-le", "surrogatepass")[: 2 * num_units]
            offer.take(len(units.decode("utf-16-le", "surrogatepass")))
            self._mark(suggestion_id, is_shown=True)

    def accepted(self, suggestion_id: str, start: Position, encoding: Encoding) -> None:
        """It was taken as a whole and stands at ``start`` now; it will be looked at again later."""
        offer = self._offers.get(suggestion_id)
        if offer is None or not self._is_enabled or offer.fate.is_accepted:
            return
        offer.take(len(offer.text))
        self._mark(suggestion_id, is_accepted=True, is_shown=True)
        snapshot, place = self._snapshot_of(offer.uri), Place.of(start, offer.text, encoding)
        if snapshot is None or len(self._watched) >= MAX_WATCHED:
            return
        if share_kept(offer.text, place.text_in(snapshot)) < 1.0:
            return  # it does not stand where it should (a formatter was faster): nothing could be said of it later
        watched = _Watched(offer.uri, offer.text, place, offer.fate)
        self._watched.append(watched)
        for number, seconds in enumerate(self._survival_s):
            self._later(seconds, lambda number=number: self._look_again(watched, number))  # type: ignore[misc]

    # Documents

    def watches(self, uri: str) -> bool:
        """Whether changes of a document must be told."""
        return any(watched.uri == uri for watched in self._watched)

    def changed(
        self, uri: str, changes: Sequence[TextDocumentContentChangeEvent], old: Snapshot, new: Snapshot
    ) -> None:
        """A document was changed from ``old`` to ``new``."""
        parts = [change for change in changes if isinstance(change, TextDocumentContentChangePartial)]
        if len(parts) < len(changes):
            parts = [whole_change(old, new)]
        for watched in self._watched:
            if watched.uri == uri:
                for part in parts:
                    watched.place.apply(part, new.encoding)

    def closed(self, uri: str) -> None:
        """A document was closed: what becomes of its texts is not known."""
        self._watched = [watched for watched in self._watched if watched.uri != uri]

    # Counts

    def answered(self, task: str, timings: Timings, roundtrip_ms: float) -> None:
        """The engine answered a request."""
        self.took(task, "queue", timings.queue_ms)
        self.took(task, "prefill", timings.prefill_ms)
        self.took(task, "denoise", timings.denoise_ms)
        self.took(task, "roundtrip", roundtrip_ms)

    def took(self, task: str, phase: str, milliseconds: float) -> None:
        """A phase of a request took so long."""
        self._count(LATENCY, f"{task}.{phase}", bucket_of(milliseconds))

    def dropped(self, reason: str) -> None:
        """Nothing is shown, for this reason."""
        self._count(DROP, reason)

    def edited(self, state: str) -> None:
        """An edit ended like this."""
        self._count(EDIT, state)

    async def aclose(self) -> None:
        """Write down what there is; texts that were to be looked at later stay unknown."""
        for timer in self._timers:
            timer.cancel()
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            flusher.cancel()
            await asyncio.gather(flusher, return_exceptions=True)
        await self._flush()

    def _continued(self, uri: str, text: str) -> Fate | None:
        """The row of a recent suggestion of which this text is what remains."""
        recent = list(self._offers.values())[-NUM_RECENT:]
        for offer in reversed(recent):
            if offer.uri == uri and not offer.fate.is_accepted and offer.text.endswith(text):
                return offer.fate
        return None

    def _mark(self, suggestion_id: str, **changes: object) -> None:
        offer = self._offers.get(suggestion_id)
        if offer is not None and self._is_enabled:
            for name, value in changes.items():
                setattr(offer.fate, name, value)
            self._touch(offer.fate)

    def _touch(self, fate: Fate) -> None:
        if len(self._dirty) < MAX_UNWRITTEN:
            self._dirty[fate.id] = fate
        self._ensure_flusher()

    def _count(self, kind: str, name: str, bucket: int = 0) -> None:
        if not self._is_enabled:
            return
        count = Count(int(time.time() // 3600), kind, name, bucket)
        if count in self._counts or len(self._counts) < MAX_UNWRITTEN:
            self._counts[count] += 1
        self._ensure_flusher()

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            do()

        timer = asyncio.get_running_loop().call_later(seconds, run)
        self._timers.add(timer)

    def _look_again(self, watched: _Watched, number: int) -> None:
        snapshot = self._snapshot_of(watched.uri)
        if watched not in self._watched or snapshot is None:
            return
        kept = share_kept(watched.text, watched.place.text_in(snapshot))
        if number == 0:
            watched.fate.kept_soon = kept
        else:
            watched.fate.kept_late = kept
            self._watched.remove(watched)
        self._touch(watched.fate)

    def _ensure_flusher(self) -> None:
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush_later())

    async def _flush_later(self) -> None:
        await asyncio.sleep(self._flush_s)
        self._flusher = None
        await self._flush()

    async def _flush(self) -> None:
        fates = [replace(fate) for fate in self._dirty.values()]
        counts = Counter(self._counts)
        if not (fates or counts):
            return
        self._dirty.clear()
        self._counts.clear()
        try:
            await asyncio.to_thread(self._store.write, fates, counts)
        except StoreError as error:
            if not self._has_complained:
                self._has_complained = True
                logger.warning("no statistics are kept: %s", error)
