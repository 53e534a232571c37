"""llama-server's interface, asked as llama.vim and llama.vscode ask it; prompts with markers; the description."""

from __future__ import annotations

import json

import httpx
import pytest
from helpers.tiny_server import ServeProcess

from diffusion_core.net.openai.fim_markers import FilledIn, take_apart
from diffusion_core.net.openai.handlers import HANDLERS
from diffusion_core.net.openai.paths import ALL_PATHS, is_json_path
from diffusion_core.requests import Snippet

# What llama.vim 2026-01 sends.
TIMINGS = ("prompt_n", "prompt_ms", "prompt_per_token_ms", "prompt_per_second", "predicted_n", "predicted_ms")
FIELDS = ["content", *(f"timings/{name}" for name in TIMINGS), "truncated", "tokens_cached"]
KEYSTROKE = {
    "id_slot": 0, "input_prefix": "import os\n", "input_suffix": "\nmain()\n", "prompt": "def ma", "n_predict": 20,
    "input_extra": [{"text": "def helper():\n    pass\n", "time": [1, 2], "filename": "helper.py"}], "stop": [],
    "n_indent": 0, "top_k": 40, "top_p": 0.9, "samplers": ["top_k", "top_p", "infill"], "stream": False,
    "cache_prompt": True, "t_max_prompt_ms": 500, "t_max_predict_ms": 5000, "response_fields": FIELDS,
}  # fmt: skip


def test_a_keystroke_of_llama_vim_gets_the_fields_it_asks_for(tiny_server: ServeProcess) -> None:
    answer = tiny_server.post("/infill", **KEYSTROKE)
    assert answer.status_code == 200 and "unmask-ignored" not in answer.headers
    assert '"content":"' in answer.text, "llama.vim reads no other JSON"
    found = answer.json()
    assert set(found) == set(FIELDS)
    assert isinstance(found["content"], str) and found["timings/predicted_n"] <= 20
    whole = tiny_server.post("/infill", **{**KEYSTROKE, "response_fields": None}).json()
    assert whole["content"] == found["content"] and whole["stop"] is True and whole["model"] == tiny_server.model


def test_a_warm_up_leaves_nothing_to_compute(tiny_server: ServeProcess) -> None:
    asked = {**KEYSTROKE, "input_prefix": "x = 1\n" * 40}
    assert tiny_server.post("/infill", **{**asked, "n_predict": 0, "response_fields": [""]}).json() == {}
    assert tiny_server.post("/infill", **asked).json()["timings/prompt_n"] == 1
    answer = tiny_server.post("/infill", **{**asked, "n_predict": 0, "n_cmpl": 2, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    assert [(event["index"], event["content"], event["stop"]) for event in events] == [(0, "", True), (1, "", True)]
    assert {(event["stop_type"], event["model"]) for event in events} == {("limit", tiny_server.model)}


def test_a_stream_adds_up_and_its_last_event_says_why_it_ended(tiny_server: ServeProcess) -> None:
    whole = tiny_server.post("/infill", **{**KEYSTROKE, "response_fields": None}).json()
    answer = tiny_server.post("/infill", **{**KEYSTROKE, "stream": True})
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    assert "".join(event["content"] for event in events) == whole["content"]
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["stop_type"] == "limit"


def test_several_answers_come_as_a_list(tiny_server: ServeProcess) -> None:
    asked = {**KEYSTROKE, "n_cmpl": 3, "temperature": 1.0, "seed": 5, "response_fields": ["content", "index"]}
    answer = tiny_server.post("/infill", **asked)
    assert len({each["content"] for each in answer.json()}) == 3
    assert answer.headers["unmask-ignored"] == "top_k, samplers"


def test_of_other_files_that_do_not_fit_the_last_are_shown(tiny_server: ServeProcess) -> None:
    extra = [{"filename": f"f{number}.py", "text": f"number_{number} = {number}\n" * 40} for number in range(16)]
    found = tiny_server.post("/infill", **{**KEYSTROKE, "input_extra": extra, "response_fields": None}).json()
    assert 500 < found["tokens_evaluated"] < 4096
    assert tiny_server.post("/infill", **{**KEYSTROKE, "input_extra": extra, "n_predict": 0}).status_code == 200


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lora": [{"id": 0, "scale": 0.5}]}, "lora: not supported"),
        ({"grammar": "root ::= x"}, "grammar: not supported"),
        ({"n_probs": 3}, "n_probs: not supported"),
        ({"n_predict": "5"}, "n_predict: input should be a valid integer"),
        ({"mirostat": 2}, "mirostat: unknown field"),
        ({"input_extra": [{"filename": "x"}]}, "input_extra[0].text: field required"),
    ],
)
def test_what_would_be_ignored_is_refused(tiny_server: ServeProcess, changes: dict[str, object], named: str) -> None:
    answer = tiny_server.post("/infill", **{**KEYSTROKE, **changes})
    assert answer.status_code == 400 and named in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"nul", b'{"prompt": "\\ud800"}', b"[" * 100_000, b'{"n": 1e999}'])
def test_bodies_that_are_no_requests_are_refused(tiny_server: ServeProcess, body: bytes) -> None:
    headers = {**tiny_server.headers, "content-type": "application/json"}
    for path in ("/infill", "/v1/completions", "/v1/chat/completions"):
        answer = httpx.post(f"{tiny_server.url}{path}", content=body, headers=headers, trust_env=False)
        assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_what_the_server_is(tiny_server: ServeProcess) -> None:
    assert tiny_server.get("/health").json() == {"status": "ok"}
    assert tiny_server.get("/props").json()["default_generation_settings"]["n_ctx"] == 4096
    assert tiny_server.get("/v1/models").json()["data"][0]["meta"]["n_ctx"] == 4096
    for path in ("/health", "/props", "/infill", "/openapi.json"):
        stranger = httpx.request("POST" if path == "/infill" else "GET", f"{tiny_server.url}{path}", trust_env=False)
        assert stranger.status_code == 401 and stranger.json()["error"]["type"] == "authentication_error"


def test_lists_chosen_fields_and_events_are_described(tiny_server: ServeProcess) -> None:
    document = tiny_server.get("/openapi.json").json()
    content = document["paths"]["/infill"]["post"]["responses"]["200"]["content"]
    whole, some, several = content["application/json"]["schema"]["anyOf"]
    assert several["type"] == "array" and several["items"]["anyOf"] == [whole, some]
    assert "required" not in some and "content" in some["properties"]
    done, payload = content["text/event-stream"]["schema"]["properties"]["data"]["anyOf"]
    assert done == {"const": "[DONE]"} and len(payload["contentSchema"]["anyOf"]) == 3


def test_every_path_has_its_handler_and_reads_json() -> None:
    assert set(HANDLERS) == set(ALL_PATHS)
    assert all(is_json_path(path) for _, path in ALL_PATHS)
    assert not any(is_json_path(f"/v1/{name}") for name in ("complete", "edit", "warm", "health"))


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", FilledIn("a", "b")),
        ("<|fim_suffix|>b<|fim_prefix|>a<|fim_middle|>c", FilledIn("ac", "b")),
        ("# x\n<|fim_prefix|>a<|fim_suffix|><|fim_middle|>", FilledIn("# x\na", "")),
        ("<[fim-suffix]>b<[fim-prefix]>a<[fim-middle]>", FilledIn("a", "b")),
        (
            "<|repo_name|>r\n<|file_sep|>x.py\nx = 1\n<|file_sep|>y.py\n<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>",
            FilledIn("a", "b", repository="r", path="y.py", snippets=(Snippet(path="x.py", text="x = 1\n"),)),
        ),
        ("<|fim_prefix|>a<|fim_suffix|>b", None),
        ("<|fim_prefix|>a<|fim_prefix|><|fim_suffix|>b<|fim_middle|>", None),
        ("<|fim_middle|><|fim_prefix|>a<|fim_suffix|>b", None),
        ("print('<|fim_middle|>')", None),
        ("", None),
    ],
)
def test_prompts_with_markers_are_taken_apart_and_others_are_text(prompt: str, parts: FilledIn | None) -> None:
    assert take_apart(prompt) == parts


def test_no_code_and_no_token_reaches_the_log(tiny_server: ServeProcess) -> None:
    canary = "canary_4711_code"
    tiny_server.post("/infill", **{**KEYSTROKE, "input_prefix": canary})
    tiny_server.post("/v1/completions", prompt=canary, **{canary: 1})
    tiny_server.post("/v1/completions", prompt=[canary, 5])
    tiny_server.post("/v1/chat/completions", messages=[{"role": canary, "content": canary}])
    tiny_server.get(f"/v1/models/{canary}")
    log = tiny_server.log.read_text()
    assert canary not in log.replace(f"/v1/models/{canary}", "") and "a-token-for-tests" not in log
    assert "POST /infill 200" in log
