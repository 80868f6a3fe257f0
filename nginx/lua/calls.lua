-- A call becomes a request, `POST {calls.url}/{method}`, and its answer an event. Source: docs/protocol.md, Calls.
--
-- An application closes idle connections, and it may do so while a request is on its way to it. Such a request is made
-- once more, as the service does it: only where the connection had served before and broke without an answer, within
-- the same time and under the same id. On a new connection nothing is ever sent twice.

local addresses = require "addresses"
local http1 = require "http1"
local json_text = require "json_text"
local metrics = require "metrics"
local settings = require "settings"

local concat = table.concat
local format = string.format
local max = math.max
local now = ngx.now
local tcp = ngx.socket.tcp

local QUIET_MS = 2 -- at least one, as nginx counts
local ANSWER_DEPTH = 64 -- as in service/tidegate/calls.py
local POOL = "tidegate_calls" -- named, or WebSockets to the same host and port would be taken from it
local FRESH = "tidegate_calls_fresh" -- nothing is ever put into it

local _M = {}


-- The event that answers `id`, which is JSON text; `message` needs no escape.
local function error_event(id, code, message)
    return format('{"type":"error","id":%s,"code":"%s","message":"%s"}', id, code, message)
end
_M.error_event = error_event


local function request(call, who, number)
    local url = settings.calls_url
    return {
        "POST ", url.path, "/", call.method, " HTTP/1.1\r\nHost: ", url.netloc,
        "\r\nAccept: application/json\r\nAccept-Encoding: identity\r\nUser-Agent: tidegate",
        "\r\nContent-Type: application/json\r\nContent-Length: ", #call.data,
        "\r\nX-Client-Id: ", who.client, "\r\nX-Connection-Id: ", who.connection,
        "\r\nX-Request-Id: ", who.connection, "-e", number,
        call.traceparent and "\r\ntraceparent: " or "", call.traceparent or "",
        "\r\nX-Tidegate-Via: openresty\r\n\r\n", call.data,
    }
end


-- A socket to the application, which may have served before.
local function connect(pool, until_s)
    local url = settings.calls_url
    local address, unresolved = addresses.one(url.host, url.port)
    if not address then
        return nil, unresolved
    end
    local sock = tcp()
    local left_ms = max((until_s - now()) * 1000, 1) -- 0 is no timeout at all
    sock:settimeouts(left_ms, left_ms, left_ms)
    local ok, err = sock:connect(address.host, address.port, { pool = pool, pool_size = settings.calls_connections })
    if not ok then
        return nil, err
    end
    if url.tls and sock:getreusedtimes() == 0 then
        ok, err = sock:sslhandshake(nil, url.host, true)
        if not ok then
            sock:close()
            return nil, err
        end
    end
    return sock
end


-- The head of the answer; `stale` after an error: a kept connection broke without an answer.
local function ask(text, pool, until_s)
    local sock, err = connect(pool, until_s)
    if not sock then
        return nil, err == "timeout" and err or "unconnected"
    end
    local reused = sock:getreusedtimes() > 0
    local answer = http1.new(sock, "POST", until_s, "application")
    local sent
    sent, err = sock:send(text)
    local ok = sent
    if sent then
        ok, err = answer:read_head()
    end
    if ok then
        return answer
    end
    sock:close()
    return nil, err, reused and not answer.begun and err ~= "timeout"
end


-- Body and status of the answer, and its socket if that may serve once more; nil and why.
local function exchange(text, until_s)
    local answer, err, stale = ask(text, POOL, until_s)
    local pool = POOL
    if stale then
        pool = FRESH
        answer, err = ask(text, pool, until_s)
    end
    if not answer then
        return nil, err
    end
    local body, failure = answer:read_body(settings.answer_bytes)
    if body and pool == POOL and answer:may_be_kept() then
        return body, answer.status, answer.sock
    end
    answer.sock:close()
    if not body and failure ~= "timeout" and failure ~= "too large" then
        failure = "cut"
    end
    return body, body and answer.status or failure
end


-- A socket goes back to the others when it has been quiet for a moment. What comes on it unasked would be taken for the
-- answer to the next call, which may be another client's; nginx looks at those that are kept, but a second answer right
-- behind the first came too late for it.
function _M.put_back(sock)
    sock:settimeout(QUIET_MS)
    local data, err = sock:receiveany(1)
    if data or err ~= "timeout" then
        sock:close()
    else
        sock:setkeepalive(settings.calls_keepalive_s * 1000, settings.calls_connections)
    end
end


local FAILURES = {
    timeout = { "call_timeout", "no answer within %g s" },
    unconnected = { "call_unavailable", "could not connect to the application" },
    malformed = { "call_bad_answer", "the answer is not valid HTTP" },
    cut = { "call_bad_answer", "the answer ended too early" },
    ["too large"] = { "call_bad_answer", "the answer is larger than %d bytes" },
    text = { "call_bad_answer", "the answer is not JSON in UTF-8" },
}
local BROKEN = { "call_unavailable", "the connection to the application broke before its answer" }


local function failed(id, err)
    local failure = FAILURES[err] or BROKEN
    local fact = err == "timeout" and settings.calls_timeout_s or settings.answer_bytes
    return error_event(id, failure[1], format(failure[2], fact)), failure[1]
end


-- The event that answers `call`, within calls_timeout_s, and a socket for `put_back` or nil. `who` is {client,
-- connection}, `number` is this call's own, `permit` what it must wait for.
function _M.make(call, who, number, permit)
    local begun_s = now()
    local body, fact, sock = nil, "timeout", nil
    if permit:wait(settings.calls_timeout_s) then
        body, fact, sock = exchange(concat(request(call, who, number)), begun_s + settings.calls_timeout_s)
    end
    local data = body == "" and "null" or body and json_text.document(body, ANSWER_DEPTH)
    local event, outcome
    if data then
        event = concat({ '{"type":"reply","id":', call.id, ',"status":', fact, ',"data":', data, "}" })
        outcome = "reply"
    else
        event, outcome = failed(call.id, body and "text" or fact)
    end
    metrics.observe_call(outcome, now() - begun_s)
    return event, sock
end


return _M
