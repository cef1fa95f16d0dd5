-- Counts what a run takes and stops it at a limit. Once a limit is reached (`over`), every place
-- where a script could catch the error raises it again, so that nothing swallows it.
local host = ...
local calls = host.calls
local setmetatable = setmetatable
local error, next, select, collectgarbage, sethook, getinfo = error, next, select, collectgarbage, debug.sethook, debug.getinfo
local type, find, sub = type, string.find, string.sub
local clock = calls.clock

local STEP = 1000 -- instructions between two looks at the limits
local LARGE_COST = 5000
local COROUTINE_STEP = 100 -- what a resume costs at least, as a coroutine counts from 0 each time
local SLOW_S, MANY_KIB, CAREFUL_STEP = 0.005, 16384, 50 -- strings of megabytes make instructions slow
local NO_MEMORY = "not enough memory" -- Lua's own text, without a place before it
local OUR_PLACE, OUR_SOURCE = "^%[nerve%]:%d+: ", "=[nerve]"
local MAX_LEVELS = 50 -- of the stack, each of which takes as long to find as it is deep

local main = coroutine.running()
local meter = {}
local used, budget, deadline, last = 0, 0, 0, 0
local over -- the name of the limit that was reached
local hook
local running, step = false, STEP

local function stop(limit)
    over = limit
    sethook(hook, "", 1) -- a __close handler, all that can still run, gets no further than this
    error(limit, 0)
end

-- Large strings are about, and an instruction may take milliseconds: does not wait for a whole step.
local function look_soon()
    if running and not over and step > CAREFUL_STEP then
        used, step = used + step, CAREFUL_STEP
        sethook(main, hook, "", step)
    end
end

-- Those that the script's own operators make are noticed as garbage. What is garbage itself is told so.
local sentinel = {}
function sentinel.__gc()
    look_soon()
    setmetatable({}, sentinel)
end
setmetatable({}, sentinel)

local function charge(cost)
    if cost > LARGE_COST then
        look_soon()
    end
    used = used + cost
    if over then
        error(over, 0)
    end
    if used > budget then
        stop("max_instructions")
    end
end

-- Where a run ends, the hook is still set.
local trusted = {}
function meter.trust(...)
    for i = 1, select("#", ...) do
        trusted[(select(i, ...))] = true
    end
end

hook = function()
    if (over or used + step > budget) and trusted[getinfo(2, "f").func] then
        return
    end
    charge(step)
    local now = clock()
    if now > deadline then
        stop("timeout_microseconds")
    end
    local careful = now - last > SLOW_S or collectgarbage("count") > MANY_KIB
    local wanted = careful and CAREFUL_STEP or STEP
    if wanted > budget then
        wanted = budget
    end
    last = now
    if wanted ~= step then
        step = wanted
        sethook(hook, "", step)
    end
end

local function coroutine_hook()
    charge(COROUTINE_STEP)
    if clock() > deadline then
        stop("timeout_microseconds")
    end
end

meter.stop, meter.charge = stop, charge

function meter.look_at_clock()
    if clock() > deadline then
        stop("timeout_microseconds")
    end
end

function meter.watch(thread)
    sethook(thread, coroutine_hook, "", COROUTINE_STEP)
end

function meter.charge_resume()
    charge(COROUTINE_STEP)
end

-- Hands on what a protected call returned, unless that was a limit.
function meter.guard(ok, ...)
    if over then
        error(over, 0)
    end
    if not ok and (...) == NO_MEMORY then
        stop("max_memory_bytes")
    end
    return ok, ...
end

function meter.over()
    return over
end

-- The lines of a function whose frame is gone: it ended in a tail call.
local function lines_of(f)
    local info = getinfo(f, "SL")
    if not info.activelines or info.source == OUR_SOURCE then
        return nil
    end
    local first, last
    for line in next, info.activelines do
        if line ~= info.lastlinedefined then
            first = (not first or line < first) and line or first
            last = (not last or line > last) and line or last
        end
    end
    first, last = first or info.lastlinedefined, last or info.lastlinedefined
    return info.short_src .. ":" .. first .. (last > first and "-" .. last or "")
end

-- The function of the script that runs, as the first one.
local entered
function meter.enter(f)
    entered = f
end

-- What a call into the trusted code raises begins with a place there; this puts that of the script
-- into its place. For a handler of errors, or given the dead coroutine that an error came from.
function meter.placed(problem, thread)
    if over or type(problem) ~= "string" then
        return problem
    end
    local _, last = find(problem, OUR_PLACE)
    if not last then
        return problem
    end
    local text = sub(problem, last + 1)
    for level = thread and 0 or 2, MAX_LEVELS do
        local frame
        if thread then
            frame = getinfo(thread, level, "Sl")
        else
            frame = getinfo(level, "Sl")
        end
        if not frame then
            break
        elseif frame.currentline > 0 and frame.source ~= OUR_SOURCE then
            return frame.short_src .. ":" .. frame.currentline .. ": " .. text
        end
    end
    local lines = not thread and entered and lines_of(entered)
    return lines and lines .. ": " .. text or text
end
meter.trust(meter.placed)

function meter.start(instructions, until_s)
    used, over, budget, deadline, last = 0, nil, instructions, until_s, clock()
    running, step = true, budget < STEP and budget or STEP
    sethook(hook, "", step)
end

function meter.finish()
    sethook()
    running, entered = false, nil
end

-- A call into Python: its value, or the error that it tells of, raised.
function meter.invoke(call, ...)
    local ok, value, untidy = call(...)
    if ok == nil and value == "max_memory_bytes" then
        collectgarbage() -- Lua does not know how large what it no longer needs is
        ok, value = call(...)
    elseif untidy then
        collectgarbage()
    end
    if ok then
        return value
    elseif ok == nil then
        stop(value)
    end
    error(value)
end

host.meter = meter
