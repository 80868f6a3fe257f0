#!lua
-- One round of the node that reads the ingress: answers for what it took, and the next entries.
-- KEYS[3] push, KEYS[4] lease, KEYS[5] failures, KEYS[6] rejected, then a deduplication key for each done entry.
-- ARGV: generation node token lease_ms messages bytes key_ms, then
--   number of done: id, keep (1: its key lives on for key_ms, 0: it goes);
--   number of rejected: id, address, size, reason, data;  number of failed: id.
-- token '' asks for the lease. Answers {token ('' while another has the lease, or where it is gone), last delivered id,
--   {failures of each failed}, {id, bytes of data, {field, value, …}} of each entry}; values are cut after ``bytes``.
--@common
if stale() then
  return STALE
end
local push, lease, failures, rejected = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local GROUP = 'tidegate'
local token, fresh = ARGV[3], false
local holder = redis.call('GET', lease)
if holder and redis.call('HEXISTS', nodes, string.match(holder, '^[^:]*')) == 0 then
  holder = nil -- its node is off the roster and writes nothing; where the clock went back the lease would outlive it
end
if holder then
  if holder ~= token then
    return { '', '', {}, {} }
  end
elseif token ~= '' then
  return { '', '', {}, {} } -- its round is over: whoever takes the lease reads first what is pending
else
  token = ARGV[2] .. ':' .. int(redis.call('HINCRBY', life, 'writes', 1))
  fresh = true
end
redis.call('SET', lease, token, 'PX', ARGV[4])
local group = redis.pcall('XGROUP', 'CREATE', push, GROUP, '0', 'MKSTREAM')
if group.err and not string.find(group.err, 'BUSYGROUP', 1, true) then
  return group
end

local at = 8
local function take()
  at = at + 1
  return ARGV[at - 1]
end
local function settle(id)
  redis.call('XACK', push, GROUP, id)
  redis.call('XDEL', push, id)
  redis.call('HDEL', failures, id)
end
local counts, entries = {}, {}
if not fresh then
  for i = 1, tonumber(take()) do
    local id, keep = take(), take()
    settle(id)
    if keep == '1' then
      redis.call('PEXPIRE', KEYS[6 + i], ARGV[7])
    else
      redis.call('DEL', KEYS[6 + i])
    end
  end
  for _ = 1, tonumber(take()) do
    local id = take()
    redis.call('XADD', rejected, 'MAXLEN', '=', '10000', '*',
      'id', id, 'address', take(), 'size', take(), 'reason', take(), 'data', take())
    settle(id)
  end
  for _ = 1, tonumber(take()) do
    counts[#counts + 1] = redis.call('HINCRBY', failures, take(), 1)
  end
end

local most, bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local function read(after)
  local answer = redis.call('XREADGROUP', 'GROUP', GROUP, GROUP, 'COUNT', most, 'STREAMS', push, after)
  for _, entry in ipairs(answer and answer[1][2] or {}) do
    local fields = entry[2]
    if fields and #fields > 0 then
      local size, shown = 0, {}
      for i = 1, math.min(#fields, 16) do
        if i % 2 == 0 and fields[i - 1] == 'data' then
          size = size + #fields[i]
        end
        shown[i] = string.sub(fields[i], 1, bytes + 1)
      end
      if #fields > 16 then
        shown[#shown + 1], shown[#shown + 2] = 'more fields', ''
      end
      entries[#entries + 1] = { entry[1], size, shown }
    else
      settle(entry[1]) -- deleted by somebody
    end
  end
end
if fresh then
  local delivered = redis.call('XPENDING', push, GROUP)
  most = math.max(most, tonumber(delivered[1]))
  if delivered[1] > 0 then
    read('0')
  end
elseif most > 0 then
  read('>')
end
local last = '0-0'
for _, info in ipairs(redis.call('XINFO', 'GROUPS', push)) do
  for i = 1, #info, 2 do
    if info[i] == 'name' and info[i + 1] == GROUP then
      for j = 1, #info, 2 do
        if info[j] == 'last-delivered-id' then
          last = info[j + 1]
        end
      end
    end
  end
end
return { token, last, counts, entries }
