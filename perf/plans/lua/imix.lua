-- SPDX-License-Identifier: Apache-2.0
-- Simple IMIX, 7 : 4 : 1 of 64, 594 and 1498 bytes. A sequence holds 16 packets at most, so these
-- are 12 flows, with 32 ports each by the random bits. 1498 and not 1518: an ipip tunnel adds 20
-- bytes, and the backends' link has an MTU of 1500. UDP: of TCP without a handshake the balancer
-- makes no flow that lasts.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local plan = dofile(here .. "plan.lua")

local sizes = { 64, 594, 64, 64, 594, 64, 64, 594, 64, 594, 64, 1498 }

plan.run(function()
  plan.start()
  for i, size in ipairs(sizes) do
    pktgen.seqTable(i - 1, plan.tx, {
      ["eth_dst_addr"] = plan.balancer_mac,
      ["eth_src_addr"] = "02:00:00:00:00:01",
      ["ip_dst_addr"] = plan.vip,
      ["ip_src_addr"] = plan.address(plan.client, i) .. "/8",
      ["sport"] = 1024,
      ["dport"] = plan.service_port,
      ["ethType"] = "ipv4",
      ["ipProto"] = "udp",
      ["vlanid"] = 1,
      ["pktSize"] = size,
      ["gtpu_teid"] = 0,
    })
  end
  pktgen.set(plan.tx, "seq_cnt", #sizes)
  plan.random_source_port("00000100000XXXXX")
  plan.send(1, plan.rate)
  local sent, back = plan.send(plan.seconds, plan.rate)
  plan.report("pktgen.imix", plan.seconds, sent, back)
end)
