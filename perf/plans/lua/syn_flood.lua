-- SPDX-License-Identifier: Apache-2.0
-- SYNs of 64 bytes that hardly ever repeat: 4,096 addresses with 32,768 ports, 2^27 tuples.
-- Loss is not the point here: what a flood does to others is (docs/pktgen.md).
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local plan = dofile(here .. "plan.lua")

plan.run(function()
  plan.start()
  plan.tcp_range(64, 4096)
  plan.random_source_port("1XXXXXXXXXXXXXXX")
  plan.tcp_flag("syn")
  local sent, back = plan.send(plan.seconds, plan.rate)
  plan.report("pktgen.synflood", plan.seconds, sent, back)
end)
