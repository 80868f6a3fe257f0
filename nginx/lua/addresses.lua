-- Names become addresses: {host, port}, as a socket's connect takes them.
--
-- Where a DNS server is configured and the image has a client for it, names are asked for again, so that replicas are
-- found when they change. Elsewhere they are looked up when nginx starts, as nginx itself does it.

local ffi = require "ffi"
local settings = require "settings"

local error = error
local find = string.find
local insert = table.insert
local ipairs = ipairs
local match = string.match
local now = ngx.now
local pcall = pcall
local random = math.random
local tonumber = tonumber

local AGAIN_S = 2 -- for how long an answer is good; as `resolver … valid=` for the other variants
local WAIT_MS = 1000

ffi.cdef [[
struct tidegate_addrinfo {
    int flags, family, socktype, protocol;
    uint32_t length;
    void *address;
    char *name;
    struct tidegate_addrinfo *next;
};
int getaddrinfo(const char *, const char *, const struct tidegate_addrinfo *, struct tidegate_addrinfo **);
void freeaddrinfo(struct tidegate_addrinfo *);
int getnameinfo(const void *, uint32_t, char *, uint32_t, char *, uint32_t, int);
]]
local SOCK_STREAM, NI_NUMERICHOST = 1, 1

local has_dns, dns = pcall(require, "resty.dns.resolver") -- OpenResty's name
if not has_dns then
    has_dns, dns = pcall(require, "nginx.dns.resolver") -- Debian's, where lua-nginx-dns is installed
end
local at_start = {} -- name -> hosts
local answers = {} -- name -> {hosts, good_until_s}

local _M = {}


local function is_address(host)
    return find(host, "^[%d.]+$") or find(host, "^%[") or find(host, "^unix:")
end


local function bracketed(host)
    return find(host, ":", 1, true) and "[" .. host .. "]" or host
end


-- The addresses of a name as the machine knows them; waits, so only while nginx starts.
local function look_up(name)
    local hints = ffi.new("struct tidegate_addrinfo", { socktype = SOCK_STREAM })
    local list = ffi.new("struct tidegate_addrinfo *[1]")
    if ffi.C.getaddrinfo(name, nil, hints, list) ~= 0 then
        return nil
    end
    local hosts, text, entry = {}, ffi.new("char[64]"), list[0]
    while entry ~= nil do
        if ffi.C.getnameinfo(entry.address, entry.length, text, 64, nil, 0, NI_NUMERICHOST) == 0 then
            insert(hosts, bracketed(ffi.string(text)))
        end
        entry = entry.next
    end
    ffi.C.freeaddrinfo(list[0])
    return hosts
end


local function ask(name)
    local host, port = match(settings.resolver, "^%[?([^%]]+)%]?:(%d+)$")
    local client, err = dns:new({ nameservers = { { host, tonumber(port) } }, retrans = 2, timeout = WAIT_MS })
    if not client then
        return nil, err
    end
    local records, failure = client:query(name, { qtype = client.TYPE_A })
    if not records or records.errcode then
        return nil, failure or records.errstr
    end
    local hosts = {}
    for _, record in ipairs(records) do
        if record.address then
            insert(hosts, record.address)
        end
    end
    return hosts[1] and hosts, "no address"
end


-- While nobody answers, the last answer stays good.
local function ask_again(name)
    local answer = answers[name]
    if answer and now() < answer.good_until_s then
        return answer.hosts
    end
    if answer then
        answer.good_until_s = now() + AGAIN_S -- for all others, while this one asks
    end
    local hosts, err = ask(name)
    if not hosts then
        ngx.log(ngx.WARN, "cannot resolve ", name, ": ", err)
        return answer and answer.hosts
    end
    answers[name] = { hosts = hosts, good_until_s = now() + AGAIN_S }
    return hosts
end


local function hosts_of(name)
    if is_address(name) then
        return { name }
    end
    if has_dns and settings.resolver then
        return ask_again(name)
    end
    return at_start[name]
end


-- "host:port" or "unix:/path" in two parts.
local function split(upstream)
    local host, port = match(upstream, "^(.+):(%d+)$")
    if host then
        return host, tonumber(port)
    end
    return upstream
end


-- To be called when nginx starts. Raises an error where a name is not known, as nginx does.
function _M.start()
    local names = { settings.calls_url.host }
    for _, upstream in ipairs(settings.upstreams) do
        insert(names, (split(upstream)))
    end
    for _, name in ipairs(names) do
        if not is_address(name) and not (has_dns and settings.resolver) then
            at_start[name] = look_up(name) or error("host not found: " .. name)
        end
    end
end


-- One of a host's addresses; nil and why where there is none.
function _M.one(host, port)
    local hosts = hosts_of(host)
    if not hosts then
        return nil, "unresolved"
    end
    return { host = hosts[random(#hosts)], port = port }
end


-- Connects a socket to an address; as its own `connect`, which takes a port only where there is one.
function _M.connect(sock, address, pool)
    if address.port then
        return sock:connect(address.host, address.port, { pool = pool })
    end
    return sock:connect(address.host, { pool = pool })
end


-- All addresses of all nodes, each with the `name` by which it is counted and logged.
function _M.nodes()
    local nodes = {}
    for _, upstream in ipairs(settings.upstreams) do
        local name, port = split(upstream)
        for _, host in ipairs(hosts_of(name) or {}) do
            insert(nodes, { name = port and host .. ":" .. port or host, host = host, port = port })
        end
    end
    return nodes
end


return _M
