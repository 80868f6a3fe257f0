#!lua
-- The next events for the forwarder that has the lease or asks for it.
-- KEYS: events, lease, forwarded. ARGV: token, lease_ms, most, fresh ('1': it asks for the lease).
-- Answers {1, missed, behind, {id, {field, value, …}} of each}, or {0} where another has the lease, or this one's ran
-- out. ``missed``: events that were trimmed away before they were taken, as far as the application was not told.
-- ``behind``: events that wait beyond these.
local events, lease, forwarded = KEYS[1], KEYS[2], KEYS[3]
local GROUP = 'forwarder'
local holder = redis.call('GET', lease)
if holder and holder ~= ARGV[1] or not holder and ARGV[4] ~= '1' then
  return { 0 }
end
redis.call('SET', lease, ARGV[1], 'PX', ARGV[2])
local made = redis.pcall('XGROUP', 'CREATE', events, GROUP, '0', 'MKSTREAM')
if not made.err then
  redis.call('HDEL', forwarded, 'read') -- it counted entries of another stream
elseif not string.find(made.err, 'BUSYGROUP', 1, true) then
  return made
end

local info = redis.call('XINFO', 'STREAM', events)
local function number(name)
  for i = 1, #info, 2 do
    if info[i] == name then
      return info[i + 1]
    end
  end
end
-- Entries are counted as they were added. Trimming takes the oldest, so that those up to ``gone`` are no more.
local added = number('entries-added')
local gone = added - number('length')
local read = tonumber(redis.call('HGET', forwarded, 'read')) or gone
local missed = math.max(0, gone - read)
read = math.max(read, gone)

-- What a forwarder that ended had taken and not settled comes first. All have one consumer, so that they find it.
local most = tonumber(ARGV[3])
local pending = redis.call('XPENDING', events, GROUP)[1] > 0
local answer = redis.call(
  'XREADGROUP', 'GROUP', GROUP, GROUP, 'COUNT', most, 'STREAMS', events, pending and '0' or '>')
local taken = {}
for _, entry in ipairs(answer and answer[1][2] or {}) do
  if entry[2] and #entry[2] > 0 then
    taken[#taken + 1] = entry
  else
    redis.call('XACK', events, GROUP, entry[1]) -- taken once, and trimmed away since
    missed = missed + 1
  end
end
if not pending then
  read = #taken < most and added or read + #taken
end
redis.call('HSET', forwarded, 'read', string.format('%.0f', read))
return { 1, redis.call('HINCRBY', forwarded, 'missed', missed), added - read, taken }
