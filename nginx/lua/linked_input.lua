-- What the client of a session on a trunk says: read frame by frame, put together to messages, answered here where it
-- is the edge's, and else passed to its node.

local command = require "command"
local frames = require "trunk_frames"
local metrics = require "metrics"
local semaphore = require "ngx.semaphore"
local settings = require "settings"
local wire = require "wire"

local concat = table.concat
local find = string.find
local now = ngx.now

local TEXT, PONG = frames.TEXT, frames.PONG
local PROTOCOL_ERROR, UNACCEPTABLE_DATA, NO_STATUS, CUT, TOO_BIG = 1002, 1003, 1005, 1006, 1009
local SIGN_S = 10 -- docs/protocol.md, Heartbeat: at most one sign of life in 10 s
local LONG_S = 86400
local OURS_BYTES = 65536 -- of our own words that wait for the client; over it nothing more is read of it
local PIECES = 256 -- of a message that comes in fragments, after which they are made one
local HEARTBEATS = { ping = "pong", Ping = "Pong", pong = "", Pong = "" }

local _M = {}


local function sign_of_life(session)
    if now() - session.signed_s >= SIGN_S then
        session.signed_s = now()
        session:tell_node(PONG, "")
    end
end


-- Answers a message that is the edge's; false if it is the node's. A trunk that is up says that its node lives.
local function take(session, text)
    if not session.trunk or not session.trunk.is_up then
        return false
    end
    local answer = #text == 4 and HEARTBEATS[text]
    if answer then
        metrics.add("tidegate_edge_heartbeats_total", 1)
        sign_of_life(session)
        if answer ~= "" then
            session:say_text(answer)
        end
        return true
    end
    local call = command.parse(text)
    if not call then
        return false
    end
    sign_of_life(session)
    session:take_call(call)
    return true
end


-- Whether the node takes one message more.
local function has_room(session)
    return session.trunk and not session.moves and session.may_read
        and session.texts - session.done < settings.commands_in_flight
end


-- Until something has changed.
local function wait(session)
    session.may_go_on = session.may_go_on or semaphore.new(0)
    session.reader_waits = true
    session.may_go_on:wait(LONG_S)
end


local function pass_on(session, text)
    metrics.add('tidegate_edge_frames_total{from="client"}', 1)
    metrics.add('tidegate_edge_bytes_total{from="client"}', #text)
    while not session.has_closed and not has_room(session) do
        wait(session)
    end
    if not session.has_closed then
        _M.send(session, text)
    end
end


-- A message for the node, which is kept until it is answered: another node may have to answer it.
function _M.send(session, text)
    session.texts = session.texts + 1
    session.pending[session.texts] = text
    session:tell_node(TEXT, text)
end


-- Something has changed for which the reader may wait.
function _M.go_on(session)
    if session.reader_waits then
        session.reader_waits = false
        session.may_go_on:post(1)
    end
end


-- One frame of a message; false at the end.
local function on_piece(session, payload, kind, is_last)
    local kept = session.kept
    if (kind == "continuation") ~= (kept ~= nil) then
        return session:fail(PROTOCOL_ERROR, "")
    end
    if kind == "binary" then
        return session:fail(UNACCEPTABLE_DATA, "")
    end
    local bytes = #payload + (kept and kept.bytes or 0)
    if bytes > settings.message_bytes then
        return session:fail(TOO_BIG, "message too big")
    end
    if kept then
        kept[#kept + 1], kept.bytes = payload, bytes
        if #kept == PIECES then
            session.kept = { concat(kept), bytes = bytes }
        end
    elseif not is_last then
        session.kept = { payload, bytes = bytes }
    end
    if not is_last then
        sign_of_life(session)
        return true
    end
    local text = session.kept and concat(session.kept) or payload
    session.kept = nil
    if not session.has_closed and not take(session, text) then
        pass_on(session, text)
    end
    return true
end


local function client_failed(session, err)
    if find(err, "^failed to") then -- the socket's own
        return session:on_client_gone(CUT)
    end
    if find(err, "payload len", 1, true) then
        session:fail(TOO_BIG, "message too big")
    elseif err == "binary" then
        session:fail(UNACCEPTABLE_DATA, "")
    else
        session:fail(PROTOCOL_ERROR, "")
    end
end


-- Reads until the client has said its last.
function _M.read(session)
    while not session.is_over do
        local payload, kind, is_last = session.client:receive()
        if not kind then
            return client_failed(session, is_last)
        end
        if kind == "close" then
            local fault = is_last and wire.close_fault(is_last, payload)
            if fault then
                return session:fail(fault, "")
            end
            return session:on_client_close(is_last or NO_STATUS, payload)
        end
        if kind == "ping" then
            session:say_pong(payload)
            sign_of_life(session)
        elseif kind == "pong" then
            session:tell_node(PONG, payload)
        elseif not on_piece(session, payload, kind, is_last) then
            return
        end
        session.share:spend(#payload, "client")
        while session.ours > OURS_BYTES and not session.has_closed do
            wait(session)
        end
    end
end


return _M
