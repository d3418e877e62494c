// SPDX-License-Identifier: Apache-2.0
#include "dataplane/abi/node_device.hpp"

#include <net/if.h>

#include <algorithm>

namespace sluice {
namespace {

bool hex(std::string_view s) {
  return !s.empty() && s.find_first_not_of("0123456789abcdefABCDEF") == s.npos;
}

// bus_device_function() recognises "03:00.0".
bool bus_device_function(std::string_view s) {
  return s.size() == 7 && hex(s.substr(0, 2)) && s[2] == ':' && hex(s.substr(3, 2)) &&
         s[5] == '.' && s[6] >= '0' && s[6] <= '7';
}

std::string lower(std::string_view s) {
  std::string out{s};
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

}  // namespace

tl::expected<parsed_device, std::string> parse_device(std::string_view text) {
  const auto wrong = [&](std::string_view why) {
    return tl::unexpected{"'" + std::string{text.substr(0, 128)} + "' " + std::string{why}};
  };
  // Whitespace would end an EAL argument early.
  if (std::any_of(text.begin(), text.end(), [](char c) { return c <= 0x20 || c > 0x7e; }))
    return tl::unexpected{
        std::string{"has spaces or other than printable ASCII characters; expected none"}};

  if (text.substr(0, 7) == "af_xdp:") {
    const std::string_view interface = text.substr(7);
    if (interface.empty() || interface.size() >= IFNAMSIZ || interface == "." ||
        interface == ".." || interface.find_first_of("/:,") != interface.npos)
      return wrong(
          "names no network interface; expected af_xdp:IFACE with an IFACE of 1 to 15 "
          "characters, such as af_xdp:eth1");
    return parsed_device{device_kind::af_xdp, std::string{interface},
                         "af_xdp:" + std::string{interface}};
  }

  const std::string_view id = text.substr(0, text.find(','));
  if (bus_device_function(id))
    return wrong("lacks the PCI domain; expected 0000:" + std::string{id});
  const auto colon = id.find(':');
  if (colon != id.npos && colon >= 4 && colon <= 8 && hex(id.substr(0, colon)) &&
      bus_device_function(id.substr(colon + 1)))
    return parsed_device{device_kind::pci, {}, lower(id)};

  const bool vdev = id.substr(0, 4) == "net_" || id.substr(0, 11) == "virtio_user";
  const bool name = id.size() > 4 && id.size() < 64 &&
                    id.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == id.npos;
  if (vdev && name) return parsed_device{device_kind::vdev, {}, std::string{id}};
  return wrong(
      "is no device; expected af_xdp:IFACE, a PCI address such as 0000:03:00.0, or a DPDK "
      "vdev such as net_tap0,iface=tap0");
}

}  // namespace sluice
