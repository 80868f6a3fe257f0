-- What all clients on trunks of this worker have not taken, together, and who goes where that is too much.
--
-- Twice a second those for whom something waits behind what is under way are added up. A message to many counts once:
-- they all wait for the same string. Over the most (`limits.all_outbox_bytes`) room is made until a quarter of it is
-- free: those for whom most waits are told that they are slow, as if each had more than its own limit, so that their
-- groups' policies decide. Who was told before and still holds it is closed (4008).

local metrics = require "metrics"
local output = require "linked_output"
local settings = require "settings"

local insert = table.insert
local ipairs = ipairs
local pairs = pairs
local sort = table.sort

local LOOK_S = 0.5
local AT_ONCE = 64 -- of whom room is made, so that no look is long

local told = {} -- at the last look

local _M = {}


local function all_bytes()
    local whole = 0
    for out in pairs(output.blocked) do
        whole = whole + out.size
    end
    if whole <= settings.all_outbox_bytes then
        return whole -- and less, where messages are shared
    end
    local seen, bytes = {}, 0
    for out in pairs(output.blocked) do
        bytes = bytes + output.unseen_bytes(out, seen)
    end
    return bytes
end


local function largest_first()
    local found = {}
    for out in pairs(output.blocked) do
        insert(found, out)
    end
    sort(found, function(one, other)
        return one.size > other.size
    end)
    return found
end


-- Tells the largest that they are slow, until so many bytes less are to be expected.
local function make_room(excess)
    local told_now, closed = {}, 0
    for place, out in ipairs(largest_first()) do
        if place > AT_ONCE or excess <= 0 then
            break
        end
        excess = excess - out.size
        closed = closed + (told[out] and 1 or 0)
        out.session:note_slow(told[out])
        told_now[out] = true
    end
    told = told_now
    metrics.add("tidegate_edge_unsent_ended_total", closed)
    return closed
end


local function look(is_early)
    local most = settings.all_outbox_bytes
    local bytes = is_early and 0 or all_bytes()
    if bytes > most then
        local closed = make_room(bytes - most * 3 / 4)
        ngx.log(ngx.WARN, "too much is unsent: ", bytes, " bytes, closed: ", closed)
    else
        told = {}
    end
end


function _M.start()
    ngx.timer.every(LOOK_S, look)
end


return _M
