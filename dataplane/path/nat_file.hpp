// SPDX-License-Identifier: Apache-2.0
// lint: cold file: start-up and housekeeping only
// nat_file: where the NAT sessions of one worker are, so that the next data plane can go on
// with them (nat_table::adopt()). A sparse file in the runtime directory, private to its owner:
// a header, and from the first page on an array of nat_session.
//
// It belongs to a connection table, named by the random number in that one's header: boot,
// clock, secret, workers and config segment are the same if the table was adopted, and nothing
// here says so again.
//
// Memory: the worker must not meet a page that is not there, which on a full tmpfs is a SIGBUS.
// So housekeeping makes pages present ahead of it (grow()) and tells the table how far it may
// go (nat_table::set_room()). Where no service translates, that is a quarter of a MiB.
//
// Threading: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

#include <tl/expected.hpp>

#include "dataplane/connection/private_file.hpp"
#include "dataplane/path/nat_table.hpp"

namespace sluice {

inline constexpr std::uint64_t nat_file_magic = 0x3154414e'43554c53ull;  // "SLUCNAT1"
inline constexpr std::uint32_t nat_file_version = 2;  // of the header and of nat_session

struct alignas(cache_line) nat_file_header {
  std::uint64_t magic;    // nat_file_magic; written last by whoever creates the file
  std::uint32_t version;  // nat_file_version
  std::uint32_t worker;
  std::uint64_t table;  // connection_header::instance of the worker's connection table
  std::uint32_t sessions;
  std::uint32_t session_size;  // bytes
  std::uint64_t checksum;      // nat_file_checksum()
  // Written while the file is in use.
  std::uint32_t present;    // sessions that have memory; none beyond was ever used
  std::uint32_t next_port;  // nat_table::next_port()
  std::uint64_t reserved0[2];
};
static_assert(sizeof(nat_file_header) == cache_line);
static_assert(std::has_unique_object_representations_v<nat_file_header>);

// nat_file_checksum() covers what does not change while the file is in use. FNV-1a.
[[nodiscard]] std::uint64_t nat_file_checksum(const nat_file_header& header) noexcept;

struct nat_file_options {
  std::string name;
  std::string runtime_dir;
  std::uint32_t worker{0};
  std::uint32_t sessions{0};
  std::uint64_t table{0};  // connection_header::instance
  int numa_node{-1};
};

class nat_file {
 public:
  // adopt() maps what an earlier data plane left, if it is what this one would make. What it
  // had taken has memory again: present().
  static tl::expected<nat_file, connection::refusal> adopt(const nat_file_options& options);
  // create() replaces a file of the same name. Errors say what failed, where and why.
  static tl::expected<nat_file, std::string> create(const nat_file_options& options);

  nat_file(nat_file&& other) noexcept;
  nat_file& operator=(nat_file&& other) noexcept;
  nat_file(const nat_file&) = delete;
  nat_file& operator=(const nat_file&) = delete;
  ~nat_file();  // unmaps; the file stays

  [[nodiscard]] std::span<nat_session> sessions() const noexcept;
  [[nodiscard]] std::uint32_t present() const noexcept { return header().present; }
  [[nodiscard]] std::uint32_t next_port() const noexcept { return header().next_port; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  // grow() has memory for `used` sessions and as many more as may come until the next call,
  // 50 ms later; the capacity is the limit. Returns 0 or errno (ENOSPC): present() is what
  // there is all the same.
  int grow(std::uint32_t used) noexcept;
  void note_port(std::uint32_t next_port) noexcept;
  void remove() noexcept;  // unlinks the file; the mapping stays

 private:
  nat_file() = default;
  tl::expected<void, std::string> map(const std::string& path, file_descriptor file,
                                      const nat_file_options& options);
  int make_present(std::uint64_t sessions) noexcept;
  [[nodiscard]] nat_file_header& header() const noexcept {
    return *reinterpret_cast<nat_file_header*>(data_);
  }

  std::byte* data_{nullptr};
  std::uint64_t size_{0};
  file_descriptor file_;
  std::string path_;
};

}  // namespace sluice
