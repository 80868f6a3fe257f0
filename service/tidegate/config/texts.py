"""What a text among the settings may be, where it is no address (those are ``endpoints``')."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta

ApiKey: TypeAlias = Annotated[
    str, Meta(pattern=r"^[!-~]{16,512}\Z", extra={"allowed": "16 to 512 visible ASCII characters without spaces"})
]
Name: TypeAlias = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9_.@-]{1,64}\Z", extra={"allowed": "1 to 64 characters from A-Z a-z 0-9 _ . @ -"}),
]
Pattern: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_.@*-]{1,128}\Z",
        extra={"allowed": "a pattern of group names: 1 to 128 characters from A-Z a-z 0-9 _ . @ - and *"},
    ),
]
Text: TypeAlias = Annotated[str, Meta(pattern=r"^[^\ud800-\udfff]+\Z")]  # no surrogates: what is not UTF-8 has no bytes
Word: TypeAlias = Annotated[
    str,
    Meta(
        # A variable made from a file ends in a line break, and nothing would ever equal it.
        pattern=r"^(?!\s)[^\x00-\x1f\x7f\ud800-\udfff]+(?<!\s)\Z",
        extra={"allowed": "text without blanks at its ends and without line breaks"},
    ),
]
Method: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z",
        max_length=128,
        extra={"allowed": "words of A-Z a-z 0-9 _ - joined by single dots, up to 128 characters"},
    ),
]
Group: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,9})\Z",
        extra={"allowed": "the name of a group of this system, or its number"},
    ),
]
