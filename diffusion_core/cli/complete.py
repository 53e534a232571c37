"""`unmask complete`: what the engine would write at a position of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffusion_core.cli.documents import Document, PositionError, offset_at, read_document, to_line_feeds
from diffusion_core.cli.languages import guess_language
from diffusion_core.cli.options import (
    BlockSize,
    CacheOption,
    FamilyOption,
    JsonFlag,
    Language,
    MaxTokens,
    Model,
    PolicyOption,
    SampleSeed,
    Target,
    Temperature,
    TokenFile,
    Url,
    as_usage_error,
    make_decoding,
    make_sampling,
    run_with_client,
)
from diffusion_core.cli.output import print_summary, result_fields, write_json, write_text
from diffusion_core.requests import CanvasCache, CompletionRequest, Policy

SourceFile = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="The source file, in UTF-8.")
]


def register(app: typer.Typer) -> None:
    """Add `complete`."""
    app.command()(complete)


def complete(
    ctx: typer.Context,
    file: SourceFile,
    *,
    line: Annotated[int, typer.Option("--line", help="The line, counted from 0.")],
    character: Annotated[int, typer.Option("--character", help="The column from 0, in UTF-16 code units.")],
    single_line: Annotated[bool, typer.Option("--single-line", help="Stop at the end of the line.")] = False,
    as_json: JsonFlag = False,
    language: Language = "",
    max_tokens: MaxTokens = 0,
    deadline_ms: Annotated[int, typer.Option("--deadline-ms", min=0, help="Give what is there by then.")] = 0,
    policy: PolicyOption = Policy.AUTO,
    block_size: BlockSize = 0,
    cache: CacheOption = CanvasCache.AUTO,
    temperature: Temperature = 0.0,
    sample_seed: SampleSeed = 0,
    model: Model = "",
    family: FamilyOption = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Print what belongs at a position of FILE.

    The suggestion goes to stdout as it is, without a line end of its own; a summary goes to stderr. Lines and
    columns count from 0, as in the Language Server Protocol.
    """
    target = Target(url=url, token_file=token_file, model=model, family=family).over(ctx)
    document = read_document(file)
    try:
        offset = offset_at(document, line, character)
    except PositionError as error:
        raise typer.BadParameter(str(error)) from None
    with as_usage_error():
        request = CompletionRequest(
            prefix=to_line_feeds(document.text[:offset]), suffix=to_line_feeds(document.text[offset:]),
            language=language or guess_language(file), path=file.name, single_line=single_line,
            max_tokens=max_tokens, deadline_ms=deadline_ms, model=target.model,
            decoding=make_decoding(policy, block_size, cache), sampling=make_sampling(temperature, sample_seed),
        )  # fmt: skip
    result = run_with_client(target.make_client_config(), lambda client: client.complete(request))
    text = with_line_ends(document, result.text)
    if as_json:
        write_json(result_fields(result, text))
    else:
        write_text(text)
        print_summary(result)


def with_line_ends(document: Document, text: str) -> str:
    """The text as it can be inserted into the document."""
    return to_line_feeds(text).replace("\n", document.newline)
