// SPDX-License-Identifier: Apache-2.0
// The steering program that is attached to an interface, and its maps. Internal to
// bpf_loader; one thread at a time.
#pragma once

#include <bpf/bpf.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <tl/expected.hpp>

#include "dataplane/abi/file_descriptor.hpp"

namespace sluice::bpf_loader {

struct steer_error {
  enum class kind : std::uint8_t {
    not_attached,  // no program of ours: the data plane is not (yet) there; try again later
    invalid,       // the VIP set itself cannot be had; text says why
    failed,        // the kernel refused
  };
  kind what;
  std::string text;
};

// attached_program: by numbers, without a descriptor. A data plane that starts takes whoever has
// its program open for another one that lives; writing all maps takes a while.
struct attached_program {
  int ifindex{};
  std::uint32_t id{};
  std::uint32_t mode_flags{};  // XDP_FLAGS_*_MODE it is attached with
  std::vector<std::uint32_t> map_ids;
};

tl::unexpected<steer_error> failed(std::string what, int error);

// find_program() returns the program when it is ours.
tl::expected<attached_program, steer_error> find_program(const std::string& interface);

// open_map() refuses a map whose keys or values have another size.
tl::expected<file_descriptor, steer_error> open_map(const attached_program& program,
                                                    std::string_view name, std::uint32_t key_size,
                                                    std::uint32_t value_size);

struct bytes_less {
  template <class T>
  bool operator()(const T& a, const T& b) const noexcept {
    static_assert(std::has_unique_object_representations_v<T>);
    return std::memcmp(&a, &b, sizeof a) < 0;
  }
};

// read_map() reads a hash map or trie of at most `most` entries.
template <class Map>
tl::expected<Map, steer_error> read_map(int map, const char* name, std::size_t most) {
  Map present;
  typename Map::key_type key{};
  const typename Map::key_type* previous = nullptr;
  for (typename Map::key_type next{}; bpf_map_get_next_key(map, previous, &next) == 0;) {
    typename Map::mapped_type value{};
    if (bpf_map_lookup_elem(map, &next, &value) == 0) present.insert_or_assign(next, value);
    key = next;
    previous = &key;
    // A concurrent writer can make the walk start over; a map never holds more.
    if (present.size() > most) return failed(std::string{"reading "} + name, EOVERFLOW);
  }
  if (errno != ENOENT) return failed(std::string{"reading "} + name, errno);
  return present;
}

// add_missing() writes what `present` has not or has otherwise; returns how many.
template <class Map>
tl::expected<std::size_t, steer_error> add_missing(int map, const Map& wanted, const Map& present) {
  std::size_t added = 0;
  for (const auto& [key, value] : wanted) {
    const auto there = present.find(key);
    if (there != present.end() && std::memcmp(&there->second, &value, sizeof(value)) == 0) continue;
    if (bpf_map_update_elem(map, &key, &value, BPF_ANY) != 0)
      return failed("adding to a map", errno);
    ++added;
  }
  return added;
}

// remove_extra() removes what is not wanted; returns how many.
template <class Map>
tl::expected<std::size_t, steer_error> remove_extra(int map, const Map& wanted,
                                                    const Map& present) {
  std::size_t removed = 0;
  for (const auto& [key, value] : present) {
    if (wanted.find(key) != wanted.end()) continue;
    if (bpf_map_delete_elem(map, &key) != 0 && errno != ENOENT)
      return failed("removing from a map", errno);
    ++removed;
  }
  return removed;
}

}  // namespace sluice::bpf_loader
