-- One trunk: the link between this worker and a node. Sessions say and hear through it; each message to many crosses it
-- once. Source: docs/trunk.md.
--
-- A cosocket belongs to the request or timer that made it. So a trunk lives in a timer of its own, with its threads: a
-- reader, a writer that takes what others have put into `out`, a watch and a ticker. Each dial has a new timer.
--
-- The reader reads on when what it has read is with its sessions. Between the slices of a broadcast it waits for the
-- ticker, which runs when what the slice has woken has run. Once all that has taken a millisecond others get their
-- turn: the ticker sets nginx' clock, and the reader's wait, which counts from what that was before, is over when nginx
-- has looked for what has come and served it. So the worker is never idle. Nothing simpler does everywhere: sleeping
-- for 0 s gives nobody a turn, and a timer that is due at once takes one of nginx' connections, for which a client's is
-- closed where few are left, and in OpenResty what it posts waits for the next event.

local addresses = require "addresses"
local frames = require "trunk_frames"
local metrics = require "metrics"
local output = require "linked_output"
local semaphore = require "ngx.semaphore"
local settings = require "settings"
local streams = require "trunk_streams"

local clock = os.clock
local exiting = ngx.worker.exiting
local kill = ngx.thread.kill
local now = ngx.now
local next = next
local pairs = pairs
local pcall = pcall
local random = math.random
local setmetatable = setmetatable
local sleep = ngx.sleep
local spawn = ngx.thread.spawn
local sub = string.sub
local tcp = ngx.socket.tcp
local thread_wait = ngx.thread.wait
local tonumber = tonumber
local update_time = ngx.update_time

local HELLO, PULSE, GONE = frames.HELLO, frames.PULSE, frames.GONE
local LOWEST, HIGHEST = 1, 1 -- versions that we speak
local PULSE_S = 1
local SILENT_S = 5 -- nothing from the node for so long: it is gone, or hangs
local LATE_S = 1 -- a pulse of ours that is later than this says that we were held up, and judges nobody
local DIAL_S = 2
local ENDING_S = 1 -- after it takes nothing more
local ANY_BYTES = 65536
local LONG_S = 86400
local TURN_S = 0.001

local worker_id

local _M = {}
local mt = { __index = _M }


local function me()
    if not worker_id then
        worker_id = ngx.worker.pid() .. "." .. random(1, 2 ^ 31)
    end
    return worker_id
end


-- Where more has come behind it, it waits to be written together with that.
local function hear(out, bytes, is_last)
    if (is_last and output.send_or_put or output.put)(out, bytes) then
        out.session:note_slow()
    end
end


-- `address` is {host, port}, as a socket's connect takes them; `name` the node's, for the log.
function _M.new(name, address)
    local self = setmetatable({
        name = name,
        address = address,
        sessions = {}, -- number -> session
        count = 0,
        numbers = 0,
        out = {},
        out_count = 0,
        news = semaphore.new(0), -- the writer waits for it
        writer_waits = false,
        turn_s = clock(), -- since when others had no turn, in seconds that the worker has worked
        turn = semaphore.new(0), -- the reader waits for it between two slices
        reader_waits = false,
        tick = semaphore.new(0),
        ticker_waits = false,
        is_up = false,
        seen_s = now(),
        early = "",
    }, mt)
    self.streams = streams.new(function() self:pause() end, hear)
    return self
end


function _M.pause(self)
    if self.ticker_waits then
        self.ticker_waits = false
        self.tick:post(1)
    end
    self.reader_waits = true
    if not self.turn:wait(TURN_S) then
        self.turn_s = clock()
    end
    self.reader_waits = false
end


-- Said to the node, when this turn of the worker ends.
function _M.put(self, kind, number, payload)
    local out, count = self.out, self.out_count
    out[count + 1] = frames.head(kind, number, #payload)
    out[count + 2] = payload
    self.out_count = count + 2
    if self.writer_waits then
        self.writer_waits = false
        self.news:post(1)
    end
end


-- A session's number. Its node hears of it by OPEN or RESUME.
function _M.open(self, session, kind, payload)
    local number = self.numbers + 1
    self.numbers = number
    self.sessions[number] = session
    self.count = self.count + 1
    self:put(kind, number, payload)
    return number
end


-- The session is over here; the node is told, if it does not know.
function _M.forget(self, session, code, is_answered)
    if self.sessions[session.number] ~= session then
        return
    end
    self.sessions[session.number] = nil
    self.count = self.count - 1
    self.streams:leave_all(session)
    if code then
        self:put(GONE, session.number, frames.gone(code, is_answered))
    end
end


-- Threads

local function on_heard(self, number, data, first, last)
    local before, after
    before, first = frames.read_position(data, first)
    after, first = frames.read_position(data, first)
    return self.streams:hear(number, before, after, sub(data, first, last), last == #data)
end


local on = {}

on[frames.ACCEPT] = function(_, session, payload) session:on_accept(payload) end
on[frames.REFUSE] = function(self, session, payload)
    self:forget(session)
    session:on_refuse(payload)
end
on[frames.WELCOMED] = function(_, session) session.is_welcomed = true end
on[frames.PART] = function(_, session, payload) session:keep_part(payload) end
on[frames.SEND] = function(_, session, payload) session:say(payload) end
on[frames.DONE] = function(_, session, payload) session:on_done(frames.read_count(payload, 1)) end
on[frames.READING] = function(_, session, payload) session:on_reading(payload == "\1") end
on[frames.CLOSE] = function(_, session, payload) session:on_close(frames.read_code(payload), sub(payload, 3)) end
on[frames.TOKEN] = function(_, session, payload) session.token = payload end
on[frames.MOVE] = function(self, session, payload)
    self:forget(session)
    session:on_move(frames.read_count(payload, 1), sub(payload, 5))
end
on[frames.TRACK] = function(self, session, payload)
    return self.streams:track(frames.read_count(payload, 1), sub(payload, 5), session)
end
on[frames.UNTRACK] = function(self, session, payload)
    self.streams:untrack(frames.read_count(payload, 1), session)
end
on[frames.FOLLOW] = function(self, session, payload)
    local position, at = frames.read_position(payload, 5)
    return self.streams:follow(frames.read_count(payload, 1), sub(payload, at), position, session)
end


local function on_frame(self, kind, number, data, first, last)
    if self.fault then
        return -- nothing that comes behind it can be trusted
    end
    if kind == frames.HEARD then
        if not on_heard(self, number, data, first, last) then
            self.fault = "a message does not follow where its stream is"
        end
        return
    end
    if kind == PULSE then
        self.orders = sub(data, first, last)
        return
    end
    local session = self.sessions[number]
    local handler = session and on[kind]
    if handler and handler(self, session, sub(data, first, last)) == false then
        self.fault = "a stream is followed where it is not"
    end
end


local function read(self)
    local sock, rest = self.sock, self.early
    local function take(kind, number, data, first, last)
        on_frame(self, kind, number, data, first, last)
    end
    while true do
        local data, err = sock:receiveany(ANY_BYTES)
        if data then
            self.seen_s, self.turn_s = now(), clock()
            rest = frames.split(rest == "" and data or rest .. data, take)
            if not rest then
                return "what came is no frame"
            end
            if self.fault then
                return self.fault
            end
        elseif err ~= "timeout" then
            return err
        end
    end
end


local function write(self)
    local sock = self.sock
    while true do
        local out, count = self.out, self.out_count
        if count > 0 then
            self.out, self.out_count = {}, 0
            local ok, err = sock:send(out)
            if not ok then
                self.is_up = false
                sleep(ENDING_S) -- what the node has said last is read first: where its sessions go on
                return err
            end
        else
            self.writer_waits = true
            self.news:wait(LONG_S)
            self.writer_waits = false
        end
    end
end


local function tick(self)
    while true do
        self.ticker_waits = true
        self.tick:wait(LONG_S)
        if clock() - self.turn_s >= TURN_S then
            update_time()
        elseif self.reader_waits then
            self.reader_waits = false
            self.turn:post(1)
        end
    end
end


local function watch(self)
    local beat_s = now()
    while true do
        sleep(PULSE_S)
        local is_late = now() - beat_s > PULSE_S + LATE_S
        beat_s = now()
        if is_late then
            self.seen_s = beat_s
        elseif beat_s - self.seen_s > SILENT_S then
            return "silent"
        end
        if exiting() and not next(self.sessions) then
            return "nginx stops"
        end
        self:put(PULSE, 0, "")
    end
end


-- Hello

local function proof(nonce)
    local digest = ngx.hmac_sha1(settings.trunk_key, nonce .. " " .. me())
    return (digest:gsub(".", function(char) return ("%02x"):format(char:byte()) end))
end


local function read_frame(self, wanted)
    local rest, payload = self.early, nil
    while not payload do
        local left
        left = frames.split(rest, function(kind, _, data, first, last)
            if not payload and kind == wanted then
                payload = sub(data, first, last)
            end
        end)
        if not left then
            return nil, "what came is no frame"
        end
        rest = left
        if not payload then
            local data, err = self.sock:receiveany(ANY_BYTES)
            if not data then
                return nil, err
            end
            rest = rest .. data
        end
    end
    self.early = rest
    return payload
end


local function shake_hands(self)
    local payload, err = read_frame(self, HELLO)
    if not payload then
        return nil, err
    end
    local theirs = frames.read_fields(payload)
    local lowest, highest = tonumber(theirs.lowest), tonumber(theirs.highest)
    if not lowest or not highest or lowest > HIGHEST or highest < LOWEST then
        return nil, "no version in common"
    end
    local hello = "lowest " .. LOWEST .. "\nhighest " .. HIGHEST .. "\nworker " .. me() .. "\n"
    if settings.trunk_key then
        hello = hello .. "proof " .. proof(theirs.nonce or "") .. "\n"
    end
    local ok, failure = self.sock:send(frames.head(HELLO, 0, #hello) .. hello)
    if not ok then
        return nil, failure
    end
    self.node = theirs.node
    self.orders, failure = read_frame(self, PULSE)
    return self.orders, failure
end


local function connect(self)
    local sock = tcp()
    sock:settimeouts(DIAL_S * 1000, settings.send_timeout_s * 1000, DIAL_S * 1000)
    local ok, err = addresses.connect(sock, self.address, "tidegate_trunk")
    if not ok then
        return nil, err
    end
    self.sock = sock
    return shake_hands(self)
end


-- Its life, in a timer. `on_up` is called when it is up, or will not be, with why.
function _M.run(self, on_up)
    local ok, err = connect(self)
    if not ok then
        if self.sock then
            self.sock:close()
        end
        return on_up(err)
    end
    self.sock:settimeouts(DIAL_S * 1000, settings.send_timeout_s * 1000, SILENT_S * 1000)
    self.is_up, self.seen_s = true, now()
    metrics.add("tidegate_edge_trunks", 1)
    on_up(nil)
    local threads = { spawn(read, self), spawn(write, self), spawn(watch, self) }
    local ticker = spawn(tick, self)
    local _, why = thread_wait(threads[1], threads[2], threads[3])
    self.is_up = false
    metrics.add("tidegate_edge_trunks", -1)
    for _, thread in pairs(threads) do
        kill(thread)
    end
    kill(ticker)
    self.sock:close()
    self.streams:finish()
    if why ~= "nginx stops" then
        ngx.log(ngx.WARN, "the trunk to ", self.name, " has ended: ", why, "; sessions on it: ", self.count)
    end
    for _, session in pairs(self.sessions) do
        pcall(session.on_lost, session, self.orders)
    end
end


return _M
