-- One session on a trunk: the client's WebSocket, which ends here, and what its node says to it. The node does the
-- rest; this one answers what is the edge's, as `session` does for clients that are relayed.
--
-- Threads: `main` (the request's own) writes what waits, and finds another node when this one has gone; a reader takes
-- the client's frames (linked_input); callers make requests. Only they touch the socket, since it belongs to the
-- request. The trunk puts bytes into what waits (linked_output) and wakes `main`.
--
-- The end. A close frame of the node follows what waits, and the client's answer is waited for. One of the client is
-- answered here. Where nginx stops it is 1001, and where no node takes the session 1012.

local callers = require "callers"
local client_socket = require "client_socket"
local frames = require "trunk_frames"
local http1 = require "http1"
local input = require "linked_input"
local metrics = require "metrics"
local moves = require "moves"
local output = require "linked_output"
local settings = require "settings"
local share = require "share"
local timetable = require "timetable"
local trunk_streams = require "trunk_streams"
local wire = require "wire"

local find = string.find
local frame = output.frame
local huge = math.huge
local ipairs = ipairs
local kill = ngx.thread.kill
local max = math.max
local min = math.min
local now = ngx.now
local pairs = pairs
local pcall = pcall
local put = output.put
local setmetatable = setmetatable
local spawn = ngx.thread.spawn
local wake = output.wake

local OPEN, WRITTEN, SLOW = frames.OPEN, frames.WRITTEN, frames.SLOW
local FIN_TEXT, FIN_CLOSE, FIN_PONG = 0x81, 0x88, 0x8a
local GOING_AWAY, NO_STATUS, CUT, INTERNAL_ERROR, RESTART, SLOW_CONSUMER = 1001, 1005, 1006, 1011, 1012, 4008
local CLOSE_S = 6 -- the node waits for the answer to its close frame for 5 s, and then cuts
local LONG_S = 86400
local NONE = {}
local PULSES_S = 1.5 -- a node that lives is not silent for so long
local READ_S = 0.1 -- in which a worker that was held up itself reads what has come
local COUNTS = 2 ^ 32 -- a count begins again there
local LEAST_S = 0.001 -- what is less is no wait, and time would stand still
local TOLD_BYTES = 32768 -- of SEND that were written: so often the node hears of it, and at each stop of a replay
local TOLD_PART = 32 -- of the limit, if that is less: the node goes on where less than a sixteenth waits

local open = setmetatable({}, { __mode = "k" }) -- of this worker

local _M = {}
local mt = { __index = _M }


-- Begins a handshake with the node at the trunk's other end: `head` is the client's request. Gives the answer as
-- `http1` reads one, whose `linked` is the session where it is a 101; nil, and why.
function _M.open(trunk, head)
    local self = setmetatable({
        trunk = nil, -- while it has none
        head = head,
        term = 0, -- how often its connection was taken up
        reader_waits = false,
        has = {}, -- its streams; `trunk_streams` has them
        tracked = 0,
        ours = 0, -- bytes that wait or are under way and that the edge has said itself
        parts = nil, -- of a SEND that is not whole
        said = 0, -- bytes of SEND
        said_before = 0, -- by nodes that it had before
        told = 0, -- of these, as the node was told that they are written
        texts = 0, -- messages for the node
        done = 0, -- of these
        pending = {}, -- number -> text of those that are not done
        may_read = true,
        is_welcomed = false,
        has_closed = false, -- our close frame waits, or is out
        is_over = false,
        must_go = false, -- nginx stops; "moving" where new workers take handshakes
        signed_s = -LONG_S,
        close_code = nil, -- the first that was said, by whomever
    }, mt)
    self.output = output.new(self)
    self:await(trunk, OPEN, head, settings.read_timeout_s)
    local said = self.answer
    if not said then
        self:leave(CUT, false)
        return nil, "no answer on the trunk"
    end
    local answer = http1.new(nil, "GET", huge, "service")
    answer.rest = said
    local ok, err = answer:read_head()
    if ok and answer.status ~= 101 then
        answer.body, err = answer:read_body(#said)
        ok = answer.body
    end
    answer.linked = self
    return ok and answer, err
end


-- Says OPEN or RESUME on a trunk. Returns when the node has answered (`answer`, `is_accepted`), or will not. Who says
-- nothing at all hangs, and is not waited for until its trunk ends: a pulse comes each second.
function _M.await(self, trunk, kind, payload, most_s)
    self.trunk, self.answer, self.is_accepted, self.is_welcomed = trunk, nil, false, false
    self.texts, self.done, self.may_read, self.parts = 0, 0, true, nil
    self.number = trunk:open(self, kind, payload)
    local begun_s = now()
    local function left_s()
        local hangs_s = max(trunk.seen_s + max(settings.probe_timeout_s, PULSES_S), begun_s + READ_S)
        return kind == OPEN and client_socket.has_gone() and 0 or min(begun_s + most_s, hangs_s) - now()
    end
    while self.trunk and not self.answer and not self.has_closed and left_s() > 0 do
        output.wait(self.output, max(min(left_s(), client_socket.LOOK_S), LEAST_S))
    end
end


function _M.tell_node(self, kind, payload)
    if self.trunk then
        self.trunk:put(kind, self.number, payload)
    end
end


-- Its trunk has no more to do with it.
function _M.leave(self, code, is_answered)
    if self.trunk then
        self.trunk:forget(self, code, is_answered)
    end
end


-- Our close frame follows what waits; a slow consumer gets it next.
local function say_close(self, code, reason)
    if self.has_closed then
        return
    end
    if code == SLOW_CONSUMER then
        output.drop(self.output)
    end
    self.close_code = self.close_code or code
    output.put_last(self.output, frame(FIN_CLOSE, wire.close_payload(code ~= NO_STATUS and code or nil, reason)))
    self.has_closed = true
    self.end_by_s = now() + CLOSE_S
    wake(self.output)
    input.go_on(self) -- what the client still sends is thrown away, or it would keep it from our close frame
end


-- The client broke the protocol: it hears so, and nginx reads what it still sends. False.
function _M.fail(self, code, reason)
    say_close(self, code, reason)
    self:leave(code, false)
    self.is_over = true
    wake(self.output)
    return false
end


-- No more of this client: it takes too little, or nothing.
local function cut(self, code)
    self.close_code = self.close_code or code
    output.discard(self.output)
    self.is_over, self.has_closed = true, true
    self:leave(code, false)
    wake(self.output)
    input.go_on(self)
end


-- More waits for it than may; `is_last`: it was told before, and does not go on.
function _M.note_slow(self, is_last)
    if is_last or self.output.size > 2 * settings.outbox_bytes then
        return cut(self, SLOW_CONSUMER)
    end
    self:tell_node(SLOW, "")
end


-- What is said to it alone, which its thread has to account for.
local function put_own(self, bytes)
    self.output.is_called = true
    if put(self.output, bytes) then
        self:note_slow()
    end
end


-- What the edge says by itself. The client is not read while too much of that waits (linked_input): it has asked.
local function say_ours(self, bytes)
    if self.has_closed then
        return
    end
    self.ours = self.ours + #bytes
    put_own(self, bytes)
end


function _M.say_text(self, text)
    say_ours(self, frame(FIN_TEXT, text))
end


function _M.say_pong(self, payload)
    say_ours(self, frame(FIN_PONG, payload))
end


-- The trunk says

function _M.on_accept(self, payload)
    self.answer, self.is_accepted = payload, true
    wake(self.output)
end


function _M.on_refuse(self, payload)
    self.answer = payload
    wake(self.output)
end


local function say(self, bytes)
    self.said = self.said + #bytes
    put_own(self, bytes)
end


-- What its node says to it alone, behind the parts that came before: nothing else may come between them.
function _M.say(self, bytes)
    local parts = self.parts
    self.parts = nil
    if self.has_closed then
        return
    end
    for _, part in ipairs(parts or NONE) do
        say(self, part)
    end
    say(self, bytes)
end


function _M.keep_part(self, bytes)
    local parts = self.parts or {}
    parts[#parts + 1] = bytes
    self.parts = parts
end


function _M.on_done(self, count)
    for number = self.done + 1, count do
        self.pending[number] = nil
    end
    self.done = count
    input.go_on(self)
end


function _M.on_reading(self, may_read)
    self.may_read = may_read
    input.go_on(self)
end


function _M.on_close(self, code, reason)
    if code == CUT then
        self:leave()
        return cut(self, CUT)
    end
    say_close(self, code, reason)
end


-- It goes on at another node, from where its client is.
local function must_move(self, why, cursor, orders)
    self.trunk, self.has, self.tracked = nil, {}, 0
    self.moves, self.cursor, self.orders = why, cursor, orders
    wake(self.output)
end


-- Its node sends it away: its first `count` messages are answered, the others are for the next one. One that has just
-- taken it was not sent yet what the last one had left.
function _M.on_move(self, count, cursor)
    local unanswered = self.unanswered or {}
    for number = count + 1, self.texts do
        unanswered[#unanswered + 1] = self.pending[number]
    end
    self.unanswered, self.pending = unanswered, {}
    must_move(self, "drained", cursor, self.trunk.orders)
end


-- The trunk is lost. What was asked and not answered, a replay and a handshake that are under way may or may not have
-- been carried out: the client knows what to do (1012), and nothing is guessed.
function _M.on_lost(self, orders)
    local positions = trunk_streams.cursor(self)
    if self.moves and not self.is_accepted then
        self.trunk = nil -- it was only asked
        return wake(self.output)
    end
    if self.is_welcomed and positions and self.texts == self.done and not self.has_closed then
        return must_move(self, "lost", frames.cursor(positions), orders)
    end
    self.trunk = nil
    if self.is_accepted then
        say_close(self, RESTART, "service restart")
    end
    wake(self.output)
end


-- The client says

function _M.on_client_close(self, code, reason)
    if self.has_closed then
        self:leave(self.close_code, code == self.close_code)
    else
        self:leave(code, false)
        say_close(self, code, reason)
    end
    self.is_over = true
    wake(self.output)
end


function _M.on_client_gone(self, code)
    self:leave(code, false)
    self.is_over = true
    wake(self.output)
end


-- Its life

-- Another node has taken it up: what the last one did not answer comes first.
local function go_on(self)
    self.moves = nil
    for _, text in ipairs(self.unanswered or {}) do
        input.send(self, text)
    end
    self.unanswered = nil
    input.go_on(self)
end


-- Tells the node how much of its own words is out, once that is worth it.
local function tell_written(self, said)
    local untold = said - self.told
    if untold >= min(TOLD_BYTES, settings.outbox_bytes / TOLD_PART) or (untold > 0 and self.tracked > 0) then
        self.told = said
        self:tell_node(WRITTEN, frames.count(max(said - self.said_before, 0) % COUNTS))
    end
end


local function cannot_write(self, err)
    cut(self, find(err, "timeout", 1, true) and SLOW_CONSUMER or CUT)
end


-- Writes what waits.
function _M.write(self)
    local said, ours = self.said, self.ours
    local ok, err = output.write(self.output, self.sock)
    self.ours = self.ours - ours
    input.go_on(self)
    if not ok then
        return cannot_write(self, err)
    end
    tell_written(self, said)
end


-- Nothing waits, and nothing is due.
local function pump(self)
    local ok, err = output.pump(self.output, self.sock)
    if not ok then
        cannot_write(self, err)
    end
end


-- What is due by the clock, once nginx stops; for how many seconds nothing is then, nil where nothing will be.
local function look_at_the_clock(self)
    if self.end_by_s then
        return self.end_by_s - now()
    end
    if not self.must_go then
        return nil
    end
    local times = self.times or timetable.new(self.must_go == "moving" and self.is_welcomed)
    self.times = times
    local what, next_s = times:due(now())
    if what == "moving" then
        metrics.add("tidegate_edge_moving_total", 1)
        self:say_text(times.event)
    elseif what == "go" then
        say_close(self, GOING_AWAY, "edge restart")
        self:leave(GOING_AWAY, false)
        return CLOSE_S
    end
    return next_s - now()
end


-- Returns when the session is over.
local function serve(self)
    while true do
        if self.moves and not self.has_closed then
            if moves.resume(self) then
                go_on(self)
            else
                self.moves = nil
                say_close(self, RESTART, "service restart")
            end
        elseif self.output.out then
            self:write()
        elseif self.is_over or (self.end_by_s and now() >= self.end_by_s) then
            return
        else
            local wait_s = look_at_the_clock(self)
            if wait_s and not self.output.out then
                output.wait(self.output, max(wait_s, LEAST_S))
            elseif not wait_s then
                pump(self)
            end
        end
    end
end


-- A thread's work; a fault of ours ends the session, not the worker.
local function guarded(self, work)
    local ok, err = pcall(work, self)
    if not ok then
        ngx.log(ngx.ERR, "a session failed: ", err)
        self:fail(INTERNAL_ERROR, "internal error")
    end
end


-- A call of the client's, to be made and answered. Most clients make none, so callers come with the first.
function _M.take_call(self, call)
    self.callers = self.callers or callers.new(self.share.who, function(event)
        self:say_text(event)
    end, function(work)
        guarded(self, work)
    end)
    self.callers:take(call)
end


-- The session of an answer by `open`, once the client has its 101 on `sock`.
function _M.new(sock, answer)
    local self = answer.linked
    local who = { client = answer.headers["tidegate-client"], connection = answer.headers["tidegate-connection"] }
    self.connection = who.connection
    self.client = wire.new(false, sock, nil, nil, settings.write_timeout_s)
    self.sock = sock
    self.share = share.new(who)
    self.answer = nil
    return self
end


-- What its callers hold, and what its node may still believe. To be called at its end, however it came.
function _M.give_back(self)
    self:leave(CUT, false)
    if self.callers then
        self.callers:give_back()
    end
end


-- Carries it until it is over. The client's socket is left to nginx.
function _M.run(self)
    open[self] = true
    local reader = spawn(guarded, self, input.read)
    serve(self)
    open[self] = nil
    kill(reader)
    self:give_back()
end


-- This worker stops: its clients are asked to go. `may_move`: others take their handshakes.
function _M.end_all(may_move)
    for session in pairs(open) do
        session.must_go = may_move and "moving" or true
        wake(session.output)
    end
end


return _M
