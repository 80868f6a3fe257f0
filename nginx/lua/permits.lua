-- Permits to make a request to the application: this worker has calls_connections of them.
--
-- A method or a client whose calls hang must not take them all. So a call gets its permit only while its method and its
-- client, counted together, hold no more than there are left: one method can have half of them, the next one half of
-- what is left then, and so on. The last of them are for clients that hold none. A call without one waits in turn.

local semaphore = require "ngx.semaphore"
local settings = require "settings"

local floor = math.floor
local ipairs = ipairs
local pairs = pairs
local remove = table.remove
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

local taken, by_method, by_client = 0, {}, {}
local queues = {} -- method -> the permits that are waited for, oldest first


local function add(counts, name, amount)
    local count = (counts[name] or 0) + amount
    counts[name] = count > 0 and count or nil
end


-- Without a client: whether anybody may.
local function may_be_taken(method, client)
    local left = settings.calls_connections - taken
    local held = client and by_client[client] or 0
    local kept_back = held > 0 and floor(settings.calls_connections / 8) or 0
    return left > 0 and (by_method[method] or 0) + held + kept_back <= left
end


local function take(self)
    self.is_taken = true
    taken = taken + 1
    add(by_method, self.method, 1)
    add(by_client, self.client, 1)
end


-- Forgets the calls that have given up at the head of a queue. All of a queue have the same time: the oldest go first.
local function tidy(queue)
    while queue[1] and queue[1].is_over do
        remove(queue, 1)
    end
end


-- The next one of a queue, taken out of it.
local function next_of(queue)
    for place, permit in ipairs(queue) do
        if not permit.is_over and may_be_taken(permit.method, permit.client) then
            return remove(queue, place)
        end
    end
    return nil
end


local function hand_out()
    for method, queue in pairs(queues) do
        tidy(queue)
        local permit = may_be_taken(method) and next_of(queue)
        while permit do
            take(permit)
            permit.signal:post(1)
            permit = may_be_taken(method) and next_of(queue)
        end
        if not queue[1] then
            queues[method] = nil
        end
    end
end


-- Must be given back, waited for or not.
function _M.new(client, method)
    return setmetatable({ client = client, method = method, is_taken = false, is_over = false }, mt)
end


-- Whether it was got within so many seconds.
function _M.wait(self, seconds)
    if may_be_taken(self.method, self.client) then
        take(self)
        return true
    end
    local queue = queues[self.method] or {}
    queues[self.method] = queue
    tidy(queue)
    self.signal = semaphore.new(0)
    queue[#queue + 1] = self
    self.signal:wait(seconds)
    return self.is_taken
end


function _M.give_back(self)
    self.is_over = true
    if self.is_taken then
        self.is_taken = false
        taken = taken - 1
        add(by_method, self.method, -1)
        add(by_client, self.client, -1)
        hand_out()
    end
end


return _M
