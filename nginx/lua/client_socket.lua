-- The socket of the request's client, as nginx and the kernel know it, where Lua's own has no way: nginx reads nothing
-- of it while Lua waits for a node, and so does not see that it has gone (`lua_check_client_abort` would have nginx end
-- what still has to say its last); and only the request's own threads may send on a cosocket.

local ffi = require "ffi"

local C = ffi.C
local cast = ffi.cast
local get_request = require("resty.core.base").get_request
local pcall = pcall
local tonumber = tonumber

local HUNG_UP = 0x2000 + 0x10 + 0x8 -- POLLRDHUP, POLLHUP, POLLERR of Linux

-- The beginnings of ngx_http_request_t and ngx_connection_t, which are the same in all nginx: ngx_http_request.h,
-- ngx_connection.h. ngx_unix_send is how nginx sends where there is no TLS: ngx_send.c.
ffi.cdef [[
typedef struct { void *data; void *read; void *write; int fd; void *recv; void *send; } tidegate_connection;
typedef struct { uint32_t signature; tidegate_connection *connection; } tidegate_request;
typedef struct { tidegate_connection *connection; tidegate_request *request; int fd; } tidegate_client;
struct tidegate_pollfd { int fd; short events; short revents; };
int poll(struct tidegate_pollfd *fds, unsigned long count, int timeout_ms);
ssize_t ngx_unix_send(tidegate_connection *connection, const char *bytes, size_t size);
]]

local new_client = ffi.typeof("tidegate_client")
local polled = ffi.new("struct tidegate_pollfd[1]")
local is_known, unix_send = pcall(function() return cast("void *", C.ngx_unix_send) end)

local _M = {
    LOOK_S = 1, -- between two looks, while a handshake waits
}


local function this_request()
    return cast("tidegate_request *", get_request())
end


-- Whether the client of this request has closed its end.
function _M.has_gone()
    polled[0].fd, polled[0].events, polled[0].revents = this_request().connection.fd, HUNG_UP, 0
    return C.poll(polled, 1, 0) > 0
end


-- The client of this request, for `send`; nil where nginx sends to it in another way, which is so with TLS, and where
-- the structs would not be what they are here.
function _M.current()
    local request = this_request()
    local connection = request.connection
    if not is_known or connection.data ~= request or connection.send ~= unix_send then
        return nil
    end
    return new_client(connection, request, connection.fd)
end


-- Sends what the kernel takes at once: so many of the bytes, 0 also where the client has gone. Any thread may; that
-- nothing else is being sent is the caller's care. nginx keeps its connections for as long as a worker lives, and one
-- whose request has ended has other data: nobody else's socket is written to.
function _M.send(client, bytes)
    local connection = client.connection
    if connection.data ~= client.request or connection.fd ~= client.fd then
        return 0
    end
    local sent = tonumber(C.ngx_unix_send(connection, bytes, #bytes))
    return sent > 0 and sent or 0
end


return _M
