-- When the certificate ends that nginx reads at its start or reload: read at the same moment, by the master.

local byte = string.byte
local floor = math.floor
local match = string.match
local open = io.open
local pcall = pcall
local sub = string.sub
local tonumber = tonumber

local SEQUENCE, VERSION, UTC_TIME = 0x30, 0xA0, 0x17
local DAY_S = 86400

local _M = {}


-- The first element of DER (X.690): its tag, what is in it, and what follows it.
local function element(der)
    local tag, size, begin = byte(der, 1), byte(der, 2), 3
    if size >= 0x80 then
        begin, size = size - 0x80 + 3, 0
        for at = 3, begin - 1 do
            size = size * 256 + byte(der, at)
        end
    end
    return tag, sub(der, begin, begin + size - 1), sub(der, begin + size)
end


-- Days from 1970 to a date of the Gregorian calendar, by years that begin in March.
local function days(year, month, day)
    if month <= 2 then
        year, month = year - 1, month + 12
    end
    local of_year = floor((153 * (month - 3) + 2) / 5) + day - 1
    return 365 * year + floor(year / 4) - floor(year / 100) + floor(year / 400) + of_year - 719468
end


-- Unix time. Two digits of a year are of 1950 to 2049 (RFC 5280, 4.1.2.5.1).
local function seconds(tag, text)
    if tag == UTC_TIME then
        text = (tonumber(sub(text, 1, 2)) >= 50 and "19" or "20") .. text
    end
    local year, month, day, hour, minute, second = match(text, "^(%d%d%d%d)(%d%d)(%d%d)(%d%d)(%d%d)(%d%d)Z$")
    return days(tonumber(year), tonumber(month), tonumber(day)) * DAY_S + hour * 3600 + minute * 60 + second
end


-- Of the first certificate of a PEM text (RFC 5280, 4.1).
function _M.ends_s(pem)
    local text = match(pem, "%-%-%-%-%-BEGIN CERTIFICATE%-%-%-%-%-(.-)%-%-%-%-%-END CERTIFICATE%-%-%-%-%-")
    local _, certificate = element(ngx.decode_base64((text:gsub("%s", ""))))
    local _, rest = element(certificate)
    if byte(rest) == VERSION then
        _, _, rest = element(rest)
    end
    for _ = 1, 3 do -- serial number, signature algorithm, issuer
        _, _, rest = element(rest)
    end
    local tag, validity = element(rest)
    if tag ~= SEQUENCE then
        return nil
    end
    _, _, rest = element(validity)
    return seconds(element(rest))
end


-- What is named as in ssl_certificate: relative to the configuration, which lies beside this file's folder. nil where
-- it cannot be read.
function _M.read(path)
    local here = match(debug.getinfo(1, "S").source, "^@(.*)lua/[^/]*$") or ""
    local file = open(sub(path, 1, 1) == "/" and path or here .. "conf.d/" .. path)
    if not file then
        return nil
    end
    local pem = file:read("*a")
    file:close()
    local ok, ends_s = pcall(_M.ends_s, pem)
    return ok and ends_s or nil
end


return _M
