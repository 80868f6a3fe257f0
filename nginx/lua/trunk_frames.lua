-- The frames of a trunk as bytes, and back. Source: docs/trunk.md. Nothing of nginx is needed here.
--
-- A frame is its length (32 bits, little-endian, of what follows), its kind (8 bits), a number (32 bits: of a session
-- or a stream) and a payload. A position is compared and handed on as the bytes that it came in.

local ffi = require "ffi"

local byte = string.byte
local concat = table.concat
local cast = ffi.cast
local copy = ffi.string
local gmatch = string.gmatch
local pairs = pairs
local sub = string.sub

ffi.cdef [[
typedef struct __attribute__((packed)) { uint32_t size; uint8_t kind; uint32_t number; } tidegate_frame_head;
typedef struct __attribute__((packed)) { uint32_t value; } tidegate_u32;
typedef struct __attribute__((packed)) { uint16_t value; } tidegate_u16;
]]
local head_of = ffi.typeof("const tidegate_frame_head *")
local u32_of = ffi.typeof("const tidegate_u32 *")
local bytes_of = ffi.typeof("const uint8_t *")
local head = ffi.new("tidegate_frame_head")
local u32 = ffi.new("tidegate_u32")
local u16 = ffi.new("tidegate_u16")

local HEAD_BYTES = 9
local MOST_BYTES = 1024 * 1024

local _M = {
    HELLO = 1, PULSE = 2, OPEN = 3, ACCEPT = 4, REFUSE = 5, WELCOMED = 6, TEXT = 7, PONG = 8, DONE = 9, READING = 10,
    SEND = 11, WRITTEN = 12, SLOW = 13, TRACK = 14, UNTRACK = 15, FOLLOW = 16, HEARD = 17, CLOSE = 18, GONE = 19,
    TOKEN = 20, MOVE = 21, RESUME = 22, PART = 23,
}


-- The head of a frame whose payload has `size` bytes and follows by itself.
function _M.head(kind, number, size)
    head.size, head.kind, head.number = size + HEAD_BYTES - 4, kind, number
    return copy(head, HEAD_BYTES)
end


function _M.count(value)
    u32.value = value
    return copy(u32, 4)
end


-- A close code, and whether the client answered our close frame.
function _M.gone(code, is_answered)
    u16.value = code
    return copy(u16, 2) .. (is_answered and "\1" or "\0")
end


-- The number at `at` (from 1) of a text.
function _M.read_count(text, at)
    return cast(u32_of, cast(bytes_of, text) + at - 1).value
end


function _M.read_code(text)
    return byte(text, 1) + 256 * byte(text, 2)
end


-- Where a position that begins at `at` ends, the byte behind it.
local function position_end(text, at)
    return at + 9 + (byte(text, at) or 0)
end


-- A position, as its bytes, and where it ends.
function _M.read_position(text, at)
    local stop = position_end(text, at)
    return sub(text, at, stop - 1), stop
end


local function u16_text(value)
    u16.value = value
    return copy(u16, 2)
end


-- Where a client is: name -> position of its streams.
function _M.cursor(positions)
    local parts, count = { "" }, 0
    for name, position in pairs(positions) do
        count = count + 1
        parts[#parts + 1] = position .. u16_text(#name) .. name
    end
    parts[1] = u16_text(count)
    return concat(parts)
end


-- Lines of a name and a value, in pairs.
function _M.fields(...)
    local parts, words = {}, { ... }
    for at = 1, #words, 2 do
        parts[#parts + 1] = words[at] .. " " .. words[at + 1] .. "\n"
    end
    return concat(parts)
end


-- Takes whole frames from `data`: calls `on_frame(kind, number, data, first, last)` for each, whose payload is
-- data[first..last]. Gives what is left, "" where nothing is; nil where it is no frame.
function _M.split(data, on_frame)
    local at, size = 0, #data
    local bytes = cast(bytes_of, data)
    while size - at >= HEAD_BYTES do
        local frame = cast(head_of, bytes + at)
        local length = frame.size
        if length < HEAD_BYTES - 4 or length > MOST_BYTES then
            return nil
        end
        local stop = at + 4 + length
        if stop > size then
            break
        end
        on_frame(frame.kind, frame.number, data, at + HEAD_BYTES + 1, stop)
        at = stop
    end
    if at == 0 then
        return data
    end
    return sub(data, at + 1)
end


-- name -> value of lines.
function _M.read_fields(text)
    local fields = {}
    for name, value in gmatch(text, "([^ \n]+) ([^\n]*)\n") do
        fields[name] = value
    end
    return fields
end


return _M
