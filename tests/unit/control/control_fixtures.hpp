// SPDX-License-Identifier: Apache-2.0
// States and readers for the control plane's tests.
#pragma once

#include <unistd.h>
#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "controlplane/publish/published_state.hpp"
#include "controlplane/publish/reader_watch.hpp"
#include "dataplane/abi/generation.hpp"

namespace sluice::test {

inline ip_address v4(unsigned a, unsigned b, unsigned c, unsigned d) {
  return ip_address::v4({static_cast<std::uint8_t>(a), static_cast<std::uint8_t>(b),
                         static_cast<std::uint8_t>(c), static_cast<std::uint8_t>(d)});
}

inline publish::published_backend up_backend(const ip_address& address,
                                             std::uint32_t weight = 100) {
  publish::published_backend b;
  b.address = address;
  b.weight = b.effective_weight = weight;
  b.health = abi::shown_health::up;
  b.next_hop = publish::hop{{2, 0, 0, 0, 0, 1}, 0};
  return b;
}

// One TCP service on 198.51.100.n:80 with backends 10.n.x.y, all up.
inline publish::published_service plain_service(unsigned n, unsigned backends,
                                                std::uint32_t table_size = 1021) {
  publish::published_service s;
  char name[32];
  std::snprintf(name, sizeof name, "s%04u", n);
  s.name = name;
  s.address = v4(198, 51, 100 + n / 250, n % 250 + 1);
  s.protocol = 6;
  s.port_first = s.port_last = 80;
  s.mode = abi::forward_mode::ipip;
  s.table_size = table_size;
  for (unsigned i = 0; i < backends; ++i)
    s.backends.push_back(up_backend(v4(10, n % 250, i / 250, i % 250 + 1)));
  return s;
}

inline publish::published_state plain_state(unsigned services, unsigned backends,
                                            std::uint32_t table_size = 1021) {
  publish::published_state s;
  s.revision = 1;
  for (unsigned i = 0; i < services; ++i)
    s.services.push_back(plain_service(i, backends, table_size));
  return s;
}

// cell_watch: readers in this process.
template <std::size_t N>
class cell_watch : public publish::reader_watch {
 public:
  bool quiescent(std::uint64_t number) override {
    return abi::generation_writer<>::quiescent(cells, number);
  }
  std::uint64_t instance() const override { return counters; }
  publish::counter_sums service_sums(std::uint32_t row) const override {
    return {row + sums, row + sums, row + sums, row + sums};
  }
  publish::counter_sums backend_sums(std::uint32_t row) const override {
    return {row + sums, row + sums, row + sums, row + sums};
  }
  std::array<abi::epoch_cell<>, N> cells{};
  std::uint64_t counters{0};
  std::uint64_t sums{0};
};

// A directory of this test's own, gone afterwards.
class scratch_directory {
 public:
  scratch_directory() {
    std::string name = (std::filesystem::temp_directory_path() / "sluice-control-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~scratch_directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  scratch_directory(const scratch_directory&) = delete;
  scratch_directory& operator=(const scratch_directory&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }
  [[nodiscard]] std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace sluice::test
