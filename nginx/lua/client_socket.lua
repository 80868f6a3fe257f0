-- The socket of the request's client, as the kernel knows it: nginx reads nothing of it while Lua waits for a node, and
-- so does not see that it has gone. (`lua_check_client_abort` would have nginx end what still has to say its last.)

local ffi = require "ffi"

local C = ffi.C
local cast = ffi.cast
local get_request = require("resty.core.base").get_request

local HUNG_UP = 0x2000 + 0x10 + 0x8 -- POLLRDHUP, POLLHUP, POLLERR of Linux

-- The beginnings of ngx_http_request_t and ngx_connection_t, which are the same in all nginx: ngx_http_request.h,
-- ngx_connection.h.
ffi.cdef [[
typedef struct { void *data; void *read; void *write; int fd; } tidegate_connection;
typedef struct { uint32_t signature; tidegate_connection *connection; } tidegate_request;
struct tidegate_pollfd { int fd; short events; short revents; };
int poll(struct tidegate_pollfd *fds, unsigned long count, int timeout_ms);
]]

local polled = ffi.new("struct tidegate_pollfd[1]")

local _M = {
    LOOK_S = 1, -- between two looks, while a handshake waits
}


-- Whether the client of this request has closed its end.
function _M.has_gone()
    local fd = cast("tidegate_request *", get_request()).connection.fd
    polled[0].fd, polled[0].events, polled[0].revents = fd, HUNG_UP, 0
    return C.poll(polled, 1, 0) > 0
end


return _M
