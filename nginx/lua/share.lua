-- How much one session may do before the others of its worker have their turn.
--
-- A read that finds bytes and a write that finds room don't wait, so a client that sends without pause would keep the
-- worker for as long as it likes. What is done is charged in units, about 10 to 20 us each. TURN is what all who
-- use up their share do in one turn of the worker: the more of them, the less for each.
--
-- Nginx's clock stands still while Lua runs. So whoever finds that it has moved has waited, and begins anew: traffic
-- that is not a flood never pauses.

local metrics = require "metrics"

local max = math.max
local now = ngx.now
local setmetatable = setmetatable
local sleep = ngx.sleep

local TURN = 96
local LEAST = 8 -- units of a share: below it, taking turns would cost more than what is done in them
-- A unit is also so many bytes: a client's are unmasked, looked at and masked again, the others' are passed on.
local UNIT_BYTES = { client = 1024, service = 8192, application = 8192 }
local PAUSE_S = 0.001 -- 0 gives nobody a turn
local FLOOD_PAUSES, FLOOD_S = 200, 5 -- so many pauses in so many seconds are worth a line in the log

local _M = {}
local mt = { __index = _M }

local turn_s, pauses, before = 0, 0, 0 -- of this worker: since the clock moved, and while it stood there before


-- `who` names the session in the log: {client, connection}, nil where it is not known.
function _M.new(who)
    return setmetatable({ who = who, spent = 0, at_s = 0, pauses = 0, since_s = 0, is_named = false }, mt)
end


local function name(self)
    self.pauses = self.pauses + 1
    if now() - self.since_s > FLOOD_S then
        self.since_s, self.pauses = now(), 1
    end
    if self.pauses == FLOOD_PAUSES and not self.is_named and self.who then
        self.is_named = true
        ngx.log(ngx.WARN, "a session floods: client ", self.who.client, ", connection ", self.who.connection)
    end
end


-- The units of each who takes turns now.
local function fair_share()
    if turn_s ~= now() then
        turn_s, pauses, before = now(), 0, pauses
    end
    return max(TURN / max(pauses, before, 1), LEAST)
end


-- Charges one piece of work of so many bytes `from` somebody; when the share is used up, returns after the others had
-- their turn, or several where it was one large piece.
function _M.spend(self, bytes, from)
    local at_s = now()
    if at_s ~= self.at_s then
        self.at_s, self.spent = at_s, 0
    end
    self.spent = self.spent + 1 + bytes / UNIT_BYTES[from]
    local most = fair_share()
    while self.spent >= most do
        pauses = pauses + 1
        metrics.add('tidegate_edge_pauses_total{from="' .. from .. '"}', 1)
        name(self)
        sleep(PAUSE_S)
        self.spent = self.spent - most
        most = fair_share()
    end
end


return _M
