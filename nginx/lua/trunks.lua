-- The trunks of this worker: which node has one, and whether it is up. A node says so in its answer to a probe; who has
-- none, or speaks another version, is asked again after a while, and its clients are relayed. Who does not answer gets
-- no client at all: a node that hung for a while would hold one that was relayed, and that one can't be moved.

local addresses = require "addresses"
local http1 = require "http1"
local semaphore = require "ngx.semaphore"
local settings = require "settings"
local trunk = require "trunk"

local find = string.find
local match = string.match
local max = math.max
local min = math.min
local now = ngx.now
local sub = string.sub
local tcp = ngx.socket.tcp
local timer_at = ngx.timer.at
local tonumber = tonumber

local WAIT_S = 1 -- a handshake waits for a trunk that is being dialled: so long, or edge.probe_timeout_s
local AGAIN_S = 5 -- after a node had none
local SOON_S = 0.2 -- after one that did not last, or no answer; twice as long each time that it does not last

local by_node = {} -- name -> {trunk, is_dialled, waiting, ready, again_s, failures, answers: the last probe}

local _M = {}


-- Whether the node answers; where it has its trunk, as it says itself: an address for a socket's connect, nil where it
-- has none; and in how many seconds that may be otherwise.
local function ask(node)
    local sock = tcp()
    sock:settimeouts(settings.connect_timeout_s * 1000, settings.send_timeout_s * 1000, settings.probe_timeout_s * 1000)
    if not addresses.connect(sock, node, "tidegate_websocket") then
        return false, nil, SOON_S
    end
    local answer = http1.new(sock, "GET", now() + settings.probe_timeout_s, "service")
    local sent = sock:send("GET " .. settings.probe_path
        .. " HTTP/1.1\r\nHost: tidegate\r\nTidegate-Trunk: 1\r\nConnection: close\r\n\r\n")
    local said = sent and answer:read_head()
    sock:close()
    if not said then
        return false, nil, SOON_S
    end
    local where = answer.headers["tidegate-trunk"]
    if not where then
        return true, nil, answer.status == 204 and AGAIN_S or SOON_S
    end
    if sub(where, 1, 5) == "unix:" then
        return true, { host = where }
    end
    local port = match(where, "^%d+$")
    return true, port and not find(node.host, "^unix:") and { host = node.host, port = tonumber(port) } or nil, AGAIN_S
end


local function tell(entry)
    entry.is_dialled = false
    local waiting = entry.waiting
    entry.waiting = 0
    if waiting > 0 then
        entry.ready:post(waiting)
    end
end


-- It did not come up, or ended: when it is dialled again. After one that lasted its node is asked at once, so that
-- nobody is relayed to it meanwhile. Who has a wrong key, or sends what is no frame, is not asked five times a second.
local function again_after(entry, lived_s)
    if lived_s >= AGAIN_S then
        entry.failures = 0
        return now()
    end
    entry.failures = entry.failures + 1
    return now() + min(SOON_S * 2 ^ (entry.failures - 1), AGAIN_S)
end


local function dial(is_early, node, entry)
    local address, again_s
    if not is_early then
        entry.answers = false
        entry.answers, address, again_s = ask(node)
    end
    if not address then
        entry.again_s = now() + (again_s or AGAIN_S)
        return tell(entry)
    end
    local link, up_s = trunk.new(node.name, address), 0
    link:run(function(err)
        up_s = now()
        if err then
            entry.again_s = again_after(entry, 0)
            ngx.log(ngx.WARN, "no trunk to ", node.name, ": ", err)
        else
            entry.trunk = link
        end
        tell(entry)
    end)
    if entry.trunk == link then
        entry.trunk, entry.again_s = nil, again_after(entry, now() - up_s)
    end
end


-- The trunk to a node. nil and true where its client must be relayed, nil and false where the node does not answer.
function _M.to(node)
    if not settings.trunk then
        return nil, true
    end
    local entry = by_node[node.name]
    if not entry then
        entry = { waiting = 0, ready = semaphore.new(0), again_s = 0, is_dialled = false, failures = 0, answers = true }
        by_node[node.name] = entry
    end
    if entry.trunk and entry.trunk.is_up then
        return entry.trunk
    end
    if not entry.is_dialled then
        if now() < entry.again_s then
            return nil, entry.answers
        end
        entry.is_dialled = true
        if not timer_at(0, dial, node, entry) then
            entry.is_dialled = false
            return nil, true
        end
    end
    entry.waiting = entry.waiting + 1
    if not entry.ready:wait(max(WAIT_S, settings.probe_timeout_s)) then
        entry.waiting = entry.waiting - 1
        return nil, entry.answers
    end
    if entry.trunk and entry.trunk.is_up then
        return entry.trunk
    end
    return nil, entry.answers -- it may have ended since
end


return _M
