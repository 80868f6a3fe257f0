"""Reads the settings and refuses what cannot be meant; ``tidegate.config.settings`` says which there are.

A setting comes from the environment (``TIDEGATE_SERVER__PORT``), else from the YAML file, else it has its default.
First each value is looked at by itself, then, if all are right, whether they contradict each other.
``python -m tidegate.config.load`` prints config.yaml. Source: docs/operations.md, Configuration.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeGuard, TypeVar, get_args, get_type_hints

import msgspec
import yaml
from msgspec import inspect

from tidegate.config.auth import NamedApiKey, NamedKey
from tidegate.config.contradictions import contradictions, is_loopback
from tidegate.config.endpoints import bracketed
from tidegate.config.section import Section
from tidegate.config.settings import Config, GroupPolicy
from tidegate.config.shown import MASK, SECRETS, URLS, masked, shown
from tidegate.core.errors import Unusable
from tidegate.core.patterns import is_pattern

__all__ = [
    "Config",
    "ConfigError",
    "GroupPolicy",
    "Problem",
    "default_yaml",
    "effective",
    "is_loopback",
    "load",
    "take",
    "warnings",
]

PREFIX = "TIDEGATE_"
# The file; the key of the commands that call the API; the token of the doctor.
NOT_SETTINGS = ("TIDEGATE_CONFIG", "TIDEGATE_API_KEY", "TIDEGATE_TOKEN")
_ITEMS: dict[str, type[Section]] = {"auth.keys": NamedKey, "internal.api_keys": NamedApiKey}  # lists of sections
# A running node takes these when it reads its settings again.
TAKEN = ("auth.key", "auth.key_file", "auth.keys", "auth.jwks_file", "internal.api_keys", "groups")

S = TypeVar("S", bound=Section)


class Problem(msgspec.Struct, frozen=True):
    """Why one setting is refused. ``value`` is as it may be shown (JSON, secrets masked), empty where it says
    nothing; ``variable`` names the environment variable that it came from."""

    key: str
    value: str
    message: str
    variable: str = ""

    def printable(self) -> Problem:
        """The same on one line, for a terminal or as JSON: a name may have come with anything in it."""
        return Problem(*(_printable(getattr(self, name)) for name in self.__struct_fields__))

    def __str__(self) -> str:
        name = f"{self.key} ({self.variable})" if self.variable else self.key
        return f"{name} = {self.value}: {self.message}" if self.value else f"{name}: {self.message}"


class ConfigError(ValueError):
    """The configuration is refused; one line of text for each problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = [problem.printable() for problem in problems]
        super().__init__("\n".join(map(str, self.problems)))


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def load(path: str | None, environ: Mapping[str, str]) -> Config:
    """The settings of the file at ``path`` (else ``TIDEGATE_CONFIG``, else none), under those of ``environ``.
    Raises ConfigError with every problem that was found."""
    path = path or environ.get("TIDEGATE_CONFIG")
    raw = _parse(path) if path else {}
    problems: list[Problem] = []
    variables = _overlay(raw, environ, problems)
    config = _read(Config, raw, "", problems)
    if not problems:
        problems = [Problem(key, shown(key, _value(config, key)), text) for key, text in contradictions(config)]
    if problems:
        raise ConfigError(
            [msgspec.structs.replace(p, variable=variables.get(p.key.partition("[")[0], "")) for p in problems]
        )
    return config


def problem(config: Config, error: Unusable) -> Problem:
    """What was found when something was built from ``config``, as ``load`` would say it."""
    value = _value(config, error.key.partition("[")[0])
    return Problem(error.key, shown(error.key, value), error.message).printable()


def warnings(config: Config) -> list[str]:
    """What is allowed, and unsafe: to be said at every start."""
    found = []
    if config.auth.mode == "none" and not is_loopback(config.server.address):
        found.append(
            f"auth.mode is none on server.address {bracketed(config.server.address)}: "
            "whoever reaches the port may be any client"
        )
    if config.auth.mode != "jwt" and _has_key(config):
        found.append(f"auth.mode is {config.auth.mode} although a key is set: tokens are not looked at")
    if config.auth.mode != "callback" and config.auth.callback_url is not None:
        found.append(f"auth.callback_url is set although auth.mode is {config.auth.mode}: the application is not asked")
    if not config.internal.api_keys and not is_loopback(config.internal.address):
        found.append(
            f"internal.api_keys is empty on internal.address {bracketed(config.internal.address)}: "
            "whoever reaches the port may push to everybody"
        )
    return found


def take(config: Config, new: Config) -> Config:
    """``config`` with what a running node takes of ``new``. Raises ConfigError where that cannot be together: what goes
    with the rest of ``new`` may not go with what the node was started with."""
    auth = config.auth
    if (auth.mode, auth.algorithm) == (new.auth.mode, new.auth.algorithm):  # else the keys wait for a restart, too
        names = [key.partition(".")[2] for key in TAKEN if key.startswith("auth.")]
        auth = msgspec.structs.replace(auth, **{name: getattr(new.auth, name) for name in names})
    mixed = msgspec.structs.replace(
        config,
        auth=auth,
        internal=msgspec.structs.replace(config.internal, api_keys=new.internal.api_keys),
        groups=new.groups,
    )
    problems = [Problem(key, shown(key, _value(mixed, key)), text) for key, text in contradictions(mixed)]
    if problems:
        raise ConfigError(problems)
    return mixed


def waiting(config: Config, new: Config) -> list[str]:
    """Keys of settings that differ in ``new``, and that a running node does not take."""
    others = [key for key in _TYPES if key not in TAKEN and not key.startswith("edge.")]
    return [key for key in others if _value(config, key) != _value(new, key)]


def _has_key(config: Config) -> bool:
    auth = config.auth
    return any((auth.key, auth.key_file, auth.jwks_file, auth.keys))


def effective(config: Config) -> dict[str, Any]:
    """All settings for the log, secrets masked."""
    settings: dict[str, Any] = msgspec.to_builtins(config)
    for key in (*SECRETS, *URLS):
        section, _, name = key.partition(".")
        settings[section][name] = masked(key, settings[section][name])
    return settings


# What a value may be


def _is_section(hint: object) -> TypeGuard[type[Section]]:
    return isinstance(hint, type) and issubclass(hint, Section)


@cache
def _hints(cls: type[Section]) -> dict[str, Any]:
    return {
        name: hint for name, hint in get_type_hints(cls, include_extras=True).items() if name in cls.__struct_fields__
    }


_TYPES: dict[str, Any] = {}  # by dotted key
for _name, _hint in _hints(Config).items():
    if _is_section(_hint):
        _TYPES |= {f"{_name}.{name}": hint for name, hint in _hints(_hint).items()}
    else:
        _TYPES[_name] = _hint


def _bare(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _allowed(kind: inspect.Type) -> str:
    """What follows "must be"."""
    match kind:
        case inspect.Metadata(type=inner, extra=extra):
            return str(extra["allowed"]) if extra else _allowed(inner)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {low} to {high}"
        case inspect.StrType():
            return "text"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(map(str, values))
        case inspect.ListType(item_type=item, min_length=least):
            return f"a list, {'not empty, ' if least else ''}each {_allowed(item)}"
        case inspect.StructType(fields=fields):
            return f"a mapping of {', '.join(field.name for field in fields)}"
        case inspect.DictType():
            return "a mapping of patterns to policies"
        case inspect.UnionType(types=types):
            return " or ".join(_allowed(one) for one in types)
    return "null"


def _fault(kind: inspect.Type, value: Any) -> int | None:
    """Where ``value``, which is of the right type, is not what the setting's own ``is`` takes: the number of a list's
    item, -1 for the whole; None: nowhere."""
    match kind:
        case inspect.Metadata(type=inner, extra=extra):
            found = _fault(inner, value)
            return -1 if found is None and extra and "is" in extra and not extra["is"](value) else found
        case inspect.UnionType(types=types):  # a type or null
            return None if value is None else _fault(types[0], value)
        case inspect.ListType(item_type=item):
            return next((number for number, one in enumerate(value) if _fault(item, one) is not None), None)
    return None


# Showing values


def _as_name(key: object) -> str:
    """What a file has in the place of a name."""
    return key if isinstance(key, str) else shown("", key)


def _value(config: Config, key: str) -> object:
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


# Reading


class _Loader(yaml.SafeLoader):
    """YAML, where a key that stands twice is an error instead of the last one winning. Numbers are those of YAML 1.2:
    in 1.1 012 is ten and 1:30 ninety, here both are texts, which no number takes."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.parser.ParserError(None, None, f"the key {key.value} stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9](_?[0-9])*)\Z", re.ASCII),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?((0|[1-9](_?[0-9])*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\Z|[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z",
        re.ASCII,
    ),
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))


def _parse(path: str) -> dict[Any, Any]:
    try:
        with open(path, "rb") as file:
            raw = yaml.load(file, _Loader)  # a SafeLoader
    except OSError as exc:
        raise ConfigError([Problem(path, "", f"cannot be read: {exc.strerror}")]) from exc
    except Exception as exc:  # PyYAML lets through what it meets: IndexError for !!int without a text, KeyError, …
        raise ConfigError([Problem(path, "", _yaml_fault(exc))]) from exc
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError([Problem(path, "", f"must be a mapping of sections, such as: {', '.join(_hints(Config))}")])
    return raw


def _yaml_fault(exc: Exception) -> str:
    """What is wrong, without the text of the file around it: that may be a secret."""
    mark = getattr(exc, "problem_mark", None)
    place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    if isinstance(exc, yaml.scanner.ScannerError | yaml.parser.ParserError) and "tag" not in str(exc.problem):
        return f"is not valid YAML{place}: {exc.problem}"
    return f"is not valid YAML{place}: is it UTF-8, and is every text in quotes that begins with * & ! or %?"


def _overlay(raw: dict[Any, Any], environ: Mapping[str, str], problems: list[Problem]) -> dict[str, str]:
    """Puts what ``environ`` sets over ``raw``; the variables' names by key."""
    variables: dict[str, str] = {}
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        key = name.removeprefix(PREFIX).lower().replace("__", ".", 1)
        if key not in _TYPES:
            problems.append(_of_kubernetes(name, text) or _unknown(name, key, _TYPES))
            continue
        if key in variables:
            problems.append(Problem(name, "", f"sets {key}, and so does {variables[key]}; keep one"))
        variables[key] = name
        section, _, last = key.rpartition(".")
        if section and raw.get(section) is None:
            raw[section] = {}
        place = raw[section] if section else raw
        if isinstance(place, dict):  # else _read refuses it
            place[last] = _from_text(text, key)
    return variables


def _from_text(text: str, key: str) -> object:
    """Text as it is; null, numbers, lists and so on as JSON. What is no JSON stays text, which ``_read`` refuses."""
    kind = _bare(inspect.type_info(_TYPES[key]))
    if isinstance(kind, inspect.UnionType):
        if text in ("", "null"):
            return None
        kind = _bare(kind.types[0])
    if isinstance(kind, inspect.StrType | inspect.LiteralType):
        return text
    try:
        return json.loads(text, object_pairs_hook=_unrepeated)
    except (ValueError, RecursionError):
        return text


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _read(cls: type[S], raw: object, prefix: str, problems: list[Problem]) -> S:
    """A section from ``raw``; what is refused has its default in it and is one of ``problems``."""
    hints = _hints(cls)
    values: dict[str, Any] = {}
    for name, value in _mapping(raw, prefix, problems).items():
        key = f"{prefix}{_as_name(name)}"
        hint = hints.get(name)
        if hint is None:
            problems.append(_unknown(key, key, [*(prefix + known for known in hints), *_TYPES]))
        elif _is_section(hint):
            values[name] = _read(hint, value, f"{key}.", problems)
        elif key == "groups":
            values[name] = _read_groups(value, problems)
        elif key in _ITEMS and isinstance(value, list):
            values[name] = [_read_item(f"{key}[{at}]", item, hint, problems) for at, item in enumerate(value)]
        else:
            try:
                converted = msgspec.convert(value, hint)
                fault = _fault(inspect.type_info(hint), converted)
            except (msgspec.ValidationError, UnicodeEncodeError) as exc:  # the latter for half a character
                item = re.search(r"`\$\[(\d+)\]`", str(exc))  # which item of a list it is, msgspec says in words only
                converted, fault = None, int(item[1]) if item else -1
            if fault is not None:
                problems.append(_refusal(key, value, hint, fault))
            else:
                values[name] = value if isinstance(value, int) else converted  # 30 seconds stay 30, not 30.0
    return cls(**values)


def _read_item(key: str, item: object, hint: Any, problems: list[Problem]) -> object:
    """One of a list of sections; a text where the list takes such as well."""
    name = key.partition("[")[0]
    if isinstance(item, dict):
        return _read(_ITEMS[name], item, f"{key}.", problems)
    try:
        return msgspec.convert([item], hint)[0]
    except (msgspec.ValidationError, UnicodeEncodeError):
        kind = _bare(inspect.type_info(hint))
        assert isinstance(kind, inspect.ListType)
        problems.append(Problem(key, MASK, f"must be {_allowed(kind.item_type)}"))
        return item


def _read_groups(raw: object, problems: list[Problem]) -> dict[str, GroupPolicy]:
    policies = {}
    for pattern, policy in _mapping(raw, "groups.", problems).items():
        if isinstance(pattern, str) and is_pattern(pattern):
            policies[pattern] = _read(GroupPolicy, policy, f"groups[{pattern}].", problems)
        else:
            text = "must be a pattern in quotes: 1 to 128 characters from A-Z a-z 0-9 _ . @ - and *"
            problems.append(Problem(f"groups[{_as_name(pattern):.100}]", "", text))
    return policies


def _mapping(raw: object, prefix: str, problems: list[Problem]) -> dict[Any, Any]:
    """``raw`` if it is a mapping; an empty one for nothing at all."""
    if raw is None or isinstance(raw, dict):
        return raw or {}
    problems.append(Problem(prefix.rstrip("."), "", "must have keys below it (in JSON: be an object, no key twice)"))
    return {}


def _refusal(key: str, value: Any, hint: Any, item: int) -> Problem:
    """``item``: which of a list is wrong; -1 for the whole value."""
    kind = inspect.type_info(hint)
    bare = _bare(kind)
    if item >= 0 and isinstance(bare, inspect.ListType) and isinstance(value, list):
        text = MASK if key in SECRETS else shown(key, value[item])
        return Problem(f"{key}[{item}]", text, f"must be {_allowed(bare.item_type)}")
    in_json = " (in a variable: as JSON)" if isinstance(bare, inspect.ListType) else ""
    return Problem(key, shown(key, value), f"must be {_allowed(kind)}{in_json}")


def _unknown(name: str, key: str, known: Iterable[str]) -> Problem:
    """``key`` is what ``name`` stands for. Suggests the same name in another section, or the closest of ``known``."""
    last = key.rpartition(".")[2]
    close = [other for other in known if other.rpartition(".")[2] == last] or difflib.get_close_matches(key, known, n=1)
    if not close:
        return Problem(name, "", "is unknown; config.yaml has every setting there is")
    meant = _variable(close[0]) if name.startswith(PREFIX) else close[0]
    return Problem(name, "", f"is unknown; did you mean {meant}?")


def _of_kubernetes(name: str, text: str) -> Problem | None:
    """A variable that Kubernetes sets in every pod for a Service whose name begins with tidegate: tidegate-internal
    gives TIDEGATE_INTERNAL_SERVICE_HOST, ..._SERVICE_PORT_HTTP, ..._PORT and ..._PORT_8001_TCP_ADDR."""
    if not (_SERVICE_VARIABLE.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_PORT.fullmatch(text))):
        return None
    return Problem(
        name,
        "",
        "is unknown; it looks like what Kubernetes sets for a Service whose name begins with tidegate: say "
        "enableServiceLinks: false in the pod's spec",
    )


_SERVICE_VARIABLE = re.compile(
    r"TIDEGATE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
_SERVICE_PORT = re.compile(r"(tcp|udp|sctp)://\S+")


def _variable(key: str) -> str:
    return PREFIX + key.upper().replace(".", "__")


# Printing


_HEADER = """\
# Generated by `python -m tidegate.config.load` from the settings: every one with its default.
# Leave out what you don't change. A variable of the environment goes before what stands here, lists and objects
# as JSON: TIDEGATE_HEARTBEAT__WEBSOCKET_PING_INTERVAL=20, TIDEGATE_CALLS__ALLOW='["echo"]'.
# `tidegate check` says what is wrong with a configuration.
"""


def default_yaml() -> str:
    """config.yaml: every setting with its default, sentence and limits."""
    lines = [_HEADER.rstrip()]
    for name, hint in _hints(Config).items():
        lines.append("")
        if _is_section(hint):
            lines += [f"# {hint.__doc__}", f"{name}:", *_fields(hint, "  ")]
        else:
            lines += _field(name, hint, getattr(Config(), name), "")
        if name == "groups":
            lines += ["#" + line for line in ('  "news*":', *_fields(GroupPolicy, "    "))]
    return "\n".join(lines) + "\n"


def _fields(cls: type[Section], indent: str) -> list[str]:
    defaults = cls()
    return [line for name, hint in _hints(cls).items() for line in _field(name, hint, getattr(defaults, name), indent)]


def _field(name: str, hint: Any, default: object, indent: str) -> list[str]:
    kind = inspect.type_info(hint)
    assert isinstance(kind, inspect.Metadata)
    about = str((kind.extra_json_schema or {})["description"])
    values = get_args(get_args(hint)[0])
    if isinstance(kind.type, inspect.IntType | inspect.FloatType):
        about += f" [{kind.type.ge} to {kind.type.le}]"
    elif isinstance(kind.type, inspect.LiteralType) and not all(value in about for value in values):
        about += f" [{', '.join(values)}]"
    value = yaml.safe_dump(default, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return [*(f"{indent}# {line}" for line in textwrap.wrap(about, 112)), f"{indent}{name}: {value}"]


if __name__ == "__main__":
    sys.stdout.write(default_yaml())
