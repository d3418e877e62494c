-- SPDX-License-Identifier: Apache-2.0
-- 64-byte frames of established TCP flows: 1,024 of them unless SLUICE_CLIENTS says else.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local plan = dofile(here .. "plan.lua")

plan.run(function()
  local clients = math.tointeger(tonumber(os.getenv("SLUICE_CLIENTS") or "1024"))
  if clients == nil or clients < 1 or clients > 4096 then
    error("SLUICE_CLIENTS: 1 to 4096 (a range is written once per buffer)")
  end
  plan.start()
  plan.tcp_range(64, clients)
  plan.establish()
  local sent, back = plan.send(plan.seconds, plan.rate)
  plan.report("pktgen.64", plan.seconds, sent, back)
end)
