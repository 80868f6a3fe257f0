"""The settings that say who a client is. ``settings`` has the other sections, and says how they are written."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tidegate.config.endpoints import Url
from tidegate.config.section import Section
from tidegate.config.texts import ApiKey, Name, Pattern, Text, Word

LEAST_RECHECK_S = 0.1
ANSWER_S = 3.0  # that the application has to say who a client is, in mode callback


class NamedKey(Section, frozen=True):
    """One of several keys that tokens are verified with; a token names it."""

    kid: Annotated[Word | None, Meta(description="Its name, which a token's header has as kid.")] = None
    key: Annotated[Text | None, Meta(description="As auth.key.")] = None
    key_file: Annotated[Word | None, Meta(description="File with the key, in place of key.")] = None


class NamedApiKey(Section, frozen=True):
    """The key of one application, with a name for the log, and what it may do."""

    name: Annotated[Name | None, Meta(description="Whose it is; the log says it.")] = None
    key: Annotated[ApiKey | None, Meta(description="As in internal.api_keys.")] = None
    key_file: Annotated[Word | None, Meta(description="File with the key, in place of key.")] = None
    may: Annotated[
        list[Literal["push", "read", "manage"]],
        Meta(
            min_length=1,
            description="push. read: history, presence, clients, nodes. manage: disconnect, lasting memberships.",
        ),
    ] = msgspec.field(default_factory=lambda: ["push", "read", "manage"])
    groups: Annotated[
        Annotated[list[Pattern], Meta(min_length=1)] | None,
        Meta(description="Patterns of the groups that it may do this with, and with nothing else; null: all there is."),
    ] = None


class AuthSettings(Section, frozen=True):
    """Who a client is."""

    mode: Annotated[
        Literal["none", "jwt", "callback"],
        Meta(
            description="none: a client says who it is. jwt: a signed token says it. callback: the application says "
            "it, asked with the client's cookie."
        ),
    ] = "none"
    anonymous_anywhere: Annotated[
        bool, Meta(description="Allow mode none on an address beyond loopback: whoever reaches the port is anyone.")
    ] = False
    algorithm: Annotated[
        Literal["HS256", "RS256", "ES256", "EdDSA"], Meta(description="The one algorithm of tokens.")
    ] = "HS256"
    key: Annotated[
        Text | None, Meta(description="HS256: the shared secret, 32 bytes or more. Else the public key as PEM.")
    ] = None
    key_file: Annotated[Word | None, Meta(description="File with the key, in place of key.")] = None
    keys: Annotated[
        list[NamedKey],
        Meta(
            description="Several keys, each with its kid and key or key_file; read again at SIGHUP. Beside them key or "
            "key_file is for tokens that name none of them."
        ),
    ] = msgspec.field(default_factory=list)
    jwks_file: Annotated[Word | None, Meta(description="File with a JSON Web Key Set, in place of key.")] = None
    issuer: Annotated[Word | None, Meta(description="What a token's iss must be; null does not look at it.")] = None
    audience: Annotated[Word | None, Meta(description="What a token's aud must name; null does not ask for one.")] = (
        None
    )
    leeway_s: Annotated[
        int, Meta(ge=0, le=300, description="Seconds that the clocks of gateway and issuer may differ.")
    ] = 10
    expiring_s: Annotated[
        float, Meta(ge=0, le=86400, description="Seconds before its token's end that a client gets an expiring event.")
    ] = 60
    callback_url: Annotated[
        Url | None,
        Meta(description="callback: where the application is asked who a client is (docs/protocol.md, Cookies)."),
    ] = None
    callback_connections: Annotated[
        int,
        Meta(ge=4, le=10000, description="Connections for these questions; a quarter of them for those asked again."),
    ] = 50
    recheck_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86400,
            description="callback: seconds within which it is asked again for each connection, 0.1 at least; 0: never.",
        ),
    ] = 300
