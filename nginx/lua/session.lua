-- One session: the client's WebSocket, which ends here, and one to the service; frames pass from one to the other.
--
-- Threads: `main` (the request's own) waits for the end; a reader takes the client's frames, answers what is the edge's
-- and relays the rest; a pusher relays the service's; callers make requests.
--
-- What slows a side down is that nobody reads on before what was read is written.
--
-- The end. A close frame passes like any other, and its answer too; then both readers have left, and it is over. If
-- only one has, the other has CLOSE_S. Where the edge itself closes (1001 when nginx stops, or broken frames), it says
-- so to the client, and what follows is the same. A cut on one side cuts the other, as it would without an edge.
--
-- When nginx stops, clients are asked to go one after the other. Where new workers take handshakes (a reload) each is
-- told that it is moving first, in the first half of that time, and goes half of it later, so that it can connect anew
-- before. Source: docs/protocol.md, moving.
--
-- A node that hangs looks like one that has nothing to say, until it misses its ping. From then on nothing is
-- answered in its name, and when it was silent for websocket_ping_timeout the client is sent away (1012). Source:
-- docs/protocol.md, Heartbeat.

local callers = require "callers"
local clock = require "clock"
local command = require "command"
local metrics = require "metrics"
local semaphore = require "ngx.semaphore"
local settings = require "settings"
local share = require "share"
local timetable = require "timetable"
local wire = require "wire"

local concat = table.concat
local find = string.find
local ipairs = ipairs
local kill = ngx.thread.kill
local max = math.max
local now = ngx.now
local pairs = pairs
local pcall = pcall
local setmetatable = setmetatable
local spawn = ngx.thread.spawn

local GOING_AWAY, PROTOCOL_ERROR, TOO_BIG, INTERNAL_ERROR, RESTART = 1001, 1002, 1009, 1011, 1012
local UNACCEPTABLE_DATA, SLOW_CONSUMER = 1003, 4008
local CLOSE_S = 6 -- the service waits for the answer to its close frame for 5 s, and then cuts
local SIGN_S = 10 -- docs/protocol.md, Heartbeat: at most one sign of life in 10 s
local LONG_S = 86400
local LEAST_S = 0.001 -- what is less is no wait, and time would stand still
local PIECES = 256 -- of a message that comes in fragments, after which they are made one
local HEARTBEATS = { ping = "pong", Ping = "Pong", pong = "", Pong = "" }

local open = setmetatable({}, { __mode = "k" }) -- of this worker
local warned_s = 0

local _M = {}
local mt = { __index = _M }


-- The client and the connection that a call is from, as the service says. Nil where it is no service of ours: then
-- calls are not taken.
local function who(headers)
    local client, connection = headers["tidegate-client"], headers["tidegate-connection"]
    return client and connection and { client = client, connection = connection }
end


local function tell(self)
    self.news:post(1)
end


local function is_over(self)
    self.is_over = true
    tell(self)
end


-- One reader has read the last that it will.
local function leave(self)
    self.left = self.left + 1
    self.end_by_s = self.end_by_s or now() + CLOSE_S
    self.is_over = self.is_over or self.left == 2
    tell(self)
end


local function relay_close(self, to, reason, code)
    self.close_code = self.close_code or code or 1005
    to:relay("close", wire.close_payload(code, reason), true)
    leave(self)
end


-- The edge closes: the client hears it, and so does the service, as if from the client.
local function close_both(self, code, reason)
    self.close_code = self.close_code or code
    local payload = wire.close_payload(code, reason)
    self.service:relay("close", payload, true)
    self.client:say("close", payload)
end


-- A thread's work; a fault of ours ends the session, not the worker.
local function guarded(self, work)
    local ok, err = pcall(work, self)
    if not ok then
        ngx.log(ngx.ERR, "a session failed: ", err)
        self.close_code = INTERNAL_ERROR
        self.client:say_at_once("close", wire.close_payload(INTERNAL_ERROR, "internal error"))
        is_over(self)
    end
end


-- An answer to a call. What waits to be written is bounded, as all that waits is.
local function say_answer(self, event)
    self.unsent_bytes = self.unsent_bytes + #event
    if self.unsent_bytes > settings.outbox_bytes then
        self.close_code = self.close_code or SLOW_CONSUMER
        return is_over(self)
    end
    self.client:say("text", event)
    self.unsent_bytes = self.unsent_bytes - #event
end


-- `answer` is the service's 101.
function _M.new(client_sock, answer)
    local caller = who(answer.headers)
    local self = setmetatable({
        who = caller,
        share = share.new(caller),
        news = semaphore.new(0), -- something has happened that `main` must know
        unsent_bytes = 0, -- of answers to calls
        signed_s = -SIGN_S,
        left = 0, -- how many of the two readers have, in order
        is_over = false,
        must_go = false, -- nginx stops; "moving" where new workers take handshakes
        is_welcomed = false, -- the service has said something
        kept = nil, -- fragments of a message that may be a call; `bytes` in all
        close_code = nil, -- the first that was said, by whomever
    }, mt)
    self.callers = callers.new(caller, function(event) say_answer(self, event) end, function(work)
        guarded(self, work)
    end)
    self.client = wire.new(false, client_sock)
    self.service = wire.new(true, answer.sock, answer.rest, settings.node_timeout_s)
    return self
end


-- Client to service

-- The service hears nothing of what is answered here, and must not take the client for dead. The pong is empty and the
-- service's marks are not, so nothing is confirmed by it.
local function sign_of_life(self)
    if now() - self.signed_s >= SIGN_S then
        self.signed_s = now()
        self.service:relay("pong", "", true)
    end
end


-- What is answered here says that the service is there.
local function knows_node_lives(self)
    return clock.now() - self.service.stream.seen_s <= settings.node_lives_s
end


-- Answers a message that is the edge's; false if it is the service's.
local function take(self, text)
    if not knows_node_lives(self) then
        return false
    end
    local answer = #text == 4 and HEARTBEATS[text]
    if answer then
        metrics.add("tidegate_edge_heartbeats_total", 1)
        sign_of_life(self)
        if answer ~= "" then
            self.client:say("text", answer)
        end
        return true
    end
    local call = self.who and command.parse(text)
    if not call then
        return false
    end
    sign_of_life(self)
    self.callers:take(call)
    return true
end


-- Whether a message that begins like this may be a call.
local function may_be_call(text)
    return find(text, "^%s*{") or find(text, "^%s*$")
end


-- A call may come in fragments, and the service would make it beside as many of ours: what may be one is put together.
-- Gives the frame that goes on, which may be the whole message; nil while it is kept.
local function put_together(self, payload, kind, last)
    local kept = self.kept
    if not kept then
        if kind ~= "text" or last or not self.who or self.service.is_inside or not may_be_call(payload) then
            return payload, kind, last
        end
        kept = { bytes = 0 }
        self.kept = kept
    elseif kind == "ping" or kind == "pong" then
        return payload, kind, last
    elseif kind ~= "continuation" or kept.bytes + #payload > settings.message_bytes then
        self.kept = nil
        self.service:relay("text", concat(kept), false) -- the service will say what is wrong
        return payload, kind, last
    end
    kept[#kept + 1], kept.bytes = payload, kept.bytes + #payload
    if last then
        self.kept = nil
        return concat(kept), "text", true
    end
    if #kept == PIECES then
        self.kept = { concat(kept), bytes = kept.bytes }
    end
    sign_of_life(self)
    return nil
end


-- The client's frames have ended without a close frame.
local function client_failed(self, err)
    if find(err, "^failed to") then
        return is_over(self) -- the socket's own
    end
    if find(err, "payload len", 1, true) then
        close_both(self, TOO_BIG, "message too big")
    elseif err == "binary" then
        close_both(self, UNACCEPTABLE_DATA, "text messages only")
    else
        close_both(self, PROTOCOL_ERROR, "broken frame")
    end
    leave(self)
end


local function count(sender, payload)
    metrics.add('tidegate_edge_frames_total{from="' .. sender .. '"}', 1)
    metrics.add('tidegate_edge_bytes_total{from="' .. sender .. '"}', #payload)
end


-- A frame that is not answered here.
local function pass_on(self, payload, kind, last)
    count("client", payload)
    return self.service:relay(kind, payload, last)
end


local function read_client(self)
    local service = self.service
    while true do
        local payload, kind, last = self.client:receive()
        if not kind then
            return client_failed(self, last)
        end
        if kind == "close" then
            return relay_close(self, service, payload, last)
        end
        local bytes = #payload
        payload, kind, last = put_together(self, payload, kind, last)
        local may_be_ours = kind == "text" and last and not service.is_inside and not self.client.has_closed
        if payload and not (may_be_ours and take(self, payload)) and not pass_on(self, payload, kind, last) then
            return is_over(self)
        end
        self.share:spend(bytes, "client")
    end
end


-- Service to client

-- The node is given up; a line in the log for all of its sessions that end in the same second.
local function give_up(self)
    metrics.add("tidegate_edge_given_up_total", 1)
    if now() - warned_s >= 1 then
        warned_s = now()
        ngx.log(ngx.WARN, "no sign of life from ", ngx.var.tidegate_upstream)
    end
    relay_close(self, self.client, "service restart", RESTART)
end


local function read_service(self)
    while true do
        local payload, kind, last = self.service:receive()
        if not kind and find(last, "silent", 1, true) then
            return give_up(self)
        end
        if not kind then
            return is_over(self)
        end
        if kind == "close" then
            return relay_close(self, self.client, payload, last)
        end
        count("service", payload)
        self.is_welcomed = self.is_welcomed or kind == "text"
        local ok, err = self.client:relay(kind, payload, last)
        if not ok then
            if find(err, "timeout", 1, true) then
                self.close_code = self.close_code or SLOW_CONSUMER
            end
            return is_over(self)
        end
        self.share:spend(#payload, "service")
    end
end


-- The end

local function say_moving(self)
    metrics.add("tidegate_edge_moving_total", 1)
    self.client:say("text", self.times.event)
end


local function say_going_away(self)
    self.close_code = self.close_code or GOING_AWAY
    self.client:say("close", wire.close_payload(GOING_AWAY, "edge restart"))
end


-- Returns when the session is over, or must be.
local function watch(self)
    while not self.is_over do
        local what, wake_s
        if self.must_go and not self.end_by_s then
            self.times = self.times or timetable.new(self.must_go == "moving" and self.is_welcomed)
            what, wake_s = self.times:due(now())
        end
        if what == "moving" then
            spawn(guarded, self, say_moving)
        elseif what == "go" then
            self.end_by_s = now() + CLOSE_S
            spawn(guarded, self, say_going_away)
        end
        wake_s = self.end_by_s or wake_s or now() + LONG_S
        if self.end_by_s and now() >= wake_s then
            return
        end
        self.news:wait(max(wake_s - now(), LEAST_S))
    end
end


-- What its callers hold. To be called at its end, however it came, for they go without a word.
function _M.give_back(self)
    self.callers:give_back()
end


-- Relays until it is over. The client's socket is left to nginx.
function _M.run(self)
    open[self] = true
    local threads = { spawn(guarded, self, read_client), spawn(guarded, self, read_service) }
    watch(self)
    open[self] = nil
    for _, thread in ipairs(threads) do
        kill(thread)
    end
    if self.must_go then
        self.service:say_at_once("close", wire.close_payload(GOING_AWAY, "edge restart"))
    end
    self.service.stream.sock:close()
    self:give_back()
end


-- This worker stops: its clients are asked to go. `may_move`: others take their handshakes.
function _M.end_all(may_move)
    for session in pairs(open) do
        session.must_go = may_move and "moving" or true
        tell(session)
    end
end


return _M
