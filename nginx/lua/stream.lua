-- A socket as the WebSocket library reads and writes it, but in pieces: nginx keeps the largest buffer that a
-- connection ever needed until it ends. Counts what came, and knows when both directions of a session are idle.

local settings = require "settings"

local concat = table.concat
local max = math.max
local min = math.min
local now = ngx.now
local setmetatable = setmetatable
local sub = string.sub

local PIECE_BYTES = 4096
local LEAST_S = 0.001 -- 0 is no timeout at all

local _M = {}
local mt = { __index = _M }


local function set_read_timeout(self, seconds)
    self.sock:settimeouts(settings.connect_timeout_s * 1000, settings.send_timeout_s * 1000, seconds * 1000)
end


-- `session.seen_s` is when something last came, from either side; `early` are bytes that came with the handshake.
function _M.new(sock, session, early)
    local self = setmetatable({ sock = sock, session = session, early = early or "", bytes = 0 }, mt)
    set_read_timeout(self, settings.read_timeout_s)
    return self
end


-- Traffic in either direction counts, as with nginx's proxy_read_timeout; what has come of the piece is kept.
local function receive_piece(self, size)
    local session, got = self.session, sub(self.early, 1, size)
    if got ~= "" then
        self.early = sub(self.early, size + 1)
        if #got == size then
            return got
        end
    end
    while true do
        local data, err, partial = self.sock:receive(size - #got)
        if data then
            session.seen_s = now()
            self.bytes = self.bytes + size
            return got .. data
        end
        got = got .. (partial or "")
        local left_s = session.seen_s + settings.read_timeout_s - now()
        if err ~= "timeout" or left_s <= 0 then
            return nil, err
        end
        set_read_timeout(self, max(left_s, LEAST_S))
    end
end


function _M.receive(self, size)
    if size <= PIECE_BYTES then
        return receive_piece(self, size)
    end
    local pieces, count = {}, 0
    while size > 0 do
        local piece, err = receive_piece(self, min(size, PIECE_BYTES))
        if not piece then
            return nil, err
        end
        count = count + 1
        pieces[count] = piece
        size = size - #piece
    end
    return concat(pieces)
end


-- Returns once the kernel has it all; that is what slows the other side down.
function _M.send(self, data)
    for at = 1, #data, PIECE_BYTES do
        local piece = #data > PIECE_BYTES and sub(data, at, at + PIECE_BYTES - 1) or data
        local sent, err = self.sock:send(piece)
        if not sent then
            return nil, err
        end
    end
    return #data
end


return _M
