-- SPDX-License-Identifier: Apache-2.0
-- A stand-in for Pktgen-DPDK, for the test of the plans: the generator itself is no package of
-- Debian's. It has the functions of 23.06's Lua interface that the plans may use, with their
-- numbers and types of arguments; refuses any other; keeps the settings; and plays a link of
-- 14.88 Mpps and a balancer that forwards STUB_CAPACITY percent of that. It says nothing of what
-- the real one makes of the calls.
--
--   lua stub_pktgen.lua PLAN.lua     prints "CALL name arguments" and "SEND …" lines

local capacity = tonumber(os.getenv("STUB_CAPACITY") or "100")
local one_argument = os.getenv("STUB_PORTSTATS") == "one"
local line_rate = 14.88e6

local ranges, rate, sending, sent, received, time_ms, quit = {}, 100, false, 0, 0, 0, false
local function fail(...) error("stub: " .. string.format(...), 3) end

local function is_port(v) return type(v) == "string" and v:match("^%d+[%d,]*$") ~= nil end
local function is_text(v) return type(v) == "string" end
local function is_integer(v) return math.tointeger(v) ~= nil end
local function is_number(v) return tonumber(v) ~= nil end
local function is_mac(v) return is_text(v) and v:match("^" .. ("%x%x:"):rep(5) .. "%x%x$") ~= nil end
local function is_ip(v)
  if not is_text(v) then return false end
  local n = 0
  for part in (v .. "."):gmatch("(%d+)%.") do
    if tonumber(part) > 255 then return false end
    n = n + 1
  end
  return n == 4 and v:match("^[%d.]+$") ~= nil
end
local function one_of(...)
  local set = {}
  for _, v in ipairs({ ... }) do set[v] = true end
  return function(v) return set[v] == true end
end
local smmi = one_of("start", "min", "max", "inc")
local function is_l4_port(v) return is_integer(v) and v >= 0 and v <= 65535 end
local function is_size(v) return is_integer(v) and v >= 0 and v <= 1518 end
local function is_mask(v) return is_text(v) and v:match("^[01Xx.]+$") ~= nil and #v <= 32 end

-- rangeable() is a field of the range; inc of a port is cut to 64 by Pktgen.
local function rangeable(name, check)
  return { is_port, smmi, check, act = function(_, what, value)
    ranges[name] = ranges[name] or {}
    ranges[name][what] = value
  end }
end

local sequence_keys = { eth_dst_addr = is_mac, eth_src_addr = is_mac, ip_dst_addr = is_ip,
  ip_src_addr = function(v) return is_text(v) and is_ip(v:match("^(.-)/%d+$") or "") end,
  sport = is_l4_port, dport = is_l4_port, ethType = one_of("ipv4", "ipv6"),
  ipProto = one_of("tcp", "udp", "icmp"), vlanid = is_integer, pktSize = is_size,
  gtpu_teid = is_integer }
local function is_packet(v)
  if type(v) ~= "table" then return false end
  for key, value in pairs(v) do
    if not sequence_keys[key] or not sequence_keys[key](value) then return false end
  end
  for key in pairs(sequence_keys) do if v[key] == nil then return false end end
  return true
end

local set_keys = { count = true, size = true, rate = true, burst = true, sport = true,
  dport = true, ttl = true, seq_cnt = true, seqCnt = true, prime = true }

local commands = { "^range %d+ tcp flag clr all$", "^range %d+ tcp flag set syn$",
  "^range %d+ tcp flag set ack$" }
local function run_commands(path)
  local file = assert(io.open(path))
  for line in file:lines() do
    local known = false
    for _, pattern in ipairs(commands) do known = known or line:match(pattern) ~= nil end
    if not known then fail("command %q", line) end
    print("COMMAND " .. line)
  end
  file:close()
end

local function show_ranges()
  local parts = {}
  for _, name in ipairs({ "src_ip", "dst_ip", "src_port", "dst_port", "pkt_size", "dst_mac" }) do
    local r = ranges[name]
    if ranges.on then
      for _, what in ipairs({ "start", "min", "max", "inc" }) do
        if not r or r[what] == nil then fail("range: %s %s is not set", name, what) end
      end
      parts[#parts + 1] = string.format("%s=%s,%s,%s", name, r.min, r.max, r.inc)
    end
  end
  print("SEND rate=" .. rate .. " " .. table.concat(parts, " "))
end

local functions
functions = {
  screen = { one_of("on", "off") },
  stop = { is_port, act = function() sending = false end },
  start = { is_port, act = function()
    if sending then fail("start while sending") end
    show_ranges()
    sending = true
  end },
  reset = { is_port, act = function() ranges = {} end },
  clr = { act = function() sent, received = 0, 0 end },
  set = { is_port, function(v) return set_keys[v] == true end, is_number,
    act = function(_, what, value)
      if what == "rate" then
        if value <= 0 or value > 100 then fail("rate %s", value) end
        rate = value
      end
    end },
  set_mac = { is_port, one_of("src", "dst"), is_mac },
  set_range = { is_port, one_of("on", "off", "enable", "disable"), act = function(_, state)
    ranges.on = state == "on" or state == "enable"
  end },
  seqTable = { function(v) return is_integer(v) and v >= 0 and v < 16 end, is_port, is_packet },
  rnd = { is_port, is_integer, is_integer, is_mask },
  load = { is_text, act = function(path)
    if path:match("%.lua$") then fail("load of a script") end
    run_commands(path)
  end },
  delay = { is_integer, act = function(ms)
    time_ms = time_ms + ms
    if sending then
      sent = sent + math.floor(line_rate * rate / 100 * ms / 1000)
      received = received + math.floor(line_rate * math.min(rate, capacity) / 100 * ms / 1000)
    end
  end },
  portStats = { is_port, one_of("port", "rate"), act = function(port)
    return { [tonumber(port)] = { ipackets = port == "1" and received or 0,
      opackets = port == "0" and sent or 0 }, n = 1 }
  end },
  quit = { act = function() quit = true end },
}
if one_argument then table.remove(functions.portStats, 2) end

local function checked(name, signature)
  return function(...)
    local count = select("#", ...)
    if count ~= #signature then
      error(name .. ", wrong number of arguments", 2)
    end
    local words = {}
    for i = 1, count do
      local value = select(i, ...)
      if not signature[i](value) then
        error(string.format("stub: %s: argument %d: %s", name, i, tostring(value)), 2)
      end
      words[i] = type(value) == "table" and "{pktSize=" .. value.pktSize .. "}" or tostring(value)
    end
    print("CALL " .. name .. " " .. table.concat(words, " "))
    if signature.act then return signature.act(...) end
  end
end

local function library(table_of)
  local lib = {}
  for name, signature in pairs(table_of) do lib[name] = checked(name, signature) end
  return setmetatable(lib, { __index = function(_, name)
    error("stub: Pktgen 23.06 has no function pktgen." .. tostring(name), 2)
  end })
end

pktgen = library(functions)
rawset(pktgen, "range", library({
  dst_mac = rangeable("dst_mac", is_mac), src_ip = rangeable("src_ip", is_ip),
  dst_ip = rangeable("dst_ip", is_ip), src_port = rangeable("src_port", is_l4_port),
  dst_port = rangeable("dst_port", is_l4_port), pkt_size = rangeable("pkt_size", is_size),
  ip_proto = { is_port, one_of("tcp", "udp") },
}))

dofile(arg[1])
if sending then fail("it ends while sending") end
if not quit then fail("it ends without pktgen.quit()") end
print(string.format("TIME %.1f", time_ms / 1000))
