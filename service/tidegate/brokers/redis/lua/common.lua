-- What stands before every script. A script writes for the node ARGV[2] in the generation ARGV[1], or not at all.
-- KEYS[1] life: generation and the one before, incarnation, writes, roster, and those of epochs.lua,
-- beat.lua and leave.lua. KEYS[2] nodes: node ->
-- "<last beat, ms> <roster seen>".
local life, nodes = KEYS[1], KEYS[2]

local function stale()
  return redis.call('HGET', life, 'generation') ~= ARGV[1] or redis.call('HEXISTS', nodes, ARGV[2]) == 0
end

local STALE = { err = 'STALE another generation, or a node that must begin anew' }

local function int(number)
  return string.format('%.0f', number)
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function writes()
  return int(tonumber(redis.call('HGET', life, 'writes') or '0'))
end
