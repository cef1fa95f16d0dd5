-- `table`, `string`, `math` and `utf8` as a script sees them. Loops of Lua's C code run no hook, so
-- a call whose arguments ask for a long one is charged for it before it starts.
local host = ...
local meter, libraries, bad_argument = host.meter, host.libraries, host.bad_argument
local charge, look_at_clock = meter.charge, meter.look_at_clock
local error, type, select, tostring, tonumber = error, type, select, tostring, tonumber
local tointeger, log, next = math.tointeger, math.log, next

local MAX_STEPS = 1e8 -- of one search with a pattern, in the worst case
local WATCHED_STEPS = 1e5 -- with more, the clock is looked at afterwards
local LONG = 1e5 -- bytes
local MEMCPY = 16 -- bytes that a comparison or copy gets through in the time of one instruction

local function copy_of(library, without)
    local copy = {}
    for name, value in next, library do
        if name ~= without then
            copy[name] = value
        end
    end
    return copy
end

libraries.math = copy_of(math)
libraries.utf8 = copy_of(utf8)
libraries.string = copy_of(string, "dump")
libraries.table = copy_of(table)
local strings, tables = libraries.string, libraries.table

local function table_argument(value, name)
    if type(value) ~= "table" then
        bad_argument(1, name, "table", value, 3)
    end
end

-- A number that a C function would take as an integer, or `default`; its own error comes later.
local function integer(value, default)
    return tointeger(tonumber(value) or default) or default
end

local function charge_range(first, last)
    if last >= first then
        charge((last + 0.0) - first + 1) -- as floats: the difference may be no integer
    end
end

local concat, insert, move, remove, sort, unpack =
    table.concat, table.insert, table.move, table.remove, table.sort, table.unpack

function tables.concat(list, separator, first, last)
    table_argument(list, "concat")
    if last == nil then
        last = #list
    end
    charge_range(integer(first, 1), integer(last, 0))
    return concat(list, separator, first, last)
end

function tables.insert(list, ...)
    table_argument(list, "insert")
    if select("#", ...) == 2 then
        charge_range(integer((...), 1), integer(#list, 0))
    end
    return insert(list, ...)
end

function tables.move(from, first, last, to, target)
    table_argument(from, "move")
    charge_range(integer(first, 1), integer(last, 0))
    return move(from, first, last, to, target or from)
end

function tables.remove(list, ...)
    table_argument(list, "remove")
    if select("#", ...) > 0 then
        charge_range(integer((...), 1), integer(#list, 0))
    end
    return remove(list, ...)
end

function tables.sort(list, before)
    table_argument(list, "sort")
    local size = integer(#list, 0)
    if size > 1 then
        charge(size * log(size, 2))
    end
    return sort(list, before)
end

function tables.unpack(list, first, last)
    if last == nil and type(list) == "table" then
        last = #list
    end
    charge_range(integer(first, 1), integer(last, 0))
    return unpack(list, first, last)
end

local rep, find, match, gmatch, gsub, byte = string.rep, string.find, string.match, string.gmatch, string.gsub, string.byte

function strings.rep(text, count, separator)
    local each = #tostring(text) + (separator == nil and 0 or #tostring(separator))
    local times = integer(count, 0)
    if each == 0 and times > 0 then
        return "" -- C code would loop over nothing
    elseif times > 0 then
        charge(times / 4 + times * (each / MEMCPY)) -- as floats, which do not wrap round
    end
    return rep(text, count, separator)
end

-- How many steps a search may take: each repetition can try every length at every place.
local function worst_steps(size, pattern, anchored)
    local plain = gsub(gsub(gsub(pattern, "%%[bf%d]", "*"), "%%.", "e"), "%[%^?%]?[^%]]*%]", "x")
    local _, repetitions = gsub(plain, "[*+?-]", "")
    local places = anchored and byte(pattern) == 94 and 0 or 1
    return (size + 1.0) ^ (repetitions + places)
end

local function allow(text, pattern, name, anchored)
    if type(text) == "number" then
        text = tostring(text)
    end
    if type(text) ~= "string" or (type(pattern) ~= "string" and type(pattern) ~= "number") then
        return 0 -- the function itself complains
    end
    local steps = worst_steps(#text, tostring(pattern), anchored)
    if steps > MAX_STEPS then
        error(name .. ": the pattern may take too long on a string of " .. #text
            .. " bytes; use fewer repetitions, or anchor it with '^'", 3)
    end
    return steps
end

-- Looks at the clock after a search that may have been long.
local function watched(steps, ...)
    if steps > WATCHED_STEPS then
        look_at_clock()
    end
    return ...
end

function strings.find(text, pattern, init, plain)
    if plain then
        local steps = #tostring(text) * (#tostring(pattern) / MEMCPY + 1)
        charge(steps / MEMCPY)
        return watched(steps, find(text, pattern, init, plain))
    end
    return watched(allow(text, pattern, "find", true), find(text, pattern, init))
end

function strings.match(text, pattern, init)
    return watched(allow(text, pattern, "match", true), match(text, pattern, init))
end

function strings.gsub(text, pattern, replacement, count)
    local steps = allow(text, pattern, "gsub", true)
    return watched(steps, gsub(text, pattern, replacement, count))
end

function strings.gmatch(text, pattern, init)
    local steps = allow(text, pattern, "gmatch", false)
    local following = gmatch(text, pattern, init)
    return function()
        return watched(steps, following())
    end
end

-- Those that go once through a string: only a long one is worth counting.
local function count_string(text)
    if type(text) == "string" and #text > LONG then
        charge(#text / MEMCPY)
        look_at_clock()
    end
end

local function count_length(library, names)
    for name in names:gmatch("%S+") do
        local plain = library[name]
        library[name] = function(text, ...)
            count_string(text)
            return plain(text, ...)
        end
    end
end

local format = string.format
function strings.format(text, ...)
    for i = 1, select("#", ...) do
        count_string((select(i, ...)))
    end
    count_string(text)
    return format(text, ...)
end

count_length(strings, "byte lower reverse sub unpack upper")
count_length(libraries.utf8, "codepoint codes len offset")
