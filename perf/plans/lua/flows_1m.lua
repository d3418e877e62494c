-- SPDX-License-Identifier: Apache-2.0
-- 64-byte frames of 2^20 established TCP flows: 4,096 clients with 256 ports each. How many the
-- balancer holds afterwards is shown by its own statistics: less than that means that Pktgen
-- reused buffers (its pool's cache).
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local plan = dofile(here .. "plan.lua")

plan.run(function()
  plan.start()
  plan.tcp_range(64, 4096)
  plan.random_source_port("00000100XXXXXXXX") -- 1024 to 1279
  plan.establish()
  local sent, back = plan.send(plan.seconds, plan.rate)
  plan.report("pktgen.1M", plan.seconds, sent, back)
end)
