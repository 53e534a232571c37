"""New names for what is renamed or extracted: what a person might choose instead, in the style of the old name."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Container, Iterator
from random import Random


def _read_table(text: str) -> dict[str, tuple[str, ...]]:
    """``word: other another; word: other`` as a mapping."""
    rows = (row.split(":") for row in text.split(";"))
    return {word.strip(): tuple(others.split()) for word, others in rows}


_SYNONYMS = _read_table("""
i: index position idx; j: column other_index; k: key; v: value; n: count size total; s: text string; d: mapping
data; x: value item; p: path part; f: file handle; m: match; c: char child; e: error exc; t: token text; a: first
left; b: second right; r: result row; l: line items; w: width word; h: height handle; q: queue query; idx: index
position; cfg: config settings; conf: config; msg: message; res: result response; ret: result output; rv: result;
tmp: temporary scratch; val: value; vals: values; num: count number; buf: buffer; ctx: context; req: request; resp:
response; fn: function callback; func: function callback; cb: callback; fp: file stream; exc: error; err: error;
fname: filename file_name; params: parameters options; attr: attribute; attrs: attributes; obj: instance target; el:
element; elem: element; env: environment; lst: items; cnt: count; pos: position offset; prev: previous last; cur:
current; curr: current; doc: document; src: source; dst: destination target; dest: destination target; pkg: package;
desc: description; info: details metadata; data: payload content records; result: output outcome; results: outputs
matches; out: output result; output: result rendered; text: content source_text; line: row current_line; lines: rows
all_lines; item: element entry; items: entries elements; path: file_path location; url: address endpoint; key: name
lookup_key; value: content current_value; values: entries contents; name: label identifier; names: labels
identifiers; args: arguments; arg: argument; kwargs: options keyword_arguments; size: length num_bytes; length: size
count; count: total num_items; start: begin first; end: stop last; first: head initial; last: tail final; node:
element vertex; parent: owner container; child: descendant; children: descendants; match: found hit; response: reply
answer; request: query call; message: text notice; error: failure problem; errors: failures problems; file: handle
stream; filename: file_name path; config: settings options; settings: options config; options: settings choices;
user: account member; client: session caller; token: symbol piece; tokens: symbols pieces; parts: pieces segments;
part: piece segment; max: maximum upper; min: minimum lower; total: sum_of_all overall; temp: temporary; module:
package unit; state: status; status: state; width: num_columns; height: num_rows; found: matched is_found; new:
updated fresh; old: previous former; current: active present; group: bucket cluster; groups: buckets; type: kind;
kind: type category; command: action instruction; headers: header_fields; body: content payload; default: fallback;
encoding: charset; handler: callback; callback: handler; target: destination goal; source: origin src; buffer:
scratch pending; queue: pending backlog; cache: memo store; pattern: regex expression; version: release; left: lhs;
right: rhs; seen: visited already_seen; stack: pending; row: record; rows: records; column: field; columns: fields
""")
_VERBS = _read_table("""
get: fetch load find retrieve; set: assign update; make: create build; create: make build; build: make construct;
check: validate verify ensure; validate: check verify; parse: read decode; process: handle run; handle: process
dispatch; compute: calculate derive; calculate: compute; calc: calculate compute; add: append register insert;
remove: delete discard; delete: remove drop; find: search locate lookup; load: read fetch; read: load; write: save
store; save: write store; update: refresh modify; init: initialize setup; run: execute perform; do: perform run;
convert: transform translate; format: render; render: format draw; print: show display; show: display print; start:
begin launch; stop: halt end; send: submit post; open: load; close: shutdown finish; apply: run use; generate:
produce create; resolve: find determine; merge: combine join; split: divide separate; filter: select keep;
normalize: canonicalize clean; clean: tidy sanitize; is: looks seems; has: contains; to: as into; extract: pull
collect; collect: gather; iter: iterate walk
""")
_ADJECTIVES = ("current", "raw", "all", "given", "initial", "local")


def split_words(name: str) -> list[str]:
    """The lower-case words of a name in any of the usual styles."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+", name)]


def join_words(words: list[str], like: str) -> str:
    """The words in the style of another name: snake_case, camelCase, PascalCase or UPPER_CASE."""
    lead = like[: len(like) - len(like.lstrip("_"))]
    bare = like.strip("_")
    flat = [part for word in words for part in word.split("_")]
    if bare.isupper() and len(bare) > 1:
        return lead + "_".join(flat).upper()
    if bare[:1].isupper():
        return lead + "".join(word.capitalize() for word in flat)
    if "_" not in bare and not bare.islower():
        return lead + flat[0] + "".join(word.capitalize() for word in flat[1:])
    return lead + "_".join(flat)


def rename_value(old: str, taken: Container[str], generator: Random, style: str = "") -> str | None:
    """Another name for a variable, parameter or attribute; None where none suits.

    ``style`` is a name in the style to use where the old name, of one word, shows none.
    """
    return _choose(old, _other_nouns(split_words(old), generator), taken, generator, style)


def rename_action(old: str, taken: Container[str], generator: Random) -> str | None:
    """Another name for a function; None where none suits."""
    words = split_words(old)
    if not words:
        return None
    choices = [[verb, *words[1:]] for verb in _VERBS.get(words[0], ())]
    if len(words) > 1:
        choices += [[*words[:-1], noun] for noun in _SYNONYMS.get(words[-1], ())]
    return _choose(old, choices, taken, generator)


def is_free(name: str, taken: Container[str]) -> bool:
    """Whether a name is neither taken nor reserved by Python."""
    return name not in taken and not keyword.iskeyword(name) and not hasattr(builtins, name) and name.isidentifier()


def _other_nouns(words: list[str], generator: Random) -> list[list[str]]:
    choices: list[list[str]] = []
    for place, word in enumerate(words):
        choices += [[*words[:place], other, *words[place + 1 :]] for other in _SYNONYMS.get(word, ())]
    if words and len(words) < 3 and len(words[-1]) > 2 and not (set(words) & set(_ADJECTIVES)):
        choices.append([generator.choice(_ADJECTIVES), *words])
    return choices


def _choose(
    old: str, choices: list[list[str]], taken: Container[str], generator: Random, style: str = ""
) -> str | None:
    like = style if style and old.isalpha() and old.islower() else old
    names = [name for name in _spelled(like, choices, taken) if name != old]
    return generator.choice(names) if names else None


def _spelled(like: str, choices: list[list[str]], taken: Container[str]) -> Iterator[str]:
    for words in choices:
        name = join_words(words, like)
        if len(name) > 1 and is_free(name, taken):
            yield name
