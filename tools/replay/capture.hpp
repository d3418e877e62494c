// SPDX-License-Identifier: Apache-2.0
// Capture files through libpcap: reading pcap and pcapng, writing pcap. One thread each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <tl/expected.hpp>

struct pcap;
struct pcap_dumper;

namespace sluice {

struct captured {
  std::uint64_t time_ns;             // since 1970
  std::span<const std::byte> bytes;  // what the file holds; valid until the next next()
};

class capture_reader {
 public:
  // open() refuses what is no capture, and link types other than Ethernet.
  static tl::expected<capture_reader, std::string> open(const std::string& path);

  // next() returns nothing at the end of the file.
  tl::expected<std::optional<captured>, std::string> next();
  // nanoseconds() tells whether the file may hold times finer than microseconds.
  [[nodiscard]] bool nanoseconds() const noexcept { return nanoseconds_; }

 private:
  struct closer {
    void operator()(pcap* p) const noexcept;
  };
  std::string path_;
  std::unique_ptr<pcap, closer> pcap_;
  std::uint64_t count_{0};
  bool nanoseconds_{false};
};

class capture_writer {
 public:
  static tl::expected<capture_writer, std::string> create(const std::string& path,
                                                          bool nanoseconds);
  void write(std::uint64_t time_ns, std::span<const std::byte> frame);
  // close() flushes; an error is that of any write before.
  tl::expected<void, std::string> close();

 private:
  struct closer {
    void operator()(pcap* p) const noexcept;
    void operator()(pcap_dumper* d) const noexcept;
  };
  std::string path_;
  std::unique_ptr<pcap, closer> pcap_;
  std::unique_ptr<pcap_dumper, closer> dumper_;
  bool nanoseconds_{false};
};

}  // namespace sluice
