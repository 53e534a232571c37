"""Conversations as the models that chat were trained on them."""

from __future__ import annotations

from collections.abc import Sequence

from diffusion_core.chat import Role, Turn
from diffusion_core.prompts.parts import Part, Prompt, Special, Text

# What Qwen2.5's own template says where nobody else speaks as the system.
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


def chatml_chat(turns: Sequence[Turn]) -> Prompt:
    """Turns in ChatML; the assistant's last one is left open."""
    start, end = Special("<|im_start|>"), Special("<|im_end|>")
    parts: list[Part] = []
    for turn in _with_answer(turns):
        parts += [start, Text(f"{turn.role.value}\n{turn.text}"), end, Text("\n")]
    return tuple(parts[:-2])


def qwen_chat(turns: Sequence[Turn]) -> Prompt:
    """ChatML with the system of Qwen2.5 where the conversation has none at its beginning."""
    if turns[0].role is not Role.SYSTEM:
        turns = (Turn(role=Role.SYSTEM, text=QWEN_SYSTEM), *turns)
    return chatml_chat(turns)


def llada_chat(turns: Sequence[Turn]) -> Prompt:
    """Headers and end marks; it knows no system, which speaks at the head of the user's turn."""
    start, end, done = Special("<|start_header_id|>"), Special("<|end_header_id|>"), Special("<|eot_id|>")
    parts: list[Part] = [Special("<|startoftext|>")]
    for turn in _with_answer(_without_system(turns)):
        parts += [start, Text(turn.role.value), end, Text(f"\n\n{turn.text}"), done]
    return tuple(parts[:-1])


def seed_chat(turns: Sequence[Turn]) -> Prompt:
    """Seed-Coder's turns between its own begin and end of sentence."""
    begin, end = Special("<[begin▁of▁sentence]>"), Special("<[end▁of▁sentence]>")
    parts: list[Part] = []
    for turn in _with_answer(turns):
        space = "\n\n" if turn.role is Role.SYSTEM else ""
        parts += [begin, Text(f"{turn.role.value}\n{turn.text}{space}"), end]
    return tuple(parts[:-1])


def _with_answer(turns: Sequence[Turn]) -> Sequence[Turn]:
    """The turns up to an assistant's, which goes on where the last one is its own."""
    return turns if turns[-1].role is Role.ASSISTANT else (*turns, Turn(role=Role.ASSISTANT, text=""))


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    joined: list[Turn] = []
    told = ""
    for turn in turns:
        if turn.role is Role.SYSTEM:
            told += f"{turn.text}\n\n"
            continue
        joined.append(Turn(role=turn.role, text=told + turn.text if turn.role is Role.USER else turn.text))
        told = "" if turn.role is Role.USER else told
    return [*joined, Turn(role=Role.USER, text=told.rstrip())] if told else joined
