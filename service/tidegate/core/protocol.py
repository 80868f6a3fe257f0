"""Commands in, events out: the JSON of the WebSocket, decoded and encoded. Source: docs/protocol.md.

``data`` stays raw: it is validated while the command around it is decoded and embedded again as it came, byte
for byte. Events list their keys in the documented order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias, get_args

import msgspec

from tidegate.core.errors import BadRequest, Refused, TooDeep, TooLarge, UnknownCommand
from tidegate.core.model import KEY_CHARACTERS, TRACEPARENT, Gap, History, Message, Position, is_id, is_position

SUBPROTOCOL = "tidegate.v1"

Id: TypeAlias = Annotated[str, msgspec.Meta(max_length=64)] | Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


Traceparent: TypeAlias = Annotated[str, msgspec.Meta(pattern=rf"^{TRACEPARENT}\Z")]


class _Command(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", gc=False):
    id: Id


class Join(_Command, tag="join"):
    group: str
    epoch: str | None = None
    offset: int | None = None


class Leave(_Command, tag="leave"):
    group: str


class Publish(_Command, tag="publish"):
    group: str
    data: msgspec.Raw
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_CHARACTERS)] | None = None
    conflate: str | None = None
    traceparent: Traceparent | None = None


class ReadHistory(_Command, tag="history"):
    group: str
    epoch: str | None = None
    offset: int | None = None
    limit: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 100  # 0: the position only


class ReadPresence(_Command, tag="presence"):
    group: str


class Call(_Command, tag="call"):
    method: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    traceparent: Traceparent | None = None


class Refresh(_Command, tag="refresh"):
    token: str


class Ping(_Command, tag="ping"):
    pass


Command = Join | Leave | Publish | ReadHistory | ReadPresence | Call | Refresh | Ping
TYPES = tuple(str(kind.__struct_config__.tag) for kind in get_args(Command))

_decode = msgspec.json.Decoder(Command).decode
_encode = msgspec.json.Encoder().encode
_probe = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_id = msgspec.json.Decoder(Id).decode
# Possessive, and without a need for its end: a string that never ends costs no more than another.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


class NotUnderstood(Exception):
    """A message that is no command. ``id`` is the command's, None where it has none that can be given back;
    ``error`` says what is wrong. ``one_too_many``: the connection ends with it (4500)."""

    def __init__(self, id: str | int | None, error: Refused) -> None:
        self.id = id
        self.error = error
        self.one_too_many = False
        super().__init__(str(error))


def decode_command(payload: bytes, *, depth: int) -> Command:
    """One command. ``payload`` is valid UTF-8 already. Raises NotUnderstood."""
    try:
        check_depth(payload, depth)
        command: Command = _decode(payload)
    except TooDeep as exc:
        raise NotUnderstood(_id_of(payload), exc) from None
    except msgspec.ValidationError as exc:
        raise NotUnderstood(_id_of(payload), _explain(exc)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise NotUnderstood(None, BadRequest("not valid JSON, or half a surrogate pair in a string")) from None
    return command


def _explain(exc: msgspec.ValidationError) -> Refused:
    text = str(exc)
    if text.endswith(" - at `$.type`") or text == "Object missing required field `type`":
        return UnknownCommand(f"type must be one of {', '.join(TYPES)}")
    return BadRequest(text)


def _id_of(payload: bytes) -> str | int | None:
    """The id of a command that could not be decoded, so that its sender can tell which it was."""
    try:
        id: str | int = _decode_id(_probe(payload)["id"])
    except (msgspec.MsgspecError, RecursionError, KeyError, UnicodeError):
        return None
    return id


def check_depth(payload: bytes, most: int) -> None:
    """Raises TooDeep if arrays and objects nest deeper than ``most``. Most messages are shorter than that, or have
    fewer brackets in all, and counting runs at memory speed."""
    if len(payload) <= most or payload.count(b"[") + payload.count(b"{") <= most:
        return
    depth = 0
    for byte in _STRING.sub(b"", payload):
        if byte in b"[{":
            depth += 1
            if depth > most:
                raise TooDeep(f"nested deeper than {most} levels")
        elif byte in b"]}":
            depth -= 1


def check_group(group: str) -> str:
    """The group's name. Raises BadRequest."""
    if not is_id(group):
        raise BadRequest("group: 1-128 characters of A-Z a-z 0-9 _ . @ -, not of dots only")
    return group


def check_size(data: bytes, most: int) -> bytes:
    """Raises TooLarge if ``data`` is longer than ``most`` bytes."""
    if len(data) > most:
        raise TooLarge(f"data is {len(data)} bytes, more than {most}")
    return data


def position_of(epoch: str | None, offset: int | None) -> Position | None:
    """The position that two optional fields make. Raises BadRequest if one is missing or malformed."""
    if epoch is None and offset is None:
        return None
    if epoch is None or offset is None:
        raise BadRequest("epoch and offset belong together")
    position = Position(epoch, offset)
    if not is_position(position):
        raise BadRequest("epoch or offset is malformed")
    return position


# Events


def encode_message(message: Message) -> bytes:
    """The hot one, put together by hand: every part but ``data`` is of an alphabet that needs no escape."""
    if message.client is None:
        return b'{"type":"message","stream":"%b","epoch":"%b","offset":%d,"time":%d,"data":%b}' % (
            message.stream.encode(),
            message.epoch.encode(),
            message.offset,
            message.time_ms,
            message.data,
        )
    return b'{"type":"message","stream":"%b","epoch":"%b","offset":%d,"time":%d,"client":"%b","data":%b}' % (
        message.stream.encode(),
        message.epoch.encode(),
        message.offset,
        message.time_ms,
        message.client.encode(),
        message.data,
    )


def gap_fields(gap: Gap) -> dict[str, object]:
    return {"stream": gap.stream, "epoch": gap.epoch, "from": gap.first, "to": gap.last, "reason": gap.reason}


def encode_gap(gap: Gap) -> bytes:
    return _encode({"type": "gap", **gap_fields(gap)})


def encode_welcome(
    client: str,
    connection: str,
    node: str,
    ping_interval: float,
    ping_timeout: float,
    limits: Mapping[str, int],
    streams: Mapping[str, Mapping[str, object]],
) -> bytes:
    return _encode(
        {
            "type": "welcome",
            "client": client,
            "connection": connection,
            "node": node,
            "ping_interval": _plain(ping_interval),
            "ping_timeout": _plain(ping_timeout),
            "limits": limits,
            "streams": streams,
        }
    )


def _plain(number: float) -> float | int:
    """30.0 as 30, as people write it."""
    return int(number) if number == int(number) else number


def encode_joined(stream: str, fields: Mapping[str, object]) -> bytes:
    return _encode({"type": "joined", "stream": stream, **fields})


def encode_left(stream: str, reason: str) -> bytes:
    """``reason``: removed or not_allowed."""
    return _encode({"type": "left", "stream": stream, "reason": reason})


def encode_expiring(seconds: int) -> bytes:
    return _encode({"type": "expiring", "seconds": seconds})


def encode_moving(within_s: float) -> bytes:
    return _encode({"type": "moving", "within": _plain(within_s)})


def encode_reply(id: str | int, fields: Mapping[str, object]) -> bytes:
    return _encode({"type": "reply", "id": id, **fields})


def encode_call_reply(id: str | int, status: int, data: bytes) -> bytes:
    return _encode({"type": "reply", "id": id, "status": status, "data": msgspec.Raw(data)})


def encode_error(id: str | int | None, error: Refused) -> bytes:
    return _encode({"type": "error", "id": id, "code": error.code, "message": error.message})


def encode_pong(id: str | int, cursor: str | None) -> bytes:
    """Put together by hand: a cursor is of an alphabet that needs no escape, and long."""
    if cursor is None:
        return b'{"type":"pong","id":%b,"cursor":null}' % _encode(id)
    return b'{"type":"pong","id":%b,"cursor":"%b"}' % (_encode(id), cursor.encode())


def history_fields(history: History, size: int) -> dict[str, object]:
    """A journal's page as an answer, cut so that its messages stay within ``size`` bytes.
    ``more`` says that the stream goes on after the last one."""
    messages: list[msgspec.Raw] = []
    for message in history.messages:
        fields: dict[str, object] = {"offset": message.offset, "time": message.time_ms}
        if message.client is not None:
            fields["client"] = message.client
        fields["data"] = msgspec.Raw(message.data)
        raw = _encode(fields)
        size -= len(raw) + 1
        if size < 0 and messages:
            break
        messages.append(msgspec.Raw(raw))
    answer: dict[str, object] = {
        "epoch": history.start.epoch,
        "offset": history.start.offset,
        "top": history.top,
        "messages": messages,
        "more": history.start.offset + len(messages) < history.top,
    }
    if history.gap is not None:
        answer["gap"] = gap_fields(history.gap)
    return answer


def cut(names: Sequence[str], size: int) -> Sequence[str]:
    """As many of ``names`` as fit into ``size`` bytes of JSON."""
    for count, name in enumerate(names):
        size -= len(name) + 3
        if size < 0:
            return names[:count]
    return names
