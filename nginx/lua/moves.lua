-- A session goes on at another node, while its client notices nothing. Its own thread does that, and returns with the
-- node that took it, or without one when `hold_s` is over.
--
-- After a node with thousands of sessions all of them want to move at once. So few of them ask at a time: who asks next
-- waits for an answer to another. What had come for its client is written meanwhile where that takes longer, but in
-- nobody's way: a client that reads nothing holds its writer.

local frames = require "trunk_frames"
local metrics = require "metrics"
local nodes = require "nodes"
local semaphore = require "ngx.semaphore"
local settings = require "settings"
local timetable = require "timetable"
local trunks = require "trunks"

local max = math.max
local min = math.min
local now = ngx.now
local pcall = pcall
local random = math.random
local sleep = ngx.sleep

local AT_ONCE = 256 -- that ask
local ANSWER_S = 5
local ROUND_S = 0.1 -- between two rounds of all nodes
local SOON_S = 0.5 -- whose turn has not come by then writes first
local LEAST_S = 0.001

local turns = semaphore.new(AT_ONCE)

local _M = {}


local function request(session)
    session.term = session.term + 1
    local known = frames.fields("connection", session.connection, "term", session.term, "orders", session.orders)
    if session.token then
        known = known .. frames.fields("token", session.token)
    end
    return frames.count(#known) .. known .. session.cursor .. session.head
end


-- Asks one node; whether it took the session, and still has it.
local function ask(session, node)
    local trunk = trunks.to(node)
    if not trunk then
        return false
    end
    session.said_before = session.said
    session:await(trunk, frames.RESUME, request(session), ANSWER_S)
    if session.is_accepted then
        return session.trunk ~= nil
    end
    session:leave(not session.answer and not session.has_closed and 1006 or nil, false)
    session.trunk = nil
    return false
end


-- Whether it may ask.
local function take_turn(session, seconds)
    session.has_turn = turns:wait(max(seconds, LEAST_S)) and true or false
    return session.has_turn
end


local function give_turn(session)
    if session.has_turn then
        session.has_turn = false
        turns:post(1)
    end
end


-- Writes what waits, while others ask; for how long. It is no time in which no node took the session: a client that
-- reads nothing meanwhile is not sent away for that, but after `write_timeout_s`.
local function write(session)
    local begun_s = now()
    give_turn(session)
    session:write()
    return now() - begun_s
end


-- Where nginx stops: this worker makes no trunks any more, so that a node that comes back later is not found here. Who
-- is held is sent away when its turn comes, as others are.
local function must_leave(session)
    if not session.must_go then
        return false
    end
    session.times = session.times or timetable.new(false)
    return now() >= session.times.goes_s
end


local function resume(session, until_s)
    local last = ngx.ctx.node
    local tried = last and { [last.name] = true } or {}
    nodes.leave()
    while not session.is_over and not session.has_closed do
        local node = nodes.take(tried)
        if node then
            nodes.enter(node)
            if ask(session, node) then
                nodes.works(node)
                ngx.var.tidegate_upstream = node.name
                return true
            end
            nodes.leave()
        else
            tried = {}
            if session.output.out then
                until_s = until_s + write(session)
                take_turn(session, until_s - now())
            else
                sleep(ROUND_S * (1 + random()))
            end
        end
        if now() >= until_s or not session.has_turn or must_leave(session) then
            return false
        end
    end
    return false
end


-- Whether a node has it; nil `moves` is the session's to set.
function _M.resume(session)
    local begun_s, why = now(), session.moves
    metrics.add("tidegate_edge_held", 1)
    local until_s = begun_s + settings.hold_s
    local is_there = take_turn(session, min(settings.hold_s, SOON_S))
    if not is_there then
        if session.output.out then
            until_s = until_s + write(session)
        end
        is_there = not session.has_closed and take_turn(session, until_s - now())
    end
    if is_there then
        local ok, found = pcall(resume, session, until_s)
        give_turn(session) -- whatever happened: a turn that is lost is lost until nginx restarts
        if not ok then
            ngx.log(ngx.ERR, "a move failed: ", found)
        end
        is_there = ok and found
    end
    metrics.add("tidegate_edge_held", -1)
    local outcome = is_there and why or "failed"
    metrics.add('tidegate_edge_moves_total{outcome="' .. outcome .. '"}', 1)
    metrics.add("tidegate_edge_move_seconds_sum", now() - begun_s)
    metrics.add("tidegate_edge_move_seconds_count", 1)
    return is_there
end


return _M
