"""How an edit is asked of a model that chats: what the turns say, whatever tokens stand between them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from diffusion_core.prompts.parts import LINE_COMMENTS, render_snippets
from diffusion_core.requests import EditRequest

EDIT_SYSTEM = "You are a precise code editor."


@dataclass(frozen=True, slots=True)
class EditTurns:
    """What the system and the user say, and how the answer begins (its opening fence)."""

    system: str
    user: str
    opening: str


def choose_fence(request: EditRequest) -> str:
    """Backticks for the code fences of an edit: more of them than stand anywhere in the request."""
    others = (text for snippet in request.snippets for text in (snippet.path, snippet.text))
    shown = (request.before, request.selection, request.after, request.instruction, *others)
    runs = [len(run) for text in shown for run in re.findall("`+", text)]
    return "`" * max(3, max(runs, default=0) + 1)


def drop_stray_fence(text: str, selection: str) -> str:
    """An edited selection without a last line of backticks that closes nothing in it.

    A model that should close its answer with a longer fence (the request itself shows three backticks) may close it
    with three all the same and end. A selection that is itself the end of a fenced block keeps its fence.
    """
    lines = text.rstrip("\n").split("\n")
    ends_with_fence = lines[-1].startswith("```") and not lines[-1].strip("`")
    is_stray = ends_with_fence and _count_fences(text) % 2 == 1 and _count_fences(selection) % 2 == 0
    return "".join(line + "\n" for line in lines[:-1]) if is_stray else text


def _count_fences(text: str) -> int:
    return sum(line.startswith("```") for line in text.split("\n"))


def edit_turns(request: EditRequest) -> EditTurns:
    """Turns that show the selection and ask for its edited version in one code fence.

    The text around the selection stands in the system turn: shown in the user's turn, the 1.5B model copied it into
    its answer (EXPERIMENTS.md). What changes last, the instruction, comes last, for the prefix cache. The answer's
    opening fence is part of the prompt, so that the first generated token is already code.
    """
    if not request.selection.strip():
        return _insertion_turns(request)
    close = choose_fence(request)
    fence = f"{close}{request.language}\n"
    selection = request.selection if request.selection.endswith("\n") else request.selection + "\n"
    question = (
        f"Code:\n{fence}{selection}{close}\n\n"
        f"Instruction: {request.instruction.strip()}\n\n"
        "Reply with the whole edited code in one code block, nothing else. Keep everything that the instruction "
        "does not ask to change."
    )
    return EditTurns(EDIT_SYSTEM + _describe_surroundings(request, fence, close), question, fence)


def _insertion_turns(request: EditRequest) -> EditTurns:
    """Turns that show a blank selection as a marked line of its surroundings and ask for what belongs there.

    With nothing to rewrite in the user's turn, the models took the surroundings of the system turn for it and gave
    the whole file back.
    """
    close = choose_fence(request)
    fence = f"{close}{request.language}\n"
    mark = f"{LINE_COMMENTS.get(request.language, '#')} <new code>"
    others = render_snippets(request.snippets, request.language)
    shown = f"Other files have:\n{fence}{others.rstrip()}\n{close}\n\n" if others.strip() else ""
    question = (
        f"{shown}File:\n{fence}{request.before}{mark}\n{request.after.rstrip()}\n{close}\n\n"
        f"Instruction: {request.instruction.strip()}\n\n"
        f"Reply with the code that takes the place of the line `{mark}` in one code block, nothing else. Never repeat "
        "code that is in the file already."
    )
    return EditTurns(EDIT_SYSTEM, question, fence)


def _describe_surroundings(request: EditRequest, fence: str, close: str) -> str:
    """What stands around the selection, told not to be repeated; empty when nothing does."""
    shown = {
        "Other files have": render_snippets(request.snippets, request.language),
        "Before the part": request.before,
        "After the part": request.after,
    }
    pieces = [f"{name}:\n{fence}{text.rstrip()}\n{close}\n" for name, text in shown.items() if text.strip()]
    if not pieces:
        return ""
    told = "Never repeat these; reply with the edited part only."
    return f"\n\nThe user edits one part of a file. {''.join(pieces)}{told}"
