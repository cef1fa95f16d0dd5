-- `table`, `string`, `math` and `utf8` as a script sees them. Loops of Lua's C code run no hook, so
-- a call whose arguments ask for a long one is charged for it before it starts.
local host = ...
local meter, libraries, bad_argument = host.meter, host.libraries, host.bad_argument
local charge, look_at_clock = meter.charge, meter.look_at_clock
local error, type, select, tostring, tonumber = error, type, select, tostring, tonumber
local tointeger, log, max, min, next = math.tointeger, math.log, math.max, math.min, next
local rawget, load, metatable_of = rawget, load, debug.getmetatable

local MAX_STEPS = 1e8 -- of one search with a pattern, in the worst case
local WATCHED_STEPS = 1e5 -- with more, the clock is looked at afterwards
local LONG = 1e5 -- bytes
local MEMCPY = 16 -- bytes that a comparison or copy gets through in the time of one instruction
local MANY_COMPARED = 128 -- bytes, of long comparisons in a row
local QUOTED = 8 -- instructions that a byte takes with `%q`
local COMPARISON, MOVE = 6, 3 -- instructions that one of `table.sort` and `table.move` takes the time of
local CONCAT_STEP = 10000 -- elements between two looks at the clock
local MAX_PATTERN_BYTES = 1000
local SPECIAL = "[%^$*+?.(%[%%%-]" -- as Lua has it: without any, `find` does not try a pattern

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
        bad_argument(1, name, "table", value)
    end
end

local function length_of(list)
    return tointeger(#list) or error("object length is not an integer")
end

-- C code asks for the length again, and `__len` may say anything then.
local function own_length(list, name)
    table_argument(list, name)
    local metatable = metatable_of(list)
    if metatable and rawget(metatable, "__len") ~= nil then
        error("bad argument #1 to '" .. name .. "' (a table with __len is not available to a transform)")
    end
    return #list
end

-- A number that a C function would take as an integer, or `default`; its own error comes later.
local function integer(value, default)
    return tointeger(tonumber(value) or default) or default
end

local function charge_range(first, last, each)
    if last >= first then
        charge(((last + 0.0) - first + 1) * (each or 1)) -- as floats: the difference may be no integer
    end
end

local concat, insert, move, remove, sort, unpack =
    table.concat, table.insert, table.move, table.remove, table.sort, table.unpack

function tables.concat(list, separator, first, last)
    table_argument(list, "concat")
    last = last == nil and length_of(list) or last
    local from, to = integer(first, 1), integer(last, 0)
    charge_range(from, to)
    if to - from < CONCAT_STEP then -- or so large that the charge was refused
        return concat(list, separator, first, last)
    end
    local parts = {}
    for at = from, to, CONCAT_STEP do
        parts[#parts + 1] = concat(list, separator, at, min(at + CONCAT_STEP - 1, to))
        look_at_clock()
    end
    return concat(parts, separator)
end

function tables.insert(list, ...)
    local size = own_length(list, "insert")
    if select("#", ...) == 2 then
        charge_range(integer((...), 1), size)
    end
    return insert(list, ...)
end

function tables.move(from, first, last, to, target)
    table_argument(from, "move")
    charge_range(integer(first, 1), integer(last, 0), MOVE)
    return move(from, first, last, to, target or from)
end

function tables.remove(list, ...)
    local size = own_length(list, "remove")
    if select("#", ...) > 0 then
        charge_range(integer((...), 1), size)
    end
    return remove(list, ...)
end

function tables.sort(list, before)
    local size = own_length(list, "sort")
    if size > 1 then
        charge(COMPARISON * size * log(size, 2))
    end
    return sort(list, before)
end

function tables.unpack(list, first, last)
    if last == nil and type(list) == "table" then
        last = length_of(list)
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

-- How many steps a search may take: each repetition can try every length at every place, and what
-- follows it is compared each time.
local function worst_steps(size, pattern, anchored)
    local plain = gsub(gsub(gsub(pattern, "%%[bf%d]", "*"), "%%.", "ee"), "%[%^?%]?[^%]]*%]", function(set)
        return rep("x", #set)
    end)
    local ways = (size + 1.0) ^ (anchored and byte(pattern) == 94 and 0 or 1)
    local steps = 0
    for items, repetition in gmatch(plain, "([^*+?-]*)([*+?-]?)") do
        steps = steps + ways * (#items > 0 and #items or 1)
        ways = repetition == "" and ways or ways * (size + 1.0)
    end
    return steps
end

local function allow(text, pattern, name, anchored)
    if type(text) == "number" then
        text = tostring(text)
    end
    if type(text) ~= "string" or (type(pattern) ~= "string" and type(pattern) ~= "number") then
        return 0 -- the function itself complains
    end
    pattern = tostring(pattern)
    if #pattern > MAX_PATTERN_BYTES then
        error(name .. ": a pattern has " .. MAX_PATTERN_BYTES .. " bytes at most; this one has " .. #pattern)
    end
    local steps = worst_steps(#text, pattern, anchored)
    if steps > MAX_STEPS then
        error(name .. ": the pattern may take too long on a string of " .. #text
            .. " bytes; use fewer repetitions, or anchor it with '^'")
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
    if plain or type(pattern) == "string" and not find(pattern, SPECIAL) then
        local size, length = #tostring(text), #tostring(pattern)
        local cost = size / MEMCPY + max(size - length, 0) * (length / MANY_COMPARED)
        if cost > MAX_STEPS then
            error("find: the search may take too long on a string of " .. size .. " bytes")
        end
        charge(cost)
        return watched(cost, find(text, pattern, init, true))
    end
    return watched(allow(text, pattern, "find", true), find(text, pattern, init))
end

function strings.match(text, pattern, init)
    return watched(allow(text, pattern, "match", true), match(text, pattern, init))
end

function strings.gsub(text, pattern, replacement, count)
    local steps = allow(text, pattern, "gsub", true)
    if type(replacement) == "string" and find(replacement, "%", 1, true) then
        charge((#text + 1.0) * #replacement) -- captures may be empty, and so would be what is made of it
    end
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

-- Wrappers whose functions are called by their names, which errors of C code tell.
local function wrap(library, names, text)
    for name in names:gmatch("%S+") do
        library[name] = load(text:gsub("NAME", name), "=[nerve]", "t")(count_string, library[name], select)
    end
end

local function count_first(library, names)
    wrap(library, names, "local count, NAME = ... return function(text, ...) count(text) return NAME(text, ...) end")
end

local function count_all(library, names)
    wrap(library, names, [[local count, NAME, select = ... return function(...)
        for i = 1, select("#", ...) do
            count((select(i, ...)))
        end
        return NAME(...)
    end]])
end

local format = string.format
function strings.format(text, ...)
    local quoted = type(text) == "string" and find(text, "q", 1, true)
    for i = 1, select("#", ...) do
        local value = select(i, ...)
        count_string(value)
        if quoted and type(value) == "string" then
            charge(QUOTED * #value)
        end
    end
    count_string(text)
    return format(text, ...)
end

count_first(strings, "byte lower packsize reverse sub upper")
count_first(libraries.utf8, "codepoint codes len offset")
count_first(host.base, "tonumber")
count_all(strings, "pack unpack")
