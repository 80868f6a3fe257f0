-- What one session on a trunk writes to its client: what waits, how much that is, and when it is too much.
--
-- What waits and what is under way count as `size`. Over the limit the node hears SLOW, and lets the session fall back
-- to its journals or closes it; over twice the limit there is no waiting for that. What a socket is given goes in
-- pieces, because nginx keeps the largest that it ever had to copy until the connection ends.
--
-- One thread writes. While it waits for something to write, what is said to many goes to the socket at once and wakes
-- nobody, which is most of what a message would cost here (docs/decisions/0090). What the kernel does not take of it is
-- the writer's: the rest of a frame that has begun, which goes first and is never dropped.

local client_socket = require "client_socket"
local semaphore = require "ngx.semaphore"
local settings = require "settings"

local band = bit.band
local char = string.char
local concat = table.concat
local ipairs = ipairs
local max = math.max
local rshift = bit.rshift
local send_at_once = client_socket.send
local setmetatable = setmetatable
local sub = string.sub
local type = type

local PIECE_BYTES = 16384
local LONG_S = 86400
local NONE = {}

local blocked = setmetatable({}, { __mode = "k" }) -- those of this worker that had to wait when more came

local _M = { blocked = blocked }


-- A whole frame from a server, which masks nothing; `first` is its first byte.
function _M.frame(first, payload)
    local size = #payload
    if size < 126 then
        return char(first, size) .. payload
    end
    if size < 65536 then
        return char(first, 126, rshift(size, 8), band(size, 0xff)) .. payload
    end
    return char(first, 127, 0, 0, 0, 0, rshift(size, 24), band(rshift(size, 16), 0xff), band(rshift(size, 8), 0xff),
        band(size, 0xff)) .. payload
end


-- What one session writes, whose request this is. A table of its own because each message to many looks at it, and
-- at little else of a session: what is asked for together lies together.
function _M.new(session)
    return {
        session = session,
        out = nil, -- what waits: one piece, or a list of them
        size = 0, -- bytes of it, and of what is under way
        slow_at = settings.outbox_bytes, -- `size` at which the node hears of it
        is_shut = false, -- nothing follows
        writer_waits = false,
        client = client_socket.current(), -- nil where it cannot be written to at once
        idle_client = nil, -- the same while the writer waits for something to write, and nothing has come
        begun = nil, -- the rest of what was written at once and not taken whole
        is_called = false, -- more has happened than that a stream of its said something
        news = semaphore.new(0), -- something has happened that the writer must know
    }
end


-- The writer, if it waits: counts that are left over would make it spin.
local function call_writer(self)
    if self.writer_waits then
        self.writer_waits, self.idle_client = false, nil
        self.news:post(1)
    end
end


-- Something has happened that the writer must look at.
function _M.wake(self)
    self.is_called = true
    call_writer(self)
end


-- Returns when it is woken, or so much later.
function _M.wait(self, seconds)
    self.writer_waits = true
    self.news:wait(seconds)
    self.writer_waits = false
end


-- Bytes that are to be written, unless nothing may follow. True where that is too much, for the first time or by
-- another quarter of the limit.
local function put(self, bytes)
    if self.is_shut then
        return false
    end
    local out = self.out
    local size = self.size + #bytes
    self.size = size
    if not out then
        self.out = bytes
        call_writer(self)
    elseif type(out) == "string" then
        self.out = { out, bytes }
        blocked[self] = true
    else
        out[#out + 1] = bytes
    end
    if size > self.slow_at then
        self.slow_at = size + rshift(settings.outbox_bytes, 2)
        return true
    end
    return false
end
_M.put = put


-- The same for bytes that nobody has to account for, which go out at once where nothing is before them. What is large
-- has its turn with the others, and is not copied for each who takes a part of it.
function _M.send_or_put(self, bytes)
    local client = self.idle_client
    local size = #bytes
    if not client or size > PIECE_BYTES then
        return put(self, bytes)
    end
    local sent = send_at_once(client, bytes)
    if sent == size then
        return false
    end
    if sent == 0 then
        return put(self, bytes)
    end
    self.begun = sub(bytes, sent + 1)
    self.size = self.size + size - sent
    call_writer(self)
    return false
end


-- What waits, which does not wait any more.
local function take(self)
    local out = self.out
    self.out = nil
    if type(out) == "table" then
        blocked[self] = nil
    end
    return out
end


-- Bytes of what waits and is not in `seen` yet, which gets it, and of what is under way.
function _M.unseen_bytes(self, seen)
    local bytes, waiting = 0, 0
    for _, piece in ipairs(self.out or NONE) do
        waiting = waiting + #piece
        if not seen[piece] then
            seen[piece] = true
            bytes = bytes + #piece
        end
    end
    return bytes + self.size - waiting
end


-- Forgets what waits; what is under way goes on.
function _M.drop(self)
    local out = take(self)
    if out then
        self.size = max(self.size - (type(out) == "string" and #out or #concat(out)), 0)
    end
end


-- The same, and nothing may follow.
function _M.discard(self)
    _M.drop(self)
    self.is_shut = true
end


-- Bytes that nothing may follow.
function _M.put_last(self, bytes)
    put(self, bytes)
    self.is_shut = true
end


local function send_pieces(self, sock, bytes)
    for at = 1, #bytes, PIECE_BYTES do
        local piece = sub(bytes, at, at + PIECE_BYTES - 1)
        local ok, err = sock:send(piece)
        if not ok then
            return nil, err
        end
        self.size = max(self.size - #piece, 0)
    end
    return true
end


local function send(self, sock, bytes)
    local size = #bytes
    if size > PIECE_BYTES then
        return send_pieces(self, sock, bytes)
    end
    local ok, err = sock:send(bytes)
    if ok then
        self.size = max(self.size - size, 0)
    end
    return ok, err
end


-- Joins what is small, so that many frames go out in one write.
local function send_all(self, sock, list)
    local at, count = 1, #list
    while at <= count do
        local last, bytes = at, #list[at]
        while last < count and bytes + #list[last + 1] <= PIECE_BYTES do
            last = last + 1
            bytes = bytes + #list[last]
        end
        local ok, err = send(self, sock, last > at and concat(list, "", at, last) or list[at])
        if not ok then
            return nil, err
        end
        at = last + 1
    end
    return true
end


-- Writes what waits; nil and why where the client takes nothing more. For the one thread that writes.
function _M.write(self, sock)
    local out = take(self)
    local ok, err = (type(out) == "string" and send or send_all)(self, sock, out)
    if ok and self.size < rshift(settings.outbox_bytes, 1) then
        self.slow_at = settings.outbox_bytes
    end
    return ok, err
end


-- Waits, while what is heard may go out at once. False and why where its rest is not taken.
local function wait_idle(self, sock)
    self.idle_client = self.client
    _M.wait(self, LONG_S)
    self.idle_client = nil
    local begun = self.begun
    if not begun then
        return true
    end
    self.begun = nil
    return send(self, sock, begun)
end


-- Waits, and writes what comes, until something else has happened to the session; nil and why where the client takes
-- nothing more. A message to many costs each of them what is touched here: these few fields lie together, and those of
-- a session do not.
function _M.pump(self, sock)
    self.is_called = false
    local ok, err = true, nil
    while ok and not self.is_called do
        if self.out then -- also what came while the last piece was written, of which nobody is woken
            ok, err = _M.write(self, sock)
        else
            ok, err = wait_idle(self, sock)
        end
    end
    return ok, err
end


return _M
