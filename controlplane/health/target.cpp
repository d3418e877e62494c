// SPDX-License-Identifier: Apache-2.0
// What a target is, and how the socket of its probe is made.
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "controlplane/health/health_checker.hpp"
#include "controlplane/health/socket_address.hpp"

#include "dataplane/abi/fnv.hpp"

namespace sluice::health {

bool operator==(const target& a, const target& b) noexcept {
  const model::health_check& x = a.check;
  const model::health_check& y = b.check;
  if (a.address != b.address || a.port != b.port || x.kind != y.kind || x.interval != y.interval ||
      x.timeout != y.timeout || x.fast_interval != y.fast_interval || x.jitter != y.jitter ||
      x.rise != y.rise || x.fall != y.fall || x.source != y.source || a.path != b.path)
    return false;
  if (a.path && x.via != y.via) return false;
  if (model::requests(x.kind) &&
      (x.path != y.path || x.expect_first != y.expect_first || x.expect_last != y.expect_last))
    return false;
  if ((model::requests(x.kind) || x.kind == model::health_kind::grpc) && x.host != y.host)
    return false;
  // Default where the kind does not use them (model::without_unused()).
  return x.tls == y.tls && x.verify == y.verify && x.ca_file == y.ca_file && x.sni == y.sni &&
         x.send == y.send && x.answer == y.answer && x.receive == y.receive && x.name == y.name &&
         x.record == y.record && x.grpc_service == y.grpc_service && x.command == y.command &&
         x.weights == y.weights;
}

std::size_t target_hash::operator()(const target& t) const noexcept {
  // FNV-1a: also the source of each target's place in time, so the same in every process.
  fnv1a digest;
  const auto mix_byte = [&digest](std::uint8_t b) { digest.add(std::uint64_t{b}); };
  const auto mix = [&](std::uint64_t v) {
    for (int i = 0; i < 8; ++i, v >>= 8) mix_byte(static_cast<std::uint8_t>(v));
  };
  digest.add_object(t.address.bytes);
  mix((std::uint64_t{t.port} << 8) | static_cast<std::uint64_t>(t.check.kind));
  mix(static_cast<std::uint64_t>(t.check.interval.count()));
  mix(static_cast<std::uint64_t>(t.check.timeout.count()));
  mix((std::uint64_t{t.check.rise} << 32) | t.check.fall);
  // Rarely given: what has not is at the place in time that it always had.
  if (t.check.fast_interval.count() != 0 || t.check.jitter != 0) {
    mix(static_cast<std::uint64_t>(t.check.fast_interval.count()));
    mix_byte(t.check.jitter);
  }
  if (t.check.source) digest.add_object(t.check.source->bytes);
  const model::health_check& c = t.check;
  const auto mix_text = [&](std::string_view text) {
    digest.add(text);
    mix_byte(0);
  };
  if (model::requests(c.kind) || c.kind == model::health_kind::grpc) {
    if (model::requests(c.kind)) mix_text(c.path);
    digest.add(std::string_view{c.host});
    if (model::requests(c.kind)) mix((std::uint64_t{c.expect_first} << 16) | c.expect_last);
    mix_text(c.grpc_service);
  }
  if (c.tls) {
    mix_byte(c.verify ? 1 : 2);
    mix_text(c.ca_file);
    mix_text(c.sni);
  }
  if (c.kind == model::health_kind::udp) {
    mix_text(c.send);
    mix_byte(static_cast<std::uint8_t>(c.answer));
    mix_text(c.receive);
  }
  if (c.kind == model::health_kind::dns) {
    mix_text(c.name);
    mix(c.record);
  }
  for (const std::string& word : c.command) mix_text(word);
  if (c.weights) mix_byte(1);
  if (t.path) {
    digest.add_object(t.path->vip.bytes);
    mix_byte(static_cast<std::uint8_t>(t.path->mode));
    mix_byte(t.path->dscp);
    mix_byte(static_cast<std::uint8_t>(t.check.via));
  }
  // FNV's low bits are poor for short inputs (murmur3's finalizer mends them).
  std::uint64_t h = digest.value();
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccd;
  h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53;
  return h ^ (h >> 33);
}

target make_target(const ip_address& backend, std::uint16_t service_port,
                   const model::health_check& check, std::optional<data_path> path) {
  // A ping has no port: one for all services of a backend.
  const std::uint16_t port = check.kind == model::health_kind::icmp ? 0
                             : check.port != 0                      ? check.port
                                                                    : service_port;
  return {backend, port, check, std::move(path)};
}

const char* to_string(health_state s) noexcept {
  switch (s) {
    case health_state::unknown:
      return "unknown";
    case health_state::up:
      return "up";
    case health_state::down:
      return "down";
  }
  return "?";
}

tl::expected<int, std::error_code> make_plain_socket(const target& t) {
  if (t.check.kind == model::health_kind::icmp) return -1;
  const int fd = ::socket(
      t.address.is_v4() ? AF_INET : AF_INET6,
      (model::streams(t.check.kind) ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return tl::unexpected(std::error_code{errno, std::system_category()});
  if (t.check.source && t.check.source->is_v4() == t.address.is_v4()) {
    // The port is chosen at connect(), so that as many targets as there are ports can share one.
    const int later = 1;
    ::setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &later, sizeof later);
    const socket_address from = to_sockaddr(*t.check.source, 0, 0);
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&from.storage), from.length) != 0) {
      const std::error_code error{errno, std::system_category()};
      ::close(fd);
      return tl::unexpected(error);
    }
  }
  return fd;
}

std::size_t raise_file_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  if (limit.rlim_cur < limit.rlim_max) {
    const rlimit wanted{limit.rlim_max, limit.rlim_max};
    if (::setrlimit(RLIMIT_NOFILE, &wanted) == 0) limit = wanted;
  }
  return limit.rlim_cur;
}

}  // namespace sluice::health
