"""From a place in a document to a suggestion: reuse, join, wait, ask, refine.

The order is fixed: gate -> text typed through an earlier answer -> an answer that is on its way -> debounce -> engine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffusion_core.errors import DeadlineExceeded, UnmaskError
from diffusion_core.requests import CompletionRequest, EngineClient, FinishReason, Result
from lsp_server import postprocess
from lsp_server.brackets import count_non_closers
from lsp_server.context.window import text_after, text_before
from lsp_server.gate import refuse
from lsp_server.in_flight import Superseded
from lsp_server.positions import without_lone_surrogates
from lsp_server.session import Session
from lsp_server.snapshot import Point, Snapshot
from lsp_server.suggestions import Query
from lsp_server.warm_up import AHEAD_DELAY_S, WarmUps

logger = logging.getLogger(__name__)

MAX_WAITS = 3  # joined answers may turn out not to fit what was typed meanwhile; then the engine is asked


@dataclass(frozen=True)
class Selected:
    """An entry that is selected in the editor's completion list: ``text`` would replace ``start`` to ``end``."""

    start: Point
    end: Point
    text: str


@dataclass(frozen=True)
class Suggestion:
    """``text`` for the range from ``start`` to ``end``, which lie on one line of ``snapshot``.

    ``query`` is what it was found for; None where the text also holds an entry of the editor's list.
    """

    snapshot: Snapshot
    start: Point
    end: Point
    text: str
    query: Query | None = None


@dataclass(frozen=True)
class Nothing:
    """No suggestion, and why."""

    reason: str


@dataclass(frozen=True)
class Ask:
    """A place that text is wanted for."""

    snapshot: Snapshot
    point: Point
    invoked: bool
    selected: Selected | None = None


class Completer:
    """Answers asks out of a session's suggestions and engine."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._warm_ups = WarmUps()

    async def suggest(self, ask: Ask) -> list[Suggestion] | Nothing:
        """Suggestions, the best first, or the reason for none; an automatic ask gets one.

        Raises nothing but ``asyncio.CancelledError``.
        """
        self._warm_ups.cancel_plan()
        outcome = await self._suggest(ask)
        if isinstance(outcome, Nothing):
            self._session.board.count(outcome.reason)
        return outcome

    def warm(self, ask: Ask) -> None:
        """Let the engine read the text around a place where it will be asked soon."""
        client, query = self._session.engine.client, self._query(ask)
        if client is not None and self._session.suggestions.advance(query) is None:
            self._warm_ups.start(client, self._request(query, ask))

    def expect_acceptance(self, suggestion: Suggestion, delay_s: float = AHEAD_DELAY_S) -> None:
        """A suggestion is shown: once the engine is idle, let it read what the text will be if it is accepted."""

        def make() -> tuple[EngineClient, CompletionRequest] | None:
            session, client = self._session, self._session.engine.client
            now = session.snapshot(suggestion.snapshot.uri)
            is_present = now is not None and now.version == suggestion.snapshot.version
            if client is None or not is_present or not session.in_flight.is_idle or self._warm_ups.is_running:
                return None
            after, end = suggestion.snapshot.with_text(suggestion.start, suggestion.end, suggestion.text)
            ask = Ask(after, end, invoked=False)
            return client, self._request(self._query(ask), ask, may_choose=False)

        if self._session.settings.completion.warm_ahead:
            self._warm_ups.plan(delay_s, make)

    def note_dismissal(self) -> None:
        """The user does not want what is shown: it will not be accepted."""
        self._warm_ups.cancel_plan()

    async def _suggest(self, ask: Ask) -> list[Suggestion] | Nothing:
        session = self._session
        is_ignored = session.is_ignored(ask.snapshot.uri)
        session.board.set_ignored(is_ignored)
        if is_ignored:
            return Nothing("ignored")
        refusal = refuse(session.settings, ask.snapshot, ask.point, invoked=ask.invoked, trees=session.trees)
        if refusal is not None:
            return Nothing(refusal.value)
        turn = session.in_flight.take_turn()
        query = self._query(ask)
        num_wanted = session.settings.completion.alternatives if ask.invoked else 1
        try:
            for number in range(MAX_WAITS):
                served = self._serve(ask, num_wanted)
                if served is not None:
                    return served
                why_none = await self._wait_for_answer(query, ask, turn, num_wanted, has_waited=number > 0)
                if why_none:
                    return self._serve(ask) or Nothing(why_none)
        except Superseded:
            return Nothing("superseded")
        except UnmaskError as error:
            nothing = self._degrade(error, query, ask)
            served = self._serve(ask)  # further texts were wanted, but one is there already
            return served if isinstance(served, list) else nothing
        return Nothing("no_longer_fits")

    async def _wait_for_answer(self, query: Query, ask: Ask, turn: int, num_wanted: int, *, has_waited: bool) -> str:
        """Until the store may hold an answer. The result says why it may hold none, and is empty after a joined run."""
        session = self._session
        run = session.in_flight.joinable(query, num_wanted)
        if run is not None:
            await session.in_flight.wait(run)
            return ""
        session.in_flight.check_turn(turn)
        session.in_flight.cancel()  # its answer cannot fit: the engine is free at once, not only after the debounce
        client = session.engine.client
        if client is None:
            return f"engine_{session.board.engine_reason}"
        if not ask.invoked and not has_waited:
            delay_ms = session.debounce.delay_ms(session.settings.completion.debounce_ms)
            await asyncio.sleep(delay_ms / 1000)
            session.stats.took("complete", "debounce", delay_ms)
        session.in_flight.check_turn(turn)
        request = replace(self._request(query, ask), num_alternatives=num_wanted - 1)
        run = session.in_flight.start(query, lambda: self._ask_engine(client, query, request), num_wanted)
        result = await session.in_flight.wait(run)
        return "no_longer_fits" if result.text else f"empty_{result.finish_reason.value}"

    async def _ask_engine(self, client: EngineClient, query: Query, request: CompletionRequest) -> Result:
        """The engine's work and what is kept of it, whether or not somebody still waits."""
        begin = time.monotonic()
        result = await client.complete(request)
        latency_ms = (time.monotonic() - begin) * 1000
        if result.text or result.finish_reason not in {FinishReason.CANCELLED, FinishReason.DEADLINE}:
            num_asked = request.num_alternatives + 1
            self._session.suggestions.add(query, result.text, result.alternatives, num_asked=num_asked)
        if not request.num_alternatives:  # what typing may wait for
            self._session.debounce.note_latency(latency_ms)
        self._session.stats.answered("complete", result.timings, latency_ms)
        self._session.board.note_latency(latency_ms, result.model, result.notice)
        logger.info(
            "request %s: %d tokens, %d forwards, %d of %d prompt tokens reused, %.0f ms, %s",
            request.id, result.num_tokens, result.num_forwards, result.num_reused_tokens, result.num_prompt_tokens,
            latency_ms, result.finish_reason.value,
        )  # fmt: skip
        return result

    def _serve(self, ask: Ask, num_wanted: int = 1) -> list[Suggestion] | Nothing | None:
        """What the store holds for the place as it is now; None if it holds nothing, or was not asked for so many."""
        now = self._follow(ask)
        if now is None:
            return Nothing("stale")
        query = self._query(now)
        advance = self._session.suggestions.advance(query)
        if advance is None or advance.num_asked < num_wanted:
            return None
        texts = (advance.text, *advance.alternatives) if now.invoked else (advance.text,)
        return self._refine(now, query, texts)

    def _refine(self, ask: Ask, query: Query, texts: Sequence[str]) -> list[Suggestion] | Nothing:
        """What post-processing leaves of an answer and its alternatives, each text once."""
        selected, snapshot = ask.selected, ask.snapshot
        place = postprocess.place_at(
            snapshot,
            selected.end if selected else ask.point,
            single_line=query.single_line,
            invoked=ask.invoked,
            may_replace=selected is None,
            tree=self._session.trees.of(snapshot),
        )
        begin = time.perf_counter()
        found: dict[str, Suggestion] = {}
        dropped: list[str] = []
        for text in texts:
            proposal = postprocess.refine(text, place)
            if isinstance(proposal, postprocess.Drop):
                dropped.append(proposal.reason)
            elif selected:
                whole = selected.text + proposal.text
                found.setdefault(whole, Suggestion(snapshot, selected.start, selected.end, whole))
            else:
                end = Point(ask.point.line, ask.point.column + proposal.num_replaced)
                found.setdefault(proposal.text, Suggestion(snapshot, ask.point, end, proposal.text, query))
        self._session.stats.took("complete", "postprocess", 1000 * (time.perf_counter() - begin))
        return list(found.values()) or Nothing(dropped[0])

    def _follow(self, ask: Ask) -> Ask | None:
        """The ask in the document's present text: the cursor went along with what was typed at it on its line."""
        old, new = ask.snapshot, self._session.snapshot(ask.snapshot.uri)
        if new is None or new.version == old.version:
            return ask if new is not None else None
        line, column = ask.point
        same_lines = len(new.lines) == len(old.lines) and new.lines[:line] == old.lines[:line]
        if ask.selected or not same_lines or new.lines[line + 1 :] != old.lines[line + 1 :]:
            return None
        before, after = old.content(line)[:column], old.content(line)[column:]
        content = new.content(line)
        if len(content) < len(before) + len(after) or not content.startswith(before) or not content.endswith(after):
            return None
        return replace(ask, snapshot=new, point=Point(line, len(content) - len(after)))

    def _query(self, ask: Ask) -> Query:
        settings = self._session.settings
        start = ask.selected.start if ask.selected else ask.point
        end = ask.selected.end if ask.selected else ask.point
        prefix = text_before(ask.snapshot, start, settings.completion.max_prefix_chars)
        suffix = text_after(ask.snapshot, end, settings.completion.max_suffix_chars)
        return Query(
            uri=ask.snapshot.uri,
            language=ask.snapshot.language,
            model=settings.engine.model,
            single_line=self._is_single_line(ask.snapshot, end),
            prefix=without_lone_surrogates(prefix + (ask.selected.text if ask.selected else "")),
            suffix=without_lone_surrogates(suffix),
        )

    def _is_single_line(self, snapshot: Snapshot, point: Point) -> bool:
        mode = self._session.settings.completion.multi_line
        return mode == "never" or (
            mode == "auto" and count_non_closers(snapshot.content(point.line)[point.column :]) > 0
        )

    def _request(self, query: Query, ask: Ask, *, may_choose: bool = True) -> CompletionRequest:
        """The request; ``may_choose``: the snippets of other places may be others than those of the last request."""
        settings = self._session.settings.completion
        return CompletionRequest(
            prefix=query.prefix,
            suffix=query.suffix,
            language=query.language,
            path=path_of(ask.snapshot.uri),
            repository=self._session.context.repository(),
            snippets=self._session.context.snippets(ask.snapshot, ask.point, may_choose=may_choose),
            last_suggestion=self._session.suggestions.draft_for(query),
            single_line=query.single_line,
            max_tokens=settings.max_tokens,
            deadline_ms=settings.deadline_ms * (2 if ask.invoked else 1),
        )

    def _degrade(self, error: UnmaskError, query: Query, ask: Ask) -> Nothing:
        """Nothing for the user's typing, and a status that says why."""
        self._session.engine.report(error)
        logger.info("no suggestion: %s", type(error).__name__)
        client = self._session.engine.client
        if isinstance(error, DeadlineExceeded) and client is not None and not self._warm_ups.is_running:
            # Reading the text took all the time; the engine reads on, so that the next request finds it read.
            self._warm_ups.start(client, self._request(query, ask))
        return Nothing(f"engine_{error.code}")

    def aclose(self) -> None:
        """Stop what is read ahead."""
        self._warm_ups.aclose()


def path_of(uri: str) -> str:
    """The path shown to the model: the last three parts, enough to say what the file is about."""
    from urllib.parse import unquote, urlsplit

    return "/".join(unquote(urlsplit(uri).path).split("/")[-3:]).lstrip("/")
