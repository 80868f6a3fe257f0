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
local LAST = 'tidegate_edge_call_seconds_bucket{le="+Inf"}'
BUCKETS[#SECONDS + 1] = LAST

-- What a label tells apart is there from the start, at 0.
local STATUSES = {
    101, 400, 401, 403, 404, 405, 408, 413, 414, 426, 429, 431, 499, 500, 502, 503, 504, "other",
}
-- Peers may choose any close code of 3000-4999: they share a label, or the series would grow.
local CODES = {
    1000, 1001, 1002, 1003, 1005, 1007, 1009, 1011, 1012, 1013, 4007, 4008, 4009, 4500, 4501, 4502, "other", "cut",
}
local KNOWN_STATUSES, KNOWN_CODES = {}, {}
for _, status in ipairs(STATUSES) do
    KNOWN_STATUSES[status] = true
end
for _, code in ipairs(CODES) do
    KNOWN_CODES[code] = true
end

local FAMILIES = {
    { "tidegate_edge_responses_total", "counter", "Answers to clients, by status.", "status", STATUSES },
    { "tidegate_edge_websockets", "gauge", "Live WebSockets." },
    { "tidegate_edge_handshakes_total", "counter", "Answers to handshakes, by status.", "status", STATUSES },
    { "tidegate_edge_passed_over_total", "counter", "Handshakes that a node did not take.", "node" },
    { "tidegate_edge_closed_total", "counter", "Ended WebSockets, by close code; cut: without a close frame.",
        "code", CODES },
    { "tidegate_edge_moving_total", "counter", "WebSockets told to move, at a reload." },
    { "tidegate_edge_given_up_total", "counter", "WebSockets closed because their node gave no sign of life." },
    { "tidegate_edge_frames_total", "counter", "Frames relayed, by who sent them.", "from", { "client", "service" } },
    { "tidegate_edge_bytes_total", "counter", "Bytes of these frames' payloads.", "from", { "client", "service" } },
    { "tidegate_edge_pauses_total", "counter", "Turns that a session had to leave to others, by whose flood it was.",
        "from", { "client", "service", "application" } },
    { "tidegate_edge_heartbeats_total", "counter", "Text heartbeats taken at the edge." },
    { "tidegate_edge_trunks", "gauge", "Trunks that are up." },
    { "tidegate_edge_unsent_ended_total", "counter", "WebSockets closed because too much of all was unsent." },
    { "tidegate_edge_held", "gauge", "WebSockets whose node has gone, and that no other has taken yet." },
    { "tidegate_edge_moves_total", "counter", "WebSockets that went to another node, by why; failed: none took them.",
        "outcome", { "drained", "lost", "failed" } },
    { "tidegate_edge_move_seconds", "summary", "Time without a node." },
    { "tidegate_edge_calls_total", "counter", "Calls taken at the edge, by outcome.",
        "outcome", { "reply", "call_timeout", "call_unavailable", "call_bad_answer", "too_many_calls" } },
    { "tidegate_edge_call_seconds", "histogram", "Time from a call to its answer." },
}

local CERTIFICATE = [[
# HELP tidegate_edge_certificate_end_seconds Unix time at which the certificate ends that nginx has read; NaN: unknown.
# TYPE tidegate_edge_certificate_end_seconds gauge]]
local INFO = [[
# HELP tidegate_edge_info 1; what runs here.
# TYPE tidegate_edge_info gauge]]
local LIMIT = [[
# HELP tidegate_edge_connections_limit Connections that all workers together may have.
# TYPE tidegate_edge_connections_limit gauge]]
local DOWN = [[
# HELP tidegate_edge_node_down 1 while a node is passed over because it failed.
# TYPE tidegate_edge_node_down gauge]]
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


-- A request of a client has had its answer. `is_handshake`: it came to where WebSockets are.
function _M.answered(status, is_handshake)
    local labels = '{status="' .. (KNOWN_STATUSES[status] and status or "other") .. '"}'
    _M.add("tidegate_edge_responses_total" .. labels, 1)
    if is_handshake then
        _M.add("tidegate_edge_handshakes_total" .. labels, 1)
    end
end


-- A WebSocket has ended. `code`: its close code; nil without a close frame.
function _M.closed(code)
    local label = code and (KNOWN_CODES[code] and code or "other") or "cut"
    _M.add('tidegate_edge_closed_total{code="' .. label .. '"}', 1)
end


function _M.observe_call(outcome, seconds)
    _M.add('tidegate_edge_calls_total{outcome="' .. outcome .. '"}', 1)
    for number = #SECONDS, 1, -1 do
        if seconds > SECONDS[number] then
            break
        end
        _M.add(BUCKETS[number], 1)
    end
    _M.add(LAST, 1)
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


-- All series of a family, whether something was counted of them yet or not.
local function known(family, down)
    local name, kind, label, values = family[1], family[2], family[4], family[5]
    local found = {}
    if label then
        for _, value in ipairs(values or down) do
            insert(found, name .. "{" .. label .. '="' .. value .. '"}')
        end
    elseif kind == "histogram" or kind == "summary" then
        insert(found, name .. "_sum")
        insert(found, name .. "_count")
    else
        insert(found, name)
    end
    if kind == "histogram" then
        for _, bucket in ipairs(BUCKETS) do
            insert(found, bucket)
        end
    end
    return found
end


-- Lines of text, by the name of their family.
local function series(down)
    local found, seen = {}, {}
    local function add(name, key)
        if not seen[key] then
            seen[key], found[name] = true, found[name] or {}
            insert(found[name], key .. " " .. (dict:get(key) or 0))
        end
    end
    for _, family in ipairs(FAMILIES) do
        for _, key in ipairs(known(family, down)) do
            add(family[1], key)
        end
    end
    for _, key in ipairs(dict:get_keys(0)) do -- of a node that is no more, for instance
        local name = match(key, "^[%l_]+")
        add(match(name, "^(tidegate_edge_%l+_seconds)_") or name, key)
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


local function add_facts(lines, certificate_ends_s)
    insert(lines, INFO)
    insert(lines, 'tidegate_edge_info{variant="openresty",nginx="' .. ngx.var.nginx_version .. '"} 1')
    insert(lines, LIMIT)
    insert(lines, "tidegate_edge_connections_limit " .. ngx.var.tidegate_connections_limit)
    insert(lines, CERTIFICATE)
    insert(lines, "tidegate_edge_certificate_end_seconds " .. (certificate_ends_s or "NaN"))
end


local function add_down(lines, down)
    insert(lines, DOWN)
    for name, is_down in pairs(down) do
        insert(lines, 'tidegate_edge_node_down{node="' .. name .. '"} ' .. (is_down and 1 or 0))
    end
end


-- `down`: name of a node -> whether it is passed over. `certificate_ends_s`: Unix time, or nil.
function _M.text(down, certificate_ends_s)
    local names = {}
    for name in pairs(down) do
        insert(names, name)
    end
    local lines, found = {}, series(names)
    add_connections(lines)
    add_facts(lines, certificate_ends_s)
    add_down(lines, down)
    for _, family in ipairs(FAMILIES) do
        local name = family[1]
        insert(lines, "# HELP " .. name .. " " .. family[3])
        insert(lines, "# TYPE " .. name .. " " .. family[2])
        local values = found[name] or {}
        sort(values)
        for _, line in ipairs(values) do
            insert(lines, line)
        end
    end
    insert(lines, "")
    return concat(lines, "\n")
end


return _M
