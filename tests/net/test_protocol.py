"""The wire format: what goes in comes out, and nothing else gets through."""

from __future__ import annotations

import json
import string
from dataclasses import fields, replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.decoding_report import DecodingReport, DraftReport, ForwardCost
from diffusion_core.errors import (
    InvalidRequest,
    Overloaded,
    ProtocolMismatch,
    UnmaskError,
    _walk,
)
from diffusion_core.net.protocol import (
    PROTOCOL_VERSION,
    TAGS,
    MessageReader,
    WarmDone,
    WireError,
    decode,
    encode,
    structure_json,
)
from diffusion_core.requests import (
    OMIT_DEFAULT,
    CompletionRequest,
    DecodingParams,
    EditRequest,
    FinishReason,
    Health,
    LoadSummary,
    ModelStatus,
    Policy,
    PreviewFrame,
    Result,
    SamplingParams,
    Snippet,
    Timings,
    WarmRequest,
)

unhurried = settings(deadline=None)  # a busy machine is no failure
SECRET = "s3cret_source_code"

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
label = st.text(string.ascii_letters + string.digits + "-._ ", max_size=20)
ids = st.text(string.ascii_letters + string.digits + "._:-", min_size=1, max_size=64)
count = st.integers(0, 2**40)
milliseconds = st.floats(0, 1e9)

decoding = st.builds(
    DecodingParams,
    policy=st.sampled_from(Policy),
    block_size=st.integers(0, 256),
    tau=st.floats(0.01, 1),
    tau_low=st.floats(0, 0.99),
    num_per_step=st.integers(1, 256),
    use_lookup=st.booleans(),
    use_mask_drafts=st.booleans(),
)
sampling = st.builds(
    SamplingParams, temperature=st.floats(0, 5), top_p=st.floats(0.01, 1), seed=st.integers(0, 2**63 - 1)
)
snippets = st.lists(st.builds(Snippet, path=label, text=text), max_size=3).map(tuple)
shared: dict[str, Any] = {
    "language": label,
    "path": label,
    "snippets": snippets,
    "max_tokens": st.integers(0, 8192),
    "deadline_ms": count,
    "model": label,
    "decoding": decoding,
    "sampling": sampling,
    "id": ids,
}
completions = st.builds(
    CompletionRequest,
    prefix=text,
    suffix=text,
    last_suggestion=text,
    repository=label,
    num_alternatives=st.integers(0, 8),
    alternatives_ms=count,
    single_line=st.booleans(),
    stop_at_scope=st.booleans(),
    **shared,
)
edits = st.builds(EditRequest, selection=text, instruction=text.filter(str.strip), before=text, after=text, **shared)
results = st.builds(
    Result,
    id=ids,
    text=text,
    finish_reason=st.sampled_from(FinishReason),
    num_forwards=count,
    num_tokens=count,
    num_prompt_tokens=count,
    num_reused_tokens=count,
    num_computed_tokens=count,
    timings=st.builds(
        Timings, queue_ms=milliseconds, prefill_ms=milliseconds, denoise_ms=milliseconds, total_ms=milliseconds
    ),
    model=label,
    policy=label,
    notice=text,
    alternatives=st.lists(text, max_size=3).map(tuple),
)
healths = st.builds(
    Health,
    status=label,
    version=label,
    device=label,
    dtype=label,
    models=st.lists(
        st.builds(ModelStatus, name=label, task=label, state=label, detail=text, memory_bytes=count), max_size=3
    ).map(tuple),
    memory_bytes=count,
    num_active=count,
    num_completed=count,
    num_forwards=count,
    uptime_ms=milliseconds,
    latency_p50_ms=milliseconds,
    latency_p95_ms=milliseconds,
    notices=st.lists(text, max_size=3).map(tuple),
    decoding=st.lists(
        st.builds(
            DecodingReport,
            model=label,
            num_threads=count,
            costs=st.lists(
                st.builds(ForwardCost, rows=count, body_ms=milliseconds, head_ms=milliseconds, slots_ms=milliseconds),
                max_size=3,
            ).map(tuple),
            pace=milliseconds,
            block_size=count,
            round_shape=label,
            num_rounds=count,
            num_tokens=count,
            drafts=st.lists(
                st.builds(
                    DraftReport,
                    source=label,
                    num_drafts=count,
                    num_drafted=count,
                    num_accepted=count,
                    acceptance=st.lists(milliseconds, max_size=4).map(tuple),
                ),
                max_size=3,
            ).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
)
messages = st.one_of(
    completions,
    edits,
    completions.map(lambda request: WarmRequest(completion=request)),
    edits.map(lambda request: WarmRequest(edit=request)),
    results,
    st.builds(PreviewFrame, id=ids, settled=text, unsettled=text),
    healths,
    st.builds(WireError, code=label, message=text, retryable=st.booleans()),
    st.just(WarmDone()),
)
every_kind = tuple(TAGS.values())


def pack(payload: Any, tag: Any = "complete", version: Any = PROTOCOL_VERSION, **more: Any) -> bytes:
    return msgpack.packb({"v": version, "t": tag, "d": payload, **more})


@unhurried
@given(messages)
def test_every_message_survives_the_wire(message: Any) -> None:
    assert decode(encode(message), *every_kind) == message


@unhurried
@given(st.lists(messages, min_size=1, max_size=5), st.data())
def test_a_stream_is_read_in_any_pieces(sent: list[Any], data: st.DataObject) -> None:
    stream = b"".join(encode(message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = MessageReader(*every_kind)
    received = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += reader.feed(stream[begin:end])
    reader.finish()
    assert received == sent


@unhurried
@given(st.binary(max_size=300))
def test_random_bytes_raise_typed_errors_only(data: bytes) -> None:
    with pytest.raises((ProtocolMismatch, InvalidRequest)):
        decode(data, *every_kind)


@unhurried
@given(messages, st.data())
def test_damaged_messages_are_read_or_refused_with_a_typed_error(message: Any, data: st.DataObject) -> None:
    packed = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    packed = packed[: data.draw(st.integers(0, len(packed)))]
    try:
        decode(bytes(packed), *every_kind)
    except (ProtocolMismatch, InvalidRequest) as error:
        assert str(error)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | text | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@unhurried
@given(messages, st.data())
def test_a_field_with_any_other_content_is_read_or_refused(message: Any, data: st.DataObject) -> None:
    envelope = msgpack.unpackb(encode(message))
    target = envelope["d"]
    while isinstance(target, dict) and target:
        key = data.draw(st.sampled_from(sorted(target)))
        if isinstance(target[key], dict) and data.draw(st.booleans()):
            target = target[key]
            continue
        target[key] = data.draw(plain)
        break
    try:
        read = decode(msgpack.packb(envelope), *every_kind)
    except (ProtocolMismatch, InvalidRequest):
        return
    # What gets through holds the declared types exactly.
    assert decode(encode(read), *every_kind) == read


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({}, "complete.prefix: missing field"),
        ({"prefix": 1}, "complete.prefix: text expected, int given"),
        ({"prefix": None}, "complete.prefix: text expected, nil given"),
        ({"prefix": SECRET, "sufix": ""}, "complete: unknown field sufix"),
        ({"prefix": "a", "single_line": 1}, "complete.single_line: bool expected, int given"),
        ({"prefix": "a", "max_tokens": True}, "complete.max_tokens: int expected, bool given"),
        ({"prefix": "a", "max_tokens": 1.0}, "complete.max_tokens: int expected, float given"),
        ({"prefix": "a", "max_tokens": -1}, "complete: max_tokens is -1"),
        ({"prefix": "a", "snippets": SECRET}, "complete.snippets: list expected, text given"),
        ({"prefix": "a", "snippets": {}}, "complete.snippets: list expected, map given"),
        ({"prefix": "a", "snippets": [{"path": "b", "text": 3}]}, "complete.snippets[0].text: text expected"),
        ({"prefix": "a", "snippets": [{"path": 1}] * 4000}, "complete.snippets: 4000 items given, 64 allowed"),
        ({"prefix": "a", "stop": [SECRET] * 65}, "complete.stop: 65 items given, 64 allowed"),
        ({"prefix": "a", "decoding": {"policy": SECRET}}, "complete.decoding.policy: one of auto"),
        ({"prefix": "a", "decoding": []}, "complete.decoding: map expected, list given"),
        ({"prefix": "a", "sampling": {"temperature": "1"}}, "complete.sampling.temperature: number expected"),
        ({"prefix": "a", "sampling": {"temperature": True}}, "complete.sampling.temperature: number expected"),
        ({"prefix": "a", "sampling": {"temperature": float("nan")}}, "sampling.temperature is nan"),
        ({"prefix": "a", "language": SECRET * 10}, "complete.language: 180 characters given, 64 allowed"),
        ({"prefix": "a", "id": "a\nb"}, "complete.id: 1 to 64 letters"),
        ({"prefix": "a", "id": ""}, "complete.id: 1 to 64 letters"),
        ([SECRET], "complete: map expected, list given"),
        (SECRET, "complete: map expected, text given"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_by_name(payload: Any, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(pack(payload), CompletionRequest)
    assert problem in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "one message expected, 0 given"),
        (pack({"prefix": "a"})[:-1], "cut off"),
        (pack({"prefix": "a"}) * 2, "one message expected, 2 given"),
        (pack({"prefix": "a"}) + b"\x01", "not a message of Unmask"),
        (b"\xc1", "not a valid msgpack message"),
        (msgpack.packb([1, 2]), "not a message of Unmask"),
        (msgpack.packb({"v": 1, "t": "complete"}), "not a message of Unmask"),
        (pack({"prefix": "a"}, version=3), "protocol version 3, this one 2"),
        (pack({"prefix": "a"}, version=True), "protocol version unknown"),
        (pack({"prefix": "a"}, version="1"), "protocol version unknown"),
        (pack({"prefix": "a"}, tag="comlete"), "unknown kind of message"),
        (pack({"prefix": "a"}, tag=["complete"]), "unknown kind of message"),
        (pack({"prefix": "a"}, tag="edit"), "unexpected message edit: complete is expected"),
        (pack({"prefix": "a"}, extra=1), "more than v, t and d"),
        (pack({"prefix": b"bytes"}), "not a valid msgpack message"),  # no field is binary
        (pack({"prefix": msgpack.ExtType(1, b"x")}), "not a valid msgpack message"),
        (pack({1: 2}), "not a valid msgpack message"),
        (b"\x91" * 100_000 + b"\x00", "not a valid msgpack message"),
        (b"\xdd\xff\xff\xff\xff", "not a valid msgpack message"),
        (b"\xdb\xff\xff\xff\xff", "cut off"),
        (pack({"prefix": "a", "snippets": [{}] * 5000}), "not a valid msgpack message"),
        (b"\x83\xa1v\x01\xa1t\xa8complete\xa1d\x81\xa6prefix\xa2\xff\xfe", "not a valid msgpack message"),
    ],
)
def test_what_is_not_one_message_of_ours_is_a_mismatch(data: bytes, problem: str) -> None:
    with pytest.raises(ProtocolMismatch, match=problem):
        decode(data, CompletionRequest)


@pytest.mark.parametrize(
    "payload",
    [
        {"prefix": "a", "snippets": [SECRET] * 5000},
        {"prefix": "a", "snippets": [{"path": "b", "text": [SECRET] * 5000}]},
        {"prefix": "a", **{f"{SECRET}_{number}": 1 for number in range(200)}},
    ],
)
def test_json_with_more_items_than_a_message_has_is_refused_without_a_look_at_each(payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="a list of more than 4096 items or an object of more than 128") as caught:
        structure_json(json.dumps(payload).encode(), CompletionRequest)
    assert SECRET not in str(caught.value)


def test_fields_with_a_default_may_be_left_out() -> None:
    request = decode(pack({"prefix": "a", "sampling": {"temperature": 1}}), CompletionRequest)
    assert request.sampling == SamplingParams(temperature=1.0)
    assert type(request.sampling.temperature) is float
    assert request.max_tokens == 0


def test_unknown_field_names_that_could_be_code_are_not_repeated() -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(pack({"prefix": "a", f"x = {SECRET}(1)": 1}), CompletionRequest)
    assert SECRET not in str(caught.value)
    assert "unknown field" in str(caught.value)


def test_half_a_surrogate_pair_is_refused_before_it_is_sent() -> None:
    request = CompletionRequest(prefix="a", snippets=(Snippet(path="p", text="ok"), Snippet(path="p", text="\ud83d")))
    with pytest.raises(InvalidRequest, match=r"complete\.snippets\[1\]\.text holds half a surrogate pair"):
        encode(request)


@unhurried
@given(messages, st.data())
def test_a_stream_that_ends_inside_a_message_is_noticed(message: Any, data: st.DataObject) -> None:
    packed = encode(message)
    reader = MessageReader(*every_kind)
    reader.feed(packed + packed[: data.draw(st.integers(1, len(packed) - 1))])
    with pytest.raises(ProtocolMismatch, match="cut off"):
        reader.finish()


def test_a_message_larger_than_the_reader_allows_is_refused_without_buffering_it() -> None:
    reader = MessageReader(PreviewFrame, max_bytes=1000)
    with pytest.raises(ProtocolMismatch, match="larger than 1000 bytes"):
        for _ in range(100):
            reader.feed(b"\xdb\x00\x00\x03\xe0" + b"x" * 30)
            reader.feed(b"x" * 500)


def test_every_error_class_comes_back_as_itself() -> None:
    # Other packages derive errors of their own (training does), which never cross the wire.
    for cls in (cls for cls in _walk(UnmaskError) if cls.__module__ == UnmaskError.__module__):
        sent = WireError.of(cls("what to do"))
        received = decode(encode(sent), WireError).as_exception()
        assert type(received) is cls
        assert str(received) == "what to do"
    assert WireError.of(Overloaded("full")).retryable


def test_an_error_with_a_very_long_message_still_fits() -> None:
    sent = WireError.of(UnmaskError("x" * 100_000))
    assert decode(encode(sent), WireError).message.endswith("...")


def test_every_field_of_every_message_is_sent() -> None:
    """A field that the sender leaves out would silently become its default on the other side.

    Fields that came after their message are left out at their default: nothing else.
    """
    request = CompletionRequest(prefix="a")
    left_out = {field.name for field in fields(request) if field.metadata == OMIT_DEFAULT}
    assert left_out == {"stop", "min_indent", "line_ms"}
    assert set(msgpack.unpackb(encode(request))["d"]) == {field.name for field in fields(request)} - left_out
    request = replace(request, stop=("b",), min_indent=1, line_ms=1)
    assert set(msgpack.unpackb(encode(request))["d"]) == {field.name for field in fields(request)}


def test_a_health_without_reports_is_what_it_was_before_there_were_any() -> None:
    """A client of the same protocol version that came before them refuses fields that it does not know."""
    plain = Health(status="ready", version="1", device="cpu", dtype="bfloat16")
    names = msgpack.unpackb(encode(plain))["d"].keys()
    assert names == {
        "status", "version", "device", "dtype", "models", "memory_bytes", "num_active", "num_completed",
        "num_forwards", "uptime_ms", "latency_p50_ms", "latency_p95_ms", "notices",
    }  # fmt: skip
    told = replace(plain, decoding=(DecodingReport(model="m"),))
    assert msgpack.unpackb(encode(told))["d"].keys() == names | {"decoding"}
    loaded = replace(plain, load=LoadSummary(num_queued=2, cache_hit_rate=0.5))
    assert msgpack.unpackb(encode(loaded))["d"].keys() == names | {"load"}
    assert decode(encode(loaded), Health) == loaded
