"""Scripts that try to get out of the sandbox, or to take more than they may: none of them does."""

from __future__ import annotations

import resource
import time
from contextlib import nullcontext

import numpy as np
import pytest

from lua_scripts import SMALL, printed, sandbox, scores
from nerve.pipeline.transform import LimitExceeded, ScriptFailed
from nerve.types import Limits

INSTRUCTIONS, MEMORY = "max_instructions", "max_memory_bytes"
SPIN = "while true do end"

UNREACHABLE = {
    "io": "return io == nil",
    "os": "return os == nil",
    "debug": "return debug == nil",
    "package": "return package == nil and require == nil",
    "files": "return dofile == nil and loadfile == nil",
    "python": "return python == nil and _G.python == nil and _ENV.python == nil",
    "only known globals": """
        local known = {}
        for name in ([[assert collectgarbage coroutine error getmetatable ipairs load math next pairs
            pcall print rawequal rawget rawlen rawset select setmetatable string table tonumber
            tostring type utf8 warn xpcall Tensor _G _VERSION]]):gmatch('%S+') do known[name] = true end
        for name in pairs(_G) do if not known[name] then return false end end
        return true""",
    "bytecode made": "return string.dump == nil",
    "bytecode loaded": r"local f, e = load('\27Lua') return f == nil and e:find('binary') ~= nil",
    "bytecode by mode": r"return load('\27Lua', 'x', 'b') == nil and load('return 1', 'x', 'b') == nil",
    "bytecode by a reader": r"""
        local done
        return load(function() if not done then done = true return '\27Lua' end end, 'x', 'b') == nil""",
    "globals of loaded text": "return load('return debug or io or os or python')() == nil",
    "the world by an environment": "return load('return _G', 'x', 't', {})() == nil",
    "metatable of strings": "return getmetatable('') == false",
    "metatable of a Tensor": "return getmetatable(Tensor{1}) == false",
    "metatable of the constructor": """
        return getmetatable(Tensor) == false and not pcall(setmetatable, Tensor, {})""",
    "metatable of a function": "return getmetatable(print) == nil",
    "attributes": """
        local t = Tensor{1}
        for _, name in ipairs{'__class__', 'data', '_meter', '__init__', '__dict__', '__globals__', 1} do
            if t[name] ~= nil then return false end
        end
        return true""",
    "attributes set": "return not pcall(function() Tensor{1}.data = 1 end)",
    "calling a Tensor": "return not pcall(Tensor{1})",
    "rawget on a Tensor": "return not pcall(rawget, Tensor{1}, 'data') and not pcall(next, Tensor{1})",
    "a method on something else": """
        local softmax = Tensor{1}.softmax
        for _, value in ipairs{1, 'x', {}, print, coroutine.create(print), true} do
            if pcall(softmax, value, 1) then return false end
        end
        return true""",
    "a Tensor as an error": """
        local ok, e = pcall(error, Tensor{1, 2})
        return not ok and #e == 2""",
    "collector's switches": """
        return not pcall(collectgarbage, 'stop') and not pcall(collectgarbage, 'step')""",
    "finalizer": "return not pcall(setmetatable, {}, {__gc = print})",
    "finalizer, any value": "return not pcall(setmetatable, {}, {__gc = true})",
    "finalizer by inheritance": """
        local ran = false
        local mt = setmetatable({}, {__index = {__gc = function() ran = true end}})
        setmetatable({}, mt) collectgarbage() collectgarbage()
        return not ran""",
    "finalizer set afterwards": """
        local ran, mt = false, {}
        setmetatable({}, mt) rawset(mt, '__gc', function() ran = true end)
        collectgarbage() collectgarbage()
        return not ran""",
    "protected metatable": "return not pcall(setmetatable, setmetatable({}, {__metatable = 1}), {})",
    "host's places in errors": """
        local ok, e = pcall(function() return string.rep() end)
        return not ok and not e:find('/') and not e:find('python')""",
}


@pytest.mark.parametrize("name", sorted(UNREACHABLE))
def test_there_is_no_way_out(name: str) -> None:
    script = f"print((function() {UNREACHABLE[name]} end)())"
    assert printed(script) == ["true"]


BOMBS = {
    "loop": (SPIN, INSTRUCTIONS),
    "loop in pcall": (f"while true do pcall(function() {SPIN} end) end", INSTRUCTIONS),
    "loop in xpcall's handler": (f"xpcall(error, function() {SPIN} end)", INSTRUCTIONS),
    "handler of a limit": (f"xpcall(function() {SPIN} end, function() {SPIN} end)", INSTRUCTIONS),
    "loop in __tostring": (
        f"print(setmetatable({{}}, {{__tostring = function() {SPIN} end}}))",
        INSTRUCTIONS,
    ),
    "loop in an error's __tostring": (
        f"error(setmetatable({{}}, {{__tostring = function() {SPIN} end}}))",
        INSTRUCTIONS,
    ),
    "loop in __index": (
        f"local x = setmetatable({{}}, {{__index = function() {SPIN} end}}).x",
        INSTRUCTIONS,
    ),
    "loop in __close": (
        f"local x <close> = setmetatable({{}}, {{__close = function() {SPIN} end}})",
        INSTRUCTIONS,
    ),
    "loop in __close after a limit": (
        f"""local mt = {{__close = function() pcall(function() {SPIN} end) {SPIN} end}}
        local x <close> = setmetatable({{}}, mt) {SPIN}""",
        INSTRUCTIONS,
    ),
    "error in __close instead of a limit": (
        f"""local mt = {{__close = function() error('x') end}}
        pcall(function() local x <close> = setmetatable({{}}, mt) {SPIN} end)""",
        INSTRUCTIONS,
    ),
    "loop in sort": (f"table.sort({{1, 2, 3}}, function() {SPIN} end)", INSTRUCTIONS),
    "loop in gsub": (f"('x'):gsub('x', function() {SPIN} end)", INSTRUCTIONS),
    "loop in load": (f"load(function() {SPIN} end)", INSTRUCTIONS),
    "load without end": ("assert(load(function() return 'x = 1 ' end))", ScriptFailed),
    "loop in a coroutine": (
        f"coroutine.resume(coroutine.create(function() {SPIN} end))",
        INSTRUCTIONS,
    ),
    "loop in wrap": (f"pcall(coroutine.wrap(function() {SPIN} end))", INSTRUCTIONS),
    "many coroutines": (
        "while true do coroutine.wrap(function() for i = 1, 90 do end end)() end",
        INSTRUCTIONS,
    ),
    "yield without end": (
        """local c = coroutine.wrap(function() while true do coroutine.yield() end end)
        while true do c() end""",
        INSTRUCTIONS,
    ),
    "close of a coroutine": (
        f"""local mt = {{__close = function() {SPIN} end}}
            local c = coroutine.create(function()
                local x <close> = setmetatable({{}}, mt) coroutine.yield() end)
            coroutine.resume(c) coroutine.close(c)""",
        INSTRUCTIONS,
    ),
    "coroutines in coroutines": (
        "local function f() return coroutine.wrap(f)() end pcall(f) " + SPIN,
        INSTRUCTIONS,
    ),
    "goto": ("::again:: goto again", INSTRUCTIONS),
    "loop in map_axis": (f"Tensor{{1}}:map_axis(1, function() {SPIN} end)", INSTRUCTIONS),
    "loop in fold_axis": (f"Tensor{{1}}:fold_axis(1, 0, function() {SPIN} end)", INSTRUCTIONS),
    "nested tables without end": (
        "local t = setmetatable({}, {__len = function() return 1 << 60 end, __index = type})"
        " pcall(Tensor, t)"
        " t = setmetatable({}, {__len = function() return 1 << 60 end, __index = rawlen}) Tensor(t)",
        INSTRUCTIONS,
    ),
    "rep of nothing": ("for i = 1, 1e9 do (''):rep(1 << 62) end", INSTRUCTIONS),
    "rep": ("('x'):rep(1e9)", INSTRUCTIONS),
    "rep of much": (
        "local s, t = ('x'):rep(1e5):rep(50), {} for i = 1, 9 do t[i] = s .. i end",
        MEMORY,
    ),
    "string of 4 GB": ("local s = 'x' while true do s = s .. s end", MEMORY),
    "string of 4 GB, caught": (
        "local s = 'x' while true do pcall(function() s = s .. s end) end",
        MEMORY,
    ),
    "table without end": ("local t = {} for i = 1, 1e9 do t[i] = i end", MEMORY),
    "tables": ("local t = {} while true do t = {t} end", MEMORY),
    "memory in a coroutine": (
        "coroutine.resume(coroutine.create(function() local s = 'x' while true do s = s .. s end end))",
        MEMORY,
    ),
    "memory in load": (
        "load(function() local s = 'x' while true do s = s .. s end end)",
        MEMORY,
    ),
    "coroutines kept": (
        "local t = {} while true do t[#t + 1] = coroutine.create(print) end",
        None,
    ),
    "move": ("table.move({}, 1, 1 << 61, 2, {})", INSTRUCTIONS),
    "move, backwards": ("table.move({}, -(1 << 61), 1 << 61, 2, {})", None),
    "insert": (
        "table.insert(setmetatable({}, {__len = function() return 1 << 60 end}), 1, 1)",
        ScriptFailed,
    ),
    "insert, by a length that changes": (
        """local n = 0
        local list = setmetatable({}, {__len = function() n = n + 1 return n > 1 and 1 << 60 or 1 end})
        table.insert(list, 1, 1)""",
        ScriptFailed,
    ),
    "remove": (
        "table.remove(setmetatable({}, {__len = function() return 1 << 60 end}), 1)",
        ScriptFailed,
    ),
    "concat, by a length that changes": (
        """local n = 0
        local list = setmetatable({}, {__index = type, __len = function()
            n = n + 1 if n > 1 then return 1 << 60 end end})
        table.concat(list)""",
        ScriptFailed,
    ),
    "concat": (
        "table.concat(setmetatable({}, {__index = type, __len = function() return 1 << 60 end}))",
        INSTRUCTIONS,
    ),
    "sort": (
        "table.sort(setmetatable({}, {__index = rawlen, __len = function() return 1 << 30 end}))",
        ScriptFailed,
    ),
    "unpack": ("for i = 1, 1e9 do pcall(table.unpack, {}, 1, 900000) end", None),
    "pattern": ("('a'):rep(200):find(('a*'):rep(20) .. 'b')", None),
    "pattern of options": ("('a'):rep(30):find(('a?'):rep(30) .. ('a'):rep(31))", None),
    "pattern behind a set": ("('a'):rep(200):match('[%]]?' .. ('a*'):rep(20) .. '[b]')", None),
    "pattern in gsub": ("('a'):rep(5000):gsub('.-.-.-b', '')", None),
    "pattern in gmatch": ("for x in ('a'):rep(5000):gmatch('.-.-.-b') do end", None),
    "pattern without special characters": (
        "local s = ('a'):rep(1e6) while true do s:find(('a'):rep(5e5) .. 'b') end",
        ScriptFailed,
    ),
    "pattern of many items": ("('a'):rep(1e6):find(('a'):rep(900) .. 'b.')", ScriptFailed),
    "pattern with a large set": ("('a'):rep(1e6):find('[' .. ('b'):rep(900) .. ']')", ScriptFailed),
    "pattern of sets that do not end": ("('a'):find(('['):rep(1e6))", ScriptFailed),
    "replacement by empty captures": (
        "('x'):rep(5000):gsub('(y*)x', ('%1'):rep(1e6))",
        INSTRUCTIONS,
    ),
    "plain search": (
        "local s = ('a'):rep(1e6) while true do s:find(('a'):rep(5e5) .. 'b', 1, true) end",
        None,
    ),
    "recursion": ("local function f() return 1 + f() end f()", None),
    "recursion, caught": ("local function f() pcall(f) end f()", "nothing"),
    "recursion in metamethods": (
        """local t = setmetatable({}, {})
        getmetatable(t).__index = function(t, k) return t[k + 1] end return t[1]""",
        None,
    ),
    "parser's recursion": ("assert(load(('('):rep(1e5)))", ScriptFailed),
    "long text loaded": ("assert(load(('x = 1 '):rep(1e5)))", ScriptFailed),
    "collections": ("while true do collectgarbage() end", INSTRUCTIONS),
    "Tensors kept": ("local t = {} while true do t[#t + 1] = Tensor{1} end", None),
    "Tensor too large": (
        """local t = {} for i = 1, 5000 do t[i] = 1 end
        return Tensor(t) + Tensor{t}:transpose()""",
        MEMORY,
    ),
    "Tensors joined": (
        """local t = Tensor{{1, 2}}
        while true do t = t:map_axis(1, function(r) return Tensor{{{1, 2}, {3, 4}}} end) end""",
        None,
    ),
    "table in itself": ("local t = {} t[1] = t Tensor(t)", ScriptFailed),
    "printing": ("for i = 1, 1e9 do print('x') end", INSTRUCTIONS),
    "printing much": ("print(('x'):rep(1e6))", "nothing"),
    "format": ("('%99999d'):format(1)", ScriptFailed),
    "pack": ("string.pack('c2000000000', '')", None),
    "error that is a table": ("error({})", ScriptFailed),
    "error of megabytes": ("error(('x'):rep(1e6))", ScriptFailed),
    "forged limit": ("error('max_instructions', 0)", ScriptFailed),
    "yield outside": ("coroutine.yield()", ScriptFailed),
}
"""Script, and what stops it: a limit, the script's own error, or None for either."""


SLOW = {
    "joining": "local s = 'x' for i = 1, 24 do s = s .. s end while true do local t = s .. 'y' end",
    "numbers in text": "local s = ('1'):rep(1e7) while true do local x = s + 0 end",
    "tonumber": "local s = ('1'):rep(1e7) while true do tonumber(s) end",
    "numbers as text": "local t = {} for i = 1, 1e6 do t[i] = i / 3 end table.concat(t)",
    "formats": "local s = ('<'):rep(1e7) while true do string.pack(s) end",
}
"""Each instruction takes long: so many that none would be counted until a second has passed."""


@pytest.mark.parametrize("name", sorted(SLOW))
def test_the_clock_is_looked_at_in_time(name: str) -> None:
    limits = Limits(max_instructions=10**12, timeout_us=100_000, max_memory_bytes=2**28)
    start = time.process_time()
    with pytest.raises(LimitExceeded, match="timeout_microseconds"):
        sandbox(SLOW[name], limits=limits)
    assert time.process_time() - start < 1.5


def test_quoting_counts_by_the_byte() -> None:
    with pytest.raises(LimitExceeded, match=INSTRUCTIONS):
        sandbox("('%q'):format(('\\0'):rep(1e6))")


def outcome(script: str) -> object:
    """What stopped it."""
    try:
        sandbox(script)
    except LimitExceeded as error:
        return error.limit if error.value == getattr(SMALL, error.limit) else error
    except ScriptFailed as error:
        return ScriptFailed if len(error.text) <= 2000 else error
    return "nothing"


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_bombs_do_not_go_off(name: str) -> None:
    script, expected = BOMBS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    found = outcome(script)
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
    assert found == expected if expected else found != "nothing"


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_the_sandbox_is_as_good_as_new_afterwards(name: str) -> None:
    """The bomb goes off in Postprocess, for one request; the next one is served."""
    script, _ = BOMBS[name]
    box = sandbox(f"function Postprocess(arr) if #arr > 12 then {script} end return arr + 1 end")
    harmless = "nothing" in BOMBS[name]
    with nullcontext() if harmless else pytest.raises((LimitExceeded, ScriptFailed)):
        box.run(scores(1, 5, 3))
    few = scores(1, 4, 3)
    assert np.array_equal(box.run(few), few + 1)
