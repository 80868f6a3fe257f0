"""What happened, in words: a step of a trace, and when it was."""

from __future__ import annotations

from datetime import UTC, datetime

from tidegate.trace import Step


def at(time_ms: int) -> str:
    return (
        datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
    )


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def words_of(step: Step) -> str:
    """A step in words, without its time, its node and whose it is."""
    match step.kind:
        case "journalled":
            return f"journalled as {step.epoch}:{step.offset}"
        case "heard":
            return f"heard, and handed to {count(int(step.code or 0), 'connection')} at once"
        case "connected" | "resumed":
            streams = ", ".join(
                f"{name} after {where.offset}" for name, where in list((step.streams or {}).items())[:10]
            )
            how = "connected" if step.kind == "connected" else "taken up from another node"
            return f"{how}{_over(step)}: {streams}"
        case "refused":
            return f"handshake refused: {step.status} {step.code}, {step.message}"
        case "lost":
            return f"node {step.about} died with this connection"
        case "moved":
            return "goes on at another node"
        case "joined":
            return f"joined {step.stream} after {step.offset}"
        case "join_refused":
            return f"join of {step.stream or 'a group'} refused: {step.code}, {step.message}"
        case "left":
            return f"left {step.stream} ({step.reason})" + ("" if step.offset is None else f" at {step.offset}")
        case "gap" if step.first is None:
            return f"told a gap in {step.stream} ({step.reason}): it goes on after {step.last} of epoch {step.epoch}"
        case "gap":
            rest = f", but for {len(step.kept)} of them" if step.kept else ""
            return f"told a gap in {step.stream} ({step.reason}): {step.first} to {step.last}{rest}"
        case "slow":
            return f"too slow for {step.stream}: back to its journal ({step.reason}), {step.unsent_bytes} bytes unsent"
        case "ended":
            who = f"we close with {step.code}" if step.code is not None else "the peer ends it, or must end"
            return f"nothing more is queued: {who}, {step.unsent_bytes} bytes unsent"
        case "closed":
            return f"closed with {step.code}" + (", all before it confirmed" if step.answered else "")
        case "node_came" | "node_stopped" | "node_died":
            return f"node {step.about} {step.kind.removeprefix('node_')}"
        case "broker_lost":
            return f"lost the broker ({step.message})"
        case "broker_ready":
            return "has the broker again"
        case _:
            return step.kind


def _over(step: Step) -> str:
    return "" if step.worker is None else f" over the edge's worker {step.worker}"
