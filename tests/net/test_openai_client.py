"""OpenAI's own Python client against `unmask serve` as a process with a tiny model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import openai
import pytest
from helpers.tiny_server import TOKEN, ServeProcess
from openai import AsyncOpenAI, OpenAI

from diffusion_core.net.client import HttpEngineClient
from diffusion_core.requests import CompletionRequest, Health

PROMPT, SUFFIX = "def add(a, b):\n", "\nend\n"


@pytest.fixture
def client(tiny_server: ServeProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{tiny_server.url}/v1", api_key=TOKEN, max_retries=0, timeout=60) as made:
        yield made


async def health(tiny_server: ServeProcess) -> Health:
    own = HttpEngineClient(tiny_server.url, TOKEN)
    try:
        return await own.health()
    finally:
        await own.aclose()


def test_models_are_listed_and_found_by_name(client: OpenAI, tiny_server: ServeProcess) -> None:
    assert [model.id for model in client.models.list()] == [tiny_server.model]
    assert client.models.retrieve(tiny_server.model).id == tiny_server.model
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found" and tiny_server.model in str(caught.value)
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="gpt-4", prompt=PROMPT)


def test_a_name_may_hold_anything_and_what_is_not_served_is_said_in_json(tiny_server: ServeProcess) -> None:
    for name in ("%0A", "a%0Ab", "a/b%0A", "%00"):
        answer = tiny_server.get(f"/v1/models/{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found"), name


def test_whole_numbers_may_be_written_with_a_point(tiny_server: ServeProcess) -> None:
    for path, number in (("/v1/completions", "max_tokens"), ("/infill", "n_predict")):
        answer = tiny_server.post(path, **{"prompt": "x", number: 3.0, "seed": 1.0, "top_k": 40.0})
        assert answer.status_code == 200, answer.text


async def test_a_completion_is_that_of_unmask_itself(client: OpenAI, tiny_server: ServeProcess) -> None:
    own = HttpEngineClient(tiny_server.url, TOKEN)
    expected = await own.complete(CompletionRequest(prefix=PROMPT, suffix=SUFFIX, max_tokens=40, stop_at_scope=False))
    await own.aclose()
    answer = await asyncio.to_thread(
        client.completions.create, model=tiny_server.model, prompt=PROMPT, suffix=SUFFIX, max_tokens=40
    )
    assert answer.choices[0].text == expected.text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage and answer.usage.completion_tokens == expected.num_tokens
    assert answer.usage.prompt_tokens == expected.num_prompt_tokens
    markers = f"<|fim_prefix|>{PROMPT}<|fim_suffix|>{SUFFIX}<|fim_middle|>"
    same = await asyncio.to_thread(client.completions.create, model=tiny_server.model, prompt=markers, max_tokens=40)
    assert same.choices[0].text == expected.text


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_adds_up_to_the_answer_whatever_its_bytes(client: OpenAI, seed: int) -> None:
    """Tokens are bytes here, so that characters outside ASCII come in several of them."""
    fields = {"model": "default", "prompt": PROMPT, "max_tokens": 200, "temperature": 1.0, "seed": seed}
    whole = client.completions.create(**fields)  # type: ignore[call-overload]
    events = list(client.completions.create(**fields, stream=True, stream_options={"include_usage": True}))  # type: ignore[call-overload]
    pieces = [event.choices[0].text for event in events if event.choices]
    assert "".join(pieces) == whole.choices[0].text
    assert any(ord(letter) > 127 for letter in whole.choices[0].text)
    assert len(pieces) > 10
    assert [event.choices[0].finish_reason for event in events if event.choices][-1] == "length"
    assert events[-1].usage and events[-1].usage.completion_tokens == 200


def test_several_answers_differ_where_they_are_drawn_and_agree_where_not(client: OpenAI) -> None:
    drawn = client.completions.create(model="", prompt=PROMPT, max_tokens=20, n=3, temperature=1.0, seed=7)
    assert len({choice.text for choice in drawn.choices}) == 3
    assert [choice.index for choice in drawn.choices] == [0, 1, 2]
    alone = client.completions.create(model="", prompt=PROMPT, max_tokens=20, temperature=1.0, seed=8)
    assert alone.choices[0].text == drawn.choices[1].text
    greedy = client.completions.create(model="", prompt=[PROMPT, "x"], max_tokens=20, n=2)
    texts = [choice.text for choice in greedy.choices]
    assert texts[0] == texts[1] != texts[2] == texts[3]
    streamed = client.completions.create(model="", prompt=[PROMPT, "x"], max_tokens=20, n=2, stream=True)
    found = dict.fromkeys(range(4), "")
    for event in streamed:
        found[event.choices[0].index] += event.choices[0].text
    assert list(found.values()) == texts


def test_texts_that_stop_an_answer_are_not_in_it_nor_in_its_stream(client: OpenAI) -> None:
    whole = client.completions.create(model="", prompt=PROMPT, max_tokens=60).choices[0].text
    stop = whole[25:28]
    stopped = client.completions.create(model="", prompt=PROMPT, max_tokens=60, stop=[stop, "never in it"]).choices[0]
    assert (stopped.text, stopped.finish_reason) == (whole[: whole.index(stop)], "stop")
    events = client.completions.create(model="", prompt=PROMPT, max_tokens=60, stop=stop, stream=True)
    assert "".join(event.choices[0].text for event in events) == stopped.text


def test_a_conversation_is_answered_whole_and_in_pieces(client: OpenAI, tiny_server: ServeProcess) -> None:
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    answer = client.chat.completions.create(model=tiny_server.model, messages=messages, max_tokens=30)  # type: ignore[call-overload]
    text = answer.choices[0].message.content
    assert text and answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 30
    events = list(
        client.chat.completions.create(
            model=tiny_server.model, messages=messages, max_completion_tokens=30, stream=True
        )  # type: ignore[call-overload]
    )
    assert events[0].choices[0].delta.role == "assistant"
    assert "".join(event.choices[0].delta.content or "" for event in events) == text
    guessed = client.chat.completions.create(  # type: ignore[call-overload]
        model=tiny_server.model, messages=messages, max_tokens=30, prediction={"type": "content", "content": text}
    )
    assert guessed.choices[0].message.content == text


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"echo": True}, "echo: not supported"),
        ({"logprobs": 1}, "logprobs: not supported"),
        ({"best_of": 3}, "best_of: not supported"),
        ({"presence_penalty": 0.5}, "presence_penalty: not supported"),
        ({"logit_bias": {"50256": -100}}, "logit_bias: not supported"),
        ({"temperature": -1.0}, "temperature: input should be greater"),
        ({"n": 100}, "n: input should be less"),
        ({"extra_body": {"echo": 0}}, "echo: not supported"),
        ({"extra_body": {"best_of": True}}, "best_of: not supported"),
        ({"stream_options": {"include_obfuscation": 0}}, "include_obfuscation"),
        ({"max_tokens": 2.5}, "max_tokens: input should be a valid integer"),
        ({"extra_body": {"surprise": 1}}, "surprise: unknown field"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"stop": [""]}, r"stop\[0\]: string should have at least 1"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: OpenAI, fields: dict[str, object], named: str) -> None:
    with pytest.raises(openai.BadRequestError, match=named) as caught:
        client.completions.create(**{"model": "", "prompt": "canary", **fields})  # type: ignore[call-overload]
    assert caught.value.type == "invalid_request_error"
    assert "canary" not in str(caught.value)


def test_tools_and_formats_are_refused_and_empty_ones_are_not(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    tool = {"type": "function", "function": {"name": "f"}}
    for fields in ({"tools": [tool]}, {"response_format": {"type": "json_object"}}, {"logprobs": True}):
        with pytest.raises(openai.BadRequestError, match="not supported here: leave it out"):
            client.chat.completions.create(model="", messages=messages, **fields)  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError, match=r"messages\[0\].role"):
        client.chat.completions.create(model="", messages=[{"role": "tool", "content": "x"}])  # type: ignore[list-item]
    fine = {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "max_tokens": 1}
    client.chat.completions.create(model="", messages=messages, **fine)  # type: ignore[call-overload]


def test_a_conversation_beyond_the_context_says_so(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="tokens of 4096") as caught:
        client.chat.completions.create(model="", messages=[{"role": "user", "content": "x" * 5000}])
    assert caught.value.code == "context_length_exceeded"


def test_without_the_token_nobody_gets_in(tiny_server: ServeProcess) -> None:
    with OpenAI(base_url=f"{tiny_server.url}/v1", api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError, match="bearer token is missing or wrong"):
            stranger.completions.create(model="", prompt=PROMPT)
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()


async def wait_until_idle(tiny_server: ServeProcess) -> Health:
    give_up = time.monotonic() + 10
    while (now := await health(tiny_server)).num_active:
        assert time.monotonic() < give_up, "the engine goes on without its client"
        await asyncio.sleep(0.02)
    return now


@pytest.fixture
async def many(tiny_server: ServeProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{tiny_server.url}/v1", api_key=TOKEN, max_retries=0, timeout=60) as made:
        yield made


async def test_the_engine_stops_when_a_stream_is_left(many: AsyncOpenAI, tiny_server: ServeProcess) -> None:
    stream = await many.chat.completions.create(
        model="", messages=[{"role": "user", "content": "Go on."}], max_tokens=3000, temperature=1.0, n=2, stream=True
    )
    async for event in stream:
        if event.choices[0].delta.content:
            break
    assert (await health(tiny_server)).num_active == 2
    await stream.close()
    stopped = await wait_until_idle(tiny_server)
    await asyncio.sleep(0.3)
    assert (await health(tiny_server)).num_forwards == stopped.num_forwards


async def test_the_engine_stops_when_patience_ends(many: AsyncOpenAI, tiny_server: ServeProcess) -> None:
    with pytest.raises(openai.APITimeoutError):
        await many.completions.create(model="", prompt=PROMPT, max_tokens=2000, temperature=1.0, timeout=0.3)
    stopped = await wait_until_idle(tiny_server)
    await asyncio.sleep(0.3)
    assert (await health(tiny_server)).num_forwards == stopped.num_forwards


async def test_many_clients_at_once_get_their_own_answers(many: AsyncOpenAI) -> None:
    prompts = [f"def f{number}():\n" for number in range(8)]
    together = await asyncio.gather(
        *(many.completions.create(model="", prompt=prompt, max_tokens=12) for prompt in prompts)
    )
    for prompt, answer in zip(prompts, together, strict=True):
        alone = await many.completions.create(model="", prompt=prompt, max_tokens=12)
        assert alone.choices[0].text == answer.choices[0].text


def test_no_tokens_wanted_means_that_the_prompt_is_prepared(client: OpenAI) -> None:
    prompt = "import os\n" * 30
    nothing = client.completions.create(model="", prompt=prompt, max_tokens=0)
    assert (nothing.choices[0].text, nothing.choices[0].finish_reason) == ("", "length")
    answer = client.completions.create(model="", prompt=prompt, max_tokens=1)
    assert answer.usage and answer.usage.prompt_tokens_details
    assert answer.usage.prompt_tokens_details.cached_tokens == answer.usage.prompt_tokens - 1
    events = list(
        client.completions.create(
            model="", prompt=prompt, max_tokens=0, n=2, stream=True, stream_options={"include_usage": True}
        )
    )
    assert [(choice.text, choice.finish_reason) for event in events for choice in event.choices] == [("", "length")] * 2
    assert not events[-1].choices and events[-1].usage and events[-1].usage.completion_tokens == 0


def test_a_conversation_of_no_tokens_is_refused_and_never_takes_another_number(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    for fields in ({"max_tokens": 0}, {"max_completion_tokens": 0}, {"max_completion_tokens": 0, "max_tokens": 50}):
        with pytest.raises(openai.BadRequestError, match="tokens: input should be greater than or equal to 1") as no:
            client.chat.completions.create(model="", messages=messages, **fields)  # type: ignore[call-overload]
        assert no.value.param == next(iter(fields))
    both = client.chat.completions.create(
        model="",
        messages=messages,
        max_completion_tokens=2,
        max_tokens=50,  # type: ignore[arg-type]
    )
    assert both.usage and both.usage.completion_tokens <= 2
