"""What a request means to the decoder: its prompt, where its answer ends, and what the answer may resemble."""

from __future__ import annotations

from diffusion_core.chat import ChatRequest
from diffusion_core.config import EngineConfig
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.engine.prompt_tokens import EncodedPrompt
from diffusion_core.requests import CompletionRequest, EditRequest
from diffusion_core.sampling.aligned_draft import AlignedDraft
from diffusion_core.sampling.asked_stops import IndentRule, TextRule, TimeRule
from diffusion_core.sampling.drafts import DraftSource, LookupDraft
from diffusion_core.sampling.stop import (
    BRACE_LANGUAGES,
    INDENTED_LANGUAGES,
    BraceScopeRule,
    FenceRule,
    LineRule,
    ScopeRule,
    StopRule,
    SuffixRule,
)

Decodable = CompletionRequest | EditRequest | ChatRequest


def encode(request: Decodable, model: LoadedModel, max_tokens: int, *, is_opening: bool) -> EncodedPrompt:
    """The prompt, with room for ``max_tokens``; of an edit whose instruction is still to come only its opening."""
    if isinstance(request, EditRequest):
        encode_edit = model.encoder.encode_edit_opening if is_opening else model.encoder.encode_edit
        return encode_edit(request, max_tokens)
    if isinstance(request, ChatRequest):
        return model.encoder.encode_chat(request)
    return model.encoder.encode_completion(request, max_tokens)


def answer_budget(request: Decodable, model: LoadedModel, config: EngineConfig) -> int:
    """Tokens the answer may take: what the request says, within the configured limit."""
    if isinstance(request, ChatRequest):
        return model.encoder.chat_budget(request, config.max_edit_tokens)
    if not isinstance(request, EditRequest):
        return min(request.max_tokens or config.max_completion_tokens, model.encoder.max_tokens // 2)
    # An edit may grow, but hardly beyond twice its selection and a screenful.
    expected = 2 * len(model.encoder.encode_text(request.selection)) + 256
    return min(request.max_tokens or expected, config.max_edit_tokens)


def stop_rules(request: Decodable, model: LoadedModel) -> tuple[StopRule, ...]:
    """Where the answer ends besides at the model's own stop tokens."""
    if isinstance(request, EditRequest):
        fence = model.encoder.format.fence
        return (FenceRule(fence(request)),) if fence else ()
    rules: list[StopRule] = [TextRule(request.stop)] if request.stop else []
    if isinstance(request, ChatRequest):
        return tuple(rules)
    if request.line_ms:
        rules.append(TimeRule(request.line_ms))
    if request.single_line:
        return (*rules, LineRule())
    if request.min_indent:
        rules.append(IndentRule(request.min_indent))
    rules.append(SuffixRule(request.suffix, starts_line=request.prefix[-1:] in ("", "\n")))
    if request.stop_at_scope and request.language in INDENTED_LANGUAGES:
        rules.append(ScopeRule(request.prefix, request.suffix, has_clauses=request.language != "yaml"))
    elif request.stop_at_scope and request.language in BRACE_LANGUAGES:
        rules.append(BraceScopeRule(request.prefix))
    return tuple(rules)


def draft_sources(
    request: Decodable, model: LoadedModel, prompt: list[int]
) -> tuple[list[DraftSource], AlignedDraft | None]:
    """What drafts come from, the likeliest first, and among them the text that an edit starts from."""
    sources: list[DraftSource] = []
    original: AlignedDraft | None = None
    if isinstance(request, EditRequest):
        fence = model.encoder.format.fence
        text = request.selection.rstrip("\n") + "\n" + (fence(request) if fence else "")
        original = AlignedDraft(model.encoder.encode_text(text))
        sources.append(original)
    elif expected := request.prediction if isinstance(request, ChatRequest) else request.last_suggestion:
        sources.append(AlignedDraft(model.encoder.encode_text(expected), "suggestion"))
    if request.decoding.use_lookup:
        sources.append(LookupDraft(prompt))
    return sources, original
