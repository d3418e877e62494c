// SPDX-License-Identifier: Apache-2.0
#include "tools/replay/capture.hpp"

#include <pcap/pcap.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

namespace sluice {
namespace {

// A microsecond pcap says so in its first four bytes, in either byte order. pcapng has a
// resolution for each interface, so anything is possible there.
bool is_microsecond_pcap(const std::string& path) {
  std::array<unsigned char, 4> magic{};
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file{std::fopen(path.c_str(), "rb"),
                                                       &std::fclose};
  if (file == nullptr || std::fread(magic.data(), 1, magic.size(), file.get()) != magic.size())
    return false;
  return magic == std::array<unsigned char, 4>{0xa1, 0xb2, 0xc3, 0xd4} ||
         magic == std::array<unsigned char, 4>{0xd4, 0xc3, 0xb2, 0xa1};
}

}  // namespace

void capture_reader::closer::operator()(pcap* p) const noexcept {
  ::pcap_close(p);
}
void capture_writer::closer::operator()(pcap* p) const noexcept {
  ::pcap_close(p);
}
void capture_writer::closer::operator()(pcap_dumper* d) const noexcept {
  ::pcap_dump_close(d);
}

tl::expected<capture_reader, std::string> capture_reader::open(const std::string& path) {
  std::array<char, PCAP_ERRBUF_SIZE> error{};
  capture_reader r;
  r.path_ = path;
  r.pcap_.reset(::pcap_open_offline_with_tstamp_precision(path.c_str(), PCAP_TSTAMP_PRECISION_NANO,
                                                          error.data()));
  if (r.pcap_ == nullptr) {
    std::string why = error.data();
    // libpcap names the file itself in some of its messages.
    if (!why.starts_with(path + ":")) why.insert(0, path + ": ");
    return tl::make_unexpected(why);
  }
  if (const int link = ::pcap_datalink(r.pcap_.get()); link != DLT_EN10MB) {
    const char* name = ::pcap_datalink_val_to_name(link);
    return tl::make_unexpected(path + ": link type " + (name != nullptr ? name : "unknown") + " (" +
                               std::to_string(link) +
                               ") is not Ethernet: capture on an Ethernet interface, not on 'any'");
  }
  r.nanoseconds_ = !is_microsecond_pcap(path);
  return r;
}

tl::expected<std::optional<captured>, std::string> capture_reader::next() {
  pcap_pkthdr* header = nullptr;
  const unsigned char* data = nullptr;
  const int got = ::pcap_next_ex(pcap_.get(), &header, &data);
  if (got == PCAP_ERROR_BREAK) return std::optional<captured>{};
  if (got != 1)
    return tl::make_unexpected(path_ + ": after packet " + std::to_string(count_) + ": " +
                               ::pcap_geterr(pcap_.get()));
  ++count_;
  // With nanosecond precision asked for, tv_usec holds nanoseconds.
  const auto seconds = static_cast<std::uint64_t>(header->ts.tv_sec);
  const auto rest = static_cast<std::uint64_t>(header->ts.tv_usec);
  return std::optional{captured{seconds * 1'000'000'000u + rest,
                                {reinterpret_cast<const std::byte*>(data), header->caplen}}};
}

tl::expected<capture_writer, std::string> capture_writer::create(const std::string& path,
                                                                 bool nanoseconds) {
  capture_writer w;
  w.path_ = path;
  w.nanoseconds_ = nanoseconds;
  constexpr int snaplen = 262144;  // libpcap's own limit for Ethernet
  w.pcap_.reset(::pcap_open_dead_with_tstamp_precision(
      DLT_EN10MB, snaplen, nanoseconds ? PCAP_TSTAMP_PRECISION_NANO : PCAP_TSTAMP_PRECISION_MICRO));
  if (w.pcap_ == nullptr) return tl::make_unexpected(path + ": out of memory");
  w.dumper_.reset(::pcap_dump_open(w.pcap_.get(), path.c_str()));
  if (w.dumper_ == nullptr) {
    std::string why = ::pcap_geterr(w.pcap_.get());
    if (!why.starts_with(path + ":")) why.insert(0, path + ": ");
    return tl::make_unexpected(why);
  }
  return w;
}

void capture_writer::write(std::uint64_t time_ns, std::span<const std::byte> frame) {
  pcap_pkthdr header{};
  header.ts.tv_sec = static_cast<decltype(header.ts.tv_sec)>(time_ns / 1'000'000'000u);
  const std::uint64_t rest = time_ns % 1'000'000'000u;
  header.ts.tv_usec = static_cast<decltype(header.ts.tv_usec)>(nanoseconds_ ? rest : rest / 1000);
  header.caplen = header.len = static_cast<bpf_u_int32>(frame.size());
  ::pcap_dump(reinterpret_cast<unsigned char*>(dumper_.get()), &header,
              reinterpret_cast<const unsigned char*>(frame.data()));
}

tl::expected<void, std::string> capture_writer::close() {
  std::FILE* file = ::pcap_dump_file(dumper_.get());
  errno = 0;
  const bool ok = ::pcap_dump_flush(dumper_.get()) == 0 && std::ferror(file) == 0;
  const int error = errno;
  dumper_.reset();
  pcap_.reset();
  if (!ok)
    return tl::make_unexpected(
        path_ + ": cannot write: " + (error != 0 ? std::strerror(error) : "input/output error"));
  return {};
}

}  // namespace sluice
