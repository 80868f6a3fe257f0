-- One WebSocket: frames read from a stream, and frames written to it by several threads, one at a time. Two threads
-- that write to one socket end its request.

local semaphore = require "ngx.semaphore"
local settings = require "settings"
local stream = require "stream"

local band = bit.band
local char = string.char
local pcall = pcall
local rshift = bit.rshift
local byte = string.byte
local setmetatable = setmetatable
local sub = string.sub

local found, protocol = pcall(require, "resty.websocket.protocol") -- OpenResty's name
if not found then
    protocol = require "nginx.websocket.protocol" -- Debian's
end

local OPCODES = { continuation = 0x0, text = 0x1, binary = 0x2, close = 0x8, ping = 0x9, pong = 0xa }
local CONTROL = 0x8
local REASON_BYTES = 123
local LONG_FORM = "\0\0\0\0\0\1\0\0" -- 65536, the least length that takes eight bytes
local LONG_S = 86400 -- a writer that waits longer is ended with its session

-- A client's stream as the library reads a frame from it: two bytes, then two more or eight for a longer length, then
-- the rest. It takes a length in any form, and RFC 6455, 5.2, wants the shortest.
local head = {}
local head_mt = { __index = head }


function head.receive(self, size)
    local data, err = self.stream:receive(size)
    local step = self.step
    self.step = step + 1
    if data and step == 0 then
        self.form = band(byte(data, 2), 0x7f)
    elseif data and step == 1
        and ((self.form == 126 and data < "\0\126") or (self.form == 127 and data < LONG_FORM)) then
        self.is_longer = true
        return nil, "length"
    end
    return data, err
end


local _M = {}
local mt = { __index = _M }


-- `masking`: we are the client here. The rest is the stream's.
function _M.new(masking, sock, early, silent_s, send_s)
    local both = stream.new(sock, early, silent_s, send_s)
    return setmetatable({
        stream = both,
        head = not masking and setmetatable({ stream = both, step = 0, form = 0 }, head_mt) or nil,
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


-- The next frame: payload, its kind, whether it is its message's last; of a close frame reason, "close", code. At the
-- end nil, nil, what happened.
function _M.receive(self)
    local from = self.head
    if from then
        from.step = 0
    end
    local payload, kind, more = protocol.recv_frame(from or self.stream, settings.frame_bytes, not self.masking)
    if from and from.is_longer then
        return nil, nil, "a length is not in its shortest form"
    end
    if not kind or kind == "close" then
        return payload, kind, more
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
