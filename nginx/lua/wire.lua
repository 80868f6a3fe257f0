-- One WebSocket: frames read from a stream, and frames written to it by several threads, one at a time. Two threads
-- that write to one socket end its request.

local json_text = require "json_text"
local semaphore = require "ngx.semaphore"
local settings = require "settings"
local stream = require "stream"

local band = bit.band
local char = string.char
local pcall = pcall
local rshift = bit.rshift
local byte = string.byte
local find = string.find
local is_utf8 = json_text.is_utf8
local setmetatable = setmetatable
local sub = string.sub

local found, protocol = pcall(require, "resty.websocket.protocol") -- OpenResty's name
if not found then
    protocol = require "nginx.websocket.protocol" -- Debian's
end

local OPCODES = { continuation = 0x0, text = 0x1, binary = 0x2, close = 0x8, ping = 0x9, pong = 0xa }
local CONTROL = 0x8
local CONTROL_BYTES = 125
local REASON_BYTES = 123
local PROTOCOL_ERROR, INVALID_UTF8 = 1002, 1007
local CLOSE_CODES = {
    [1000] = true, [1001] = true, [1002] = true, [1003] = true, [1007] = true, [1008] = true, [1009] = true,
    [1010] = true, [1011] = true, [1012] = true, [1013] = true, [1014] = true,
}
local LONG_FORM = "\0\0\0\0\0\1\0\0" -- 65536, the least length that takes eight bytes
local LONG_S = 86400 -- a writer that waits longer is ended with its session

-- A client's stream as the library reads a frame from it: two bytes, then two more or eight for a longer length, then
-- the rest. It takes a length in any form, and RFC 6455, 5.2, wants the shortest, below 2^63, and 5.5 wants that of
-- a control frame in the second byte.
local head = {}
local head_mt = { __index = head }


function head.receive(self, size)
    local data, err = self.stream:receive(size)
    local step = self.step
    self.step = step + 1
    if data and step == 0 then
        self.opcode, self.form = band(byte(data), 0x0f), band(byte(data, 2), 0x7f)
        self.has_fault = self.opcode >= CONTROL and self.form > CONTROL_BYTES
    elseif data and step == 1 then
        self.has_fault = self.form == 126 and data < "\0\126"
            or self.form == 127 and (data < LONG_FORM or byte(data) >= 0x80)
    end
    if self.has_fault then
        return nil, "length"
    end
    return data, err
end


-- Why a frame cannot be read. What the service looks at before a length it would have said first.
function head.why(self, err)
    if not self.has_fault and (find(err, "^failed to") or not find(err, "payload len", 1, true)) then
        return err
    end
    if self.opcode < CONTROL and (self.opcode == OPCODES.continuation) ~= self.is_inside then
        return "fragments out of order"
    end
    if self.opcode == OPCODES.binary then
        return "binary"
    end
    return self.has_fault and "a length is not in its shortest form" or err
end


local _M = {}
local mt = { __index = _M }


-- `masking`: we are the client here. The rest is the stream's.
function _M.new(masking, sock, early, silent_s, send_s)
    local both = stream.new(sock, early, silent_s, send_s)
    return setmetatable({
        stream = both,
        head = not masking and setmetatable({ stream = both, step = 0, is_inside = false }, head_mt) or nil,
        masking = masking,
        lock = nil, -- of those who write, once somebody does
        is_inside = false, -- a fragmented message of the relayed ones has begun
        has_closed = false, -- a close frame went out; nothing follows it
    }, mt)
end


function _M.close_payload(code, reason)
    if not code then
        return ""
    end
    return char(rshift(code, 8), band(code, 0xff)) .. sub(reason or "", 1, REASON_BYTES)
end


-- With which code a peer is answered whose close frame is none (RFC 6455, 7.4, and the IANA registry); nil where it is
-- one. Where the service sees the frame, it says so itself.
function _M.close_fault(code, reason)
    if not (CLOSE_CODES[code] or code >= 3000 and code <= 4999) then
        return PROTOCOL_ERROR
    end
    return not is_utf8(reason) and INVALID_UTF8 or nil
end


-- The next frame: payload, its kind, whether it is its message's last; of a close frame reason, "close", code. At the
-- end nil, nil, what happened.
function _M.receive(self)
    local from = self.head
    if from then
        from.step = 0
    end
    local payload, kind, more = protocol.recv_frame(from or self.stream, settings.frame_bytes, not self.masking)
    if not kind then
        return nil, nil, from and from:why(more) or more
    end
    if kind == "close" then
        return payload, kind, more
    end
    if from and from.opcode < CONTROL then
        from.is_inside = more == "again"
    end
    return payload, kind, more ~= "again"
end


local function lock_of(self)
    self.lock = self.lock or semaphore.new(1)
    return self.lock
end


local function write(self, opcode, payload, fin)
    if self.has_closed then
        return true
    end
    self.has_closed = opcode == OPCODES.close
    return protocol.send_frame(self.stream, fin, opcode, payload, settings.frame_bytes, self.masking)
end


-- For the one thread that relays. It keeps the lock while a message is incomplete.
function _M.relay(self, kind, payload, fin)
    local opcode = OPCODES[kind]
    if not self.is_inside then
        lock_of(self):wait(LONG_S)
    end
    local ok, err = write(self, opcode, payload, fin)
    if opcode < CONTROL then
        self.is_inside = not fin
    end
    if not self.is_inside then
        self.lock:post(1)
    end
    return ok, err
end


-- For all others: one whole message between two that are relayed.
function _M.say(self, kind, payload)
    lock_of(self):wait(LONG_S)
    local ok, err = write(self, OPCODES[kind], payload, true)
    self.lock:post(1)
    return ok, err
end


-- A last word, unless somebody is in the middle of theirs.
function _M.say_at_once(self, kind, payload)
    if lock_of(self):wait(0) then
        write(self, OPCODES[kind], payload, true)
    end
end


return _M
