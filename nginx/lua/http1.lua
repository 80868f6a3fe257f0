-- Answers of HTTP/1.1 servers, read from a socket. Nothing is read without a limit.

local share = require "share"

local concat = table.concat
local find = string.find
local gmatch = string.gmatch
local lower = string.lower
local match = string.match
local max = math.max
local setmetatable = setmetatable
local sub = string.sub
local tonumber = tonumber
local now = ngx.now

local HEAD_BYTES = 16384
local LINE_BYTES = 1024
local PIECE_BYTES = 4096
local LEAST_MS = 1 -- 0 is no timeout at all

local _M = {}
local mt = { __index = _M }


-- An answer on `sock`, which was asked by `method`; `from` says in a metric who answers. Reading raises nothing and
-- gives value, err; err is "timeout" once it is later than `until_s` (as ngx.now), "too large", "malformed", or the
-- socket's own. `begun` says that something has come, `rest` is what came and has not been read.
function _M.new(sock, method, until_s, from)
    return setmetatable({
        sock = sock,
        method = method,
        until_s = until_s,
        from = from,
        share = share.new(), -- or who answers without end would keep the worker, and time would stand still
        begun = false,
        rest = "",
    }, mt)
end


-- Takes what has come, or waits for it.
local function fill(self)
    local left_s = self.until_s - now()
    if left_s <= 0 then
        return nil, "timeout"
    end
    self.sock:settimeout(max(left_s * 1000, LEAST_MS))
    local data, err = self.sock:receiveany(PIECE_BYTES)
    if not data then
        return nil, err
    end
    self.begun = true
    self.rest = self.rest .. data
    return true
end


-- The first `size` bytes of what has come, and then the rest is what comes behind `skipped` more.
local function cut(self, size, skipped)
    local text = sub(self.rest, 1, size)
    self.rest = sub(self.rest, size + skipped + 1)
    self.share:spend(size, self.from)
    return text
end


-- What comes before `ending`, which is taken too.
local function read_until(self, ending, most)
    while true do
        local at = find(self.rest, ending, 1, true)
        if at then
            return cut(self, at - 1, #ending)
        end
        if #self.rest > most then
            return nil, "too large"
        end
        local ok, err = fill(self)
        if not ok then
            return nil, err
        end
    end
end


local function parse_head(self, text)
    local version, status = match(text, "^HTTP/1%.([01]) (%d%d%d)")
    if not status then
        return nil, "malformed"
    end
    self.version, self.status = version, tonumber(status)
    self.headers, self.fields = {}, {}
    for name, value in gmatch(text, "\r\n([^:%s]+):[ \t]*([^\r\n]-)[ \t]*%f[\r%z]") do
        local key = lower(name)
        self.fields[#self.fields + 1] = { name, value }
        self.headers[key] = self.headers[key] and self.headers[key] .. ", " .. value or value
    end
    return true
end


-- Fills `status`, `fields` (in order) and `headers` (by name in lower case).
function _M.read_head(self)
    repeat
        local text, err = read_until(self, "\r\n\r\n", HEAD_BYTES)
        if not text then
            return nil, err
        end
        local ok, failure = parse_head(self, text)
        if not ok then
            return nil, failure
        end
    until self.status >= 200 or self.status == 101
    return true
end


local function read_sized(self, size)
    while #self.rest < size do
        local ok, err = fill(self)
        if not ok then
            return nil, err
        end
    end
    return cut(self, size, 0)
end


local function read_chunked(self, most)
    local pieces, total = {}, 0
    while true do
        local line, err = read_until(self, "\r\n", LINE_BYTES)
        if not line then
            return nil, err
        end
        local size = tonumber(match(line, "^(%x+)") or "", 16)
        if not size then
            return nil, "malformed"
        end
        total = total + size
        if total > most then
            return nil, "too large"
        end
        if size == 0 then
            break
        end
        local piece, failure = read_sized(self, size + 2)
        if not piece or sub(piece, -2) ~= "\r\n" then
            return nil, failure or "malformed"
        end
        pieces[#pieces + 1] = sub(piece, 1, -3)
    end
    repeat
        local trailer, err = read_until(self, "\r\n", LINE_BYTES)
        if not trailer then
            return nil, err
        end
    until trailer == ""
    return concat(pieces)
end


local function read_to_the_end(self, most)
    self.is_last = true
    while #self.rest <= most do
        local ok, err = fill(self)
        if err == "closed" then
            return cut(self, #self.rest, 0)
        end
        if not ok then
            return nil, err
        end
    end
    return nil, "too large"
end


-- The body, of at most `most` bytes. Source of the order: RFC 9112, 6.3.
function _M.read_body(self, most)
    local headers = self.headers
    if self.method == "HEAD" or self.status == 204 or self.status == 304 then
        return ""
    end
    if headers["transfer-encoding"] then
        if lower(headers["transfer-encoding"]) ~= "chunked" then
            return nil, "malformed"
        end
        return read_chunked(self, most)
    end
    if not headers["content-length"] then
        return read_to_the_end(self, most)
    end
    local size = find(headers["content-length"], "^%d+$") and tonumber(headers["content-length"])
    if not size then
        return nil, "malformed"
    end
    if size > most then
        return nil, "too large"
    end
    return read_sized(self, size)
end


-- Whether the connection may serve once more, now that the body has been read.
function _M.may_be_kept(self)
    local connection = lower(self.headers.connection or "")
    return self.version == "1" and self.rest == "" and not self.is_last and not find(connection, "close", 1, true)
end


return _M
