// SPDX-License-Identifier: Apache-2.0
// lint: cold file: start-up only
// The memory of a connection table: a file that another process can map (the control
// plane to list it, the next data plane to take it over), or anonymous memory for
// tests and `sluice replay`. Cold: called at start, may block, allocates.
//
// Where: in hugetlbfs if a directory there is given and has free pages, else in the
// runtime directory, which should be on tmpfs (on a disk the kernel would write the table
// back all the time: place() tells). All pages are there when create() returns, so that
// a worker neither faults nor dies of SIGBUS later.
//
// NUMA: pages go to `numa_node` (mbind with MPOL_PREFERRED before the first touch, which
// holds for the file, whoever touches it); with -1 they go where the calling thread runs.
// Preferred, not bind: with bind a node short of huge pages would kill the process with
// SIGBUS, although others have some.
//
// The file is private to its owner (0600): it holds the hash secret. create() replaces a
// file of the same name; nothing removes it when the process ends, so that the next data
// plane can adopt() it: connections stay where they are, whatever the hash would say now.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include <tl/expected.hpp>

#include "dataplane/abi/connection_layout.hpp"
#include "dataplane/connection/private_file.hpp"

namespace sluice::connection {

struct table_file_options {
  std::string name;          // of the file; in a shared hugetlbfs unique to this data plane
  std::string runtime_dir;   // used if hugepage_dir is empty or short of pages
  std::string hugepage_dir;  // a hugetlbfs directory, or empty
  std::uint32_t worker{0};
  std::uint32_t workers{1};
  std::uint64_t connections4{0};  // of the IPv4 part: connection_layout::for_connections()
  std::uint64_t connections6{0};
  int numa_node{-1};
};

enum class table_place : std::uint8_t { hugetlbfs, tmpfs, disk, anonymous };

class table_file {
 public:
  // adopt() maps the file that an earlier data plane left in one of options' directories, if
  // everything is as this process would make it: version, sizes, worker, how many workers,
  // and it was left not long ago, in this boot, with entries that name the rows of the
  // config segment `config_instance`. The entries may be torn: connection_table::repair().
  static tl::expected<table_file, refusal> adopt(const table_file_options& options,
                                                 std::uint64_t config_instance);

  // create() makes, maps, initialises and populates a file. Errors say what failed,
  // where, and what to do.
  static tl::expected<table_file, std::string> create(const table_file_options& options);
  // anonymous() takes the sizes and worker from options; with a fixed secret the
  // placement of connections is reproducible (replay, tests); {0, 0}: random.
  static tl::expected<table_file, std::string> anonymous(
      const table_file_options& options, const std::array<std::uint64_t, 2>& secret = {0, 0});

  table_file(table_file&& other) noexcept;
  table_file& operator=(table_file&& other) noexcept;
  table_file(const table_file&) = delete;
  table_file& operator=(const table_file&) = delete;
  ~table_file();  // unmaps; the file stays

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }  // bytes mapped
  [[nodiscard]] const abi::connection_header& header() const noexcept {
    return *reinterpret_cast<const abi::connection_header*>(data_);
  }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }  // "" if anonymous
  [[nodiscard]] table_place place() const noexcept { return place_; }
  // note() says in words why the file is where it is ("" if as asked for).
  [[nodiscard]] const std::string& note() const noexcept { return note_; }
  // keep_adoptable() tells the next data plane which config segment's rows the entries name
  // (0: as before) and that this one lives. Any one thread, every second or so.
  void keep_adoptable(std::uint64_t config_instance, std::uint64_t monotonic_ns) noexcept;
  // remove() unlinks the file; the mapping stays.
  void remove() noexcept;

 private:
  table_file() = default;
  void initialise(const abi::connection_layout& layout, const table_file_options& options,
                  const std::array<std::uint64_t, 2>& secret, std::uint64_t instance) noexcept;
  static tl::expected<table_file, std::string> create_in(const std::string& directory, bool huge,
                                                         const table_file_options& options,
                                                         const abi::connection_layout& layout);

  static tl::expected<table_file, refusal> adopt_from(const std::string& directory, bool huge,
                                                      const table_file_options& options,
                                                      std::uint64_t config_instance);

  std::byte* data_{nullptr};
  std::uint64_t size_{0};
  std::string path_;
  std::string note_;
  table_place place_{table_place::anonymous};
};

}  // namespace sluice::connection
