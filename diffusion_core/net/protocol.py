"""The wire format: tagged, versioned msgpack messages.

Every message is a map ``{"v": PROTOCOL_VERSION, "t": tag, "d": payload}``; a stream is a sequence of such maps. What
arrives is distrusted: size, nesting, types and names are checked before an object exists, and every refusal is a
:class:`ProtocolMismatch` (not our protocol, or another version) or an :class:`InvalidRequest` (a payload that does
not fit), both naming the field and never a value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import msgpack
from cattrs import BaseValidationError

from diffusion_core.errors import InvalidRequest, ProtocolMismatch, UnmaskError, error_from_code
from diffusion_core.net.structuring import MAX_CHARACTERS, describe_problems, make_strict_converter
from diffusion_core.requests import CompletionRequest, EditRequest, Health, PreviewFrame, Result, WarmRequest

PROTOCOL_VERSION = 2
CONTENT_TYPE = "application/msgpack"

MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # of an answer; requests are bounded by ``ServerConfig.max_request_bytes``
_NIL = b"\xc0"
_MAX_MAP = 128
_MAX_LIST = 4096
_INTERNAL_MESSAGE = "internal error"


@dataclass(frozen=True, slots=True, kw_only=True)
class WireError:
    """An error on its way to the client: the code of its class, and a message for a person."""

    code: str
    message: str
    retryable: bool

    @classmethod
    def of(cls, error: UnmaskError) -> WireError:
        """The message for an error raised on purpose."""
        text = str(error) or _INTERNAL_MESSAGE
        limit = MAX_CHARACTERS["message"]
        text = text if len(text) <= limit else text[: limit - 3] + "..."
        return cls(code=error.code, message=text, retryable=error.retryable)

    def as_exception(self) -> UnmaskError:
        """The error as it was raised on the other side."""
        return error_from_code(self.code, self.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmDone:
    """The answer to a warm-up."""


Message = CompletionRequest | EditRequest | WarmRequest | Result | PreviewFrame | Health | WireError | WarmDone
M = TypeVar("M", bound=Message)

TAGS: Mapping[str, type[Message]] = MappingProxyType(
    {
        "complete": CompletionRequest,
        "edit": EditRequest,
        "warm": WarmRequest,
        "result": Result,
        "preview": PreviewFrame,
        "health": Health,
        "error": WireError,
        "done": WarmDone,
    }
)
_TAG_OF: Mapping[object, str] = MappingProxyType({cls: tag for tag, cls in TAGS.items()})
_CONVERTER = make_strict_converter()


def encode(message: Message) -> bytes:
    """One message as bytes.

    Raises:
        InvalidRequest: a text is not Unicode (a lone surrogate) or a number does not fit 64 bits.
    """
    payload = _CONVERTER.unstructure(message)
    try:
        packed: bytes = msgpack.packb({"v": PROTOCOL_VERSION, "t": _TAG_OF[type(message)], "d": payload})
    except UnicodeEncodeError:
        path = _find_surrogate(payload, _TAG_OF[type(message)])
        raise InvalidRequest(f"{path} holds half a surrogate pair: it cannot be sent as Unicode text") from None
    except OverflowError:
        raise InvalidRequest("a number does not fit 64 bits") from None
    return packed


def decode(data: bytes, *expected: type[M]) -> M:
    """The single message in ``data``, which must be one of the ``expected`` classes.

    Raises:
        ProtocolMismatch: not msgpack, another protocol version, an unknown or unexpected kind of message.
        InvalidRequest: a field is missing, unknown, of the wrong type or out of its limits.
    """
    reader = MessageReader(*expected, max_bytes=len(data) + len(_NIL))
    messages = reader.feed(data)
    reader.finish()
    if len(messages) != 1:
        raise ProtocolMismatch(f"one message expected, {len(messages)} given")
    return messages[0]


def structure_json(body: bytes, expected: type[M]) -> M:
    """The payload of an ``expected`` message as JSON; taken as strictly as :func:`decode` does.

    Raises:
        InvalidRequest: no JSON, no Unicode, or a field is missing, unknown, of the wrong type or out of its limits.
    """
    try:
        # What it cannot hold (half a surrogate pair, a number of 65 bits) no message can.
        packed = msgpack.packb(json.loads(body))
    except (ValueError, OverflowError, RecursionError):
        raise InvalidRequest("the body is not valid JSON in UTF-8") from None
    try:
        # Looked at item by item, a list of half a million wrong ones would stop the server for seconds.
        payload = msgpack.unpackb(packed, max_array_len=_MAX_LIST, max_map_len=_MAX_MAP)
    except ValueError:
        raise InvalidRequest(
            f"the body holds a list of more than {_MAX_LIST} items or an object of more than {_MAX_MAP} fields"
        ) from None
    return _structure(payload, expected, _TAG_OF[expected])


class MessageReader(Generic[M]):
    """Cuts a stream of bytes into messages, each one of the ``expected`` classes.

    Nothing larger than ``max_bytes`` is ever buffered.
    """

    def __init__(self, *expected: type[M], max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._expected = expected
        self._max_bytes = max_bytes
        self._unpacker = msgpack.Unpacker(
            max_buffer_size=max_bytes,
            max_str_len=max_bytes,
            max_bin_len=0,
            max_ext_len=0,
            max_array_len=_MAX_LIST,
            max_map_len=_MAX_MAP,
            strict_map_key=True,
        )

    def feed(self, data: bytes) -> list[M]:
        """The messages that ``data`` completes.

        Raises:
            ProtocolMismatch: see :func:`decode`; also when a message is larger than allowed.
            InvalidRequest: see :func:`decode`.
        """
        return [self._open(value) for value in self._unpack(data)]

    def finish(self) -> None:
        """Check that the stream ended between two messages.

        Raises:
            ProtocolMismatch: the last message is cut off.
        """
        # The unpacker does not tell whether it is inside a message: a nil between two messages comes out as a nil.
        try:
            is_between = self._unpack(_NIL) == [None]
        except ProtocolMismatch:
            is_between = False
        if not is_between:
            raise ProtocolMismatch("the last message is cut off")

    def _unpack(self, data: bytes) -> list[Any]:
        try:
            self._unpacker.feed(data)
            return list(self._unpacker)
        except msgpack.BufferFull:
            raise ProtocolMismatch(f"a message is larger than {self._max_bytes} bytes") from None
        except (ValueError, msgpack.UnpackException, RecursionError):
            # The library's own message may quote the data, so it is dropped.
            raise ProtocolMismatch("what arrived is not a valid msgpack message") from None

    def _open(self, envelope: Any) -> M:
        if not isinstance(envelope, dict) or not {"v", "t", "d"} <= envelope.keys():
            raise ProtocolMismatch("what arrived is not a message of Unmask: v, t and d are expected")
        version, tag = envelope["v"], envelope["t"]
        if type(version) is not int or version != PROTOCOL_VERSION:
            given = version if type(version) is int else "unknown"
            raise ProtocolMismatch(
                f"the other side speaks protocol version {given}, this one {PROTOCOL_VERSION}: "
                "install the same version of Unmask on both"
            )
        cls = TAGS.get(tag) if isinstance(tag, str) else None
        if cls is None or len(envelope) != 3:
            raise ProtocolMismatch("unknown kind of message" if cls is None else "a message has more than v, t and d")
        if not issubclass(cls, self._expected):
            wanted = " or ".join(_TAG_OF[each] for each in self._expected)
            raise ProtocolMismatch(f"unexpected message {tag}: {wanted} is expected here")
        return _structure(envelope["d"], cls, tag)


def _structure(payload: Any, cls: type[M], tag: str) -> M:
    try:
        return _CONVERTER.structure(payload, cls)
    except (BaseValidationError, ValueError, InvalidRequest) as error:
        raise InvalidRequest(describe_problems(error, tag)) from None


def _find_surrogate(value: Any, path: str) -> str:
    """The path of the first text that is no valid Unicode; ``path`` itself if there is none."""
    if isinstance(value, str):
        return path
    children: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        children = [(f"{path}.{key}", child) for key, child in value.items()]
    elif isinstance(value, list | tuple):
        children = [(f"{path}[{index}]", child) for index, child in enumerate(value)]
    for child_path, child in children:
        if _holds_surrogate(child):
            return _find_surrogate(child, child_path)
    return path


def _holds_surrogate(value: Any) -> bool:
    try:
        msgpack.packb(value)
    except UnicodeEncodeError:
        return True
    return False
