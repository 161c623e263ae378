"""More time for a task that holds access: a document signed by digest.

An extension names the revision that was granted and the deadline that it moves. A deadline only ever moves forward,
so an extension counts once, whoever submits its request again. Nothing else of the task changes: an entity that
wants more than time requests another task.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Struct, field

from jitvault.formats.canonical_json import canonical_bytes, digest_of
from jitvault.formats.conversion import as_json
from jitvault.formats.time_window import format_duration
from jitvault.model.evidence import Time
from jitvault.model.revision_content import Party
from jitvault.policy.decision import Seconds

_SECOND = timedelta(seconds=1)


class Extension(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An extension by `seconds`, from the deadline `since` to the deadline `until`: its signed content.

    `window_s` is the length of the whole window, counted from the issue.
    """

    api_version: Literal["jitvault.dev/v1"] = field(default="jitvault.dev/v1", name="apiVersion")
    kind: Literal["Extension"] = "Extension"
    installation: str
    task: str
    revision: int
    revision_digest: str
    by: Party
    reason: str
    since: Time
    seconds: Seconds
    until: Time
    window_s: Seconds

    def __post_init__(self) -> None:
        if self.until - self.since != timedelta(seconds=self.seconds):
            raise ValueError("`until` is not `seconds` after `since`")

    @property
    def content(self) -> dict[str, Any]:
        """The signed content, as plain JSON data."""
        return as_json(self)

    @property
    def body(self) -> bytes:
        return canonical_bytes(self.content)

    @property
    def digest(self) -> str:
        return digest_of(self.content)

    @property
    def id(self) -> str:
        return extension_id(self.digest)


def extension_id(digest: str) -> str:
    """Return the short name of an extension, by which people tell two apart."""
    return digest.removeprefix("sha256:")[:12]


def extension_part(digest: str) -> str:
    """Return the part of a decision's path that names the extension.

    It follows the path of its author's decisions about the task; each extension has its own.
    """
    return f"/extend/{digest.removeprefix('sha256:')[:32]}"


def whole_window_s(began: datetime, until: datetime) -> int:
    """Return the seconds from the issue to a deadline, rounded up."""
    return -((began - until) // _SECOND)


def describe_extension(extension: Extension, *, replaces: bool) -> list[str]:
    """Describe what is requested, one sentence a line, for approvers."""
    more = format_duration(timedelta(seconds=extension.seconds))
    whole = format_duration(timedelta(seconds=extension.window_s))
    lines = [
        f"{extension.by.name} asks for {more} more for task {extension.task}: until {_utc_time(extension.until)} "
        f"instead of {_utc_time(extension.since)}, {whole} in all.",
        f"Reason for more time: {extension.reason}",
    ]
    if replaces:
        lines.append("Its token cannot live so long: it is ended and proven dead, and a new one is delivered.")
    return lines


def _utc_time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
