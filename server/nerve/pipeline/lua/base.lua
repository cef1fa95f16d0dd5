-- The basic functions and `coroutine` as a script sees them: nothing that reaches a file, bytecode,
-- a finalizer or the interpreter, and nothing that swallows a limit.
local host = ...
local meter, calls = host.meter, host.calls
local guard, charge, placed = meter.guard, meter.charge, meter.placed
local error, type, select, tostring, rawget, next = error, type, select, tostring, rawget, next
local xpcall, load, collectgarbage = xpcall, load, collectgarbage
local setmetatable, metatable_of = setmetatable, debug.getmetatable
local concat, sub, find = table.concat, string.sub, string.find
local create, resume, close, status = coroutine.create, coroutine.resume, coroutine.close, coroutine.status

local MAX_CHUNK_BYTES = 262144 -- the parser cannot be interrupted
local CHARGE_PER_BYTE = 4
local COLLECT_CHARGE = 64 -- of a full collection, for each KiB
local MAX_LINES, MAX_LINE_BYTES = 100, 1000

local function bad_argument(position, name, expected, value)
    local got = value == nil and "nil" or type(value) == "userdata" and "Tensor" or type(value)
    error("bad argument #" .. position .. " to '" .. name .. "' (" .. expected .. " expected, got "
        .. got .. ")")
end
host.bad_argument = bad_argument

local base = {}
for name in ("assert error getmetatable ipairs next pairs rawequal rawget rawlen rawset select tonumber "
    .. "tostring type _VERSION"):gmatch("%S+") do
    base[name] = _G[name]
end

function base.pcall(f, ...)
    return guard(xpcall(f, placed, ...))
end

function base.xpcall(f, handler, ...)
    if type(handler) ~= "function" then
        bad_argument(2, "xpcall", "function", handler)
    end
    return guard(xpcall(f, function(problem)
        if meter.over() then -- raised by a hook, and hooks do not run inside a hook
            return problem
        end
        return handler(placed(problem))
    end, ...))
end

function base.setmetatable(value, metatable)
    if type(value) ~= "table" then
        bad_argument(1, "setmetatable", "table", value)
    elseif metatable ~= nil and type(metatable) ~= "table" then
        bad_argument(2, "setmetatable", "nil or table", metatable)
    elseif metatable and rawget(metatable, "__gc") ~= nil then
        error("a metatable with __gc is not available to a transform")
    end
    local current = metatable_of(value)
    if current and rawget(current, "__metatable") ~= nil then
        error("cannot change a protected metatable")
    end
    return setmetatable(value, metatable)
end

function base.collectgarbage(option)
    if option == "count" then
        return collectgarbage("count")
    elseif option == nil or option == "collect" then
        charge(collectgarbage("count") * COLLECT_CHARGE)
        collectgarbage()
        meter.look_at_clock()
        return 0
    end
    error("collectgarbage has only 'collect' and 'count' in a transform")
end

local lines = 0
local function write(...)
    lines = lines + 1
    if lines > MAX_LINES + 1 then
        return
    end
    local parts = {}
    for i = 1, select("#", ...) do
        parts[i] = sub(tostring((select(i, ...))), 1, MAX_LINE_BYTES)
        if i == MAX_LINE_BYTES then
            break
        end
    end
    local line = lines > MAX_LINES and "(further lines of this run are left out)" or concat(parts, "\t")
    meter.invoke(calls.print, sub(line, 1, MAX_LINE_BYTES))
end

base.print = write

function base.warn(...)
    for i = 1, select("#", ...) do
        local kind = type((select(i, ...)))
        if kind ~= "string" and kind ~= "number" then
            bad_argument(i, "warn", "string", (select(i, ...)))
        end
    end
    write(concat({ ... }))
end

local function gather(reader)
    local parts, size = {}, 0
    while true do
        local part = reader()
        if part == nil or part == "" then
            return concat(parts)
        elseif type(part) ~= "string" then
            error("reader function must return a string", 0)
        end
        size = size + #part
        if size > MAX_CHUNK_BYTES then
            return concat(parts) .. part
        end
        parts[#parts + 1] = part
    end
end

-- `load` of text, whose globals are those of `environment` if it is not told otherwise.
local function loader(environment)
    return function(chunk, name, mode, ...)
        local text = chunk
        if type(chunk) == "function" then
            local ok
            ok, text = guard(xpcall(gather, placed, chunk))
            if not ok then
                return nil, text
            end
            name = name or "=(load)"
        elseif type(chunk) ~= "string" then
            bad_argument(1, "load", "function", chunk)
        end
        if #text > MAX_CHUNK_BYTES then
            return nil, "chunk too long (" .. #text .. " bytes, " .. MAX_CHUNK_BYTES .. " at most)"
        elseif mode ~= nil and not find(mode, "t", 1, true) then
            return nil, "a transform loads only text chunks"
        end
        charge(#text * CHARGE_PER_BYTE)
        local globals = environment
        if select("#", ...) > 0 then
            globals = ...
        end
        return guard(load(text, name or text, "t", globals))
    end
end

local threads = {
    isyieldable = coroutine.isyieldable,
    running = coroutine.running,
    status = status,
    yield = coroutine.yield,
}

function threads.create(f)
    if type(f) ~= "function" then
        bad_argument(1, "create", "function", f)
    end
    local thread = create(f)
    meter.watch(thread)
    return thread
end

local function ran(thread, ok, ...)
    if ok then
        return guard(ok, ...)
    end
    return guard(ok, placed((...), thread))
end

local function resumed(thread, ...)
    meter.charge_resume()
    return ran(thread, resume(thread, ...))
end

function threads.resume(thread, ...)
    if type(thread) ~= "thread" then
        bad_argument(1, "resume", "coroutine", thread)
    end
    return resumed(thread, ...)
end

function threads.close(thread)
    if type(thread) ~= "thread" then
        bad_argument(1, "close", "coroutine", thread)
    end
    return guard(close(thread))
end

local function unwrapped(thread, ok, ...)
    if ok then
        return ...
    end
    if status(thread) == "dead" then
        guard(close(thread))
    end
    error((...), 0)
end

function threads.wrap(f)
    if type(f) ~= "function" then
        bad_argument(1, "wrap", "function", f)
    end
    local thread = threads.create(f)
    return function(...)
        return unwrapped(thread, resumed(thread, ...))
    end
end

host.libraries, host.base = { coroutine = threads }, base

-- A function that makes what a run starts with, afresh: nothing that an earlier run did can be
-- seen in it. Written out as one constructor, as this is a good part of what a small run costs.
function host.environments(chosen)
    local values, names = {}, {}
    local function constructor(fields)
        local text = {}
        for name, value in next, fields do
            values[#values + 1], names[#names + 1] = value, "v" .. #values
            text[#text + 1] = name .. "=v" .. #names - 1
        end
        return concat(text, ",")
    end
    local text = { constructor(base) }
    for _, library in next, chosen do
        text[#text + 1] = library .. "={" .. constructor(host.libraries[library]) .. "}"
    end
    local make = load("local " .. concat(names, ",") .. "=... return function() return {"
        .. concat(text, ",") .. "} end", "=[nerve]", "t")(table.unpack(values))
    return function()
        lines = 0
        local globals = make()
        globals._G = globals
        globals.load = loader(globals)
        return globals
    end
end
