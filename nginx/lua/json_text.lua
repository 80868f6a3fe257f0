-- JSON text (RFC 8259): checked as strictly as the service does, cut, and never made into values. What passes keeps its
-- digits, its order and its repeats. Positions are those of Lua's strings; nil where the text is not what is asked for.

local byte = string.byte
local char = string.char
local find = string.find
local gsub = string.gsub
local sub = string.sub
local tonumber = tonumber
local re_find = ngx.re.find

local TAB, LINE_FEED, RETURN, SPACE = 0x09, 0x0a, 0x0d, 0x20
local QUOTE, BACKSLASH, COMMA, COLON, MINUS, PLUS, DOT, U = 0x22, 0x5c, 0x2c, 0x3a, 0x2d, 0x2b, 0x2e, 0x75
local ZERO, NINE, E_LARGE, E_SMALL = 0x30, 0x39, 0x45, 0x65
local ARRAY, ARRAY_END, OBJECT, OBJECT_END = 0x5b, 0x5d, 0x7b, 0x7d
local ESCAPED = '^["\\/bfnrt]'
local WORDS = { [0x74] = "true", [0x66] = "false", [0x6e] = "null" }
local CLOSERS = { [ARRAY] = ARRAY_END, [OBJECT] = OBJECT_END }

local _M = {}

-- Loops over bytes, which are compiled, and hardly a pattern, which is not: with them, 64 KiB of brackets took four
-- times as long.


-- Where the white space that begins at `at` ends.
local function space(text, at)
    local here = byte(text, at)
    while here == SPACE or here == LINE_FEED or here == RETURN or here == TAB do
        at = at + 1
        here = byte(text, at)
    end
    return at
end
_M.space = space


local function code_unit(text, at)
    return find(text, "^%x%x%x%x", at) and tonumber(sub(text, at, at + 3), 16)
end


-- Behind the escape whose backslash is at `at`. Half a surrogate pair is none, as the service has it.
local function escape_end(text, at)
    if byte(text, at + 1) ~= U then
        return find(text, ESCAPED, at + 1) and at + 2
    end
    local unit = code_unit(text, at + 2)
    if not unit or (unit >= 0xdc00 and unit <= 0xdfff) then
        return nil
    end
    if unit < 0xd800 or unit > 0xdfff then
        return at + 6
    end
    local low = find(text, "^\\u", at + 6) and code_unit(text, at + 8)
    return low and low >= 0xdc00 and low <= 0xdfff and at + 12 or nil
end


-- Behind the string that begins at `at`.
local function string_end(text, at)
    if byte(text, at) ~= QUOTE then
        return nil
    end
    at = at + 1
    while at do
        local here = byte(text, at)
        if here == QUOTE then
            return at + 1
        end
        if here == BACKSLASH then
            at = escape_end(text, at)
        elseif not here or here < SPACE then
            return nil
        else
            at = at + 1
        end
    end
    return nil
end
_M.string_end = string_end


-- Behind one or more digits.
local function digits_end(text, at)
    local first, here = at, byte(text, at)
    while here and here >= ZERO and here <= NINE do
        at = at + 1
        here = byte(text, at)
    end
    return at > first and at or nil
end


local function number_end(text, at)
    if byte(text, at) == MINUS then
        at = at + 1
    end
    at = byte(text, at) == ZERO and at + 1 or digits_end(text, at)
    if at and byte(text, at) == DOT then
        at = digits_end(text, at + 1)
    end
    local here = at and byte(text, at)
    if here == E_LARGE or here == E_SMALL then
        local sign = byte(text, at + 1)
        at = digits_end(text, (sign == PLUS or sign == MINUS) and at + 2 or at + 1)
    end
    return at
end


local function word_end(text, at, word)
    local stop = at + #word
    return sub(text, at, stop - 1) == word and stop or nil
end


-- Where the value of the member that begins at `at` begins.
local function value_of(text, at)
    at = string_end(text, at)
    at = at and space(text, at)
    return at and byte(text, at) == COLON and space(text, at + 1) or nil
end
_M.value_of = value_of


-- Behind the string, number or word that begins at `at`.
local function scalar_end(text, at)
    local first = byte(text, at)
    if first == QUOTE then
        return string_end(text, at)
    end
    if WORDS[first] then
        return word_end(text, at, WORDS[first])
    end
    return number_end(text, at)
end


local open = {} -- what closes each level of the text that is being read


-- Behind all that ends at `at`, and how many levels are open there.
local function closed(text, at, depth)
    while depth > 0 do
        at = space(text, at)
        if byte(text, at) ~= open[depth] then
            break
        end
        at, depth = at + 1, depth - 1
    end
    return at, depth
end


-- Behind the value that begins at `at` and nests no deeper than `most` levels.
local function value_end(text, at, most)
    local depth = 0
    while at do
        local closer, is_begun = CLOSERS[byte(text, at)], false
        if closer and depth < most then
            depth = depth + 1
            open[depth] = closer
            at = space(text, at + 1)
            is_begun = byte(text, at) ~= closer
        else
            at = not closer and scalar_end(text, at)
        end
        if at and not is_begun then
            at, depth = closed(text, at, depth)
            if depth == 0 then
                return at
            end
            at = byte(text, at) == COMMA and space(text, at + 1)
        end
        if at and open[depth] == OBJECT_END then
            at = value_of(text, at)
        end
    end
    return nil
end
_M.value_end = value_end


-- What a string says that is all ASCII, some of it perhaps as \u0063; nil for others with escapes.
function _M.name(text)
    local inner = sub(text, 2, -2)
    if not find(inner, "\\", 1, true) then
        return inner
    end
    inner = gsub(inner, "\\u00(%x%x)", function(digits)
        return char(tonumber(digits, 16))
    end)
    return not find(inner, "\\", 1, true) and inner or nil
end


-- How many characters a string has.
function _M.characters(text)
    local count, at = 0, 2
    while at < #text do
        local here = byte(text, at)
        if here < 0x80 or here >= 0xc0 then -- else it goes on with one that is counted
            count = count + 1
        end
        at = here == BACKSLASH and escape_end(text, at) or at + 1
    end
    return count
end


-- PCRE refuses what is not UTF-8, surrogates and overlong forms too.
function _M.is_utf8(text)
    return not find(text, "[\128-\255]") or re_find(text, "^", "jou") ~= nil
end


-- One JSON text without the white space around it, nested no deeper than `most` levels.
function _M.document(text, most)
    local first = space(text, 1)
    local stop = value_end(text, first, most)
    if not stop or space(text, stop) <= #text or not _M.is_utf8(text) then
        return nil
    end
    return sub(text, first, stop - 1)
end


return _M
