#!lua flags=allow-oom
-- The newest entries of the ingress go to the rejected ones: there are more than may wait. Those that were taken stay:
-- they may be in a journal already. KEYS[3] push, KEYS[4] lease, KEYS[5] rejected. ARGV: generation node token count
-- reason bytes. Answers the addresses of those that went, '' where it is none.
-- Over maxmemory too: what goes is larger than what is kept of it.
--@common
if stale() then
  return STALE
end
if redis.call('GET', KEYS[4]) ~= ARGV[3] then
  return { err = 'FENCED another node reads the ingress' }
end
local bytes = tonumber(ARGV[6])

local function address(fields)
  local found = ''
  for i = 1, #fields, 2 do
    local kind, id = fields[i], fields[i + 1]
    if kind == 'all' then
      found = 'all'
    elseif (kind == 'client' or kind == 'group') and #id <= 128 and string.find(id, '^[%w_.@-]+$') then
      found = kind .. ':' .. id
    end
  end
  return found
end

local function last_taken()
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[3])) do
    local found = {}
    for i = 1, #info, 2 do
      found[info[i]] = info[i + 1]
    end
    if found.name == 'tidegate' then
      return found['last-delivered-id']
    end
  end
  return '0-0'
end

local entries = redis.call('XREVRANGE', KEYS[3], '+', '(' .. last_taken(), 'COUNT', ARGV[4])
local gone = {}
for number, entry in ipairs(entries) do
  local fields, data = entry[2], ''
  for i = 1, #fields, 2 do
    if fields[i] == 'data' then
      data = fields[i + 1]
    end
  end
  gone[number] = address(fields)
  redis.call('XADD', KEYS[5], 'MAXLEN', '=', '10000', '*', 'id', entry[1], 'address', gone[number], 'size', #data,
    'reason', ARGV[5], 'data', string.sub(data, 1, bytes))
  redis.call('XDEL', KEYS[3], entry[1])
end
return gone
