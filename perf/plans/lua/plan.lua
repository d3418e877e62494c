-- SPDX-License-Identifier: Apache-2.0
-- What the plans for Pktgen-DPDK (23.06) share: settings from the environment, flows, one
-- measurement, the line with its result. Loaded by each plan; never run by itself.
--
-- Port tx sends to the balancer, port rx receives what it forwards. Sizes are of frames with
-- their FCS, as Pktgen counts them.
--
-- How Pktgen makes flows decides what is written here. In range mode the headers are written
-- once per buffer when sending starts, some 16,384 buffers per TX queue: a range alone makes no
-- more flows than that. Bits set by rnd are drawn for every packet as it is sent, but no checksum
-- is corrected. So addresses are a range of 4,096, which the buffers hold whole, and what is
-- beyond that are random bits of the source port, which the IPv4 header's checksum does not cover.
local plan = {}

local function setting(name, default)
  local value = os.getenv("SLUICE_" .. name)
  if value == nil or value == "" then return default end
  return value
end

local function number(name, default, lowest)
  local text = setting(name, tostring(default))
  local value = tonumber(text)
  if value == nil or value < lowest then
    error("SLUICE_" .. name .. ": a number of at least " .. lowest .. " is wanted, not " .. text)
  end
  return value
end

plan.tx = setting("TX_PORT", "0")
plan.rx = setting("RX_PORT", "1")
plan.balancer_mac = setting("BALANCER_MAC", "02:00:00:00:00:10")
plan.vip = setting("VIP", "198.18.0.0")
plan.vip_last = setting("VIP_LAST", "198.18.0.63")
plan.client = setting("CLIENT", "10.0.0.0")
plan.service_port = math.tointeger(number("SERVICE_PORT", 80, 1))
plan.seconds = number("SECONDS", 10, 1)
plan.warm_seconds = number("WARM_SECONDS", 10, 1)
plan.rate = number("RATE", 100, 0.01) -- percent of the link
plan.result_file = setting("RESULT", nil)

local function address_number(text)
  local a, b, c, d = text:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  if a == nil then error("not an IPv4 address: " .. text) end
  return ((tonumber(a) * 256 + tonumber(b)) * 256 + tonumber(c)) * 256 + tonumber(d)
end

-- plan.address() is the address that is `more` after text.
function plan.address(text, more)
  local n = math.tointeger(address_number(text) + more)
  return string.format("%d.%d.%d.%d", n >> 24 & 255, n >> 16 & 255, n >> 8 & 255, n & 255)
end

-- plan.commands() carries out lines of Pktgen's own command language, for what its Lua
-- interface has no function for (TCP flags).
function plan.commands(lines)
  local path = os.tmpname()
  local name = path .. ".pkt" -- anything but .lua is taken for commands
  local file = assert(io.open(name, "w"))
  file:write(table.concat(lines, "\n"), "\n")
  file:close()
  pktgen.load(name)
  os.remove(name)
  os.remove(path)
end

-- plan.tcp_flag() leaves just one flag set in what the range sends: syn or ack.
function plan.tcp_flag(flag)
  plan.commands({
    "range " .. plan.tx .. " tcp flag clr all",
    "range " .. plan.tx .. " tcp flag set " .. flag,
  })
end

-- plan.start() puts both ports into a known state.
function plan.start()
  pktgen.screen("off")
  pktgen.stop(plan.tx .. "," .. plan.rx)
  pktgen.reset(plan.tx .. "," .. plan.rx)
  pktgen.clr()
  pktgen.set(plan.tx, "count", 0) -- without end
  pktgen.set(plan.tx, "burst", 64)
  pktgen.set_mac(plan.tx, "dst", plan.balancer_mac)
end

local function range(field, first, last, step)
  field(plan.tx, "start", first)
  field(plan.tx, "min", first)
  field(plan.tx, "max", last)
  field(plan.tx, "inc", step)
end

-- plan.tcp_range() sends TCP of one size from `clients` addresses, in turn to each VIP. All
-- fields step together and go on where they were when sending starts again. Where the VIPs divide
-- the clients, each client so has one VIP for good, and the flows stay the same.
function plan.tcp_range(size, clients)
  local vips = address_number(plan.vip_last) - address_number(plan.vip) + 1
  if vips < 1 or clients % vips ~= 0 then
    error("SLUICE_VIP to SLUICE_VIP_LAST: their number must divide " .. clients .. ", the clients")
  end
  local last = plan.address(plan.client, clients - 1)
  pktgen.range.ip_proto(plan.tx, "tcp")
  range(pktgen.range.dst_mac, plan.balancer_mac, plan.balancer_mac, "00:00:00:00:00:00")
  range(pktgen.range.src_ip, plan.client, last, "0.0.0.1")
  local step = plan.vip == plan.vip_last and "0.0.0.0" or "0.0.0.1"
  range(pktgen.range.dst_ip, plan.vip, plan.vip_last, step)
  range(pktgen.range.src_port, 1024, 1024, 0)
  range(pktgen.range.dst_port, plan.service_port, plan.service_port, 0)
  range(pktgen.range.pkt_size, size, size, 0)
  pktgen.set_range(plan.tx, "on")
end

-- plan.random_source_port() draws bits of the source port anew for every packet: 16 characters,
-- X drawn, 0 and 1 as they are, . as the range wrote it. 34 bytes are Ethernet's and IPv4's.
function plan.random_source_port(mask)
  pktgen.rnd(plan.tx, 0, 34, mask)
end

-- Of Pktgen after 23.06 some have portStats with the port alone.
local function statistics(port)
  local fine, all = pcall(pktgen.portStats, port, "port")
  if not fine then all = pktgen.portStats(port) end
  return all[tonumber(port)]
end

-- plan.send() sends for some seconds at rate percent; returns what was sent and what came back.
function plan.send(seconds, rate)
  pktgen.set(plan.tx, "rate", rate)
  pktgen.clr()
  pktgen.start(plan.tx)
  pktgen.delay(math.floor(seconds * 1000))
  pktgen.stop(plan.tx)
  pktgen.delay(1000) -- what is under way; and Pktgen reads its counters once a second
  local sent, back = statistics(plan.tx).opackets, statistics(plan.rx).ipackets
  if sent == 0 then error("nothing was sent: is the link of port " .. plan.tx .. " up?") end
  return sent, back
end

-- plan.establish() opens the flows that the range and the random bits describe, so that what is
-- measured are hits.
function plan.establish()
  plan.tcp_flag("syn")
  plan.send(plan.warm_seconds, plan.rate)
  plan.tcp_flag("ack")
  plan.send(1, plan.rate)
end

-- plan.report() says it as a line "RESULT {…}" and appends that object to SLUICE_RESULT.
function plan.report(name, seconds, sent, back, more)
  local lost = sent - back
  local text = string.format(
    '{"name": "%s", "unit": "Mpps", "value": %.4f, "sent": %d, "received": %d, "loss": %.6f, ' ..
      '"seconds": %g%s}',
    name, back / seconds / 1e6, sent, back, lost / sent, seconds, more and ", " .. more or "")
  print("RESULT " .. text)
  if plan.result_file then
    local file = assert(io.open(plan.result_file, "a"))
    file:write(text, "\n")
    file:close()
  end
end

-- plan.run() carries out a plan, and ends Pktgen also when it fails.
function plan.run(body)
  local fine, what = pcall(body)
  if not fine then print("FAILED " .. tostring(what)) end
  pcall(pktgen.stop, plan.tx)
  pktgen.quit()
end

return plan
