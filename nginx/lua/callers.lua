-- The calls of one session: who makes them, and how many at once. Callers are started when there is more to do than
-- they can, and stay: nginx remembers each thread until the request ends.

local calls = require "calls"
local metrics = require "metrics"
local permits = require "permits"
local semaphore = require "ngx.semaphore"
local settings = require "settings"

local pairs = pairs
local remove = table.remove
local setmetatable = setmetatable
local spawn = ngx.thread.spawn

local LONG_S = 86400

local _M = {}
local mt = { __index = _M }


-- `who` is the client and its connection; `say` takes the event that answers a call; `guard` runs a thread's work.
function _M.new(who, say, guard)
    return setmetatable({
        who = who,
        say = say,
        guard = guard,
        is_over = false,
        work = nil, -- a semaphore: a call waits for a caller
        waiting = {}, -- these calls
        permits = {}, -- of the calls in flight, as a set
        in_flight = 0,
        count = 0,
        idle = 0, -- of them
        numbers = 0, -- of calls
    }, mt)
end


local function serve(self, call)
    local permit = permits.new(self.who.client, call.method)
    self.permits[permit] = true
    local event, sock = calls.make(call, self.who, call.number, permit)
    permit:give_back()
    self.permits[permit] = nil
    self.say(event)
    self.in_flight = self.in_flight - 1
    if sock then
        calls.put_back(sock)
    end
end


local function work_off(self)
    while not self.is_over do
        local call = remove(self.waiting, 1)
        if call then
            serve(self, call)
        else
            self.idle = self.idle + 1
            while not self.work:wait(LONG_S) do end -- who posts takes it out of `idle`
        end
    end
end


-- A call of the client, to be made and answered.
function _M.take(self, call)
    if self.in_flight >= settings.calls_in_flight then
        metrics.add('tidegate_edge_calls_total{outcome="too_many_calls"}', 1)
        self.say(calls.error_event(call.id, "too_many_calls", self.in_flight .. " calls are in flight"))
        return
    end
    self.in_flight = self.in_flight + 1
    self.numbers = self.numbers + 1
    call.number = self.numbers
    self.waiting[#self.waiting + 1] = call
    if self.idle > 0 then
        self.idle = self.idle - 1
        self.work:post(1)
    elseif self.count < settings.calls_in_flight then
        self.work = self.work or semaphore.new(0)
        self.count = self.count + 1
        spawn(self.guard, function() work_off(self) end)
    end
end


-- What the callers hold. To be called at the session's end, however it came, for they go without a word.
function _M.give_back(self)
    self.is_over = true
    for permit in pairs(self.permits) do
        permit:give_back()
    end
    self.permits = {}
end


return _M
