-- The handshake with the service, before the client's is answered: what the service says is what the client hears.

local addresses = require "addresses"
local client_socket = require "client_socket"
local http1 = require "http1"
local linked = require "linked"
local metrics = require "metrics"
local nodes = require "nodes"
local settings = require "settings"
local trunks = require "trunks"

local concat = table.concat
local find = string.find
local insert = table.insert
local ipairs = ipairs
local lower = string.lower
local min = math.min
local now = ngx.now
local pairs = pairs
local pcall = pcall
local tcp = ngx.socket.tcp
local type = type

local BODY_BYTES = 65536

-- Not passed on: what concerns one hop, what the edge says itself, and what nobody outside may say. No compression
-- either: the service speaks none, and an edge that reads frames could not.
local OURS = {
    connection = true, upgrade = true, host = true, te = true, trailer = true, expect = true,
    ["keep-alive"] = true, ["proxy-connection"] = true, ["transfer-encoding"] = true, ["content-length"] = true,
    ["x-forwarded-for"] = true, ["x-forwarded-proto"] = true, ["x-request-id"] = true,
    ["x-client-id"] = true, ["x-connection-id"] = true, ["x-tidegate-via"] = true, ["x-tidegate-next"] = true,
    ["sec-websocket-extensions"] = true,
}

local verdicts = {} -- by a node's name: whether it lives, and until when that is good

local _M = {}


local function add(lines, name, value)
    for _, one in ipairs(type(value) == "table" and value or { value }) do
        insert(lines, name .. ": " .. one)
    end
end


local function request()
    local var = ngx.var
    local lines = { ngx.req.get_method() .. " " .. var.request_uri .. " HTTP/1.1" }
    for name, value in pairs(ngx.req.get_headers(0, true)) do
        if not OURS[lower(name)] and value ~= true then
            add(lines, name, value)
        end
    end
    add(lines, "Host", var.http_host)
    local upgrade = var.tidegate_upgrade -- empty where the client has none, or speaks HTTP/1.0
    add(lines, "Upgrade", upgrade ~= "" and upgrade or nil)
    add(lines, "Connection", upgrade ~= "" and "upgrade" or "close")
    add(lines, "X-Forwarded-For", var.remote_addr)
    add(lines, "X-Forwarded-Proto", var.scheme)
    add(lines, "X-Request-Id", var.request_id)
    return concat(lines, "\r\n") .. "\r\n\r\n"
end


local function connect(node)
    local sock = tcp()
    sock:settimeouts(settings.connect_timeout_s * 1000, settings.send_timeout_s * 1000, settings.read_timeout_s * 1000)
    local ok, err = addresses.connect(sock, node, "tidegate_websocket") -- nothing is ever kept in it
    return ok and sock, err
end


-- Whether a node says anything at all, to a question that needs nothing but the node itself.
local function is_alive(node)
    local sock = connect(node)
    if not sock then
        return false
    end
    local answer = http1.new(sock, "GET", now() + settings.probe_timeout_s / 2, "service")
    local ok = sock:send("GET " .. settings.probe_path .. " HTTP/1.1\r\nHost: tidegate\r\nConnection: close\r\n\r\n")
    ok = ok and answer:read_head()
    sock:close()
    return ok
end


local function learn(node, is_alive_now, for_s)
    local known = verdicts[node.name]
    if not known then
        known = {}
        verdicts[node.name] = known
    end
    known.is_alive, known.until_s = is_alive_now, now() + for_s
end


-- Whether a node lives, asked by one handshake for all that wait for it: thousands of them may, for their turn.
local function lives(node)
    local known = verdicts[node.name]
    if known and now() < known.until_s then
        return known.is_alive
    end
    learn(node, true, settings.probe_timeout_s) -- for the others, while this one asks
    local found = is_alive(node)
    learn(node, found, settings.probe_timeout_s / 2)
    return found
end


-- An answer's head. A handshake may take its time, as Redis may, or wait for its turn; a node that hangs may not. So
-- who is silent for a while is asked beside it whether it lives, again and again. A client may go meanwhile.
local function read_head(node, answer)
    local until_s = now() + settings.read_timeout_s
    local quiet_s = settings.probe_timeout_s / 2
    local asks_s = now() + quiet_s
    local ok, err
    repeat
        answer.until_s = min(now() + client_socket.LOOK_S, asks_s)
        ok, err = answer:read_head()
        local is_silent = err == "timeout" and now() >= asks_s
        if is_silent then
            asks_s = now() + quiet_s
        end
    until err ~= "timeout" or now() >= until_s or client_socket.has_gone() or is_silent and not lives(node)
    if ok then
        answer.until_s = until_s
        learn(node, true, settings.probe_timeout_s / 2)
    end
    return ok, err
end


-- One node's answer; its socket, behind a 101, or its session on a trunk.
local function knock(node, text)
    local trunk, is_relayed = trunks.to(node)
    if trunk then
        return linked.open(trunk, text)
    elseif not is_relayed then
        return nil, "no answer to a probe"
    end
    local sock, err = connect(node)
    if not sock then
        return nil, err
    end
    local answer = http1.new(sock, ngx.req.get_method(), 0, "service")
    local ok, failure = sock:send(text)
    if ok then
        ok, failure = read_head(node, answer)
    end
    if ok and answer.status ~= 101 then
        answer.body, failure = answer:read_body(BODY_BYTES)
        ok = answer.body
    end
    if not ok or answer.status ~= 101 then
        sock:close()
    end
    return ok and answer, failure
end


local function note(name, value)
    local before = ngx.var[name]
    ngx.var[name] = (before and before ~= "") and before .. ", " .. value or value
end


-- Whether a refusal says nothing of the next handshake.
local function is_passing(body)
    return find(body, '"broker_down"', 1, true) or find(body, '"busy"', 1, true)
end


-- The answer that counts; nil where no node gave one, and whether that is because the client has gone. After a 101,
-- `nodes.leave` when the session has ended. A node that is dead or takes no handshakes (503) is passed over; where all
-- are, one answer is enough. Not so without its Redis, or while too many come at once: that may be so for all nodes
-- alike, and over in the next moment. Where the application does not say who a client is, another node would not hear
-- it either.
function _M.dial()
    local text, tried, refusal = request(), {}, nil
    local until_s = now() + settings.tries * settings.connect_timeout_s
    for _ = 1, settings.tries do
        local node = now() < until_s and nodes.take(tried, refusal)
        if not node then
            break
        end
        nodes.enter(node)
        local ok, answer, err = pcall(knock, node, text)
        if not ok then
            ngx.log(ngx.ERR, "a handshake failed: ", answer)
            answer = nil
        end
        note("tidegate_upstream", node.name)
        note("tidegate_upstream_status", answer and answer.status or 502)
        if answer and answer.status == 101 then
            nodes.works(node)
            return answer
        end
        nodes.leave()
        if not answer and client_socket.has_gone() then
            return nil, true
        end
        if answer and (answer.status ~= 503 or find(answer.body, '"auth_unavailable"', 1, true)) then
            nodes.works(node)
            return answer
        end
        refusal = answer or refusal
        if not answer or not is_passing(answer.body) then
            nodes.failed(node)
        end
        metrics.add('tidegate_edge_passed_over_total{node="' .. node.name .. '"}', 1)
        ngx.log(ngx.WARN, "no handshake with ", node.name, ": ", err or answer.status)
    end
    return refusal
end


-- Gives a refusal to the client as it is.
function _M.refuse(answer)
    local header = ngx.header
    ngx.status = answer.status
    for _, field in ipairs(answer.fields) do
        local name, value = field[1], field[2]
        local key = lower(name)
        if not OURS[key] and key ~= "date" and key ~= "server" then
            local before = header[name]
            header[name] = before and find(key, "cookie", 1, true) and { before, value } or value
        end
    end
    header["Upgrade"] = answer.headers.upgrade
    header["Content-Length"] = #answer.body
    ngx.print(answer.body)
end


return _M
