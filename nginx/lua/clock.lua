-- The time for which this worker was running, in seconds. It stands still while the worker is held up (stopped, or busy
-- for long): what could not be heard then says nothing about who should have spoken.

local max = math.max
local min = math.min
local now = ngx.now

local TICK_S = 0.25
local LATE_S = 0.5 -- a tick that is later than this says that the worker was held up

local ticked_s, lost_s = now(), 0

local _M = {}


local function tick(is_early)
    if is_early then
        return -- nginx stops
    end
    local at_s = now()
    lost_s = lost_s + max(at_s - ticked_s - LATE_S, 0)
    ticked_s = at_s
end


function _M.start()
    ticked_s = now()
    ngx.timer.every(TICK_S, tick)
end


-- What is looked at before the tick that comes late does not count what was lost either.
function _M.now()
    return min(now(), ticked_s + LATE_S) - lost_s
end


return _M
