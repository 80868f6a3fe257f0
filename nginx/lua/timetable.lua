-- When a client is told that it moves, and when it is asked to go, once nginx stops: at random, so that not all come
-- back at once. Who may move is told in the first half of `spread_s`, and goes half of it later. Source:
-- docs/protocol.md, moving.

local settings = require "settings"

local format = string.format
local now = ngx.now
local random = math.random
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


-- `may_move`: there are others that take its handshake. `event` is what it hears then.
function _M.new(may_move)
    local share_s = random() * settings.spread_s
    local moves_s = may_move and now() + share_s / 2 or nil
    return setmetatable({
        moves_s = moves_s,
        goes_s = moves_s and moves_s + settings.spread_s / 2 or now() + share_s,
        event = format('{"type":"moving","within":%g}', settings.spread_s / 2),
    }, mt)
end


-- What is due ("moving", "go" or nil), each once, and when to ask again.
function _M.due(self, at_s)
    if self.moves_s and at_s >= self.moves_s then
        self.moves_s = nil
        return "moving", self.goes_s
    end
    if at_s >= self.goes_s then
        return "go", self.goes_s
    end
    return nil, self.moves_s or self.goes_s
end


return _M
