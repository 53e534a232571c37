"""`unmask edit`: rewrite lines of a file by an instruction; show, print or write the change."""

from __future__ import annotations

from typing import Annotated

import typer

from diffusion_core.cli.complete import SourceFile
from diffusion_core.cli.diffs import make_diff, print_diff
from diffusion_core.cli.documents import (
    Document,
    PositionError,
    check_line,
    read_document,
    restore_line_ends,
    to_line_feeds,
    write_document,
)
from diffusion_core.cli.languages import guess_language
from diffusion_core.cli.options import (
    BlockSize,
    CacheOption,
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
from diffusion_core.cli.output import open_console, print_summary, result_fields, write_json, write_text
from diffusion_core.cli.preview import follow_edit
from diffusion_core.errors import EngineError
from diffusion_core.requests import CanvasCache, EditRequest, FinishReason, Policy


def register(app: typer.Typer) -> None:
    """Add `edit`."""
    app.command()(edit)


def edit(
    ctx: typer.Context,
    file: SourceFile,
    *,
    start_line: Annotated[int, typer.Option("--start-line", help="First line of the selection, from 0.")],
    end_line: Annotated[int, typer.Option("--end-line", help="Last line of the selection, itself included.")],
    instruction: Annotated[str, typer.Option("--instruction", metavar="TEXT", help="What to change.")],
    as_json: JsonFlag = False,
    diff: Annotated[bool, typer.Option("--diff", help="Print a plain unified diff, fit for `patch -p1`.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Change the file.")] = False,
    language: Language = "",
    max_tokens: MaxTokens = 0,
    policy: PolicyOption = Policy.AUTO,
    block_size: BlockSize = 0,
    cache: CacheOption = CanvasCache.AUTO,
    temperature: Temperature = 0.0,
    sample_seed: SampleSeed = 0,
    model: Model = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Rewrite lines of FILE by an instruction.

    The selection is whole lines, from --start-line to --end-line, both included and counted from 0: the third line
    alone is `--start-line 2 --end-line 2`. Without --json, --diff or --write the change is shown as a coloured diff
    and the file stays as it is. With --json, `text` is the edited selection.
    """
    if as_json + diff + write > 1:
        raise typer.BadParameter("give one of --json, --diff and --write")
    target = Target(url=url, token_file=token_file, model=model).over(ctx)
    document = read_document(file)
    before, selection, after = select_lines(document, start_line, end_line)
    with as_usage_error():
        request = EditRequest(
            selection=to_line_feeds(selection), before=to_line_feeds(before), after=to_line_feeds(after),
            instruction=instruction, language=language or guess_language(file), path=file.name,
            max_tokens=max_tokens, model=target.model,
            decoding=make_decoding(policy, block_size, cache), sampling=make_sampling(temperature, sample_seed),
        )  # fmt: skip
    result = run_with_client(target.make_client_config(), lambda client: follow_edit(client, request))
    edited = restore_line_ends(selection, result.text, document.newline)
    if as_json:
        write_json(result_fields(result, edited))
        return
    change = make_diff(str(file), document.text, before + edited + after)
    if write:
        if result.finish_reason is not FinishReason.STOP:
            # The answer is only a beginning: what it lacks would be deleted.
            raise EngineError(
                f"{file} was not written: the edit is not complete ({result.finish_reason.value}); "
                "raise --max-tokens or select fewer lines"
            )
        _write(document, before + edited + after)
    elif diff:
        write_text(change)
    else:
        print_diff(change)
    print_summary(result)


def select_lines(document: Document, start_line: int, end_line: int) -> tuple[str, str, str]:
    """The text before, of and after the lines ``start_line`` to ``end_line``, the last one included.

    Raises:
        typer.BadParameter: no such lines.
    """
    try:
        check_line(document, start_line, "start line")
        check_line(document, end_line, "end line")
    except PositionError as error:
        raise typer.BadParameter(str(error)) from None
    if end_line < start_line:
        raise typer.BadParameter(f"end line {end_line} stands before start line {start_line}")
    lines = document.lines
    return "".join(lines[:start_line]), "".join(lines[start_line : end_line + 1]), "".join(lines[end_line + 1 :])


def _write(document: Document, text: str) -> None:
    console = open_console()
    if text == document.text:
        console.print(f"{document.path}: nothing changed", markup=False)
        return
    write_document(document, text)
    console.print(f"{document.path}: written", markup=False)
