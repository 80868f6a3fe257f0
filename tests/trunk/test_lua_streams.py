"""The edge knows of each session where it is in each of its streams, in whatever order things come."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trunk.luajit import run

SESSIONS, STREAMS = 5, 3

OPS = st.one_of(
    st.tuples(st.just("track"), st.integers(1, STREAMS), st.integers(1, SESSIONS)),
    st.tuples(st.just("follow"), st.integers(1, STREAMS), st.integers(1, SESSIONS)),
    st.tuples(st.just("untrack"), st.integers(1, STREAMS), st.integers(1, SESSIONS)),
    st.tuples(st.just("leave"), st.just(0), st.integers(1, SESSIONS)),
    st.tuples(st.just("hear"), st.integers(1, STREAMS), st.integers(0, SESSIONS)),
)

SCRIPT = """
local streams = require "trunk_streams"
local sessions, goes = {}, nil
local all
all = streams.new(function()
    if goes then all:leave_all(goes) end
end, function(out, bytes) print(out.session.name .. " hears " .. bytes) end)
for n = 1, %d do
    sessions[n] = { name = "s" .. n, has = {}, tracked = 0 }
    sessions[n].output = { session = sessions[n] }
end
local at = {}
local function name(stream) return "g" .. stream end
local op = {}
function op.track(stream, n) all:track(stream, name(stream), sessions[n]) end
function op.follow(stream, n)
    print(all:follow(stream, name(stream), at[stream] or "0", sessions[n]))
end
function op.untrack(stream, n) all:untrack(stream, sessions[n]) end
function op.leave(_, n) all:leave_all(sessions[n]) end
function op.hear(stream, n)
    local before = at[stream] or "0"
    at[stream] = tostring(tonumber(before) + 1)
    goes = sessions[n]
    print(all:hear(stream, before, at[stream], name(stream) .. ":" .. at[stream]))
    if goes then all:leave_all(goes) end
    goes = nil
end
%s
for n = 1, %d do
    local cursor = streams.cursor(sessions[n])
    local parts = {}
    for stream, position in pairs(cursor or {}) do parts[#parts + 1] = stream .. "=" .. position end
    table.sort(parts)
    print(cursor and table.concat(parts, " ") or "behind")
end
local count = 0
for _ in pairs(all.by_number) do count = count + 1 end
print(count)
"""


class Model:
    """What must come out."""

    def __init__(self) -> None:
        self.at = dict.fromkeys(range(1, STREAMS + 1), 0)
        self.live: dict[int, list[int]] = {stream: [] for stream in self.at}
        self.tracked: dict[int, set[int]] = {stream: set() for stream in self.at}
        self.lines: list[str] = []

    def drop(self, stream: int, session: int) -> None:
        if session in self.live[stream]:
            self.live[stream].remove(session)
        self.tracked[stream].discard(session)

    def carry_out(self, op: str, stream: int, session: int) -> None:
        if op == "track":
            self.drop(stream, session)
            self.tracked[stream].add(session)
        elif op == "follow":
            self.tracked[stream].discard(session)
            if session not in self.live[stream]:
                self.live[stream].append(session)
            self.lines.append("true")
        elif op == "untrack":
            self.drop(stream, session)
        elif op == "leave":
            for each in self.at:
                self.drop(each, session)
        else:
            self.at[stream] += 1
            self.lines += [f"s{one} hears g{stream}:{self.at[stream]}" for one in self.live[stream]]
            self.lines.append("true")
            for each in self.at:
                self.drop(each, session)

    def end(self) -> list[str]:
        for session in range(1, SESSIONS + 1):
            if any(session in tracked for tracked in self.tracked.values()):
                self.lines.append("behind")
            else:
                places = sorted(f"g{stream}={self.at[stream]}" for stream in self.at if session in self.live[stream])
                self.lines.append(" ".join(places))
        used = [stream for stream in self.at if self.live[stream] or self.tracked[stream]]
        return [*self.lines, str(len(used))]


@given(st.lists(OPS, max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_table_agrees_with_a_model(ops: list[tuple[str, int, int]]) -> None:
    model = Model()
    for op in ops:
        model.carry_out(*op)
    calls = "\n".join(f"op.{name}({stream}, {session})" for name, stream, session in ops)
    assert run(SCRIPT % (SESSIONS, calls, SESSIONS)) == model.end()


BROADCAST = """
local streams = require "trunk_streams"
local got, all, sessions = {}, nil, {}
local pauses = 0
all = streams.new(function()
    pauses = pauses + 1
    for n = pauses, pauses < 7 and 1000 or 0, 7 do -- most go meanwhile, also those who have it not yet
        if sessions[n] then all:leave_all(sessions[n]); sessions[n] = nil end
    end
end, function(out, bytes) got[out.session] = (got[out.session] or 0) + #bytes end)
for n = 1, 1000 do
    sessions[n] = { has = {}, tracked = 0 }
    sessions[n].output = { session = sessions[n] }
    all:follow(1, "g", "0", sessions[n])
end
local first = sessions[1000]
all:hear(1, "0", "1", "x")
all:hear(1, "1", "2", "x")
local once, twice, left = 0, 0, 0
for _, count in pairs(got) do
    if count == 1 then once = once + 1 else twice = twice + 1 end
end
for _ in pairs(sessions) do left = left + 1 end
print(pauses, once + twice <= 1000, twice >= left, all.by_number[1].live == left)
print(all:hear(1, "1", "2", "x"), all:follow(1, "g", "7", { has = {}, tracked = 0 }))
"""


def test_a_broadcast_lets_others_run_and_those_who_go_meanwhile_hear_nothing() -> None:
    facts, faults = run(BROADCAST)
    pauses, *rest = facts.split("\t")
    assert int(pauses) >= 5
    assert rest == ["true", "true", "true"]
    assert faults == "false\tfalse"  # a repeat, and a session that begins where the stream is not, are faults


ENDS_AMID = """
local streams = require "trunk_streams"
local got, sessions = {}, {}
local all = streams.new(coroutine.yield, function(out) got[out.session] = (got[out.session] or 0) + 1 end)
for n = 1, 1000 do
    sessions[n] = { has = {}, tracked = 0 }
    sessions[n].output = { session = sessions[n] }
    all:follow(1, "g", "0", sessions[n])
end
coroutine.resume(coroutine.create(function() all:hear(1, "0", "1", "x") end)) -- and is never resumed
all:leave_all(sessions[1000])
all:finish()
all:finish()
local once = 0
for n = 1, 999 do
    if got[sessions[n]] == 1 and streams.cursor(sessions[n]).g == "1" then once = once + 1 end
end
print(once, got[sessions[1000]], all.by_number[1].is_busy)
"""


def test_a_broadcast_that_a_trunk_s_end_has_cut_reaches_the_rest() -> None:
    assert run(ENDS_AMID) == ["999\tnil\tfalse"]


OTHER_NAME = """
local streams = require "trunk_streams"
local all = streams.new(print, print)
local one, two = { has = {}, tracked = 0 }, { has = {}, tracked = 0 }
print(all:follow(1, "g", "0", one), all:follow(1, "h", "0", two), all:track(1, "h", two), all:track(1, "g", two))
"""


def test_a_stream_s_number_that_comes_again_for_another_is_a_fault() -> None:
    assert run(OTHER_NAME) == ["true\tfalse\tfalse\ttrue"]
