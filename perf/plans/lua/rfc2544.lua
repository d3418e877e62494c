-- SPDX-License-Identifier: Apache-2.0
-- Throughput as RFC 2544, section 26.1: for each frame size the highest rate without loss, found
-- by halving, then confirmed for a longer time. SLUICE_LOSS is the share that may be lost (0),
-- SLUICE_STEP the resolution in percent of the link (0.5), SLUICE_CONFIRM_SECONDS 60 as the RFC
-- wants. 1498 is the longest that an ipip tunnel carries over a link with an MTU of 1500.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local plan = dofile(here .. "plan.lua")

local function number(name, default)
  return assert(tonumber(os.getenv(name) or default), name .. ": a number is wanted")
end

local sizes = {}
for word in (os.getenv("SLUICE_SIZES") or "64 128 256 512 1024 1280 1498"):gmatch("%S+") do
  local size = math.tointeger(tonumber(word))
  if size == nil or size < 64 or size > 1518 then error("SLUICE_SIZES: 64 to 1518, not " .. word) end
  sizes[#sizes + 1] = size
end
local allowed = number("SLUICE_LOSS", "0")
local step = number("SLUICE_STEP", "0.5")
local confirm = number("SLUICE_CONFIRM_SECONDS", "60")

local function passes(seconds, rate)
  local sent, back = plan.send(seconds, rate)
  local fine = sent - back <= allowed * sent
  print(string.format("%8.2f%%  sent %d  received %d  %s", rate, sent, back,
    fine and "passed" or "lost"))
  return fine, sent, back
end

local function search(size)
  plan.tcp_range(size, 1024)
  plan.establish()
  -- Up to good it passed, from bad on it lost; first the whole rate.
  local good, bad, rate = 0, nil, plan.rate
  while bad == nil or bad - good > step do
    if passes(plan.seconds, rate) then
      good = rate
      if good >= plan.rate then break end
    else
      bad = rate
    end
    rate = (good + bad) / 2
  end
  while good > 0 do
    local fine, sent, back = passes(confirm, good)
    if fine then
      return plan.report("pktgen.rfc2544." .. size, confirm, sent, back,
        string.format('"rate_percent": %.2f', good))
    end
    good = good - step -- passed once and not again: a step lower
  end
  print("FAILED no rate above " .. step .. "% without loss at " .. size .. " bytes")
end

plan.run(function()
  plan.start()
  for _, size in ipairs(sizes) do search(size) end
end)
