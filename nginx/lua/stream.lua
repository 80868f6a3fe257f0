-- A socket as the WebSocket library reads and writes it, but in pieces: nginx keeps the largest buffer that a
-- connection ever needed until it ends. Counts what came, and knows when something last did.

local clock = require "clock"
local settings = require "settings"

local concat = table.concat
local max = math.max
local min = math.min
local setmetatable = setmetatable
local sub = string.sub

local PIECE_BYTES = 4096
local LEAST_S = 0.001 -- 0 is no timeout at all
local LONG_S = 86400

local _M = {}
local mt = { __index = _M }


local function set_read_timeout(self, seconds)
    self.sock:settimeouts(settings.connect_timeout_s * 1000, self.send_s * 1000, seconds * 1000)
end


-- `early` are bytes that came with the handshake; `silent_s` is how long nothing may come, nil: for a day; `send_s` how
-- long a write may make no progress, nil: the edge's.
function _M.new(sock, early, silent_s, send_s)
    local self = setmetatable({
        sock = sock,
        early = early or "",
        silent_s = silent_s or LONG_S,
        send_s = send_s or settings.send_timeout_s,
        seen_s = clock.now(), -- when something last came
        bytes = 0,
    }, mt)
    set_read_timeout(self, self.silent_s)
    return self
end


-- "silent" is the error where nothing came for too long while we were running. Before that is said it is looked once
-- more, for a worker that was held up hears that its time is over before it has read what is there.
local function receive_piece(self, size)
    local got, has_looked = sub(self.early, 1, size), false
    if got ~= "" then
        self.early = sub(self.early, size + 1)
        if #got == size then
            return got
        end
    end
    while true do
        local data, err, partial = self.sock:receive(size - #got)
        if data then
            self.seen_s = clock.now()
            self.bytes = self.bytes + size
            return got .. data
        end
        if partial and partial ~= "" then
            got = got .. partial
            self.seen_s = clock.now()
        end
        local left_s = self.seen_s + self.silent_s - clock.now()
        if err ~= "timeout" then
            return nil, err
        end
        if left_s <= 0 and has_looked then
            return nil, "silent"
        end
        has_looked = left_s <= 0
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
