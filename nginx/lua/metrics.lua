-- Counters of all workers, as Prometheus reads them. A worker counts for itself and adds to the shared dictionary
-- once a second, so that counting costs a frame next to nothing.

local concat = table.concat
local exiting = ngx.worker.exiting
local insert = table.insert
local ipairs = ipairs
local next = next
local pairs = pairs
local sort = table.sort
local match = string.match

local FLUSH_S = 1
local SECONDS = { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 }
local BUCKETS = {} -- the series of each
for number, most in ipairs(SECONDS) do
    BUCKETS[number] = 'tidegate_edge_call_seconds_bucket{le="' .. most .. '"}'
end

local FAMILIES = {
    { "tidegate_edge_websockets", "gauge", "Live WebSockets." },
    { "tidegate_edge_handshakes_total", "counter", "Answers to handshakes, by status." },
    { "tidegate_edge_passed_over_total", "counter", "Nodes that did not take a handshake." },
    { "tidegate_edge_closed_total", "counter", "Ended WebSockets, by close code; cut: without a close frame." },
    { "tidegate_edge_moving_total", "counter", "WebSockets told to move, at a reload." },
    { "tidegate_edge_given_up_total", "counter", "WebSockets closed because their node gave no sign of life." },
    { "tidegate_edge_frames_total", "counter", "Frames relayed, by who sent them." },
    { "tidegate_edge_bytes_total", "counter", "Bytes of these frames' payloads." },
    { "tidegate_edge_pauses_total", "counter", "Turns that a session had to leave to others, by whose flood it was." },
    { "tidegate_edge_heartbeats_total", "counter", "Text heartbeats taken at the edge." },
    { "tidegate_edge_trunks", "gauge", "Trunks that are up." },
    { "tidegate_edge_unsent_ended_total", "counter", "WebSockets closed because too much of all was unsent." },
    { "tidegate_edge_held", "gauge", "WebSockets whose node has gone, and that no other has taken yet." },
    { "tidegate_edge_moves_total", "counter", "WebSockets that went to another node, by why; failed: none took them." },
    { "tidegate_edge_move_seconds", "summary", "Time without a node." },
    { "tidegate_edge_calls_total", "counter", "Calls taken at the edge, by outcome." },
    { "tidegate_edge_call_seconds", "histogram", "Time from a call to its answer." },
}

local CONNECTIONS = [[
# HELP tidegate_edge_connections Connections of the edge by state; writing: WebSockets, and this request.
# TYPE tidegate_edge_connections gauge]]

local dict = ngx.shared.tidegate_metrics
local pending = {}

local _M = {}


local function flush()
    local counted = pending
    pending = {}
    for name, amount in pairs(counted) do
        dict:incr(name, amount, 0)
    end
end


-- `name` is a series with its labels.
function _M.add(name, amount)
    if exiting() then
        dict:incr(name, amount, 0) -- no flush comes any more
    else
        pending[name] = (pending[name] or 0) + amount
    end
end


function _M.observe_call(outcome, seconds)
    _M.add('tidegate_edge_calls_total{outcome="' .. outcome .. '"}', 1)
    for number = #SECONDS, 1, -1 do
        if seconds > SECONDS[number] then
            break
        end
        _M.add(BUCKETS[number], 1)
    end
    _M.add('tidegate_edge_call_seconds_bucket{le="+Inf"}', 1)
    _M.add("tidegate_edge_call_seconds_sum", seconds)
    _M.add("tidegate_edge_call_seconds_count", 1)
end


function _M.start()
    ngx.timer.every(FLUSH_S, function()
        if next(pending) then
            flush()
        end
    end)
end


-- name -> its series, each a line of text
local function series()
    local found = {}
    for _, key in ipairs(dict:get_keys(0)) do
        local name = match(key, "^[%l_]+")
        name = match(name, "^(tidegate_edge_%l+_seconds)_") or name
        found[name] = found[name] or {}
        insert(found[name], key .. " " .. (dict:get(key) or 0))
    end
    return found
end


-- What nginx itself counts, as in the other variants.
local function add_connections(lines)
    insert(lines, CONNECTIONS)
    for _, state in ipairs({ "active", "reading", "writing", "waiting" }) do
        local labels = '{variant="openresty",state="' .. state .. '"} '
        insert(lines, "tidegate_edge_connections" .. labels .. ngx.var["connections_" .. state])
    end
end


function _M.text()
    local lines, found = {}, series()
    add_connections(lines)
    for _, family in ipairs(FAMILIES) do
        local name = family[1]
        insert(lines, "# HELP " .. name .. " " .. family[3])
        insert(lines, "# TYPE " .. name .. " " .. family[2])
        local values = found[name] or (family[2] == "gauge" and { name .. " 0" }) or {}
        sort(values)
        for _, line in ipairs(values) do
            insert(lines, line)
        end
    end
    insert(lines, "")
    return concat(lines, "\n")
end


return _M
