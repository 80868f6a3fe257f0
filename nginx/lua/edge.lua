-- What openresty.conf calls.

local addresses = require "addresses"
local certificate = require "certificate"
local clock = require "clock"
local handshake = require "handshake"
local linked = require "linked"
local metrics = require "metrics"
local nodes = require "nodes"
local session = require "session"
local settings = require "settings"
local unsent = require "unsent"

local match = string.match
local pcall = pcall
local tonumber = tonumber

local found, server = pcall(require, "resty.websocket.server") -- OpenResty's name
if not found then
    server = require "nginx.websocket.server" -- Debian's
end

local CLIENT_GONE = 499 -- as nginx itself says it in the log
local HOUR_S = 3600
local WAKE_S = 0.001
local QUIT_S = 0.25 -- within which all workers of an nginx that quits have stopped to listen
local LOOK_MS = 1000

local _M = {}


-- Whether an nginx is there that takes handshakes: after a reload new workers are, when nginx quits nobody listens.
local function has_successors()
    ngx.sleep(QUIT_S)
    local host, port = match(settings.internal, "^(.*):(%d+)$")
    local sock = ngx.socket.tcp()
    sock:settimeout(LOOK_MS)
    local ok
    if port then
        ok = sock:connect(host, tonumber(port))
    else
        ok = sock:connect(settings.internal)
    end
    if ok then
        sock:close()
    end
    return ok
end


-- When nginx reads its configuration.
function _M.init(values)
    settings.set(values)
    settings.certificate_ends_s = settings.certificate and certificate.read(settings.certificate)
    addresses.start()
end


-- nginx ends timers early when it stops. What this one posts to the sessions is looked at when the next event comes,
-- which may be the end of the wait for them: so one follows.
local function end_all(is_early)
    if is_early then
        local may_move = has_successors()
        session.end_all(may_move)
        linked.end_all(may_move)
        ngx.sleep(WAKE_S)
    end
end


function _M.init_worker()
    math.randomseed(ngx.worker.pid() + ngx.now() * 1000)
    metrics.start()
    clock.start()
    unsent.start()
    ngx.timer.every(HOUR_S, end_all)
end


-- What the library wants to see in one way only. The service has checked it, and chosen.
local function tidy_request(answer)
    ngx.req.set_header("Upgrade", "websocket")
    ngx.req.set_header("Connection", "Upgrade")
    ngx.req.set_header("Sec-WebSocket-Protocol", answer.headers["sec-websocket-protocol"])
end


-- Answers the client's handshake with 101; its socket.
local function accept(answer)
    local ctx = ngx.ctx
    ngx.var.tidegate_client = answer.headers["tidegate-client"]
    ngx.var.tidegate_connection = answer.headers["tidegate-connection"]
    ngx.header["Tidegate-Client"] = answer.headers["tidegate-client"]
    ngx.header["Tidegate-Connection"] = answer.headers["tidegate-connection"]
    tidy_request(answer)
    local websocket, err = server:new({ max_payload_len = settings.frame_bytes })
    if not websocket then
        ngx.log(ngx.INFO, "no handshake with the client: ", err)
        if answer.linked then
            answer.linked:give_back()
        else
            answer.sock:close()
        end
        nodes.leave()
        return nil
    end
    ctx.session = (answer.linked and linked or session).new(websocket.sock, answer)
    metrics.add("tidegate_edge_websockets", 1)
    return ctx.session
end


-- Whether a handshake announces a body. It has none; and where it goes on to is asked without its body, and could not
-- tell.
local function has_body()
    local var = ngx.var
    local length = var.http_content_length
    return ngx.req.get_method() == "GET" and var.http_upgrade
        and (var.http_transfer_encoding or length and length ~= "0")
end


local function finish(current)
    if current then
        current:run()
    end
    return ngx.exit((current or ngx.headers_sent) and ngx.OK or 400)
end


-- One request for a WebSocket, to its end.
function _M.serve()
    if has_body() then
        return ngx.exit(400)
    end
    local answer, has_gone = handshake.dial()
    if not answer then
        return ngx.exit(has_gone and CLIENT_GONE or 502)
    end
    if answer.status ~= 101 then
        return handshake.refuse(answer)
    end
    return finish(accept(answer)) -- a tail call: the answer is not kept as long as the session
end


-- At the end of each such request, however it came: what was counted is given back here.
function _M.log()
    local ctx, var = ngx.ctx, ngx.var
    metrics.answered(ngx.status, true)
    nodes.leave()
    local ended = ctx.session
    if ended then
        local code = ended.close_code
        ended:give_back()
        metrics.add("tidegate_edge_websockets", -1)
        metrics.closed(code)
        var.tidegate_close_code = code or "null"
        var.tidegate_bytes_in = var.request_length + ended.client.stream.bytes
    end
end


-- At the end of every other request of a client.
function _M.count()
    metrics.answered(ngx.status)
end


function _M.metrics()
    local text = metrics.text(nodes.down(), settings.certificate_ends_s)
    ngx.header["Content-Type"] = "text/plain; version=0.0.4"
    ngx.header["Content-Length"] = #text
    ngx.print(text)
end


return _M
